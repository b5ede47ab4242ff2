//! Templates as a database keeps them: one `Store` behind which SQLite (sqlite.rs) and MySQL (mysql.rs) stand.
//! Owned by the store thread alone, and by the commands that edit templates. Keys are compared by the database's collation.
//! No error shown by it holds a user name or a password.

use std::fmt;

use super::mysql::MysqlStore;
use super::sqlite::SqliteStore;
use crate::config::{Dsn, Pdo};

/// The table's name without a prefix, and the one that the original's code asked for with one.
const ORIGINAL_TABLE: &str = "mega_wechat_template";
const PREFIXED_TABLE: &str = "wechat_template";

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
pub struct StoreError(String);

impl StoreError {
    pub(super) fn new(message: impl fmt::Display) -> StoreError {
        let message = message.to_string();
        let words: Vec<&str> = message.split_whitespace().collect();
        StoreError(words.join(" "))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Rows that cannot be read (a NULL or undecodable key or template) are left out, each with a warning in the log.
pub trait Store: Send {
    /// The first `limit` rows by key.
    fn load(&mut self, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Every row by key.
    fn list(&mut self) -> Result<Vec<Row>, StoreError> {
        self.load(usize::MAX)
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// Adds the row, or changes the one that has its key and keeps that one's key and created_at.
    fn put(&mut self, row: &Row) -> Result<(), StoreError>;

    /// Says whether there was such a row.
    fn remove(&mut self, key: &str) -> Result<bool, StoreError>;
}

/// Connects and finds the template table.
pub fn open(pdo: &Pdo) -> Result<Box<dyn Store>, StoreError> {
    match &pdo.dsn {
        Dsn::Sqlite(path) => Ok(Box::new(SqliteStore::open(path, &pdo.table_prefix)?)),
        Dsn::Mysql { .. } => Ok(Box::new(MysqlStore::open(pdo)?)),
    }
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
    /// A title or a time that cannot be read keeps no message from being sent.
    pub fn row(self, table: &str) -> Option<Row> {
        let Some(key) = self.key else {
            log::warn!("a row of {table} left out: its tmpl_key is NULL or not UTF-8");
            return None;
        };
        let Some(template) = self.template else {
            log::warn!("template {key:?} of {table} left out: its text is NULL or not UTF-8");
            return None;
        };
        Some(Row {
            key,
            title: self.title.unwrap_or_default(),
            template,
            created_at: self.created_at.unwrap_or_default(),
            updated_at: self.updated_at.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::mysql::tests as mysql;
    use super::*;

    fn sqlite(path: &Path, prefix: &str) -> Pdo {
        Pdo {
            dsn: Dsn::Sqlite(path.to_owned()),
            username: String::new(),
            password: String::new(),
            table_prefix: prefix.to_owned(),
        }
    }

    fn execute(pdo: &Pdo, sql: &str) {
        match &pdo.dsn {
            Dsn::Sqlite(path) => {
                rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap()
            }
            Dsn::Mysql { .. } => mysql::execute(pdo, sql),
        }
    }

    /// Runs the case on an empty table of its own in SQLite, then in MariaDB.
    fn on_both(prefix: &str, case: fn(&Pdo)) {
        let folder = tempfile::tempdir().unwrap();
        eprintln!("on SQLite");
        case(&sqlite(&folder.path().join("t.db"), prefix));
        if let Some(pdo) = mysql::test_pdo(prefix) {
            eprintln!("on MariaDB");
            mysql::create_table(&pdo, &format!("{prefix}wechat_template"));
            case(&pdo);
        }
    }

    fn row(key: &str, template: &str) -> Row {
        Row {
            key: key.to_owned(),
            title: "title".to_owned(),
            template: template.to_owned(),
            created_at: 1_480_000_000,
            updated_at: 1_480_000_001,
        }
    }

    #[test]
    fn chinese_and_emoji_come_back_as_they_went_in() {
        on_both("text_", |pdo| {
            let mut chinese = row("购买", "{\"first\":\"恭喜你😀${first}\"}");
            chinese.title = "购买成功🎉".to_owned();
            let mut store = open(pdo).unwrap();
            store.put(&chinese).unwrap();
            assert_eq!(store.find("购买".as_bytes()).unwrap(), Some(chinese.clone()));
            assert_eq!(store.list().unwrap(), [chinese]);
        });
    }

    #[test]
    fn a_key_is_found_in_any_case_and_comes_in_the_databases_spelling() {
        on_both("case_", |pdo| {
            let mut store = open(pdo).unwrap();
            store.put(&row("Order_Paid", "a")).unwrap();
            assert_eq!(store.find(b"ORDER_paid").unwrap(), Some(row("Order_Paid", "a")));
            store.put(&row("order_paid", "b")).unwrap();
            assert_eq!(store.list().unwrap(), [row("Order_Paid", "b")]);
            assert_eq!(store.find(b"order").unwrap(), None);
            assert_eq!(store.find(b"").unwrap(), None);
            assert_eq!(store.find(b"\xff\xfe").unwrap(), None);
        });
    }

    #[test]
    fn changing_a_row_keeps_when_it_was_created() {
        on_both("put_", |pdo| {
            let mut store = open(pdo).unwrap();
            store.put(&row("k", "a")).unwrap();
            let mut changed = row("k", "b");
            changed.title = "other".to_owned();
            changed.created_at = 7;
            changed.updated_at = 8;
            store.put(&changed).unwrap();
            changed.created_at = 1_480_000_000;
            assert_eq!(store.find(b"k").unwrap(), Some(changed));
        });
    }

    #[test]
    fn removing_says_whether_there_was_a_row() {
        on_both("remove_", |pdo| {
            let mut store = open(pdo).unwrap();
            store.put(&row("k", "a")).unwrap();
            assert!(store.remove("k").unwrap());
            assert!(!store.remove("k").unwrap());
            assert_eq!(store.find(b"k").unwrap(), None);
        });
    }

    #[test]
    fn quotes_in_keys_and_texts_are_only_text() {
        on_both("quote_", |pdo| {
            let mut store = open(pdo).unwrap();
            let hostile = row("k'\"`;--\\", "'; DROP TABLE x; -- \\' \"");
            store.put(&hostile).unwrap();
            store.put(&row("other", "a")).unwrap();
            let found = store.find(hostile.key.as_bytes()).unwrap();
            assert_eq!(found.as_ref(), Some(&hostile));
            assert_eq!(store.find(b"' OR '1'='1").unwrap(), None);
            assert!(!store.remove("' OR '1'='1").unwrap());
            assert!(store.remove(&hostile.key).unwrap());
            assert_eq!(store.list().unwrap().len(), 1);
        });
    }

    #[test]
    fn a_text_of_60_kib_comes_back_whole() {
        on_both("big_", |pdo| {
            let big = row("k", &"中文x\n".repeat(60 * 1024 / 8));
            let mut store = open(pdo).unwrap();
            store.put(&big).unwrap();
            assert_eq!(store.find(b"k").unwrap(), Some(big));
        });
    }

    #[test]
    fn loading_stops_at_the_limit_in_the_order_of_keys() {
        on_both("limit_", |pdo| {
            let mut store = open(pdo).unwrap();
            for key in ["c", "a", "d", "b"] {
                store.put(&row(key, "x")).unwrap();
            }
            let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
            assert_eq!(keys(store.load(3).unwrap()), ["a", "b", "c"]);
            assert_eq!(keys(store.load(0).unwrap()), [""; 0]);
            assert_eq!(keys(store.list().unwrap()), ["a", "b", "c", "d"]);
        });
    }

    #[test]
    fn a_row_that_cannot_be_read_is_left_out_and_the_others_stay() {
        on_both("null_", |pdo| {
            open(pdo).unwrap();
            for sql in [
                "DROP TABLE null_wechat_template",
                "CREATE TABLE null_wechat_template (updated_at int, created_at int, \
                 template blob, title varchar(100), tmpl_key char(32))",
                "INSERT INTO null_wechat_template (tmpl_key, template) VALUES ('null', NULL)",
                "INSERT INTO null_wechat_template (tmpl_key, template) VALUES (NULL, 'x')",
                "INSERT INTO null_wechat_template (tmpl_key, template) VALUES ('bytes', x'ff')",
                "INSERT INTO null_wechat_template (tmpl_key, template) VALUES ('good', 'x')",
            ] {
                execute(pdo, sql);
            }
            let good = Row {
                key: "good".to_owned(),
                title: String::new(),
                template: "x".to_owned(),
                created_at: 0,
                updated_at: 0,
            };
            let mut store = open(pdo).unwrap();
            assert_eq!(store.list().unwrap(), [good]);
            assert_eq!(store.find(b"bytes").unwrap(), None);
        });
    }

    #[test]
    fn with_a_prefix_the_short_name_is_preferred_to_the_originals() {
        on_both("both_", |pdo| {
            open(pdo).unwrap().put(&row("short", "x")).unwrap();
            let copy =
                "CREATE TABLE both_mega_wechat_template AS SELECT * FROM both_wechat_template";
            execute(pdo, "DROP TABLE IF EXISTS both_mega_wechat_template");
            execute(pdo, copy);
            execute(pdo, "UPDATE both_mega_wechat_template SET tmpl_key = 'original'");
            let keys = |pdo| open(pdo).unwrap().list().unwrap().remove(0).key;
            assert_eq!(keys(pdo), "short");
            execute(pdo, "DROP TABLE both_wechat_template");
            assert_eq!(keys(pdo), "original");
        });
    }

    #[test]
    fn without_a_prefix_the_table_has_the_originals_name() {
        let folder = tempfile::tempdir().unwrap();
        let pdo = sqlite(&folder.path().join("t.db"), "");
        open(&pdo).unwrap().put(&row("k", "x")).unwrap();
        execute(&pdo, "DROP TABLE mega_wechat_template");
        if let Some(pdo) = mysql::test_pdo("") {
            mysql::create_table(&pdo, "mega_wechat_template");
            let mut store = open(&pdo).unwrap();
            store.put(&row("k", "x")).unwrap();
            assert_eq!(store.list().unwrap(), [row("k", "x")]);
        }
    }
}
