//! How far down the list messages have gone out: a number in a file of its own, written before they do and never
//! synced. What a process wrote outlives it, if not the machine: of those whom the journal lets go out ahead of time,
//! only who did is in doubt after a kill. Once the machine was started anew the number says nothing.

use crate::clock::Moment;
use crate::task::journal::State;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Its name in the task's folder.
const FILE: &str = "reach";

/// What is said where it cannot be kept.
pub fn failed(error: io::Error) -> String {
    format!("the task's file {FILE}: {error} (check the disk and the folder's owner)")
}

pub struct Reach {
    file: File,
    /// Nobody from there on has ever been out.
    end: u64,
    written: u64,
}

impl Reach {
    /// That of a task whose journal has this state. Written anew before the journal is of this start of the machine.
    pub fn open(folder: &Path, state: &State, now: &Moment) -> io::Result<Reach> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(folder.join(FILE))?;
        let mut bytes = [0; 8];
        let end = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) if now.is_of_the_start_of(&state.changed) => u64::from_le_bytes(bytes),
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
            // All whom the journal has let go out may be.
            _ => state.next,
        };
        file.write_all_at(&end.to_le_bytes(), 0)?;
        Ok(Reach { file, end, written: end })
    }

    /// Whether this one may have been out.
    pub fn covers(&self, index: u64) -> bool {
        index < self.end
    }

    /// This one is about to go out.
    pub fn extend(&mut self, index: u64) {
        self.end = self.end.max(index + 1);
    }

    /// To be called before a message goes out.
    pub fn keep(&mut self) -> io::Result<()> {
        if self.written < self.end {
            self.file.write_all_at(&self.end.to_le_bytes(), 0)?;
            self.written = self.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_was_out_until_the_machine_is_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let moment = |boot: &str| Moment { boot: Some(boot.into()), uptime: 1, unix: 1 };
        let mut state = State { changed: moment("a"), ..State::new(9) };
        let open = |state: &State, boot| Reach::open(folder.path(), state, &moment(boot)).unwrap();
        let covered = |reach: &Reach| (0..9).filter(|index| reach.covers(*index)).count();
        assert_eq!(covered(&open(&state, "a")), 0, "a new task");
        state.next = 8;
        let mut reach = open(&state, "a");
        reach.extend(3);
        reach.extend(1);
        reach.keep().unwrap();
        reach.extend(5);
        assert_eq!(covered(&open(&state, "a")), 4, "what was not kept was not sent");
        assert_eq!(covered(&open(&state, "b")), 8);
        // The journal was not written in that start.
        assert_eq!(covered(&open(&state, "c")), 8);
        state.changed = moment("c");
        assert_eq!(covered(&open(&state, "c")), 8);
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        state.next = 7;
        assert_eq!(covered(&open(&state, "c")), 7);
    }
}
