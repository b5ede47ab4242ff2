//! Numbers and times as the cells of a sheet show them, by the number format of the cell: ECMA-376, part 1, 18.8.30
//! and 18.8.31. What depends on where the spreadsheet program runs is shown as in China.

use calamine::{ExcelDateTime, ExcelDateTimeType, NumberFormat};

/// The formats that have a number and no code in the file.
const BUILT_IN: [(&[u32], &str); 14] = [
    (&[14], "yyyy/m/d"),
    (&[22], "yyyy/m/d h:mm"),
    (&[27, 36, 50, 52, 57], "yyyy\"年\"m\"月\""),
    (&[28, 29, 51, 53, 54, 58], "m\"月\"d\"日\""),
    (&[30], "m-d-yy"),
    (&[31], "yyyy\"年\"m\"月\"d\"日\""),
    (&[32], "h\"时\"mm\"分\""),
    (&[33], "h\"时\"mm\"分\"ss\"秒\""),
    (&[34, 55], "上午/下午h\"时\"mm\"分\""),
    (&[35, 56], "上午/下午h\"时\"mm\"分\"ss\"秒\""),
    (&[20], "h:mm"),
    (&[21], "h:mm:ss"),
    (&[45], "mm:ss"),
    (&[46], "[h]:mm:ss"),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [(&str, &str); 7] = [
    ("Sunday", "日"),
    ("Monday", "一"),
    ("Tuesday", "二"),
    ("Wednesday", "三"),
    ("Thursday", "四"),
    ("Friday", "五"),
    ("Saturday", "六"),
];

/// A piece of a format's first section.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    /// A letter, in lower case, and how often it stands there.
    Field(char, usize),
    /// `[h]`, `[m]` or `[s]`: all of it, not what is left of the next larger.
    Elapsed(char),
    /// Decimals of seconds.
    Fraction(usize),
    /// In English or Chinese.
    HalfOfDay([&'static str; 2]),
}

/// Whole numbers are digits, whatever their size; others have the 15 digits that a spreadsheet program shows.
pub fn number(value: f64, format: Option<&NumberFormat>) -> String {
    let code = format.map(|format| format.format_code.as_str());
    if let Some(shown) = code.and_then(|code| fixed(value, code)) {
        return shown;
    }
    if value.fract() == 0.0 {
        // Zero has no sign.
        return format!("{:.0}", value + 0.0);
    }
    let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
    rounded.to_string()
}

/// By a format of digits alone, as 0.00, #,##0 and 00000 are; None for others.
fn fixed(value: f64, code: &str) -> Option<String> {
    let (whole, decimals) = code.split_once('.').unwrap_or((code, ""));
    let grouped = whole.starts_with("#,##");
    let whole = if grouped { &whole[4..] } else { whole };
    let zeros = |text: &str| text.bytes().all(|byte| byte == b'0');
    if whole.is_empty()
        || whole.len() > 20
        || decimals.len() > 15
        || !zeros(whole)
        || !zeros(decimals)
    {
        return None;
    }
    let shown = format!("{:.*}", decimals.len(), value.abs());
    let (digits, rest) = shown.split_at(shown.find('.').unwrap_or(shown.len()));
    let mut digits = format!("{digits:0>width$}", width = whole.len());
    if grouped {
        for at in (1..digits.len()).rev().filter(|at| (shown.len() - rest.len() - at) % 3 == 0) {
            digits.insert(at, ',');
        }
    }
    let sign =
        if value < 0.0 && shown.bytes().any(|b| matches!(b, b'1'..=b'9')) { "-" } else { "" };
    Some(format!("{sign}{digits}{rest}"))
}

pub fn time(time: &ExcelDateTime, format: Option<&NumberFormat>) -> String {
    let id = format.and_then(|format| format.format_id);
    let built_in = BUILT_IN.iter().find(|(ids, _)| id.is_some_and(|id| ids.contains(&id)));
    let code = match (built_in, format) {
        (Some((_, code)), _) => code,
        (None, Some(format)) => format.format_code.as_str(),
        (None, None) => "yyyy-mm-dd hh:mm:ss",
    };
    shown(time, &pieces(code))
}

/// What stands in the code's first section. A month's `m` that belongs to a time becomes an `n`.
fn pieces(code: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = code;
    while let Some(letter) = rest.chars().next() {
        let mut length = letter.len_utf8();
        let lower = letter.to_ascii_lowercase();
        match letter {
            ';' => break,
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
                text(&mut pieces, &rest[1..end]);
                length = (end + 1).min(rest.len());
            }
            '\\' => {
                let literal = rest[1..].chars().next().map_or(0, char::len_utf8);
                text(&mut pieces, &rest[1..1 + literal]);
                length += literal;
            }
            // The width of a character, and one that fills the cell.
            '_' | '*' => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => {
                let end = rest.find(']').unwrap_or(rest.len() - 1);
                let inside = rest[1..end.max(1)].to_ascii_lowercase();
                if let Some(unit @ ('h' | 'm' | 's')) = inside.chars().next()
                    && inside.chars().all(|other| other == unit)
                {
                    pieces.push(Piece::Elapsed(unit));
                }
                length = end + 1;
            }
            _ if rest.starts_with("上午/下午") => {
                pieces.push(Piece::HalfOfDay(["上午", "下午"]));
                length = "上午/下午".len();
            }
            'A' | 'a' if begins(rest, "am/pm") => {
                pieces.push(Piece::HalfOfDay(["AM", "PM"]));
                length = 5;
            }
            'A' | 'a' if begins(rest, "a/p") => {
                pieces.push(Piece::HalfOfDay(["A", "P"]));
                length = 3;
            }
            '.' if rest[1..].starts_with('0') => {
                let zeros = rest[1..].bytes().take_while(|byte| *byte == b'0').count();
                pieces.push(Piece::Fraction(zeros));
                length += zeros;
            }
            _ if matches!(lower, 'y' | 'e' | 'm' | 'd' | 'h' | 's' | 'a') => {
                length = rest
                    .bytes()
                    .take_while(|other| other.eq_ignore_ascii_case(&(letter as u8)))
                    .count();
                pieces.push(Piece::Field(lower, length));
            }
            '@' => {}
            _ => text(&mut pieces, &rest[..length]),
        }
        rest = &rest[length.min(rest.len())..];
    }
    minutes(&mut pieces);
    pieces
}

fn begins(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

fn text(pieces: &mut Vec<Piece>, more: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push_str(more),
        _ => pieces.push(Piece::Text(more.to_owned())),
    }
}

/// An `m` is minutes after hours and before seconds.
fn minutes(pieces: &mut [Piece]) {
    let unit = |piece: &Piece| match piece {
        Piece::Field(unit, _) | Piece::Elapsed(unit) => Some(*unit),
        _ => None,
    };
    for index in 0..pieces.len() {
        let before = pieces[..index].iter().rev().find_map(unit);
        let after = pieces[index + 1..].iter().find_map(unit);
        if let Piece::Field(letter @ 'm', 1..=2) = &mut pieces[index]
            && (before == Some('h') || after == Some('s'))
        {
            *letter = 'n';
        }
    }
}

fn shown(time: &ExcelDateTime, pieces: &[Piece]) -> String {
    let has = |wanted: fn(&Piece) -> bool| pieces.iter().any(wanted);
    // What is not shown is rounded away.
    let digits = if has(|piece| matches!(piece, Piece::Fraction(_))) { 1_000.0 } else { 1.0 };
    let seconds = (time.as_f64() * 86_400.0 * digits).round() / digits;
    let whole = ExcelDateTime::new(seconds / 86_400.0, ExcelDateTimeType::DateTime, is_1904(time));
    let (year, month, day, hour, minute, second, milli) = whole.to_ymd_hms_milli();
    let days = (seconds / 86_400.0).floor();
    // Day 1 of the calendar of 1900 was a Sunday there, day 0 of that of 1904 a Friday.
    let weekday = (days + if is_1904(time) { 5.0 } else { -1.0 }).rem_euclid(7.0) as usize;
    let twelve = has(|piece| matches!(piece, Piece::HalfOfDay(_)));
    let mut shown = String::new();
    for piece in pieces {
        let (number, width) = match piece {
            Piece::Text(text) => {
                shown.push_str(text);
                continue;
            }
            Piece::HalfOfDay(halves) => {
                shown.push_str(halves[usize::from(hour >= 12)]);
                continue;
            }
            Piece::Fraction(digits) => {
                let digits = (*digits).min(3);
                shown.push_str(&format!(".{milli:03}")[..=digits]);
                continue;
            }
            Piece::Elapsed(unit) => {
                let unit = match unit {
                    'h' => 3_600.0,
                    'm' => 60.0,
                    _ => 1.0,
                };
                shown.push_str(&format!("{:.0}", (seconds / unit).trunc()));
                continue;
            }
            Piece::Field('m', 3..) => {
                let name = MONTHS[usize::from(month.clamp(1, 12)) - 1];
                shown.push_str(if matches!(piece, Piece::Field(_, 3)) { &name[..3] } else { name });
                continue;
            }
            Piece::Field('d', 3) => {
                shown.push_str(&DAYS[weekday].0[..3]);
                continue;
            }
            Piece::Field('d', 4..) => {
                shown.push_str(DAYS[weekday].0);
                continue;
            }
            Piece::Field('a', count) => {
                let before = if *count > 3 { "星期" } else { "周" };
                shown.extend([before, DAYS[weekday].1]);
                continue;
            }
            Piece::Field('y', 1..=2) => (year % 100, 2),
            Piece::Field('y' | 'e', _) => (year, 4),
            Piece::Field('m', width) => (u16::from(month), *width),
            Piece::Field('d', width) => (u16::from(day), *width),
            Piece::Field('h', width) if twelve => (u16::from((hour + 11) % 12 + 1), *width),
            Piece::Field('h', width) => (u16::from(hour), *width),
            Piece::Field('n', width) => (u16::from(minute), *width),
            Piece::Field(_, width) => (u16::from(second), *width),
        };
        shown.push_str(&format!("{number:0width$}", width = width.min(4)));
    }
    shown
}

/// Day 0 of the one calendar is in 1904, that of the other is not.
fn is_1904(time: &ExcelDateTime) -> bool {
    let of_1904 = |kind| *time == ExcelDateTime::new(time.as_f64(), kind, true);
    of_1904(ExcelDateTimeType::DateTime) || of_1904(ExcelDateTimeType::TimeDelta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_code(value: f64, code: &str) -> String {
        let time = ExcelDateTime::new(value, ExcelDateTimeType::DateTime, false);
        shown(&time, &pieces(code))
    }

    #[test]
    fn times_are_shown_by_the_code_of_their_cell() {
        // 2026-11-25, a Wednesday, 09:05:07 and a bit less.
        let value = 46_351.0 + (9.0 * 3_600.0 + 5.0 * 60.0 + 6.9999) / 86_400.0;
        for (code, shown) in [
            ("yyyy\\-mm\\-dd", "2026-11-25"),
            ("YYYY-MM-DD HH:MM:SS", "2026-11-25 09:05:07"),
            ("yyyy/m/d;@", "2026/11/25"),
            ("[$-804]yyyy\"年\"m\"月\"d\"日\";@", "2026年11月25日"),
            ("[$-F800]dddd, mmmm dd, yyyy", "Wednesday, November 25, 2026"),
            ("yy-mmm-d", "26-Nov-25"),
            ("[$-804]aaaa", "星期三"),
            ("aaa", "周三"),
            ("h:mm AM/PM", "9:05 AM"),
            ("上午/下午h\"时\"mm\"分\"", "上午9时05分"),
            ("mm:ss", "05:07"),
            ("m/d h:mm", "11/25 9:05"),
            ("h\"时\"m\"分\"", "9时5分"),
            ("hh:mm:ss.000", "09:05:07.000"),
            ("e年m月", "2026年11月"),
        ] {
            assert_eq!(by_code(value, code), shown, "{code}");
        }
        assert_eq!(by_code(0.5, "h:mm AM/PM"), "12:00 PM");
        assert_eq!(by_code(1.0 + 1.0 / 24.0, "[h]:mm:ss"), "25:00:00");
        assert_eq!(by_code(1.0, "[mm]:ss"), "1440:00");
        for odd in ["", "\"", "\\", "[", "[h", "_", "*", "上", "..0", "a/", "[]", "\u{10ffff}m\""]
        {
            by_code(value, odd);
        }
    }

    #[test]
    fn formats_without_a_code_are_shown_as_in_china() {
        let at = |value, id| {
            let mut format = NumberFormat::default();
            format.format_id = Some(id);
            time(&ExcelDateTime::new(value, ExcelDateTimeType::DateTime, false), Some(&format))
        };
        assert_eq!(at(46_351.0, 14), "2026/11/25");
        assert_eq!(at(46_351.375, 22), "2026/11/25 9:00");
        assert_eq!(at(46_351.0, 31), "2026年11月25日");
        assert_eq!(at(46_351.0, 57), "2026年11月");
        let late = ExcelDateTime::new(44_889.0, ExcelDateTimeType::DateTime, true);
        assert_eq!(time(&late, None), "2026-11-25 00:00:00");
        assert_eq!(shown(&late, &pieces("aaa")), "周三");
    }

    #[test]
    fn whole_numbers_are_digits_and_others_what_is_shown_of_them() {
        let format = |code: &str| {
            let mut format = NumberFormat::default();
            format.format_code = code.to_owned();
            format
        };
        for (value, code, shown) in [
            (3.0, "General", "3"),
            (13_912_345_678.0, "General", "13912345678"),
            (-0.0, "General", "0"),
            (1e20, "General", "100000000000000000000"),
            (0.1 + 0.2, "General", "0.3"),
            (-39.8, "General", "-39.8"),
            (39.8, "0.00", "39.80"),
            (-0.001, "0.00", "0.00"),
            (42.0, "00000", "00042"),
            (1_234_567.891, "#,##0.00", "1,234,567.89"),
            (-999.0, "#,##0", "-999"),
            (-1_000.0, "#,##0", "-1,000"),
            (0.5, "0%", "0.5"),
        ] {
            assert_eq!(number(value, Some(&format(code))), shown, "{value} {code}");
        }
    }
}
