//! How long things take: counts in fixed buckets, and what can be told from them. One thread writes each.

use super::add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 20;

/// The upper bounds of all buckets but the last, which has none; in microseconds.
type Bounds = [u64; BUCKETS - 1];

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;

/// For calls to WeChat.
pub const LATENCY: Bounds = [
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    30 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    150 * MS,
    200 * MS,
    300 * MS,
    500 * MS,
    750 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    30 * S,
];

/// For how long messages wait.
pub const AGE: Bounds = [
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    30 * S,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
];

/// For the disk.
pub const SYNC: Bounds = [
    50,
    100,
    200,
    500,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    20 * S,
    30 * S,
];

pub struct Histogram {
    bounds: &'static Bounds,
    counts: [AtomicU64; BUCKETS],
    /// Of what was recorded, in microseconds.
    sum: AtomicU64,
}

/// What a histogram held at one moment, or between two.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub bounds: &'static Bounds,
    /// One more than there are bounds.
    pub counts: [u64; BUCKETS],
    /// In microseconds.
    pub sum: u64,
}

impl Histogram {
    pub fn new(bounds: &'static Bounds) -> Histogram {
        let counts = [const { AtomicU64::new(0) }; BUCKETS];
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    pub fn record(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        add(&self.counts[self.bounds.partition_point(|bound| *bound < micros)], 1);
        add(&self.sum, micros);
    }

    pub fn read(&self) -> Counts {
        let counts = std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed));
        Counts { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was recorded since `earlier`, which was read from the same histogram.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let counts = std::array::from_fn(|n| self.counts[n].saturating_sub(earlier.counts[n]));
        Counts { counts, sum: self.sum.saturating_sub(earlier.sum), ..*self }
    }

    /// What so many of a hundred stay under, as if each bucket were filled evenly: never off by more than its
    /// bucket is wide. What lies beyond the last bound is told as that bound.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let total = self.total();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (n, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if below + count >= rank {
                let from = if n == 0 { 0 } else { self.bounds[n - 1] };
                let to = self.bounds.get(n).copied().unwrap_or(from);
                let share = u128::from(to - from) * u128::from(rank - below) / u128::from(*count);
                return Some(Duration::from_micros(from + share as u64));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bounds_grow_and_belong_to_the_bucket_below() {
        for bounds in [&LATENCY, &AGE, &SYNC] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
            let histogram = Histogram::new(bounds);
            for (n, bound) in bounds.iter().enumerate() {
                histogram.record(Duration::from_micros(*bound));
                histogram.record(Duration::from_micros(bound + 1));
                let counts = histogram.read().counts;
                assert_eq!((counts[n], counts[n + 1]), (if n == 0 { 1 } else { 2 }, 1));
            }
            assert_eq!(histogram.read().total(), 2 * bounds.len() as u64);
            assert_eq!(histogram.read().sum, bounds.iter().map(|bound| 2 * bound + 1).sum::<u64>());
        }
    }

    #[test]
    fn percentiles_lie_in_the_bucket_where_they_fall() {
        let histogram = Histogram::new(&LATENCY);
        assert_eq!(histogram.read().percentile(50), None);
        (0..99).for_each(|_| histogram.record(ms(80)));
        histogram.record(ms(1_500));
        let read = histogram.read();
        assert!((ms(76)..=ms(100)).contains(&read.percentile(50).unwrap()));
        assert_eq!(read.percentile(99), Some(ms(100)));
        assert_eq!(read.percentile(100), Some(ms(2_000)));
        // Ten in a bucket from 10 to 20 ms: the fifth is in its middle.
        let even = Histogram::new(&LATENCY);
        (0..10).for_each(|_| even.record(ms(13)));
        assert_eq!(even.read().percentile(50), Some(ms(15)));
        even.record(ms(90_000));
        assert_eq!(even.read().percentile(100), Some(ms(30_000)));
    }

    #[test]
    fn what_was_recorded_since_is_told_apart() {
        let histogram = Histogram::new(&SYNC);
        histogram.record(ms(3));
        let before = histogram.read();
        histogram.record(ms(700));
        let since = histogram.read().since(&before);
        assert_eq!((since.total(), since.sum), (1, 700_000));
        assert!(since.percentile(50).unwrap() > ms(500));
    }
}
