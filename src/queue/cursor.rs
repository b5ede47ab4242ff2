//! Handing messages out: the cursor that walks the segments once, and the heap of due times. Part
//! of the queue.

use super::record::{self, Found, Record};
use super::{Chore, Damage, HEAP_LIMIT, Message, Position, Queue, Ticket, segment};
use std::cmp::Reverse;
use std::sync::Arc;

impl Queue {
    /// The next message to be sent: one whose due time has come, else the next at the cursor.
    pub fn take(&mut self, now: u64) -> Option<Message> {
        while let Some(Reverse((due, position))) = self.heap.peek().copied() {
            if due > now {
                break;
            }
            self.heap.pop();
            if let Some(message) = self.hand_out(position, now) {
                return Some(message);
            }
        }
        while self.heap.len() < HEAP_LIMIT {
            let (position, record) = self.advance()?;
            if record.due > now {
                self.heap.push(Reverse((record.due, position)));
                continue;
            }
            return Some(self.issue(position, record, now));
        }
        None
    }

    /// Moves the cursor behind the next ready record that is not in the heap, and returns it.
    fn advance(&mut self) -> Option<(Position, Record)> {
        loop {
            let position = self.cursor;
            let index = self.index(position.segment)?;
            let segment = &mut self.segments[index];
            if position.at >= segment.written() {
                if segment.unwritten() > 0 || index + 1 == self.segments.len() {
                    return None;
                }
                self.leave(index);
                continue;
            }
            match record::read(&segment.map, segment.place(position.at), segment.end) {
                Found::Record(record) => {
                    self.cursor.at += record.size();
                    if record.done {
                        continue;
                    }
                    segment.unread -= 1;
                    segment.outstanding += 1;
                    if record.due > 0 && position >= self.ours_from {
                        continue;
                    }
                    return Some((position, record));
                }
                Found::Nothing | Found::Damaged => self.skip_damage(index),
            }
        }
    }

    /// Moves the cursor to the next record that can be trusted.
    fn skip_damage(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        let at = self.cursor.at;
        let from = segment.place(at + record::ALIGN);
        let next = record::search(&segment.map, from, segment.end).unwrap_or(segment.end);
        segment.damaged = true;
        self.damage.push(Damage {
            segment: segment.number,
            at,
            bytes: (next - at) as u64,
            why: "records that fail their checksum".into(),
        });
        self.cursor.at = next;
    }

    /// Moves the cursor to the next segment. What the header counted and the cursor did not find
    /// is taken off the depth.
    fn leave(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        self.depth -= std::mem::take(&mut segment.unread);
        let number = segment.number;
        self.cursor = Position { segment: self.segments[index + 1].number, at: segment::HEADER };
        self.retire_finished(number);
    }

    /// Lets a segment go, if it is finished (Q3).
    pub(super) fn retire_finished(&mut self, number: u64) {
        let Some(index) = self.index(number).filter(|_| !self.keeps_finished) else { return };
        let segment = &self.segments[index];
        if number >= self.cursor.segment || segment.outstanding > 0 || !segment.settled {
            return;
        }
        self.bytes -= segment.end as u64;
        self.chores.push_back(Chore::Retire { number, damaged: segment.damaged });
        self.segments.remove(index);
    }

    pub(super) fn index(&self, number: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&number, |segment| segment.number).ok()
    }

    /// Hands out a record of the heap, unless it was damaged meanwhile.
    fn hand_out(&mut self, position: Position, now: u64) -> Option<Message> {
        let index = self.index(position.segment)?;
        let segment = &mut self.segments[index];
        if let Found::Record(record) =
            record::read(&segment.map, segment.place(position.at), segment.end)
        {
            return Some(self.issue(position, record, now));
        }
        segment.damaged = true;
        self.damage.push(Damage {
            segment: position.segment,
            at: position.at,
            bytes: record::HEAD as u64,
            why: "a waiting record fails its checksum".into(),
        });
        None
    }

    fn issue(&mut self, position: Position, record: Record, now: u64) -> Message {
        let index = self.index(position.segment).expect("invariant Q3: its segment is kept");
        let segment = &mut self.segments[index];
        let attempts = record.attempts.saturating_add(1);
        record::put_attempts(&segment.map, position.at, attempts);
        segment.dirty = true;
        let record = Record { attempts, ..record };
        Message::on_disk(self.queue, Ticket(position), record, Arc::clone(&segment.map), now)
    }
}
