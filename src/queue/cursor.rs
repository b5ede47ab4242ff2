//! Handing messages out: the cursor that walks the segments once, and the heap of due times. Part
//! of the queue.

use super::janitor::{End, Heir, Work};
use super::reader::Reader;
use super::record::{self, Change, Found, Record};
use super::segment::Segment;
use super::{AGAIN, BLOCK, Damage, HEAP_LIMIT, Message, Position, Queue, SINGLE, Ticket, header};
use std::cmp::Reverse;
use std::io::{self, ErrorKind};

impl Queue {
    /// The next message to be sent: one whose due time has come, else the next at the cursor.
    pub fn take(&mut self, now: u64) -> Option<Message> {
        self.begin_take();
        while let Some(Reverse((due, position))) = self.heap.peek().copied() {
            if due > now {
                break;
            }
            self.heap.pop();
            if let Some(message) = self.hand_out(position, now) {
                return Some(message);
            }
        }
        if self.cursor_again.is_some_and(|again| now < again) {
            return None;
        }
        let mut passed = 0;
        while self.retrying() < HEAP_LIMIT {
            let (position, record) = self.advance(now)?;
            // C1
            if self.cancels.any() && self.meets_rule(position, &record) {
                match self.cancels.pass(&mut passed) {
                    true => continue,
                    false => return None,
                }
            }
            let due = record.due.min(self.latest_due);
            if due > now {
                self.wait_until(due, position);
                continue;
            }
            let ahead = self.ahead.as_mut().expect("invariant: advance has read it");
            let payload = ahead.bytes(record::payload(position.at, record.length));
            let (message, taken) = issue(self.origin, position, record, payload, now);
            let index = self.index(position.segment).expect("invariant Q3: its segment is kept");
            self.mark(index, position.at, taken);
            return Some(message);
        }
        None
    }

    /// Moves the cursor behind the next ready record that is not in the heap, and returns it.
    fn advance(&mut self, now: u64) -> Option<(Position, Record)> {
        self.cursor_again = None;
        loop {
            let position = self.cursor;
            let index = self.index(position.segment)?;
            let segment = &mut self.segments[index];
            let written = segment.written();
            if position.at >= written {
                if segment.unwritten() > 0 {
                    return None;
                }
                self.count_off(index);
                if index + 1 == self.segments.len() {
                    return None;
                }
                self.leave(index);
                continue;
            }
            if self.ahead.is_none() {
                match segment.open(&*self.disk) {
                    Ok(file) => self.ahead = Some(Reader::new(file, written, BLOCK)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.cursor.at = written;
                        self.gone(index);
                        continue;
                    }
                    // Nobody waits for what somebody else must put right.
                    Err(error) if is_lasting(&error) => {
                        let why = format!("the file cannot be opened: {error}");
                        self.skip_damage(index, header::HEADER, written, why);
                        continue;
                    }
                    Err(_) => {
                        self.cursor_again = Some(now + AGAIN);
                        return None;
                    }
                }
                self.busy.insert(position.segment);
            }
            let ahead = self.ahead.as_mut().expect("invariant: opened just now");
            ahead.extend(written);
            let place = segment.place(position.at);
            // What is read from the file must show what became of records that the heap was quicker
            // with; what is in memory does (`mark`).
            let extent = record::extent(ahead, place, written);
            if segment.has_marks() && ahead.must_load(extent) {
                self.write_marks_of(index);
                if self.segments[index].file().is_none() {
                    self.cursor_again = Some(now + AGAIN);
                    return None;
                }
                continue;
            }
            match record::read(ahead, place, written) {
                Found::Record(record) => {
                    self.cursor.at += record.size();
                    if record.done {
                        continue;
                    }
                    segment.unread -= 1;
                    segment.outstanding += 1;
                    // Q5
                    if record.due > 0 && position >= self.ours_from {
                        continue;
                    }
                    return Some((position, record));
                }
                Found::Nothing | Found::Damaged => {
                    let from = segment.place(position.at + record::ALIGN);
                    let next = record::search(ahead, from, written).unwrap_or(written);
                    let why = match ahead.take_unreadable() {
                        Some(why) => format!("records that cannot be read: {why}"),
                        None => "records that fail their checksum".into(),
                    };
                    self.skip_damage(index, position.at, next, why);
                }
            }
        }
    }

    fn meets_rule(&mut self, position: Position, record: &Record) -> bool {
        let ahead = self.ahead.as_mut().expect("invariant: advance has read it");
        self.cancels.meets(record, ahead.bytes(record::payload(position.at, record.length)))
    }

    /// All of a segment is read: what was counted and not found is lost.
    fn count_off(&mut self, index: usize) {
        let unread = std::mem::take(&mut self.segments[index].unread);
        self.depth -= unread;
        match unread > 0 {
            true => self.lost += unread.unsigned_abs(),
            false => self.found += unread.unsigned_abs(),
        }
    }

    /// Moves the cursor to the next record that can be trusted.
    fn skip_damage(&mut self, index: usize, at: usize, next: usize, why: String) {
        let segment = &mut self.segments[index];
        segment.damaged = true;
        let bytes = (next - at) as u64;
        self.damage.push(Damage::Part { segment: segment.number, at, bytes, why });
        self.cursor.at = next;
    }

    /// Its file is not there any more, which is told once.
    fn gone(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if !segment.missing {
            segment.miss();
            self.damage.push(Damage::Gone { segment: segment.number });
        }
    }

    /// Moves the cursor to the next segment.
    fn leave(&mut self, index: usize) {
        let number = self.segments[index].number;
        self.cursor = Position { segment: self.segments[index + 1].number, at: header::HEADER };
        self.ahead = None;
        self.retire_finished(number);
    }

    /// A record is not waited for any more.
    pub(super) fn end_one(&mut self, index: usize, position: Position) {
        let segment = &mut self.segments[index];
        match position < self.cursor {
            true => segment.outstanding -= 1,
            false => segment.unread -= 1,
        }
        let number = segment.number;
        self.retire_finished(number);
    }

    /// Lets a segment go, if it is finished (Q3, C3).
    pub(super) fn retire_finished(&mut self, number: u64) {
        let Some(index) = self.index(number) else { return };
        let segment = &mut self.segments[index];
        let ahead = number > self.cursor.segment;
        let passed = number < self.cursor.segment || self.cursor.at >= segment.end;
        let finished = match ahead {
            true => segment.is_counted_out(),
            false => passed && segment.outstanding == 0,
        };
        if !segment.sealed || !finished {
            return;
        }
        self.bytes -= std::mem::take(&mut segment.counted) as u64;
        if number == self.cursor.segment || !segment.settled || self.keeps_finished {
            return;
        }
        // The file may come back with the power, and must say then what it says now.
        if segment.is_unsynced() {
            return;
        }
        let end = match segment {
            Segment { missing: true, .. } => End::Nothing,
            Segment { damaged: true, .. } => End::SetAside,
            _ => End::Remove,
        };
        let follows = segment.follows;
        if ahead {
            self.count_off(index);
        }
        self.segments.remove(index);
        self.busy.remove(&number);
        // Q7: the one before it is now the one before the next.
        let next = self.segments.get_mut(index).filter(|next| next.follows != follows);
        let heir = next.map(|next| {
            next.follows = follows;
            Heir { number: next.number, follows }
        });
        self.push_chore(Work::Retire { number, end, heir });
    }

    /// Hands out a record of the heap, unless it was damaged meanwhile.
    fn hand_out(&mut self, position: Position, now: u64) -> Option<Message> {
        let index = self.index(position.segment)?;
        // What is read next must show them.
        self.write_marks_of(index);
        let segment = &mut self.segments[index];
        match segment.open(&*self.disk) {
            Ok(file) => {
                self.busy.insert(position.segment);
                let mut file = Reader::new(file, segment.written(), SINGLE);
                let end = segment.written();
                if let Found::Record(record) =
                    record::read(&mut file, segment.place(position.at), end)
                {
                    let payload = file.bytes(record::payload(position.at, record.length));
                    let (message, taken) = issue(self.origin, position, record, payload, now);
                    self.mark(index, position.at, taken);
                    return Some(message);
                }
                let why = match file.take_unreadable() {
                    Some(why) => format!("a waiting record cannot be read: {why}"),
                    None => "a waiting record fails its checksum".into(),
                };
                segment.damaged = true;
                let (segment, at, bytes) = (segment.number, position.at, record::HEAD as u64);
                self.damage.push(Damage::Part { segment, at, bytes, why });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => self.gone(index),
            Err(_) => {
                self.wait_until(now + AGAIN, position);
                return None;
            }
        }
        self.depth -= 1;
        self.lost += 1;
        self.end_one(index, position);
        None
    }
}

/// Q2: the record stays as it is, but for what it says of attempts.
fn issue(
    origin: u64,
    position: Position,
    record: Record,
    payload: &[u8],
    now: u64,
) -> (Message, Change) {
    let attempts = record.attempts.saturating_add(1);
    // The clock may have been set back since.
    let unclear = record.unclear.min(now);
    let record = Record { attempts, unclear, ..record };
    let message = Message::on_disk(origin, Ticket(position), record, payload, now);
    // Of what nobody brings back nobody knows what became.
    let unclear = if unclear > 0 { unclear } else { now };
    (message, Change::Tried { attempts, due: record.due, unclear })
}

/// It will be the same when it is tried again, unlike a want of descriptors or memory.
pub(super) fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::IsADirectory | ErrorKind::InvalidInput
    )
}
