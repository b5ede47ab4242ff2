//! Opening an SQLite file for a look from outside: nothing is created beside it, and nothing is left.

use rusqlite::{Connection, OpenFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// None where there is no such file.
pub fn look(path: &Path) -> Result<Option<Connection>, String> {
    // SQLite would wait for ever for the other end of a named pipe.
    match crate::file::open(path, rustix::fs::OFlags::RDONLY, 0) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(address(path), flags);
    let connection = connection.map_err(|error| error.to_string())?;
    connection.busy_timeout(PATIENCE).map_err(|error| error.to_string())?;
    Ok(Some(connection))
}

/// A file whose write-ahead log is not in use is read as one that nobody writes: reading it otherwise would
/// create that log anew.
fn address(path: &Path) -> String {
    let beside = |ending| PathBuf::from(format!("{}{ending}", path.display())).exists();
    let mode =
        if beside("-wal") && beside("-shm") || beside("-journal") { "" } else { "&immutable=1" };
    let mut escaped = String::new();
    for letter in path.display().to_string().chars() {
        match letter {
            '%' | '?' | '#' => escaped.push_str(&format!("%{:02X}", u32::from(letter))),
            _ => escaped.push(letter),
        }
    }
    format!("file:{escaped}?mode=ro{mode}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_look_leaves_nothing_and_sees_what_a_running_writer_has_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a ? # % b.db");
        assert!(look(&path).unwrap().is_none());
        let version = |path: &Path| {
            let connection = look(path).unwrap().unwrap();
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap()
        };
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        writer.pragma_update(None, "user_version", 7).unwrap();
        assert_eq!(version(&path), 7);
        writer.close().unwrap();
        let before = names(folder.path());
        assert_eq!(version(&path), 7);
        assert_eq!(names(folder.path()), before);
    }
}
