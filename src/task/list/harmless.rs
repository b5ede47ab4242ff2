//! A workbook as it can be read in bounded memory: a copy of it in which the texts that cells share stand in the cells
//! themselves, and which has nothing but what is read of it. Whoever made the workbook decides how much there is of
//! it, and not how much of that is held.

use super::error::ListError;
use super::lines::LONGEST;
use super::scratch;
use super::texts::{self, Texts};
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Bytes of all that is read of it, unpacked.
const LARGEST: u64 = 4 << 30;

/// Bytes of what is read of it besides sheets and their texts.
const FRAME: u64 = 16 << 20;

/// A workbook has no more formats of cells; each is held with a format of numbers of its own.
const FORMATS: usize = 65_536;

/// Bytes of an element that says what a format of numbers is, for its 255 characters.
const FORMAT: usize = 4096;

/// What is looked at of cells is the number format.
const STYLES: [&str; 6] = ["fonts", "fills", "borders", "cellStyleXfs", "cellStyles", "dxfs"];

/// What a file in the workbook is.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Sheet,
    Texts,
    /// Which sheets there are, and how their cells are shown.
    Frame,
    /// Nothing that a list has.
    Other,
}

impl Part {
    fn of(name: &str) -> Part {
        let name = name.replace('\\', "/").to_ascii_lowercase();
        let name = name.trim_start_matches('/');
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let above = folder.strip_suffix("_rels").unwrap_or(folder).trim_end_matches('/');
        match file {
            "sharedstrings.xml" => Part::Texts,
            "calcchain.xml" => Part::Other,
            file if file.starts_with("comments") || folder == "customxml" => Part::Other,
            file if !file.ends_with(".xml") && !file.ends_with(".rels") => Part::Other,
            _ if folder.ends_with("worksheets") => Part::Sheet,
            _ if above.contains('/') => Part::Other,
            _ => Part::Frame,
        }
    }
}

enum Trouble {
    Damaged(String),
    TooLarge,
    Unwritable(io::Error),
}

impl From<ZipError> for Trouble {
    fn from(error: ZipError) -> Trouble {
        Trouble::Damaged(error.to_string())
    }
}

impl From<quick_xml::Error> for Trouble {
    fn from(error: quick_xml::Error) -> Trouble {
        match &error {
            quick_xml::Error::Io(io) if io.kind() == io::ErrorKind::FileTooLarge => {
                Trouble::TooLarge
            }
            _ => Trouble::Damaged(error.to_string()),
        }
    }
}

impl From<AttrError> for Trouble {
    fn from(error: AttrError) -> Trouble {
        Trouble::Damaged(error.to_string())
    }
}

/// The copy, in a file without a name.
pub fn copy(file: File, path: &Path, folder: &Path) -> Result<File, ListError> {
    copied(file, folder).map_err(|trouble| match trouble {
        Trouble::Damaged(why) => ListError::damaged(path, &why),
        Trouble::TooLarge => too_large(path),
        Trouble::Unwritable(error) => ListError::unwritable(folder, &error),
    })
}

fn copied(file: File, folder: &Path) -> Result<File, Trouble> {
    let mut from = ZipArchive::new(BufReader::new(file))?;
    let mut names = Vec::new();
    for name in from.file_names() {
        names.push(name?.into_owned());
    }
    let (mut left, mut frame) = (LARGEST, FRAME);
    let mut texts = texts::Writer::new(folder).map_err(Trouble::Unwritable)?;
    if let Some(index) = names.iter().position(|name| Part::of(name) == Part::Texts) {
        take_texts(&mut Xml::of(from.by_index(index)?, &mut left), &mut texts)?;
    }
    let mut texts = texts.finish().map_err(Trouble::Unwritable)?;
    let file = scratch::file(folder).map_err(Trouble::Unwritable)?;
    let mut to = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(1))
        .large_file(true);
    for (index, name) in names.iter().enumerate() {
        let part = Part::of(name);
        if matches!(part, Part::Texts | Part::Other) {
            continue;
        }
        to.start_file(name.as_str(), options).map_err(unwritable)?;
        let mut out = Writer::new(BufWriter::new(&mut to));
        match part {
            Part::Sheet => {
                copy_sheet(&mut Xml::of(from.by_index(index)?, &mut left), &mut out, &mut texts)?;
            }
            _ => copy_frame(&mut Xml::of(from.by_index(index)?, &mut frame), &mut out)?,
        }
        out.get_mut().flush().map_err(Trouble::Unwritable)?;
    }
    let file = to.finish().map_err(unwritable)?.into_inner();
    let mut file = file.map_err(|error| Trouble::Unwritable(error.into_error()))?;
    file.rewind().map_err(Trouble::Unwritable)?;
    Ok(file)
}

fn unwritable(error: ZipError) -> Trouble {
    match error {
        ZipError::Io(error) => Trouble::Unwritable(error),
        error => error.into(),
    }
}

/// The texts as they stand there, with their markup: whoever reads the cells reads that, too.
fn take_texts(xml: &mut Xml<impl Read>, texts: &mut texts::Writer) -> Result<(), Trouble> {
    let mut text = Writer::new(Vec::new());
    let mut inside = false;
    loop {
        match xml.next(if inside { Piece::SameAsBefore } else { Piece::Next })? {
            Event::Eof => return Ok(()),
            Event::Start(it) if !inside && it.local_name().as_ref() == "si" => inside = true,
            Event::Empty(it) if !inside && it.local_name().as_ref() == "si" => {
                texts.push(b"").map_err(Trouble::Unwritable)?;
            }
            Event::End(it) if inside && it.local_name().as_ref() == "si" => {
                texts.push(text.get_ref()).map_err(Trouble::Unwritable)?;
                text.get_mut().clear();
                inside = false;
            }
            event if inside => text.write_event(event).map_err(Trouble::Unwritable)?,
            _ => {}
        }
    }
}

/// Where in a sheet it is.
enum Place {
    Outside,
    Cell,
    /// In a cell whose text stands elsewhere.
    Shared,
    /// In the number of that text.
    Number(String),
}

fn copy_sheet(xml: &mut Xml<impl Read>, out: &mut Out, texts: &mut Texts) -> Result<(), Trouble> {
    let mut place = Place::Outside;
    loop {
        let outside = matches!(place, Place::Outside);
        let event = xml.next(if outside { Piece::Next } else { Piece::SameAsBefore })?;
        match (event, &mut place) {
            (Event::Eof, _) => return Ok(()),
            (Event::Start(it), Place::Outside) if it.local_name().as_ref() == "c" => {
                let (it, inside) = match it.try_get_attribute("t")? {
                    Some(kind) if kind.value == "s" => (with_own_text(&it)?, Place::Shared),
                    _ => (it, Place::Cell),
                };
                put(out, Event::Start(it))?;
                place = inside;
            }
            (Event::Start(it), Place::Shared) if it.local_name().as_ref() == "v" => {
                place = Place::Number(String::new());
            }
            (Event::Text(it), Place::Number(number)) => number.push_str(&it),
            (Event::End(it), Place::Number(number)) if it.local_name().as_ref() == "v" => {
                put_text(out, number.trim(), texts)?;
                place = Place::Shared;
            }
            (_, Place::Number(_)) => {}
            (Event::End(it), _) if it.local_name().as_ref() == "c" => {
                put(out, Event::End(it))?;
                place = Place::Outside;
            }
            (Event::End(it), _) if it.local_name().as_ref() == "sheetData" => {
                // What follows is no cell.
                return put(out, Event::End(it));
            }
            (event, _) => put(out, event)?,
        }
    }
}

/// The beginning of a cell whose text stands in it.
fn with_own_text(cell: &BytesStart) -> Result<BytesStart<'static>, Trouble> {
    let mut own = BytesStart::new(cell.name().as_ref().to_owned());
    for name in ["r", "s"] {
        if let Some(attribute) = cell.try_get_attribute(name)? {
            own.push_attribute(attribute);
        }
    }
    own.push_attribute(("t", "inlineStr"));
    Ok(own)
}

fn put_text(out: &mut Out, number: &str, texts: &mut Texts) -> Result<(), Trouble> {
    if number.is_empty() {
        return Ok(());
    }
    let none = || Trouble::Damaged(format!("a cell has the text {number:?}, which is not there"));
    let found = texts.get(number.parse().map_err(|_| none())?).map_err(Trouble::Unwritable)?;
    let text = found.ok_or_else(none)?;
    let file = out.get_mut();
    [b"<is>", &text[..], b"</is>"]
        .into_iter()
        .try_for_each(|bytes| file.write_all(bytes))
        .map_err(Trouble::Unwritable)
}

fn put(out: &mut Out, event: Event) -> Result<(), Trouble> {
    match event {
        // The copy is UTF-8, and nothing in it depends on these.
        Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => Ok(()),
        event => out.write_event(event).map_err(Trouble::Unwritable),
    }
}

fn copy_frame(xml: &mut Xml<impl Read>, out: &mut Out) -> Result<(), Trouble> {
    let mut formats = 0;
    let mut left_out: Option<String> = None;
    loop {
        let event = xml.next(Piece::Next)?;
        match (&event, &left_out) {
            (Event::Eof, _) => return Ok(()),
            (Event::End(it), Some(name)) if it.local_name().as_ref() == name => left_out = None,
            (_, Some(_)) => {}
            (Event::Start(it), None) if STYLES.contains(&it.local_name().as_ref()) => {
                left_out = Some(it.local_name().as_ref().to_owned());
            }
            (Event::Start(it) | Event::Empty(it), None) => {
                let name = it.local_name();
                formats += usize::from(name.as_ref() == "xf");
                if formats > FORMATS || name.as_ref() == "numFmt" && it.len() > FORMAT {
                    return Err(Trouble::TooLarge);
                }
                put(out, event)?;
            }
            (_, None) => put(out, event)?,
        }
    }
}

/// A part that is being written.
type Out<'a> = Writer<BufWriter<&'a mut ZipWriter<BufWriter<File>>>>;

/// A part that is being read, an event at a time.
struct Xml<'a, R> {
    reader: Reader<Meter<'a, R>>,
    held: Vec<u8>,
}

/// What the next event belongs to: a piece of the part, as a cell is one, has a bound of its own.
enum Piece {
    Next,
    SameAsBefore,
}

impl<'a, R: Read> Xml<'a, R> {
    /// `left`: bytes that may be read, here and of the parts that come after.
    fn of(part: R, left: &'a mut u64) -> Xml<'a, R> {
        let mut reader = Reader::from_reader(Meter { part: BufReader::new(part), left, piece: 0 });
        let config = reader.config_mut();
        // Many programs write workbooks; what they mean is read.
        (config.check_end_names, config.check_comments) = (false, false);
        Xml { reader, held: Vec::new() }
    }

    fn next(&mut self, piece: Piece) -> Result<Event<'_>, Trouble> {
        if let Piece::Next = piece {
            self.reader.get_mut().piece = 0;
        }
        self.held.clear();
        Ok(self.reader.read_event_into(&mut self.held)?)
    }
}

/// Gives no more than may be held.
struct Meter<'a, R> {
    part: BufReader<R>,
    left: &'a mut u64,
    /// Bytes of the piece that is read.
    piece: usize,
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Meter<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match *self.left > 0 && self.piece <= LONGEST {
            true => self.part.fill_buf(),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn consume(&mut self, count: usize) {
        *self.left = self.left.saturating_sub(count as u64);
        self.piece += count;
        self.part.consume(count);
    }
}

fn too_large(path: &Path) -> ListError {
    let path = path.display();
    ListError::new([
        format!("{path}: the workbook is larger unpacked than any list; save the list as CSV"),
        format!("{path}：工作簿解压后过大，不像名单；请另存为 CSV"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_of_a_workbook_is_known_by_its_name() {
        for (name, part) in [
            ("xl/worksheets/sheet1.xml", Part::Sheet),
            ("\\xl\\Worksheets\\Sheet1.XML", Part::Sheet),
            ("xl/sharedStrings.xml", Part::Texts),
            ("[Content_Types].xml", Part::Frame),
            ("_rels/.rels", Part::Frame),
            ("xl/_rels/workbook.xml.rels", Part::Frame),
            ("xl/styles.xml", Part::Frame),
            ("xl/worksheets/_rels/sheet1.xml.rels", Part::Other),
            ("xl/calcChain.xml", Part::Other),
            ("xl/comments1.xml", Part::Other),
            ("xl/pivotCache/pivotCacheRecords1.xml", Part::Other),
            ("xl/media/image1.png", Part::Other),
            ("xl/", Part::Other),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }
}
