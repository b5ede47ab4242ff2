//! One value's text → its type, judged by its row of the key table, and back to text for `check`:
//! numbers, times, words, paths; what names another machine is in address.rs.
//! Pure functions without I/O. A refusal is a phrase that says what the value must be; it never
//! repeats the value, because the caller knows whether that may be shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::key::{Allowed, Key};
use super::units::{BYTES, COUNT, TIME, scaled};
use super::{LogFile, SyncPolicy};

/// What a value turned into, or why it did not.
pub type Parsed<T> = Result<T, String>;

/// An enum whose variants are words in the file.
pub trait Named: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, value)| *value == self);
        found.expect("invariant: every variant of a Named enum is in NAMES").0
    }
}

/// `a, b or c`.
pub fn names<T: Named>() -> String {
    let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Within its key's bounds: a count, a number of bytes, or milliseconds.
fn quantity(key: &Key, text: &str) -> Option<u64> {
    let (units, min, max) = match key.allowed {
        Allowed::Count(min, max) => (COUNT, min, max),
        Allowed::Bytes(min, max) | Allowed::PowerOfTwo(min, max) => (BYTES, min, max),
        Allowed::Time(min, max) | Allowed::Sync(min, max) => (TIME, min, max),
        _ => return None,
    };
    let power = matches!(key.allowed, Allowed::PowerOfTwo(..));
    scaled(text, units).filter(|n| (min..=max).contains(n) && (!power || n.is_power_of_two()))
}

pub fn must_be(key: &Key) -> String {
    format!("must be {}", key.allowed)
}

pub fn number<T: TryFrom<u64>>(key: &Key, text: &str) -> Parsed<T> {
    let number = quantity(key, text).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| must_be(key))
}

pub fn time(key: &Key, text: &str) -> Parsed<Duration> {
    let time = quantity(key, text).map(Duration::from_millis);
    time.ok_or_else(|| must_be(key))
}

pub fn sync(key: &Key, text: &str) -> Parsed<SyncPolicy> {
    match text {
        "always" => Ok(SyncPolicy::Always),
        "never" => Ok(SyncPolicy::Never),
        _ => time(key, text).map(SyncPolicy::Every),
    }
}

pub fn flag(key: &Key, text: &str) -> Parsed<bool> {
    switch(text).ok_or_else(|| must_be(key))
}

/// PHP's words for true and false, in any case.
pub fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "none" | "0" | "" => Some(false),
        _ => None,
    }
}

pub fn word<T: Named>(key: &Key, text: &str) -> Parsed<T> {
    let mut names = T::NAMES.iter();
    let found = names.find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| must_be(key))
}

pub fn text(_: &Key, text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

pub fn optional_text(_: &Key, text: &str) -> Parsed<Option<String>> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

pub fn identifier(key: &Key, text: &str) -> Parsed<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match text.len() <= 40 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(must_be(key)),
    }
}

/// A path that is not absolute is one below `root`.
pub fn path(root: &Path) -> impl Fn(&Key, &str) -> Parsed<PathBuf> {
    move |key, text| match text {
        "" => Err(must_be(key)),
        _ => Ok(root.join(text)),
    }
}

pub fn optional_path(root: &Path) -> impl Fn(&Key, &str) -> Parsed<Option<PathBuf>> {
    move |_, text| Ok((!text.is_empty()).then(|| root.join(text)))
}

/// A path, or `-`.
pub fn path_or_stderr(root: &Path) -> impl Fn(&Key, &str) -> Parsed<LogFile> {
    move |key, text| match text {
        "-" => Ok(LogFile::Stderr),
        _ => path(root)(key, text).map(LogFile::Days),
    }
}

/// A path, or `usual` where it is only switched on, or None.
pub fn path_or_flag(root: &Path, usual: PathBuf) -> impl Fn(&Key, &str) -> Parsed<Option<PathBuf>> {
    move |key, text| match text {
        "" => Err(must_be(key)),
        _ => Ok(match switch(text) {
            Some(true) => Some(usual.clone()),
            Some(false) => None,
            None => Some(root.join(text)),
        }),
    }
}

/// One of a few fixed values.
pub fn one_of<T: std::str::FromStr>(key: &Key, text: &str) -> Parsed<T> {
    match key.allowed {
        Allowed::OneOf(words) if words.contains(&text) => text.parse().map_err(|_| must_be(key)),
        _ => Err(must_be(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::config::Level;
    use crate::config::keys::find;
    use crate::config::units::show;

    fn key(section: &str, name: &str) -> &'static Key {
        find(section, name).unwrap()
    }

    #[test]
    fn sizes_are_bytes_or_carry_a_unit() {
        let size = |text| number::<u64>(key("queue", "queue_max_bytes"), text);
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("2465792"), Ok(2_465_792));
        assert_eq!(size("64K"), Ok(65_536));
        assert_eq!(size("8m"), Ok(8 << 20));
        assert_eq!(size("3G"), Ok(3 << 30));
        for bad in ["", "M", "-1", "+1", "1.5M", "8MB", "1 M", "0x10", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        let segment = |text| number::<u64>(key("queue", "segment_size"), text);
        assert_eq!(segment("1048576"), Ok(1 << 20));
        assert!(segment("3M").is_err());
        assert!(segment("512K").is_err());
    }

    #[test]
    fn times_are_seconds_or_carry_a_unit() {
        let idle = |text| time(key("setting", "heartbeat_idle_time"), text);
        assert_eq!(idle("0"), Ok(Duration::ZERO));
        assert_eq!(idle("90"), Ok(Duration::from_secs(90)));
        assert_eq!(idle("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(idle("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(idle("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "1h", "1.5s", "-1", "18446744073709551615m"] {
            assert!(idle(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for n in [1, 999, 1000, 1024, 60_000, 90_000, 65_536, 3 << 30] {
            for units in [BYTES, TIME, COUNT] {
                assert_eq!(scaled(&show(n, units), units), Some(n));
            }
        }
        assert_eq!(show(0, TIME), "0");
        assert_eq!(show(90_000, TIME), "90s");
    }

    #[test]
    fn php_booleans_are_read_in_any_case() {
        let daemonize = |text| flag(key("setting", "daemonize"), text);
        for yes in ["on", "yes", "true", "1", "On", "TRUE"] {
            assert_eq!(daemonize(yes), Ok(true));
        }
        for no in ["off", "no", "false", "none", "0", "", "No"] {
            assert_eq!(daemonize(no), Ok(false));
        }
        assert_eq!(daemonize("2"), Err("must be on or off".to_owned()));
    }

    #[test]
    fn words_and_sync_policies_are_closed_sets() {
        let level = |text| word::<Level>(key("log", "log_level"), text);
        assert_eq!(level("WARNING"), Ok(Level::Warning));
        assert!(level("warn").is_err());
        assert_eq!(word::<Class>(key("errcode", "1"), "openid_rate"), Ok(Class::OpenidRate));
        let sync = |text| sync(key("queue", "sync"), text);
        assert_eq!(sync("always"), Ok(SyncPolicy::Always));
        assert_eq!(sync("never"), Ok(SyncPolicy::Never));
        let every = |ms| Ok(SyncPolicy::Every(Duration::from_millis(ms)));
        assert_eq!(sync("1ms"), every(1));
        assert_eq!(sync("60"), every(60_000));
        assert!(sync("0").is_err());
        assert!(sync("61s").is_err());
    }

    #[test]
    fn a_table_prefix_is_safe_inside_sql() {
        let prefix = |text| identifier(key("pdo", "table_prefix"), text);
        assert_eq!(prefix("mega_"), Ok("mega_".to_owned()));
        assert_eq!(prefix(""), Ok(String::new()));
        assert!(prefix("a`b").is_err());
        assert!(prefix(&"a".repeat(41)).is_err());
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        let root = Path::new("/srv/mega");
        let pid = |text| path(root)(key("setting", "pid_file"), text);
        assert_eq!(pid("run/a.pid"), Ok("/srv/mega/run/a.pid".into()));
        assert_eq!(pid("/run/a.pid"), Ok("/run/a.pid".into()));
        assert_eq!(pid(""), Err("must be a path".to_owned()));
        let log = |text| optional_path(root)(key("setting", "log_file"), text);
        assert_eq!(log(""), Ok(None));
        assert_eq!(log("a"), Ok(Some("/srv/mega/a".into())));
    }
}
