//! The byte layout of one record and its checks. Pure: reads a `Map` where it is told, knows
//! nothing of segments in order.
//!
//! ```text
//! offset size
//!      0    4  crc     CRC-32 of the seed and of bytes 8 to the payload's end
//!      4    1  state   0x0F ready, 0xF0 done  changes in place, outside the checksum
//!      5    1  attempts  hand-outs so far     changes in place, outside the checksum
//!      6    2  mark    0x526D: a record starts here
//!      8    4  length of the payload: own id, openid, key and data, one after the other
//!     12    4  length of openid
//!     16    4  length of key
//!     20    4  offset of the record that a retry takes the place of, 0: it is no retry
//!     24    8  number of that record's segment
//!     32    8  id      what client_msg_id is made of; a retry keeps it
//!     40    7  enqueued  Unix time in ms of acceptance; a retry keeps it
//!     47    1  length of an own client_msg_id, 0: it is made of the queue's and the message's id
//!     48    8  due     Unix time in ms before which a retry must wait, 0: none
//!     56    8  unclear  Unix time in ms of the first attempt whose outcome is unknown, 0: none
//!     64       payload, padded with zeros to a multiple of 8
//! ```
//! All integers are little-endian. The seed is queue id, segment number and offset, so a record is
//! trusted only in the place where it was written: an image of one inside a payload is not.
//! Records are written from their first byte to their last, so what `kill -9` leaves of one has no
//! end, and nothing stands behind it: that is no record, and no damage either.

use super::Position;
use super::client_msg_id::ClientMsgId;
use super::disk::Map;
use byteorder::{ByteOrder, LittleEndian};
use std::ops::Range;

/// Bytes before the payload.
pub const HEAD: usize = 64;
pub const ALIGN: usize = 8;

const STATE: usize = 4;
const ATTEMPTS: usize = 5;
/// Where the checksummed part begins.
const LENGTH: usize = 8;
const MARK: u16 = 0x526D;
/// Of the word that holds the time of acceptance: where the own id's length begins, and the time.
const OWN_ID: u32 = 56;
const TIME: u64 = (1 << OWN_ID) - 1;
/// Every bit differs, so that up to three flipped ones change no state; at four it counts as ready.
const READY: u8 = 0x0F;
const DONE: u8 = 0xF0;

/// What a record says beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub done: bool,
    pub attempts: u8,
    pub openid: u32,
    pub key: u32,
    pub length: u32,
    /// Bytes of an own client_msg_id, with which the payload begins.
    pub own_id: u8,
    /// Where the record stands that this one, a retry, takes the place of.
    pub replaces: Option<Position>,
    pub id: u64,
    pub enqueued: u64,
    pub due: u64,
    pub unclear: u64,
}

impl Record {
    /// One that was just accepted.
    pub fn fresh(id: u64, [own_id, openid, key, data]: Parts, now: u64) -> Record {
        Record {
            done: false,
            attempts: 0,
            openid: openid.len() as u32,
            key: key.len() as u32,
            length: (own_id.len() + openid.len() + key.len() + data.len()) as u32,
            own_id: own_id.len() as u8,
            replaces: None,
            id,
            enqueued: now,
            due: 0,
            unclear: 0,
        }
    }

    /// What WeChat knows the message by, of which this is the record and `payload` its bytes.
    pub fn client_msg_id(&self, origin: u64, payload: &[u8]) -> ClientMsgId {
        let own = ClientMsgId::new(&payload[..usize::from(self.own_id)]);
        own.unwrap_or_else(|| ClientMsgId::of(origin, self.id))
    }

    /// The parts of `payload`.
    pub fn parts<'a>(&self, payload: &'a [u8]) -> Parts<'a> {
        let (own_id, rest) = payload.split_at(usize::from(self.own_id));
        let (openid, rest) = rest.split_at(self.openid as usize);
        let (key, data) = rest.split_at(self.key as usize);
        [own_id, openid, key, data]
    }

    /// Bytes it takes in the file.
    pub fn size(&self) -> usize {
        size(self.length as usize)
    }
}

/// Bytes a record with such a payload takes in the file.
pub fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(ALIGN)
}

/// A payload: own client_msg_id, openid, key, data.
pub type Parts<'a> = [&'a [u8]; 4];

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Record(Record),
    /// No record is here, or only the beginning of one.
    Nothing,
    /// A record was written here and cannot be trusted any more.
    Damaged,
}

/// Where a record stands: what its checksum is seeded with.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub queue: u64,
    pub segment: u64,
    pub at: usize,
}

impl Place {
    fn hasher(&self) -> crc32fast::Hasher {
        let mut seed = [0; 24];
        LittleEndian::write_u64_into(&[self.queue, self.segment, self.at as u64], &mut seed);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&seed);
        hasher
    }
}

/// Appends a record whose payload is `parts` in a row, to be written at `place`.
pub fn encode(out: &mut Vec<u8>, place: Place, record: &Record, parts: Parts) {
    let start = out.len();
    let mut head = [0; HEAD];
    head[STATE] = READY;
    head[ATTEMPTS] = record.attempts;
    LittleEndian::write_u16(&mut head[6..8], MARK);
    let (segment, at) = record.replaces.map_or((0, 0), |old| (old.segment, old.at as u32));
    let lengths = [record.length, record.openid, record.key, at];
    LittleEndian::write_u32_into(&lengths, &mut head[LENGTH..24]);
    let enqueued = record.enqueued & TIME | u64::from(record.own_id) << OWN_ID;
    let words = [segment, record.id, enqueued, record.due, record.unclear];
    LittleEndian::write_u64_into(&words, &mut head[24..]);
    out.extend_from_slice(&head);
    for part in parts {
        out.extend_from_slice(part);
    }
    let mut hasher = place.hasher();
    hasher.update(&out[start + LENGTH..]);
    LittleEndian::write_u32(&mut out[start..], hasher.finalize());
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Reads what stands at `place`; nothing beyond `end` is looked at.
pub fn read(map: &Map, place: Place, end: usize) -> Found {
    if end.saturating_sub(place.at) < HEAD {
        return Found::Nothing;
    }
    let first = map.load(place.at).to_le_bytes();
    if first == [0; 8] {
        return Found::Nothing;
    }
    let head = map.bytes(place.at + LENGTH..place.at + HEAD);
    let mut lengths = [0; 4];
    LittleEndian::read_u32_into(&head[..16], &mut lengths);
    let [length, openid, key, old_at] = lengths;
    let payload = length as usize;
    if payload > end - place.at - HEAD || openid as u64 + key as u64 > length as u64 {
        return Found::Damaged;
    }
    let mut hasher = place.hasher();
    hasher.update(map.bytes(place.at + LENGTH..place.at + HEAD + payload));
    let crc = LittleEndian::read_u32(&first);
    if hasher.finalize() != crc {
        let cut_off = is_cut_off(map, place, crc, payload);
        return if cut_off { Found::Nothing } else { Found::Damaged };
    }
    let mut words = [0; 5];
    LittleEndian::read_u64_into(&head[16..], &mut words);
    let [old_segment, id, enqueued, due, unclear] = words;
    let (own_id, enqueued) = ((enqueued >> OWN_ID) as u8, enqueued & TIME);
    if u64::from(own_id) + openid as u64 + key as u64 > length as u64 {
        return Found::Damaged;
    }
    let (done, attempts) = (says_done(first[STATE]), first[ATTEMPTS]);
    let old = Position { segment: old_segment, at: old_at as usize };
    let replaces = (old_at > 0).then_some(old);
    Found::Record(Record {
        done,
        attempts,
        openid,
        key,
        length,
        own_id,
        replaces,
        id,
        enqueued,
        due,
        unclear,
    })
}

/// Whether a record that fails its checksum is one whose write was cut off: it has no end, and
/// nothing stands behind it. One whose length was damaged may look like that; then the checksum
/// holds for the length that it has.
fn is_cut_off(map: &Map, place: Place, crc: u32, length: usize) -> bool {
    let start = place.at + HEAD;
    let payload = map.bytes(start..start + length);
    let there = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if there > 0 && there == length || !map.is_zero(start + length) {
        return false;
    }
    let mut hasher = place.hasher();
    hasher.update(&(there as u32).to_le_bytes());
    hasher.update(map.bytes(place.at + LENGTH + 4..start));
    hasher.update(&payload[..there]);
    hasher.finalize() != crc
}

/// The first offset from `from` on where a trusted record stands, looking at each aligned offset.
pub fn search(map: &Map, place: Place, end: usize) -> Option<usize> {
    let mut from = place.at.next_multiple_of(ALIGN);
    while let Some(data) = map.next_data(from).filter(|data| data.start < end) {
        let range = data.start.next_multiple_of(ALIGN)..data.end.min(end);
        let found = range.step_by(ALIGN).find(|at| {
            // The mark is looked at first: almost every offset of a gap fails there.
            end - at >= HEAD
                && (map.load(*at) >> 48) as u16 == MARK
                && matches!(read(map, Place { at: *at, ..place }, end), Found::Record(_))
        });
        if found.is_some() {
            return found;
        }
        from = data.end;
    }
    None
}

/// Where the payload's bytes are.
pub fn payload(at: usize, length: u32) -> Range<usize> {
    at + HEAD..at + HEAD + length as usize
}

pub fn mark_done(map: &Map, at: usize) {
    map.put_byte(at + STATE, DONE);
}

pub fn is_done(map: &Map, at: usize) -> bool {
    says_done(map.load(at).to_le_bytes()[STATE])
}

fn says_done(state: u8) -> bool {
    (state ^ DONE).count_ones() < 4
}

pub fn put_attempts(map: &Map, at: usize, attempts: u8) {
    map.put_byte(at + ATTEMPTS, attempts);
}
