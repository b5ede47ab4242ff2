//! Where a list comes from, and what kind of file it is: its first bytes say so, never its name. It is read more
//! than once, so what comes through a pipe is copied into the task's folder first.

use super::error::ListError;
use super::scratch;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// What the user named.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    File(&'a Path),
    Stdin,
}

pub struct Source {
    pub file: File,
    /// For what is said of it.
    pub path: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A zip, as xlsx is one.
    Xlsx,
}

impl Source {
    pub fn open(input: Input, folder: &Path) -> Result<Source, ListError> {
        let Input::File(path) = input else {
            return copy(&mut io::stdin().lock(), Path::new("-"), folder);
        };
        let unreadable = |error| ListError::unreadable(path, &error);
        let mut file = File::open(path).map_err(unreadable)?;
        let kind = file.metadata().map_err(unreadable)?.file_type();
        match kind {
            kind if kind.is_file() => Ok(Source { file, path: path.to_owned() }),
            kind if kind.is_dir() => {
                let path = path.display();
                Err(ListError::new([
                    format!("{path} is a folder; name the file that has the list"),
                    format!("{path} 是目录，请指定名单文件"),
                ]))
            }
            _ => copy(&mut file, path, folder),
        }
    }

    pub fn kind(&mut self) -> Result<Kind, ListError> {
        let unreadable = |error| ListError::unreadable(&self.path, &error);
        let mut begin = Vec::new();
        (&self.file).take(8).read_to_end(&mut begin).map_err(unreadable)?;
        self.file.rewind().map_err(unreadable)?;
        match &begin[..] {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Ok(Kind::Xlsx),
            // The compound files of Office before 2007, and of workbooks with a password.
            [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1] => {
                let path = self.path.display();
                Err(ListError::new([
                    format!(
                        "{path} is an .xls or has a password; save it as xlsx or CSV without one"
                    ),
                    format!("{path} 是 .xls 或带密码的文件，请另存为不带密码的 xlsx 或 CSV"),
                ]))
            }
            _ => Ok(Kind::Text),
        }
    }
}

/// What can be read once only, into a file that can be read again.
fn copy(from: &mut dyn Read, path: &Path, folder: &Path) -> Result<Source, ListError> {
    let unwritable = |error| ListError::unwritable(folder, &error);
    let mut file = scratch::file(folder).map_err(unwritable)?;
    io::copy(from, &mut file).map_err(unwritable)?;
    file.rewind().map_err(unwritable)?;
    Ok(Source { file, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_copied_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = copy(&mut &b"o1\n"[..], Path::new("-"), folder.path()).unwrap();
        assert_eq!(source.kind(), Ok(Kind::Text));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut text = String::new();
        source.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "o1\n");
        let open = |path: &Path| Source::open(Input::File(path), folder.path());
        assert!(open(Path::new("/dev/null")).is_ok());
        let error = open(folder.path()).err().unwrap();
        assert!(error.to_string().contains("is a folder"), "{error}");
        let missing = open(&folder.path().join("none.csv")).err().unwrap();
        assert!(missing.to_string().contains("cannot read the list"), "{missing}");
    }

    #[test]
    fn the_first_bytes_say_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let kind =
            |bytes: &[u8]| copy(&mut &bytes[..], Path::new("l"), folder.path()).unwrap().kind();
        assert_eq!(kind(b"PK\x03\x04"), Ok(Kind::Xlsx));
        assert_eq!(kind(b"PKo1\n"), Ok(Kind::Text));
        assert_eq!(kind(b""), Ok(Kind::Text));
        let error = kind(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1").unwrap_err();
        assert!(error.to_string().contains("is an .xls or has a password"), "{error}");
    }
}
