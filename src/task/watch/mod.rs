//! Those who show a running task: a bar on a terminal, lines, or JSON, and the task's own log; and how fast it goes.

mod bar;
mod json;
mod lines;
mod log;

pub use bar::Bar;
pub use json::{Json, counts};
pub use lines::Lines;
pub use log::Log;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A rate is that of so long.
const WINDOW: Duration = Duration::from_secs(10);

/// How many a second, lately.
struct Pace {
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    fn new() -> Pace {
        Pace { seen: VecDeque::new() }
    }

    /// So many are done by now.
    fn see(&mut self, now: Instant, done: u64) {
        // A sample a quarter of a second is enough.
        if self.seen.back().is_some_and(|(at, _)| now - *at < WINDOW / 40) {
            return;
        }
        self.seen.push_back((now, done));
        while self.seen.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.seen.pop_front();
        }
    }

    fn per_second(&self, now: Instant, done: u64) -> f64 {
        match self.seen.front() {
            Some((at, before)) if now > *at => {
                done.saturating_sub(*before) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// How long the rest takes, if it goes on so.
    fn left(&self, now: Instant, done: u64, left: u64) -> Option<Duration> {
        let rate = self.per_second(now, done);
        (rate > 0.0).then(|| Duration::from_secs_f64((left as f64 / rate).min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::new();
        let start = Instant::now();
        assert_eq!((pace.per_second(start, 5), pace.left(start, 5, 5)), (0.0, None));
        for second in 0..40 {
            let done = if second < 20 { 1_000 * second } else { 20_000 + second - 20 };
            pace.see(start + Duration::from_secs(second), done);
        }
        let now = start + Duration::from_secs(40);
        let rate = pace.per_second(now, 20_020);
        assert!((rate - 1.0).abs() < 0.2, "{rate}");
        assert!(pace.left(now, 20_020, 100).unwrap() > Duration::from_secs(80));
    }
}
