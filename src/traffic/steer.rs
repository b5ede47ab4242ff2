//! How administrators steer the daemon: their orders to the spool, and what they are told. Cross the
//! administration socket as JSON. Plain data.

use super::batch::ReplyTo;
use crate::queue::{Purpose, Which};
use serde::{Deserialize, Serialize};

/// The longest text that is kept of an order's reason, in bytes.
const WHY: usize = 500;

/// Orders under way to the spool: beyond that whoever gives one is told to ask again.
pub const STEERS: usize = 4;

/// An order, and who gave it.
pub struct Steer {
    pub to: ReplyTo,
    /// The user at the other end of the socket, as the kernel has it.
    pub by: String,
    pub order: Steering,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steering {
    /// Nothing is handed out any more.
    Pause {
        why: String,
    },
    /// Ends a pause, or else the draining.
    Resume,
    /// Requests are refused, and when nothing is left the daemon stops.
    Drain,
    EndDrain,
    /// What is queued and meant is ended, or counted.
    Cancel {
        which: Which,
        purpose: Purpose,
    },
    /// How far such an order has come.
    Progress(u64),
}

/// The body of the question `stop`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// Without waiting for calls to WeChat that are under way.
    pub now: bool,
}

/// The body of the question `cancel`: an order, or the number of one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    pub which: Which,
    /// To count what would be ended, and end nothing.
    pub dry_run: bool,
    pub number: Option<u64>,
}

/// The answer: how far an order to cancel has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cancelling {
    pub number: u64,
    pub by: String,
    /// Seconds since 1970.
    pub since: u64,
    pub which: Which,
    pub dry_run: bool,
    /// What was queued when it began, and how much of that was looked at.
    pub total: u64,
    pub scanned: u64,
    /// What was ended, or would be.
    pub count: u64,
    /// Nothing is left to be done.
    pub done: bool,
}

/// The body of the question `log-level`, and its answer: as it was before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    pub level: String,
}

/// The body of the question `pause`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Why {
    pub why: String,
}

/// Who paused sending, why, and since when (seconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    pub by: String,
    pub why: String,
    pub since: u64,
}

/// The answer to `pause` and `resume`: how it was before.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Steered {
    pub paused: Option<Paused>,
    pub draining: bool,
    /// Pushes that are queued.
    pub queued: u64,
}

impl Paused {
    /// What everybody is told.
    pub fn text(&self) -> String {
        match self.why.as_str() {
            "" => format!("paused by {}", self.by),
            why => format!("paused by {}: {why}", self.by),
        }
    }
}

/// A text as it can stand in a line of the log, and no longer than that.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|character| !character.is_control());
    line.truncate(line.floor_char_boundary(WHY));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(one_line(" wrong\nprice \u{1b}[31m list "), "wrong price [31m list");
        let long = one_line(&"价".repeat(400));
        assert!(long.len() <= WHY && long.chars().all(|character| character == '价'));
    }

    #[test]
    fn who_is_told_of_a_pause_learns_by_whom_and_why() {
        let paused = |why: &str| Paused { by: "ann".into(), why: why.into(), since: 1 };
        assert_eq!(paused("").text(), "paused by ann");
        assert_eq!(paused("wrong price").text(), "paused by ann: wrong price");
    }
}
