//! The log on stderr. Whoever reads it may be slow or stand still: then lines are refused instead of waiting,
//! because a thread that logs has other things to do. Where the journal reads it each line tells its severity.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::stdio;
use std::io;

/// How long a reader may need for the line before.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub struct Stderr {
    journal: bool,
    /// It did not take the last line.
    stuck: bool,
}

impl Stderr {
    pub fn find() -> Stderr {
        let stream = std::env::var("JOURNAL_STREAM").ok();
        Stderr { journal: stream.is_some_and(|stream| is_stderr(&stream)), stuck: false }
    }

    /// systemd's journal reads it, and writes down when.
    pub fn is_the_journal(&self) -> bool {
        self.journal
    }

    /// Of the severity, see sd-daemon(3).
    pub fn write(&mut self, severity: u8, line: &str) -> io::Result<()> {
        let line = match self.journal {
            true => format!("<{severity}>{line}\n"),
            false => format!("{line}\n"),
        };
        // Only the first line that is not taken is waited for.
        let patience = if self.stuck { &NONE } else { &PATIENCE };
        self.stuck = true;
        write_all(line.as_bytes(), patience)?;
        self.stuck = false;
        Ok(())
    }
}

/// A pipe that is ready takes as many bytes as a usual line has.
fn write_all(mut bytes: &[u8], patience: &Timespec) -> io::Result<()> {
    while !bytes.is_empty() {
        let stderr = stdio::stderr();
        let mut wanted = [PollFd::new(&stderr, PollFlags::OUT)];
        match poll(&mut wanted, Some(patience)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads it")),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match rustix::io::write(stderr, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// JOURNAL_STREAM names a file by device and inode, see systemd.exec(5); whoever started this process may have
/// led its stderr elsewhere since.
fn is_stderr(stream: &str) -> bool {
    let Ok(stat) = fstat(stdio::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_its_stream() {
        let stat = fstat(stdio::stderr()).unwrap();
        assert!(is_stderr(&format!("{}:{}", stat.st_dev, stat.st_ino)));
        assert!(!is_stderr(&format!("{}:{}", stat.st_dev, stat.st_ino + 1)));
        assert!(!is_stderr(""));
    }
}
