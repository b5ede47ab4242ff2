//! Whether anything goes out: while mega takes nothing in, one message at a time tries whether it does again, after
//! pauses that grow. Pure.

use crate::task::event::Why;
use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

pub struct Wait {
    why: Option<Why>,
    pause: Duration,
    at: Instant,
    /// Who tries.
    probe: Option<u32>,
}

/// What an answer changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    Not,
    /// It waits from now on, or for another reason.
    Waits,
    GoesOn,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Allowance {
    Free,
    /// One, as a probe.
    Probe,
    Shut,
}

impl Wait {
    pub fn new(now: Instant) -> Wait {
        Wait { why: None, pause: SHORTEST, at: now, probe: None }
    }

    pub fn why(&self) -> Option<&Why> {
        self.why.as_ref()
    }

    pub fn allowance(&self, now: Instant) -> Allowance {
        match &self.why {
            None => Allowance::Free,
            Some(_) if self.probe.is_none() && self.at <= now => Allowance::Probe,
            Some(_) => Allowance::Shut,
        }
    }

    /// When a probe is due.
    pub fn due(&self) -> Option<Instant> {
        (self.why.is_some() && self.probe.is_none()).then_some(self.at)
    }

    /// This one tries.
    pub fn tries(&mut self, slot: u32) {
        self.probe = Some(slot);
    }

    /// Somebody was not taken in.
    pub fn refused(&mut self, slot: u32, why: Why, now: Instant) -> Moved {
        if self.why.is_some() && self.probe != Some(slot) {
            // It was out before.
            return Moved::Not;
        }
        self.pause = match self.probe.take() {
            Some(_) => (self.pause * 2).min(LONGEST),
            None => SHORTEST,
        };
        self.at = now + self.pause;
        match self.why.replace(why) == self.why {
            true => Moved::Not,
            false => Moved::Waits,
        }
    }

    /// Somebody was answered.
    pub fn answered(&mut self, slot: u32) -> Moved {
        if self.probe != Some(slot) {
            return Moved::Not;
        }
        self.probe = None;
        self.why = None;
        Moved::GoesOn
    }

    /// Somebody's answer says nothing, or will not come.
    pub fn lost(&mut self, slot: u32, now: Instant) {
        if self.probe == Some(slot) {
            self.probe = None;
            self.pause = (self.pause * 2).min(LONGEST);
            self.at = now + self.pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_tries_after_growing_pauses_until_somebody_is_answered() {
        let mut now = Instant::now();
        let mut wait = Wait::new(now);
        let why = |text: &str| Why::Refused(text.into());
        assert_eq!(wait.allowance(now), Allowance::Free);
        assert_eq!(wait.refused(1, why("a"), now), Moved::Waits);
        assert_eq!(wait.refused(2, why("b"), now), Moved::Not, "it was out before");
        assert_eq!(wait.answered(3), Moved::Not, "it was out before");
        let mut pauses = Vec::new();
        for slot in 0..7 {
            assert_eq!(wait.allowance(now), Allowance::Shut);
            let due = wait.due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
            assert_eq!(wait.allowance(now), Allowance::Probe);
            wait.tries(slot);
            assert_eq!((wait.allowance(now), wait.due()), (Allowance::Shut, None));
            let same = if slot == 0 { "b" } else { "c" };
            let moved = if slot < 2 { Moved::Waits } else { Moved::Not };
            assert_eq!(wait.refused(slot, why(same), now), moved);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        now += LONGEST;
        wait.tries(9);
        wait.lost(9, now);
        now += LONGEST;
        wait.tries(10);
        assert_eq!(wait.answered(10), Moved::GoesOn);
        assert_eq!((wait.allowance(now), wait.why()), (Allowance::Free, None));
        wait.refused(1, why("a"), now);
        assert_eq!(wait.due().unwrap() - now, SHORTEST);
    }
}
