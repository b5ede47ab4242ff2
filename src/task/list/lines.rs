//! The lines of a text in whatever encoding it is in, one piece of it in memory at a time. A line ends with a line feed,
//! a carriage return or both. UTF-8 and UTF-16 are known by their first bytes, UTF-8 without them by the whole of it;
//! what is left is GB18030, as GBK and GB2312 are, unless it is UTF-8 but for a few bytes: that is refused, because as
//! GB18030 it would be other words.

use super::error::ListError;
use encoding_rs::{Decoder, DecoderResult, GB18030, UTF_8};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Bytes of a line, and of a row of several.
pub const LONGEST: usize = 1 << 20;
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16,
    Gb18030,
}

impl Encoding {
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "UTF-8",
            Encoding::Utf16 => "UTF-16",
            Encoding::Gb18030 => "GB18030",
        }
    }
}

pub struct Lines {
    file: File,
    path: PathBuf,
    encoding: &'static encoding_rs::Encoding,
    decoder: Decoder,
    /// What was read and not yet decoded.
    raw: Vec<u8>,
    /// What was decoded; the lines up to `at` were given out.
    text: String,
    at: usize,
    state: State,
    /// How many lines were given out.
    line: u64,
}

#[derive(PartialEq)]
enum State {
    More,
    Ended,
    /// The next line has bytes that are no text.
    Broken,
}

impl Lines {
    /// `path` is for what is said of it.
    pub fn open(mut file: File, path: &Path) -> Result<Lines, ListError> {
        let failed = |error| ListError::unreadable(path, &error);
        let found = find_encoding(&mut file).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let encoding = match found {
            Found::Text(encoding) => encoding,
            Found::BrokenUtf8(at) => {
                return Err(broken_utf8(path, line_of(&mut file, at).map_err(failed)?));
            }
        };
        Ok(Lines {
            file,
            path: path.to_owned(),
            encoding,
            decoder: encoding.new_decoder_with_bom_removal(),
            raw: Vec::with_capacity(PIECE),
            text: String::new(),
            at: 0,
            state: State::More,
            line: 0,
        })
    }

    pub fn encoding(&self) -> Encoding {
        match self.encoding {
            encoding if encoding == UTF_8 => Encoding::Utf8,
            encoding if encoding == GB18030 => Encoding::Gb18030,
            _ => Encoding::Utf16,
        }
    }

    /// The number of the line that was given last.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next line, without its end; None after the last.
    pub fn next(&mut self) -> Result<Option<&str>, ListError> {
        let mut looked = self.at;
        loop {
            let found = self.text[looked..].find(['\r', '\n']).map(|found| looked + found);
            let rest = found.map(|end| &self.text[end..]);
            // Whether a line feed follows a carriage return may not have been read yet.
            let is_whole = rest.is_some_and(|rest| rest != "\r" || self.state != State::More);
            if let Some(end) = found.filter(|_| is_whole) {
                let begin = self.at;
                self.at = end + if self.text[end..].starts_with("\r\n") { 2 } else { 1 };
                self.line += 1;
                return Ok(Some(&self.text[begin..end]));
            }
            if self.text.len() - self.at > LONGEST {
                return Err(too_long(&self.path, self.line + 1));
            }
            match self.state {
                State::Broken => return Err(self.broken()),
                State::Ended if self.at == self.text.len() => return Ok(None),
                State::Ended => self.text.push('\n'),
                State::More => {
                    looked = found.unwrap_or(self.text.len()) - self.at;
                    self.text.drain(..self.at);
                    self.at = 0;
                    self.read().map_err(|error| ListError::unreadable(&self.path, &error))?;
                }
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let count = (&self.file).take(PIECE as u64).read_to_end(&mut self.raw)?;
        // A byte becomes three at most.
        self.text.reserve(3 * self.raw.len() + 16);
        let last = count == 0;
        let (result, taken) =
            self.decoder.decode_to_string_without_replacement(&self.raw, &mut self.text, last);
        self.raw.drain(..taken);
        self.state = match result {
            DecoderResult::Malformed(..) => State::Broken,
            _ if last => State::Ended,
            _ => State::More,
        };
        Ok(())
    }

    fn broken(&self) -> ListError {
        let (path, line) = (self.path.display(), self.line + 1);
        let (english, chinese) = match self.encoding() {
            Encoding::Gb18030 => {
                ("neither UTF-8 nor GB18030 (GBK)", "既不是 UTF-8 也不是 GB18030（GBK）")
            }
            Encoding::Utf8 => ("no UTF-8, as its beginning says", "不是开头所标的 UTF-8"),
            Encoding::Utf16 => ("no UTF-16, as its beginning says", "不是开头所标的 UTF-16"),
        };
        ListError::new([
            format!("{path}, line {line}: this is {english}; save the list as UTF-8"),
            format!("{path} 第 {line} 行：{chinese}；请把名单另存为 UTF-8"),
        ])
    }
}

/// A line, or a row that began there, has no end within reason.
pub fn too_long(path: &Path, line: u64) -> ListError {
    let path = path.display();
    ListError::new([
        format!(
            "{path}, line {line}: it is longer than 1 MiB (is a quote left open, or is this no list?)"
        ),
        format!("{path} 第 {line} 行：超过 1 MiB（是引号没有闭合，还是这不是名单？）"),
    ])
}

fn broken_utf8(path: &Path, line: u64) -> ListError {
    let path = path.display();
    ListError::new([
        format!(
            "{path}, line {line}: bytes that are no text in a list that otherwise is UTF-8; correct that line (was it \
             cut off, or pasted from another encoding?)"
        ),
        format!(
            "{path} 第 {line} 行：名单是 UTF-8，但此处有不成文字的字节；请改正该行（是被截断，还是混入了其他编码？）"
        ),
    ])
}

enum Found {
    Text(&'static encoding_rs::Encoding),
    /// It is UTF-8 but for some bytes, the first of which is there.
    BrokenUtf8(u64),
}

/// Errors after which it is decided what the text is.
const ENOUGH: u64 = 1_000;

/// Looks at the whole of it. Two characters of three bytes to each error are no chance: of two characters that follow
/// each other in GB18030, less than one in fifty looks like one of UTF-8, and nearly all others are errors.
fn find_encoding(file: &mut File) -> io::Result<Found> {
    let mut raw = Vec::with_capacity(PIECE);
    let mut text = String::with_capacity(3 * PIECE + 16);
    let mut decoder = UTF_8.new_decoder_without_bom_handling();
    let (mut offset, mut characters, mut errors, mut first) = (0, 0, 0, 0);
    for piece in 0.. {
        let count = Read::take(&mut *file, PIECE as u64).read_to_end(&mut raw)?;
        if piece == 0
            && let Some((encoding, _)) = encoding_rs::Encoding::for_bom(&raw)
        {
            return Ok(Found::Text(encoding));
        }
        let mut at = 0;
        loop {
            text.clear();
            text.reserve(3 * raw.len() + 16);
            let (result, taken) =
                decoder.decode_to_string_without_replacement(&raw[at..], &mut text, count == 0);
            (at, offset) = (at + taken, offset + taken as u64);
            characters += text.bytes().filter(|byte| *byte >= 0xe0).count() as u64;
            if !matches!(result, DecoderResult::Malformed(..)) {
                break;
            }
            errors += 1;
            if errors == 1 {
                first = offset;
            }
            if errors == ENOUGH && characters < errors {
                return Ok(Found::Text(GB18030));
            }
        }
        raw.drain(..at);
        if count == 0 {
            break;
        }
    }
    Ok(match errors {
        0 => Found::Text(UTF_8),
        _ if characters >= 2 * errors && characters >= 2 => Found::BrokenUtf8(first),
        _ => Found::Text(GB18030),
    })
}

/// The number of the line that the byte before `end` is in.
fn line_of(file: &mut File, end: u64) -> io::Result<u64> {
    let (mut line, mut before) = (1, b' ');
    let bytes = io::BufReader::new(Read::take(file, end.saturating_sub(1))).bytes();
    for byte in bytes {
        let byte = byte?;
        line += u64::from(byte == b'\n' && before != b'\r' || byte == b'\r');
        before = byte;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(bytes: &[u8]) -> Result<(Encoding, Vec<String>), ListError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut lines = Lines::open(file, Path::new("people.txt"))?;
        let mut all = Vec::new();
        while let Some(line) = lines.next()? {
            all.push(line.to_owned());
        }
        assert_eq!(lines.line(), all.len() as u64);
        Ok((lines.encoding(), all))
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn each_encoding_is_found_and_read() {
        let text = "张三\r\n\n一二 😀\n末";
        let expected = ["张三", "", "一二 😀", "末"];
        let gbk = GB18030.encode(text).0.into_owned();
        for (bytes, encoding) in [
            (text.as_bytes().to_vec(), Encoding::Utf8),
            (format!("\u{feff}{text}").into_bytes(), Encoding::Utf8),
            (gbk, Encoding::Gb18030),
            (utf16(text, u16::to_le_bytes), Encoding::Utf16),
            (utf16(text, u16::to_be_bytes), Encoding::Utf16),
        ] {
            let (found, all) = lines(&bytes).unwrap();
            assert_eq!((found, &all[..]), (encoding, &expected.map(str::to_owned)[..]));
        }
    }

    #[test]
    fn characters_are_whole_wherever_a_piece_ends() {
        for shift in 0..8 {
            let text = format!("{}{}\nend", "x".repeat(shift), "张".repeat(PIECE));
            for bytes in [text.as_bytes().to_vec(), GB18030.encode(&text).0.into_owned()] {
                let all = lines(&bytes).unwrap().1;
                assert_eq!(all.join("\n"), text);
            }
        }
    }

    #[test]
    fn a_line_ends_with_either_or_both_wherever_a_piece_ends() {
        for shift in 0..3 {
            let long = "x".repeat(PIECE - 2 + shift);
            for end in ["\r", "\n", "\r\n"] {
                let text = format!("{long}{end}{end}b{end}c");
                assert_eq!(lines(text.as_bytes()).unwrap().1, [&long, "", "b", "c"], "{end:?}");
                let text = format!("{long}{end}");
                assert_eq!(lines(text.as_bytes()).unwrap().1, [&long[..]], "{end:?}");
            }
        }
    }

    #[test]
    fn short_gbk_at_the_end_of_a_long_text_decides_for_all_of_it() {
        let mut bytes = b"openid\n".repeat(PIECE);
        bytes.extend_from_slice(&GB18030.encode("张").0);
        let (encoding, all) = lines(&bytes).unwrap();
        assert_eq!((encoding, all.last().unwrap().as_str()), (Encoding::Gb18030, "张"));
        let cut = &bytes[..bytes.len() - 1];
        assert!(lines(cut).unwrap_err().to_string().contains("line 65537: this is neither UTF-8"));
    }

    #[test]
    fn a_utf8_list_with_a_broken_byte_is_not_taken_for_gbk() {
        let names = "openid,name\r\no1,张三\r\no2,李四\r\n";
        for (broken, line) in [
            // Cut off within a character, and in the middle of a text.
            ([names.as_bytes(), b"o3,\xe7\x8e"].concat(), 4),
            ([names.as_bytes(), b"o3,\xd5\xc5\r\n", names.repeat(PIECE).as_bytes()].concat(), 4),
            ([b"o1,\xff\n".as_slice(), names.as_bytes()].concat(), 1),
        ] {
            let error = lines(&broken).unwrap_err().to_string();
            let said = format!("line {line}: bytes that are no text in a list that otherwise");
            assert!(error.contains(&said), "{error}");
        }
    }

    #[test]
    fn no_gbk_is_taken_for_broken_utf8() {
        // All characters of GB2312, in the order of its table and in others.
        let bytes: Vec<[u8; 2]> =
            (0xb0..=0xf7).flat_map(|lead| (0xa1..=0xfe).map(move |trail| [lead, trail])).collect();
        let known = |pair: &&[u8; 2]| !GB18030.decode(&pair[..]).2;
        let known: Vec<[u8; 2]> = bytes.iter().filter(known).copied().collect();
        for step in [1, 7, 101, 977] {
            let mixed: Vec<u8> =
                (0..known.len()).flat_map(|n| known[n * step % known.len()]).collect();
            assert_eq!(lines(&mixed).unwrap().0, Encoding::Gb18030, "{step}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_line() {
        for (bytes, said) in [
            (&b"o1\no2\n\xff\xff\no3"[..], "line 3: this is neither UTF-8 nor GB18030"),
            (b"\xef\xbb\xbfo1\n\xd5\xc5", "line 2: this is no UTF-8, as its beginning says"),
            (b"\xff\xfeo\0\n\0\0\xdc", "line 2: this is no UTF-16, as its beginning says"),
        ] {
            let error = lines(bytes).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_and_an_empty_text_has_none() {
        let error = lines(&vec![b'x'; 3 * LONGEST]).unwrap_err();
        assert!(error.to_string().contains("line 1: it is longer than 1 MiB"), "{error}");
        assert_eq!(lines(b"").unwrap().1.len(), 0);
    }
}
