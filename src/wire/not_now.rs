//! How a refusal begins that says "not taken in; come again": the daemon says it, clients go by it.

use super::command::{FAILED, UNAVAILABLE};

/// Why follows.
pub const SUSPENDED: &str = "sending suspended: ";
/// Perhaps more follows.
pub const QUEUE_FULL: &str = "queue full";
/// What follows says so if it is not the disk, and `queue.ids_max` is reached.
pub const IDS_FULL: &str = "ids are remembered";
pub const QUEUE_GONE: &str = "the queue's folder was moved away";
pub const STOPPING: &str = "stopping";
pub const DRAINING: &str = "draining";
/// They are being read, or cannot be.
pub const IDS_UNREAD: &str = "the ids of queued messages";

const ALL: [&str; 6] = [SUSPENDED, QUEUE_FULL, QUEUE_GONE, STOPPING, DRAINING, IDS_UNREAD];

/// Whether a result says so. Its code is FAILED where clients are to be spared UNAVAILABLE
/// (`server.unavailable_code`).
pub fn is_not_now(code: u16, message: &str) -> bool {
    code == UNAVAILABLE || code == FAILED && ALL.iter().any(|words| message.starts_with(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_failure_under_either_code() {
        for message in [
            "sending suspended: rate",
            "queue full: no room",
            "the queue's folder was moved away",
            "stopping",
            "draining",
            "the ids of queued messages are being read; come again",
        ] {
            assert!(is_not_now(FAILED, message) && is_not_now(UNAVAILABLE, message), "{message}");
            assert!(!is_not_now(400, message), "{message}");
        }
        assert!(!is_not_now(FAILED, "no usable answer: timeout"));
    }
}
