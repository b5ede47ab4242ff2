//! INI text → entries with their line numbers. rust-ini does the parsing; this file cleans the text
//! of what rust-ini mistreats in PHP's dialect (BOM, `;` after a value, quotes, backslashes) first.
//! Runs on main, at start-up and on reload. It knows no key, and it refuses a line it cannot be sure
//! of instead of guessing; it never repeats such a line in a message, because it may hold a secret.

use ini::{Ini, ParseOption};

/// One `key = value` line.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1.
    pub line: usize,
    /// Empty for a key that stands before the first section.
    pub section: String,
    pub key: String,
    /// Without its quotes and without the comment behind it.
    pub value: String,
}

/// What is wrong, and in which line where it has one.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub line: Option<usize>,
    pub text: String,
}

/// The entries of `bytes` in the order of their lines, or every line that is no INI.
///
/// Bytes that are not UTF-8 are tolerated in comments only.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Vec<Problem>> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut cleaned = String::with_capacity(text.len());
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match clean(number, line.trim()) {
            Ok(line) => cleaned.push_str(&line),
            Err(why) => {
                problems.push(Problem { line: Some(number), text: format!("syntax error: {why}") })
            }
        }
        // rust-ini takes a backslash at the end of a line for a continuation; a space prevents it.
        cleaned.push_str(" \n");
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // With rust-ini's quotes on, the backslash in "C:\dir\" would hide the closing quote.
    let options =
        ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(&cleaned, options).map_err(|e| {
        vec![Problem { line: Some(e.line), text: format!("syntax error: {}", e.msg) }]
    })?;
    Ok(entries(&ini))
}

/// A line as rust-ini reads it rightly: nothing for a comment, `[section]`, or `NUMBER key = value`.
/// The number rides in the key because rust-ini forgets where it found one.
fn clean(number: usize, line: &str) -> Result<String, String> {
    if line.is_empty() || line.starts_with([';', '#']) {
        return Ok(String::new());
    }
    let cleaned = match line.strip_prefix('[') {
        Some(rest) => format!("[{}]", section(rest)?),
        None => {
            let (key, value) = line
                .split_once('=')
                .ok_or("this is neither a [section], a comment nor `key = value`")?;
            format!("{number} {} = {}", name(key.trim())?, bare(value.trim())?)
        }
    };
    match cleaned.chars().find(|c| c.is_control() && *c != '\t') {
        Some(c) => Err(format!("control character U+{:04X}; remove it", u32::from(c))),
        None if cleaned.contains(char::REPLACEMENT_CHARACTER) => {
            Err("this is not UTF-8; save the file as UTF-8".to_owned())
        }
        None => Ok(cleaned),
    }
}

/// The name in `name] ; comment`.
fn section(rest: &str) -> Result<&str, String> {
    let name = bare(rest)?.strip_suffix(']').map(str::trim);
    name.filter(|name| !name.is_empty() && !name.contains(['[', ']', '\\']))
        .ok_or_else(|| "a section is written [name]".to_owned())
}

/// The key itself, if rust-ini will find its end where PHP does.
fn name(key: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_alphanumeric() || "_-.[]".contains(c);
    if key.is_empty() || !key.chars().all(fits) {
        return Err("a key consists of letters, digits, `_`, `-` and `.`".to_owned());
    }
    Ok(key)
}

/// The value without the comment behind it, still in its quotes.
fn bare(value: &str) -> Result<&str, String> {
    let Some(quote @ ('"' | '\'')) = value.chars().next() else {
        let value = value.split(';').next().unwrap_or(value).trim_end();
        // PHP would join the quoted part to the rest; nobody means that, a password least of all.
        return match value.contains('"') {
            true => Err("a quote inside a value; put the whole value between '...'".to_owned()),
            false => Ok(value),
        };
    };
    let length = value[1..].find(quote).ok_or_else(|| format!("the closing {quote} is missing"))?;
    let (quoted, rest) = value.split_at(length + 2);
    match rest.trim_start().chars().next() {
        None | Some(';') => Ok(quoted),
        Some(_) => Err(format!("something other than a comment after {quote}")),
    }
}

fn entries(ini: &Ini) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (section, properties) in ini.iter() {
        for (key, value) in properties.iter() {
            let numbered = key.split_once(' ');
            let (number, key) = numbered.expect("invariant: clean() puts a number before each key");
            entries.push(Entry {
                line: number.parse().expect("invariant: clean() wrote the number"),
                section: section.unwrap_or_default().to_owned(),
                key: key.to_owned(),
                value: unquote(value).to_owned(),
            });
        }
    }
    entries.sort_by_key(|entry| entry.line);
    entries
}

fn unquote(value: &str) -> &str {
    let between = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `section.key=value@line`, one string an entry.
    fn read(text: &str) -> Vec<String> {
        let show = |e: Entry| format!("{}.{}={}@{}", e.section, e.key, e.value, e.line);
        parse(text.as_bytes()).unwrap().into_iter().map(show).collect()
    }

    fn value(line: &str) -> String {
        let mut entries = parse(format!("[a]\n{line}\nlast = 1\n").as_bytes()).unwrap();
        assert_eq!(entries.len(), 2, "{line:?} swallowed its neighbour");
        entries.remove(0).value
    }

    fn refusal(line: &str) -> String {
        let problems = parse(format!("[a]\nb = 1\n{line}\n").as_bytes()).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, Some(3));
        problems[0].text.clone()
    }

    #[test]
    fn bom_and_crlf_are_not_part_of_anything() {
        assert_eq!(read("\u{feff}[a]\r\nb = 1\r\n\r\nc = 2"), ["a.b=1@2", "a.c=2@4"]);
        assert_eq!(read("\u{feff}b = 1"), [".b=1@1"]);
    }

    #[test]
    fn comments_stand_at_the_start_of_a_line_or_after_a_value() {
        assert_eq!(value("b = 100;"), "100");
        assert_eq!(value("b = 100 ; a hundred = \"many\""), "100");
        assert_eq!(value("b = \"x;y\" ; z"), "x;y");
        assert_eq!(value("b = x # y"), "x # y");
        assert_eq!(
            read("; x = 1\n  # y = 2\n[a] ; [b]\nc = 1"),
            ["a.c=1@4"],
            "comments and blank lines keep the line numbers"
        );
    }

    #[test]
    fn quotes_come_off_and_keep_everything_between_them() {
        assert_eq!(value("b = \" ;#='x' \""), " ;#='x' ");
        assert_eq!(value("b = ' ;#=\"x\" '"), " ;#=\"x\" ");
        assert_eq!(value("b = \"\""), "");
        assert_eq!(value("b = it's"), "it's");
        assert_eq!(value("b ="), "");
    }

    #[test]
    fn a_backslash_is_a_backslash() {
        for text in [r"Server\MegaWechatServer", r"C:\dir\", r"\n\\", r"\"] {
            for quote in ["\"", "'", ""] {
                assert_eq!(value(&format!("b = {quote}{text}{quote}")), text);
            }
        }
    }

    #[test]
    fn repeated_keys_and_sections_keep_their_order() {
        assert_eq!(
            read("[a]\nl[] = 1\nl[] = 2:3\n[b]\nx = a=b\n[a]\ny = 1\nl[] = 4"),
            ["a.l[]=1@2", "a.l[]=2:3@3", "b.x=a=b@5", "a.y=1@7", "a.l[]=4@8"]
        );
    }

    #[test]
    fn names_are_case_sensitive() {
        assert_eq!(read("[a]\nb = 1\n[A]\nB = 2"), ["a.b=1@2", "A.B=2@4"]);
    }

    #[test]
    fn every_syntax_error_says_what_is_wrong() {
        for (line, why) in [
            ("hunter2", "this is neither a [section], a comment nor `key = value`"),
            ("[c", "a section is written [name]"),
            ("[]", "a section is written [name]"),
            ("[c] d", "a section is written [name]"),
            ("= 1", "a key consists of letters, digits, `_`, `-` and `.`"),
            ("c d = 1", "a key consists of letters, digits, `_`, `-` and `.`"),
            ("c:d = 1", "a key consists of letters, digits, `_`, `-` and `.`"),
            (r"c\ = 1", "a key consists of letters, digits, `_`, `-` and `.`"),
            ("c = \"hunter2", "the closing \" is missing"),
            ("c = 'hunter2", "the closing ' is missing"),
            ("c = \"a\\\"b\"", "something other than a comment after \""),
            ("c = 'a' # b", "something other than a comment after '"),
            ("c = hun\"ter2", "a quote inside a value; put the whole value between '...'"),
            ("c = a\u{0}b", "control character U+0000; remove it"),
            ("c = a\rb", "control character U+000D; remove it"),
        ] {
            assert_eq!(refusal(line), format!("syntax error: {why}"), "{line:?}");
        }
    }

    #[test]
    fn gbk_is_tolerated_in_comments_only() {
        let gbk = b"[a]\n;\xb9\xab\xd6\xda\nb = 1 ; \xb9\xab\n";
        assert_eq!(parse(gbk).unwrap()[0].value, "1");
        let problems = parse(b"[a]\nb = \xb9\xab\n").unwrap_err();
        let text = "syntax error: this is not UTF-8; save the file as UTF-8".to_owned();
        assert_eq!(problems, [Problem { line: Some(2), text }]);
    }

    #[test]
    fn all_syntax_errors_are_reported_at_once() {
        let lines: Vec<_> =
            parse(b"x\n[a]\nb = 1\ny\n").unwrap_err().iter().map(|p| p.line).collect();
        assert_eq!(lines, [Some(1), Some(4)]);
    }
}
