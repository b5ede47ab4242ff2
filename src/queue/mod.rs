//! The queue: messages on disk between acceptance and outcome. Owned by one thread, the spool;
//! slow file work is handed out as chores for the janitor. Never touches a socket.
//!
//! # Shape
//!
//! A folder of segment files `NNNNNNNNNNNNNNNNNNNN.seg` of one size, really allocated before they
//! are used, so that a full disk is an error code and marking a message done never needs space.
//! Records are appended to the last segment (the tail); a cursor walks all segments once, from the
//! first to the tail, and hands messages out; what a rule cancels, `cancel` ends before its turn. `header` and `record` hold the byte layouts. Only
//! what is worked on is open.
//!
//! ```text
//!   00..07.seg   00..08.seg   00..0B.seg     00..0C.seg
//!   dddddddrdd   rddrrrrrrr   rrrrrrr....    (spare, empty)
//!                   ^ cursor         ^ end of the tail
//! ```
//!
//! # Invariants
//!
//! - Q1: a message is accepted when its record is in the file, that is after `commit`; from then on
//!   only `done` ends it, and `done` is called only when its outcome is known.
//! - Q2: handing out is not doing: the record stays ready, so a crash hands it out again, with the
//!   same id. It says that the outcome is unknown since the hand-out, from `write_marks` on, which comes before
//!   anybody can begin to send it; what is taken back unsent, or after a known outcome, says so no more.
//! - Q3: `outstanding` of a segment counts the records that the cursor has passed and that are not
//!   done. A settled segment behind the cursor with none outstanding is finished and is retired.
//! - Q4: a retry is a new record at the tail with the old one's id. When it is durable, and no
//!   sooner, the old one is marked done and the new one may be handed out. An end between the two
//!   leaves both, and recovery ends the old one: it reads every segment that is not sealed, and a
//!   segment is sealed (it is settled) one sync later, when the marks are durable that it presumes.
//! - Q5: records at or behind `ours_from` with a due time are in the heap, or will be when they are
//!   durable; the cursor passes them by.
//! - Q6: ids grow over restarts and are never used twice: the upper bits are the time of opening, and
//!   the tail's header names a bound that lies above every id of the segments before it.
//! - Q7: a segment names the one before it that may hold messages, and is told of another before that
//!   one goes. So the next start misses what somebody took away.
//! - M1: what the page cache shows is believed only if a sync has covered it. Nothing is stored
//!   before what it depends on is durable, and opening writes again what no sync is known to cover.
//!
//! # Limits
//!
//! A record must fit into a segment. Message ids allow 2^20 messages per millisecond. The heap of
//! due times holds `HEAP_LIMIT` entries; beyond that the cursor rests until some are done.

mod absence;
mod cancel;
mod client_msg_id;
mod cursor;
pub mod disk;
mod durable;
mod front;
mod header;
pub mod inspect;
mod janitor;
pub mod message;
mod opening;
mod own_ids;
mod reader;
mod record;
mod recover;
mod segment;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;

pub use cancel::{Purpose, Rule, Swept, Which};
pub use client_msg_id::ClientMsgId;
pub use janitor::{Chore, ChoreDone};
pub use message::{Mark, Message, Ticket};
pub use own_ids::OwnIds;
pub use trouble::{Damage, OpenError, Refused};

use cancel::Cancels;
use disk::Disk;
use front::Front;
use inspect::Summary;
use janitor::{Done, Work};
use reader::Reader;
use record::{Change, Parts, Record};
use segment::Segment;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Bits of a message id below the time of opening.
const COUNTER_BITS: u32 = 20;

/// Due times in memory, 24 bytes each.
const HEAP_LIMIT: usize = if cfg!(test) { 64 } else { 200_000 };

/// Bytes that are read at once where the next ones will be wanted too.
const BLOCK: usize = if cfg!(test) { 1024 } else { 256 * 1024 };

/// Bytes that are read at once of a single record.
const SINGLE: usize = 1024;

/// Files that are open at most, but for those that a sync is waited for.
const OPEN_LIMIT: usize = if cfg!(test) { 4 } else { 32 };

/// How long it is waited, in ms, before the disk is asked again for what it refused.
const AGAIN: u64 = 1_000;

/// The smallest segment in which a message with a payload of `length` bytes fits.
pub fn segment_size_for(length: usize) -> u64 {
    (header::HEADER + record::size(client_msg_id::MAX + length)) as u64
}

pub struct Options {
    pub segment_size: u64,
    /// Bytes of records kept at most, 0 for no limit. Retries are exempt.
    pub max_bytes: u64,
    /// No retry waits longer, whatever clock its due time was taken from.
    pub retry_cap: Duration,
}

/// How safe what was accepted must be before `commit` returns; it survives the end of the process
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk.
    Now,
    /// A sync will be ordered.
    Later,
    /// Nobody asks for more: what is written counts as durable.
    Never,
}

/// What a chore that was done means to who runs the queue.
#[derive(Debug)]
pub enum Progress {
    Nothing,
    /// A sync is done; the next may be ordered.
    Synced,
    /// There is a next segment.
    Room,
    /// There is no next segment, and why. It is ordered again with the next message a second later,
    /// or by `order_spare`.
    NoRoom(io::Error),
    /// A finished segment cannot be removed: its name, and why.
    NotRetired(String, io::Error),
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
    disk: Arc<dyn Disk>,
    options: Options,
    /// What the messages' client_msg_ids are made of, beside their ids.
    origin: u64,
    /// In order of their numbers; the last is the tail.
    segments: VecDeque<Segment>,
    /// Those that are open, or that have something to be written or synced.
    busy: BTreeSet<u64>,
    spare: Option<Segment>,
    spare_ordered: bool,
    /// When the disk has refused one, and may be asked again.
    spare_again: u64,
    next_number: u64,
    cursor: Position,
    /// Reads the cursor's segment.
    ahead: Option<Reader>,
    /// When the cursor may try again to open its segment.
    cursor_again: Option<u64>,
    ours_from: Position,
    heap: BinaryHeap<Reverse<(u64, Position)>>,
    /// No due time of a record from before the start counts for more.
    latest_due: u64,
    next_id: u64,
    /// Where a segment's `unread` is wrong, so is this.
    depth: i64,
    /// Messages that waited at opening, and those that were counted and cannot be read.
    found: u64,
    lost: u64,
    bytes: u64,
    damage: Vec<Damage>,
    chores: VecDeque<Chore>,
    /// Retries that are not known to be durable, in their order, and how many of them the sync
    /// covers that is under way.
    unsettled: VecDeque<Replaced>,
    settling: usize,
    /// Replaced records were marked since that sync was ordered.
    marked_since: bool,
    /// A write failed where nobody could be told.
    failed: Option<io::Error>,
    keeps_finished: bool,
    /// The folder is not where it was: what is written, the next start would not find.
    astray: bool,
    /// What stands where the next message is taken from, see `front`.
    front: Option<Front>,
    cancels: Cancels,
}

/// A record whose message goes on as a retry (Q4).
struct Replaced {
    old: Ticket,
    new: Position,
    due: u64,
}

impl Queue {
    /// Takes a message in and returns its id. It survives the end of the process, and can be taken,
    /// after `commit` (Q1).
    pub fn append(&mut self, new: New, now: u64) -> Result<u64, Refused> {
        self.append_parts(new.parts(&[]), now)
    }

    /// Takes a message in that WeChat is to know by `id`, as it may know it already.
    pub fn append_as(&mut self, new: New, id: &ClientMsgId, now: u64) -> Result<u64, Refused> {
        self.append_parts(new.parts(id.as_bytes()), now)
    }

    /// Makes what was appended since the last call as safe as asked. After an error the queue is of no more use: of
    /// what was appended, nobody knows how much is there. Marks may wait for `write_marks`.
    pub fn commit(&mut self, durability: Durability) -> io::Result<()> {
        self.write_out()?;
        match durability {
            Durability::Now => self.sync(),
            Durability::Later => Ok(()),
            Durability::Never => {
                self.settle();
                Ok(())
            }
        }
    }

    /// Its outcome is known: it will never be handed out again. Once for each hand-out.
    pub fn done(&mut self, ticket: Ticket) {
        let Ticket(position) = ticket;
        let Some(index) = self.index(position.segment) else { return };
        self.mark(index, position.at, Change::Done);
        self.segments[index].count_done();
        self.segments[index].count_ended(position.at);
        self.depth -= 1;
        self.end_one(index, position);
    }

    /// Queues a message again, not before `due`, whatever the limit of bytes. Where there is no next
    /// segment it keeps its place, which only delays the end of its segment.
    pub fn retry(&mut self, message: &Message, due: u64, now: u64) {
        let Some(old) = message.ticket() else { return };
        let Ticket(place) = old;
        let record = Record { due, replaces: Some(place), ..*message.record() };
        match self.write(record, message.parts(), now) {
            Ok(new) => {
                self.unsettled.push_back(Replaced { old, new, due });
                // It is one message still.
                self.depth -= 1;
            }
            Err(_) => {
                self.took_back(place, Record { due, ..*message.record() });
                self.wait_until(due, place);
            }
        }
    }

    /// Takes a message back that was handed out and not sent: no attempt is charged, and it comes
    /// first again in the old order.
    pub fn give_back(&mut self, message: &Message) {
        let Some(Ticket(position)) = message.ticket() else { return };
        let attempts = message.record().attempts.saturating_sub(1);
        self.took_back(position, Record { attempts, ..*message.record() });
        self.wait_until(0, position);
    }

    /// Nobody has the message any more (Q2).
    fn took_back(&mut self, position: Position, record: Record) {
        let Record { attempts, due, unclear, .. } = record;
        if let Some(index) = self.index(position.segment) {
            self.mark(index, position.at, Change::Tried { attempts, due, unclear });
        }
    }

    /// When `take` may have something that it has not now, if it is only waiting for time to pass.
    pub fn next_due(&self) -> Option<u64> {
        let heap = self.heap.peek().map(|Reverse((due, _))| *due);
        heap.into_iter().chain(self.cursor_again).min()
    }

    /// What is accepted from now on stands behind it.
    pub fn order_mark(&self) -> Mark {
        Mark(self.next_id)
    }

    /// The records, done or not, in the segments that are kept, which go by one of these ids. Reads
    /// everything that was committed, so it takes its time.
    pub fn holding(&self, ids: &HashSet<ClientMsgId>) -> io::Result<Vec<Held>> {
        let mut found = Vec::new();
        for segment in self.segments.iter().filter(|_| !ids.is_empty()) {
            let file = self.disk.open(&header::name(segment.number))?;
            let mut file = Reader::new(file, segment.written(), BLOCK);
            inspect::walk(segment, &mut file, &mut Summary::default(), |_, record, payload| {
                let id = record.client_msg_id(self.origin, payload);
                if ids.contains(&id) {
                    let [_, openid, _, _] = record.parts(payload);
                    let Record { enqueued, done, .. } = *record;
                    found.push(Held { id, openid: openid.into(), enqueued, done });
                }
            });
        }
        Ok(found)
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

    /// The next thing to do for the janitor, in this order.
    pub fn chore(&mut self) -> Option<Chore> {
        self.chores.pop_front()
    }

    /// Takes what became of a chore. A sync that failed is an error, and the end.
    pub fn chore_done(&mut self, done: ChoreDone, now: u64) -> io::Result<Progress> {
        Ok(match done.0 {
            Done::Created(Ok(spare)) => {
                self.spare_ordered = false;
                self.spare = Some(spare);
                if self.astray { Progress::Nothing } else { Progress::Room }
            }
            Done::Created(Err(error)) => {
                self.spare_ordered = false;
                self.spare_again = now + AGAIN;
                Progress::NoRoom(error)
            }
            Done::Retired(_, Ok(())) => Progress::Nothing,
            Done::Failed(error) => return Err(error),
            Done::Retired(number, Err(error)) => Progress::NotRetired(header::name(number), error),
            Done::Synced(synced) => {
                let missed = synced?;
                self.synced();
                self.miss(missed);
                Progress::Synced
            }
            Done::Looked(missed) => self.looked(missed),
            Done::PutBack(number, written, back) => {
                self.put_back(number, written, back);
                Progress::Nothing
            }
        })
    }

    /// Messages accepted and not done, those handed out included.
    pub fn depth(&self) -> u64 {
        self.depth.max(0) as u64
    }

    /// Messages that waited when the queue was opened, as far as it is known: where a segment counted too few,
    /// it is learnt when the cursor has passed it.
    pub fn found(&self) -> u64 {
        self.found + (-self.depth).max(0) as u64
    }

    /// Messages that were counted and cannot be read.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Messages that wait for their time.
    pub fn retrying(&self) -> usize {
        self.heap.len() + self.cancels.waiting()
    }

    /// Bytes of records in the segments in which something waits.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// What was found damaged since the last call.
    pub fn damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&number, |segment| segment.number).ok()
    }

    fn mark(&mut self, index: usize, at: usize, change: Change) {
        let segment = &mut self.segments[index];
        segment.mark(at, change);
        let record::Place { segment: number, version, .. } = segment.place(at);
        if !std::mem::replace(&mut segment.busy, true) {
            self.busy.insert(number);
        }
        if number == self.cursor.segment
            && let Some(ahead) = &mut self.ahead
        {
            change.encode(version, |offset, bytes| ahead.patch(at + offset, bytes));
        }
        change.encode(version, |offset, bytes| self.cancels.patch(number, at + offset, bytes));
    }

    fn push_chore(&mut self, work: Work) {
        self.chores.push_back(Chore { disk: Arc::clone(&self.disk), work });
    }
}
