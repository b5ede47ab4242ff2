//! The file in a task's folder that keeps its people: a line of JSON each, `[line, "openid", {variables}]`, in the
//! order in which they are sent to. Written once, then only read, from any line's beginning.

use super::Person;
use serde_json::value::RawValue;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The name of the file, and of what is to become it.
const LIST: &str = "list";
const PART: &str = "list.part";
/// That without duplicates.
const THINNED: &str = "list.thinned";

/// Writes the people of a task. The file is there under its name when all of them are in it, and not before.
pub struct Keeper {
    folder: PathBuf,
    file: BufWriter<File>,
}

impl Keeper {
    pub fn create(folder: &Path) -> io::Result<Keeper> {
        let file = BufWriter::new(File::create(folder.join(PART))?);
        Ok(Keeper { folder: folder.to_owned(), file })
    }

    pub fn keep(&mut self, person: &Person) -> io::Result<()> {
        let data = if person.data.is_empty() { "{}" } else { &person.data };
        let data: &RawValue = serde_json::from_str(data)?;
        serde_json::to_writer(&mut self.file, &(person.line, &person.openid, data))?;
        self.file.write_all(b"\n")
    }

    /// All of them are on the disk.
    pub fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        settle(&file, &self.folder, PART)
    }

    /// As `finish`, but leaves some of them out: `drop` is asked for each by its number, the first being 0, and may
    /// ask for the openid.
    pub fn finish_without(
        mut self,
        mut drop: impl FnMut(u64, &dyn Fn() -> io::Result<String>) -> io::Result<bool>,
    ) -> io::Result<()> {
        self.file.flush()?;
        let mut all = BufReader::new(File::open(self.folder.join(PART))?);
        let mut rest = BufWriter::new(File::create(self.folder.join(THINNED))?);
        let mut text = String::new();
        for number in 0.. {
            text.clear();
            if all.read_line(&mut text)? == 0 {
                break;
            }
            let openid = || Ok(serde_json::from_str::<Line>(&text)?.1);
            if !drop(number, &openid)? {
                rest.write_all(text.as_bytes())?;
            }
        }
        let rest = rest.into_inner().map_err(io::IntoInnerError::into_error)?;
        settle(&rest, &self.folder, THINNED)?;
        fs::remove_file(self.folder.join(PART))
    }
}

/// Makes the file the list.
fn settle(file: &File, folder: &Path, name: &str) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(folder.join(name), folder.join(LIST))?;
    crate::file::sync(folder)
}

/// As it stands in the file.
type Line<'a> = (u64, String, &'a RawValue);

/// Reads the people of a task.
pub struct Kept {
    file: BufReader<File>,
    offset: u64,
    text: String,
}

impl Kept {
    /// `offset`: where a line begins, as `Kept::offset` told it; 0: the first.
    pub fn open(folder: &Path, offset: u64) -> io::Result<Kept> {
        let mut file = File::open(folder.join(LIST))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Kept { file: BufReader::new(file), offset, text: String::new() })
    }

    /// Where the next one's line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The one whose line begins there.
    pub fn at(&mut self, offset: u64) -> io::Result<Person> {
        self.file.seek_relative(offset as i64 - self.offset as i64)?;
        self.offset = offset;
        let ended =
            || io::Error::new(io::ErrorKind::UnexpectedEof, "it ends before its last person");
        self.person()?.ok_or_else(ended)
    }

    /// The next one; none after the last.
    pub fn person(&mut self) -> io::Result<Option<Person>> {
        self.text.clear();
        let length = self.file.read_line(&mut self.text)?;
        if length == 0 {
            return Ok(None);
        }
        let (line, openid, data): Line = serde_json::from_str(&self.text)?;
        let data = if data.get() == "{}" { String::new() } else { data.get().to_owned() };
        self.offset += length as u64;
        Ok(Some(Person { line, openid, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_back_in_their_order_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let person =
            |line, data: &str| Person { line, openid: format!("o{line}"), data: data.into() };
        let people = [person(1, ""), person(3, r#"{"k":"一\n"}"#), person(4, "")];
        let mut keeper = Keeper::create(folder.path()).unwrap();
        people.iter().for_each(|person| keeper.keep(person).unwrap());
        assert!(Kept::open(folder.path(), 0).is_err());
        keeper.finish().unwrap();
        let mut kept = Kept::open(folder.path(), 0).unwrap();
        let mut offsets = Vec::new();
        for person in &people {
            offsets.push(kept.offset());
            assert_eq!(kept.person().unwrap().as_ref(), Some(person));
        }
        assert_eq!(kept.person().unwrap(), None);
        for (person, offset) in people.iter().zip(offsets) {
            let next = Kept::open(folder.path(), offset).unwrap().person().unwrap();
            assert_eq!(next.as_ref(), Some(person));
        }
    }
    #[test]
    fn some_of_them_may_be_left_out_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::create(folder.path()).unwrap();
        for line in 0..100 {
            let (openid, data) = (format!("o{line}"), String::new());
            keeper.keep(&Person { line, openid, data }).unwrap();
        }
        let odd = |number, openid: &dyn Fn() -> io::Result<String>| {
            assert_eq!(openid()?, format!("o{number}"));
            Ok(number % 2 == 1)
        };
        keeper.finish_without(odd).unwrap();
        let mut kept = Kept::open(folder.path(), 0).unwrap();
        for line in (0..100).step_by(2) {
            assert_eq!(kept.person().unwrap().unwrap().line, line);
        }
        assert_eq!(kept.person().unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
