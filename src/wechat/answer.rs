//! WeChat's answer: a JSON object, looked at for its errcode alone as long as nobody needs the rest. What is in it
//! that JSON or UTF-8 forbids costs that piece only, never the errcode or the other members. Pure.

use crate::output::brief;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

pub struct Answer {
    pub errcode: Option<i64>,
    bytes: Vec<u8>,
}

impl Answer {
    /// None for anything but a JSON object.
    pub fn new(bytes: Vec<u8>) -> Option<Answer> {
        if let Ok(Errcode(errcode)) = serde_json::from_slice(&bytes) {
            return Some(Answer { errcode, bytes });
        }
        let bytes = mended(&bytes).into_bytes();
        let Errcode(errcode) = serde_json::from_slice(&bytes).ok()?;
        Some(Answer { errcode, bytes })
    }

    /// WeChat's number for the message: the digits behind `"msgid"`, which is a number or a text. It stands last in
    /// WeChat's answers, and the last one counts.
    pub fn msgid(&self) -> Option<u64> {
        const NAME: &[u8] = b"\"msgid\"";
        let at = self.bytes.windows(NAME.len()).rposition(|window| window == NAME)?;
        let value = self.bytes[at + NAME.len()..].trim_ascii_start().strip_prefix(b":")?;
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()?.parse().ok()
    }

    pub fn into_object(self) -> Map<String, Value> {
        let whole = serde_json::from_slice(&self.bytes);
        // That it is an object was seen when it was read, so what is wrong is in one of its members.
        let pieces = || serde_json::from_str(&mended(&self.bytes)).map(|Pieces(object)| object);
        whole.or_else(|_| pieces()).unwrap_or_default()
    }
}

/// WeChat's words for people, if the object has some: one line of bounded length, whatever somebody who answers in
/// WeChat's place has put there.
pub fn errmsg(object: &Map<String, Value>) -> Option<String> {
    object.get("errmsg").and_then(Value::as_str).map(brief)
}

/// The errcode of an object; the last one, as PHP has it, if there are several.
struct Errcode(Option<i64>);

impl<'de> Deserialize<'de> for Errcode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Errcode, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Errcode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Errcode, A::Error> {
                let mut errcode = None;
                while let Some(is_errcode) = members.next_key::<IsErrcode>()? {
                    match is_errcode {
                        IsErrcode::Yes => errcode = number(members.next_value::<&RawValue>()?),
                        IsErrcode::No => drop(members.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Errcode(errcode))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

enum IsErrcode {
    Yes,
    No,
}

impl<'de> Deserialize<'de> for IsErrcode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IsErrcode, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = IsErrcode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_bytes<E>(self, name: &[u8]) -> Result<IsErrcode, E> {
                Ok(if name == b"errcode" { IsErrcode::Yes } else { IsErrcode::No })
            }

            fn visit_str<E>(self, name: &str) -> Result<IsErrcode, E> {
                Ok(if name == "errcode" { IsErrcode::Yes } else { IsErrcode::No })
            }
        }
        deserializer.deserialize_bytes(Name)
    }
}

/// A whole number, in quotes or not.
fn number(value: &RawValue) -> Option<i64> {
    let text = value.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).parse().ok()
}

/// All members, with null for those that no value can hold, such as 1e999.
struct Pieces(Map<String, Value>);

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pieces, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pieces;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pieces, A::Error> {
                let mut object = Map::new();
                while let Some((name, value)) = members.next_entry::<String, &RawValue>()? {
                    object.insert(name, serde_json::from_str(value.get()).unwrap_or_default());
                }
                Ok(Pieces(object))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The text with U+FFFD for every byte that is not UTF-8 and for every half of a surrogate pair that stands alone.
fn mended(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut mended = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let (escape, length) = match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
            (None, _) => {
                // What follows a backslash is never the start of an escape.
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                (&rest[..length], length)
            }
            (Some(Half::High), Some(Half::Low)) => (&rest[..12], 12),
            (Some(_), _) => ("\\ufffd", 6),
        };
        mended.push_str(escape);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    mended
}

enum Half {
    High,
    Low,
}

/// Whether the text begins with `\uXXXX` for a half of a pair.
fn surrogate(text: &str) -> Option<Half> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..=0xdbff => Some(Half::High),
        0xdc00..=0xdfff => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errcode(bytes: &[u8]) -> Option<Option<i64>> {
        Answer::new(bytes.to_vec()).map(|answer| answer.errcode)
    }

    fn object(bytes: &[u8]) -> String {
        Value::Object(Answer::new(bytes.to_vec()).unwrap().into_object()).to_string()
    }

    #[test]
    fn what_is_wrong_in_errmsg_costs_neither_errcode_nor_the_rest_of_it() {
        for (answer, whole) in [
            (&b"{\"errcode\":40003,\"errmsg\":\"bad \xff\xfe id\"}"[..], "bad \u{fffd}\u{fffd} id"),
            (br#"{"errcode":40003,"errmsg":"a \ud800 b"}"#, "a \u{fffd} b"),
            (
                br#"{"errcode":40003,"errmsg":"\udc00\ud83d\ude00\ud800"}"#,
                "\u{fffd}\u{1f600}\u{fffd}",
            ),
            (br#"{"errcode":40003,"errmsg":"\\ud800 \ud800\n"}"#, "\\ud800 \u{fffd}\n"),
            (br#"{"errmsg":"\ud800","errcode":40003}"#, "\u{fffd}"),
        ] {
            let shown = String::from_utf8_lossy(answer);
            assert_eq!(errcode(answer), Some(Some(40003)), "{shown}");
            let object = Answer::new(answer.to_vec()).unwrap().into_object();
            assert_eq!(object["errmsg"], whole, "{shown}");
            assert_eq!(object["errcode"], 40003, "{shown}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf_8_does_not_hide_the_errcode() {
        assert_eq!(errcode(b"{\"\xff\":1,\"errcode\":43004}"), Some(Some(43004)));
        assert_eq!(object(b"{\"\xff\":1,\"errcode\":43004}"), "{\"\u{fffd}\":1,\"errcode\":43004}");
    }

    #[test]
    fn numbers_beyond_range_cost_themselves_only() {
        let answer =
            br#"{"errcode":43004,"msgid":1e999,"errmsg":"no","n":123456789012345678901234567890}"#;
        assert_eq!(errcode(answer), Some(Some(43004)));
        let object = Answer::new(answer.to_vec()).unwrap().into_object();
        assert_eq!((&object["errmsg"], &object["msgid"]), (&Value::from("no"), &Value::Null));
    }

    #[test]
    fn an_errcode_is_a_whole_number_with_or_without_quotes_and_the_last_one_counts() {
        for (answer, found) in [
            (r#"{"errcode":"40001"}"#, Some(40001)),
            (r#"{"errcode":-1}"#, Some(-1)),
            (r#"{"errcode":0,"errcode":40001}"#, Some(40001)),
            (r#"{"errcode":null}"#, None),
            (r#"{"errcode":1.5}"#, None),
            (r#"{"errcode":99999999999999999999}"#, None),
            (r#"{"errcode":{"errcode":0}}"#, None),
            (r#"{"data":{"errcode":0}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(errcode(answer.as_bytes()), Some(found), "{answer}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_no_answer() {
        for answer in ["", "[0]", "0", "\"errcode\"", "<html>", "{\"errcode\":0", "{} {}", "\\"] {
            assert_eq!(errcode(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn the_msgid_is_read_as_it_is() {
        for (text, msgid) in [
            (
                r#"{"errcode":0,"errmsg":"ok","msgid":9007199254740993}"#,
                Some(9_007_199_254_740_993),
            ),
            (r#"{"msgid" : "42" , "errcode":0}"#, Some(42)),
            (r#"{"msgid":1,"errcode":0,"msgid":2}"#, Some(2)),
            (r#"{"errcode":0}"#, None),
            (r#"{"errcode":0,"msgid":null}"#, None),
            (r#"{"errcode":0,"msgid":99999999999999999999}"#, None),
        ] {
            let answer = Answer::new(text.into()).unwrap();
            assert_eq!(answer.msgid(), msgid, "{text}");
        }
    }
}
