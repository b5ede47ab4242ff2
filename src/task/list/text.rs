//! The rows of a text: a plain list, whose every line is an openid, or CSV as RFC 4180 has it. Its first line tells
//! which of them it is, and what separates the fields.

use super::columns::names_openid;
use super::error::ListError;
use super::lines::{LONGEST, Lines, too_long};
use super::openid::SEPARATORS;
use super::row::{Row, Rows};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use std::path::{Path, PathBuf};

/// Rows that are lines.
pub struct Plain {
    lines: Lines,
    /// The first line, which was read to find out what this is.
    first: Option<String>,
}

/// Rows whose fields are separated, and may be quoted.
pub struct Csv {
    lines: Lines,
    path: PathBuf,
    pub separator: char,
    reader: Reader,
    /// A line with its end, read up to `at`; a row may take several.
    line: String,
    at: usize,
    /// The fields of a row, one after the other, and where each of them ends.
    output: Vec<u8>,
    ends: Vec<usize>,
}

pub enum Text {
    Plain(Plain),
    Csv(Box<Csv>),
}

impl Text {
    /// `column`: the name of the column of openids, where the user gave it.
    pub fn open(mut lines: Lines, path: &Path, column: Option<&str>) -> Result<Text, ListError> {
        let mut first = String::new();
        while let Some(line) = lines.next()? {
            if !line.trim().is_empty() {
                first = line.to_owned();
                break;
            }
        }
        let csv = |lines, separator, first| {
            Ok(Text::Csv(Box::new(Csv::begin(lines, path, separator, first))))
        };
        for separator in SEPARATORS {
            let header = header(&first, separator);
            if header.iter().any(|name| names_openid(name, column)) {
                return csv(lines, separator, first);
            }
        }
        // A header without openid: it is for the error that names its columns.
        let count = |separator: &char| first.matches(*separator).count();
        match SEPARATORS.into_iter().max_by_key(count) {
            Some(separator) if count(&separator) > 0 => csv(lines, separator, first),
            _ => Ok(Text::Plain(Plain { lines, first: Some(first) })),
        }
    }
}

/// The fields of one line.
fn header(line: &str, separator: char) -> Vec<String> {
    let (mut output, mut ends) = (vec![0; line.len() + 2], vec![0; line.len() + 2]);
    let line = format!("{line}\n");
    let (_, _, _, count) = reader(separator).read_record(line.as_bytes(), &mut output, &mut ends);
    let mut begin = 0;
    let field = |end: &usize| {
        let field = String::from_utf8_lossy(&output[begin..*end]).into_owned();
        begin = *end;
        field
    };
    ends[..count].iter().map(field).collect()
}

fn reader(separator: char) -> Reader {
    let separator = u8::try_from(separator).expect("invariant: separators are ASCII");
    ReaderBuilder::new().delimiter(separator).build()
}

impl Rows for Plain {
    fn next(&mut self, row: &mut Row) -> Result<bool, ListError> {
        if let Some(first) = self.first.take() {
            row.begin(self.lines.line());
            row.push(&first);
            return Ok(!row.is_blank());
        }
        loop {
            let Some(line) = self.lines.next()? else { return Ok(false) };
            if !line.trim().is_empty() {
                row.begin(0);
                row.push(line);
                (row.line, row.end) = (self.lines.line(), self.lines.line());
                return Ok(true);
            }
        }
    }
}

impl Csv {
    fn begin(lines: Lines, path: &Path, separator: char, mut first: String) -> Csv {
        first.push('\n');
        Csv {
            lines,
            path: path.to_owned(),
            separator,
            reader: reader(separator),
            line: first,
            at: 0,
            output: vec![0; 4096],
            ends: vec![0; 64],
        }
    }

    /// The next line is there to be parsed; false after the last.
    fn read(&mut self) -> Result<bool, ListError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        self.line.clear();
        self.line.push_str(line);
        self.line.push('\n');
        self.at = 0;
        Ok(true)
    }

    /// One record; `line` is where it begins.
    fn record(&mut self, line: u64, row: &mut Row) -> Result<(), ListError> {
        let (mut written, mut fields) = (0, 0);
        loop {
            let input = &self.line.as_bytes()[self.at..];
            if input.is_empty() {
                if !self.read()? {
                    return Err(open_quote(&self.path, line));
                }
                continue;
            }
            let (result, taken, wrote, ended) = self.reader.read_record(
                input,
                &mut self.output[written..],
                &mut self.ends[fields..],
            );
            (self.at, written, fields) = (self.at + taken, written + wrote, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if written > LONGEST => {
                    return Err(too_long(&self.path, line));
                }
                ReadRecordResult::OutputFull => self.output.resize(2 * self.output.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        row.begin(line);
        row.end = self.lines.line();
        row.fill(&String::from_utf8_lossy(&self.output[..written]), &self.ends[..fields]);
        Ok(())
    }
}

impl Rows for Csv {
    fn next(&mut self, row: &mut Row) -> Result<bool, ListError> {
        loop {
            // A row begins where nothing but ends of lines is left of the one before.
            if self.line[self.at..].trim_matches(['\r', '\n']).is_empty() {
                self.at = self.line.len();
                if !self.read()? {
                    return Ok(false);
                }
                continue;
            }
            self.record(self.lines.line(), row)?;
            // Spreadsheet programs write what was once filled in as separators alone.
            if !row.is_blank() {
                return Ok(true);
            }
        }
    }
}

fn open_quote(path: &Path, line: u64) -> ListError {
    let path = path.display();
    ListError::new([
        format!(
            "{path}: a quote is opened in the row of line {line} and never closed; correct that row"
        ),
        format!("{path}：第 {line} 行开始的引号一直没有闭合，请改正该行"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn rows(text: &str) -> Result<Vec<(u64, u64, Vec<String>)>, ListError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        let path = Path::new("people.csv");
        let mut text = Text::open(Lines::open(file, path)?, path, None)?;
        let rows: &mut dyn Rows = match &mut text {
            Text::Plain(plain) => plain,
            Text::Csv(csv) => csv.as_mut(),
        };
        let (mut row, mut all) = (Row::default(), Vec::new());
        while rows.next(&mut row)? {
            all.push((row.line, row.end, row.cells().map(str::to_owned).collect()));
        }
        Ok(all)
    }

    fn fields(text: &str) -> Vec<Vec<String>> {
        rows(text).unwrap().into_iter().map(|(_, _, fields)| fields).collect()
    }

    #[test]
    fn the_separator_is_the_one_that_leaves_an_openid_alone() {
        for (text, second) in [
            ("openid,name;x\no1,a", "name;x"),
            ("openid;name,x,y\no1;a", "name,x,y"),
            ("\"openid\"\tname\no1\ta", "name"),
            ("name;touser\na;o1", "touser"),
        ] {
            assert_eq!(fields(text)[0][1], second, "{text}");
        }
        assert_eq!(fields("id;name\n"), [["id", "name"]]);
    }

    #[test]
    fn rows_have_the_numbers_of_their_lines_whatever_is_between_and_in_them() {
        let text = "\n\nopenid,text\r\no1,\"two\r\nlines\"\r\n\r\n\r\no2,\"\"\"q\"\", x\"\r\n,\r\no3,5\"\n";
        let expected = [
            (3, 3, ["openid", "text"]),
            (4, 5, ["o1", "two\nlines"]),
            (8, 8, ["o2", "\"q\", x"]),
            (10, 10, ["o3", "5\""]),
        ];
        let expected = expected
            .map(|(line, end, fields)| (line, end, fields.map(str::to_owned).to_vec()))
            .to_vec();
        assert_eq!(rows(text).unwrap(), expected);
    }

    #[test]
    fn many_and_long_fields_are_read_whole() {
        let long = "水".repeat(10_000);
        let many = format!("openid,{}\no1,{}{long}", vec!["c"; 500].join(","), ",".repeat(499));
        let rows = fields(&many);
        assert_eq!((rows[0].len(), rows[1].len()), (501, 501));
        assert_eq!(rows[1][500], long);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_with_the_line_where_it_opens() {
        let error = rows("openid,a\no1,x\no2,\"y\no3,z\n").unwrap_err();
        assert!(error.to_string().contains("in the row of line 3 and never closed"), "{error}");
        let endless = format!("openid,a\no1,\"{}", "line\n".repeat(LONGEST));
        let error = rows(&endless).unwrap_err();
        assert!(error.to_string().contains("line 2: it is longer than 1 MiB"), "{error}");
    }

    #[test]
    fn a_list_of_words_is_plain_and_its_quotes_are_letters() {
        assert_eq!(fields("o1\n\"o2\n\n o3,x \n"), [["o1"], ["\"o2"], [" o3,x "]]);
        assert_eq!(fields("").len(), 0);
        assert_eq!(fields("\n \n").len(), 0);
    }

    #[test]
    fn lines_that_end_with_a_carriage_return_alone_are_rows_too() {
        assert_eq!(fields("openid,a\ro1,x\ro2,y"), [["openid", "a"], ["o1", "x"], ["o2", "y"]]);
        assert_eq!(rows("o1\r\ro2\r").unwrap()[1], (3, 3, vec!["o2".to_owned()]));
    }
}
