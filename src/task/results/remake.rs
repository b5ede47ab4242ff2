//! Makes a result file anew: a row for each person of the list who is answered, as the journal knows it. Those who were
//! sent to are the others before `next` (J1). Their times are known no more.

use super::{Loss, Remade, Results, Row, encode, header, put};
use crate::cli::language::Language;
use crate::task::event::{Failure, Status};
use crate::task::journal::{Journal, State};
use crate::task::list::Kept;
use crate::task::plan::Encoding;
use crate::task::words;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is being made is never as long: who is killed meanwhile begins another.
const UNFINISHED: u64 = i64::MAX as u64;

/// Bytes of rows that are written at once.
const PIECE: usize = 1 << 16;

/// Where the old one was, if nothing is there, or beside it under the next name that is free.
pub fn remake(results: &mut Results, journal: &mut Journal, loss: Loss) -> Result<Remade, String> {
    let (mut plan, state) = (journal.plan()?, journal.state()?);
    let old = plan.result.clone();
    let (file, new) = create(&old).map_err(|error| {
        format!("cannot write a new result file for {}: {error}", old.display())
    })?;
    plan.result.clone_from(&new);
    journal.set_result(&plan, UNFINISHED)?;
    let failed =
        |error: io::Error| format!("cannot write the result file {}: {error}", new.display());
    let unread = |error| format!("cannot read the list in {}: {error}", results.folder.display());
    let open: HashSet<u64> = state.open.iter().map(|open| open.index).collect();
    let mut writer = Writer {
        list: Kept::open(&results.folder, 0).map_err(unread)?,
        open,
        index: 0,
        file,
        encoding: results.encoding,
        language: results.language,
        text: String::new(),
        bytes: 0,
        rows: 0,
    };
    writer.put(&header(results.encoding)).map_err(failed)?;
    let State { next, .. } = state;
    journal.failures(|failure| {
        writer.up_to(failure.index).and_then(|()| writer.next(Some(&failure))).map_err(failed)
    })?;
    writer.up_to(next).and_then(|()| writer.finish()).map_err(failed)?;
    let Writer { file, bytes, rows, .. } = writer;
    journal.set_result(&plan, bytes)?;
    (results.file, results.path, results.bytes) = (Ok(file), new.clone(), bytes);
    Ok(Remade { loss, old, new, rows })
}

fn create(old: &Path) -> io::Result<(File, PathBuf)> {
    let stem = old.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = |number: u32| match old.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    let others = (2..).map(|number| old.with_file_name(name(number)));
    for path in std::iter::once(old.to_owned()).chain(others) {
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                crate::file::sync(path.parent().unwrap_or(Path::new("/")))?;
                return Ok((file, path));
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

struct Writer {
    list: Kept,
    /// Those without an answer.
    open: HashSet<u64>,
    /// Of the list's next person.
    index: u64,
    file: File,
    encoding: Encoding,
    language: Language,
    text: String,
    bytes: u64,
    rows: u64,
}

impl Writer {
    /// All before that one who are answered were sent to.
    fn up_to(&mut self, index: u64) -> io::Result<()> {
        while self.index < index {
            self.next(None)?;
        }
        Ok(())
    }

    /// The next person of the list, who failed so, or was sent to.
    fn next(&mut self, failure: Option<&Failure>) -> io::Result<()> {
        let person = self.list.person()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let index = self.index;
        self.index += 1;
        if self.open.contains(&index) {
            return Ok(());
        }
        let errcode = failure.and_then(|failure| failure.errcode);
        let row = Row {
            line: person.line,
            openid: &person.openid,
            status: failure.map_or(Status::Sent, |failure| failure.status),
            errcode,
            errmsg: failure.map_or("", |failure| &failure.errmsg),
            meaning: errcode.map_or("", |errcode| words::meaning(errcode, self.language)),
            time: "",
        };
        put(&mut self.text, &row);
        self.rows += 1;
        if self.text.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        self.put(&encode(&text, self.encoding))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// They are on the disk.
    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_all()
    }
}
