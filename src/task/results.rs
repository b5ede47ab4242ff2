//! The result file: CSV as spreadsheet programs open it, one line for each person who is answered. Written by the
//! clerk's thread; its length is kept in the journal (J1), and what is beyond that is cut off by the next run.

use super::event::Status;
use super::plan::Encoding;
use encoding_rs::GBK;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEADER: &str = "line,openid,status,errcode,errmsg,meaning,msgid,time\r\n";

/// Excel takes a file without it for one in the machine's own encoding.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What became of one person.
pub struct Row<'a> {
    pub line: u64,
    pub openid: &'a str,
    pub status: Status,
    pub errcode: Option<i64>,
    pub errmsg: &'a str,
    pub meaning: &'a str,
    /// RFC 3339.
    pub time: &'a str,
}

/// Appends a row; mega's answer to what was sent names no msgid, so its column stays empty.
pub fn put(out: &mut String, row: &Row) {
    write!(out, "{},", row.line).expect("invariant: writing to a String does not fail");
    cell(out, row.openid);
    out.push(',');
    out.push_str(row.status.name());
    out.push(',');
    // A number is no formula, even below zero.
    if let Some(errcode) = row.errcode {
        write!(out, "{errcode}").expect("invariant: writing to a String does not fail");
    }
    out.push(',');
    cell(out, row.errmsg);
    out.push(',');
    cell(out, row.meaning);
    out.push_str(",,");
    out.push_str(row.time);
    out.push_str("\r\n");
}

/// A cell, quoted where it must be. One that a spreadsheet program would take for a formula begins with an
/// apostrophe.
fn cell(out: &mut String, text: &str) {
    let guarded = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = text.contains(['"', ',', '\r', '\n']);
    if quoted {
        out.push('"');
    }
    if guarded {
        out.push('\'');
    }
    match quoted {
        true => {
            for piece in text.split_inclusive('"') {
                out.push_str(piece);
                if piece.ends_with('"') {
                    out.push('"');
                }
            }
            out.push('"');
        }
        false => out.push_str(text),
    }
}

pub struct Results {
    file: File,
    path: PathBuf,
    encoding: Encoding,
    bytes: u64,
}

impl Results {
    /// A new file, or one that goes on after `bytes`.
    pub fn open(path: &Path, encoding: Encoding, bytes: u64) -> Result<Results, String> {
        let failed = |error: io::Error| {
            format!(
                "cannot write the result file {}: {error} (--result FILE names another)",
                path.display()
            )
        };
        let mut options = OpenOptions::new();
        let (file, bytes) = match bytes {
            // Somebody else's file is never written over.
            0 => match options.write(true).create_new(true).open(path) {
                Ok(file) => (file, 0),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && own_beginning(path) =>
                {
                    (OpenOptions::new().write(true).open(path).map_err(failed)?, 0)
                }
                Err(error) => return Err(failed(error)),
            },
            bytes => match OpenOptions::new().write(true).open(path) {
                Ok(file) => (file, bytes),
                // It was moved away: what follows goes into a new one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    (options.write(true).create_new(true).open(path).map_err(failed)?, 0)
                }
                Err(error) => return Err(failed(error)),
            },
        };
        let found = file.metadata().map_err(failed)?.len();
        if found < bytes {
            return Err(format!(
                "the result file {} has {found} bytes where the task wrote {bytes}: move it away, and the task goes \
                 on with a new one",
                path.display()
            ));
        }
        let mut results = Results { file, path: path.to_owned(), encoding, bytes };
        results.cut().map_err(failed)?;
        if bytes == 0 {
            let mark = if encoding == Encoding::Utf8 { MARK } else { b"" };
            results.write([mark, HEADER.as_bytes()].concat().as_slice())?;
        }
        Ok(results)
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }

    /// Writes rows, and returns when they are on the disk.
    pub fn keep(&mut self, rows: &str) -> Result<(), String> {
        if rows.is_empty() {
            return Ok(());
        }
        let bytes = match self.encoding {
            Encoding::Utf8 => Cow::Borrowed(rows.as_bytes()),
            Encoding::Gbk => encode_gbk(rows),
        };
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What was written of it is cut off by the next run, if not now.
                let _ = self.cut();
                Err(format!("cannot write the result file {}: {error}", self.path.display()))
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Characters that GBK lacks become question marks: a number would be taken for what WeChat said.
fn encode_gbk(text: &str) -> Cow<'_, [u8]> {
    let (bytes, _, lossy) = GBK.encode(text);
    if !lossy {
        return bytes;
    }
    let has = |c: char| !GBK.encode(c.encode_utf8(&mut [0; 4])).2;
    let plain: String = text.chars().map(|c| if has(c) { c } else { '?' }).collect();
    GBK.encode(&plain).0.into_owned().into()
}

/// A file that holds no more than the header: a run that was killed before its first answer.
fn own_beginning(path: &Path) -> bool {
    let header = HEADER.as_bytes();
    let longest = (MARK.len() + header.len()) as u64;
    crate::file::read(path, longest).is_ok_and(|found| {
        [MARK, header].concat().starts_with(&found) || header.starts_with(&found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(errcode: Option<i64>, openid: &str, errmsg: &str) -> String {
        let mut out = String::new();
        let status = if errcode.is_some() { Status::Failed } else { Status::Sent };
        let (meaning, time) = ("含义", "2026-11-11T00:00:00+08:00");
        put(&mut out, &Row { line: 7, openid, status, errcode, errmsg, meaning, time });
        out
    }

    #[test]
    fn no_cell_is_taken_for_a_formula_or_for_two() {
        let time = "含义,,2026-11-11T00:00:00+08:00\r\n";
        assert_eq!(row(None, "o1", ""), format!("7,o1,sent,,,{time}"));
        assert_eq!(row(Some(-1), "-o", "=1+1"), format!("7,'-o,failed,-1,'=1+1,{time}"));
        let told = row(Some(5), "@x", "=a,\"b\"\r\n");
        assert_eq!(told, format!("7,'@x,failed,5,\"'=a,\"\"b\"\"\r\n\",{time}"));
    }

    #[test]
    fn what_the_journal_does_not_know_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        let mut results = Results::open(&path, Encoding::Utf8, 0).unwrap();
        results.keep("a\r\n").unwrap();
        let known = results.bytes();
        results.keep("b\r\n").unwrap();
        drop(results);
        let mut results = Results::open(&path, Encoding::Utf8, known).unwrap();
        results.keep("c\r\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("\u{feff}{HEADER}a\r\nc\r\n"));
        std::fs::write(&path, "x").unwrap();
        assert!(Results::open(&path, Encoding::Utf8, known).err().unwrap().contains("has 1 bytes"));
        std::fs::remove_file(&path).unwrap();
        assert!(Results::open(&path, Encoding::Utf8, known).unwrap().bytes() > 3);
    }

    #[test]
    fn a_file_of_somebody_else_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        drop(Results::open(&path, Encoding::Utf8, 0).unwrap());
        drop(Results::open(&path, Encoding::Utf8, 0).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(Results::open(&path, Encoding::Utf8, 0).is_err());
    }

    #[test]
    fn gbk_holds_what_it_can() {
        assert_eq!(&*encode_gbk("用户"), b"\xd3\xc3\xbb\xa7");
        assert_eq!(&*encode_gbk("a😀用"), b"a?\xd3\xc3");
    }
}
