//! The templates as they were last loaded, in a file: with them a start serves its backlog while the database is
//! away. Written by the store thread in one piece, and believed only if it is whole and of the same database.
//!
//! ```text
//! mega templates 1
//! {"database":"mysql:host=..","loaded":1700000000}
//! ["key","text"]
//! ..
//! end 1 89abcdef
//! ```
//!
//! The last line has the number of templates and the CRC-32 of all lines before it.

use super::{DatabaseError, Fault, Row, Table};
use crate::config::{Config, Pdo};
use crate::file;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::PathBuf;

const FIRST: &str = "mega templates 1";

pub struct Kept {
    pub path: PathBuf,
    database: String,
}

/// What is not a template.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// Where they come from.
    database: String,
    /// Seconds since 1970.
    loaded: u64,
}

/// A file's content.
#[derive(Debug)]
pub struct Old {
    pub rows: Vec<Row>,
    /// Where they come from.
    database: String,
    /// Seconds since 1970.
    pub loaded: u64,
}

/// What a start does whose database gave it no templates.
pub enum Instead {
    /// It serves with these, and asks the database again.
    Use(Old),
    /// The database is new: it is created, and nothing is lost by that.
    Create,
    /// It would serve worse than nobody at all; why, and what to do.
    Refuse(String),
}

impl Kept {
    pub fn of(config: &Config) -> Kept {
        Kept { path: config.templates_file(), database: named(&config.pdo) }
    }

    /// Templates are loaded from another database from now on.
    pub fn turn_to(&mut self, pdo: &Pdo) {
        self.database = named(pdo);
    }

    /// Writes a new file in the place of the old one.
    pub fn write(&self, table: &Table, loaded: u64) -> io::Result<()> {
        file::replace(&self.path, |file| {
            let mut out = Summed { out: BufWriter::new(file), crc: crc32fast::Hasher::new() };
            writeln!(out, "{FIRST}")?;
            let about = About { database: self.database.clone(), loaded };
            serde_json::to_writer(&mut out, &about)?;
            out.write_all(b"\n")?;
            let texts = table.texts();
            for (key, template) in &texts {
                serde_json::to_writer(&mut out, &(String::from_utf8_lossy(key), template.text()))?;
                out.write_all(b"\n")?;
            }
            let crc = out.crc.clone().finalize();
            writeln!(out, "end {} {crc:08x}", texts.len())?;
            out.flush()
        })
    }

    /// What a start does instead of loading the templates.
    pub fn instead_of(&self, error: &DatabaseError) -> Instead {
        let kept = self.read();
        let path = self.path.display();
        match (error.fault, kept) {
            (Fault::Wrong, _) => Instead::Refuse(error.to_string()),
            (Fault::Away | Fault::Missing, Ok(Some(old))) if old.database == self.database => {
                match error.fault == Fault::Missing && old.rows.is_empty() {
                    true => Instead::Create,
                    false => Instead::Use(old),
                }
            }
            (Fault::Missing, Ok(Some(Old { database, rows, .. }))) if !rows.is_empty() => {
                Instead::Refuse(format!(
                    "{error}; the {} templates in use last are of {database}: correct [pdo] dsn, or \
                     store a template in the new one first",
                    rows.len()
                ))
            }
            (Fault::Missing, Ok(_)) => Instead::Create,
            (Fault::Away, Ok(None)) => Instead::Refuse(error.to_string()),
            (Fault::Away, Ok(Some(Old { database, .. }))) => Instead::Refuse(format!(
                "{error}; nor can those be used that were kept in {path}: it is of another database \
                 ({database})"
            )),
            (Fault::Away | Fault::Missing, Err(why)) => Instead::Refuse(format!(
                "{error}; nor can those be used that were kept in {path}: {why}"
            )),
        }
    }

    /// None: there is no file. An error says what is wrong with it.
    fn read(&self) -> Result<Option<Old>, String> {
        let opened = file::open_own(&self.path, OFlags::RDONLY, 0);
        let mut text = String::new();
        match opened.and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        understand(&text).map(Some)
    }
}

fn understand(text: &str) -> Result<Old, String> {
    let damaged = || "it is damaged, or no file of mega's".to_owned();
    let lines = text.strip_suffix('\n').ok_or_else(damaged)?;
    let (body, end) = lines.rsplit_once('\n').ok_or_else(damaged)?;
    let summed = &text[..body.len() + 1];
    let crc = crc32fast::hash(summed.as_bytes());
    let mut lines = body.split('\n');
    if lines.next() != Some(FIRST) {
        return Err(damaged());
    }
    let about = lines.next().ok_or_else(damaged)?;
    let rows: Vec<&str> = lines.collect();
    if end != format!("end {} {crc:08x}", rows.len()) {
        return Err(damaged());
    }
    let about: About = serde_json::from_str(about).map_err(|_| damaged())?;
    let row = |line: &str| -> Result<Row, String> {
        let (key, template) = serde_json::from_str(line).map_err(|_| damaged())?;
        Ok(Row { key, template, title: String::new(), created_at: 0, updated_at: 0 })
    };
    let rows = rows.into_iter().map(row).collect::<Result<_, _>>()?;
    Ok(Old { rows, loaded: about.loaded, database: about.database })
}

/// Without the user and the password.
fn named(pdo: &Pdo) -> String {
    match pdo.table_prefix.as_str() {
        "" => pdo.dsn.to_string(),
        prefix => format!("{} table_prefix={prefix}", pdo.dsn),
    }
}

struct Summed<W> {
    out: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filling, Insert};
    use super::*;
    use std::path::Path;

    fn kept(folder: &Path) -> Kept {
        let config = Config::demo(folder).unwrap();
        std::fs::create_dir_all(config.templates_file().parent().unwrap()).unwrap();
        Kept::of(&config)
    }

    fn table() -> Table {
        let table = Table::new(9, 1000, Filling::DEFAULT);
        for (key, text) in
            [("b", "{\"a\":\n \"${x}\"}"), ("购买", "恭喜😀\u{0}\r\n"), ("end 1", "")]
        {
            assert_eq!(table.insert(key.as_bytes(), text), Insert::Stored);
        }
        table
    }

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        assert!(kept.read().unwrap().is_none());
        for _ in 0..2 {
            kept.write(&table(), 1_700_000_000).unwrap();
        }
        let old = kept.read().unwrap().unwrap();
        let rows: Vec<_> = old.rows.iter().map(|row| (&*row.key, &*row.template)).collect();
        let expected = [("b", "{\"a\":\n \"${x}\"}"), ("end 1", ""), ("购买", "恭喜😀\u{0}\r\n")];
        assert_eq!((rows.as_slice(), old.loaded), (&expected[..], 1_700_000_000));
        let beside = std::fs::read_dir(kept.path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing is left beside it");
        kept.write(&Table::new(1, 1, Filling::DEFAULT), 1).unwrap();
        assert_eq!(kept.read().unwrap().unwrap().rows, []);
    }

    #[test]
    fn a_file_that_is_cut_or_has_a_wrong_byte_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        kept.write(&table(), 1).unwrap();
        let whole = std::fs::read(&kept.path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&kept.path, &whole[..at]).unwrap();
            assert!(kept.read().is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&kept.path, flipped).unwrap();
            assert!(kept.read().is_err(), "flipped at {at}");
        }
        for foreign in ["", "\n", "\n\n\n", "mega templates 1\n{}\nend 0 0\n"] {
            std::fs::write(&kept.path, foreign).unwrap();
            let why = kept.read().unwrap_err();
            assert_eq!(why, "it is damaged, or no file of mega's", "{foreign:?}");
        }
    }

    #[test]
    fn the_templates_of_another_database_are_not_taken_for_this_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = kept(folder.path());
        kept.write(&table(), 1).unwrap();
        let mut pdo = Config::demo(folder.path()).unwrap().pdo;
        pdo.table_prefix = "other_".to_owned();
        kept.turn_to(&pdo);
        let fault = |fault| kept.instead_of(&DatabaseError::new(fault, "x"));
        assert!(
            matches!(fault(Fault::Away), Instead::Refuse(why) if why.contains("another database (sqlite:"))
        );
        assert!(
            matches!(fault(Fault::Missing), Instead::Refuse(why) if why.contains("templates in use last are of sqlite:"))
        );
        kept.write(&table(), 1).unwrap();
        let used = |kept: &Kept| {
            let error = DatabaseError::new(Fault::Away, "x");
            matches!(kept.instead_of(&error), Instead::Use(_))
        };
        assert!(used(&kept));
        pdo.password = "another".to_owned();
        kept.turn_to(&pdo);
        assert!(used(&kept));
    }
}
