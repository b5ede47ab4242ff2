//! Whether messages may be sent at all: closed by a limit of the account or a fault of its
//! configuration, opened again by one message that gets through. Part of the spool's state.

use crate::wechat::errcode;
use std::time::{Duration, Instant};

/// WeChat's day ends at midnight, UTC+8.
const DAY: u64 = 86_400;
const UTC_PLUS_8: u64 = 8 * 3_600;

const CONFIG_DELAY: Duration = Duration::from_secs(30);

/// Waits for a used-up daily quota; the new day cuts the last one short.
const QUOTA_STEPS: [u64; 5] = [60, 300, 900, 1_800, 3_600];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Rate,
    Config,
}

struct Closed {
    until: Instant,
    why: String,
    /// Times in a row that a probe met the same fault.
    repeats: usize,
}

#[derive(Default)]
pub struct Gate(Option<Closed>);

impl Gate {
    /// Why nothing is sent, if so.
    pub fn why(&self) -> Option<&str> {
        self.0.as_ref().map(|closed| closed.why.as_str())
    }

    /// How many messages may be in flight: all, none, or one that probes.
    pub fn allowed(&self, limit: usize, now: Instant) -> usize {
        match &self.0 {
            None => limit,
            Some(closed) if now < closed.until => 0,
            Some(_) => 1,
        }
    }

    /// When a probe may go, if the gate is closed.
    pub fn opens(&self) -> Option<Instant> {
        self.0.as_ref().map(|closed| closed.until)
    }

    /// Closes, or stays closed for longer; true if it was open.
    pub fn close(
        &mut self,
        fault: Fault,
        errcode: Option<i64>,
        why: &str,
        now: Instant,
        unix_seconds: u64,
    ) -> bool {
        let (was_open, repeats) = match &self.0 {
            // Others that were in flight meet the same fault; that is not a repeat.
            Some(closed) if now < closed.until => return false,
            Some(closed) => (false, closed.repeats + 1),
            None => (true, 0),
        };
        let delay = delay(fault, errcode, repeats, unix_seconds);
        self.0 = Some(Closed { until: now + delay, why: why.to_owned(), repeats });
        was_open
    }

    /// A message got an answer that says nothing against sending; true if it was closed.
    pub fn open(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// A probe found out nothing: the next one waits a little.
    pub fn postpone(&mut self, now: Instant) {
        if let Some(closed) = &mut self.0 {
            closed.until = closed.until.max(now + CONFIG_DELAY);
        }
    }
}

fn delay(fault: Fault, errcode: Option<i64>, repeats: usize, unix_seconds: u64) -> Duration {
    let next_minute = 60 - unix_seconds % 60;
    let seconds = match (fault, errcode) {
        (Fault::Config, Some(errcode::CONFIRM_WITHIN_DAY)) => DAY,
        (Fault::Config, Some(errcode::CONFIRM_WITHIN_HOUR)) => 3_600,
        (Fault::Config, _) => return CONFIG_DELAY,
        (Fault::Rate, Some(errcode::DAILY_QUOTA)) if repeats > 0 => {
            let next_day = DAY - (unix_seconds + UTC_PLUS_8) % DAY;
            QUOTA_STEPS[repeats.min(QUOTA_STEPS.len() - 1)].min(next_day)
        }
        (Fault::Rate, _) => next_minute,
    };
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_goes_after_the_delay_and_opens_the_gate() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        assert_eq!(gate.allowed(8, start), 8);
        assert!(gate.close(Fault::Config, Some(40164), "40164", start, 0));
        assert!(!gate.close(Fault::Config, Some(40164), "40164", start, 0));
        assert_eq!(gate.allowed(8, start + Duration::from_secs(29)), 0);
        assert_eq!(gate.allowed(8, start + Duration::from_secs(30)), 1);
        assert!(gate.open());
        assert_eq!(gate.allowed(8, start), 8);
    }

    #[test]
    fn a_used_up_day_is_asked_for_less_and_less_often_until_it_ends() {
        let noon = 4 * 3_600;
        let wait = |repeats, at| delay(Fault::Rate, Some(45009), repeats, at).as_secs();
        assert_eq!(wait(0, noon + 15), 45);
        assert_eq!([wait(1, noon), wait(2, noon), wait(9, noon)], [300, 900, 3_600]);
        let ten_minutes_before_midnight_in_china = 16 * 3_600 - 600;
        assert_eq!(wait(9, ten_minutes_before_midnight_in_china), 600);
    }
}
