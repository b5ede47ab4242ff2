//! A message's data: a flat JSON object or list whose values become text as PHP's string cast makes it, in one pass over
//! the bytes and without a tree. Pure functions, on the reactor (check) and the workers (read).
//! It refuses nested values, and never panics or recurses on bytes from outside.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::php;

/// Bytes of client data that an error message quotes at most.
const QUOTED_MAX: usize = 64;

/// Why data cannot fill a template, in one line of bounded length: what follows `invalid data: ` in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataError(String);

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DataError {}

/// Each variable's place, by its name.
pub(super) type Slots = foldhash::HashMap<Box<str>, usize>;

/// What somebody wants of data; all the rest is only checked.
pub(super) enum Wanted<'v, 'd> {
    Nothing,
    /// The values of these variables.
    Values(&'v Slots, &'v mut [Option<Cow<'d, str>>]),
    /// Which of these variables have a value.
    Names(&'v Slots, &'v mut [bool]),
}

impl<'d> Wanted<'_, 'd> {
    fn slot(&self, name: &str) -> Option<usize> {
        match self {
            Wanted::Nothing => None,
            Wanted::Values(slots, _) | Wanted::Names(slots, _) => slots.get(name).copied(),
        }
    }

    /// The member of a list is named by its index.
    fn slot_of_index(&self, index: usize) -> Option<usize> {
        let (Wanted::Values(slots, _) | Wanted::Names(slots, _)) = self else { return None };
        if slots.is_empty() {
            return None;
        }
        // Room for every usize, and no allocation for each.
        let mut digits = [0; 20];
        let mut left = &mut digits[..];
        let written = write!(left, "{index}").ok().map(|()| left.len());
        let used = digits.len() - written?;
        slots.get(std::str::from_utf8(&digits[..used]).ok()?).copied()
    }

    fn wants_text(&self) -> bool {
        matches!(self, Wanted::Values(..))
    }

    fn take(&mut self, slot: usize, value: Cow<'d, str>) {
        match self {
            Wanted::Nothing => {}
            Wanted::Values(_, values) => values[slot] = Some(value),
            Wanted::Names(_, seen) => seen[slot] = true,
        }
    }
}

/// Says whether `data` could fill a template, without building anything from it.
pub fn check_data(data: &[u8]) -> Result<(), DataError> {
    read(data, Wanted::Nothing)
}

pub(super) fn read<'d>(data: &'d [u8], wanted: Wanted<'_, 'd>) -> Result<(), DataError> {
    if data.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(data)
        .map_err(|e| DataError(format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    if let Some(b'"' | b'-' | b'0'..=b'9' | b't' | b'f') = data.trim_ascii_start().first() {
        return Err(DataError(
            "a single value; it must be a JSON object, a list or null".to_owned(),
        ));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    de::Deserializer::deserialize_any(&mut json, Members { wanted })
        .and_then(|()| json.end())
        .map_err(|e| data_error(text, &e))
}

fn data_error(text: &str, error: &serde_json::Error) -> DataError {
    let message = error.to_string();
    let message = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
    if error.is_data() {
        return DataError(message.to_owned());
    }
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let byte = (line_start + error.column()).saturating_sub(1);
    DataError(format!("not JSON at byte {byte}: {message}"))
}

struct Members<'v, 'd> {
    wanted: Wanted<'v, 'd>,
}

impl<'d> Visitor<'d> for Members<'_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object, a list or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'d>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            let slot = self.wanted.slot(&name);
            let kept = slot.is_some() && self.wanted.wants_text();
            let value = map.next_value_seed(Value { name: &name, kept })?;
            if let Some(slot) = slot {
                self.wanted.take(slot, value);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(mut self, mut list: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let slot = self.wanted.slot_of_index(index);
            let kept = slot.is_some() && self.wanted.wants_text();
            let value = list.next_element_seed(Value { name: &index, kept })?;
            match (value, slot) {
                (None, _) => break,
                (Some(value), Some(slot)) => self.wanted.take(slot, value),
                (Some(_), None) => {}
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed from the data unless it has escapes.
struct Name;

impl<'d> DeserializeSeed<'d> for Name {
    type Value = Cow<'d, str>;

    fn deserialize<D: de::Deserializer<'d>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'d> Visitor<'d> for Name {
    type Value = Cow<'d, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'d str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A member's value as PHP's string cast makes it; a value that is not kept is only checked, and read as empty.
struct Value<'n, N> {
    name: &'n N,
    kept: bool,
}

impl<N: fmt::Display> Value<'_, N> {
    fn text<'d>(&self, text: impl FnOnce() -> String) -> Cow<'d, str> {
        match self.kept {
            true => Cow::Owned(text()),
            false => Cow::Borrowed(""),
        }
    }

    fn refuse<E: de::Error>(&self, what: &str) -> E {
        let mut name = self.name.to_string();
        if name.len() > QUOTED_MAX {
            name.truncate(name.floor_char_boundary(QUOTED_MAX));
            name.push('…');
        }
        E::custom(format_args!(
            "the value of {name:?} is an {what}; values must be text, numbers, true, false or null"
        ))
    }
}

impl<'d, N: fmt::Display> DeserializeSeed<'d> for Value<'_, N> {
    type Value = Cow<'d, str>;

    fn deserialize<D: de::Deserializer<'d>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'d, N: fmt::Display> Visitor<'d> for Value<'_, N> {
    type Value = Cow<'d, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(if value { "1" } else { "" }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.text(|| value.to_string()))
    }

    /// PHP reads an integer that its own do not reach as a float.
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.text(|| match i64::try_from(value) {
            Ok(value) => value.to_string(),
            Err(_) => php::float(value as f64),
        }))
    }

    /// `-0` is read as a float, of which the legacy clients' PHP makes an integer.
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.text(|| php::float(if value == 0.0 { 0.0 } else { value })))
    }

    fn visit_borrowed_str<E>(self, value: &'d str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.text(|| value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'d>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.refuse("array"))
    }

    fn visit_map<A: MapAccess<'d>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.refuse("object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Filling, Template, Unfit};

    fn render(text: &str, data: &[u8]) -> Result<String, Unfit> {
        let mut out = Vec::new();
        Template::compile(text, Filling::DEFAULT).render("o1", data, None, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn rendered(text: &str, data: &str) -> String {
        render(text, data.as_bytes()).unwrap()
    }

    /// What is wrong with `data`, which checking and rendering must agree on.
    fn refused(data: impl AsRef<[u8]>) -> String {
        let error = check_data(data.as_ref()).unwrap_err();
        assert_eq!(render("${a} ${0}", data.as_ref()), Err(Unfit::Data(error.clone())));
        let line = error.to_string();
        assert!(line.len() < 250 && !line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn numbers_become_what_php_makes_of_them() {
        let data = "[0,-7,9223372036854775807,-9223372036854775808,9223372036854775808,\
                    18446744073709551616,39.8,10.0,1e25,true,false,null,-0,-0.0]";
        let text = "${0} ${1} ${2} ${3} ${4} ${5} ${6} ${7} ${8} [${9}${10}${11}] ${12} ${13}";
        let expected = "0 -7 9223372036854775807 -9223372036854775808 9.2233720368548E+18 \
                        1.844674407371E+19 39.8 10 1.0E+25 [1] 0 0";
        assert_eq!(rendered(text, data), expected);
    }

    #[test]
    fn the_last_of_several_members_with_one_name_counts() {
        assert_eq!(rendered("${a}", r#"{"a":1,"b":2,"\u0061":"3"}"#), "3");
    }

    #[test]
    fn empty_data_null_and_empty_lists_fill_nothing() {
        for data in ["", "null", "[]", "{}", " \n[ ] "] {
            check_data(data.as_bytes()).unwrap();
            assert_eq!(rendered("${a}${0}", data), "${a}${0}");
        }
    }

    #[test]
    fn data_that_cannot_fill_a_template_is_refused_with_the_reason() {
        assert_eq!(
            refused(r#"{"x":1,"a":[]}"#),
            "the value of \"a\" is an array; values must be text, numbers, true, false or null"
        );
        assert!(refused(r#"{"nobody asks":{}}"#).contains("is an object"));
        assert!(refused("[1,[2]]").starts_with("the value of \"1\" is an array"));
        assert!(refused("{\"a\nb\":[]}").starts_with("not JSON at byte 3: "));
        assert!(refused(r#"{"a\nb":[]}"#).starts_with("the value of \"a\\nb\" is an array"));
        assert_eq!(refused("{\n\n \"a\": x}"), "not JSON at byte 9: expected value");
        assert!(refused("nul").starts_with("not JSON at byte "));
        assert!(refused(r#"{"a":1} x"#).starts_with("not JSON at byte 8: trailing"));
        assert!(refused(r#"{"a":"\ud800"}"#).starts_with("not JSON at byte "));
        assert!(refused(r#"{"a":1e999}"#).starts_with("not JSON at byte "));
        for single in ["5", "-5", "true", "\"x\"", " false"] {
            assert!(refused(single).starts_with("a single value; "), "{single}");
        }
        for broken in [" ", "{", "[1", "{\"a\"", "{\"a\":", "{1:2}", "<xml>"] {
            assert!(refused(broken).starts_with("not JSON at byte "), "{broken}");
        }
    }

    #[test]
    fn invalid_utf8_is_refused() {
        assert_eq!(refused(b"{\"a\":\"\xff\"}"), "not UTF-8 at byte 6");
        assert_eq!(refused(b"{}\xe4\xb8"), "not UTF-8 at byte 2");
    }

    #[test]
    fn deep_nesting_and_long_names_cost_neither_stack_nor_a_long_error() {
        refused("[".repeat(1_000_000));
        refused("{\"a\":".repeat(1_000_000));
        refused(format!("{{\"{}\":[]}}", "\u{1f600}".repeat(100_000)));
    }
}
