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
