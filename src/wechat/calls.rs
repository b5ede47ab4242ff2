//! The calls for a token, kept over restarts in a file beside the queue's segments: the day's count, and when the
//! last one went out. No token and no secret is in it. Written by whichever thread makes a call, before it does.

use crate::clock::Seldom;
use crate::file;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The name of the file.
const CALLS: &str = "token-calls";

/// The longest file that is read.
const LONGEST: u64 = 4 * 1024;

/// The calls of one account; times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    pub app_id: String,
    /// WeChat's day, and the calls in it.
    pub day: u64,
    pub count: u64,
    /// Zero: never.
    pub last: u64,
    /// The last one with force_refresh.
    pub forced: u64,
}

pub struct CallsFile {
    path: PathBuf,
    said: Mutex<Seldom>,
}

impl CallsFile {
    pub fn in_folder(folder: &Path) -> CallsFile {
        CallsFile { path: folder.join(CALLS), said: Mutex::default() }
    }

    /// Those of this account; none that cannot be read: messages do not wait for that.
    pub fn read(&self, app_id: &str) -> Option<Calls> {
        let read = file::read(&self.path, LONGEST);
        let calls = read.and_then(|text| Ok(serde_json::from_slice::<Calls>(&text)?));
        match calls {
            Ok(calls) => Some(calls).filter(|calls| calls.app_id == app_id),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display();
                log::warn!("{path}: {error}; the day's calls for a token are counted from here");
                None
            }
        }
    }

    pub fn write(&self, calls: &Calls) {
        let text = serde_json::to_vec(calls).expect("invariant: numbers and texts are JSON");
        if let Err(error) = file::replace(&self.path, |file| file.write_all(&text))
            && self.said.lock().now()
        {
            log::warn!(
                "cannot keep when WeChat was last asked for a token: {}: {error} (see server.queue_file_path)",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_an_account_are_there_again_and_those_of_another_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = CallsFile::in_folder(folder.path());
        assert_eq!(file.read("wx1"), None);
        let calls = Calls { app_id: "wx1".into(), day: 7, count: 3, last: 9, forced: 0 };
        file.write(&calls);
        assert_eq!((file.read("wx1"), file.read("wx2")), (Some(calls), None));
        for text in ["", "{}", "null", &"x".repeat(9_000)] {
            std::fs::write(folder.path().join(CALLS), text).unwrap();
            assert_eq!(file.read("wx1"), None, "{text}");
        }
        CallsFile::in_folder(Path::new("/nowhere")).write(&Calls::default());
    }
}
