//! The pidfile: a lock that the kernel drops with the process, and the pid for whoever wants to
//! signal it. A file without a lock is stale and no obstacle.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A lock that is gone after this was somebody's look at the state, see `probe`.
const GLANCE: Duration = Duration::from_millis(100);

pub struct PidFile {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    file: File,
}

#[derive(Debug)]
pub enum Locked {
    /// Another daemon holds it; its pid as far as the file tells.
    Running(Option<u32>),
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Locked::Running(Some(pid)) => write!(f, "already running, pid {pid}"),
            Locked::Running(None) => write!(f, "already running"),
            Locked::Io { path, error } => {
                write!(f, "cannot write the pidfile {}: {error}", path.display())
            }
        }
    }
}

impl PidFile {
    /// Takes the lock and writes this process's pid. To be called after the last fork.
    pub fn lock(path: &Path) -> Result<PidFile, Locked> {
        let failed = |error: io::Error| Locked::Io { path: path.to_owned(), error };
        let deadline = Instant::now() + GLANCE;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            let mut file = options.open(path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(GLANCE / 10);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Locked::Running(pid(&mut file))),
                Err(error) => return Err(failed(error.into())),
            }
            // Between open and lock its owner may have removed it: then the lock is on a file that
            // nobody else will find.
            if !names(path, &file).map_err(failed)? {
                continue;
            }
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            return Ok(PidFile { path: path.to_owned(), file });
        }
    }

    /// Removes the file; where the folder does not allow that any more, empties it.
    pub fn release(self) {
        if std::fs::remove_file(&self.path).is_err() {
            // Then it stays as a stale one, which is no obstacle.
            let _ = self.file.set_len(0);
        }
    }
}

fn names(path: &Path, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// What a pidfile says.
#[derive(Debug, PartialEq, Eq)]
pub enum Probe {
    Running(u32),
    /// The process named in it is gone.
    Stale(u32),
    Absent,
    Unreadable(String),
}

/// Looks without disturbing: a shared lock is tried and let go at once.
pub fn probe(path: &Path) -> Probe {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Probe::Absent,
        Err(error) => {
            return Probe::Unreadable(format!(
                "cannot read the pidfile {}: {error}",
                path.display()
            ));
        }
    };
    let locked = flock(&file, FlockOperation::NonBlockingLockShared);
    match (locked, pid(&mut file)) {
        (Err(rustix::io::Errno::WOULDBLOCK), Some(pid)) => Probe::Running(pid),
        (Err(rustix::io::Errno::WOULDBLOCK), None) => {
            Probe::Unreadable(format!("{} is locked but names no process", path.display()))
        }
        (Err(error), _) => Probe::Unreadable(format!("{}: {error}", path.display())),
        (Ok(()), Some(pid)) => Probe::Stale(pid),
        // Emptied by a daemon that could not remove it.
        (Ok(()), None) => Probe::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.pid");
        let first = PidFile::lock(&path).unwrap();
        let own = std::process::id();
        assert!(matches!(PidFile::lock(&path), Err(Locked::Running(Some(pid))) if pid == own));
        assert_eq!(probe(&path), Probe::Running(own));
        first.release();
        assert_eq!(probe(&path), Probe::Absent);
    }

    #[test]
    fn a_stale_pidfile_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.pid");
        std::fs::write(&path, "999999999\n and more that was there").unwrap();
        let held = PidFile::lock(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(held);
        assert_eq!(probe(&path), Probe::Stale(std::process::id()));
    }

    #[test]
    fn a_pidfile_that_was_replaced_while_it_was_locked_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.pid");
        let old = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!names(&path, &old).unwrap());
        std::fs::write(&path, "").unwrap();
        assert!(!names(&path, &old).unwrap());
    }
}
