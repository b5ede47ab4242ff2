//! How long things take: counts in fixed buckets, and what can be told from them. One thread writes each.
//! The buckets that are shown to others are few; each is counted in narrow steps, so that what half of all stay
//! under is off by no more than such a step.

use super::add;
use std::sync::Arc;
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

/// A step's upper bound is so many percent above its lower one at most, or a microsecond.
const STEP: u64 = 5;

/// Below the first bound there are steps down to this part of it.
const FIRST: u64 = 20;

pub struct Histogram {
    steps: Arc<Steps>,
    counts: Box<[AtomicU64]>,
    /// Of what was recorded, in microseconds.
    sum: AtomicU64,
}

/// The narrow steps that buckets are counted in.
#[derive(Debug)]
struct Steps {
    bounds: &'static Bounds,
    /// The upper bounds of all steps but the last, which has none; in microseconds.
    fine: Vec<u64>,
}

/// What a histogram held at one moment, or between two.
#[derive(Debug, Clone)]
pub struct Counts {
    steps: Arc<Steps>,
    /// One for each step.
    fine: Box<[u64]>,
    /// In microseconds.
    pub sum: u64,
}

impl Steps {
    fn of(bounds: &'static Bounds) -> Steps {
        let mut fine = Vec::new();
        let mut at = (bounds[0] / FIRST).max(1);
        for bound in bounds {
            while at < *bound {
                fine.push(at);
                at = (at * (100 + STEP) / 100).max(at + 1);
            }
            fine.push(*bound);
            at = (*bound * (100 + STEP) / 100).max(bound + 1);
        }
        Steps { bounds, fine }
    }
}

impl Histogram {
    pub fn new(bounds: &'static Bounds) -> Histogram {
        let steps = Steps::of(bounds);
        let counts = (0..=steps.fine.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { steps: Arc::new(steps), counts, sum: AtomicU64::new(0) }
    }

    pub fn record(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        add(&self.counts[self.steps.fine.partition_point(|bound| *bound < micros)], 1);
        add(&self.sum, micros);
    }

    pub fn read(&self) -> Counts {
        let fine = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Counts { steps: Arc::clone(&self.steps), fine, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.fine.iter().sum()
    }

    pub fn bounds(&self) -> &'static Bounds {
        self.steps.bounds
    }

    /// As others are shown them: one more than there are bounds.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        let mut buckets = [0; BUCKETS];
        let mut bucket = 0;
        for (n, count) in self.fine.iter().enumerate() {
            buckets[bucket] += count;
            // Each bound is a step's.
            bucket += usize::from(self.steps.fine.get(n) == self.steps.bounds.get(bucket));
        }
        buckets
    }

    /// What was recorded since `earlier`, which was read from the same histogram.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let both = self.fine.iter().zip(&earlier.fine);
        let fine = both.map(|(now, then)| now.saturating_sub(*then)).collect();
        Counts { steps: Arc::clone(&self.steps), fine, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// What so many of a hundred stay under, as if each step were filled evenly: never off by more than its step
    /// is wide. What lies beyond the last bound is told as that bound.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let total = self.total();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (n, count) in self.fine.iter().enumerate().filter(|(_, count)| **count > 0) {
            if below + count >= rank {
                let from = if n == 0 { 0 } else { self.steps.fine[n - 1] };
                let to = self.steps.fine.get(n).copied().unwrap_or(from);
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
                let counts = histogram.read().buckets();
                assert_eq!((counts[n], counts[n + 1]), (if n == 0 { 1 } else { 2 }, 1));
            }
            assert_eq!(histogram.read().total(), 2 * bounds.len() as u64);
            assert_eq!(histogram.read().sum, bounds.iter().map(|bound| 2 * bound + 1).sum::<u64>());
        }
    }

    #[test]
    fn percentiles_are_off_by_a_step_at_most_wherever_they_fall() {
        assert_eq!(Histogram::new(&LATENCY).read().percentile(50), None);
        for (bounds, from) in [(&LATENCY, 1_000), (&AGE, 10_000), (&SYNC, 50)] {
            let mut micros = from;
            while micros <= bounds[BUCKETS - 2] {
                let histogram = Histogram::new(bounds);
                (0..10).for_each(|_| histogram.record(Duration::from_micros(micros)));
                for percent in [1, 50, 99, 100] {
                    let told = histogram.read().percentile(percent).unwrap().as_micros() as u64;
                    let off = told.abs_diff(micros);
                    assert!(off <= micros * STEP / 100 + 1, "{micros} told as {told}");
                }
                micros = micros * 117 / 100;
            }
        }
        let histogram = Histogram::new(&LATENCY);
        (0..99).for_each(|_| histogram.record(ms(2_001)));
        histogram.record(ms(4_000));
        let read = histogram.read();
        let told = |percent| read.percentile(percent).unwrap().as_millis();
        assert!((2_000..=2_101).contains(&told(50)) && (2_000..=2_101).contains(&told(99)));
        assert!((3_800..=4_200).contains(&told(100)));
        histogram.record(ms(90_000));
        assert_eq!(histogram.read().percentile(100), Some(ms(30_000)));
    }

    #[test]
    fn steps_are_narrow_and_not_many_and_each_bound_is_one() {
        for bounds in [&LATENCY, &AGE, &SYNC] {
            let Steps { fine, .. } = Steps::of(bounds);
            assert!(fine.is_sorted_by(|a, b| a < b) && fine.len() < 500, "{}", fine.len());
            assert!(bounds.iter().all(|bound| fine.contains(bound)));
            let wide = fine.windows(2).find(|pair| pair[1] > pair[0] * (100 + STEP) / 100 + 1);
            assert_eq!(wide, None);
        }
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
