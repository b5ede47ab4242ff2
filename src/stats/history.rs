//! What the account was in the last minutes, for rates. The spool adds a sample a second at most, and none while
//! nothing happens: what was published last was true until the next.

use super::account::Account;
use super::histogram::Counts;
use std::collections::VecDeque;
use std::time::Duration;

/// Between two samples at least.
pub const STEP: Duration = Duration::from_secs(1);

/// Between two marks of the latency at least, in ms.
const MARK_STEP: u64 = 10_000;

/// The windows that are told of, in ms.
pub const MINUTE: u64 = 60_000;
pub const FIVE_MINUTES: u64 = 5 * MINUTE;

#[derive(Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// What the calls to WeChat had taken, and since when in ms.
    marks: VecDeque<(u64, Counts)>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: u64,
    accepted: u64,
    delivered: u64,
    failed: u64,
    /// Pushes that came into the queue, and that left it.
    came: u64,
    left: u64,
    in_flight: u64,
    busy: u64,
}

/// What happened in a second, on average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    pub accepted: f64,
    pub delivered: f64,
    pub failed: f64,
    /// How much shorter the queue has become.
    pub drained: f64,
    /// Of the workers' time, how much they had something in hand: 0 to 1.
    pub busy: f64,
}

impl Sample {
    fn of(account: &Account) -> Sample {
        let Account { pushes, sends, hands, .. } = account;
        Sample {
            at: account.at,
            accepted: pushes.accepted + sends.accepted,
            delivered: pushes.delivered + sends.delivered,
            // They have failed, whether or not the ledger can take them.
            failed: pushes.failed + hands.failed() + sends.failed,
            came: pushes.accepted + pushes.requeued,
            left: pushes.delivered + pushes.failed + pushes.lost,
            in_flight: hands.in_flight(),
            busy: hands.busy,
        }
    }

    /// What workers had worked by then, if nothing was published in between.
    fn busy_until(&self, at: u64) -> u64 {
        self.busy + self.in_flight * at.saturating_sub(self.at) * 1_000
    }
}

impl History {
    pub fn remember(&mut self, account: &Account, latency: Counts) {
        let sample = Sample::of(account);
        self.samples.push_back(sample);
        // One that is older than every window stays.
        while self.samples.get(1).is_some_and(|next| next.at + FIVE_MINUTES <= sample.at) {
            self.samples.pop_front();
        }
        if self.marks.back().is_none_or(|(at, _)| at + MARK_STEP <= sample.at) {
            self.marks.push_back((sample.at, latency));
        }
        while self.marks.get(1).is_some_and(|(at, _)| at + FIVE_MINUTES <= sample.at) {
            self.marks.pop_front();
        }
    }

    /// Over the last `window` ms up to `now`, or since the beginning.
    pub fn rates(&self, account: &Account, now: u64, window: u64) -> Rates {
        let from = now.saturating_sub(window);
        let is = Sample::of(account);
        let then = match account.at <= from {
            // Nothing was published since.
            true => Some(&is),
            false => newest(&self.samples, from, |sample| sample.at),
        };
        let Some(then) = then else { return Rates::default() };
        let from = from.max(then.at);
        // The first moments tell nothing.
        let span = now.saturating_sub(from).max(STEP.as_millis() as u64);
        let a_second = |is: u64, was: u64| (is - was) as f64 * 1e3 / span as f64;
        let worked = is.busy_until(now).saturating_sub(then.busy_until(from)) as f64;
        let could = (account.hands.workers.max(1) * span * 1_000) as f64;
        Rates {
            accepted: a_second(is.accepted, then.accepted),
            delivered: a_second(is.delivered, then.delivered),
            failed: a_second(is.failed, then.failed),
            drained: a_second(is.left, then.left) - a_second(is.came, then.came),
            busy: (worked / could).min(1.0),
        }
    }

    /// The calls to WeChat of the last `window` ms, or a moment more; `latency` is what they took until the
    /// account was published.
    pub fn latency(&self, account: &Account, latency: Counts, now: u64, window: u64) -> Counts {
        let from = now.saturating_sub(window);
        if account.at <= from {
            return latency.since(&latency);
        }
        let then = newest(&self.marks, from, |(at, _)| *at);
        then.map_or(latency, |(_, then)| latency.since(then))
    }
}

/// The newest one that is not newer than that, else the oldest.
fn newest<T>(all: &VecDeque<T>, at: u64, time: impl Fn(&T) -> u64) -> Option<&T> {
    let after = all.partition_point(|one| time(one) <= at);
    all.get(after.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Histogram, LATENCY};

    const START: u64 = 1_000_000;

    /// Plays the spool: publishes, and remembers what was published when a second has passed.
    #[derive(Default)]
    struct Played {
        history: History,
        account: Account,
        remembered: u64,
    }

    impl Played {
        fn new() -> Played {
            let mut played = Played::default();
            (played.account.at, played.account.hands.workers) = (START, 4);
            played
        }

        fn turn(&mut self, second: f64, change: impl FnOnce(&mut Account)) {
            let at = START + (second * 1e3) as u64;
            if at >= self.remembered + STEP.as_millis() as u64 {
                self.remembered = at;
                self.history.remember(&self.account, Histogram::new(&LATENCY).read());
            }
            let busy = self.account.hands.in_flight() * (at - self.account.at) * 1_000;
            self.account.hands.busy += busy;
            change(&mut self.account);
            self.account.at = at;
        }

        fn rates(&self, second: u64, window: u64) -> Rates {
            self.history.rates(&self.account, START + second * 1_000, window)
        }
    }

    #[test]
    fn rates_are_of_the_window_or_since_the_beginning() {
        let mut played = Played::new();
        for tenth in 0..4_000 {
            played.turn(f64::from(tenth) / 10.0, |account| account.pushes.delivered += 2);
        }
        assert!((played.rates(400, MINUTE).delivered - 20.0).abs() < 0.5);
        assert!((played.rates(400, FIVE_MINUTES).delivered - 20.0).abs() < 0.5);
        assert!(played.history.samples.len() <= 302, "{}", played.history.samples.len());
        assert!(played.history.marks.len() <= 32, "{}", played.history.marks.len());

        let mut young = Played::new();
        young.turn(1.0, |account| account.pushes.accepted += 30);
        assert_eq!(young.rates(10, MINUTE).accepted, 3.0);
        assert_eq!(young.rates(10, MINUTE).drained, -3.0);
    }

    #[test]
    fn what_happened_before_a_long_rest_is_not_of_the_last_minute() {
        let mut played = Played::new();
        played.turn(0.5, |account| account.sends.accepted += 1);
        played.turn(0.7, |account| account.sends.accepted += 999);
        assert!(played.rates(10, MINUTE).accepted > 90.0);
        assert_eq!(played.rates(30 * 60, MINUTE).accepted, 0.0);
        played.turn(30.0 * 60.0, |account| account.sends.accepted += 6);
        assert_eq!(played.rates(30 * 60 + 1, MINUTE).accepted, 0.1);
    }

    #[test]
    fn workers_that_hang_are_busy_though_nothing_happens() {
        let mut played = Played::new();
        played.turn(0.0, |account| account.hands.handed_out = 9);
        assert_eq!(played.rates(100, MINUTE).busy, 1.0);
        played.turn(200.0, |account| account.hands.handed_out = 1);
        assert_eq!(played.rates(230, MINUTE).busy, (30.0 * 4.0 + 30.0) / 240.0);
        assert_eq!(played.rates(800, FIVE_MINUTES).busy, 0.25);
    }

    #[test]
    fn latency_is_of_the_last_minutes() {
        let histogram = Histogram::new(&LATENCY);
        let mut history = History::default();
        let account = |second: u64| Account { at: START + second * 1_000, ..Account::default() };
        for second in 0..1_000 {
            histogram.record(Duration::from_millis(if second < 500 { 90 } else { 9 }));
            let account = account(second);
            history.remember(&account, histogram.read());
        }
        let latency = |second: u64, window| {
            history.latency(&account(999), histogram.read(), START + second * 1_000, window)
        };
        let counts = latency(1_000, FIVE_MINUTES);
        assert!((299..=310).contains(&counts.total()), "{}", counts.total());
        assert!(counts.percentile(99).unwrap() <= Duration::from_millis(10));
        assert!((59..=70).contains(&latency(1_000, MINUTE).total()));
        assert_eq!(latency(2_000, FIVE_MINUTES).total(), 0);
    }
}
