//! Time as the rest uses it: milliseconds for what is stored or compared, which never go back; the calendar's
//! seconds and WeChat's day, and how people read them; what both said at one moment; and the pauses between two log
//! lines of one kind.

use chrono::{DateTime, Local};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds.
const DAY: u64 = 86_400;

/// WeChat's day begins at midnight, UTC+8.
const UTC_PLUS_8: u64 = 8 * 3_600;

/// When the process first asked, on the clock that never goes back and on the wall's.
static START: LazyLock<(Instant, Duration)> = LazyLock::new(|| (Instant::now(), wall()));

fn wall() -> Duration {
    // A clock before 1970 tells nothing.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Unix time in ms as it was when the process began, and what has passed since: a clock that is set
/// while it runs makes nobody wait longer, or less. Two processes may differ by what it was set.
pub fn now_ms() -> u64 {
    let (began, wall) = &*START;
    (*wall + began.elapsed()).as_millis() as u64
}

/// Unix time in s when the process first asked.
pub fn started() -> f64 {
    START.1.as_secs_f64()
}

/// Unix time in s as everybody else has it, for whoever needs the day or the minute.
pub fn unix_seconds() -> u64 {
    wall().as_secs()
}

/// A Unix time in ms as it is where this runs.
pub fn local(ms: u64) -> DateTime<Local> {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.unwrap_or_default().with_timezone(&Local)
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
    fn both_clocks_show_the_same_time_and_one_never_goes_back() {
        let times: Vec<u64> = (0..1_000).map(|_| now_ms()).collect();
        assert!(times.is_sorted());
        assert!(now_ms().abs_diff(unix_seconds() * 1_000) < 5_000);
    }

    #[test]
    fn the_day_turns_at_midnight_in_china() {
        let evening = 16 * 3_600 - 1;
        assert_eq!((wechat_day(evening), wechat_day(evening + 1)), (0, 1));
        assert_eq!(until_next_wechat_day(evening), Duration::from_secs(1));
        assert_eq!(until_next_wechat_day(evening + 1), Duration::from_secs(DAY));
    }
}
