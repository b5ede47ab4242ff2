//! Time as the rest uses it: what the clocks say, read once a turn; WeChat's day; and the pauses between two
//! log lines of one kind.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds.
const DAY: u64 = 86_400;

/// WeChat's day begins at midnight, UTC+8.
const UTC_PLUS_8: u64 = 8 * 3_600;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Seconds since 1970, as the calendar has it.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What the clocks said at one moment. Whoever decides something and then how long to wait for it takes both
/// from one `Now`: what came due between two looks would wake nobody.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub at: Instant,
    /// The queue's time, see `now_ms`.
    pub ms: u64,
    /// The calendar's, see `unix_seconds`.
    pub unix: u64,
}

impl Now {
    pub fn read() -> Now {
        Now { at: Instant::now(), ms: now_ms(), unix: unix_seconds() }
    }
}

/// Days since 1970 in China.
pub fn wechat_day(unix_seconds: u64) -> u64 {
    (unix_seconds + UTC_PLUS_8) / DAY
}

/// How long WeChat's day still lasts: never zero.
pub fn until_next_wechat_day(unix_seconds: u64) -> Duration {
    Duration::from_secs(DAY - (unix_seconds + UTC_PLUS_8) % DAY)
}

/// Lets one through a minute: for log lines that would otherwise come once a message.
#[derive(Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    pub fn now(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(60));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_turns_at_midnight_in_china() {
        let evening = 16 * 3_600 - 1;
        assert_eq!((wechat_day(evening), wechat_day(evening + 1)), (0, 1));
        assert_eq!(until_next_wechat_day(evening), Duration::from_secs(1));
        assert_eq!(until_next_wechat_day(evening + 1), Duration::from_secs(DAY));
    }
}
