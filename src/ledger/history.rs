//! The texts that templates had: the last of each key, when each came and through whom. Each function is a part of
//! one transaction or one look. Written by the ledger thread, for what the store finds changed in the database,
//! and by commands, for what they change themselves: whoever comes second finds it recorded.

use crate::template::Change;
use rusqlite::{Connection, Row as SqlRow, params};

/// Entries that are kept of each key.
pub const KEPT: usize = 10;

/// Who it was that nobody knows: it came through the database.
const DATABASE: &str = "database";

/// How a text came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Put,
    Undone,
    Removed,
    /// Another program changed it, and a reload or tset met it.
    Changed,
    /// It was there before the first change that mega saw.
    Found,
}

impl What {
    const ALL: [What; 5] = [What::Put, What::Undone, What::Removed, What::Changed, What::Found];

    fn name(self) -> &'static str {
        match self {
            What::Put => "put",
            What::Undone => "undo",
            What::Removed => "rm",
            What::Changed => "changed",
            What::Found => "found",
        }
    }

    /// In English and in Chinese.
    pub fn texts(self) -> [&'static str; 2] {
        match self {
            What::Put => ["put", "保存"],
            What::Undone => ["undone", "撤销"],
            What::Removed => ["removed", "删除"],
            What::Changed => ["changed in the database", "在数据库中被修改"],
            What::Found => ["found before a change", "修改之前的文本"],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unix ms; None where nobody knows.
    pub time: Option<u64>,
    pub who: String,
    pub what: What,
    pub title: String,
    /// None: it was removed.
    pub text: Option<String>,
}

/// Who changes a text, how and when, in Unix ms.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub who: &'a str,
    pub what: What,
    pub time: u64,
    /// The title that the row has now, or had last.
    pub title: &'a str,
}

impl By<'static> {
    /// Another program.
    pub fn database(time: u64) -> By<'static> {
        By { who: DATABASE, what: What::Changed, time, title: "" }
    }
}

/// Records that a text has become another, unless that is known; and what it was before, if that is not known.
pub fn record(write: &Connection, change: &Change, by: By) -> rusqlite::Result<()> {
    let Change { key, before, now } = change;
    let known = of(write, key)?;
    let mut last = known.first().and_then(|entry| entry.text.as_ref());
    let unknown = before.is_some() && known.iter().all(|entry| entry.text != *before);
    // Back to the newest that is known, over a text that nobody has seen: that one is not to be lost.
    if let Some(newest) = known.first().filter(|newest| newest.text == *now && !unknown) {
        // The daemon may have met it before the command that made it comes to say so.
        let met = newest.what == What::Changed && by.what != What::Changed && before != now;
        return if met { claim(write, key, by) } else { Ok(()) };
    }
    if unknown {
        let (who, title) = (DATABASE.to_owned(), by.title.to_owned());
        let found = Entry { time: None, who, what: What::Found, title, text: before.clone() };
        insert(write, key, &found)?;
        last = before.as_ref();
    }
    if last != now.as_ref() {
        let (time, what) = (Some(by.time), by.what);
        let (who, title, text) = (by.who.to_owned(), by.title.to_owned(), now.clone());
        insert(write, key, &Entry { time, who, what, title, text })?;
    }
    let sql = "DELETE FROM template_history WHERE key = ?1 AND seq NOT IN \
               (SELECT seq FROM template_history WHERE key = ?1 ORDER BY seq DESC LIMIT ?2)";
    write.prepare_cached(sql)?.execute(params![key, KEPT as i64]).map(drop)
}

/// Records what other programs have changed while no daemon ran: `text` gives the texts in use. A text that is not in
/// use may have been left out for its size, and is not known to be removed.
pub fn catch_up(
    write: &Connection,
    time: u64,
    text: impl Fn(&str) -> Option<String>,
) -> rusqlite::Result<()> {
    let sql = "SELECT key, text FROM template_history WHERE seq IN \
               (SELECT max(seq) FROM template_history GROUP BY key)";
    let mut statement = write.prepare(sql)?;
    let mut last = statement.query([])?;
    let mut changes = Vec::new();
    while let Some(row) = last.next()? {
        let (key, before): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        let now = text(&key);
        if now.is_some() && now != before {
            changes.push(Change { key, before, now });
        }
    }
    changes.iter().try_for_each(|change| record(write, change, By::database(time)))
}

/// Says through whom the newest entry came.
fn claim(write: &Connection, key: &str, by: By) -> rusqlite::Result<()> {
    let sql = "UPDATE template_history SET who = ?, what = ?, title = ? WHERE seq = \
               (SELECT max(seq) FROM template_history WHERE key = ?)";
    write.prepare_cached(sql)?.execute(params![by.who, by.what.name(), by.title, key]).map(drop)
}

fn insert(write: &Connection, key: &str, entry: &Entry) -> rusqlite::Result<()> {
    let Entry { time, who, what, title, text } = entry;
    let sql = "INSERT INTO template_history (key, time, who, what, title, text) VALUES (?, ?, ?, ?, ?, ?)";
    let time = time.map(|time| time as i64);
    write.prepare_cached(sql)?.execute(params![key, time, who, what.name(), title, text]).map(drop)
}

/// What is known of a key, the newest first.
pub fn of(read: &Connection, key: &str) -> rusqlite::Result<Vec<Entry>> {
    // To a command that only reads, a ledger may be one that an older mega made.
    if !read.table_exists(None, "template_history")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT time, who, what, title, text FROM template_history WHERE key = ? \
               ORDER BY seq DESC LIMIT ?";
    let mut statement = read.prepare_cached(sql)?;
    let entries = statement.query_map(params![key, KEPT as i64], Entry::read)?;
    entries.collect()
}

impl Entry {
    fn read(row: &SqlRow) -> rusqlite::Result<Entry> {
        let what: String = row.get(2)?;
        Ok(Entry {
            time: row.get::<_, Option<i64>>(0)?.map(|time| time as u64),
            who: row.get(1)?,
            what: What::ALL.into_iter().find(|known| known.name() == what).unwrap_or(What::Changed),
            title: row.get(3)?,
            text: row.get(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::database::Database;

    fn with<T>(work: impl Fn(&Connection) -> rusqlite::Result<T>) -> T {
        let folder = tempfile::tempdir().unwrap();
        Database::new(&folder.path().join("l.db")).write(|write| work(write)).unwrap()
    }

    fn change(before: Option<&str>, now: Option<&str>) -> Change {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Change { key: "k".to_owned(), before: text(before), now: text(now) }
    }

    fn by(what: What, time: u64) -> By<'static> {
        By { who: "root", what, time, title: "t" }
    }

    #[test]
    fn a_text_that_only_the_database_had_is_kept_when_the_newest_known_comes_back() {
        with(|write| {
            record(write, &change(None, Some("a")), by(What::Put, 7))?;
            record(write, &change(Some("x"), Some("a")), by(What::Undone, 8))?;
            assert_eq!(told(write), "root put a, database found x, root undo a");
            Ok(())
        });
    }

    /// The entries of `k`, the oldest first: how each came and what it was.
    fn told(read: &Connection) -> String {
        let entries = of(read, "k").unwrap();
        let told = entries.iter().rev().map(|entry| {
            format!("{} {} {}", entry.who, entry.what.name(), entry.text.as_deref().unwrap_or("-"))
        });
        told.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_text_before_the_first_change_is_kept_with_it() {
        with(|write| {
            record(write, &change(Some("a"), Some("b")), by(What::Put, 7))?;
            assert_eq!(told(write), "database found a, root put b");
            let entries = of(write, "k")?;
            assert_eq!((entries[0].time, entries[1].time), (Some(7), None));
            assert_eq!(entries[0].title, "t");
            assert_eq!(of(write, "K")?, []);
            Ok(())
        });
        with(|write| {
            record(write, &change(None, Some("a")), by(What::Put, 7))?;
            record(write, &change(Some("a"), None), by(What::Removed, 8))?;
            record(write, &change(None, Some("a")), by(What::Undone, 9))?;
            assert_eq!(told(write), "root put a, root rm -, root undo a");
            Ok(())
        });
    }

    #[test]
    fn what_is_known_already_is_not_recorded_twice() {
        with(|write| {
            record(write, &change(None, None), by(What::Removed, 1))?;
            assert_eq!(told(write), "");
            record(write, &change(Some("a"), Some("a")), by(What::Put, 1))?;
            assert_eq!(told(write), "database found a");
            record(write, &change(Some("a"), Some("b")), by(What::Put, 2))?;
            // The daemon meets it by tset, and after that another one by a reload.
            record(write, &change(Some("a"), Some("b")), By::database(3))?;
            assert_eq!(told(write), "database found a, root put b");
            record(write, &change(Some("a"), Some("c")), By::database(4))?;
            assert_eq!(told(write), "database found a, root put b, database changed c");
            record(write, &change(Some("c"), None), by(What::Removed, 5))?;
            record(write, &change(Some("c"), None), By::database(6))?;
            let all = "database found a, root put b, database changed c, root rm -";
            assert_eq!(told(write), all);
            // A change that nobody told of in between.
            record(write, &change(Some("x"), Some("y")), by(What::Put, 7))?;
            assert_eq!(told(write), format!("{all}, database found x, root put y"));
            Ok(())
        });
    }

    #[test]
    fn a_change_that_the_daemon_met_first_is_its_makers() {
        with(|write| {
            record(write, &change(None, Some("a")), By::database(1))?;
            record(write, &change(None, Some("a")), by(What::Put, 2))?;
            assert_eq!(told(write), "root put a");
            record(write, &change(Some("a"), None), By::database(3))?;
            record(write, &change(Some("a"), None), by(What::Removed, 4))?;
            assert_eq!(told(write), "root put a, root rm -");
            // Who puts a text that is there already has not changed it.
            record(write, &change(None, Some("b")), By::database(5))?;
            record(write, &change(Some("b"), Some("b")), by(What::Put, 6))?;
            record(write, &change(Some("a"), Some("b")), By::database(7))?;
            assert_eq!(told(write), "root put a, root rm -, database changed b");
            Ok(())
        });
    }

    #[test]
    fn the_last_ten_of_each_key_are_kept() {
        with(|write| {
            let other = Change { key: "l".to_owned(), ..change(None, Some("other")) };
            record(write, &other, by(What::Put, 1))?;
            for n in 0..15_u64 {
                let (before, now) = (n.to_string(), (n + 1).to_string());
                record(write, &change(Some(&before), Some(&now)), by(What::Put, n))?;
            }
            let times: Vec<_> = of(write, "k")?.into_iter().map(|entry| entry.time).collect();
            assert_eq!(times, (5..15).rev().map(Some).collect::<Vec<_>>());
            assert_eq!(of(write, "l")?.len(), 1);
            let all = "SELECT count(*) FROM template_history";
            assert_eq!(write.query_row(all, [], |row| row.get::<_, i64>(0))?, 11);
            Ok(())
        });
    }

    #[test]
    fn what_changed_while_no_daemon_ran_is_caught_up_with() {
        with(|write| {
            for (key, text) in [("k", "a"), ("l", "b"), ("m", "c"), ("n", "d")] {
                let now = Change { key: key.to_owned(), ..change(None, Some(text)) };
                record(write, &now, by(What::Put, 1))?;
            }
            let gone = Change { key: "n".to_owned(), ..change(Some("d"), None) };
            record(write, &gone, by(What::Removed, 2))?;
            let texts = |key: &str| match key {
                "k" => Some("A".to_owned()),
                "l" => Some("b".to_owned()),
                "n" => Some("D".to_owned()),
                _ => None,
            };
            for _ in 0..2 {
                catch_up(write, 9, texts)?;
                assert_eq!(told(write), "root put a, database changed A");
                let count = |key| of(write, key).map(|entries| entries.len());
                assert_eq!((count("l")?, count("m")?, count("n")?), (1, 1, 3));
            }
            assert_eq!(of(write, "n")?[0].time, Some(9));
            Ok(())
        });
    }

    #[test]
    fn a_ledger_of_an_older_mega_has_no_history_until_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.db");
        let mut database = Database::new(&path);
        database.write(|write| write.execute_batch("DROP TABLE template_history")).unwrap();
        drop(database);
        let known = || of(&Database::read_only(&path).unwrap().unwrap(), "k").unwrap().len();
        assert_eq!(known(), 0);
        let put = |write: &rusqlite::Transaction| {
            record(write, &change(None, Some("a")), by(What::Put, 1))
        };
        Database::new(&path).write(put).unwrap();
        assert_eq!(known(), 1);
    }
}
