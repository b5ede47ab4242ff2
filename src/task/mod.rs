//! Batches: one template, a list of people, and what became of each of them. For `mega-task`, over the public
//! protocol; nothing of it runs in the daemon.
//!
//! - `list`: reads what people keep their lists in, and keeps the people of one task.
//! - `event`: what a task tells of itself, and `control`: what it is asked to do.

mod control;
mod event;
pub mod list;

pub use control::{Control, Haste, Wish};
pub use event::{End, Event, Failure, Progress, Status, Watch, Why};
