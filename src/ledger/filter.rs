//! Which failed messages are meant: the filters that commands share, as they cross the
//! administration socket and as SQL. Pure.

use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

/// All of what is given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub errcode: Option<i64>,
    pub openid: Option<String>,
    pub key: Option<String>,
    pub class: Option<String>,
    /// Of the failure, Unix time in ms; `until` is not included.
    pub since: Option<u64>,
    pub until: Option<u64>,
    /// The client_msg_id.
    pub id: Option<String>,
}

/// A condition and its values, to be put behind WHERE.
pub struct Condition {
    sql: String,
    pub values: Vec<Value>,
}

impl Condition {
    pub fn of(filter: &Filter) -> Condition {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let time = |time: Option<u64>| time.map(|time| Value::from(time as i64));
        let mut condition = Condition { sql: String::new(), values: Vec::new() };
        for (sql, value) in [
            ("errcode = ?", filter.errcode.map(Value::from)),
            ("openid = ?", text(&filter.openid)),
            ("key = ?", text(&filter.key)),
            ("class = ?", text(&filter.class)),
            ("time >= ?", time(filter.since)),
            ("time < ?", time(filter.until)),
            ("id = ?", text(&filter.id)),
        ] {
            if let Some(value) = value {
                condition.and(sql, value);
            }
        }
        condition
    }

    pub fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql += if self.sql.is_empty() { "" } else { " AND " };
        self.sql += sql;
    }

    pub fn sql(&self) -> &str {
        if self.sql.is_empty() { "TRUE" } else { &self.sql }
    }
}
