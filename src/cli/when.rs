//! Times as people give them to `--since` and `--until`, and as they are shown. Local time.

use crate::clock::{local, now_ms};
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone};

/// Unix time in ms: of `2026-11-24`, `2026-11-24 10:00`, `2026-11-24 10:00:00`, a time with its zone, or so
/// long ago: `90s`, `30m`, `2h`, `7d`.
pub fn parse(text: &str) -> Result<u64, String> {
    let must = || {
        format!("{text} is no time: 2026-11-24, \"2026-11-24 10:00\", or so long ago: 30m, 2h, 7d")
    };
    if let Some(ago) = ago(text) {
        return Ok(now_ms().saturating_sub(ago));
    }
    let zoned = DateTime::parse_from_rfc3339(text);
    // Seconds may be left out.
    if let Ok(time) = zoned.or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%:z")) {
        return Ok(time.timestamp_millis().max(0) as u64);
    }
    let day = || text.parse::<NaiveDate>().ok().map(|day| day.and_time(chrono::NaiveTime::MIN));
    let read = |format| NaiveDateTime::parse_from_str(text, format).ok();
    let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
    let time = day().or_else(|| formats.into_iter().find_map(read)).ok_or_else(must)?;
    // In the hour that comes twice, the first; in the one that is left out, none.
    let time = Local.from_local_datetime(&time).earliest().ok_or_else(must)?;
    Ok(time.timestamp_millis().max(0) as u64)
}

fn ago(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(unit)
}

/// A span of time as whole seconds: `90s`, `30m`, `2h`, `7d`.
pub fn seconds(text: &str) -> Option<u64> {
    ago(text).map(|ms| ms / 1_000)
}

/// With ms and zone, as RFC 3339 has it.
pub fn shown(ms: u64) -> String {
    local(ms).to_rfc3339_opts(SecondsFormat::Millis, false)
}

/// The day that it is in.
pub fn day(ms: u64) -> NaiveDate {
    local(ms).date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_people_write_them() {
        let midnight = parse("2026-11-24").unwrap();
        assert_eq!(parse("2026-11-24 10:30").unwrap() - midnight, 10 * 3_600_000 + 30 * 60_000);
        assert_eq!(parse("2026-11-24 10:30:05").unwrap() % 60_000, 5_000);
        assert_eq!(parse("1970-01-01T08:00:01+08:00").unwrap(), 1_000);
        assert_eq!(parse(&shown(midnight)).unwrap(), midnight);
        let ago = now_ms() - parse("2h").unwrap();
        assert!((7_200_000..7_201_000).contains(&ago), "{ago}");
        for wrong in ["", "h", "2026-13-01", "yesterday", "5w", "99999999999999999d", "µ"] {
            assert!(parse(wrong).unwrap_err().contains("is no time"), "{wrong}");
        }
    }
}
