//! A row of a list, whatever it was kept in, in one piece of memory that the next row takes over.

use super::error::{Fault, ListError};

/// Gives the rows of a list, one after the other. Blank ones are left out.
pub trait Rows {
    /// Puts the next one into `row`; false after the last.
    fn next(&mut self, row: &mut Row) -> Result<bool, ListError>;
}

#[derive(Debug, Default)]
pub struct Row {
    /// Where it begins and ends, the list's first line being 1.
    pub line: u64,
    pub end: u64,
    /// What the row's own source found wrong with it.
    pub fault: Option<Fault>,
    text: String,
    ends: Vec<usize>,
}

impl Row {
    pub fn begin(&mut self, line: u64) {
        (self.line, self.end, self.fault) = (line, line, None);
        self.text.clear();
        self.ends.clear();
    }

    pub fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        self.ends.push(self.text.len());
    }

    /// Takes all cells at once: `ends` says where in `text` each of them ends.
    pub fn fill(&mut self, text: &str, ends: &[usize]) {
        self.text.push_str(text);
        self.ends.extend_from_slice(ends);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Of all cells.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    pub fn cell(&self, index: usize) -> Option<&str> {
        let begin = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.text.get(begin..*self.ends.get(index)?)
    }

    pub fn cells(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map_while(|index| self.cell(index))
    }

    /// Nobody wrote anything into it.
    pub fn is_blank(&self) -> bool {
        self.fault.is_none() && self.text.trim().is_empty()
    }

    /// Has so many cells at least: what is missing at its end is empty.
    pub fn widen(&mut self, width: usize) {
        if self.len() < width {
            self.ends.resize(width, self.text.len());
        }
    }

    /// Loses empty cells at its end, and keeps so many.
    pub fn narrow(&mut self, width: usize) {
        while self.len() > width && self.cell(self.len() - 1) == Some("") {
            self.ends.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_its_cells_and_takes_or_loses_empty_ones() {
        let mut row = Row::default();
        row.begin(3);
        assert!(row.is_blank());
        ["a", "", "水", ""].into_iter().for_each(|cell| row.push(cell));
        assert_eq!(row.cells().collect::<Vec<_>>(), ["a", "", "水", ""]);
        row.narrow(1);
        assert_eq!(row.len(), 3);
        row.widen(5);
        assert_eq!(row.cells().collect::<Vec<_>>(), ["a", "", "水", "", ""]);
        assert_eq!(row.cell(5), None);
        row.begin(4);
        row.fill(" x", &[1, 2]);
        assert_eq!(row.cells().collect::<Vec<_>>(), [" ", "x"]);
    }
}
