//! What commands print.

/// `println!` for a reader who may have seen enough, as `head` has: the command does its work all
/// the same.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Text of others as a terminal may show it: characters that would steer it, or turn the direction of what follows, are
/// escaped.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(character.escape_unicode());
            }
            control if control.is_control() => shown.extend(control.escape_default()),
            _ => shown.push(character),
        }
    }
    shown
}

/// The same for a text of several lines.
pub fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_steers_the_terminal() {
        assert_eq!(printable("标题 \"x\" 😀 \\"), "标题 \"x\" 😀 \\");
        assert_eq!(
            printable("\u{1b}[2J\r\n\t\u{7f}\u{9b}1m"),
            "\\u{1b}[2J\\r\\n\\t\\u{7f}\\u{9b}1m"
        );
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2029}"), "a\\u{202e}b\\u{2066}c\\u{2029}");
        assert_eq!(printable_lines("a\nb\u{1b}\n"), "a\nb\\u{1b}\n");
    }
}
