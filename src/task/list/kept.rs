//! The file in a task's folder that keeps its people: a line of JSON each, `[line, "openid", {variables}]`, in the
//! order in which they are sent to. Written once, then only read, from any line's beginning.

use super::Person;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// The name of the file.
const LIST: &str = "list";

/// Writes the people of a task.
pub struct Keeper {
    file: BufWriter<File>,
}

impl Keeper {
    pub fn create(folder: &Path) -> io::Result<Keeper> {
        Ok(Keeper { file: BufWriter::new(File::create(folder.join(LIST))?) })
    }

    pub fn keep(&mut self, person: &Person) -> io::Result<()> {
        let data = if person.data.is_empty() { "{}" } else { &person.data };
        let data: &RawValue = serde_json::from_str(data)?;
        serde_json::to_writer(&mut self.file, &(person.line, &person.openid, data))?;
        self.file.write_all(b"\n")
    }

    /// All of them are on the disk.
    pub fn finish(self) -> io::Result<()> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

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

    /// None after the last.
    pub fn next(&mut self) -> io::Result<Option<Person>> {
        self.text.clear();
        let length = self.file.read_line(&mut self.text)?;
        if length == 0 {
            return Ok(None);
        }
        let (line, openid, data): (u64, String, &RawValue) = serde_json::from_str(&self.text)?;
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
        keeper.finish().unwrap();
        let mut kept = Kept::open(folder.path(), 0).unwrap();
        let mut offsets = Vec::new();
        for person in &people {
            offsets.push(kept.offset());
            assert_eq!(kept.next().unwrap().as_ref(), Some(person));
        }
        assert_eq!(kept.next().unwrap(), None);
        for (person, offset) in people.iter().zip(offsets) {
            let next = Kept::open(folder.path(), offset).unwrap().next().unwrap();
            assert_eq!(next.as_ref(), Some(person));
        }
    }
}
