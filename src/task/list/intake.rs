//! Takes the rows of a list in: who is somebody to send to is kept, who comes again or is nobody is counted.

use super::columns::{Columns, First};
use super::error::ListError;
use super::kept::Keeper;
use super::repeats::Repeats;
use super::row::{Row, Rows};
use super::{Duplicate, Empty, FEW, Format, Malformed, Noted, Options, Person, Survey};
use std::io;
use std::path::Path;

pub struct Intake<'a> {
    folder: &'a Path,
    path: &'a Path,
    options: &'a Options,
    keeper: Keeper,
    repeats: Repeats,
    columns: Option<Columns>,
    lines: u64,
    malformed: Noted<Malformed>,
    empty: Noted<Empty>,
}

impl<'a> Intake<'a> {
    /// `path`: the list's, for what is said of it.
    pub fn begin(
        folder: &'a Path,
        path: &'a Path,
        options: &'a Options,
    ) -> Result<Intake<'a>, ListError> {
        let keeper =
            Keeper::create(folder).map_err(|error| ListError::unwritable(folder, &error))?;
        Ok(Intake {
            folder,
            path,
            options,
            keeper,
            repeats: Repeats::new(folder),
            columns: None,
            lines: 0,
            malformed: Noted::none(),
            empty: Noted::none(),
        })
    }

    /// Takes all of them.
    pub fn take(&mut self, rows: &mut dyn Rows) -> Result<(), ListError> {
        let mut row = Row::default();
        let mut person = Person { line: 0, openid: String::new(), data: String::new() };
        if !rows.next(&mut row)? {
            return Err(super::empty(self.path));
        }
        let columns = match Columns::find(&row, self.options, self.path)? {
            First::Person(columns) => {
                self.row(&columns, &row, &mut person)?;
                columns
            }
            First::Header(columns) => columns,
        };
        while rows.next(&mut row)? {
            self.row(&columns, &row, &mut person)?;
        }
        self.columns = Some(columns);
        Ok(())
    }

    /// `person` is only the memory that is used again.
    fn row(&mut self, columns: &Columns, row: &Row, person: &mut Person) -> Result<(), ListError> {
        self.lines += 1;
        let openid = columns.openid(row);
        let taken = openid.and_then(|openid| columns.data(row, &mut person.data).map(|()| openid));
        match taken {
            Ok(openid) => {
                person.line = row.line;
                person.openid.clear();
                person.openid.push_str(openid);
                if let Some(variable) = columns.empty(row) {
                    self.empty.note(Empty { line: row.line, variable: variable.to_owned() });
                }
                self.keep(person).map_err(|error| ListError::unwritable(self.folder, &error))
            }
            Err(why) => {
                self.malformed.note(Malformed { line: row.line, why });
                Ok(())
            }
        }
    }

    fn keep(&mut self, person: &Person) -> io::Result<()> {
        self.keeper.keep(person)?;
        self.repeats.note(&person.openid, person.line)
    }

    pub fn finish(self, format: Format) -> Result<Survey, ListError> {
        let unwritable = |error| ListError::unwritable(self.folder, &error);
        let found = self.repeats.find(FEW).map_err(unwritable)?;
        let mut first = Vec::new();
        match found.count {
            0 => self.keeper.finish(),
            _ => self.keeper.finish_without(|number, person| {
                let repeats = found.repeats(number);
                if repeats && let Some((line, before)) = found.first.get(first.len()) {
                    let openid = person()?;
                    first.push(Duplicate { line: *line, openid, before: *before });
                }
                Ok(repeats)
            }),
        }
        .map_err(unwritable)?;
        Ok(Survey {
            lines: self.lines,
            people: self.lines - self.malformed.count - found.count,
            duplicates: Noted { count: found.count, first },
            malformed: self.malformed,
            empty: self.empty,
            columns: self.columns.map(|columns| columns.names()).unwrap_or_default(),
            format,
        })
    }
}
