//! What happened since the daemon began, for `status` and `/metrics`. Never used to decide anything.
//!
//! Each count has one thread that writes it. The spool's are plain numbers of its own, an `Account`, which it
//! publishes whole once a turn: whoever reads one reads all of them as of one moment, so that the equations in
//! `account` hold in every answer. The reactor's and the histograms are relaxed atomics.

mod account;
mod failures;
mod histogram;
mod history;
mod refusal;
mod show;
mod trouble;

pub use account::{Account, Day};
pub use failures::{Ended, Failures};
pub use histogram::{AGE, Counts, Histogram, LATENCY, SYNC};
pub use history::STEP as SAMPLE;
pub use refusal::Refusal;
pub use trouble::{Kind, TROUBLES};

use crate::clock::{now_ms, unix_seconds};
use crate::traffic::UNRECORDED;
use crate::traffic::steer::{Cancelling, Paused};
use history::{History, Rates};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why nothing is being sent; times are seconds since 1970.
pub struct Suspended {
    pub cause: Cause,
    pub why: String,
    pub since: u64,
    /// None: a probe is under way.
    pub next_probe: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Rate,
    Config,
    Unreachable,
    DailyLimit,
}

impl Cause {
    pub const ALL: &[Cause] = &[Cause::Rate, Cause::Config, Cause::Unreachable, Cause::DailyLimit];

    pub fn name(self) -> &'static str {
        match self {
            Cause::Rate => "rate",
            Cause::Config => "config",
            Cause::Unreachable => "unreachable",
            Cause::DailyLimit => "daily_limit",
        }
    }
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

/// How long it is told that a client was turned away: others who come find room no sooner.
const TURNED_AWAY: Duration = Duration::from_secs(2);

/// Whether clients find room.
#[derive(Default)]
pub struct Crowd {
    /// Why one more would not be let in.
    pub full: Option<&'static str>,
    /// When one was not, and why.
    pub turned_away: Option<(Instant, &'static str)>,
}

pub struct Stats {
    published: Mutex<Published>,
    /// Requests and clients that the reactor has turned down.
    turned_down: [AtomicU64; Refusal::ALL.len()],
    /// How long calls to WeChat take; the spool writes it.
    pub latency: Histogram,
    /// How old pushes are when WeChat has taken them; the spool writes it.
    pub age: Histogram,
    /// How long it takes to make the queue durable; the spool writes it.
    pub sync: Histogram,
    pub failures: Failures,
    pub suspended: Mutex<Option<Suspended>>,
    /// An operator has paused sending.
    pub paused: Mutex<Option<Paused>>,
    /// By whom and since when (seconds since 1970) the daemon is drained.
    pub draining: Mutex<Option<(String, u64)>>,
    /// Orders to cancel that are under way, and the last ones that have ended.
    pub cancels: Mutex<Vec<Cancelling>>,
    /// Why failed messages cannot be recorded.
    pub ledger: Mutex<Option<String>>,
    /// How often the ledger's rows were lost; the ledger writes it.
    begun_anew: AtomicU64,
    /// Why the message log misses lines, and how many it has missed since the start.
    pub message_log: Mutex<Option<String>>,
    pub message_log_lost: AtomicU64,
    /// Why nothing is being taken in.
    pub full: Mutex<Option<String>>,
    /// Written by the reactor.
    pub crowd: Mutex<Crowd>,
    pub database: Mutex<Database>,
    /// Connections of clients, and bytes that they make the daemon hold; the reactor writes both.
    pub clients: AtomicU64,
    pub clients_limit: AtomicU64,
    pub held: AtomicU64,
    pub held_limit: AtomicU64,
    /// Requests are refused from now on; the reactor says so.
    pub stopping: AtomicBool,
}

/// What was published, and what follows from it.
pub struct Reading {
    /// In ms since 1970.
    pub now: u64,
    pub account: Account,
    /// Of the last minute, and of the last five.
    pub minute: Rates,
    pub five_minutes: Rates,
    /// Of the last five minutes.
    pub latency: Counts,
}

#[derive(Default)]
struct Published {
    account: Account,
    history: History,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            published: Mutex::default(),
            turned_down: [const { AtomicU64::new(0) }; Refusal::ALL.len()],
            latency: Histogram::new(&LATENCY),
            age: Histogram::new(&AGE),
            sync: Histogram::new(&SYNC),
            failures: Failures::default(),
            suspended: Mutex::default(),
            paused: Mutex::default(),
            draining: Mutex::default(),
            cancels: Mutex::default(),
            ledger: Mutex::default(),
            begun_anew: AtomicU64::new(0),
            message_log: Mutex::default(),
            message_log_lost: AtomicU64::new(0),
            full: Mutex::default(),
            crowd: Mutex::default(),
            database: Mutex::default(),
            clients: AtomicU64::new(0),
            clients_limit: AtomicU64::new(0),
            held: AtomicU64::new(0),
            held_limit: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Stats {
    /// The spool's account as it is now, with all that it has done.
    pub fn publish(&self, account: &Account) {
        self.published.lock().account = *account;
    }

    /// Keeps what was last published for the rates. To be called by the spool, before it does anything that
    /// counts, when `SAMPLE` has passed since the last time.
    pub fn remember(&self) {
        let Published { account, history } = &mut *self.published.lock();
        history.remember(account, self.latency.read());
    }

    /// All that was published, as of one moment.
    pub fn read(&self) -> Reading {
        let now = now_ms();
        let published = self.published.lock();
        let Published { account, history } = &*published;
        let damaged = account.damaged + self.begun_anew.load(Ordering::Relaxed);
        Reading {
            now,
            account: Account { damaged, ..*account },
            minute: history.rates(account, now, history::MINUTE),
            five_minutes: history.rates(account, now, history::FIVE_MINUTES),
            latency: history.latency(account, self.latency.read(), now, history::FIVE_MINUTES),
        }
    }

    /// The ledger's rows were lost so often.
    pub fn show_begun_anew(&self, times: u64) {
        self.begun_anew.store(times, Ordering::Relaxed);
    }

    /// Why no more clients are let in, or were not a moment ago.
    pub fn crowded(&self) -> Option<&'static str> {
        let Crowd { full, turned_away } = *self.crowd.lock();
        let late = turned_away.filter(|(at, _)| at.elapsed() < TURNED_AWAY);
        full.or(late.map(|(_, why)| why))
    }

    /// Why no push is handed out though nothing suspends sending: the ledger takes nothing, and as many wait for it
    /// as may.
    pub fn blocked(&self) -> Option<String> {
        self.ledger.lock().as_ref()?;
        let waiting = self.published.lock().account.hands.unrecorded;
        (waiting >= UNRECORDED as u64)
            .then(|| format!("{waiting} messages that have failed wait to be recorded"))
    }

    /// The reactor has turned somebody down.
    pub fn turn_down(&self, refusal: Refusal) {
        add(&self.turned_down[refusal as usize], 1);
    }

    /// The reactor has so many connections, and holds so many bytes for them.
    pub fn show_clients(&self, connections: usize, held: usize) {
        self.clients.store(connections as u64, Ordering::Relaxed);
        self.held.store(held as u64, Ordering::Relaxed);
    }

    /// It may have so many, and hold so many bytes.
    pub fn show_limits(&self, connections: usize, held: usize) {
        self.clients_limit.store(connections as u64, Ordering::Relaxed);
        self.held_limit.store(held as u64, Ordering::Relaxed);
    }

    /// How often it was said no to somebody for this reason, by the reactor or in `account`.
    pub fn refused(&self, refusal: Refusal, account: &Account) -> u64 {
        let reactor = self.turned_down[refusal as usize].load(Ordering::Relaxed);
        reactor + account.refused[refusal as usize]
    }
}

/// Each counter has one thread that writes it, so no count is lost between the two.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_blocked_only_where_the_ledger_fails_and_nothing_more_may_wait_for_it() {
        let stats = Stats::default();
        let mut account = Account::default();
        account.hands.unrecorded = UNRECORDED as u64;
        stats.publish(&account);
        assert_eq!(stats.blocked(), None, "they are being recorded");
        *stats.ledger.lock() = Some("disk full".into());
        assert!(stats.blocked().unwrap().contains("1024 messages"));
        account.hands.unrecorded -= 1;
        stats.publish(&account);
        assert_eq!(stats.blocked(), None);
    }

    #[test]
    fn refusals_of_both_threads_are_shown_as_one_number_and_none_is_lost() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| stats.turn_down(Refusal::Stopping)));
            scope.spawn(|| {
                let mut account = Account::default();
                for _ in 0..100_000 {
                    account.refused[Refusal::Stopping as usize] += 1;
                    stats.publish(&account);
                }
            });
        });
        let account = stats.read().account;
        assert_eq!(stats.refused(Refusal::Stopping, &account), 200_000);
        assert_eq!(stats.refused(Refusal::Memory, &account), 0);
    }
}
