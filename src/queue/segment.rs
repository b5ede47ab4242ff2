//! One segment file: its header, its name, and the part of it that is in use. Owned by the queue;
//! knows nothing of the order of hand-outs.
//!
//! ```text
//! offset size
//!      0    8  magic   "MEGAQSEG"
//!      8    4  version 2; in 1 no record has a client_msg_id of its own
//!     12    4  header's size, 128: where records begin
//!     16    8  number
//!     24    8  queue id, drawn by chance when the queue was made
//!     32    8  created, Unix time in ms
//!     40    8  the file's size
//!     48    4  CRC-32 of bytes 0-47
//!     64    4  end     offset behind the last record once the segment is sealed, else 0; written
//!                      when everything in it is durable and no older record waits for it (Q4)
//!     68    4  end with every bit inverted, so that a damaged one is noticed
//!     72    8  records appended          a hint for status; recovery counts for itself
//!     80    8  records done              a hint for status; recovery counts for itself
//! ```

use super::disk::Map;
use super::record::{self, Parts, Record};
use byteorder::{ByteOrder, LittleEndian};
use std::io;
use std::sync::Arc;

/// Bytes before the first record.
pub const HEADER: usize = 128;
pub const VERSION: u32 = 2;

/// A buffer of unwritten records that one burst blew up is let go above this size.
const KEPT: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"MEGAQSEG";
const CRC: usize = 48;
const END: usize = 64;
const RECORDS: usize = 72;
const DONE: usize = 80;

/// Follows the name of a file that is kept because something in it was damaged.
pub const BAD: &str = ".bad";

/// The file name of a segment; names sort as numbers do.
pub fn name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// The number in a segment's file name.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
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

/// One mapped segment and how much of it is in use.
pub struct Segment {
    pub map: Arc<Map>,
    pub number: u64,
    queue: u64,
    /// Offset behind the last record.
    pub end: usize,
    /// The last records before the end, as far as they are not in the file yet.
    unwritten: Vec<u8>,
    /// Nothing is appended any more, whether the header says so already or not.
    pub sealed: bool,
    /// The header says so: no older record waits for one in here (Q4).
    pub settled: bool,
    /// Something in it was damaged: it is set aside instead of deleted.
    pub damaged: bool,
    /// Written or stored to since the last sync.
    pub dirty: bool,
    /// Records were written since the last sync: what `sync = always` waits for.
    pub appended: bool,
    /// Records that the cursor has passed and that are not done (invariant Q3).
    pub outstanding: u32,
    /// Ready records that the queue's depth counts and the cursor has not passed yet; off by the
    /// header's error until the cursor leaves the segment.
    pub unread: i64,
}

impl Segment {
    /// Writes the header of a fresh file.
    pub fn format(map: Map, queue: u64, number: u64, now: u64) -> io::Result<Segment> {
        let mut header = [0; CRC + 4];
        header[..8].copy_from_slice(MAGIC);
        LittleEndian::write_u32_into(&[VERSION, HEADER as u32], &mut header[8..16]);
        let words = [number, queue, now, map.size() as u64];
        LittleEndian::write_u64_into(&words, &mut header[16..CRC]);
        let crc = crc32fast::hash(&header[..CRC]);
        LittleEndian::write_u32(&mut header[CRC..], crc);
        map.write(0, &header)?;
        Ok(Segment::new(map, queue, number))
    }

    fn new(map: Map, queue: u64, number: u64) -> Segment {
        Segment {
            map: Arc::new(map),
            number,
            queue,
            end: HEADER,
            unwritten: Vec::new(),
            sealed: false,
            settled: false,
            damaged: false,
            dirty: false,
            appended: false,
            outstanding: 0,
            unread: 0,
        }
    }

    /// The queue id in a header, if the header can be trusted.
    pub fn queue_of(map: &Map) -> Option<u64> {
        let header = map.bytes(0..map.size().min(HEADER));
        let whole = header.len() == HEADER && &header[..8] == MAGIC;
        let crc = || LittleEndian::read_u32(&header[CRC..]) == crc32fast::hash(&header[..CRC]);
        (whole && crc()).then(|| LittleEndian::read_u64(&header[24..]))
    }

    /// Checks the header of an existing file.
    pub fn check(map: &Map, queue: u64, number: u64) -> Result<(), Unusable> {
        let size = map.size();
        if size < HEADER {
            return Err(Unusable::TooShort { size });
        }
        let header = map.bytes(0..HEADER);
        if &header[..8] != MAGIC {
            return Err(Unusable::NotASegment);
        }
        if LittleEndian::read_u32(&header[CRC..]) != crc32fast::hash(&header[..CRC]) {
            return Err(Unusable::HeaderDamaged);
        }
        let version = LittleEndian::read_u32(&header[8..]);
        if version > VERSION {
            return Err(Unusable::NewerVersion { version });
        }
        let mut words = [0; 4];
        LittleEndian::read_u64_into(&header[16..CRC], &mut words);
        let [own_number, own_queue, _, wanted] = words;
        if own_queue != queue {
            return Err(Unusable::OtherQueue);
        }
        if own_number != number {
            return Err(Unusable::OtherNumber { number: own_number });
        }
        match wanted > size as u64 {
            true => Err(Unusable::Truncated { size, wanted }),
            false => Ok(()),
        }
    }

    /// Takes a file for the segment its name says it is. It is sealed if its header says so in a
    /// way that can be trusted; else recovery looks for its end.
    pub fn open(map: Map, queue: u64, number: u64) -> Segment {
        let mut segment = Segment::new(map, queue, number);
        let size = segment.map.size();
        if size >= HEADER {
            let word = segment.map.load(END);
            let (end, inverted) = (word as u32, (word >> 32) as u32);
            if end == !inverted && (HEADER..=size).contains(&(end as usize)) {
                segment.end = end as usize;
                (segment.sealed, segment.settled) = (true, true);
            }
        }
        segment
    }

    pub fn place(&self, at: usize) -> record::Place {
        record::Place { queue: self.queue, segment: self.number, at }
    }

    /// The queue that it belongs to.
    pub fn origin(&self) -> u64 {
        self.queue
    }

    /// There is a record in it, or what is left of one.
    pub fn is_used(&self) -> bool {
        self.end > HEADER || self.sealed
    }

    pub fn fits(&self, size: usize) -> bool {
        !self.sealed && size <= self.map.size() - self.end
    }

    /// Adds a record and returns its offset. It is in the file after `write_out`.
    pub(super) fn append(&mut self, record: &Record, parts: Parts) -> usize {
        let at = self.end;
        let place = self.place(at);
        record::encode(&mut self.unwritten, place, record, parts);
        self.end += record.size();
        // A damaged counter may stand at its end.
        self.map.put_word(RECORDS, self.map.load(RECORDS).wrapping_add(1));
        at
    }

    /// Bytes of records that are not in the file yet.
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Offset behind the last record that is in the file.
    pub fn written(&self) -> usize {
        self.end - self.unwritten.len()
    }

    pub fn write_out(&mut self) -> io::Result<()> {
        self.map.write(self.written(), &self.unwritten)?;
        self.unwritten.clear();
        self.unwritten.shrink_to(if self.sealed { 0 } else { KEPT });
        (self.dirty, self.appended) = (true, true);
        Ok(())
    }

    /// Says in the file that nothing will follow.
    pub fn seal(&mut self) {
        let end = self.end as u32;
        self.map.put_word(END, u64::from(!end) << 32 | u64::from(end));
        (self.sealed, self.settled) = (true, true);
        self.dirty = true;
    }

    /// Records that the header's counters call not done; no more than there can be, whatever a
    /// damaged header says.
    pub fn claimed(&self) -> u64 {
        let possible = (self.end - HEADER) / record::HEAD;
        self.map.load(RECORDS).saturating_sub(self.map.load(DONE)).min(possible as u64)
    }

    pub fn count_done(&self) {
        self.map.put_word(DONE, self.map.load(DONE).wrapping_add(1));
    }

    /// Corrects the counters after recovery counted for itself.
    pub fn recount(&self, records: u64, done: u64) {
        self.map.put_word(RECORDS, records);
        self.map.put_word(DONE, done);
    }
}
