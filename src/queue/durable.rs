//! What is written and synced, in which order, and what may follow from it: the end of replaced
//! records, and of the segments that wait for it. Part of the queue.

use super::janitor::{Chore, ToSync, Work};
use super::{Damage, OPEN_LIMIT, Position, Queue, Replaced};
use std::cmp::Reverse;
use std::io;
use std::sync::Arc;

impl Queue {
    /// Puts what was appended since the last call into the files, many at once.
    pub(super) fn write_out(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        // Q1
        for segment in self.segments.iter_mut().rev().take_while(|s| s.unwritten() > 0) {
            segment.write_out(&*self.disk)?;
        }
        Ok(())
    }

    /// Bytes for `commit` to write.
    pub fn unwritten(&self) -> usize {
        let tails = self.segments.iter().rev();
        tails.map(|segment| segment.unwritten()).take_while(|bytes| *bytes > 0).sum()
    }

    /// Puts what was marked since the last call into the files, many at once: what became of messages, and which
    /// are handed out (Q2).
    pub fn write_marks(&mut self) {
        let marked = self.busy.iter().filter_map(|number| self.index(*number));
        let marked = marked.filter(|index| self.segments[*index].is_behind());
        for index in marked.collect::<Vec<_>>() {
            self.write_marks_of(index);
        }
        self.close_behind();
    }

    /// A mark that the disk refuses leaves a message that goes out again after the next start.
    pub(super) fn write_marks_of(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if segment.is_behind()
            && let Err(error) = segment.write_marks(&*self.disk)
            && segment.file().is_some()
            && !segment.damaged
        {
            segment.damaged = true;
            let why = format!("what became of messages cannot be written: {error}");
            self.damage.push(Damage::Part { segment: segment.number, at: 0, bytes: 0, why });
        }
    }

    /// Lets files go that were opened for single records, when there are too many of them.
    fn close_behind(&mut self) {
        if self.busy.len() <= OPEN_LIMIT {
            return;
        }
        let (cursor, tail) = (self.cursor.segment, self.tail().number);
        for number in self.busy.clone() {
            let Some(index) = self.index(number).filter(|_| number != cursor && number != tail)
            else {
                continue;
            };
            let segment = &mut self.segments[index];
            if segment.settled && !segment.has_marks() {
                segment.close();
            }
        }
    }

    /// Something was written since the last sync was ordered.
    pub fn dirty(&self) -> bool {
        let busy = self.busy.iter().filter_map(|number| self.index(*number));
        busy.map(|index| &self.segments[index]).any(|s| s.dirty || s.has_marks())
    }

    /// Orders a sync of everything written since the last one, if there is anything. Its chore may
    /// run beside all others, but the next is ordered only when it is done.
    pub fn order_sync(&mut self) -> Option<Chore> {
        self.write_marks();
        let busy: Vec<usize> = self.busy.iter().filter_map(|number| self.index(*number)).collect();
        let dirty = busy.iter().map(|index| &self.segments[*index]).filter(|s| s.dirty);
        let files: Vec<ToSync> = dirty
            .map(|s| match s.file() {
                Some(file) => ToSync::Open(s.number, Arc::clone(file)),
                None => ToSync::Closed(s.number),
            })
            .collect();
        if files.is_empty() {
            return None;
        }
        let waiting = busy.iter().any(|index| self.segments[*index].has_marks());
        // What is not dirty is durable: it waits for the marks in others.
        busy.into_iter().for_each(|index| self.segments[index].cover());
        self.settling = self.written_retries();
        // Marks whose file could not be opened wait for the next one.
        self.marked_since = waiting;
        Some(Chore { disk: Arc::clone(&self.disk), work: Work::Sync(files) })
    }

    /// Retries whose records are in the file.
    fn written_retries(&self) -> usize {
        let unwritten = self.unsettled.iter().rev().take_while(|replaced| {
            let Position { segment, at } = replaced.new;
            self.index(segment).is_some_and(|index| at >= self.segments[index].written())
        });
        self.unsettled.len() - unwritten.count()
    }

    /// What was written before the sync was ordered is durable (M1).
    pub(super) fn synced(&mut self) {
        let settling = std::mem::take(&mut self.settling);
        self.release(settling);
        for number in self.busy.clone() {
            let Some(index) = self.index(number) else {
                self.busy.remove(&number);
                continue;
            };
            let segment = &mut self.segments[index];
            // What cannot be said in the file is found out again by the next start.
            let _ = segment.synced(self.marked_since, &*self.disk);
            self.rest(index);
            self.retire_finished(number);
        }
    }

    /// Lets a file go with which nothing is to be done for now.
    fn rest(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        let waits = segment.is_unsynced() || !segment.settled;
        if !waits && segment.number != self.cursor.segment {
            segment.close();
            segment.busy = false;
            self.busy.remove(&segment.number);
        }
    }

    /// The first of the retries are durable: the records that they replace end, and they may be
    /// handed out (Q4).
    fn release(&mut self, count: usize) {
        self.marked_since |= count > 0;
        self.settling = self.settling.saturating_sub(count);
        self.cancels.settled += count as u64;
        for Replaced { old, new, due } in self.unsettled.drain(..count).collect::<Vec<_>>() {
            self.depth += 1;
            self.done(old);
            self.wait_until(due, new);
        }
    }

    /// Makes every accepted message durable before it returns: group commit for what was written
    /// since the last call.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for segment in self.segments.iter_mut().rev().take_while(|s| s.appended || !s.settled) {
            if segment.appended {
                segment.open(&*self.disk)?.sync()?;
                segment.flushed();
            }
        }
        self.release(self.written_retries());
        Ok(())
    }

    /// What was written until now counts as durable, because nobody asked for more.
    pub(super) fn settle(&mut self) {
        self.release(self.written_retries());
        self.write_marks();
        for number in self.busy.clone() {
            if let Some(index) = self.index(number) {
                let segment = &mut self.segments[index];
                segment.dirty = false;
                let _ = segment.settle(&*self.disk);
                self.rest(index);
                self.retire_finished(number);
            } else {
                self.busy.remove(&number);
            }
        }
    }

    /// Makes everything stored so far durable, and what waited for that too, where the next start finds it.
    pub fn sync_all(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.put_all_back()?;
        while let Some(chore) = self.order_sync() {
            let done = chore.run();
            self.chore_done(done, 0)?;
            self.write_marks();
        }
        Ok(())
    }

    /// Keeps the heap's order of who waits for time to pass.
    pub(super) fn wait_until(&mut self, due: u64, position: Position) {
        self.heap.push(Reverse((due, position)));
    }
}
