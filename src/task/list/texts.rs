//! The texts that the cells of a workbook share, on the disk: found by their number, through a cache of fixed size.

use super::scratch;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are read at once, and how many such blocks are held.
const BLOCK: usize = if cfg!(test) { 8 } else { 4096 };
const BLOCKS: usize = if cfg!(test) { 2 } else { 512 };

/// Bytes of a text's end in the file of ends.
const END: u64 = 8;

/// Takes the texts in.
pub struct Writer {
    texts: BufWriter<File>,
    ends: BufWriter<File>,
    length: u64,
    count: u64,
}

impl Writer {
    pub fn new(folder: &Path) -> io::Result<Writer> {
        let [texts, ends] = [scratch::file(folder)?, scratch::file(folder)?].map(BufWriter::new);
        Ok(Writer { texts, ends, length: 0, count: 0 })
    }

    /// The next one.
    pub fn push(&mut self, text: &[u8]) -> io::Result<()> {
        self.texts.write_all(text)?;
        self.length += text.len() as u64;
        self.count += 1;
        self.ends.write_all(&self.length.to_le_bytes())
    }

    pub fn finish(self) -> io::Result<Texts> {
        let read = |file: BufWriter<File>| {
            file.into_inner().map(Blocks::new).map_err(io::IntoInnerError::into_error)
        };
        let (texts, ends) = (read(self.texts)?, read(self.ends)?);
        Ok(Texts { texts, ends, length: self.length, count: self.count })
    }
}

pub struct Texts {
    texts: Blocks,
    ends: Blocks,
    length: u64,
    count: u64,
}

impl Texts {
    /// The one of that number, the first being 0; None if there are not so many.
    pub fn get(&mut self, number: u64) -> io::Result<Option<Vec<u8>>> {
        if number >= self.count {
            return Ok(None);
        }
        let begin = match number.checked_sub(1) {
            Some(before) => self.end(before)?,
            None => 0,
        };
        let mut text = vec![0; (self.end(number)? - begin) as usize];
        self.texts.read(begin, &mut text, self.length)?;
        Ok(Some(text))
    }

    fn end(&mut self, number: u64) -> io::Result<u64> {
        let mut end = [0; END as usize];
        self.ends.read(number * END, &mut end, self.count * END)?;
        Ok(u64::from_le_bytes(end))
    }
}

/// A file that is read here and there, mostly near to where it was read before.
struct Blocks {
    file: File,
    /// By the number of the block: which one it is, and what is in it.
    held: Vec<Option<(u64, Vec<u8>)>>,
}

impl Blocks {
    fn new(file: File) -> Blocks {
        Blocks { file, held: vec![None; BLOCKS] }
    }

    /// `length`: the file's.
    fn read(&mut self, at: u64, out: &mut [u8], length: u64) -> io::Result<()> {
        let (mut at, mut rest) = (at, out);
        while !rest.is_empty() {
            let (number, skip) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let block = &self.block(number, length)?[skip..];
            let count = block.len().min(rest.len());
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest[..count].copy_from_slice(&block[..count]);
            (at, rest) = (at + count as u64, &mut rest[count..]);
        }
        Ok(())
    }

    fn block(&mut self, number: u64, length: u64) -> io::Result<&[u8]> {
        let held = &mut self.held[number as usize % BLOCKS];
        if held.as_ref().is_none_or(|(of, _)| *of != number) {
            let begin = number * BLOCK as u64;
            let mut block = vec![0; (length - begin).min(BLOCK as u64) as usize];
            self.file.read_exact_at(&mut block, begin)?;
            *held = Some((number, block));
        }
        Ok(held.as_ref().map_or(&[], |(_, block)| block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_their_number_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let text = |number: usize| "水".repeat(number % 7) + &number.to_string();
        for number in 0..100 {
            writer.push(text(number).as_bytes()).unwrap();
        }
        writer.push(b"").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut texts = writer.finish().unwrap();
        for number in (0..100).chain((0..100).rev()).chain([3, 97, 3]) {
            let found = texts.get(number).unwrap().unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), text(number as usize));
        }
        assert_eq!(texts.get(100).unwrap().unwrap(), b"");
        assert_eq!(texts.get(101).unwrap(), None);
        let mut none = Writer::new(folder.path()).unwrap().finish().unwrap();
        assert_eq!(none.get(0).unwrap(), None);
    }
}
