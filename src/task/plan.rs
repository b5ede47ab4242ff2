//! What a task is to do, as its journal keeps it, and the ids that its messages carry. Pure data.

use super::exit::Refused;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::PathBuf;

/// How a message goes to mega.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Answered by WeChat.
    Send,
    /// Answered as soon as it is queued.
    Push,
}

/// What the result file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Utf8,
    Gbk,
}

/// Messages without an answer, where nobody says how many: of a window that is no larger than the workers are many,
/// some of them always wait.
pub const WINDOW: usize = 128;

/// Connections that share them.
pub const CONNECTIONS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// HOST:PORT of mega.
    pub to: String,
    pub key: String,
    /// The variables of everybody, a JSON object; empty: none.
    pub data: String,
    pub verb: Verb,
    /// Messages without an answer at most.
    pub window: usize,
    pub connections: usize,
    /// Messages a second at most.
    pub rate: Option<u32>,
    /// Not before this, Unix ms.
    pub at: Option<u64>,
    pub result: PathBuf,
    pub encoding: Encoding,
    /// Where the people came from, for people.
    pub source: String,
    pub total: u64,
    /// The part of its messages' ids that is its own.
    pub id: String,
    pub created: u64,
    /// The task whose failures these people are.
    #[serde(default)]
    pub of: Option<String>,
}

/// The part of ids that is one task's own: as good as unlike any other's.
pub fn own_part() -> Result<String, String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| format!("the system gives no random: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Plan {
    /// Puts the client_msg_id of somebody's message into `id`. A message that WeChat has refused for good is followed
    /// by one of the next `turn`.
    pub fn put_id(&self, id: &mut String, index: u64, turn: u32) {
        id.clear();
        let written = match turn {
            0 => write!(id, "{}-{index}", self.id),
            turn => write!(id, "{}-{index}-{turn:x}", self.id),
        };
        written.expect("invariant: writing to a String does not fail");
    }

    /// The variables of one person: everybody's, and the own ones, which win because they stand last.
    pub fn put_data(&self, out: &mut String, own: &str) {
        out.clear();
        match (self.data.is_empty(), own.is_empty()) {
            (_, true) => out.push_str(&self.data),
            (true, false) => out.push_str(own),
            (false, false) => {
                out.push_str(&self.data[..self.data.len() - 1]);
                out.push(',');
                out.push_str(&own[1..]);
            }
        }
    }
}

/// Everybody's variables as a task keeps them.
pub fn common_data(text: &str) -> Result<String, Refused> {
    let unfit = |error: &dyn std::fmt::Display| {
        Refused::wrong([
            format!(
                "--data is no JSON object of texts and numbers: {error} (such as '{{\"name\":\"value\"}}')"
            ),
            format!(
                "--data 不是由文本和数字组成的 JSON 对象：{error}（例如 '{{\"name\":\"value\"}}'）"
            ),
        ])
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| unfit(&error))?;
    crate::template::check_data(text.as_bytes()).map_err(|error| unfit(&error))?;
    match object.is_empty() {
        true => Ok(String::new()),
        false => serde_json::to_string(&object).map_err(|error| unfit(&error)),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::queue::ClientMsgId;

    pub fn plan() -> Plan {
        Plan {
            to: "127.0.0.1:1".into(),
            key: "k".into(),
            data: String::new(),
            verb: Verb::Send,
            window: 4,
            connections: 1,
            rate: None,
            at: None,
            result: "r.csv".into(),
            encoding: Encoding::Utf8,
            source: "list".into(),
            total: 10,
            id: own_part().unwrap(),
            created: 1,
            of: None,
        }
    }

    #[test]
    fn ids_are_what_wechat_takes_however_many_people_there_are() {
        let plan = plan();
        let mut id = String::new();
        for (index, turn) in [(0, 0), (9_999_999_999, 0), (99_999_999, 0xfff_fff)] {
            plan.put_id(&mut id, index, turn);
            assert!(ClientMsgId::new(id.as_bytes()).is_some(), "{id}");
        }
        assert_ne!(plan.id, own_part().unwrap());
    }

    #[test]
    fn ones_own_variables_win() {
        let mut plan = plan();
        let mut out = String::new();
        plan.put_data(&mut out, "");
        assert_eq!(out, "");
        plan.put_data(&mut out, r#"{"a":1}"#);
        assert_eq!(out, r#"{"a":1}"#);
        plan.data = common_data(r#" {"a": 2, "b": 3} "#).unwrap();
        plan.put_data(&mut out, "");
        assert_eq!(out, r#"{"a":2,"b":3}"#);
        plan.put_data(&mut out, r#"{"a":1}"#);
        assert_eq!(out, r#"{"a":2,"b":3,"a":1}"#);
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(read["a"], 1);
        assert_eq!(common_data("{}").unwrap(), "");
        for wrong in ["", "[]", "5", "{", r#"{"a":[]}"#] {
            assert!(common_data(wrong).unwrap_err().why[0].starts_with("--data"), "{wrong}");
        }
    }
}
