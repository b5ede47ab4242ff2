//! One template, compiled once and rendered for each message: text pieces and placeholders, filled in one pass, so text
//! that a value brings in is never substituted again. Pure functions, on the workers and whoever fills the table.
//! What the data may be is data.rs's to say.

use std::collections::HashSet;
use std::ops::Range;

use super::data::{self, Slots, Wanted, check_data};
use super::unfit::Unfit;
use crate::config::{Escape, MissingVariables, Wechat};

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
const CLIENT_MSG_ID: &str = "\"client_msg_id\"";
const OPENID: &str = "OPENID";

/// So many variables are looked for in data without an allocation.
pub(super) const FEW: usize = 64;

/// Digits that stand for a placeholder in a sample.
const DIGITS: usize = 16;

/// How values enter a template, and what becomes of a variable that has none.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    pub escape: Escape,
    pub missing: MissingVariables,
}

impl Filling {
    #[cfg(test)]
    pub const DEFAULT: Filling = Filling { escape: Escape::Json, missing: MissingVariables::Keep };

    pub fn of(wechat: &Wechat) -> Filling {
        Filling { escape: wechat.template_escape, missing: wechat.missing_variables }
    }
}

#[derive(Debug)]
pub struct Template {
    filling: Filling,
    text: Box<str>,
    /// The part of `text` before the place of a client_msg_id; empty where none is inserted.
    head: usize,
    /// What follows an inserted client_msg_id; None where none is inserted.
    separator: Option<&'static str>,
    /// What follows `head`, in order.
    pieces: Vec<Piece>,
    /// Each variable's slot, numbered by first appearance.
    slots: Slots,
}

#[derive(Debug)]
enum Piece {
    Text(Range<usize>),
    Openid(Placeholder),
    Variable { slot: usize, placeholder: Placeholder },
}

#[derive(Debug)]
struct Placeholder {
    /// With its `${` and `}`.
    span: Range<usize>,
    place: Place,
}

/// Where a placeholder stands in the template's JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    String,
    Outside,
}

impl Template {
    pub fn compile(text: &str, filling: Filling) -> Template {
        let separator = msg_id_separator(text);
        let head = match separator {
            Some(_) => text.find('{').map_or(0, |brace| brace + 1),
            None => 0,
        };
        let mut template = Template {
            filling,
            text: text.into(),
            head,
            separator,
            pieces: Vec::new(),
            slots: Slots::default(),
        };
        let mut done = head;
        let mut quotes = Quotes::default();
        quotes.pass(&text[..head]);
        while let Some(span) = next_placeholder(text, done) {
            template.push_text(done..span.start);
            quotes.pass(&text[done..span.start]);
            let place = if quotes.open { Place::String } else { Place::Outside };
            template.push_placeholder(Placeholder { span: span.clone(), place });
            // A placeholder that no value fills stays as text, so its own bytes count like any others.
            quotes.pass(&text[span.clone()]);
            done = span.end;
        }
        template.push_text(done..text.len());
        template
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a client_msg_id is put into its messages.
    pub fn takes_client_msg_id(&self) -> bool {
        self.separator.is_some()
    }

    /// Says whether a message can be made of `data`.
    pub fn check(&self, data: &[u8]) -> Result<(), Unfit> {
        if self.filling.missing != MissingVariables::Refuse {
            return check_data(data).map_err(Unfit::Data);
        }
        let (mut few, mut many) = ([false; FEW], Vec::new());
        let seen = match few.get_mut(..self.slots.len()) {
            Some(seen) => seen,
            None => {
                many.resize(self.slots.len(), false);
                &mut many[..]
            }
        };
        data::read(data, Wanted::Names(&self.slots, seen)).map_err(Unfit::Data)?;
        match seen.contains(&false) {
            true => Err(self.unfilled(|slot| seen[slot])),
            false => Ok(()),
        }
    }

    fn unfilled(&self, filled: impl Fn(usize) -> bool) -> Unfit {
        Unfit::missing(self.names().filter(|(slot, _)| !filled(*slot)).map(|(_, name)| name))
    }

    /// Clears `out` and writes the message into it. `client_msg_id` is left out of a template that is not a JSON
    /// object or names its own.
    pub fn render(
        &self,
        openid: &str,
        data: &[u8],
        client_msg_id: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        out.clear();
        let mut values = vec![None; self.slots.len()];
        data::read(data, Wanted::Values(&self.slots, &mut values)).map_err(Unfit::Data)?;
        let missing = self.filling.missing;
        if missing == MissingVariables::Refuse && values.contains(&None) {
            return Err(self.unfilled(|slot| values[slot].is_some()));
        }
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
                Piece::Openid(Placeholder { place, .. }) => self.push_value(openid, *place, out),
                Piece::Variable { slot, placeholder: Placeholder { span, place } } => {
                    match &values[*slot] {
                        Some(value) => self.push_value(value, *place, out),
                        None if missing == MissingVariables::Empty => {}
                        None => out.extend_from_slice(&self.text.as_bytes()[span.clone()]),
                    }
                }
            }
        }
        Ok(())
    }

    /// The names that data may fill, in the order of their first appearance; `OPENID` is not one of them.
    pub fn variables(&self) -> Vec<&str> {
        self.names().map(|(_, name)| name).collect()
    }

    /// Each variable's slot and name, in their order.
    fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut next = 0;
        self.pieces.iter().filter_map(move |piece| match piece {
            Piece::Variable { slot, placeholder } if *slot == next => {
                next += 1;
                Some((*slot, self.name(&placeholder.span)))
            }
            _ => None,
        })
    }

    fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Openid(placeholder) | Piece::Variable { placeholder, .. } => Some(placeholder),
        })
    }

    /// The names that stand outside JSON strings, each once.
    pub(super) fn outside(&self) -> impl Iterator<Item = &str> {
        let outside = self.placeholders().filter(|placeholder| placeholder.place == Place::Outside);
        let mut seen = HashSet::new();
        let names = outside.map(|placeholder| self.name(&placeholder.span));
        names.filter(move |name| seen.insert(*name))
    }

    /// The text with these digits in the place of `${OPENID}` and of the variables. Every other byte keeps its place,
    /// and what is JSON with values for the variables is JSON.
    pub(super) fn sample(&self, openid: u8, variables: u8) -> Vec<u8> {
        let mut sample = self.text.as_bytes().to_vec();
        for placeholder in self.placeholders() {
            let span = &placeholder.span;
            let digit = if self.name(span) == OPENID { openid } else { variables };
            // No number of so many digits is too large for JSON.
            let digits = span.start..span.end.min(span.start + DIGITS);
            sample[span.clone()].fill(b' ');
            sample[digits].fill(digit);
        }
        sample
    }

    fn name(&self, span: &Range<usize>) -> &str {
        &self.text[span.start + 2..span.end - 1]
    }

    fn push_text(&mut self, span: Range<usize>) {
        if !span.is_empty() {
            self.pieces.push(Piece::Text(span));
        }
    }

    fn push_placeholder(&mut self, placeholder: Placeholder) {
        let name = self.name(&placeholder.span);
        if name == OPENID {
            self.pieces.push(Piece::Openid(placeholder));
            return;
        }
        let name: Box<str> = name.into();
        let next = self.slots.len();
        let slot = *self.slots.entry(name).or_insert(next);
        self.pieces.push(Piece::Variable { slot, placeholder });
    }

    fn push_value(&self, value: &str, place: Place, out: &mut Vec<u8>) {
        if place == Place::Outside || self.filling.escape == Escape::Raw {
            out.extend_from_slice(value.as_bytes());
            return;
        }
        let start = out.len();
        serde_json::to_writer(&mut *out, value).expect("a Vec takes every write");
        // The quotes around the value are the template's own.
        out.pop();
        out.remove(start);
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

#[cfg(test)]
mod tests {
    use super::super::data::check_data;
    use super::*;

    fn render(text: &str, data: &[u8], id: Option<&str>) -> Result<String, Unfit> {
        let mut out = b"left from the last message".to_vec();
        Template::compile(text, Filling::DEFAULT).render("o\"1", data, id, &mut out)?;
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
            let template = Template::compile(&case.template, Filling::DEFAULT);
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
        let raw = Filling { escape: Escape::Raw, ..Filling::DEFAULT };
        let template = Template::compile(r#"{"x":"${a}${OPENID}"}"#, raw);
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
        let template = Template::compile("${b}${OPENID}${a}${b}${标题}${c${d}", Filling::DEFAULT);
        assert_eq!(template.variables(), ["b", "a", "标题", "d"]);
    }
}
