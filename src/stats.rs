//! Counters that the spool keeps and the reactor shows in `status`. Since the start of the daemon
//! where not said otherwise. Never used to decide anything.

use crate::clock::unix_seconds;
use crate::traffic::class::{Class, TABLE};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why nothing is being sent; times are seconds since 1970.
pub struct Suspended {
    pub why: String,
    pub since: u64,
    pub next_probe: Option<u64>,
}

/// What the templates' database was last asked.
#[derive(Default)]
pub struct Database {
    /// When it gave all templates that are in memory, seconds since 1970.
    pub loaded: Option<u64>,
    /// Why it did not answer the last time.
    pub trouble: Option<String>,
    /// Since when it does not, seconds since 1970.
    pub since: Option<u64>,
}

impl Database {
    /// It does not answer.
    pub fn fails(&mut self, why: &str) {
        self.trouble = Some(why.to_owned());
        self.since.get_or_insert_with(unix_seconds);
    }

    pub fn answers(&mut self) {
        (self.trouble, self.since) = (None, None);
    }
}

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
    /// What attempts came to, by class.
    pub classes: [AtomicU64; TABLE.len()],
    pub suspended: Mutex<Option<Suspended>>,
    /// Why failed messages cannot be recorded.
    pub ledger: Mutex<Option<String>>,
    /// Why nothing is being taken in.
    pub full: Mutex<Option<String>>,
    pub database: Mutex<Database>,
}

impl Stats {
    /// An attempt came to this.
    pub fn came_to(&self, class: Class) {
        add(&self.classes[class as usize], 1);
    }

    pub fn to_json(&self) -> Value {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let suspended = self.suspended.lock();
        let suspended = suspended.as_ref();
        let database = self.database.lock();
        let classes = TABLE
            .iter()
            .map(|row| (row.name.to_owned(), Value::from(now(&self.classes[row.class as usize]))));
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
            "classes": serde_json::Map::from_iter(classes),
            "suspended": suspended.map(|it| &it.why),
            "suspended_since": suspended.map(|it| local_time(it.since)),
            "next_probe": suspended.and_then(|it| it.next_probe).map(local_time),
            "ledger": *self.ledger.lock(),
            "full": *self.full.lock(),
            "templates_loaded": database.loaded.map(local_time),
            "database": database.trouble,
            "database_since": database.since.map(local_time),
        })
    }
}

/// With its zone, as RFC 3339 has it.
fn local_time(unix_seconds: u64) -> String {
    let time =
        i64::try_from(unix_seconds).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    time.unwrap_or_default().with_timezone(&chrono::Local).to_rfc3339()
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
