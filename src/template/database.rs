//! Which database the templates are in: SQLite (sqlite.rs) or MySQL (mysql.rs), as `[pdo] dsn` says.
//! Owned by the store thread alone, and by the commands that edit templates.

use super::mysql::Mysql;
use super::row::{Database, DatabaseError};
use super::sqlite::Sqlite;
use crate::config::{Dsn, Pdo};

/// Connects and finds the template table; creates nothing.
pub fn open(pdo: &Pdo) -> Result<Box<dyn Database>, DatabaseError> {
    match &pdo.dsn {
        Dsn::Sqlite(path) => Ok(Box::new(Sqlite::open(path, &pdo.table_prefix)?)),
        Dsn::Mysql { .. } => Ok(Box::new(Mysql::open(pdo)?)),
    }
}

/// The same for who may create an SQLite file that is missing, or the table in it.
pub fn create(pdo: &Pdo) -> Result<Box<dyn Database>, DatabaseError> {
    match &pdo.dsn {
        Dsn::Sqlite(path) => Ok(Box::new(Sqlite::create(path, &pdo.table_prefix)?)),
        Dsn::Mysql { .. } => Ok(Box::new(Mysql::open(pdo)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::mysql::tests as mysql;
    use super::super::row::Row;
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
            let mut database = create(pdo).unwrap();
            database.put(&chinese).unwrap();
            assert_eq!(database.find("购买".as_bytes()).unwrap(), Some(chinese.clone()));
            assert_eq!(database.list().unwrap(), [chinese]);
        });
    }

    #[test]
    fn a_key_is_found_in_any_case_and_comes_in_the_databases_spelling() {
        on_both("case_", |pdo| {
            let mut database = create(pdo).unwrap();
            database.put(&row("Order_Paid", "a")).unwrap();
            assert_eq!(database.find(b"ORDER_paid").unwrap(), Some(row("Order_Paid", "a")));
            database.put(&row("order_paid", "b")).unwrap();
            assert_eq!(database.list().unwrap(), [row("Order_Paid", "b")]);
            assert_eq!(database.find(b"order").unwrap(), None);
            assert_eq!(database.find(b"").unwrap(), None);
            assert_eq!(database.find(b"\xff\xfe").unwrap(), None);
        });
    }

    #[test]
    fn changing_a_row_keeps_when_it_was_created() {
        on_both("put_", |pdo| {
            let mut database = create(pdo).unwrap();
            database.put(&row("k", "a")).unwrap();
            let mut changed = row("k", "b");
            changed.title = "other".to_owned();
            changed.created_at = 7;
            changed.updated_at = 8;
            database.put(&changed).unwrap();
            changed.created_at = 1_480_000_000;
            assert_eq!(database.find(b"k").unwrap(), Some(changed));
        });
    }

    #[test]
    fn removing_says_whether_there_was_a_row() {
        on_both("remove_", |pdo| {
            let mut database = create(pdo).unwrap();
            database.put(&row("k", "a")).unwrap();
            assert!(database.remove("k").unwrap());
            assert!(!database.remove("k").unwrap());
            assert_eq!(database.find(b"k").unwrap(), None);
        });
    }

    #[test]
    fn quotes_in_keys_and_texts_are_only_text() {
        on_both("quote_", |pdo| {
            let mut database = create(pdo).unwrap();
            let hostile = row("k'\"`;--\\", "'; DROP TABLE x; -- \\' \"");
            database.put(&hostile).unwrap();
            database.put(&row("other", "a")).unwrap();
            let found = database.find(hostile.key.as_bytes()).unwrap();
            assert_eq!(found.as_ref(), Some(&hostile));
            assert_eq!(database.find(b"' OR '1'='1").unwrap(), None);
            assert!(!database.remove("' OR '1'='1").unwrap());
            assert!(database.remove(&hostile.key).unwrap());
            assert_eq!(database.list().unwrap().len(), 1);
        });
    }

    #[test]
    fn a_text_of_60_kib_comes_back_whole() {
        on_both("big_", |pdo| {
            let big = row("k", &"中文x\n".repeat(60 * 1024 / 8));
            let mut database = create(pdo).unwrap();
            database.put(&big).unwrap();
            assert_eq!(database.find(b"k").unwrap(), Some(big));
        });
    }

    #[test]
    fn loading_stops_at_the_limit_in_the_order_of_keys() {
        on_both("limit_", |pdo| {
            let mut database = create(pdo).unwrap();
            for key in ["c", "a", "d", "b"] {
                database.put(&row(key, "x")).unwrap();
            }
            let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
            assert_eq!(keys(database.load(3).unwrap()), ["a", "b", "c"]);
            assert_eq!(keys(database.load(0).unwrap()), [""; 0]);
            assert_eq!(keys(database.list().unwrap()), ["a", "b", "c", "d"]);
        });
    }

    #[test]
    fn a_row_that_cannot_be_read_is_left_out_and_the_others_stay() {
        on_both("null_", |pdo| {
            create(pdo).unwrap();
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
            let mut database = create(pdo).unwrap();
            assert_eq!(database.list().unwrap(), [good]);
            assert_eq!(database.find(b"bytes").unwrap(), None);
        });
    }

    #[test]
    fn with_a_prefix_the_short_name_is_preferred_to_the_originals() {
        on_both("both_", |pdo| {
            create(pdo).unwrap().put(&row("short", "x")).unwrap();
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
        create(&pdo).unwrap().put(&row("k", "x")).unwrap();
        execute(&pdo, "DROP TABLE mega_wechat_template");
        if let Some(pdo) = mysql::test_pdo("") {
            mysql::create_table(&pdo, "mega_wechat_template");
            let mut database = open(&pdo).unwrap();
            database.put(&row("k", "x")).unwrap();
            assert_eq!(database.list().unwrap(), [row("k", "x")]);
        }
    }
}
