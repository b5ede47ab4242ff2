//! What every template database has in common: its rows, its statements, its errors, and the trait that SQLite
//! (sqlite.rs) and MySQL (mysql.rs) stand behind. No error shown by it holds a user name or a password.

use std::fmt;

/// The table's name without a prefix, and the one that the original's code asked for with one.
const ORIGINAL_TABLE: &str = "mega_wechat_template";
const PREFIXED_TABLE: &str = "wechat_template";

/// Rows that cannot be read of which the log has a line each.
const LINES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In the database's spelling.
    pub key: String,
    pub title: String,
    pub template: String,
    /// Seconds since 1970, like `updated_at`.
    pub created_at: i64,
    pub updated_at: i64,
}

/// What the database refused or why it cannot be reached, in one line without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseError {
    pub fault: Fault,
    message: String,
}

/// Whose fault it is that nothing came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or not now: the next question may be answered.
    Away,
    /// It answers, and only another configuration or an administrator of the database changes what.
    Wrong,
    /// There is no such file, or no template table in it, and one that is new would hold nothing.
    Missing,
}

impl DatabaseError {
    pub(super) fn new(fault: Fault, message: impl fmt::Display) -> DatabaseError {
        let message = message.to_string();
        let words: Vec<&str> = message.split_whitespace().collect();
        DatabaseError { fault, message: words.join(" ") }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DatabaseError {}

/// Rows that cannot be read (a NULL or undecodable key or template) are left out, with a warning in the log.
pub trait Database: Send {
    /// The first `limit` rows by key.
    fn load(&mut self, limit: usize) -> Result<Vec<Row>, DatabaseError>;

    /// Every row by key.
    fn list(&mut self) -> Result<Vec<Row>, DatabaseError> {
        self.load(usize::MAX)
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Row>, DatabaseError>;

    /// Adds the row, or changes the one that has its key and keeps that one's key and created_at.
    fn put(&mut self, row: &Row) -> Result<(), DatabaseError>;

    /// Says whether there was such a row.
    fn remove(&mut self, key: &str) -> Result<bool, DatabaseError>;
}

/// The names that the table may have, the preferred one first.
pub(super) fn table_names(prefix: &str) -> Vec<String> {
    match prefix {
        "" => vec![ORIGINAL_TABLE.to_owned()],
        _ => vec![format!("{prefix}{PREFIXED_TABLE}"), format!("{prefix}{ORIGINAL_TABLE}")],
    }
}

pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Each statement's text for one table. The name needs no escaping: a prefix has letters, digits and `_` only.
pub(super) struct Statements {
    pub load: String,
    pub find: String,
    pub remove: String,
}

impl Statements {
    pub fn new(table: &str) -> Statements {
        let columns = "SELECT tmpl_key, title, template, created_at, updated_at FROM";
        Statements {
            load: format!("{columns} {table} ORDER BY tmpl_key LIMIT ?"),
            find: format!("{columns} {table} WHERE tmpl_key = ?"),
            remove: format!("DELETE FROM {table} WHERE tmpl_key = ?"),
        }
    }
}

/// One row's columns as the database gave them; None for NULL and for what is not of the column's type.
pub(super) struct Columns {
    pub key: Option<String>,
    pub title: Option<String>,
    pub template: Option<String>,
    pub created_at: Option<i64>,
    pub updated_at: Option<i64>,
}

impl Columns {
    /// The row, or why it cannot be read. A title or a time that cannot be read keeps no message from being sent.
    fn row(self, table: &str) -> Result<Row, String> {
        let Some(key) = self.key else {
            return Err(format!("a row of {table} left out: its tmpl_key is NULL or not UTF-8"));
        };
        let Some(template) = self.template else {
            return Err(format!(
                "template {key:?} of {table} left out: its text is NULL or not UTF-8"
            ));
        };
        Ok(Row {
            key,
            title: self.title.unwrap_or_default(),
            template,
            created_at: self.created_at.unwrap_or_default(),
            updated_at: self.updated_at.unwrap_or_default(),
        })
    }
}

/// Takes the rows that can be read, and names the first of the others in the log.
pub(super) struct Reading<'t> {
    table: &'t str,
    left_out: usize,
}

impl Reading<'_> {
    pub fn of(table: &str) -> Reading<'_> {
        Reading { table, left_out: 0 }
    }

    pub fn take(&mut self, columns: Columns) -> Option<Row> {
        columns.row(self.table).map_err(|why| self.leave_out(&why)).ok()
    }

    fn leave_out(&mut self, why: &str) {
        self.left_out += 1;
        if self.left_out <= LINES {
            log::warn!("{why}");
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.left_out > LINES {
            log::warn!("{} rows more of {} left out", self.left_out - LINES, self.table);
        }
    }
}
