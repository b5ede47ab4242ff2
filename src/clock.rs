//! Time as the rest uses it: Unix milliseconds for what is stored or compared on disk, and the
//! pauses between two log lines of one kind.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
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
