//! How long the message at the head of the line has waited. Part of the queue; moves nothing in it.

use super::reader::Reader;
use super::record::{self, Found, Record};
use super::{Position, Queue, header};
use std::cmp::Reverse;

/// Records that are looked at to find one that waits, and bytes that are read at once for it.
const LOOKS: usize = 64;
const BYTES: usize = 4 * 1024;

/// Where the next message is taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Heap(Position),
    /// There, or behind it.
    Cursor(Position),
}

/// The message that is to be taken from this place was accepted then.
pub struct Front {
    place: Place,
    enqueued: u64,
    /// From this time on another one may stand before it.
    until: u64,
}

impl Queue {
    /// When the message was accepted that `take` would return, in ms since 1970: one whose time has come, else
    /// the next at the cursor. None: only such wait that have their time, or what is there cannot be read. While
    /// messages are being cancelled it may be one of those.
    pub fn next_enqueued(&mut self, now: u64) -> Option<u64> {
        let due = self.heap.peek().filter(|Reverse((due, _))| *due <= now);
        let place = due.map_or(Place::Cursor(self.cursor), |Reverse((_, at))| Place::Heap(*at));
        let holds = |front: &Front| front.place == place && now < front.until;
        if !self.front.as_ref().is_some_and(holds) {
            let (ours_from, latest_due) = (self.ours_from, self.latest_due);
            let mut until = u64::MAX;
            let enqueued = match place {
                Place::Heap(at) => self.look(at, |_, _| true),
                Place::Cursor(at) => self.look(at, |at, record| {
                    // Q5
                    let in_heap = record.due > 0 && at >= ours_from;
                    let due = record.due.min(latest_due);
                    if record.done || in_heap || due <= now {
                        return !record.done && !in_heap;
                    }
                    until = until.min(due);
                    false
                }),
            };
            self.front = enqueued.map(|enqueued| Front { place, enqueued, until });
        }
        self.front.as_ref().map(|front| front.enqueued)
    }

    /// Looks for such a record from there on, in one segment.
    fn look(
        &mut self,
        from: Position,
        mut is: impl FnMut(Position, &Record) -> bool,
    ) -> Option<u64> {
        let mut index = self.index(from.segment)?;
        let mut at = from.at;
        if at >= self.segments[index].written() {
            (index, at) = (index + 1, header::HEADER);
        }
        if index >= self.segments.len() {
            return None;
        }
        // What is read next must show them.
        self.write_marks_of(index);
        let segment = &mut self.segments[index];
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

#[cfg(test)]
mod tests {
    use crate::queue::tests::simulated::Simulated;
    use crate::queue::{Durability, Message, New, Options, Queue};
    use std::sync::Arc;
    use std::time::Duration;

    fn open(disk: &Simulated) -> Queue {
        let retry_cap = Duration::from_secs(60);
        let options = Options { segment_size: 4096, max_bytes: 0, retry_cap };
        Queue::open(Arc::new(disk.clone()), options, 1_000).unwrap()
    }

    /// One message for each second, from the first on.
    fn append(queue: &mut Queue, seconds: std::ops::Range<u64>) {
        for second in seconds {
            let new = New { openid: b"o", key: b"k", data: &[b'x'; 100] };
            while queue.append(new, second * 1_000).is_err() {
                let chore = queue.chore().unwrap();
                queue.chore_done(chore.run(), second * 1_000).unwrap();
            }
            queue.commit(Durability::Never).unwrap();
        }
    }

    fn end(queue: &mut Queue, message: &Message) {
        queue.done(message.ticket().unwrap());
    }

    #[test]
    fn the_head_of_the_line_is_what_is_taken_next_over_all_segments() {
        let disk = Simulated::default();
        let mut queue = open(&disk);
        assert_eq!(queue.next_enqueued(1_000), None);
        append(&mut queue, 2..60);
        assert!(queue.segments() > 1);
        for second in 2..60 {
            assert_eq!(queue.next_enqueued(60_000), Some(second * 1_000));
            let message = queue.take(60_000).unwrap();
            assert_eq!(message.enqueued(), second * 1_000);
            end(&mut queue, &message);
        }
        assert_eq!(queue.next_enqueued(60_000), None);
        append(&mut queue, 70..71);
        assert_eq!(queue.next_enqueued(70_000), Some(70_000));
    }

    #[test]
    fn one_that_was_given_back_is_first_and_one_that_waits_for_its_time_is_passed_over() {
        let disk = Simulated::default();
        let mut queue = open(&disk);
        append(&mut queue, 2..5);
        let (first, second) = (queue.take(9_000).unwrap(), queue.take(9_000).unwrap());
        queue.retry(&second, 20_000, 9_000);
        queue.commit(Durability::Never).unwrap();
        assert_eq!((queue.next_enqueued(9_000), queue.retrying()), (Some(4_000), 1));
        queue.give_back(&first);
        assert_eq!((queue.next_enqueued(9_000), queue.retrying()), (Some(2_000), 2));
        for _ in 0..2 {
            let message = queue.take(9_000).unwrap();
            end(&mut queue, &message);
        }
        assert_eq!(queue.next_enqueued(9_000), None);
        assert_eq!(queue.next_enqueued(20_000), Some(3_000), "accepted long before it is due");
        // The same after a restart, where the cursor comes to it.
        queue.sync_all().unwrap();
        drop(queue);
        let mut queue = open(&disk);
        assert_eq!(queue.next_enqueued(9_000), None);
        assert_eq!(queue.next_enqueued(20_000), Some(3_000));
    }
}
