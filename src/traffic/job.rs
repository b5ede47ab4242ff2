//! A message on its way through a worker's hands, and what became of it. Plain data.

use super::batch::ReplyTo;
use crate::queue::Message;
use std::time::Instant;

/// A message in a worker's hands.
pub struct Job {
    pub message: Message,
    /// Present for a send.
    pub waiting: Option<Waiting>,
}

/// The client that waits for the result of a send.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub to: ReplyTo,
    /// Until when failures that may pass are tried again.
    pub until: Instant,
    /// The id of the first push that came after it.
    pub before: u64,
}

pub struct Outcome {
    pub job: Job,
    /// None: it was not begun, because sending has just stopped.
    pub verdict: Option<Verdict>,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Verdict {
    Delivered {
        duplicate: bool,
    },
    /// It can never be delivered.
    Failed(Reason),
    /// Another attempt may succeed.
    Later(Reason),
    /// One more attempt may succeed.
    Once(Reason),
    /// WeChat was not reached, or there is no token for now: nothing was sent, and the message is not to blame.
    Unreachable(Reason),
    /// WeChat may have taken it, or not.
    Unclear(Reason),
    /// WeChat limits this one recipient.
    OpenidRate(Reason),
    /// The account's limit is reached.
    Rate(Reason),
    /// The account or the configuration is at fault.
    Config(Reason),
}

#[derive(Debug, Clone)]
pub struct Reason {
    pub errcode: Option<i64>,
    /// One line.
    pub text: String,
    /// WeChat's own answer, as a client that waits for it is told.
    pub answer: Option<String>,
}

impl Reason {
    pub fn text(text: impl Into<String>) -> Reason {
        Reason { errcode: None, text: text.into(), answer: None }
    }
}
