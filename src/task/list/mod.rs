//! The people of a task: read from a plain list, CSV or xlsx, looked through before anything goes out, and kept in
//! the task's folder in the order in which they are sent to. Knows no network and no daemon.

mod kept;

pub use kept::{Keeper, Kept};

/// Somebody to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Where the list has it, the first line being 1.
    pub line: u64,
    pub openid: String,
    /// The variables of this person, as a JSON object; empty: none.
    pub data: String,
}
