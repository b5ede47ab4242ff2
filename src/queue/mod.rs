//! The queue: messages on disk between acceptance and outcome. Owned by one thread, the spool;
//! slow file work is handed out as chores for the janitor. Never touches a socket.
//!
//! # Shape
//!
//! A folder of segment files `NNNNNNNNNNNNNNNNNNNN.seg` of one size, really allocated before they
//! are mapped, so that a full disk is an error code and marking a message done never needs space.
//! Records are appended to the last segment (the tail); a cursor walks all segments once, from the
//! first to the tail, and hands messages out. `segment` and `record` hold the byte layouts.
//!
//! ```text
//!   00..07.seg   00..08.seg   00..0B.seg     00..0C.seg
//!   dddddddrdd   rddrrrrrrr   rrrrrrr....    (spare, empty)
//!                   ^ cursor         ^ end of the tail
//! ```
//!
//! # Invariants
//!
//! - Q1: a message is accepted when its record is in the mapped file, that is after `write_out`;
//!   from then on only `done` ends it, and `done` is called only when its outcome is known.
//! - Q2: handing out is not doing: the record stays ready, so a crash hands it out again, with the
//!   same id.
//! - Q3: `outstanding` of a segment counts the records that the cursor has passed and that are not
//!   done. A sealed segment behind the cursor with none outstanding is finished and is retired.
//! - Q4: a retry is a new record at the tail with the old one's id; the old one is marked done when
//!   the new one is durable. A crash between the two leaves both, and recovery ends the old one: it
//!   reads every segment that is not sealed, and a segment is sealed in the file only when nothing
//!   older waits for a record in it.
//! - Q5: records at or behind `ours_from` with a due time are in the heap already; the cursor
//!   passes them by.
//! - Q6: ids grow over restarts and are never used twice: the upper bits are the time of opening.
//!
//! # Limits
//!
//! A record must fit into a segment. Message ids allow 2^20 messages per millisecond. The heap of
//! due times holds `HEAP_LIMIT` entries; beyond that the cursor rests until some are done.

mod client_msg_id;
mod cursor;
pub mod disk;
pub mod inspect;
pub mod janitor;
pub mod message;
mod record;
mod recover;
mod segment;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;

pub use client_msg_id::ClientMsgId;
pub use janitor::{Chore, ChoreDone};
pub use message::{Message, Ticket};
pub use trouble::{Damage, OpenError, Refused};

use disk::Disk;
use inspect::Summary;
use record::{Parts, Record};
use segment::Segment;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

/// Bits of a message id below the time of opening.
const COUNTER_BITS: u32 = 20;

/// Due times in memory, 24 bytes each.
const HEAP_LIMIT: usize = if cfg!(test) { 64 } else { 200_000 };

/// The smallest segment in which a message with a payload of `length` bytes fits.
pub fn segment_size_for(length: usize) -> u64 {
    (segment::HEADER + record::size(length)) as u64
}

pub struct Options {
    pub segment_size: u64,
    /// Bytes of records kept at most, 0 for no limit.
    pub max_bytes: u64,
}

/// What a client hands in.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    pub openid: &'a [u8],
    pub key: &'a [u8],
    pub data: &'a [u8],
}

impl<'a> New<'a> {
    fn parts(self, own_id: &'a [u8]) -> Parts<'a> {
        [own_id, self.openid, self.key, self.data]
    }
}

/// A record that `holding` found.
#[derive(Debug)]
pub struct Held {
    pub id: ClientMsgId,
    pub openid: Box<[u8]>,
    pub enqueued: u64,
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    segment: u64,
    at: usize,
}

pub struct Queue {
    options: Options,
    queue: u64,
    /// In order of their numbers; the last is the tail.
    segments: VecDeque<Segment>,
    spare: Option<Segment>,
    spare_ordered: bool,
    next_number: u64,
    cursor: Position,
    ours_from: Position,
    heap: BinaryHeap<Reverse<(u64, Position)>>,
    next_id: u64,
    /// Off by the errors of the segments' `unread`.
    depth: i64,
    bytes: u64,
    damage: Vec<Damage>,
    chores: VecDeque<Chore>,
    /// What is written when the next sync is done, and how much of it the running one covers.
    unsettled: VecDeque<Unsettled>,
    settling: usize,
    keeps_finished: bool,
}

/// What must not be on the disk before what was stored until now is.
enum Unsettled {
    /// A record whose message goes on as a retry.
    Replaced(Ticket),
    /// A segment in which there is no room any more.
    Full(u64),
}

impl Queue {
    /// Opens the folder, creating what a new queue needs. `now` is Unix time in ms here and below.
    pub fn open(disk: &dyn Disk, options: Options, now: u64) -> Result<Queue, OpenError> {
        let recovered = recover::recover(disk)?;
        let queue = match recovered.queue {
            Some(queue) => queue,
            None => random().map_err(|error| OpenError::Folder { error })?,
        };
        let mut next_number = recovered.highest_number + 1;
        let mut segments = VecDeque::from(recovered.segments);
        let last_used = segments.iter().rposition(Segment::is_used);
        let mut empty = segments.split_off(last_used.map_or(0, |i| i + 1));
        // What is empty and unsealed comes after the tail, or is the tail of an empty queue.
        if segments.back().is_none_or(|tail| tail.sealed) {
            let tail = match empty.pop_front() {
                Some(segment) => segment,
                None => {
                    next_number += 1;
                    janitor::create(disk, next_number - 1, queue, options.segment_size, now)
                        .map_err(|error| OpenError::NoSpace { error, size: options.segment_size })?
                }
            };
            segments.push_back(tail);
        }
        let tail = segments.back().expect("invariant: a queue has a tail");
        let ours_from = Position { segment: tail.number, at: tail.end };
        let first = segments.front().expect("invariant: a queue has a tail");
        let cursor = Position { segment: first.number, at: segment::HEADER };
        let opened = now.max((recovered.highest_id >> COUNTER_BITS) + 1);
        let mut queue = Queue {
            queue,
            spare: empty.pop_front(),
            spare_ordered: false,
            next_number,
            cursor,
            ours_from,
            heap: BinaryHeap::new(),
            next_id: opened << COUNTER_BITS,
            depth: segments.iter().map(|s| s.unread).sum(),
            bytes: segments.iter().map(|s| s.end as u64).sum(),
            damage: recovered.damage,
            chores: VecDeque::new(),
            unsettled: VecDeque::new(),
            settling: 0,
            keeps_finished: false,
            segments,
            options,
        };
        // More than one empty segment is left only by a crash in the middle of several starts.
        for surplus in empty {
            queue.chores.push_back(Chore::Retire { number: surplus.number, damaged: false });
        }
        queue.order_spare(now);
        Ok(queue)
    }

    /// Takes a message in and returns its id. It survives the end of the process, and can be taken,
    /// after `write_out`.
    pub fn append(&mut self, new: New, now: u64) -> Result<u64, Refused> {
        self.append_parts(new.parts(&[]), now)
    }

    /// Takes a message in that WeChat is to know by `id`, as it may know it already.
    pub fn append_as(&mut self, new: New, id: &ClientMsgId, now: u64) -> Result<u64, Refused> {
        self.append_parts(new.parts(id.as_bytes()), now)
    }

    fn append_parts(&mut self, parts: Parts, now: u64) -> Result<u64, Refused> {
        let id = self.next_id;
        self.write(Record::fresh(id, parts, now), parts, now)?;
        self.next_id += 1;
        Ok(id)
    }

    fn write(&mut self, record: Record, parts: Parts, now: u64) -> Result<Position, Refused> {
        let size = record.size();
        if segment_size_for(record.length as usize) > self.options.segment_size {
            return Err(Refused::TooLarge);
        }
        if self.options.max_bytes > 0 && self.bytes + size as u64 > self.options.max_bytes {
            return Err(Refused::Full);
        }
        if !self.tail().fits(size) {
            self.rotate(now)?;
        }
        let tail = self.tail();
        let at = tail.append(&record, parts);
        tail.unread += 1;
        let segment = tail.number;
        self.depth += 1;
        self.bytes += size as u64;
        Ok(Position { segment, at })
    }

    /// Puts what was appended since the last call into the file, many records at once. After an
    /// error the queue is of no more use: of what was appended, nobody knows how much is there.
    pub fn write_out(&mut self) -> io::Result<()> {
        let behind = self.segments.iter_mut().rev().take_while(|segment| segment.unwritten() > 0);
        for segment in behind {
            segment.write_out()?;
        }
        Ok(())
    }

    /// Bytes for `write_out` to write.
    pub fn unwritten(&self) -> usize {
        self.segments.iter().rev().map(Segment::unwritten).take_while(|bytes| *bytes > 0).sum()
    }

    fn rotate(&mut self, now: u64) -> Result<(), Refused> {
        let Some(next) = self.spare.take() else {
            self.order_spare(now);
            return Err(Refused::NoSegment);
        };
        let tail = self.tail();
        tail.sealed = true;
        let number = tail.number;
        self.unsettled.push_back(Unsettled::Full(number));
        self.bytes += next.end as u64;
        self.segments.push_back(next);
        self.order_spare(now);
        Ok(())
    }

    fn tail(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("invariant: a queue has a tail")
    }

    /// Asks for the next segment unless one is there or under way. Called again after a failure.
    pub fn order_spare(&mut self, now: u64) {
        if self.spare.is_some() || self.spare_ordered {
            return;
        }
        self.spare_ordered = true;
        let (queue, size) = (self.queue, self.options.segment_size);
        let number = self.next_number;
        self.next_number += 1;
        self.chores.push_back(Chore::Create { number, queue, size, now });
    }

    /// Its outcome is known: it will never be handed out again.
    pub fn done(&mut self, ticket: Ticket) {
        let Ticket(position) = ticket;
        let Some(index) = self.index(position.segment) else { return };
        let segment = &mut self.segments[index];
        if record::is_done(&segment.map, position.at) {
            return;
        }
        record::mark_done(&segment.map, position.at);
        segment.count_done();
        segment.dirty = true;
        self.depth -= 1;
        if position < self.cursor {
            segment.outstanding -= 1;
            self.retire_finished(position.segment);
        } else {
            segment.unread -= 1;
        }
    }

    /// Queues a message again, not before `due`. Where there is no room at the tail it keeps its
    /// place, which only delays the end of its segment.
    pub fn retry(&mut self, message: &Message, due: u64, now: u64) {
        let Some(ticket) = message.ticket() else { return };
        let Ticket(old) = ticket;
        let record = Record { due, done: false, replaces: Some(old), ..*message.record() };
        match self.write(record, message.parts(), now) {
            Ok(position) => {
                self.heap.push(Reverse((due, position)));
                self.unsettled.push_back(Unsettled::Replaced(ticket));
                // It is one message still.
                self.depth -= 1;
            }
            Err(_) => self.keep_until(ticket, due),
        }
    }

    /// Takes a message back that was handed out and not sent: no attempt is charged, and it comes
    /// first again in the old order.
    pub fn give_back(&mut self, message: &Message) {
        let Some(ticket) = message.ticket() else { return };
        let Ticket(position) = ticket;
        if let Some(index) = self.index(position.segment) {
            let attempts = message.record().attempts.saturating_sub(1);
            record::put_attempts(&self.segments[index].map, position.at, attempts);
        }
        self.keep_until(ticket, 0);
    }

    /// Takes a message back in its place, not before `due`.
    pub fn keep_until(&mut self, ticket: Ticket, due: u64) {
        self.heap.push(Reverse((due, ticket.0)));
    }

    /// When `take` may have something that it has not now, if it is only waiting for time to pass.
    pub fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// Makes every accepted message durable before it returns: group commit for what was written
    /// since the last call.
    pub fn sync(&mut self) -> io::Result<()> {
        for segment in self.segments.iter_mut().filter(|s| s.appended) {
            segment.map.sync()?;
            segment.appended = false;
        }
        self.settling = self.unsettled.len();
        self.synced();
        Ok(())
    }

    /// Orders a sync of everything written since the last one; false when there is nothing. `synced`
    /// is to be called when it is done, and before the next is ordered.
    pub fn order_sync(&mut self) -> bool {
        let mut maps = Vec::new();
        for segment in self.segments.iter_mut().filter(|s| s.dirty) {
            segment.dirty = false;
            maps.push(Arc::clone(&segment.map));
        }
        let ordered = !maps.is_empty();
        if ordered {
            self.settling = self.unsettled.len();
            self.chores.push_back(Chore::Sync(maps));
        }
        ordered
    }

    /// What was stored before the last sync was ordered is durable.
    pub fn synced(&mut self) {
        for _ in 0..std::mem::take(&mut self.settling) {
            match self.unsettled.pop_front() {
                Some(Unsettled::Replaced(ticket)) => {
                    self.depth += 1;
                    self.done(ticket);
                }
                Some(Unsettled::Full(number)) => {
                    if let Some(index) = self.index(number) {
                        self.segments[index].seal();
                        self.retire_finished(number);
                    }
                }
                None => {}
            }
        }
    }

    /// What was stored until now counts as durable, because nobody asked for more.
    pub fn settle(&mut self) {
        self.settling = self.unsettled.len();
        self.synced();
    }

    /// The records, done or not, in the segments that are kept, which go by one of these ids. Reads
    /// everything that was written out, so it takes its time.
    pub fn holding(&self, ids: &HashSet<ClientMsgId>) -> Vec<Held> {
        let mut found = Vec::new();
        for segment in self.segments.iter().filter(|_| !ids.is_empty()) {
            inspect::walk(segment, &mut Summary::default(), |_, record, payload| {
                let id = record.client_msg_id(self.queue, payload);
                if ids.contains(&id) {
                    let [_, openid, _, _] = record.parts(payload);
                    let Record { enqueued, done, .. } = *record;
                    found.push(Held { id, openid: openid.into(), enqueued, done });
                }
            });
        }
        found
    }

    /// While on, finished segments stay, so that `holding` finds what is done too; when it is
    /// switched off, they go.
    pub fn keep_finished(&mut self, on: bool) {
        self.keeps_finished = on;
        let numbers: Vec<u64> = self.segments.iter().map(|segment| segment.number).collect();
        for number in numbers {
            self.retire_finished(number);
        }
    }

    /// The next thing for the janitor to do.
    pub fn chore(&mut self) -> Option<Chore> {
        self.chores.pop_front()
    }

    /// Takes the next segment in, or learns that there is none yet.
    pub fn spare_arrived(&mut self, created: io::Result<Segment>) -> io::Result<()> {
        self.spare_ordered = false;
        self.spare = Some(created?);
        Ok(())
    }

    /// Messages accepted and not done, those handed out included.
    pub fn depth(&self) -> u64 {
        self.depth.max(0) as u64
    }

    /// Bytes of records in the segments that are kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The id that the next message will get.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Makes everything stored so far durable, and what waited for that too.
    pub fn sync_all(&mut self) -> io::Result<()> {
        self.sync()?;
        for segment in self.segments.iter_mut().filter(|s| s.dirty) {
            segment.map.sync()?;
            segment.dirty = false;
        }
        Ok(())
    }

    /// Something was dirtied since the last `order_sync`.
    pub fn dirty(&self) -> bool {
        self.segments.iter().any(|segment| segment.dirty)
    }

    /// What was found damaged since the last call.
    pub fn damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}
