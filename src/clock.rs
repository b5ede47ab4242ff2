//! Time as the rest uses it: milliseconds for what is stored or compared, which never go back; the calendar's
//! seconds and WeChat's day, and how people read them; what both said at one moment; how old something is that another
//! process has put down; and the pauses between two log lines of one kind.

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

/// ms since the machine began, also those that it slept: nobody sets them.
pub fn uptime_ms() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// What the clocks said when something was put down, for a later process to know how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Which start of the machine it was, if that is known.
    pub boot: Option<String>,
    /// See `uptime_ms`.
    pub uptime: i64,
    /// Unix time in ms as everybody else has it.
    pub unix: u64,
}

impl Moment {
    pub fn read() -> Moment {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Moment::of(boot.map(|id| id.trim_end().to_owned()))
    }

    /// Now, when it is known which start of the machine this is.
    pub fn of(boot: Option<String>) -> Moment {
        Moment { boot, uptime: uptime_ms(), unix: wall().as_millis() as u64 }
    }

    /// The machine has not been started anew between the two.
    pub fn is_of_the_start_of(&self, other: &Moment) -> bool {
        self.boot.is_some() && self.boot == other.boot
    }

    /// How long ago that was which happened at `uptime`, as whoever put down `then` counted it. Of the same start of
    /// the machine it is exact, whatever was done to the wall's clock. Of another one, or of another machine, the wall's
    /// clock says it. None if that was set back: nobody knows.
    pub fn age(&self, uptime: i64, then: &Moment) -> Option<Duration> {
        let ms = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
        if self.is_of_the_start_of(then) {
            return ms(self.uptime.checked_sub(uptime)?);
        }
        let between = Duration::from_millis(self.unix.checked_sub(then.unix)?);
        Some(between + ms(then.uptime.checked_sub(uptime)?)?)
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
    fn an_age_is_exact_until_the_machine_is_started_anew_and_unknown_if_its_clock_was_set_back() {
        let moment = |boot: Option<&str>, uptime, unix| {
            let boot = boot.map(str::to_owned);
            Moment { boot, uptime, unix }
        };
        let then = moment(Some("a"), 100_000, 5_000_000);
        let ms = |ms| Some(Duration::from_millis(ms));
        // The wall's clock was set forward by a day, and back to 1970.
        for unix in [5_000_000 + 86_400_000, 0] {
            assert_eq!(moment(Some("a"), 103_000, unix).age(99_000, &then), ms(4_000));
        }
        assert_eq!(moment(Some("a"), 98_000, 5_000_000).age(99_000, &then), None);
        for boot in [Some("b"), None] {
            assert_eq!(moment(boot, 2_000, 5_060_000).age(99_000, &then), ms(61_000));
            assert_eq!(moment(boot, 2_000, 4_999_999).age(99_000, &then), None, "set back");
        }
        let unknown = moment(None, 2_000, 5_060_000);
        assert!(!unknown.is_of_the_start_of(&unknown));
        assert!(Moment::read().is_of_the_start_of(&Moment::read()));
        assert!(Moment::read().age(uptime_ms(), &Moment::read()) < ms(5_000));
    }

    #[test]
    fn the_day_turns_at_midnight_in_china() {
        let evening = 16 * 3_600 - 1;
        assert_eq!((wechat_day(evening), wechat_day(evening + 1)), (0, 1));
        assert_eq!(until_next_wechat_day(evening), Duration::from_secs(1));
        assert_eq!(until_next_wechat_day(evening + 1), Duration::from_secs(DAY));
    }
}
