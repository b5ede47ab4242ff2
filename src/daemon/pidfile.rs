//! The pidfile: a lock that the kernel drops with the process, and the pid for whoever reads it. A
//! file without a lock is stale and no obstacle. What it says is believed only where the kernel says
//! the same: that this process, of the file's owner, holds the lock.

use super::process::Process;
use crate::file;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Uid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than any pid has.
const PID_TEXT: u64 = 64;

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
            Locked::Running(Some(pid)) => {
                write!(f, "another start was first: it is the process {pid}")
            }
            Locked::Running(None) => write!(f, "another start was first"),
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
            let flags = OFlags::RDWR | OFlags::CREATE;
            let mut file = file::open_own(path, flags, 0o644).map_err(failed)?;
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
            let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            let locked = PidFile { path: path.to_owned(), file };
            return match written {
                Ok(()) => Ok(locked),
                Err(error) => {
                    // A full disk: what is left of it says nothing.
                    let _ = locked.release();
                    Err(failed(error))
                }
            };
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_there(&self) -> bool {
        names(&self.path, &self.file).unwrap_or(false)
    }

    /// Removes the file, unless it is another's by now; where the folder does not allow that any more,
    /// empties it: a stale one is no obstacle.
    pub fn release(self) -> io::Result<()> {
        match self.is_there() {
            true => std::fs::remove_file(&self.path).or_else(|error| {
                self.file.set_len(0)?;
                Err(error)
            }),
            false => Ok(()),
        }
    }
}

/// The path leads to this very file.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_TEXT).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// What a pidfile says.
pub enum Probe {
    /// This process holds its lock.
    Running(Process),
    /// Nobody holds its lock; the process named in it is gone.
    Stale(u32),
    Absent,
    /// It cannot be read, or is not to be believed.
    Doubtful(String),
}

/// Looks without disturbing: a shared lock is tried and let go at once. A process that is not one of
/// these users' is not believed.
pub fn probe(path: &Path, trusted: &[Uid]) -> Probe {
    let shown = path.display();
    let doubt = |why: String| Probe::Doubtful(format!("the pidfile {shown}: {why}"));
    let mut file = match file::open(path, OFlags::RDONLY, 0) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Probe::Absent,
        Err(error) => return doubt(format!("cannot read it: {error}")),
    };
    let locked = flock(&file, FlockOperation::NonBlockingLockShared);
    match (locked, pid(&mut file)) {
        (Err(rustix::io::Errno::WOULDBLOCK), Some(pid)) => match holder(&file, pid, trusted) {
            Ok(process) => Probe::Running(process),
            // It may have ended between two looks.
            Err(_) if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() => {
                Probe::Stale(pid)
            }
            Err(why) => doubt(format!(
                "it is locked and names the process {pid}, which is not believed: {why}"
            )),
        },
        (Err(rustix::io::Errno::WOULDBLOCK), None) => {
            doubt("it is locked but names no process".into())
        }
        (Err(error), _) => doubt(error.to_string()),
        (Ok(()), Some(pid)) => Probe::Stale(pid),
        // Emptied by a daemon that could not remove it.
        (Ok(()), None) => Probe::Absent,
    }
}

/// The process, if it holds the file's lock and is its owner's.
pub(super) fn holder(file: &File, pid: u32, trusted: &[Uid]) -> Result<Process, String> {
    let said = file.metadata().map_err(|error| error.to_string())?;
    let owner = Uid::from_raw(said.uid());
    if !trusted.contains(&owner) {
        return Err(format!("the file belongs to the user {owner}"));
    }
    let locks = std::fs::read_to_string("/proc/locks");
    let locks = locks.map_err(|error| format!("cannot read /proc/locks: {error}"))?;
    if !locks.lines().any(|lock| is_lock(lock, pid, said.ino())) {
        return Err("another one holds the lock".into());
    }
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("it is no process id")?;
    Process::of(known, owner).map_err(|error| error.to_string())
}

/// `1: FLOCK  ADVISORY  WRITE 24616 fe:00:5694152 0 EOF` (proc_locks(5)). The device is not compared:
/// some file systems show another one here than in stat(2).
fn is_lock(line: &str, pid: u32, inode: u64) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, file, ..] = words.as_slice() else { return false };
    let held = file.rsplit(':').next().and_then(|number| number.parse().ok());
    holder.parse() == Ok(pid) && held == Some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.pid");
        let first = PidFile::lock(&path).unwrap();
        let own = std::process::id();
        assert!(matches!(PidFile::lock(&path), Err(Locked::Running(Some(pid))) if pid == own));
        let trusted = [rustix::process::geteuid()];
        let found = probe(&path, &trusted);
        assert!(matches!(found, Probe::Running(process) if process.pid == getpid()));
        assert!(matches!(probe(&path, &[]), Probe::Doubtful(why) if why.contains("belongs")));
        std::fs::write(&path, "1").unwrap();
        let named = probe(&path, &trusted);
        assert!(matches!(named, Probe::Doubtful(why) if why.contains("another one")));
        first.release().unwrap();
        assert!(matches!(probe(&path, &trusted), Probe::Absent));
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
        let own = std::process::id();
        assert!(matches!(probe(&path, &[]), Probe::Stale(pid) if pid == own));
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
