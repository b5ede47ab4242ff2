//! What the spool has counted since the daemon began. Plain numbers of one thread.
//!
//! Two equations hold whenever the spool publishes:
//!
//! - A1, pushes: `found + accepted + requeued = delivered + failed + cancelled + lost + queued`
//! - A2, sends: `accepted = delivered + failed + given_up + waiting`
//!
//! A push is `queued` until its end is known and written down: in line, waiting for a retry, ready for a worker,
//! in a worker's hands, or failed and not recorded in the ledger yet. The last two are shown apart as well, as
//! `in_flight` and `unrecorded`. A push that is retried is one push.

use super::Refusal;
use crate::class::{Class, TABLE};

#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// When it was published, in ms since 1970.
    pub at: u64,
    pub pushes: Pushes,
    pub sends: Sends,
    /// What attempts came to, by class.
    pub classes: [u64; TABLE.len()],
    /// Of those that WeChat took, the ones it had already.
    pub duplicates: u64,
    /// Requests that were answered like an earlier one with the same id.
    pub repeated: u64,
    /// Attempts that are followed by another.
    pub retried: u64,
    /// What was refused, by its reason.
    pub refused: [u64; Refusal::ALL.len()],
    /// Parts of segments that could not be read.
    pub damaged: u64,
    pub hands: Hands,
    pub queue: Queue,
    pub day: Day,
}

/// A1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pushes {
    /// They waited when the daemon began.
    pub found: u64,
    /// Answered 200.
    pub accepted: u64,
    /// Failed ones that were put into the queue again.
    pub requeued: u64,
    /// WeChat took them.
    pub delivered: u64,
    /// They ended undelivered, and the ledger has them.
    pub failed: u64,
    /// An operator ended them before their turn, and the ledger has them.
    pub cancelled: u64,
    /// What was counted and cannot be read: the disk has lost it.
    pub lost: u64,
    /// Right now.
    pub queued: u64,
}

/// A2.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sends {
    /// Taken in, to be sent.
    pub accepted: u64,
    /// WeChat took them.
    pub delivered: u64,
    /// WeChat was asked, and their clients were told why it did not take them.
    pub failed: u64,
    /// Their clients were told that sending is suspended, or that the daemon stops.
    pub given_up: u64,
    /// Right now.
    pub waiting: u64,
}

/// Messages of both kinds on their way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hands {
    pub workers: u64,
    /// Handed out, and their outcomes not known.
    pub handed_out: u64,
    /// What workers have worked, all together, up to `Account::at`, in microseconds.
    pub busy: u64,
    /// Pushes that have failed or were cancelled, and that the ledger has not recorded yet.
    pub unrecorded: u64,
    /// Of these, those that were cancelled.
    pub cancelling: u64,
}

impl Hands {
    /// In workers' hands: a worker never rests while something is ready.
    pub fn in_flight(&self) -> u64 {
        self.handed_out.min(self.workers)
    }

    /// Handed out, and waiting for a worker.
    pub fn ready(&self) -> u64 {
        self.handed_out - self.in_flight()
    }

    /// Pushes that have failed, and wait for the ledger.
    pub fn failed(&self) -> u64 {
        self.unrecorded - self.cancelling
    }
}

/// What is on the disk, right now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    /// Bytes of records in the segments in which something waits.
    pub bytes: u64,
    pub segments: u64,
    /// Pushes that were handed out before and go out again, now or at their time.
    pub retrying: u64,
    /// When the push at the head of the line was accepted, in ms since 1970. Those that wait for their next
    /// attempt are not in line.
    pub oldest: Option<u64>,
}

/// What went out in a day of WeChat's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Day {
    /// Days since 1970 at UTC+8.
    pub number: u64,
    pub sent: u64,
    /// Zero: there is none.
    pub limit: u64,
}

impl Account {
    /// An attempt came to this.
    pub fn came_to(&mut self, class: Class) {
        self.classes[class as usize] += 1;
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        self.refused[refusal as usize] += 1;
    }

    /// A1 and A2.
    #[cfg(test)]
    pub fn check(&self) {
        let Pushes { found, accepted, requeued, delivered, failed, cancelled, lost, queued } =
            self.pushes;
        let ended = delivered + failed + cancelled + lost;
        assert_eq!(found + accepted + requeued, ended + queued, "{self:?}");
        let Sends { accepted, delivered, failed, given_up, waiting } = self.sends;
        assert_eq!(accepted, delivered + failed + given_up + waiting, "{self:?}");
    }
}
