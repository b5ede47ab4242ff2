//! Numbers with units, both ways: bytes, milliseconds, counts. Pure.

/// A unit's suffix and what it stands for, the largest first.
pub type Units = &'static [(&'static str, u64)];
pub const BYTES: Units = &[("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];
/// In milliseconds; without a suffix seconds, as in Swoole.
pub const TIME: Units = &[("m", 60_000), ("s", 1000), ("ms", 1), ("", 1000)];
pub const COUNT: Units = &[("", 1)];

/// The number in the largest unit that leaves no fraction.
pub fn show(number: u64, units: Units) -> String {
    match units.iter().find(|(_, factor)| number.is_multiple_of(*factor)) {
        Some((unit, factor)) if number > 0 => format!("{}{unit}", number / factor),
        _ => number.to_string(),
    }
}

pub fn scaled(text: &str, units: Units) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(u, _)| u.eq_ignore_ascii_case(unit))?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}
