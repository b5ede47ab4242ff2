//! The template database in one SQLite file, the embedded default. Runs on the database thread and in commands.
//! Only who is to create a database creates the file, its folder and the table where they are missing. It waits 5 s for
//! another process's lock.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::row::{
    Columns, Database, DatabaseError, Fault, Reading, Row, Statements, sql_limit, table_names,
};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    table: String,
    statements: Statements,
}

impl Sqlite {
    /// One that is there.
    pub fn open(path: &Path, prefix: &str) -> Result<Sqlite, DatabaseError> {
        if !path.exists() {
            return Err(missing(path, "there is no such file"));
        }
        let open = || -> rusqlite::Result<(Connection, Option<String>)> {
            let connection = Connection::open_with_flags(
                path,
                OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE,
            )?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let table = find_table(&connection, prefix)?;
            Ok((connection, table))
        };
        let (connection, table) = open().map_err(|e| failed(path, &e))?;
        let table = table.ok_or_else(|| without_table(path, prefix))?;
        Ok(Sqlite { connection, path: path.to_owned(), statements: Statements::new(&table), table })
    }

    /// Creates what is missing.
    pub fn create(path: &Path, prefix: &str) -> Result<Sqlite, DatabaseError> {
        if let Some(folder) = path.parent() {
            let created = DirBuilder::new().recursive(true).mode(0o750).create(folder);
            created.map_err(|e| {
                let folder = folder.display();
                DatabaseError::new(
                    Fault::Wrong,
                    format_args!("cannot create {folder} for the template database: {e}"),
                )
            })?;
        }
        let open = || -> rusqlite::Result<(Connection, String)> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let table = find_or_create_table(&connection, prefix)?;
            Ok((connection, table))
        };
        let (connection, table) = open().map_err(|e| failed(path, &e))?;
        Ok(Sqlite { connection, path: path.to_owned(), statements: Statements::new(&table), table })
    }
}

impl Database for Sqlite {
    fn load(&mut self, limit: usize) -> Result<Vec<Row>, DatabaseError> {
        let load = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(&self.statements.load)?;
            let rows = statement.query_map([sql_limit(limit)], |row| Ok(columns(row)))?;
            let mut reading = Reading::of(&self.table);
            rows.filter_map(|row| row.map(|columns| reading.take(columns)).transpose()).collect()
        };
        load().map_err(|e| failed(&self.path, &e))
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Row>, DatabaseError> {
        let Ok(key) = std::str::from_utf8(key) else {
            return Ok(None);
        };
        let find = || {
            self.connection
                .prepare_cached(&self.statements.find)?
                .query_row([key], |row| Ok(columns(row)))
                .optional()
        };
        let found = find().map_err(|e| failed(&self.path, &e))?;
        Ok(found.and_then(|columns| Reading::of(&self.table).take(columns)))
    }

    fn put(&mut self, row: &Row) -> Result<(), DatabaseError> {
        let sql = format!(
            "INSERT INTO {} (tmpl_key, title, template, created_at, updated_at) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (tmpl_key) DO UPDATE SET title = excluded.title, \
             template = excluded.template, updated_at = excluded.updated_at",
            self.table
        );
        let values = params![row.key, row.title, row.template, row.created_at, row.updated_at];
        match self.connection.execute(&sql, values) {
            Ok(_) => Ok(()),
            Err(e) => Err(failed(&self.path, &e)),
        }
    }

    fn remove(&mut self, key: &str) -> Result<bool, DatabaseError> {
        match self.connection.execute(&self.statements.remove, [key]) {
            Ok(rows) => Ok(rows > 0),
            Err(e) => Err(failed(&self.path, &e)),
        }
    }
}

/// The first `limit` rows, read so that nothing is created or left.
pub fn look(path: &Path, prefix: &str, limit: usize) -> Result<Vec<Row>, DatabaseError> {
    let opened = crate::sqlite::look(path).map_err(|why| {
        DatabaseError::new(Fault::Away, format_args!("template database {}: {why}", path.display()))
    })?;
    let connection = opened.ok_or_else(|| missing(path, "there is no such file"))?;
    let table = find_table(&connection, prefix).map_err(|e| failed(path, &e))?;
    let table = table.ok_or_else(|| without_table(path, prefix))?;
    let path = path.to_owned();
    Sqlite { connection, path, statements: Statements::new(&table), table }.load(limit)
}

fn find_table(connection: &Connection, prefix: &str) -> rusqlite::Result<Option<String>> {
    for name in table_names(prefix) {
        let mut tables = connection.prepare(
            "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        )?;
        if tables.exists([&name])? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn find_or_create_table(connection: &Connection, prefix: &str) -> rusqlite::Result<String> {
    if let Some(name) = find_table(connection, prefix)? {
        return Ok(name);
    }
    let name = table_names(prefix).into_iter().next().unwrap_or_default();
    // Another process may have created it since.
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {name} (
            tmpl_key TEXT COLLATE NOCASE NOT NULL PRIMARY KEY,
            title TEXT NOT NULL DEFAULT '',
            template TEXT NOT NULL,
            created_at INTEGER NOT NULL DEFAULT 0,
            updated_at INTEGER NOT NULL DEFAULT 0
        )"
    ))?;
    Ok(name)
}

fn columns(row: &rusqlite::Row<'_>) -> Columns {
    Columns {
        key: column(row, 0),
        title: column(row, 1),
        template: column(row, 2),
        created_at: column(row, 3),
        updated_at: column(row, 4),
    }
}

fn column<T: FromSql>(row: &rusqlite::Row<'_>, index: usize) -> Option<T> {
    row.get(index).ok()
}

fn failed(path: &Path, error: &rusqlite::Error) -> DatabaseError {
    let path = path.display();
    let fault = match error.sqlite_error_code() {
        // What the file is asked for is not in it: a file that is damaged has another word for it.
        Some(ErrorCode::Unknown) => Fault::Wrong,
        _ => Fault::Away,
    };
    DatabaseError::new(fault, format_args!("template database {path}: {error}"))
}

fn missing(path: &Path, why: &str) -> DatabaseError {
    let path = path.display();
    let todo = "is [pdo] dsn right? mega NAME template put creates a new one";
    DatabaseError::new(Fault::Missing, format_args!("template database {path}: {why} ({todo})"))
}

fn without_table(path: &Path, prefix: &str) -> DatabaseError {
    missing(path, &format!("it has no template table: no {}", table_names(prefix).join(" nor ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_folder_is_created_and_what_was_put_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/templates.db");
        let row = Row {
            key: "k".to_owned(),
            title: "t".to_owned(),
            template: "x".to_owned(),
            created_at: 1,
            updated_at: 2,
        };
        assert_eq!(Sqlite::open(&path, "").err().unwrap().fault, Fault::Missing);
        assert!(!folder.path().join("a").exists(), "a look creates nothing");
        Sqlite::create(&path, "").unwrap().put(&row).unwrap();
        let mode = std::fs::metadata(folder.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{mode:o}");
        let mut database = Sqlite::open(&path, "").unwrap();
        assert_eq!(database.list().unwrap(), [row]);
    }

    #[test]
    fn a_file_that_is_not_a_database_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        std::fs::write(&path, "not a database ".repeat(100)).unwrap();
        let error = Sqlite::open(&path, "").err().unwrap().to_string();
        let start = format!("template database {}: ", path.display());
        assert!(error.starts_with(&start), "{error}");
        let error = Sqlite::create(&path.join("below/t.db"), "").err().unwrap();
        assert!(error.to_string().starts_with("cannot create "), "{error}");
    }
}
