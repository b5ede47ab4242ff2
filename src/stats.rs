//! Counters that the spool keeps and the reactor shows in `status`. Since the start of the daemon
//! where not said otherwise. Never used to decide anything.

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub struct Stats {
    /// Messages accepted and not done, on disk, right now.
    pub depth: AtomicU64,
    /// Bytes of records in the segments that are kept, right now.
    pub bytes: AtomicU64,
    pub segments: AtomicU64,
    /// Messages in workers' hands or ready for them, right now.
    pub in_flight: AtomicU64,
    /// Sends whose clients are waiting, right now.
    pub sends: AtomicU64,
    /// Pushes answered 200.
    pub accepted: AtomicU64,
    /// Messages WeChat took.
    pub delivered: AtomicU64,
    /// Of these, the ones WeChat had already.
    pub duplicates: AtomicU64,
    /// Messages that ended without being delivered.
    pub failed: AtomicU64,
    /// Attempts that are followed by another.
    pub retried: AtomicU64,
    /// Requests that the spool answered with "not now".
    pub refused: AtomicU64,
    /// The same of the reactor, which alone writes this one; `refused` in `status` is their sum.
    pub turned_down: AtomicU64,
    /// Parts of segments that could not be read.
    pub damaged: AtomicU64,
    /// Why nothing is being sent, and why nothing is being taken in.
    pub suspended: Mutex<Option<String>>,
    pub full: Mutex<Option<String>>,
}

impl Stats {
    pub fn to_json(&self) -> Value {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "queue_depth": now(&self.depth),
            "queue_bytes": now(&self.bytes),
            "segments": now(&self.segments),
            "in_flight": now(&self.in_flight),
            "sends_waiting": now(&self.sends),
            "accepted": now(&self.accepted),
            "delivered": now(&self.delivered),
            "duplicates": now(&self.duplicates),
            "failed": now(&self.failed),
            "retried": now(&self.retried),
            "refused": now(&self.refused) + now(&self.turned_down),
            "damaged": now(&self.damaged),
            "suspended": *self.suspended.lock(),
            "full": *self.full.lock(),
        })
    }
}

/// Each counter has one thread that writes it, so nobody's count is lost between the two.
pub fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

pub fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_both_threads_are_shown_as_one_number_and_none_is_lost() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for counter in [&stats.refused, &stats.turned_down] {
                scope.spawn(move || (0..100_000).for_each(|_| add(counter, 1)));
            }
        });
        assert_eq!(stats.to_json()["refused"], 200_000);
    }
}
