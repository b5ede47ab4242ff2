//! The failed list: one JSON line for every push that ends without being delivered, in a dated
//! file beside the log. Written by the spool before the message is marked done.

use crate::queue::Message;
use crate::traffic::job::Reason;
use serde_json::json;
use serde_json::value::RawValue;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What stands between the log's name and the date.
const MARK: &str = "-failed-";
const ENDING: &str = ".jsonl";

/// Every file of the failed list that is kept beside the log, the oldest first.
pub fn files(log_file: &Path) -> io::Result<Vec<PathBuf>> {
    let stem = log_file.file_stem().unwrap_or_default().to_string_lossy().into_owned() + MARK;
    let folder = log_file.parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&stem) && name.ends_with(ENDING) {
            files.push(folder.join(name));
        }
    }
    files.sort_unstable();
    Ok(files)
}

pub struct FailedList {
    log_file: PathBuf,
    open: Option<(String, File)>,
}

impl FailedList {
    /// `log_file` as configured: `/x/mega.log` makes `/x/mega-failed-2026-11-23.jsonl`.
    pub fn beside(log_file: &Path) -> FailedList {
        FailedList { log_file: log_file.to_owned(), open: None }
    }

    pub fn write(&mut self, message: &Message, reason: &Reason) -> io::Result<()> {
        let now = chrono::Local::now();
        let data = std::str::from_utf8(message.data()).unwrap_or_default();
        let data: Option<&RawValue> = serde_json::from_str(data).ok();
        let mut line = json!({
            "time": now.format("%Y-%m-%d %H:%M:%S").to_string(),
            "openid": String::from_utf8_lossy(message.openid()),
            "key": String::from_utf8_lossy(message.key()),
            "data": data,
            "attempts": message.attempts(),
            "errcode": reason.errcode,
            "errmsg": reason.text,
            "client_msg_id": message.client_msg_id().as_str(),
        })
        .to_string();
        line.push('\n');
        // One write, so that a line is whole or not there.
        self.file(now.format("%Y-%m-%d").to_string())?.write_all(line.as_bytes())
    }

    fn file(&mut self, day: String) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open_day, _)| *open_day != day) {
            let stem = self.log_file.file_stem().unwrap_or_default().to_string_lossy();
            let path = self.log_file.with_file_name(format!("{stem}{MARK}{day}{ENDING}"));
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
            self.open = Some((day, file));
        }
        let (_, file) = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }
}
