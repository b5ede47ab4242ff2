//! The rows of an xlsx workbook: its first visible sheet that has any. The sheet is read as a stream, of the copy that
//! `harmless` makes.

use super::error::{Fault, ListError};
use super::harmless;
use super::lines::{LONGEST, too_long};
use super::row::{Row, Rows};
use super::shown;
use calamine::{Data, DataRef, Reader, SheetType, SheetVisible, Xlsx, XlsxCellReader};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// A sheet has no more.
const COLUMNS: usize = 16_384;

type Source = BufReader<File>;

pub struct Workbook {
    xlsx: Xlsx<Source>,
    path: PathBuf,
}

pub struct Sheet<'a> {
    cells: XlsxCellReader<'a, Source>,
    path: &'a Path,
    /// The first cell of the next row.
    next: Option<Cell>,
    /// The last cell was read; calamine must not be asked for more.
    ended: bool,
    /// Of the first row; 0 until it was read.
    width: usize,
}

/// A cell that has something in it.
struct Cell {
    row: u32,
    column: usize,
    shown: Result<String, String>,
}

impl Workbook {
    /// `folder`: where there is room for the copy.
    pub fn open(file: File, path: &Path, folder: &Path) -> Result<Workbook, ListError> {
        let copy = harmless::copy(file, path, folder)?;
        let xlsx =
            Xlsx::new(BufReader::new(copy)).map_err(|error| ListError::damaged(path, &error))?;
        Ok(Workbook { xlsx, path: path.to_owned() })
    }

    /// The name of the sheet that is read.
    pub fn find_sheet(&mut self) -> Result<Option<String>, ListError> {
        let sheets = self.xlsx.sheets_metadata().iter();
        let of_cells = sheets.filter(|sheet| sheet.typ == SheetType::WorkSheet);
        let shown = of_cells.filter(|sheet| sheet.visible == SheetVisible::Visible);
        let names: Vec<String> = shown.map(|sheet| sheet.name.clone()).collect();
        for name in names {
            if self.sheet(&name)?.cell()?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub fn sheet(&mut self, name: &str) -> Result<Sheet<'_>, ListError> {
        let path = &self.path;
        let cells = self
            .xlsx
            .worksheet_cells_reader(name)
            .map_err(|error| ListError::damaged(path, &error))?;
        let mut sheet = Sheet { cells, path, next: None, ended: false, width: 0 };
        sheet.next = sheet.cell()?;
        Ok(sheet)
    }
}

impl Sheet<'_> {
    /// The next cell that has something in it.
    fn cell(&mut self) -> Result<Option<Cell>, ListError> {
        if let Some(cell) = self.next.take() {
            return Ok(Some(cell));
        }
        while !self.ended {
            let next = self.cells.next_cell_with_style_id();
            let Some((cell, style)) =
                next.map_err(|error| ListError::damaged(self.path, &error))?
            else {
                self.ended = true;
                break;
            };
            let style = self.cells.styles().get(style);
            let format = style.and_then(|style| style.number_format.as_ref());
            let shown = match cell.get_value() {
                DataRef::Empty => continue,
                DataRef::Error(error) => Err(error.to_string()),
                DataRef::Float(value) => Ok(shown::number(*value, format)),
                DataRef::DateTime(time) => Ok(shown::time(time, format)),
                DataRef::Bool(true) => Ok("TRUE".to_owned()),
                DataRef::Bool(false) => Ok("FALSE".to_owned()),
                text => Ok(Data::from(text.clone()).to_string()),
            };
            if shown.as_ref().is_ok_and(|shown| shown.is_empty()) {
                continue;
            }
            let (row, column) = cell.get_position();
            return Ok(Some(Cell { row, column: column as usize, shown }));
        }
        Ok(None)
    }

    /// One row as it stands in the sheet; false after the last.
    fn row(&mut self, row: &mut Row) -> Result<bool, ListError> {
        let Some(first) = self.cell()? else { return Ok(false) };
        let number = first.row;
        row.begin(u64::from(number) + 1);
        let mut cell = first;
        loop {
            if cell.column < row.len() || cell.column >= COLUMNS {
                return Err(ListError::damaged(self.path, &"its cells are not in order"));
            }
            if row.bytes() > LONGEST {
                return Err(too_long(self.path, row.line));
            }
            row.widen(cell.column);
            row.push(cell.shown.as_deref().unwrap_or_default());
            if let Err(shown) = cell.shown {
                row.fault.get_or_insert(Fault::Cell { column: cell.column, shown });
            }
            let Some(next) = self.cell()? else { return Ok(true) };
            if next.row != number {
                self.next = Some(next);
                return Ok(true);
            }
            cell = next;
        }
    }
}

impl Rows for Sheet<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, ListError> {
        loop {
            if !self.row(row)? {
                return Ok(false);
            }
            if row.is_blank() {
                continue;
            }
            // Cells that nobody filled in are not there.
            row.narrow(self.width.max(1));
            if self.width == 0 {
                self.width = row.len();
            }
            row.widen(self.width);
            return Ok(true);
        }
    }
}
