//! The template table: every template that messages may name, compiled, by the database's spelling of its key.
//! Shared: the reactor asks for keys, the workers take templates, the store thread puts them in.
//! It refuses what is over table_size or template_size; the database itself is database.rs's.

mod data;
mod database;
mod mysql;
mod php;
mod render;
mod row;
mod sqlite;

use foldhash::{HashMap, HashMapExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::config::Escape;

pub use data::check_data;
pub use database::open;
pub use render::Template;
pub use row::{Database, DatabaseError, Row};

type Templates = HashMap<Box<[u8]>, Entry>;

struct Entry {
    template: Arc<Template>,
    /// Requests that named it; the reactor alone counts.
    asked: AtomicU64,
}

pub struct Table {
    table_size: usize,
    template_size: usize,
    escape: Escape,
    templates: RwLock<Templates>,
}

/// What became of a template that was to be put into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    Stored,
    OverTableSize,
    OverTemplateSize,
}

impl Table {
    /// An empty table for `table_size` templates of at most `template_size` bytes each.
    pub fn new(table_size: usize, template_size: usize, escape: Escape) -> Table {
        Table { table_size, template_size, escape, templates: RwLock::new(HashMap::new()) }
    }

    pub fn get(&self, key: &[u8]) -> Option<Arc<Template>> {
        self.templates.read().get(key).map(|entry| Arc::clone(&entry.template))
    }

    /// Whether there is such a template; counts that a request named it.
    pub fn ask(&self, key: &[u8]) -> bool {
        let templates = self.templates.read();
        let Some(entry) = templates.get(key) else { return false };
        // One thread writes it.
        entry.asked.store(entry.asked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        true
    }

    /// The keys that most requests have named since they are in the table, and how many that were.
    pub fn busiest(&self, limit: usize) -> Vec<(String, u64)> {
        let templates = self.templates.read();
        let count = |entry: &Entry| entry.asked.load(Ordering::Relaxed);
        let mut busiest: Vec<_> = templates
            .iter()
            .map(|(key, entry)| (count(entry), key))
            .filter(|(n, _)| *n > 0)
            .collect();
        busiest.sort_unstable_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
        busiest.truncate(limit);
        busiest.into_iter().map(|(n, key)| (String::from_utf8_lossy(key).into_owned(), n)).collect()
    }

    pub fn len(&self) -> usize {
        self.templates.read().len()
    }

    /// A key that the table already holds may always be given a new text.
    pub fn insert(&self, key: &[u8], text: &str) -> Insert {
        if text.len() > self.template_size {
            return Insert::OverTemplateSize;
        }
        let template = Template::compile(text, self.escape);
        self.put(&mut self.templates.write(), key, template)
    }

    /// Makes `rows` the table's whole content, and says in one line each what was left out and why.
    pub fn replace_all(&self, rows: Vec<Row>) -> Vec<String> {
        let mut templates = HashMap::with_capacity(rows.len());
        let mut left_out = Vec::new();
        for row in rows {
            let key = row.key.as_bytes();
            let size = row.template.len();
            let insert = if size > self.template_size {
                Insert::OverTemplateSize
            } else {
                let template = Template::compile(&row.template, self.escape);
                self.put(&mut templates, key, template)
            };
            match insert {
                Insert::Stored => {}
                Insert::OverTableSize => left_out.push(format!(
                    "template {:?} left out: the table is full (table_size = {})",
                    row.key, self.table_size
                )),
                Insert::OverTemplateSize => left_out.push(format!(
                    "template {:?} left out: it has {size} bytes (template_size = {})",
                    row.key, self.template_size
                )),
            }
        }
        let mut present = self.templates.write();
        for (key, entry) in &mut templates {
            if let Some(old) = present.get(key) {
                *entry.asked.get_mut() = old.asked.load(Ordering::Relaxed);
            }
        }
        *present = templates;
        drop(present);
        left_out
    }

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
        let table = Table::new(2, 5, Escape::Json);
        assert_eq!(table.len(), 0);
        assert_eq!(table.insert(b"a", "one"), Insert::Stored);
        assert_eq!(table.insert(b"b", "two"), Insert::Stored);
        assert_eq!(table.insert(b"c", "three"), Insert::OverTableSize);
        assert_eq!(table.insert(b"a", "other"), Insert::Stored);
        assert_eq!(rendered(&table, "a"), b"other");
        assert_eq!(table.len(), 2);
        assert!(table.ask(b"b") && !table.ask(b"c") && !table.ask(b"B"));
    }

    #[test]
    fn the_busiest_come_first_and_are_counted_over_changes_of_their_texts() {
        let table = Table::new(9, 9, Escape::Json);
        table.replace_all(vec![row("a", "1"), row("b", "2"), row("c", "3"), row("d", "4")]);
        for key in ["b", "c", "b", "a", "none"] {
            assert_eq!(table.ask(key.as_bytes()), key != "none");
        }
        table.insert(b"b", "new");
        table.replace_all(vec![row("b", "newer"), row("c", "3"), row("a", "1")]);
        assert!(table.ask(b"b"));
        let counted = |key: &str, count| (key.to_owned(), count);
        assert_eq!(table.busiest(2), [counted("b", 3), counted("a", 1)]);
        assert_eq!(table.busiest(9).len(), 3);
    }

    #[test]
    fn a_template_over_template_size_leaves_the_cached_one_as_it_was() {
        let table = Table::new(2, 5, Escape::Json);
        assert_eq!(table.insert(b"a", "12345"), Insert::Stored);
        assert_eq!(table.insert(b"a", "123456"), Insert::OverTemplateSize);
        assert_eq!(rendered(&table, "a"), b"12345");
    }

    #[test]
    fn replacing_all_forgets_old_keys_and_names_what_it_leaves_out() {
        let table = Table::new(2, 5, Escape::Json);
        table.insert(b"old", "x");
        let held = table.get(b"old").unwrap();
        let left_out = table.replace_all(vec![
            row("long", "123456"),
            row("a", "1"),
            row("b", "2"),
            row("c", "3"),
        ]);
        assert_eq!(
            left_out,
            [
                "template \"long\" left out: it has 6 bytes (template_size = 5)",
                "template \"c\" left out: the table is full (table_size = 2)",
            ]
        );
        assert_eq!(table.len(), 2);
        assert!(!table.ask(b"old"));
        // A worker that took a template before the reload goes on with it.
        let mut out = Vec::new();
        held.render("o1", b"", None, &mut out).unwrap();
        assert_eq!(out, b"x");
    }
}
