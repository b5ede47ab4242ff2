//! The byte layout of one record and its checks. Reads where it is told, knows nothing of
//! segments in order.
//!
//! ```text
//! offset size
//!      0    4  crc     CRC-32 of the seed and of bytes 24 to the payload's end
//!      4    1  state   0x0F ready, 0xF0 done
//!      5    1  attempts  hand-outs so far
//!      6    2  mark    0x526D: a record starts here
//!      8    8  due     time before which a retry must wait, 0: none
//!     16    8  unclear  time of the first attempt whose outcome is unknown, 0: none; while the message is in
//!                      somebody's hands, the time of that hand-out at the latest (Q2)
//!     24    4  length of the payload: own id, openid, key and data, one after the other
//!     28    4  length of openid
//!     32    4  length of key
//!     36    4  offset of the record that a retry takes the place of, 0: it is no retry
//!     40    8  number of that record's segment
//!     48    8  id      a retry keeps it
//!     56    7  enqueued  Unix time in ms of acceptance; a retry keeps it
//!     63    1  length of an own client_msg_id, 0: it is made of the queue's and the message's id
//!     64       payload, padded with zeros to a multiple of 8
//! ```
//! State, attempts, due and unclear change in place, so they are outside the checksum. The two times
//! have one of their own: Unix time in ms in the lower 48 bits, a check of it in the upper 16.
//! In a segment of version 1 the lengths stand at 8 and what follows them up to `enqueued` behind
//! them; due and unclear are plain, at 48 and 56, under the checksum and never changed.
//!
//! All integers are little-endian. The seed is queue id, segment number and offset, so a record is
//! trusted only in the place where it was written: an image of one inside a payload is not.
//! Records are written from their first byte to their last, so what `kill -9` leaves of one has no
//! end, and nothing stands behind it: that is no record, and no damage either.

use super::Position;
use super::client_msg_id::ClientMsgId;
use super::reader::{PAGE, Reader, is_blank};
use byteorder::{ByteOrder, LittleEndian};
use std::ops::Range;

/// Bytes before the payload.
pub const HEAD: usize = 64;
pub const ALIGN: usize = 8;

const STATE: usize = 4;
const ATTEMPTS: usize = 5;
const DUE: usize = 8;
/// Bytes of a change: from the attempts to the times' end.
pub const CHANGE: usize = 24 - ATTEMPTS;
const MARK: u16 = 0x526D;
/// Of the word that holds the time of acceptance: where the own id's length begins, and the time.
const OWN_ID: u32 = 56;
const ENQUEUED: u64 = (1 << OWN_ID) - 1;
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
    pub origin: u64,
    pub segment: u64,
    /// Of the segment's format.
    pub version: u32,
    pub at: usize,
}

impl Place {
    fn hasher(&self) -> crc32fast::Hasher {
        let mut seed = [0; 24];
        LittleEndian::write_u64_into(&[self.origin, self.segment, self.at as u64], &mut seed);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&seed);
        hasher
    }

    /// Where in the head the checksummed part begins, with the lengths.
    fn covered(self) -> usize {
        if self.version == 1 { 8 } else { 24 }
    }
}

/// A time that is changed in place, with its check.
fn time(ms: u64) -> u64 {
    let ms = ms.min((1 << 48) - 1);
    let check = (ms ^ ms >> 16 ^ ms >> 32) as u16 ^ MARK;
    if ms == 0 { 0 } else { ms | u64::from(check) << 48 }
}

/// 0 for one that was damaged.
fn checked_time(word: u64) -> u64 {
    let ms = word & ((1 << 48) - 1);
    if time(ms) == word { ms } else { 0 }
}

/// Appends a record of the present version whose payload is `parts` in a row, to be written at
/// `place`.
pub fn encode(out: &mut Vec<u8>, place: Place, record: &Record, parts: Parts) {
    let start = out.len();
    let mut head = [0; HEAD];
    head[STATE] = READY;
    head[ATTEMPTS] = record.attempts;
    LittleEndian::write_u16(&mut head[6..8], MARK);
    LittleEndian::write_u64_into(&[time(record.due), time(record.unclear)], &mut head[DUE..24]);
    let (segment, at) = record.replaces.map_or((0, 0), |old| (old.segment, old.at as u32));
    let lengths = [record.length, record.openid, record.key, at];
    LittleEndian::write_u32_into(&lengths, &mut head[24..40]);
    let enqueued = record.enqueued & ENQUEUED | u64::from(record.own_id) << OWN_ID;
    LittleEndian::write_u64_into(&[segment, record.id, enqueued], &mut head[40..]);
    out.extend_from_slice(&head);
    for part in parts {
        out.extend_from_slice(part);
    }
    let mut hasher = place.hasher();
    hasher.update(&out[start + place.covered()..]);
    LittleEndian::write_u32(&mut out[start..], hasher.finalize());
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// What `read` looks at, as far as it is in memory.
pub fn extent(file: &mut Reader, place: Place, end: usize) -> Range<usize> {
    let head = place.at..end.min(place.at + HEAD);
    if head.len() < HEAD || file.must_load(head.clone()) {
        return head;
    }
    let length = LittleEndian::read_u32(&file.bytes(head)[place.covered()..]);
    place.at..end.min(place.at + HEAD + length as usize)
}

/// Reads what stands at `place`; nothing beyond `end` is looked at.
pub fn read(file: &mut Reader, place: Place, end: usize) -> Found {
    if end.saturating_sub(place.at) < HEAD {
        return Found::Nothing;
    }
    let mut head = [0; HEAD];
    head.copy_from_slice(file.bytes(place.at..place.at + HEAD));
    if head[..8] == [0; 8] {
        return Found::Nothing;
    }
    let covered = place.covered();
    let (mut lengths, mut words) = ([0; 4], [0; 3]);
    LittleEndian::read_u32_into(&head[covered..covered + 16], &mut lengths);
    LittleEndian::read_u64_into(&head[covered + 16..covered + 40], &mut words);
    let ([length, openid, key, old_at], [old_segment, id, enqueued]) = (lengths, words);
    let (own_id, enqueued) = ((enqueued >> OWN_ID) as u8, enqueued & ENQUEUED);
    let payload = length as usize;
    if payload > end - place.at - HEAD {
        return Found::Damaged;
    }
    let mut hasher = place.hasher();
    hasher.update(&head[covered..]);
    hasher.update(file.bytes(self::payload(place.at, length)));
    let crc = LittleEndian::read_u32(&head);
    if hasher.finalize() != crc {
        let cut_off = is_cut_off(file, place, &head, payload);
        return if cut_off { Found::Nothing } else { Found::Damaged };
    }
    if u64::from(own_id) + u64::from(openid) + u64::from(key) > u64::from(length) {
        return Found::Damaged;
    }
    let mut times = [0; 2];
    if place.version == 1 {
        LittleEndian::read_u64_into(&head[48..], &mut times);
    } else {
        LittleEndian::read_u64_into(&head[DUE..24], &mut times);
        times = times.map(checked_time);
    }
    let [due, unclear] = times;
    let (done, attempts) = (says_done(head[STATE]), head[ATTEMPTS]);
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
fn is_cut_off(file: &mut Reader, place: Place, head: &[u8; HEAD], length: usize) -> bool {
    let start = place.at + HEAD;
    let payload = file.bytes(start..start + length);
    let there = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut hasher = place.hasher();
    hasher.update(&(there as u32).to_le_bytes());
    hasher.update(&head[place.covered() + 4..]);
    hasher.update(&payload[..there]);
    let whole = hasher.finalize() == LittleEndian::read_u32(head);
    let ends = there > 0 && there == length;
    !whole && !ends && file.is_zero(start + length)
}

/// The first offset from `from` on where a trusted record stands, looking at each aligned offset.
pub fn search(file: &mut Reader, place: Place, end: usize) -> Option<usize> {
    let mut from = place.at.next_multiple_of(ALIGN);
    while let Some(data) = file.next_data(from).filter(|data| data.start < end) {
        from = data.start.next_multiple_of(ALIGN);
        let until = data.end.min(end);
        while from < until {
            let page = from..until.min((from + 1).next_multiple_of(PAGE));
            from = page.end;
            // Most of what was never written is zeros, in which no record starts.
            if is_blank(file.bytes(page.clone())) {
                continue;
            }
            let found = page.step_by(ALIGN).find(|at| {
                // The mark is looked at first: almost every offset of a gap fails there.
                end - at >= HEAD
                    && file.bytes(at + 6..at + 8) == MARK.to_le_bytes()
                    && matches!(read(file, Place { at: *at, ..place }, end), Found::Record(_))
            });
            if found.is_some() {
                return found;
            }
        }
        from = data.end;
    }
    None
}

/// Where the payload's bytes are.
pub fn payload(at: usize, length: u32) -> Range<usize> {
    at + HEAD..at + HEAD + length as usize
}

fn says_done(state: u8) -> bool {
    (state ^ DONE).count_ones() < 4
}

/// What is changed in place of a record that stands in the file.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Done,
    /// What is known of the attempts so far.
    Tried {
        attempts: u8,
        due: u64,
        unclear: u64,
    },
}

impl Change {
    /// Calls `put` with where it is written, from the record's beginning, and what: `CHANGE` bytes at most.
    pub fn encode(self, version: u32, put: impl FnOnce(usize, &[u8])) {
        match self {
            Change::Done => put(STATE, &[DONE]),
            // There the times do not change, and only a restart will have forgotten.
            Change::Tried { attempts, .. } if version == 1 => put(ATTEMPTS, &[attempts]),
            Change::Tried { attempts, due, unclear } => {
                let mut bytes = [0; CHANGE];
                bytes[0] = attempts;
                LittleEndian::write_u16(&mut bytes[1..3], MARK);
                LittleEndian::write_u64_into(&[time(due), time(unclear)], &mut bytes[3..]);
                put(ATTEMPTS, &bytes);
            }
        }
    }
}
