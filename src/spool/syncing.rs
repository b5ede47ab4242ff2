//! When the queue is made durable in the background. Part of the spool's state.

use crate::config::SyncPolicy;
use std::time::{Duration, Instant};

/// Under `sync = always` the marks of done messages are not waited for; they follow so soon.
const MARKS_INTERVAL: Duration = Duration::from_secs(1);

pub struct Syncing {
    pub policy: SyncPolicy,
    /// Since when.
    under_way: Option<Instant>,
    next: Option<Instant>,
}

impl Syncing {
    pub fn new(policy: SyncPolicy) -> Syncing {
        Syncing { policy, under_way: None, next: None }
    }

    /// Something was stored that the next sync is to cover.
    pub fn wanted(&mut self) {
        if self.next.is_none() && !self.is_under_way() {
            self.next = match self.policy {
                SyncPolicy::Every(interval) => Some(Instant::now() + interval),
                SyncPolicy::Always => Some(Instant::now() + MARKS_INTERVAL),
                SyncPolicy::Never => None,
            };
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// True if a sync is to be ordered now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = !self.is_under_way() && self.next.is_some_and(|at| at <= now);
        if due {
            self.next = None;
        }
        due
    }

    pub fn ordered(&mut self) {
        self.under_way = Some(Instant::now());
    }

    /// Returns how long it took.
    pub fn done(&mut self) -> Option<Duration> {
        self.under_way.take().map(|since| since.elapsed())
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}
