//! Verdicts that the database cannot take yet. They are kept beside the queue's segments, in a file whose
//! space is reserved at the start: neither a full disk nor a restart has WeChat called a second time.
//!
//! ```text
//! CRC-32 of the object as 8 hexadecimal digits, a space, a JSON object, a line end
//! ```
//! One line is one acceptance of one message. A line that is out of date does no harm: its message is
//! done, and a requeued one has another number.

use crate::clock::Seldom;
use crate::config::Config;
use crate::file;
use crate::traffic::ledger::{Failure, Kept};
use crate::traffic::{most_workers, unrecorded};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that are reserved for each verdict; most take half of it, so that those of the last run have room too.
const LINE: usize = 512;

pub struct Verdicts {
    path: PathBuf,
    /// Failures that can be unrecorded at once.
    most: usize,
    /// None: it could not be opened.
    list: Option<List>,
    /// Of earlier runs: their messages have not come to be recorded yet.
    earlier: HashMap<u64, Kept>,
    /// So many failures of this run are kept, and those of earlier ones; None: not all of that.
    kept: Option<usize>,
    said: Seldom,
}

impl Verdicts {
    pub fn open(config: &Config) -> Verdicts {
        let path = config.server.queue_file_path.join("verdicts");
        Verdicts::at(path, unrecorded(most_workers(config.setting.task_worker_num)))
    }

    fn at(path: PathBuf, most: usize) -> Verdicts {
        let (list, earlier, kept, said) = (None, HashMap::new(), None, Seldom::default());
        let mut verdicts = Verdicts { path, most, list, earlier, kept, said };
        if let Some(earlier) = verdicts.reserve() {
            (verdicts.earlier, verdicts.kept) = (earlier, Some(0));
        }
        verdicts
    }

    /// Opens the file, and returns what it holds.
    fn reserve(&mut self) -> Option<HashMap<u64, Kept>> {
        match List::open(&self.path, self.most) {
            Ok((list, there)) => {
                self.list = Some(list);
                Some(there)
            }
            Err(error) => {
                if self.said.now() {
                    log::error!(
                        "cannot reserve {}: {error}; messages that fail while the ledger cannot be \
                         written are sent once more after a restart",
                        self.path.display()
                    );
                }
                None
            }
        }
    }

    /// The next start looks for it where it should be: what somebody took away is made anew.
    fn look(&mut self) {
        match &self.list {
            Some(list) if list.stands_at(&self.path) => return,
            Some(_) => log::error!(
                "{} was removed or replaced while it was in use; it is made anew, with all it has to keep",
                self.path.display()
            ),
            None => {}
        }
        self.list = None;
        self.kept = None;
        self.reserve();
    }

    /// Of earlier runs, by the number of the message.
    pub fn earlier(&self) -> &HashMap<u64, Kept> {
        &self.earlier
    }

    /// Keeps all failures there are, in case that this run does not see them recorded.
    pub fn keep(&mut self, failures: &[Failure]) {
        self.look();
        let Some(list) = &mut self.list else { return };
        if self.kept == Some(failures.len()) {
            return;
        }
        match list.write(failures, &self.earlier) {
            Ok(left_out) => {
                self.kept = Some(failures.len());
                if left_out > 0 {
                    log::error!(
                        "{left_out} failed messages find no room and may be sent once more"
                    );
                }
            }
            Err(error) => {
                log::error!("failed messages may be sent once more after a restart: {error}");
            }
        }
    }

    /// All failures there were are recorded.
    pub fn recorded(&mut self, failures: &[Failure]) {
        for failure in failures {
            self.earlier.remove(&failure.message.id());
        }
        self.kept = self.kept.map(|_| 0);
        if let Some(list) = self.list.as_mut().filter(|list| list.used > 0)
            && let Err(error) = list.write(&[], &self.earlier)
        {
            log::warn!("the verdicts of failed messages stay where they are not needed: {error}");
        }
    }
}

/// The file.
struct List {
    file: File,
    size: usize,
    /// So much of it may hold lines.
    used: usize,
}

impl List {
    /// `count`: failures that can be unrecorded at once.
    fn open(path: &Path, count: usize) -> io::Result<(List, HashMap<u64, Kept>)> {
        let mut file = file::open_own(path, OFlags::RDWR | OFlags::CREATE, 0o640)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let size = bytes.len().max(count * LINE);
        fallocate(&file, FallocateFlags::empty(), 0, size as u64)?;
        file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        let lines = bytes.split(|byte| *byte == b'\n');
        let earlier = lines.filter_map(decode).map(|kept| (kept.number, kept)).collect();
        let used = bytes.iter().rposition(|byte| !matches!(byte, 0 | b'\n'));
        Ok((List { file, size, used: used.map_or(0, |last| last + 1) }, earlier))
    }

    fn stands_at(&self, path: &Path) -> bool {
        let place = |found: io::Result<Metadata>| found.ok().map(|it| (it.dev(), it.ino()));
        place(self.file.metadata()) == place(std::fs::symlink_metadata(path))
    }

    /// Holds these and those of earlier runs, durably; returns how many find no room.
    fn write(&mut self, failures: &[Failure], earlier: &HashMap<u64, Kept>) -> io::Result<usize> {
        let now: Vec<Kept> = failures.iter().map(Failure::kept).collect();
        let again = |number: &u64| now.iter().any(|kept| kept.number == *number);
        let earlier = earlier.values().filter(|kept| !again(&kept.number));
        let (mut text, mut left_out) = (String::new(), 0);
        for kept in now.iter().chain(earlier) {
            let line = encode(kept);
            match text.len() + line.len() <= self.size {
                true => text += &line,
                false => left_out += 1,
            }
        }
        let lines = text.len();
        // Nothing is left of what stood behind them.
        let mut bytes = text.into_bytes();
        bytes.resize(lines.max(self.used), b'\n');
        self.used = bytes.len();
        self.file.write_all_at(&bytes, 0)?;
        self.file.sync_data()?;
        self.used = lines;
        Ok(left_out)
    }
}

fn encode(kept: &Kept) -> String {
    let object = serde_json::to_string(kept).expect("invariant: numbers and texts are JSON");
    format!("{:08x} {object}\n", crc32fast::hash(object.as_bytes()))
}

/// None for what is no whole line.
fn decode(line: &[u8]) -> Option<Kept> {
    let (check, object) = line.split_at_checked(9)?;
    let check = u32::from_str_radix(std::str::from_utf8(check).ok()?.trim_end(), 16).ok()?;
    (check == crc32fast::hash(object)).then(|| serde_json::from_slice(object).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::queue::{Message, New};
    use crate::traffic::job::Reason;

    fn failure(number: u64, text: &str) -> Failure {
        let new = New { openid: b"o", key: b"k", data: b"null" };
        let message = Message::in_memory(1, number, 5, new, b"");
        let reason = Reason { errcode: Some(43004), text: text.into(), answer: None };
        Failure::new(message, Class::Permanent, reason, 7, Some(3))
    }

    /// The numbers of what stands in the file.
    fn numbers(path: &Path) -> Vec<u64> {
        let (_, earlier) = List::open(path, 10).unwrap();
        let mut numbers: Vec<u64> = earlier.into_keys().collect();
        numbers.sort_unstable();
        numbers
    }

    fn open(path: &Path) -> Verdicts {
        Verdicts::at(path.to_owned(), 10)
    }

    #[test]
    fn what_somebody_takes_away_is_made_anew_with_all_it_has_to_keep() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts");
        open(&path).keep(&[failure(1, "of an earlier run")]);
        let mut verdicts = open(&path);
        let later = [failure(2, "second"), failure(3, "third")];
        for taken in 0..4 {
            match taken % 2 {
                0 => std::fs::remove_file(&path).unwrap(),
                _ => {
                    let other = folder.path().join("other");
                    std::fs::write(&other, "something else").unwrap();
                    std::fs::rename(&other, &path).unwrap();
                }
            }
            // There need be nothing new.
            verdicts.keep(&later[..taken / 2]);
            assert_eq!(numbers(&path), [1, 2, 3][..1 + taken / 2]);
            assert!(std::fs::metadata(&path).unwrap().len() >= 10 * LINE as u64);
        }
        // Where it cannot be, it is tried again.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        verdicts.keep(&later);
        std::fs::remove_dir(&path).unwrap();
        verdicts.keep(&later);
        assert_eq!(numbers(&path), [1, 2, 3]);
        verdicts.recorded(&later);
        assert_eq!(numbers(&path), [1]);
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start_until_it_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts");
        let both = [failure(1, "first"), failure(2, "second")];
        open(&path).keep(&both);
        assert_eq!(numbers(&path), [1, 2]);
        let mut verdicts = open(&path);
        assert_eq!(verdicts.earlier()[&2], both[1].kept());
        // Another failure does not take their place, and one that has come again is not there twice.
        let more = [failure(2, "second"), failure(3, "third")];
        verdicts.keep(&more);
        assert_eq!(numbers(&path), [1, 2, 3]);
        verdicts.recorded(&more);
        assert_eq!(numbers(&path), [1]);
        verdicts.recorded(&[failure(1, "first")]);
        assert!(numbers(&path).is_empty());
        verdicts.keep(&both);
        assert_eq!(numbers(&path), [1, 2]);
    }

    #[test]
    fn a_line_that_is_torn_is_none_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts");
        open(&path).keep(&[failure(1, "first"), failure(2, "x")]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(5).position(|text| text == b"first").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(numbers(&path), [2]);
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts");
        let failures: Vec<Failure> = (0..40).map(|n| failure(n, &"x".repeat(2_000))).collect();
        let (mut list, earlier) = List::open(&path, 10).unwrap();
        let left_out = list.write(&failures, &earlier).unwrap();
        assert!((1..40).contains(&left_out), "{left_out}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10 * LINE as u64);
        assert_eq!(numbers(&path).len(), 40 - left_out);
    }
}
