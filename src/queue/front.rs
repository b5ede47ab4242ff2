//! How long the message at the head of the line has waited. Part of the queue; changes nothing in it.

use super::reader::Reader;
use super::record::{self, Found, Record};
use super::{Position, Queue, header};
use std::cmp::Reverse;

/// Records that are looked at to find one that waits, and bytes that are read at once for it.
const LOOKS: usize = 64;
const BYTES: usize = 4 * 1024;

/// The message that is to be taken from this place, or behind it, was accepted then.
pub struct Front {
    place: Position,
    enqueued: u64,
}

impl Queue {
    /// When the message was accepted that `take` would return, in ms since 1970: one whose time has come, else
    /// the next at the cursor. None: only such wait that have their time, or what is there cannot be read.
    pub fn next_enqueued(&mut self, now: u64) -> Option<u64> {
        let due = self.heap.peek().filter(|Reverse((due, _))| *due <= now);
        let due = due.map(|Reverse((_, place))| *place);
        let place = due.unwrap_or(self.cursor);
        if self.front.as_ref().is_none_or(|front| front.place != place) {
            let ours_from = self.ours_from;
            let enqueued = match due {
                Some(place) => self.look(place, |_, _| true),
                None => self.look(place, |at, record| {
                    // Q5
                    let in_heap = record.due > 0 && at >= ours_from;
                    !record.done && record.due <= now && !in_heap
                }),
            };
            self.front = enqueued.map(|enqueued| Front { place, enqueued });
        }
        self.front.as_ref().map(|front| front.enqueued)
    }

    /// Looks for such a record from there on, in one segment.
    fn look(&mut self, from: Position, is: impl Fn(Position, &Record) -> bool) -> Option<u64> {
        let mut index = self.index(from.segment)?;
        let mut at = from.at;
        if at >= self.segments[index].written() {
            (index, at) = (index + 1, header::HEADER);
        }
        let segment = self.segments.get_mut(index)?;
        let (number, end) = (segment.number, segment.written());
        if at >= end {
            return None;
        }
        let mut file = Reader::new(segment.open(&*self.disk).ok()?, end, BYTES);
        self.busy.insert(number);
        for _ in 0..LOOKS {
            let place = segment.place(at);
            let Found::Record(record) = record::read(&mut file, place, end) else { break };
            if is(Position { segment: number, at }, &record) {
                return Some(record.enqueued);
            }
            at += record.size();
        }
        None
    }
}
