//! So many messages a second and no more. Pure.

use std::time::{Duration, Instant};

/// What was missed for no longer than this is made up for.
const SLACK: Duration = Duration::from_millis(100);

pub struct Rate {
    /// Between two messages; None: no limit.
    pause: Option<Duration>,
    next: Instant,
    /// Somebody asked and has to wait.
    asked: bool,
}

impl Rate {
    pub fn new(per_second: Option<u32>, now: Instant) -> Rate {
        let pause = per_second.map(|rate| Duration::from_secs(1) / rate.max(1));
        Rate { pause, next: now, asked: false }
    }

    pub fn allows(&mut self, now: Instant) -> bool {
        self.asked = self.pause.is_some() && self.next > now;
        !self.asked
    }

    /// One goes out.
    pub fn goes(&mut self, now: Instant) {
        let Some(pause) = self.pause else { return };
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        self.next = self.next.max(earliest) + pause;
    }

    /// When whoever asked may go.
    pub fn due(&self) -> Option<Instant> {
        self.asked.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_a_long_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut rate = Rate::new(Some(1_000), start);
        let mut sent = [0; 3];
        for ms in 0..3_000u64 {
            // Nobody asks in the second second.
            let now = start + Duration::from_millis(ms);
            while ms / 1_000 != 1 && rate.allows(now) {
                rate.goes(now);
                sent[(ms / 1_000) as usize] += 1;
            }
        }
        assert_eq!(sent[0], 1_000);
        assert!((1_000..=1_101).contains(&sent[2]), "{sent:?}");
        assert_eq!(Rate::new(None, start).due(), None);
    }
}
