//! How a segment's file is called, and how it begins. Reads headers and lays them out; knows nothing
//! of records.
//!
//! ```text
//! offset size
//!      0    8  magic   "MEGAQSEG"
//!      8    4  version 2; 1 has other records, and nothing behind offset 88
//!     12    4  header's size, 128: where records begin
//!     16    8  number
//!     24    8  origin  drawn by chance when the queue was made
//!     32    8  created, Unix time in ms
//!     40    8  the file's size
//!     48    4  CRC-32 of bytes 0-47
//!     64    4  end     offset behind the last record once the segment is sealed, else 0; written
//!                      when no older record waits for one in here (Q4)
//!     68    4  end with every bit inverted, as follows each of the next ones too
//!     72    8  records appended          a hint for status; recovery counts for itself
//!     80    8  records done              a hint for status; recovery counts for itself
//!     88   16  ids     every id that was given before this segment became the tail is below (Q6)
//!    104    8  durable  everything before this offset was covered by a sync that succeeded (M1)
//!    112    8  settled  so were the marks of all that the retries before this offset replace (Q4)
//!    120    8  follows  number of the segment before this one that may hold messages, 0: none before;
//!                      with every bit of it inverted, or all zeros where nobody knows
//! ```
//! What stands from 64 on is written together. `durable` and `settled` are statements of what has
//! happened: it does no harm if an older one is found after a loss of power.

use super::disk::File;
use super::reader::Reader;
use byteorder::{ByteOrder, LittleEndian};
use std::sync::Arc;

/// Bytes before the first record.
pub const HEADER: usize = 128;
pub const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"MEGAQSEG";
const CRC: usize = 48;
/// Where the part begins that changes.
pub const STATE: usize = 64;
/// Where the number stands of the segment before.
pub const FOLLOWS: usize = 120;

/// Follows the name of a file that is kept because something in it was damaged.
const BAD: &str = ".bad";
const FRESH: &str = ".new";

/// The file name of a segment; names sort as numbers do.
pub fn name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// The name of one that is set aside.
pub fn bad_name(number: u64) -> String {
    name(number) + BAD
}

/// The number in a segment's file name.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// The name of one until it takes the place of what stands there.
pub fn fresh_name(number: u64) -> String {
    name(number) + FRESH
}

/// Such a name: what an end in between has left.
pub fn is_fresh(name: &str) -> bool {
    name.strip_suffix(FRESH).and_then(number).is_some()
}

/// The number in the name of a segment that is set aside.
pub fn bad_number(name: &str) -> Option<u64> {
    number(name.strip_suffix(BAD)?)
}

/// Why a file is not a segment of this queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    TooShort { size: usize },
    NotASegment,
    HeaderDamaged,
    NewerVersion { version: u32 },
    OtherQueue,
    OtherNumber { number: u64 },
    Truncated { size: usize, wanted: u64 },
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Unusable::TooShort { size: 0 } => write!(f, "the file is empty"),
            Unusable::TooShort { size } => write!(f, "{size} bytes are too few for a header"),
            Unusable::NotASegment => write!(f, "it does not begin as a segment does"),
            Unusable::HeaderDamaged => write!(f, "its header fails its checksum"),
            Unusable::NewerVersion { version } => {
                write!(f, "format version {version} is newer than {VERSION}, which this mega reads")
            }
            Unusable::OtherQueue => write!(f, "it belongs to another queue"),
            Unusable::OtherNumber { number } => write!(f, "its header says it is segment {number}"),
            Unusable::Truncated { size, wanted } => {
                write!(f, "it has {size} of its {wanted} bytes")
            }
        }
    }
}

/// The header of a file, as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; HEADER],
    /// The file's.
    size: usize,
}

impl Header {
    /// Of a file in which nothing is yet.
    pub fn fresh(origin: u64, number: u64, now: u64, size: usize) -> Header {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        LittleEndian::write_u32_into(&[VERSION, HEADER as u32], &mut bytes[8..16]);
        let words = [number, origin, now, size as u64];
        LittleEndian::write_u64_into(&words, &mut bytes[16..CRC]);
        let crc = crc32fast::hash(&bytes[..CRC]);
        LittleEndian::write_u32(&mut bytes[CRC..], crc);
        Header { bytes, size }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What cannot be read of it counts as zeros.
    pub fn read(file: &Arc<dyn File>) -> Header {
        let mut bytes = [0; HEADER];
        let size = file.size();
        let there = size.min(HEADER);
        bytes[..there]
            .copy_from_slice(Reader::new(Arc::clone(file), there, HEADER).bytes(0..there));
        Header { bytes, size }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    fn word(&self, at: usize) -> u64 {
        LittleEndian::read_u64(&self.bytes[at..])
    }

    pub fn version(&self) -> u32 {
        LittleEndian::read_u32(&self.bytes[8..])
    }

    fn passes(&self) -> bool {
        LittleEndian::read_u32(&self.bytes[CRC..]) == crc32fast::hash(&self.bytes[..CRC])
    }

    /// The origin it names, if it can be trusted.
    pub fn origin(&self) -> Option<u64> {
        let whole = self.size >= HEADER && self.bytes.starts_with(MAGIC) && self.passes();
        whole.then(|| self.word(24))
    }

    /// Whether it is the one of this segment.
    pub fn check(&self, origin: u64, number: u64) -> Result<(), Unusable> {
        let Header { size, .. } = *self;
        if size < HEADER {
            return Err(Unusable::TooShort { size });
        }
        if !self.bytes.starts_with(MAGIC) {
            return Err(Unusable::NotASegment);
        }
        if !self.passes() {
            return Err(Unusable::HeaderDamaged);
        }
        let version = self.version();
        if version > VERSION {
            return Err(Unusable::NewerVersion { version });
        }
        if self.word(24) != origin {
            return Err(Unusable::OtherQueue);
        }
        match (self.word(16), self.word(40)) {
            (other, _) if other != number => Err(Unusable::OtherNumber { number: other }),
            (_, wanted) if wanted > size as u64 => Err(Unusable::Truncated { size, wanted }),
            _ => Ok(()),
        }
    }

    /// A number that is followed by its inverse.
    fn checked(&self, at: usize) -> Option<u32> {
        let word = self.word(at);
        let (number, inverse) = (word as u32, (word >> 32) as u32);
        (number == !inverse).then_some(number)
    }

    /// Such an offset in the file.
    fn offset(&self, at: usize) -> Option<usize> {
        let offset = self.checked(at)? as usize;
        (HEADER..=self.size).contains(&offset).then_some(offset)
    }

    /// The end of the last record, if it is sealed.
    pub fn end(&self) -> Option<usize> {
        self.offset(STATE)
    }

    pub fn records(&self) -> u64 {
        self.word(72)
    }

    pub fn done(&self) -> u64 {
        self.word(80)
    }

    /// Below it no id is free.
    pub fn ids(&self) -> u64 {
        let ids = self.word(88);
        if self.word(96) == !ids { ids } else { 0 }
    }

    pub fn durable(&self) -> Option<usize> {
        self.offset(104)
    }

    pub fn marked(&self) -> Option<usize> {
        self.offset(112)
    }

    pub fn follows(&self) -> Option<u64> {
        self.checked(FOLLOWS).map(u64::from)
    }
}

/// The part of a header that changes.
pub struct State {
    pub end: Option<usize>,
    pub records: u64,
    pub done: u64,
    pub ids: u64,
    pub durable: usize,
    pub marked: usize,
    pub follows: Option<u64>,
}

impl State {
    pub fn encode(&self) -> [u8; HEADER - STATE] {
        let mut bytes = [0; HEADER - STATE];
        let ids = if self.ids > 0 { [self.ids, !self.ids] } else { [0; 2] };
        let [durable, marked] = [self.durable, self.marked].map(twice);
        let end = self.end.map_or(0, twice);
        let words = [end, self.records, self.done, ids[0], ids[1], durable, marked];
        LittleEndian::write_u64_into(&words, &mut bytes[..FOLLOWS - STATE]);
        bytes[FOLLOWS - STATE..].copy_from_slice(&follows(self.follows));
        bytes
    }
}

/// With every bit inverted behind it.
fn twice(offset: usize) -> u64 {
    u64::from(!(offset as u32)) << 32 | offset as u64
}

/// What stands at `FOLLOWS`.
pub fn follows(number: Option<u64>) -> [u8; 8] {
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.map_or(0, |number| twice(number as usize)).to_le_bytes()
}
