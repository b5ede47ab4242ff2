//! Time as the rest uses it: milliseconds for what is stored or compared, which never go back; the
//! calendar's seconds; and the pauses between two log lines of one kind.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// Unix time in s as everybody else has it, for whoever needs the day or the minute.
pub fn unix_seconds() -> u64 {
    wall().as_secs()
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
}
