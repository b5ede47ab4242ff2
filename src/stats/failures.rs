//! How many messages have failed, by the errcode that they failed with. Bounded: WeChat has some hundred codes,
//! and whoever answers in its place may have more.

use crate::class::Class;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Different ends that are told apart; what comes after them is counted together.
const ENDS: usize = 100;

/// How a message failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ended {
    pub class: Class,
    pub errcode: Option<i64>,
}

/// Written by the spool, and only where a message fails.
#[derive(Default)]
pub struct Failures(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    ends: HashMap<Ended, u64>,
    others: u64,
}

impl Failures {
    pub fn count(&self, ended: Ended) {
        let Counted { ends, others } = &mut *self.0.lock();
        let told_apart = ends.len() < ENDS || ends.contains_key(&ended);
        *if told_apart { ends.entry(ended).or_default() } else { others } += 1;
    }

    /// The most frequent ones first, at most so many, and how many messages failed otherwise.
    pub fn most(&self, limit: usize) -> (Vec<(Ended, u64)>, u64) {
        let counted = self.0.lock();
        let mut most: Vec<(Ended, u64)> = counted.ends.iter().map(|(e, n)| (*e, *n)).collect();
        let mut others = counted.others;
        drop(counted);
        most.sort_unstable_by_key(|(ended, count)| (u64::MAX - count, ended.errcode));
        others += most.drain(limit.min(most.len())..).map(|(_, count)| count).sum::<u64>();
        (most, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first_and_none_is_forgotten() {
        let failures = Failures::default();
        let ended = |errcode| Ended { class: Class::Permanent, errcode: Some(errcode) };
        for errcode in 0..ENDS as i64 + 7 {
            failures.count(ended(errcode));
        }
        failures.count(ended(5));
        let (most, others) = failures.most(3);
        assert_eq!(most, [(ended(5), 2), (ended(0), 1), (ended(1), 1)]);
        assert_eq!(others, ENDS as u64 - 3 + 7);
        let (most, others) = failures.most(usize::MAX);
        assert_eq!((most.len(), others), (ENDS, 7));
    }
}
