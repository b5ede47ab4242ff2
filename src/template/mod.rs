//! The template table: every template that messages may name, compiled, by the database's spelling of its key.
//! Shared: the reactor asks for keys, the workers take templates, the store thread puts them in.
//! It refuses what is over table_size or template_size; the database itself is database.rs's.

mod caution;
mod data;
mod database;
mod kept;
mod look;
mod mysql;
mod php;
mod render;
mod row;
mod sqlite;
mod unfit;

use foldhash::{HashMap, HashMapExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::config::{Config, MissingVariables, Server};

pub use caution::{Caution, Doubt, Summary, doubts};
pub use data::check_data;
pub use database::{create, open};
pub use kept::{Instead, Kept, Old};
pub use look::{Look, look};
pub use mysql::{denies_access, server as mysql_server};
pub use render::{Filling, Template};
pub use row::{Database, DatabaseError, Fault, Row};
pub use unfit::Unfit;

/// Lines about single templates that one load writes into the log.
const LINES: usize = 10;

/// Texts of one load that are told to have changed.
const CHANGES: usize = 1_000;

type Templates = HashMap<Box<[u8]>, Entry>;

struct Entry {
    template: Arc<Template>,
    /// Requests that named it; the reactor alone counts.
    asked: AtomicU64,
}

pub struct Table(RwLock<Content>);

struct Content {
    terms: Terms,
    templates: Templates,
}

/// What the configuration says of the table.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// So many templates.
    pub table_size: usize,
    /// Bytes of each at most.
    pub template_size: usize,
    pub filling: Filling,
}

impl Terms {
    pub fn of(config: &Config) -> Terms {
        let Server { table_size, template_size, .. } = config.server;
        Terms { table_size, template_size, filling: Filling::of(&config.wechat) }
    }
}

/// What became of a template that was to be put into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    Stored,
    OverTableSize,
    OverTemplateSize,
}

/// A text that is another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// None: there was none, or is none any more.
    pub before: Option<String>,
    pub now: Option<String>,
}

/// What a load came to.
#[derive(Default)]
pub struct Loaded {
    /// What operators are to know, a line each, and few of them.
    pub warnings: Vec<String>,
    /// Empty for the first load.
    pub changes: Vec<Change>,
}

impl Table {
    /// An empty table for `table_size` templates of at most `template_size` bytes each.
    pub fn new(table_size: usize, template_size: usize, filling: Filling) -> Table {
        let terms = Terms { table_size, template_size, filling };
        Table(RwLock::new(Content { terms, templates: HashMap::new() }))
    }

    pub fn get(&self, key: &[u8]) -> Option<Arc<Template>> {
        self.0.read().templates.get(key).map(|entry| Arc::clone(&entry.template))
    }

    /// Says whether a message can be made of this template and this data, as far as that is known now; counts
    /// that a request named it.
    pub fn check(&self, key: &[u8], data: &[u8]) -> Result<(), Unfit> {
        let refusing = {
            let content = self.0.read();
            let entry = content.templates.get(key).ok_or(Unfit::NoTemplate)?;
            // One thread writes it.
            entry.asked.store(entry.asked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            let refuses = content.terms.filling.missing == MissingVariables::Refuse;
            refuses.then(|| Arc::clone(&entry.template))
        };
        match refusing {
            Some(template) => template.check(data),
            None => check_data(data).map_err(Unfit::Data),
        }
    }

    /// The keys that most requests have named since they are in the table, and how many that were.
    pub fn busiest(&self, limit: usize) -> Vec<(String, u64)> {
        let content = self.0.read();
        let count = |entry: &Entry| entry.asked.load(Ordering::Relaxed);
        let mut busiest: Vec<_> = (content.templates.iter())
            .map(|(key, entry)| (count(entry), key))
            .filter(|(n, _)| *n > 0)
            .collect();
        busiest.sort_unstable_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
        busiest.truncate(limit);
        busiest.into_iter().map(|(n, key)| (String::from_utf8_lossy(key).into_owned(), n)).collect()
    }

    pub fn len(&self) -> usize {
        self.0.read().templates.len()
    }

    pub fn terms(&self) -> Terms {
        self.0.read().terms
    }

    /// All of it, by key.
    pub fn texts(&self) -> Vec<(Box<[u8]>, Arc<Template>)> {
        let content = self.0.read();
        let templates = content.templates.iter();
        let mut texts: Vec<_> =
            templates.map(|(key, entry)| (key.clone(), Arc::clone(&entry.template))).collect();
        drop(content);
        texts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        texts
    }

    /// A key that the table already holds may always be given a new text.
    pub fn insert(&self, key: &[u8], text: &str) -> Insert {
        let terms = self.terms();
        if text.len() > terms.template_size {
            return Insert::OverTemplateSize;
        }
        let template = Template::compile(text, terms.filling);
        terms.put(&mut self.0.write().templates, key, template)
    }

    /// The same for one row, and what operators and the history are to know of it if it was another before.
    pub fn reload(&self, row: &Row) -> (Insert, Loaded) {
        let key = row.key.as_bytes();
        let before = self.get(key).map(|template| template.text().to_owned());
        let insert = self.insert(key, &row.template);
        if insert != Insert::Stored || before.as_ref() == Some(&row.template) {
            return (insert, Loaded::default());
        }
        let mut doubts = Summary::default();
        doubts.add(&row.key, &Template::compile(&row.template, self.terms().filling));
        let now = Some(row.template.clone());
        let changes = vec![Change { key: row.key.clone(), before, now }];
        (insert, Loaded { warnings: doubts.lines().collect(), changes })
    }

    /// The same rows, those first of which the table has a template: they are the last to be left out. An error
    /// names those that could not stay, although the database has them.
    pub fn keeping(&self, rows: Vec<Row>, terms: Terms) -> Result<Vec<Row>, String> {
        let content = self.0.read();
        let (mut first, rest): (Vec<Row>, Vec<Row>) =
            (rows.into_iter()).partition(|row| content.templates.contains_key(row.key.as_bytes()));
        let mut lost: Vec<String> = (first.iter())
            .filter(|row| row.template.len() > terms.template_size)
            .map(|Row { key, template, .. }| {
                let (size, limit) = (template.len(), terms.template_size);
                format!("template {key:?} has {size} bytes (server.template_size = {limit})")
            })
            .collect();
        let over = first.iter().skip(terms.table_size);
        lost.extend(over.map(|Row { key, .. }| {
            format!(
                "template {key:?} has no room any more (server.table_size = {})",
                terms.table_size
            )
        }));
        if !lost.is_empty() {
            let lines = shortened(lost, "would be left out").join("\n");
            return Err(format!("templates in use would be left out:\n{lines}"));
        }
        first.extend(rest);
        Ok(first)
    }

    /// Keys of the table that are not among the rows.
    pub fn missing_in(&self, rows: &[Row]) -> Vec<Box<[u8]>> {
        let named: HashSet<&[u8]> = rows.iter().map(|row| row.key.as_bytes()).collect();
        let content = self.0.read();
        content.templates.keys().filter(|key| !named.contains(&***key)).cloned().collect()
    }

    /// Makes `rows` the table's whole content, as far as the terms allow, which hold from now on.
    pub fn replace_all(&self, rows: Vec<Row>, terms: Terms) -> Loaded {
        let mut templates = HashMap::with_capacity(rows.len());
        let (mut left_out, mut doubts) = (Vec::new(), Summary::default());
        let mut seen = HashSet::with_capacity(rows.len());
        for row in rows {
            seen.insert(row.key.clone().into_bytes());
            let size = row.template.len();
            let insert = if size > terms.template_size {
                Insert::OverTemplateSize
            } else {
                let template = Template::compile(&row.template, terms.filling);
                terms.put(&mut templates, row.key.as_bytes(), template)
            };
            match insert {
                Insert::Stored => {
                    let stored = templates.get(row.key.as_bytes());
                    stored.into_iter().for_each(|entry| doubts.add(&row.key, &entry.template));
                }
                Insert::OverTableSize => left_out.push(format!(
                    "template {:?} left out: the table is full (table_size = {})",
                    row.key, terms.table_size
                )),
                Insert::OverTemplateSize => left_out.push(format!(
                    "template {:?} left out: it has {size} bytes (template_size = {})",
                    row.key, terms.template_size
                )),
            }
        }
        let mut warnings = shortened(left_out, "left out");
        warnings.extend(doubts.lines());
        let old = {
            let mut present = self.0.write();
            for (key, entry) in &mut templates {
                if let Some(old) = present.templates.get(key) {
                    *entry.asked.get_mut() = old.asked.load(Ordering::Relaxed);
                }
            }
            std::mem::replace(&mut *present, Content { terms, templates })
        };
        let (changes, more) = self.changes(&old.templates, &seen);
        if more > 0 {
            warnings.push(format!("{more} changed templates more are not kept in the history"));
        }
        Loaded { warnings, changes }
    }

    /// What is another than it was in `old`, and how many more; the first load changes nothing. A key of those that
    /// the database has is not gone, only left out.
    fn changes(&self, old: &Templates, has: &HashSet<Vec<u8>>) -> (Vec<Change>, usize) {
        if old.is_empty() {
            return (Vec::new(), 0);
        }
        let templates = &self.0.read().templates;
        let text = |templates: &Templates, key: &[u8]| {
            templates.get(key).map(|entry| entry.template.text().to_owned())
        };
        let new = templates.iter().filter(|(key, entry)| {
            old.get(*key).is_none_or(|old| old.template.text() != entry.template.text())
        });
        let gone = old.keys().filter(|key| !has.contains(&***key));
        let keys = new.map(|(key, _)| key).chain(gone);
        let mut keys: Vec<&[u8]> = keys.map(|key| &**key).collect();
        keys.sort_unstable();
        let more = keys.len().saturating_sub(CHANGES);
        keys.truncate(CHANGES);
        let change = |key: &[u8]| Change {
            key: String::from_utf8_lossy(key).into_owned(),
            before: text(old, key),
            now: text(templates, key),
        };
        (keys.into_iter().map(change).collect(), more)
    }
}

impl Terms {
    fn put(&self, templates: &mut Templates, key: &[u8], template: Template) -> Insert {
        if templates.len() >= self.table_size && !templates.contains_key(key) {
            return Insert::OverTableSize;
        }
        let asked = templates.get(key).map_or(0, |old| old.asked.load(Ordering::Relaxed));
        let entry = Entry { template: Arc::new(template), asked: asked.into() };
        templates.insert(key.into(), entry);
        Insert::Stored
    }
}

fn shortened(mut lines: Vec<String>, what: &str) -> Vec<String> {
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("{more} templates more {what}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, template: &str) -> Row {
        Row {
            key: key.to_owned(),
            title: String::new(),
            template: template.to_owned(),
            created_at: 0,
            updated_at: 0,
        }
    }

    fn rendered(table: &Table, key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let template = table.get(key.as_bytes()).unwrap();
        template.render("o1", b"", None, &mut out).unwrap();
        out
    }

    #[test]
    fn a_full_table_takes_a_new_text_for_a_key_it_holds_and_no_new_key() {
        let table = Table::new(2, 5, Filling::DEFAULT);
        assert_eq!(table.len(), 0);
        assert_eq!(table.insert(b"a", "one"), Insert::Stored);
        assert_eq!(table.insert(b"b", "two"), Insert::Stored);
        assert_eq!(table.insert(b"c", "three"), Insert::OverTableSize);
        assert_eq!(table.insert(b"a", "other"), Insert::Stored);
        assert_eq!(rendered(&table, "a"), b"other");
        assert_eq!(table.len(), 2);
        assert_eq!(table.check(b"b", b""), Ok(()));
        for key in [&b"c"[..], b"B"] {
            assert_eq!(table.check(key, b""), Err(Unfit::NoTemplate));
        }
    }

    #[test]
    fn the_busiest_come_first_and_are_counted_over_changes_of_their_texts() {
        let table = Table::new(9, 9, Filling::DEFAULT);
        table.replace_all(
            vec![row("a", "1"), row("b", "2"), row("c", "3"), row("d", "4")],
            table.terms(),
        );
        for key in ["b", "c", "b", "a", "none"] {
            assert_eq!(table.check(key.as_bytes(), b"").is_ok(), key != "none");
        }
        table.insert(b"b", "new");
        table.replace_all(vec![row("b", "newer"), row("c", "3"), row("a", "1")], table.terms());
        assert!(table.check(b"b", b"").is_ok());
        let counted = |key: &str, count| (key.to_owned(), count);
        assert_eq!(table.busiest(2), [counted("b", 3), counted("a", 1)]);
        assert_eq!(table.busiest(9).len(), 3);
    }

    #[test]
    fn a_template_over_template_size_leaves_the_cached_one_as_it_was() {
        let table = Table::new(2, 5, Filling::DEFAULT);
        assert_eq!(table.insert(b"a", "12345"), Insert::Stored);
        assert_eq!(table.insert(b"a", "123456"), Insert::OverTemplateSize);
        assert_eq!(rendered(&table, "a"), b"12345");
    }

    #[test]
    fn replacing_all_forgets_old_keys_and_names_what_it_leaves_out() {
        let table = Table::new(2, 5, Filling::DEFAULT);
        table.insert(b"old", "x");
        let held = table.get(b"old").unwrap();
        let loaded = table.replace_all(
            vec![row("long", "123456"), row("a", "1"), row("b", "2"), row("c", "3")],
            table.terms(),
        );
        assert_eq!(
            loaded.warnings,
            [
                "template \"long\" left out: it has 6 bytes (template_size = 5)",
                "template \"c\" left out: the table is full (table_size = 2)",
                "templates \"a\", \"b\": the text is no JSON object once its variables are filled: \
                 WeChat refuses it",
            ]
        );
        assert_eq!(table.len(), 2);
        assert!(table.get(b"old").is_none());
        // A worker that took a template before the reload goes on with it.
        let mut out = Vec::new();
        held.render("o1", b"", None, &mut out).unwrap();
        assert_eq!(out, b"x");
    }

    #[test]
    fn what_is_in_use_comes_first_and_is_not_left_out_silently() {
        let table = Table::new(2, 5, Filling::DEFAULT);
        let terms = table.terms();
        table.replace_all(vec![row("x", "1"), row("y", "2")], terms);
        let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
        let kept = table.keeping(vec![row("a", "1"), row("x", "3"), row("y", "4")], terms);
        assert_eq!(keys(kept.unwrap()), ["x", "y", "a"]);
        let why = table.keeping(vec![row("x", "123456"), row("a", "123456")], terms).unwrap_err();
        assert!(why.contains("\"x\" has 6 bytes") && !why.contains("\"a\""), "{why}");
        let less = Terms { table_size: 1, ..terms };
        let why = table.keeping(vec![row("x", "1"), row("y", "2")], less).unwrap_err();
        assert!(why.contains("\"y\" has no room") && !why.contains("\"x\""), "{why}");
        assert_eq!(table.missing_in(&[row("x", "1"), row("b", "")]), [Box::from(&b"y"[..])]);
    }

    fn change(key: &str, before: Option<&str>, now: Option<&str>) -> Change {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Change { key: key.to_owned(), before: text(before), now: text(now) }
    }

    #[test]
    fn a_load_tells_what_has_changed_since_the_last_one() {
        let table = Table::new(3, 5, Filling::DEFAULT);
        let load = |rows: &[(&str, &str)]| {
            table
                .replace_all(rows.iter().map(|(key, text)| row(key, text)).collect(), table.terms())
                .changes
        };
        assert_eq!(load(&[("a", "1"), ("b", "2")]), [], "the first one changes nothing");
        assert_eq!(load(&[("b", "2"), ("a", "1")]), []);
        assert_eq!(
            load(&[("c", "3"), ("b", "4")]),
            [
                change("a", Some("1"), None),
                change("b", Some("2"), Some("4")),
                change("c", None, Some("3")),
            ]
        );
        // What was left out may still be there.
        assert_eq!(
            load(&[("b", "123456"), ("d", "x")]),
            [change("c", Some("3"), None), change("d", None, Some("x"))]
        );
        let (insert, loaded) = table.reload(&row("d", "y"));
        assert_eq!(insert, Insert::Stored);
        assert_eq!(loaded.changes, [change("d", Some("x"), Some("y"))]);
        assert_eq!(loaded.warnings.len(), 1);
        let (_, loaded) = table.reload(&row("d", "y"));
        assert!(loaded.changes.is_empty() && loaded.warnings.is_empty(), "it is the same");
        let (insert, loaded) = table.reload(&row("d", "123456"));
        assert_eq!((insert, loaded.changes.len()), (Insert::OverTemplateSize, 0));
        let (_, loaded) = table.reload(&row("e", "1"));
        assert_eq!(loaded.changes, [change("e", None, Some("1"))]);
    }

    #[test]
    fn a_load_of_many_writes_few_lines_and_tells_few_changes() {
        let table = Table::new(5_000, 5, Filling::DEFAULT);
        let rows = |text: &str, count: usize| {
            (0..count).map(|n| row(&format!("{n:04}"), text)).collect::<Vec<_>>()
        };
        table.replace_all(rows("1", CHANGES + 2), table.terms());
        let loaded = table.replace_all(rows("2", CHANGES + 2), table.terms());
        assert_eq!(loaded.changes.len(), CHANGES);
        assert_eq!(loaded.changes[0], change("0000", Some("1"), Some("2")));
        let [summary, more] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(summary.contains(" and 999 more (see template check): "), "{summary}");
        assert_eq!(more, "2 changed templates more are not kept in the history");
        let loaded = table.replace_all(rows("123456", LINES), table.terms());
        assert_eq!((loaded.warnings.len(), table.len()), (LINES, 0));
        let loaded = table.replace_all(rows("123456", LINES + 1), table.terms());
        assert_eq!(loaded.warnings[LINES], "1 templates more left out");
        assert_eq!(loaded.warnings.len(), LINES + 1);
    }

    #[test]
    fn the_door_refuses_what_no_message_can_be_made_of() {
        for (missing, refused) in [
            (MissingVariables::Keep, None),
            (MissingVariables::Empty, None),
            (MissingVariables::Refuse, Some("missing variables: ${a}")),
        ] {
            let table = Table::new(2, 100, Filling { missing, ..Filling::DEFAULT });
            table.insert(b"k", "${a}");
            let check = |key: &str, data: &str| {
                table.check(key.as_bytes(), data.as_bytes()).err().map(|unfit| unfit.to_string())
            };
            assert_eq!(check("k", r#"{"a":null}"#), None);
            assert_eq!(check("k", r#"{"b":""}"#).as_deref(), refused);
            assert_eq!(check("l", "{").as_deref(), Some("template key not exists"));
            let invalid = check("k", r#"{"a":[]}"#).unwrap();
            assert!(invalid.starts_with("invalid data: the value of \"a\""), "{invalid}");
        }
    }
}
