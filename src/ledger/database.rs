//! The ledger's file: an SQLite database that is opened when it is needed and begun anew when it is
//! damaged, moved or removed. On the ledger thread, and in commands. What `write` has returned is
//! durable and stands in the file that has the configured name.

use super::schema;
use crate::file;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same where others wait, and what cannot be written is kept elsewhere.
const IMPATIENCE: Duration = Duration::from_millis(250);

/// How often one transaction is begun anew because the file under it was moved or damaged.
const TRIES: usize = 3;

/// What is put behind the name of a file that cannot be read.
const BAD: &str = ".bad";

pub struct Database {
    path: PathBuf,
    patience: Duration,
    open: Option<Open>,
    begun_anew: u64,
}

struct Open {
    connection: Connection,
    place: Place,
}

/// Device and inode of the database and of its write-ahead log.
#[derive(PartialEq, Eq)]
struct Place([Option<(u64, u64)>; 2]);

/// Why a transaction came to nothing.
enum Failed {
    Moved,
    Damaged(String),
    Other(String),
}

impl Failed {
    fn of(path: &Path, error: &rusqlite::Error) -> Failed {
        let text = failed(path, error);
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failed::Damaged(text),
            _ => Failed::Other(text),
        }
    }
}

impl Database {
    pub fn new(path: &Path) -> Database {
        Database { path: path.to_owned(), patience: PATIENCE, open: None, begun_anew: 0 }
    }

    /// One that somebody else's lock does not hold up for long.
    pub fn impatient(path: &Path) -> Database {
        Database { patience: IMPATIENCE, ..Database::new(path) }
    }

    /// How often the rows that were there are there no more: its file was moved, removed or set aside.
    pub fn begun_anew(&self) -> u64 {
        self.begun_anew
    }

    /// To read only, in a command; None if there is no such file yet.
    pub fn read_only(path: &Path) -> Result<Option<Connection>, String> {
        match file::open(path, OFlags::RDONLY, 0) {
            // SQLite would wait for ever for the other end of a named pipe.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let why = |error| failed(path, &error);
        let connection = Connection::open_with_flags(path, flags).map_err(why)?;
        connection.busy_timeout(PATIENCE).map_err(why)?;
        match schema::version(&connection).map_err(why)? {
            schema::VERSION => Ok(Some(connection)),
            0 => Ok(None),
            version => Err(newer(path, version)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One transaction, durable when this returns. `work` is done again if the file was moved or
    /// turned out to be damaged meanwhile.
    pub fn write<T>(
        &mut self,
        mut work: impl FnMut(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let failed = match self.attempt(&mut work) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            // Opened anew, whatever it was: a connection after an error promises little.
            self.open = None;
            last = match failed {
                Failed::Moved => {
                    self.begun_anew += 1;
                    let path = self.path.display();
                    log::error!("the ledger {path} was moved or removed; a new one is begun");
                    format!("the ledger {path} is moved again and again")
                }
                Failed::Damaged(why) => {
                    self.set_aside(&why)?;
                    self.begun_anew += 1;
                    why
                }
                Failed::Other(why) => return Err(why),
            };
        }
        Err(last)
    }

    fn attempt<T>(
        &mut self,
        work: &mut impl FnMut(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, Failed> {
        let path = self.path.clone();
        if self.open.is_none() {
            let connection = open(&path, self.patience)?;
            self.open = Some(Open { connection, place: Place::of(&path) });
        }
        let open = self.open.as_mut().expect("invariant: it was opened a line above");
        if open.place != Place::of(&path) {
            return Err(Failed::Moved);
        }
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let done = transaction.and_then(|transaction| {
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        let done = done.map_err(|error| Failed::of(&path, &error))?;
        match open.place == Place::of(&path) {
            true => Ok(done),
            false => Err(Failed::Moved),
        }
    }

    /// Gives a file that cannot be read another name, so that it is kept and out of the way.
    fn set_aside(&self, why: &str) -> Result<(), String> {
        let named = |ending: &str| PathBuf::from(format!("{}{ending}", self.path.display()));
        let mut bad = BAD.to_owned();
        for number in 1.. {
            if !named(&bad).exists() {
                break;
            }
            bad = format!("{BAD}.{number}");
        }
        for part in ["", "-wal"] {
            let moved = std::fs::rename(named(part), named(&format!("{bad}{part}")));
            if let Err(error) = moved
                && (part.is_empty() || error.kind() != io::ErrorKind::NotFound)
            {
                return Err(format!("{why}; it cannot be set aside: {error}"));
            }
        }
        // An index that SQLite makes anew.
        let _ = std::fs::remove_file(named("-shm"));
        log::error!("{why}; it is kept as {} and a new one is begun", named(&bad).display());
        Ok(())
    }
}

impl Place {
    fn of(path: &Path) -> Place {
        let log = PathBuf::from(format!("{}-wal", path.display()));
        let place = |path: &Path| std::fs::metadata(path).ok().map(|at| (at.dev(), at.ino()));
        Place([place(path), place(&log)])
    }
}

fn open(path: &Path, patience: Duration) -> Result<Connection, Failed> {
    create(path).map_err(|error| {
        Failed::Other(format!("the ledger {} cannot be opened: {error}", path.display()))
    })?;
    match connect(path, patience).map_err(|error| Failed::of(path, &error))? {
        (connection, schema::Prepared::Ready) => Ok(connection),
        (_, schema::Prepared::Newer(version)) => Err(Failed::Other(newer(path, version))),
        (_, schema::Prepared::Foreign) => Err(Failed::Other(format!(
            "{} holds other tables; server.ledger_file must name a file of its own",
            path.display()
        ))),
    }
}

fn connect(path: &Path, patience: Duration) -> rusqlite::Result<(Connection, schema::Prepared)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    let prepared = schema::prepare(&mut connection)?;
    Ok((connection, prepared))
}

/// The file with its own permissions, which SQLite gives to the files beside it too.
fn create(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    let new = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
    match new {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // Its name is as durable as what will be written into it.
        Ok(_) => File::open(folder)?.sync_all(),
    }
}

fn failed(path: &Path, error: &rusqlite::Error) -> String {
    format!("the ledger {}: {error}", path.display())
}

fn newer(path: &Path, version: i64) -> String {
    format!("the ledger {} has version {version}, made by a newer mega", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn count(database: &mut Database) -> i64 {
        let sql = "SELECT count(*) FROM failed";
        database.write(|write| write.query_row(sql, [], |row| row.get(0))).unwrap()
    }

    fn add(database: &mut Database, id: &str) -> Result<usize, String> {
        let sql = "INSERT INTO failed (id, time, openid, key, data, attempts, class, errmsg) \
                   VALUES (?, 0, 'o', 'k', 'null', 1, 'permanent', '')";
        database.write(|write| write.execute(sql, [id]))
    }

    #[test]
    fn what_was_written_is_there_and_others_cannot_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/ledger.db");
        add(&mut Database::new(&path), "1").unwrap();
        let mut database = Database::new(&path);
        assert_eq!(count(&mut database), 1);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let read = Database::read_only(&path).unwrap().unwrap();
        assert_eq!(read.query_row("SELECT count(*) FROM failed", [], |row| row.get(0)), Ok(1));
        assert!(Database::read_only(&folder.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_moved_or_removed_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut database = Database::new(&path);
        add(&mut database, "1").unwrap();
        std::fs::rename(&path, folder.path().join("elsewhere.db")).unwrap();
        add(&mut database, "2").unwrap();
        assert_eq!(count(&mut Database::new(&path)), 1);
        assert_eq!(database.begun_anew(), 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((count(&mut database), database.begun_anew()), (0, 2));
        add(&mut database, "3").unwrap();
        // Only its log was removed: what is written would be in no file.
        std::fs::remove_file(folder.path().join("ledger.db-wal")).unwrap();
        add(&mut database, "4").unwrap();
        drop(database);
        assert!(count(&mut Database::new(&path)) >= 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        for kept in ["ledger.db.bad", "ledger.db.bad.1"] {
            let text = format!("{kept} is not a database ").repeat(100);
            std::fs::write(&path, &text).unwrap();
            let mut database = Database::new(&path);
            add(&mut database, "1").unwrap();
            assert_eq!(count(&mut database), 1);
            assert_eq!(std::fs::read_to_string(folder.path().join(kept)).unwrap(), text);
        }
        // Damaged while it is open.
        let mut database = Database::new(&path);
        add(&mut database, "2").unwrap();
        drop(database);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..].fill(0xFF);
        std::fs::write(&path, bytes).unwrap();
        let mut database = Database::new(&path);
        add(&mut database, "3").unwrap();
        assert_eq!((count(&mut database), database.begun_anew()), (1, 1));
    }

    #[test]
    fn what_is_not_a_ledger_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("templates.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
        let error = add(&mut Database::new(&path), "1").unwrap_err();
        assert!(error.contains("holds other tables"), "{error}");
        let newer = folder.path().join("newer.db");
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 9).unwrap();
        let error = add(&mut Database::new(&newer), "1").unwrap_err();
        assert!(error.contains("version 9, made by a newer mega"), "{error}");
        assert!(Database::read_only(&newer).is_err());
    }

    #[test]
    fn a_lock_of_somebody_else_is_an_error_and_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut database = Database::new(&path);
        add(&mut database, "1").unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(add(&mut database, "2").unwrap_err().contains("locked"));
        other.execute_batch("COMMIT").unwrap();
        add(&mut database, "2").unwrap();
        assert_eq!(count(&mut database), 2);
    }
}
