//! What the spool tells of itself: its account, published once a turn. Part of the spool's loop.

use super::Spool;
use crate::clock::Now;
use crate::stats::{Account, Refusal, SAMPLE};
use crate::traffic::batch::ReplyTo;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The account, and when its clocks were looked at last.
pub struct Books {
    pub account: Account,
    /// Up to when the workers' time is counted.
    busy_until: Instant,
    sampled: Option<Instant>,
}

impl Books {
    pub fn new(account: Account, now: Instant) -> Books {
        Books { account, busy_until: now, sampled: None }
    }
}

impl Spool {
    /// Not now, and why.
    pub(super) fn refuse(
        &mut self,
        to: ReplyTo,
        refusal: Refusal,
        why: impl Into<Cow<'static, str>>,
    ) {
        self.books.account.refuse(refusal);
        self.answers.not_now(to, why);
    }

    /// Before anything of a turn is counted.
    pub(super) fn sample(&mut self, now: Now) {
        if self.books.sampled.is_none_or(|at| now.at >= at + SAMPLE) {
            self.books.sampled = Some(now.at);
            self.stats.remember();
        }
    }

    /// Shows what there is (A1, A2): every append is committed, and every reply is on its way.
    pub(super) fn publish(&mut self, now: Now) {
        let oldest = self.oldest(now);
        let Books { account, busy_until, .. } = &mut self.books;
        let worked = now.at.saturating_duration_since(*busy_until).as_micros() as u64;
        *busy_until += Duration::from_micros(worked);
        account.hands.busy += account.hands.in_flight() * worked;

        account.at = now.ms;
        account.pushes.found = self.queue.found();
        account.pushes.lost = self.queue.lost();
        account.pushes.queued = self.queue.depth();
        account.sends.waiting = self.sends.len() as u64;
        account.hands.workers = self.inside.workers as u64;
        account.hands.handed_out = (self.pushes.in_flight() + self.sends.in_flight()) as u64;
        account.hands.unrecorded = self.ends.unrecorded() as u64;
        account.hands.cancelling = self.ends.cancelling() as u64;
        account.queue.bytes = self.queue.bytes();
        account.queue.segments = self.queue.segments() as u64;
        account.queue.retrying = self.queue.retrying() as u64;
        account.queue.oldest = oldest;
        account.day = self.throttle.day();
        self.stats.publish(account);
    }

    /// When the push was accepted that is the next to go out, or, where some are on their way, the last one that
    /// went: the queue is looked into only where nothing moves.
    fn oldest(&mut self, now: Now) -> Option<u64> {
        match self.pushes.in_flight() {
            0 => self.pushes.peeked().or_else(|| self.queue.next_enqueued(now.ms)),
            _ => Some(self.pushes.last_left()),
        }
    }
}
