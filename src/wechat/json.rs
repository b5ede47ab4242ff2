//! WeChat's answers as the original passed them on to clients: PHP's json_encode. Pure.

use serde_json::ser::Formatter;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// WeChat's object with `openid` as its last member, spelt as PHP does by default: `/` as `\/`,
/// non-ASCII as `\uXXXX`.
pub fn answer_for_client(mut answer: Map<String, Value>, openid: &[u8]) -> String {
    answer.insert("openid".into(), String::from_utf8_lossy(openid).into());
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, PhpFormatter);
    match serde::Serialize::serialize(&answer, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        // A map of JSON values written to memory has no way to fail; the reply stays JSON.
        Err(_) => "{}".into(),
    }
}

struct PhpFormatter;

impl Formatter for PhpFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for character in fragment.chars() {
            match character {
                '/' => writer.write_all(b"\\/")?,
                '\x7f' | ' '..='~' => writer.write_all(&[character as u8])?,
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_spelt_as_php_spells_it() {
        let answer = r#"{"errcode":-1,"errmsg":"系统/繁忙 😀","msgid":9007199254740993}"#;
        let Value::Object(answer) = serde_json::from_str(answer).unwrap() else { panic!() };
        assert_eq!(
            answer_for_client(answer, "用".as_bytes()),
            r#"{"errcode":-1,"errmsg":"\u7cfb\u7edf\/\u7e41\u5fd9 \ud83d\ude00","msgid":9007199254740993,"openid":"\u7528"}"#
        );
    }
}
