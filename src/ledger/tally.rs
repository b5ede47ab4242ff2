//! What failed for good of late, for the log: one line a minute however many messages it was, so that a
//! campaign to people who have left is a line and not a flood. Part of the ledger's state.

use crate::class::Class;
use crate::wechat::meaning;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(60);

/// Ends that are told apart in one line.
const ENDS: usize = 12;

/// How a message failed: by the errcode, or by the class where WeChat gave none.
type End = (Class, Option<i64>);

#[derive(Default)]
pub struct Tally {
    /// Since when it counts.
    since: Option<Instant>,
    ends: Vec<(End, u64)>,
    others: u64,
}

impl Tally {
    pub fn count(&mut self, class: Class, errcode: Option<i64>, now: Instant) {
        self.since.get_or_insert(now);
        match self.ends.iter().position(|(end, _)| *end == (class, errcode)) {
            Some(index) => self.ends[index].1 += 1,
            None if self.ends.len() < ENDS => self.ends.push(((class, errcode), 1)),
            None => self.others += 1,
        }
    }

    /// When it is to be told.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PERIOD)
    }

    /// The line, if it is due, or if it is the last and there is something to tell.
    pub fn tell(&mut self, now: Instant, last: bool) -> Option<String> {
        let since = self.since.filter(|since| last || now >= *since + PERIOD)?;
        let Tally { mut ends, others, .. } = std::mem::take(self);
        ends.sort_by_key(|(_, count)| u64::MAX - count);
        let all = others + ends.iter().map(|(_, count)| count).sum::<u64>();
        let mut told: Vec<String> =
            ends.iter().map(|(end, count)| format!("{} {count}", shown(*end))).collect();
        if others > 0 {
            told.push(format!("others {others}"));
        }
        let period = match now.duration_since(since).as_secs() {
            60.. => "minute".to_owned(),
            seconds => format!("{seconds} s"),
        };
        let messages = if all == 1 { "message" } else { "messages" };
        let told = told.join(", ");
        Some(format!("in the last {period} {all} {messages} failed for good: {told}"))
    }
}

fn shown((class, errcode): End) -> String {
    let Some(errcode) = errcode else { return class.name().to_owned() };
    match meaning::of(errcode) {
        // What happened; what to do about it is told by `failed --count`.
        Some([english, _]) => {
            let what = english.split(';').next().unwrap_or_default();
            format!("{errcode} ({what})")
        }
        None => format!("{errcode}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_failures_are_one_line_the_most_frequent_first() {
        let mut tally = Tally::default();
        let start = Instant::now();
        assert_eq!((tally.due(), tally.tell(start + PERIOD, true)), (None, None));
        tally.count(Class::Permanent, Some(40003), start);
        (0..17).for_each(|_| tally.count(Class::Permanent, Some(43004), start));
        tally.count(Class::Data, None, start);
        tally.count(Class::Once, Some(99), start);
        assert_eq!(tally.due(), Some(start + PERIOD));
        assert_eq!(tally.tell(start + PERIOD - Duration::from_nanos(1), false), None);
        assert_eq!(
            tally.tell(start + PERIOD, false).unwrap(),
            "in the last minute 20 messages failed for good: 43004 (the user does not follow the account) \
             17, 40003 (the openid is not of this account) 1, data 1, 99 1"
        );
        assert_eq!((tally.due(), tally.tell(start + PERIOD, true)), (None, None));
    }

    #[test]
    fn a_part_of_a_minute_is_told_at_the_end() {
        let mut tally = Tally::default();
        let start = Instant::now();
        tally.count(Class::Data, None, start);
        let told = tally.tell(start + Duration::from_millis(7_900), true).unwrap();
        assert_eq!(told, "in the last 7 s 1 message failed for good: data 1");
    }

    #[test]
    fn more_ends_than_a_line_holds_are_counted_together() {
        let mut tally = Tally::default();
        let start = Instant::now();
        (0..ENDS as i64 + 5).for_each(|code| tally.count(Class::Once, Some(900_000 + code), start));
        tally.count(Class::Once, Some(900_000), start);
        let told = tally.tell(start + PERIOD, false).unwrap();
        assert!(told.starts_with("in the last minute 18 messages") && told.ends_with(", others 5"));
        assert!(told.contains(": 900000 2, "), "{told}");
    }
}
