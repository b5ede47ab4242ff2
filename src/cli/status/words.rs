//! Numbers as people read them, and how wide a text is on a terminal. Pure.

use crate::cli::language::Language;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// With a comma before every three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn bytes(number: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = number as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} bytes"),
        _ => format!("{size:.1} {}", units[unit]),
    }
}

/// The two largest units of a time.
pub fn span(seconds: u64, language: Language) -> String {
    let units =
        [(86_400, ["d", "天"]), (3_600, ["h", "小时"]), (60, ["min", "分"]), (1, ["s", "秒"])];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut text = String::new();
    for (size, names) in units.iter().skip(first).take(2) {
        if text.is_empty() || rest >= *size {
            let gap = if text.is_empty() { "" } else { " " };
            text += &format!("{gap}{} {}", rest / size, language.pick(*names));
        }
        rest %= size;
    }
    text
}

/// Milliseconds, or seconds where there are many.
pub fn ms(ms: f64, language: Language) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => span((ms / 1e3) as u64, language),
    }
}

/// Per second, or per cent: one digit behind the point where that says something.
pub fn rate(rate: f64) -> String {
    match rate {
        rate if rate.abs() < 100.0 => format!("{rate:.1}"),
        rate => count(rate.round() as u64),
    }
}

/// Filled up to so many columns.
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

pub fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(text.width())))
}

/// As much as fits into so many columns; what is no text is left out.
pub fn cut(text: &str, columns: usize) -> String {
    let mut wide = 0;
    let fits = |c: &char| {
        wide += c.width().unwrap_or_default();
        wide <= columns
    };
    text.chars().filter(|c| !c.is_control()).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{Chinese, English};

    #[test]
    fn numbers_are_readable() {
        let counts = [0, 7, 999, 1_000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "1,234,567"]);
        assert_eq!([1_023, 1_024, 5 << 30].map(bytes), ["1023 bytes", "1.0 KiB", "5.0 GiB"]);
        let spans = [0, 59, 60, 61, 3_600, 90_061].map(|seconds| span(seconds, English));
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h"]);
        assert_eq!(span(3_720, Chinese), "1 小时 2 分");
        assert_eq!(
            [0.25, 12.0, 1_234.0, 61_000.0].map(|it| ms(it, English)),
            ["0.2 ms", "12 ms", "1234 ms", "1 min 1 s"]
        );
        assert_eq!([0.04, 99.94, 1_234.5].map(rate), ["0.0", "99.9", "1,235"]);
    }

    #[test]
    fn chinese_takes_two_columns_and_nothing_reaches_over_the_edge() {
        assert_eq!(padded("队列", 6), "队列  ");
        assert_eq!(right("1", 3), "  1");
        assert_eq!([3, 4, 5].map(|columns| cut("队列a", columns)), ["队", "队列", "队列a"]);
        assert_eq!(cut("a\u{1b}[2J\nb", 9), "a[2Jb");
    }
}
