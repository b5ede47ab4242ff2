//! A file a day, appended to: `/x/mega.log` as configured is `/x/mega-2026-11-23.log` on that day.
//! Keeps so many of them, begins a new one when the one it writes was moved or removed, and counts
//! what it cannot write. Never waits; used by whoever writes a log.

use crate::file;
use chrono::NaiveDate;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it is looked whether the file is still where it was.
const GLANCE: Duration = Duration::from_secs(1);

/// How often it was said that files were moved away.
static MOVED: AtomicU64 = AtomicU64::new(0);

/// The files were moved away: the next line of each log opens a new one.
pub fn reopen_all() {
    MOVED.fetch_add(1, Ordering::Relaxed);
}

pub struct DayFile {
    path: PathBuf,
    max_files: usize,
    day: NaiveDate,
    file: Option<File>,
    missing: u64,
    /// Lines that were missing at any time.
    lost: u64,
    why: String,
    looked: Instant,
    moved: u64,
}

impl DayFile {
    /// `path` as configured; of its days `max_files` are kept, all if it is 0.
    pub fn open(path: PathBuf, max_files: usize, day: NaiveDate) -> io::Result<DayFile> {
        let file = file::append(&dated(&path, day))?;
        let opened = DayFile {
            path,
            max_files,
            day,
            file: Some(file),
            missing: 0,
            lost: 0,
            why: String::new(),
            looked: Instant::now(),
            moved: MOVED.load(Ordering::Relaxed),
        };
        opened.remove_old();
        Ok(opened)
    }

    /// Writes so many whole lines; those that cannot be written are counted, and the next ones that
    /// can come after a line that says how many.
    pub fn write(&mut self, day: NaiveDate, bytes: &[u8], lines: u64) {
        let caught_up = self.catch_up(day);
        if let Err(error) = caught_up.and_then(|()| self.try_write(day, bytes)) {
            self.count(lines);
            self.why = error.to_string();
        }
    }

    /// Says how many lines are missing, if any are.
    pub fn catch_up(&mut self, day: NaiveDate) -> io::Result<()> {
        if self.missing > 0 {
            let lines = self.missing;
            let note = format!("# {lines} lines before this one could not be written\n");
            self.try_write(day, note.as_bytes())?;
            self.missing = 0;
        }
        Ok(())
    }

    /// Writes whole lines, or nothing.
    pub fn try_write(&mut self, day: NaiveDate, bytes: &[u8]) -> io::Result<()> {
        if day != self.day || self.file.is_none() || self.is_moved() {
            self.file = None;
            let opened = file::append(&dated(&self.path, day));
            if day != self.day {
                self.day = day;
                self.remove_old();
            }
            self.file = Some(opened?);
        }
        self.file.as_mut().map_or(Ok(()), |file| append(file, bytes))
    }

    /// The file of the day.
    pub fn current(&self) -> PathBuf {
        dated(&self.path, self.day)
    }

    /// Lines that somebody else could not hand over.
    pub fn miss(&mut self, lines: u64) {
        if lines > 0 {
            self.count(lines);
            self.why = "they came faster than the disk takes them".to_owned();
        }
    }

    fn count(&mut self, lines: u64) {
        self.missing += lines;
        self.lost += lines;
    }

    /// Lines that could not be written, since it was opened.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Lines that have not found their way into it, or a note of how many, and why.
    pub fn trouble(&self) -> Option<String> {
        let Self { missing, why, .. } = self;
        let file = self.current();
        (*missing > 0)
            .then(|| format!("{missing} lines could not be written to {}: {why}", file.display()))
    }

    fn is_moved(&mut self) -> bool {
        let moved = MOVED.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.moved, moved) != moved {
            return true;
        }
        if self.looked.elapsed() < GLANCE {
            return false;
        }
        self.looked = Instant::now();
        let ours = self.file.as_ref().and_then(|file| file.metadata().ok());
        let there = std::fs::metadata(dated(&self.path, self.day)).ok();
        let place = |of: std::fs::Metadata| (of.dev(), of.ino());
        ours.map(place) != there.map(place)
    }

    /// Keeps the newest files, judged by the dates in their names.
    fn remove_old(&self) {
        if self.max_files == 0 {
            return;
        }
        let Ok(days) = days(&self.path) else { return };
        for day in days.iter().rev().skip(self.max_files) {
            // A file that cannot be removed today is tried again tomorrow.
            let _ = std::fs::remove_file(dated(&self.path, *day));
        }
    }
}

/// Appends everything or nothing: half a line would run into the next one.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let error = match file.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                rest = &rest[count..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let written = (bytes.len() - rest.len()) as u64;
        if written > 0 {
            let length = file.metadata()?.len();
            file.set_len(length.saturating_sub(written))?;
        }
        return Err(error);
    }
    Ok(())
}

/// The days of which there is a file, the oldest first.
pub fn days(path: &Path) -> io::Result<Vec<NaiveDate>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder)?;
    let mut days: Vec<NaiveDate> =
        entries.flatten().filter_map(|entry| day_of(path, &entry.path())).collect();
    days.sort_unstable();
    Ok(days)
}

/// `/x/mega.log` → `/x/mega-2026-11-23.log`.
pub fn dated(path: &Path, day: NaiveDate) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    path.with_file_name(format!("{stem}-{day}{}", ending.unwrap_or_default()))
}

fn day_of(path: &Path, file: &Path) -> Option<NaiveDate> {
    let stem = file.file_stem()?.to_str()?;
    let day: NaiveDate = stem.get(stem.len().checked_sub(10)?..)?.parse().ok()?;
    (dated(path, day) == file).then_some(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_day_begins_a_new_file_and_removes_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.log");
        let others =
            ["mega-2026-11-0x.log", "mega-messages-2026-11-01.log", "other-2026-11-01.log"];
        for kept in others {
            std::fs::write(folder.path().join(kept), "").unwrap();
        }
        let mut file = DayFile::open(path.clone(), 2, day("2026-11-23")).unwrap();
        for today in ["2026-11-23", "2026-11-24", "2026-11-25"] {
            file.write(day(today), b"line\n", 1);
        }
        assert_eq!(days(&path).unwrap(), [day("2026-11-24"), day("2026-11-25")]);
        assert!(others.iter().all(|kept| folder.path().join(kept).exists()));
    }

    #[test]
    fn a_file_that_is_gone_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.log");
        let today = day("2026-11-23");
        let mut file = DayFile::open(path.clone(), 2, today).unwrap();
        std::fs::remove_file(dated(&path, today)).unwrap();
        file.looked -= GLANCE;
        file.write(today, b"one\n", 1);
        std::fs::rename(dated(&path, today), folder.path().join("elsewhere")).unwrap();
        reopen_all();
        file.write(today, b"two\n", 1);
        assert_eq!(std::fs::read_to_string(folder.path().join("elsewhere")).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(dated(&path, today)).unwrap(), "two\n");
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_in_the_next_that_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mega.log");
        let today = day("2026-11-23");
        let mut file = DayFile::open(path.clone(), 2, today).unwrap();
        file.file = Some(File::open("/dev/null").unwrap());
        file.write(today, b"one\ntwo\n", 2);
        file.miss(1);
        file.file = None;
        file.write(today, b"four\n", 1);
        let text = std::fs::read_to_string(dated(&path, today)).unwrap();
        assert_eq!(text, "# 3 lines before this one could not be written\nfour\n");
        assert_eq!((file.lost(), file.trouble()), (3, None), "they stay lost");
    }
}
