//! Whether an operator has paused sending: kept in a file beside the segments, so that it survives every end.
//! Part of the spool's state; knows neither messages nor threads.

use crate::file;
use crate::traffic::steer::Paused;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The name of the file.
const PAUSED: &str = "paused";

/// The longest file that is read.
const LONGEST: u64 = 64 * 1024;

pub struct Pause {
    path: PathBuf,
    paused: Option<Paused>,
}

impl Pause {
    /// What cannot be read means paused: whoever paused had a reason, and one order goes on from here.
    pub fn open(folder: &Path, now: u64) -> Pause {
        let path = folder.join(PAUSED);
        let paused = read(&path).unwrap_or_else(|error| {
            let why = format!("the file {} cannot be read: {error}", path.display());
            Some(Paused { by: "mega".into(), why, since: now })
        });
        Pause { path, paused }
    }

    pub fn now(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    /// Returns how it was before, and why it will not survive the daemon's end, if it cannot be kept.
    pub fn begin(&mut self, paused: Paused) -> (Option<Paused>, io::Result<()>) {
        let text = serde_json::to_vec(&paused).map_err(io::Error::other);
        let kept = text.and_then(|text| file::replace(&self.path, |file| file.write_all(&text)));
        (self.paused.replace(paused), kept)
    }

    /// Returns how it was before. What cannot be forgotten goes on.
    pub fn end(&mut self) -> io::Result<Option<Paused>> {
        if self.paused.is_some() {
            file::remove(&self.path)?;
        }
        Ok(self.paused.take())
    }
}

fn read(path: &Path) -> io::Result<Option<Paused>> {
    match file::read(path, LONGEST) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(why: &str) -> Paused {
        Paused { by: "ann".into(), why: why.into(), since: 7 }
    }

    #[test]
    fn a_pause_is_there_at_the_next_start_until_it_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Pause::open(folder.path(), 9);
        assert_eq!(open().now(), None);
        let (before, kept) = open().begin(paused("first"));
        assert!(before.is_none() && kept.is_ok());
        let mut pause = open();
        assert_eq!(pause.now(), Some(&paused("first")));
        let (before, _) = pause.begin(paused("second"));
        assert_eq!((before, open().now()), (Some(paused("first")), Some(&paused("second"))));
        assert_eq!(pause.end().unwrap(), Some(paused("second")));
        assert_eq!(pause.end().unwrap(), None);
        assert_eq!(open().now(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_read_means_paused_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PAUSED);
        for text in ["", "{\"by\":\"ann\"", "null", &"x".repeat(70_000)] {
            std::fs::write(&path, text).unwrap();
            let mut pause = Pause::open(folder.path(), 9);
            let now = pause.now().unwrap();
            assert!(now.why.contains("paused cannot be read") && now.since == 9, "{}", now.why);
            pause.end().unwrap();
            assert_eq!(Pause::open(folder.path(), 9).now(), None);
        }
    }

    #[test]
    fn what_cannot_be_kept_holds_until_the_end_and_what_cannot_be_forgotten_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut pause = Pause::open(&folder.path().join("gone"), 9);
        let (_, kept) = pause.begin(paused("first"));
        assert!(kept.is_err() && pause.now().is_some());
        std::fs::create_dir_all(folder.path().join("gone").join(PAUSED)).unwrap();
        assert!(pause.end().is_err());
        assert_eq!(pause.now(), Some(&paused("first")));
    }
}
