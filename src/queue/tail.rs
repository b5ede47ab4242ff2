//! Where records are appended: the tail, the limit of bytes, and the change to the next segment.
//! Part of the queue.

use super::janitor::Work;
use super::record::{Parts, Record};
use super::segment::Segment;
use super::{Position, Queue, Refused, header};

impl Queue {
    pub(super) fn append_parts(&mut self, parts: Parts, now: u64) -> Result<u64, Refused> {
        if self.astray {
            return Err(Refused::NoSegment);
        }
        let id = self.next_id;
        let record = Record::fresh(id, parts, now);
        if self.exceeds_limit(&record) && self.tail_is_drained() {
            self.rotate(now)?;
        }
        if self.exceeds_limit(&record) {
            return Err(Refused::Full);
        }
        self.write(record, parts, now)?;
        self.next_id += 1;
        Ok(id)
    }

    fn exceeds_limit(&self, record: &Record) -> bool {
        let limit = self.options.max_bytes;
        limit > 0 && self.bytes + record.size() as u64 > limit
    }

    /// Everything in it is done: it need not be full to make room for others.
    fn tail_is_drained(&self) -> bool {
        let tail = self.segments.back().expect("invariant: a queue has a tail");
        let read = self.cursor == Position { segment: tail.number, at: tail.end };
        read && tail.end > header::HEADER && tail.outstanding == 0
    }

    pub(super) fn write(
        &mut self,
        record: Record,
        parts: Parts,
        now: u64,
    ) -> Result<Position, Refused> {
        let size = record.size();
        if (header::HEADER + size) as u64 > self.options.segment_size {
            return Err(Refused::TooLarge);
        }
        if !self.tail().fits(size) {
            self.rotate(now)?;
        }
        let tail = self.tail();
        let at = tail.append(&record, parts);
        tail.unread += 1;
        let segment = tail.number;
        // One look for a segment, not for each of its records.
        if !std::mem::replace(&mut tail.busy, true) {
            self.busy.insert(segment);
        }
        self.depth += 1;
        self.bytes += size as u64;
        Ok(Position { segment, at })
    }

    fn rotate(&mut self, now: u64) -> Result<(), Refused> {
        let Some(mut next) = self.spare.take() else {
            if now >= self.spare_again {
                self.order_spare(now);
            }
            return Err(Refused::NoSegment);
        };
        // Q6: the next tail knows the bound before this one can go.
        let before = self.tail().number;
        if let Err(error) = next.begin(self.next_id, before, &*self.disk) {
            self.failed.get_or_insert(error);
        }
        self.busy.insert(next.number);
        self.bytes += next.counted as u64;
        let tail = self.tail();
        tail.seal();
        let number = tail.number;
        self.segments.push_back(next);
        self.retire_finished(number);
        self.order_spare(now);
        self.order_look();
        Ok(())
    }

    pub(super) fn tail(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("invariant: a queue has a tail")
    }

    /// Asks for the next segment unless one is there or under way. Called again after a failure.
    pub fn order_spare(&mut self, now: u64) {
        if self.astray {
            return self.order_look();
        }
        if self.spare.is_some() || self.spare_ordered {
            return;
        }
        self.spare_ordered = true;
        let (origin, size, number) = (self.origin, self.options.segment_size, self.next_number);
        self.next_number += 1;
        let follows = self.tail().number;
        self.push_chore(Work::Create { number, origin, size, now, follows });
    }
}
