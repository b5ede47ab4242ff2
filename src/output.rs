//! What commands print. Whatever they print, no text of others steers the terminal that shows it.

use std::fmt::Arguments;
use std::io::{self, Write};

/// What is kept of a text that somebody else has written, in characters.
const BRIEF: usize = 300;

/// `println!` for a reader who may have seen enough, as `head` has: the command does its work all
/// the same.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = $crate::output::line(&mut std::io::stdout(), format_args!($($text)*));
    }};
}

/// The same to stderr.
#[macro_export]
macro_rules! say_err {
    ($($text:tt)*) => {{
        let _ = $crate::output::line(&mut std::io::stderr(), format_args!($($text)*));
    }};
}

/// The same behind the program's name.
#[macro_export]
macro_rules! complain {
    ($($text:tt)*) => {
        $crate::say_err!("mega: {}", format_args!($($text)*))
    };
}

/// Writes a text and the end of its line, as a terminal may show it.
pub fn line(out: &mut impl Write, text: Arguments) -> io::Result<()> {
    let mut text = printable_lines(&text.to_string());
    text.push('\n');
    out.write_all(text.as_bytes())
}

/// Text of others as one line that a terminal may show: characters that would steer it, turn the direction of what
/// follows or cannot be seen are spelt as JSON spells them, so that an object remains the same object.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|character| show(character, &mut shown));
    shown
}

/// The same for a text of several lines.
pub fn printable_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push(character),
            other => show(other, &mut shown),
        }
    }
    shown
}

/// The same as `printable`, and not longer than a line of a log should be.
pub fn brief(text: &str) -> String {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

fn show(character: char, shown: &mut String) {
    match character {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        // None of them needs more than four digits.
        hidden if hidden.is_control() || is_hidden(hidden) => {
            *shown += &format!("\\u{:04x}", u32::from(hidden));
        }
        _ => shown.push(character),
    }
}

/// Marks of direction, separators of lines, and what has no width; what joins the parts of an emoji is let be.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
            ..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_steers_the_terminal() {
        assert_eq!(printable("标题 \"x\" 👩\u{200d}🔧 \\"), "标题 \"x\" 👩\u{200d}🔧 \\");
        assert_eq!(
            printable("\u{1b}[2J\r\n\t\u{7f}\u{9b}1m"),
            "\\u001b[2J\\r\\n\\t\\u007f\\u009b1m"
        );
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2029}"), "a\\u202eb\\u2066c\\u2029");
        assert_eq!(printable("a\u{200b}\u{feff}\u{61c}"), "a\\u200b\\ufeff\\u061c");
        assert_eq!(printable_lines("a\nb\u{1b}\n"), "a\nb\\u001b\n");
    }

    #[test]
    fn an_object_that_is_printed_is_the_same_object() {
        let object = serde_json::json!({"openid": "o\u{9b}1m\u{202e}\n\u{7f}", "n": 1});
        let mut printed = Vec::new();
        line(&mut printed, format_args!("{object}")).unwrap();
        let text = String::from_utf8(printed).unwrap();
        assert_eq!(text.matches(char::is_control).count(), 1, "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), object);
    }

    #[test]
    fn a_long_text_is_cut_short_and_says_so() {
        assert_eq!(brief(&"价".repeat(BRIEF)), "价".repeat(BRIEF));
        assert_eq!(brief(&"\n".repeat(BRIEF + 1)), "\\n".repeat(BRIEF) + "…");
    }
}
