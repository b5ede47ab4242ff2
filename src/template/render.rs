//! One template, compiled once and rendered for each message: text pieces and placeholders, filled in one pass, so text
//! that a value brings in is never substituted again. Pure functions, on the workers and whoever fills the table.
//! What the data may be is data.rs's to say.

use std::collections::HashMap;
use std::ops::Range;

use super::data::{self, DataError};
use crate::config::Escape;

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
const CLIENT_MSG_ID: &str = "\"client_msg_id\"";

#[derive(Debug)]
pub struct Template {
    text: Box<str>,
    /// The part of `text` before the place of a client_msg_id; empty where none is inserted.
    head: usize,
    /// What follows an inserted client_msg_id; None where none is inserted.
    separator: Option<&'static str>,
    /// What follows `head`, in order.
    pieces: Vec<Piece>,
    /// Each variable's slot, numbered by first appearance.
    slots: HashMap<Box<str>, usize>,
}

#[derive(Debug)]
enum Piece {
    Text(Range<usize>),
    Openid {
        escaped: bool,
    },
    Variable {
        slot: usize,
        /// The placeholder with its `${` and `}`.
        span: Range<usize>,
        escaped: bool,
    },
}

impl Template {
    pub fn compile(text: &str, escape: Escape) -> Template {
        let separator = msg_id_separator(text);
        let head = match separator {
            Some(_) => text.find('{').map_or(0, |brace| brace + 1),
            None => 0,
        };
        let mut template = Template {
            text: text.into(),
            head,
            separator,
            pieces: Vec::new(),
            slots: HashMap::new(),
        };
        let mut done = head;
        let mut quotes = Quotes::default();
        quotes.pass(&text[..head]);
        while let Some(span) = next_placeholder(text, done) {
            template.push_text(done..span.start);
            quotes.pass(&text[done..span.start]);
            template.push_placeholder(span.clone(), quotes.open && escape == Escape::Json);
            // A placeholder that no value fills stays as text, so its own bytes count like any others.
            quotes.pass(&text[span.clone()]);
            done = span.end;
        }
        template.push_text(done..text.len());
        template
    }

    /// Clears `out` and writes the message into it. `client_msg_id` is left out of a template that is not a JSON
    /// object or names its own.
    pub fn render(
        &self,
        openid: &str,
        data: &[u8],
        client_msg_id: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), DataError> {
        out.clear();
        let mut values = vec![None; self.slots.len()];
        data::read(data, &self.slots, &mut values)?;
        out.extend_from_slice(&self.text.as_bytes()[..self.head]);
        if let (Some(id), Some(separator)) = (client_msg_id, self.separator) {
            out.extend_from_slice(CLIENT_MSG_ID.as_bytes());
            out.extend_from_slice(b":\"");
            out.extend_from_slice(id.as_bytes());
            out.push(b'"');
            out.extend_from_slice(separator.as_bytes());
        }
        for piece in &self.pieces {
            match piece {
                Piece::Text(span) => out.extend_from_slice(&self.text.as_bytes()[span.clone()]),
                Piece::Openid { escaped } => push_value(openid, *escaped, out),
                Piece::Variable { slot, span, escaped } => match &values[*slot] {
                    Some(value) => push_value(value, *escaped, out),
                    None => out.extend_from_slice(&self.text.as_bytes()[span.clone()]),
                },
            }
        }
        Ok(())
    }

    /// The names that data may fill, in the order of their first appearance; `OPENID` is not one of them.
    pub fn variables(&self) -> Vec<&str> {
        let mut names = Vec::with_capacity(self.slots.len());
        for piece in &self.pieces {
            if let Piece::Variable { slot, span, .. } = piece
                && *slot == names.len()
            {
                names.push(self.name(span));
            }
        }
        names
    }

    fn name(&self, span: &Range<usize>) -> &str {
        &self.text[span.start + 2..span.end - 1]
    }

    fn push_text(&mut self, span: Range<usize>) {
        if !span.is_empty() {
            self.pieces.push(Piece::Text(span));
        }
    }

    fn push_placeholder(&mut self, span: Range<usize>, escaped: bool) {
        let name = self.name(&span);
        if name == "OPENID" {
            self.pieces.push(Piece::Openid { escaped });
            return;
        }
        let name: Box<str> = name.into();
        let next = self.slots.len();
        let slot = *self.slots.entry(name).or_insert(next);
        self.pieces.push(Piece::Variable { slot, span, escaped });
    }
}

/// The first `}` after a `${` ends a placeholder, which begins at the last `${` before it.
fn next_placeholder(text: &str, from: usize) -> Option<Range<usize>> {
    let first = from + text[from..].find("${")?;
    let end = first + text[first..].find('}')?;
    let start = first + text[first..end].rfind("${")?;
    Some(start..end + 1)
}

/// Whether the template's JSON text is inside a string after what it has passed.
#[derive(Default)]
struct Quotes {
    open: bool,
    backslash: bool,
}

impl Quotes {
    fn pass(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.backslash {
                self.backslash = false;
            } else if byte == b'\\' {
                self.backslash = self.open;
            } else if byte == b'"' {
                self.open = !self.open;
            }
        }
    }
}

fn msg_id_separator(text: &str) -> Option<&'static str> {
    if text.contains(CLIENT_MSG_ID) {
        return None;
    }
    let members = text.trim_start_matches(JSON_SPACE).strip_prefix('{')?;
    let empty = members.trim_start_matches(JSON_SPACE).starts_with('}');
    Some(if empty { "" } else { "," })
}

fn push_value(value: &str, escaped: bool, out: &mut Vec<u8>) {
    if !escaped {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    let start = out.len();
    serde_json::to_writer(&mut *out, value).expect("a Vec takes every write");
    // The quotes around the value are the template's own.
    out.pop();
    out.remove(start);
}

#[cfg(test)]
mod tests {
    use super::super::data::check_data;
    use super::*;

    fn render(text: &str, data: &[u8], id: Option<&str>) -> Result<String, DataError> {
        let mut out = b"left from the last message".to_vec();
        Template::compile(text, Escape::Json).render("o\"1", data, id, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn rendered(text: &str, data: &str) -> String {
        render(text, data.as_bytes(), None).unwrap()
    }

    #[test]
    fn the_recorded_templates_render_as_they_must() {
        #[derive(serde::Deserialize)]
        struct Case<'a> {
            name: String,
            template: String,
            openid: String,
            #[serde(borrow)]
            data: &'a serde_json::value::RawValue,
            ours: String,
        }
        let file = include_str!("../../tests/data/templates.json");
        let cases: Vec<Case<'_>> = serde_json::from_str(file).unwrap();
        assert!(cases.len() > 30);
        let mut out = Vec::new();
        for case in cases {
            let data = case.data.get().as_bytes();
            check_data(data).unwrap();
            let template = Template::compile(&case.template, Escape::Json);
            template.render(&case.openid, data, None, &mut out).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), case.ours, "{}", case.name);
        }
    }

    #[test]
    fn a_value_is_escaped_inside_a_json_string_and_only_there() {
        let data = r#"{"a":"\"\\\n\u0001/中"}"#;
        assert_eq!(
            rendered(r#"{"x":"${a}","y\"":${a}}"#, data),
            "{\"x\":\"\\\"\\\\\\n\\u0001/中\",\"y\\\"\":\"\\\n\u{1}/中}"
        );
        assert_eq!(rendered(r#""${OPENID}" ${OPENID}"#, ""), r#""o\"1" o"1"#);
    }

    #[test]
    fn a_raw_template_escapes_nothing() {
        let mut out = Vec::new();
        let template = Template::compile(r#"{"x":"${a}${OPENID}"}"#, Escape::Raw);
        template.render("o\"1", br#"{"a":"\\n\""}"#, None, &mut out).unwrap();
        assert_eq!(out, br#"{"x":"\n"o"1"}"#);
    }

    #[test]
    fn a_placeholder_begins_at_the_last_dollar_brace_before_its_end() {
        let data = r#"{"b":"B","":"E","a${b":"no"}"#;
        assert_eq!(rendered("${a${b}}", data), "${aB}");
        assert_eq!(rendered("$${b}$ {} } ${", data), "$B$ {} } ${");
        assert_eq!(rendered("${}${ b}", data), "E${ b}");
    }

    #[test]
    fn a_stray_dollar_brace_does_not_turn_escaping_around() {
        let text = r#"{"x":"${ costs","y":{},"z":"${a}"}"#;
        let expected = r#"{"x":"${ costs","y":{},"z":"\""}"#;
        assert_eq!(rendered(text, r#"{"a":"\""}"#), expected);
    }

    #[test]
    fn a_client_msg_id_goes_first_into_an_object_that_has_none() {
        let with_id = |text| render(text, b"", Some("7-9")).unwrap();
        assert_eq!(with_id(r#" {"a":1}"#), r#" {"client_msg_id":"7-9","a":1}"#);
        assert_eq!(with_id("{ }"), r#"{"client_msg_id":"7-9" }"#);
        assert_eq!(with_id("{${b}}"), r#"{"client_msg_id":"7-9",${b}}"#);
        for text in ["", "x{}", "[{}]", "${a}", r#"{"client_msg_id":"mine"}"#] {
            assert_eq!(with_id(text), text);
        }
        assert_eq!(rendered(r#"{"a":"${a}"}"#, r#"{"a":2}"#), r#"{"a":"2"}"#);
    }

    #[test]
    fn variables_are_named_once_in_their_order() {
        let template = Template::compile("${b}${OPENID}${a}${b}${标题}${c${d}", Escape::Json);
        assert_eq!(template.variables(), ["b", "a", "标题", "d"]);
    }
}
