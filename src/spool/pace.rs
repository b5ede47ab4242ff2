//! How fast messages go out: at most so many a second, and slower for a while when WeChat says that it is
//! busy. Part of the spool's state; knows neither messages nor threads.

use std::time::{Duration, Instant};

/// What was not sent in time may be made up for within so much of a second.
const BURST: f64 = 0.05;

/// Answers are looked at second by second.
const WINDOW: Duration = Duration::from_secs(1);

/// Busy answers in a second from which on WeChat counts as busy: so many, and one in so many.
const BUSY_COUNT: u32 = 3;
const BUSY_SHARE: u32 = 10;

/// Seconds without a busy answer after which the pace doubles again.
const CALM: u32 = 10;

pub struct Pace {
    per_second: Option<f64>,
    /// Messages that may go now; below 1 the next one has to wait.
    credit: f64,
    credited: Instant,
    /// The pace, a second, while WeChat is busy, and what it was before.
    slow: Option<f64>,
    before: f64,
    window: Instant,
    answers: u32,
    busy: u32,
    calm: u32,
}

impl Pace {
    /// Zero is no limit.
    pub fn new(per_second: u32, now: Instant) -> Pace {
        let mut pace = Pace {
            per_second: None,
            credit: 1.0,
            credited: now,
            slow: None,
            before: 0.0,
            window: now,
            answers: 0,
            busy: 0,
            calm: 0,
        };
        pace.configure(per_second);
        pace
    }

    /// Zero is no limit.
    pub fn configure(&mut self, per_second: u32) {
        if self.rate().is_none() {
            self.credit = 1.0;
        }
        self.per_second = (per_second > 0).then(|| f64::from(per_second));
    }

    fn rate(&self) -> Option<f64> {
        match (self.per_second, self.slow) {
            (Some(rate), Some(slow)) => Some(rate.min(slow)),
            (rate, slow) => rate.or(slow),
        }
    }

    /// Brings the state up to now. To be called once before messages are counted.
    pub fn turn(&mut self, now: Instant) {
        if now.duration_since(self.window) >= WINDOW {
            self.judge();
            (self.window, self.answers, self.busy) = (now, 0, 0);
        }
        match self.rate() {
            Some(rate) => {
                let passed = now.duration_since(self.credited).as_secs_f64();
                self.credit = (self.credit + passed * rate).min((rate * BURST).max(1.0));
            }
            // A pace that begins later owes nothing for what went before.
            None => self.credit = 1.0,
        }
        self.credited = now;
    }

    /// Whether one more message may go out in this turn.
    pub fn allows(&self) -> bool {
        self.rate().is_none() || self.credit >= 1.0
    }

    /// When it makes sense to ask again after `allows` said no.
    pub fn asks_again(&self, now: Instant) -> Option<Instant> {
        let rate = self.rate().filter(|_| self.credit < 1.0)?;
        Some(now + Duration::from_secs_f64((1.0 - self.credit) / rate))
    }

    pub fn spend(&mut self) {
        self.credit -= 1.0;
    }

    /// One did not go out after all.
    pub fn refund(&mut self) {
        self.credit += 1.0;
    }

    /// WeChat has answered; `busy`: that it is (-1 and its like).
    pub fn answered(&mut self, busy: bool) {
        self.answers += 1;
        self.busy += u32::from(busy);
    }

    fn judge(&mut self) {
        let good = f64::from(self.answers - self.busy);
        if self.busy >= BUSY_COUNT && self.busy * BUSY_SHARE >= self.answers {
            let present = self.slow.unwrap_or(good).max(good).max(1.0);
            if self.slow.is_none() {
                self.before = present;
                log::warn!("WeChat is busy: sending slower than {present:.0} a second for a while");
            }
            self.slow = Some((present / 2.0).max(1.0));
            self.calm = 0;
        } else if let Some(slow) = self.slow {
            self.calm += 1;
            if self.calm >= CALM {
                self.calm = 0;
                self.slow = Some(slow * 2.0).filter(|slow| *slow <= self.before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(per_second: u32) -> Pace {
        Pace::new(per_second, Instant::now())
    }

    /// Messages that go out in so many steps of 10 ms.
    fn sent(pace: &mut Pace, from: Instant, steps: u64) -> u64 {
        let mut sent = 0;
        for step in 0..steps {
            pace.turn(from + Duration::from_millis(10 * step));
            while pace.allows() && sent < 1_000_000 {
                pace.spend();
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn so_many_a_second_and_no_burst() {
        let mut pace = pace(200);
        let now = pace.window;
        let sent = sent(&mut pace, now, 300);
        assert!((590..=610).contains(&sent), "{sent}");
        let later = now + Duration::from_secs(60);
        pace.turn(later);
        assert!(pace.credit <= 10.0);
    }

    #[test]
    fn a_pace_that_begins_later_owes_nothing_for_what_went_before() {
        let mut pace = pace(0);
        let now = pace.window;
        assert_eq!(sent(&mut pace, now, 1), 1_000_000);
        pace.configure(100);
        let later = now + Duration::from_millis(20);
        let sent = sent(&mut pace, later, 100);
        assert!((95..=105).contains(&sent), "{sent}");
        pace.configure(0);
        assert!(pace.allows());
        // Nor does one that begins because WeChat is busy.
        let began = later + Duration::from_secs(2);
        assert_eq!(self::sent(&mut pace, began, 1), 1_000_000);
        pace.turn(began + Duration::from_millis(1));
        (0..100).for_each(|n| pace.answered(n < 50));
        let busy = began + Duration::from_secs(2);
        let slow = self::sent(&mut pace, busy, 100);
        assert!((20..=30).contains(&slow), "{slow}");
    }

    #[test]
    fn no_limit_never_waits() {
        let mut pace = pace(0);
        pace.spend();
        pace.spend();
        assert!(pace.allows());
        assert_eq!(pace.asks_again(Instant::now()), None);
    }

    #[test]
    fn repeated_busy_answers_slow_it_down_and_calm_brings_it_back() {
        let mut pace = pace(0);
        let start = pace.window;
        let second = |pace: &mut Pace, number: u64, busy: u32| {
            for n in 0..100 {
                pace.answered(n < busy);
            }
            pace.turn(start + WINDOW * number as u32);
        };
        second(&mut pace, 1, 2);
        assert_eq!(pace.slow, None, "two in a hundred are nothing");
        second(&mut pace, 2, 20);
        assert_eq!(pace.slow, Some(40.0));
        for number in 3..13 {
            second(&mut pace, number, 0);
        }
        assert_eq!(pace.slow, Some(80.0));
        for number in 13..23 {
            second(&mut pace, number, 0);
        }
        assert_eq!(pace.slow, None);
    }
}
