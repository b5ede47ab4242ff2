//! A message on its way through a worker's hands, and what became of it. Plain data.

use super::batch::ReplyTo;
use super::class::{Class, Gate};
use crate::queue::{Mark, Message};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A message in a worker's hands.
pub struct Job {
    pub message: Message,
    /// Present for a send.
    pub waiting: Option<Waiting>,
    /// It alone finds out whether sending may go on.
    pub probe: bool,
    /// Which round of handing out it belongs to.
    pub round: u64,
}

/// The client that waits for the result of a send.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub to: ReplyTo,
    /// None over the administration socket.
    pub client: Option<IpAddr>,
    /// Until when failures that may pass are tried again.
    pub until: Instant,
    /// Pushes that were accepted later stand behind it.
    pub before: Mark,
}

pub struct Outcome {
    pub job: Job,
    /// None: it was not begun, because its round was over.
    pub verdict: Option<Verdict>,
    /// How long the last call to WeChat took.
    pub called: Option<Duration>,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Verdict {
    Delivered {
        /// WeChat had it already.
        duplicate: bool,
        /// WeChat's own number for it.
        msgid: Option<u64>,
    },
    Refused(Class, Reason),
}

impl Verdict {
    pub fn class(&self) -> Class {
        match self {
            Verdict::Delivered { .. } => Class::Ok,
            Verdict::Refused(class, _) => *class,
        }
    }

    /// Nobody else need try: the worker that meets it ends the job's round, and so does the spool when it hears.
    pub fn ends_round(&self) -> bool {
        matches!(self.class().row().gate, Gate::Closes(_))
    }
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

/// The round of handing out: a worker that meets a limit or a fault of the account ends it, and nobody
/// begins a job of an earlier round, whatever lies in the channels, until the spool has heard of it and hands
/// out anew.
#[derive(Clone, Default)]
pub struct Round(Arc<AtomicU64>);

impl Round {
    pub fn has_ended(&self, job: &Job) -> bool {
        job.round < self.0.load(Ordering::Acquire)
    }

    /// Ends the job's round. Those that end it again have met the same.
    pub fn end(&self, round: u64) {
        self.0.fetch_max(round + 1, Ordering::AcqRel);
    }

    pub fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::New;

    #[test]
    fn a_round_that_one_worker_ends_is_over_for_what_others_hold_and_not_for_the_next() {
        let round = Round::default();
        let job = |number| {
            let message =
                Message::in_memory(1, 1, 0, New { openid: b"o", key: b"k", data: b"" }, b"");
            Job { message, waiting: None, probe: false, round: number }
        };
        let old = job(round.current());
        assert!(!round.has_ended(&old));
        round.end(old.round);
        round.end(old.round);
        assert!(round.has_ended(&old));
        assert!(!round.has_ended(&job(round.current())));
    }
}
