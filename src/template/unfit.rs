//! Why no message can be made of a request, in one line of bounded length: what clients read in a reply, and
//! operators in the list of failures. Pure, on any thread.

use std::fmt;

use super::data::DataError;
use crate::wire::command::NO_TEMPLATE;

/// Bytes of variables' names that are told, and of one name.
const NAMES_MAX: usize = 512;
pub(super) const NAME_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    NoTemplate,
    Data(DataError),
    /// With `missing_variables = refuse`; the names, as they are told.
    Missing(String),
}

impl Unfit {
    /// Names all of them, as far as that has a bounded length.
    pub(super) fn missing<'n>(names: impl Iterator<Item = &'n str>) -> Unfit {
        Unfit::Missing(told(names))
    }
}

/// `${first}, ${remark} and 3 more`.
pub(super) fn told<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let (mut told, mut more) = (String::new(), 0);
    for name in names {
        if told.len() >= NAMES_MAX {
            more += 1;
            continue;
        }
        let (shown, end) = cut(name, NAME_MAX);
        let comma = if told.is_empty() { "" } else { ", " };
        told += &format!("{comma}${{{}{end}}}", shown.escape_debug());
    }
    if more > 0 {
        told += &format!(" and {more} more");
    }
    told
}

/// The beginning of a text, and what says that there is more.
pub(super) fn cut(text: &str, bytes: usize) -> (&str, &'static str) {
    let shown = &text[..text.floor_char_boundary(bytes)];
    (shown, if shown.len() < text.len() { "…" } else { "" })
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NoTemplate => f.write_str(NO_TEMPLATE),
            Unfit::Data(error) => write!(f, "invalid data: {error}"),
            Unfit::Missing(names) => write!(f, "missing variables: {names}"),
        }
    }
}

impl std::error::Error for Unfit {}

#[cfg(test)]
mod tests {
    use super::super::render::{FEW, Filling, Template};
    use crate::config::MissingVariables;

    const MODES: [MissingVariables; 3] =
        [MissingVariables::Keep, MissingVariables::Empty, MissingVariables::Refuse];

    /// What checking and rendering say, which must agree wherever something is wrong.
    fn filled(text: &str, missing: MissingVariables, data: &str) -> Result<String, String> {
        let template = Template::compile(text, Filling { missing, ..Filling::DEFAULT });
        let mut out = Vec::new();
        let rendered = template.render("o", data.as_bytes(), None, &mut out);
        assert_eq!(template.check(data.as_bytes()), rendered, "{text} {data}");
        rendered.map_err(|unfit| unfit.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_missing_variable_stays_or_goes_or_is_refused_by_its_name() {
        let text = "${OPENID} [${a}] [${标题}] [${a}] [${b}]";
        let filled = MODES.map(|missing| filled(text, missing, r#"{"b":"B","c":1}"#));
        let [keep, empty, refuse] = filled;
        assert_eq!(keep.unwrap(), "o [${a}] [${标题}] [${a}] [B]");
        assert_eq!(empty.unwrap(), "o [] [] [] [B]");
        assert_eq!(refuse.unwrap_err(), "missing variables: ${a}, ${标题}");
    }

    #[test]
    fn every_value_there_is_fills_a_variable_and_only_no_member_leaves_it_missing() {
        for data in [
            r#"{"a":null}"#,
            r#"{"a":""}"#,
            r#"{"a":false}"#,
            r#"{"a":0}"#,
            r#"{"a":1,"a":null}"#,
            r#"{"\u0061":"x"}"#,
        ] {
            for missing in MODES {
                let filled = filled("${a}${OPENID}", missing, data).unwrap();
                assert!(["o", "0o", "xo"].contains(&&*filled), "{filled}");
            }
        }
        for data in ["", "null", "{}", "[]", "[1]", r#"{"A":1,"a ":2}"#] {
            let refused = filled("${a}", MissingVariables::Refuse, data).unwrap_err();
            assert_eq!(refused, "missing variables: ${a}");
            assert_eq!(filled("${a}", MissingVariables::Empty, data).unwrap(), "");
            filled("${OPENID}", MissingVariables::Refuse, data).unwrap();
        }
        assert_eq!(filled("${0}${1}", MissingVariables::Refuse, "[7,8,9]").unwrap(), "78");
        let refused = filled("${0}${11}${01}", MissingVariables::Refuse, "[7]").unwrap_err();
        assert_eq!(refused, "missing variables: ${11}, ${01}");
        let invalid = filled("${a}", MissingVariables::Refuse, r#"{"b":[]}"#).unwrap_err();
        assert!(invalid.starts_with("invalid data: the value of \"b\""), "{invalid}");
    }

    #[test]
    fn more_variables_than_are_usual_are_looked_for_like_few() {
        for count in [FEW - 1, FEW, FEW + 1, 3 * FEW] {
            let text: String = (0..count).map(|n| format!("${{{n}}}")).collect();
            let list = |count: usize| serde_json::json!(vec![""; count]).to_string();
            assert_eq!(filled(&text, MissingVariables::Refuse, &list(count)).unwrap(), "");
            let refused = filled(&text, MissingVariables::Refuse, &list(count - 1)).unwrap_err();
            assert_eq!(refused, format!("missing variables: ${{{}}}", count - 1));
        }
    }

    #[test]
    fn hostile_names_make_a_refusal_of_bounded_length_on_one_line() {
        let long = "\u{1f600}".repeat(900);
        let many: String = (0..900).map(|n| format!("${{n{n}}}")).collect();
        for (text, told) in [
            ("${a\n\u{1b}[31m\u{202e}}".to_owned(), "${a\\n\\u{1b}[31m\\u{202e}}"),
            ("${}${ }${\"}".to_owned(), "${}, ${ }, ${\\\"}"),
            (format!("${{{long}}}"), "😀…}"),
            (many, " more"),
            ("${a${b}${c".to_owned(), ": ${b}"),
        ] {
            let refused = filled(&text, MissingVariables::Refuse, "").unwrap_err();
            assert!(refused.ends_with(told), "{refused}");
            assert!(refused.len() < 700 && !refused.contains(char::is_control), "{refused}");
        }
    }
}
