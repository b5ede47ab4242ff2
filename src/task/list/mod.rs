//! The people of a task: read from a plain list, CSV or xlsx, looked through before anything goes out, and kept in
//! the task's folder in the order in which they are sent to. Knows no network and no daemon.
//!
//! A source (`source`) gives rows (`row`): those of a text (`text`, over `lines`) or of a workbook (`xlsx`, which
//! `harmless` copies, with its shared `texts`, and whose cells are written out by `shown`). `columns` says which field
//! is the openid; `openid` what one may be; `repeats` who comes twice; `kept` keeps the rest. Memory does not grow with
//! the list: what does not fit is in files without a name (`scratch`).

mod columns;
mod error;
mod harmless;
mod intake;
mod kept;
mod lines;
mod openid;
mod repeats;
mod row;
mod scratch;
mod shown;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod texts;
mod xlsx;

pub use error::{Fault, ListError};
pub use kept::{Keeper, Kept};
pub use lines::Encoding;
pub(super) use lines::Lines;
pub use source::Input;

use intake::Intake;
use source::{Kind, Source};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use text::Text;
use xlsx::Workbook;

/// How many duplicates, malformed rows and rows with empty cells are told with their lines.
pub const FEW: usize = 10;

/// Somebody to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Where the list has it, the first line being 1.
    pub line: u64,
    pub openid: String,
    /// The variables of this person, as a JSON object; empty: none.
    pub data: String,
}

/// How a list is to be read.
#[derive(Debug, Default)]
pub struct Options {
    /// The name of the column of openids; None: `openid`, `touser` or `open_id`, in any case.
    pub openid_column: Option<String>,
    /// The variables that the template wants, as far as that is known.
    pub wanted: Vec<String>,
}

/// What a list has: every line that is neither blank nor the header is one of the people, a duplicate or malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct Survey {
    pub lines: u64,
    pub people: u64,
    pub duplicates: Noted<Duplicate>,
    pub malformed: Noted<Malformed>,
    /// Of all of these, those that have nothing in the column of a variable that is wanted.
    pub empty: Noted<Empty>,
    /// The names of the variables that people have.
    pub columns: Vec<String>,
    pub format: Format,
}

/// How many there are, and the first of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Noted<T> {
    pub count: u64,
    pub first: Vec<T>,
}

impl<T> Noted<T> {
    fn none() -> Noted<T> {
        Noted { count: 0, first: Vec::new() }
    }

    /// One more.
    fn note(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < FEW {
            self.first.push(one);
        }
    }
}

/// An openid that was in the list before, and is left out here.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub line: u64,
    pub openid: String,
    /// Where it was first.
    pub before: u64,
}

/// A row that is nobody to send to.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    pub line: u64,
    pub why: Fault,
}

/// A row that leaves a variable empty which the template wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Empty {
    pub line: u64,
    pub variable: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Format {
    /// An openid a line.
    Plain(Encoding),
    Csv {
        separator: char,
        encoding: Encoding,
    },
    /// With the name of the sheet that was read.
    Xlsx(String),
}

/// Reads the list and keeps its people in `folder`, where they are found once all of them are there.
pub fn import(input: Input, options: &Options, folder: &Path) -> Result<Survey, ListError> {
    let mut source = Source::open(input, folder)?;
    let path = source.path.clone();
    let column = options.openid_column.as_deref();
    let mut intake = Intake::begin(folder, &path, options)?;
    match source.kind()? {
        Kind::Text => {
            let lines = Lines::open(source.file, &path)?;
            let encoding = lines.encoding();
            match Text::open(lines, &path, column)? {
                Text::Plain(mut plain) => {
                    intake.take(&mut plain)?;
                    intake.finish(Format::Plain(encoding))
                }
                Text::Csv(mut csv) => {
                    intake.take(csv.as_mut())?;
                    intake.finish(Format::Csv { separator: csv.separator, encoding })
                }
            }
        }
        Kind::Xlsx => {
            // Whatever the reader of workbooks stumbles over is the workbook's fault, and ends nothing else.
            let read = || {
                let mut workbook = Workbook::open(source.file, &path, folder)?;
                let Some(name) = workbook.find_sheet()? else { return Err(empty(&path)) };
                intake.take(&mut workbook.sheet(&name)?)?;
                Ok(name)
            };
            let name = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
                Err(ListError::damaged(&path, &"its parts contradict each other"))
            })?;
            intake.finish(Format::Xlsx(name))
        }
    }
}

/// Those of the variables that a template wants which the list lacks.
pub fn missing<'a>(columns: &[String], wanted: &'a [String]) -> Vec<&'a str> {
    let lacks = |name: &&String| !columns.contains(name);
    wanted.iter().filter(lacks).map(String::as_str).collect()
}

fn empty(path: &Path) -> ListError {
    let path = path.display();
    ListError::new([
        format!("{path} is empty: there is nobody to send to"),
        format!("{path} 是空的，没有可发送的人"),
    ])
}
