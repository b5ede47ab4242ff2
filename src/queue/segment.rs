//! One segment file and the part of it that is in use. Owned by the queue;
//! knows nothing of the order of hand-outs.

use super::disk::{Disk, File};
use super::header::{self, HEADER, Header, STATE, State, VERSION};
use super::record::{self, Change, Parts, Record};
use std::io;
use std::sync::Arc;

/// A buffer of unwritten records that one burst blew up is let go above this size.
const KEPT: usize = 1 << 20;

/// Marks that are no further apart are written together, with what stands between them.
const NEAR: usize = 4096;

/// What a full sync that is under way covers of a segment.
#[derive(Debug, Clone, Copy)]
struct Covered {
    end: usize,
    /// Replaced records up to here were marked before.
    marked: usize,
    sealed: bool,
}

/// One segment and how much of it is in use.
pub struct Segment {
    /// Open only as long as it is needed.
    file: Option<Arc<dyn File>>,
    pub number: u64,
    origin: u64,
    version: u32,
    size: usize,
    /// Offset behind the last record.
    pub end: usize,
    /// Bytes that count towards the queue's limit: 0 once nothing in it waits.
    pub counted: usize,
    /// The last records before the end, as far as they are not in the file yet.
    unwritten: Vec<u8>,
    /// Changes of records in the file that are not in the file yet: offset and bytes.
    marks: Vec<(usize, Mark)>,
    /// Nothing is appended any more, whether the header says so already or not.
    pub sealed: bool,
    /// The header says so: no older record waits for one in here (Q4).
    pub settled: bool,
    /// Something in it was damaged: it is set aside instead of deleted.
    pub damaged: bool,
    /// Written to since the last sync of everything was ordered.
    pub dirty: bool,
    /// Records were written since the last sync: what `sync = always` waits for.
    pub appended: bool,
    /// Records that the cursor has passed and that are not done (invariant Q3).
    pub outstanding: u32,
    /// Ready records that the queue's depth counts and the cursor has not passed yet. Where the
    /// header's counters were wrong, so is this, until the cursor leaves the segment.
    pub unread: i64,
    records: u64,
    done: u64,
    /// The counters in the file are older.
    uncounted: bool,
    ids: u64,
    /// Number of the segment before that may hold messages, 0 if there is none, None if nobody knows.
    pub follows: Option<u64>,
    /// Somebody took the file away. What is open of it stays so until nothing in it is wanted any more.
    pub missing: bool,
    /// The queue lists it among those that are open, or that have something to be written or synced.
    pub busy: bool,
    /// What was marked since its file is being put back into its place.
    moving: Option<Vec<(usize, Mark)>>,
    /// See the header.
    durable: usize,
    marked: usize,
    covered: Option<Covered>,
    /// What a sweep has read of it, if from its beginning and without damage.
    count: Option<Count>,
}

/// So far records were read, and so many of them are not done.
#[derive(Debug, Clone, Copy)]
struct Count {
    to: usize,
    left: u32,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    bytes: [u8; record::CHANGE],
    length: u8,
}

impl Mark {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Segment {
    /// Writes the header of a fresh file.
    pub fn format(file: Arc<dyn File>, origin: u64, number: u64, now: u64) -> io::Result<Segment> {
        let header = Header::fresh(origin, number, now, file.size());
        file.write(0, header.bytes())?;
        let mut segment = Segment::new(&header, origin, number);
        segment.file = Some(file);
        Ok(segment)
    }

    /// Takes a file for the segment its name says it is. It is sealed if its header says so in a
    /// way that can be trusted; else recovery looks for its end.
    pub fn new(header: &Header, origin: u64, number: u64) -> Segment {
        let sealed = header.end();
        let end = sealed.unwrap_or(HEADER);
        Segment {
            file: None,
            number,
            origin,
            version: if header.version() == 1 { 1 } else { VERSION },
            size: header.size(),
            end,
            counted: end,
            unwritten: Vec::new(),
            marks: Vec::new(),
            sealed: sealed.is_some(),
            settled: sealed.is_some(),
            damaged: false,
            dirty: false,
            appended: false,
            outstanding: 0,
            unread: 0,
            records: header.records(),
            done: header.done(),
            uncounted: false,
            ids: header.ids(),
            follows: header.follows(),
            missing: false,
            busy: false,
            moving: None,
            durable: header.durable().unwrap_or(HEADER),
            marked: header.marked().unwrap_or(HEADER),
            covered: None,
            count: None,
        }
    }

    pub fn place(&self, at: usize) -> record::Place {
        record::Place { origin: self.origin, segment: self.number, version: self.version, at }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// There is a record in it, or what is left of one.
    pub fn is_used(&self) -> bool {
        self.end > HEADER || self.sealed
    }

    /// Its end cannot be trusted: recovery looks for it.
    pub fn unseal(&mut self) {
        (self.end, self.counted) = (HEADER, HEADER);
        (self.sealed, self.settled) = (false, false);
    }

    /// Its header does not tell the version of what is in it.
    pub fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// Its file, which is opened if need be.
    pub fn open(&mut self, disk: &dyn Disk) -> io::Result<Arc<dyn File>> {
        if self.file.is_none() {
            self.file = Some(disk.open(&header::name(self.number))?);
        }
        Ok(Arc::clone(self.file.as_ref().expect("invariant: opened just now")))
    }

    /// Its file, if it is open.
    pub fn file(&self) -> Option<&Arc<dyn File>> {
        self.file.as_ref()
    }

    pub fn close(&mut self) {
        if !self.missing {
            self.file = None;
        }
    }

    /// Somebody took the file away. If it is not open, nothing can be said in it any more.
    pub fn miss(&mut self) {
        self.missing = true;
        if self.file.is_none() {
            (self.marks, self.dirty, self.uncounted) = (Vec::new(), false, false);
        }
    }

    /// What is in its file is being copied into another one.
    pub fn begin_move(&mut self) {
        self.moving = Some(Vec::new());
    }

    pub fn moves(&self) -> bool {
        self.moving.is_some()
    }

    /// That file, with what was in ours up to `written`, stands in its place: it is ours now.
    pub fn end_move(
        &mut self,
        file: Arc<dyn File>,
        written: usize,
        disk: &dyn Disk,
    ) -> io::Result<()> {
        let old = self.open(disk)?;
        let mut rest = vec![0; self.written() - written];
        old.read(written, &mut rest)?;
        file.write(written, &rest)?;
        for (at, mark) in self.moving.iter().flatten() {
            file.write(*at, mark.bytes())?;
        }
        (self.file, self.missing, self.moving) = (Some(file), false, None);
        // A sync that is under way speaks of the other one.
        (self.durable, self.covered) = (self.durable.min(written), None);
        (self.dirty, self.appended) = (true, true);
        // What cannot be said in the file is found out again by the next start.
        let _ = self.write_state(disk);
        Ok(())
    }

    pub fn give_up_move(&mut self) {
        self.moving = None;
    }

    /// Records of the present format may follow.
    pub fn takes_more(&self) -> bool {
        !self.sealed && self.version == VERSION && !self.missing
    }

    pub fn fits(&self, size: usize) -> bool {
        self.takes_more() && size <= self.size - self.end
    }

    /// Adds a record and returns its offset. It is in the file after `write_out`.
    pub(super) fn append(&mut self, record: &Record, parts: Parts) -> usize {
        let at = self.end;
        let place = self.place(at);
        record::encode(&mut self.unwritten, place, record, parts);
        self.end += record.size();
        self.counted += record.size();
        // A damaged counter may stand at its end.
        self.records = self.records.wrapping_add(1);
        at
    }

    /// Changes a record in place. It is in the file after `write_marks`.
    pub fn mark(&mut self, at: usize, change: Change) {
        if self.missing && self.file.is_none() {
            return;
        }
        change.encode(self.version, |offset, new| {
            let mut bytes = [0; record::CHANGE];
            bytes[..new.len()].copy_from_slice(new);
            self.marks.push((at + offset, Mark { bytes, length: new.len() as u8 }));
        });
    }

    pub fn count_done(&mut self) {
        self.done = self.done.wrapping_add(1);
    }

    /// A sweep counts what is not done in it, from its beginning.
    pub fn begin_count(&mut self) {
        self.count = Some(Count { to: HEADER, left: 0 });
    }

    /// It has read the record before `to`.
    pub fn count_read(&mut self, to: usize, done: bool) {
        if let Some(count) = &mut self.count {
            count.to = to;
            count.left += u32::from(!done);
        }
    }

    /// A record is done now. One that a sweep has read without seeing that counts as left, which only keeps the
    /// segment for longer.
    pub fn count_ended(&mut self, at: usize) {
        if let Some(count) = self.count.filter(|count| at < count.to) {
            self.count = count.left.checked_sub(1).map(|left| Count { left, ..count });
        }
    }

    pub fn give_up_count(&mut self) {
        self.count = None;
    }

    /// A sweep has read all of it, and everything in it is done.
    pub fn is_counted_out(&self) -> bool {
        self.count.is_some_and(|count| count.to >= self.end && count.left == 0)
    }

    /// Changes that are not in the file yet.
    pub fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// There is something for `write_marks` to do.
    pub fn is_behind(&self) -> bool {
        self.has_marks() || self.uncounted
    }

    /// Not everything is known to be on the disk, so that a sync will come.
    pub fn is_unsynced(&self) -> bool {
        self.dirty || self.has_marks() || self.covered.is_some() || self.moves()
    }

    /// Bytes of records that are not in the file yet.
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Memory that is held for them.
    #[cfg(test)]
    pub fn buffer(&self) -> usize {
        self.unwritten.capacity()
    }

    /// Offset behind the last record that is in the file.
    pub fn written(&self) -> usize {
        self.end - self.unwritten.len()
    }

    pub fn write_out(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let file = self.open(disk)?;
        file.write(self.written(), &self.unwritten)?;
        self.unwritten.clear();
        self.unwritten.shrink_to(if self.sealed { 0 } else { KEPT });
        (self.dirty, self.appended) = (true, true);
        Ok(())
    }

    /// Puts the changes into the file. Those that the disk refuses are lost with what stands there;
    /// without a file they wait.
    pub fn write_marks(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let file = self.open(disk)?;
        let mut marks = std::mem::take(&mut self.marks);
        self.dirty |= !marks.is_empty();
        if let Some(moving) = &mut self.moving {
            moving.extend_from_slice(&marks);
        }
        // Stable: of two changes of one byte the later one stays.
        marks.sort_by_key(|(at, _)| *at);
        let mut written = Ok(());
        for near in marks.chunk_by(|(one, _), (next, _)| next - one < NEAR) {
            written = written.and(write_near(&*file, near));
        }
        marks.clear();
        marks.shrink_to(KEPT / size_of::<(usize, Mark)>());
        self.marks = marks;
        // Of one that is not settled the next start counts for itself.
        self.uncounted = self.settled && self.write_state(disk).is_err();
        written
    }

    /// Says in the file how far things are. Of no matter to anybody but the next start.
    pub fn write_state(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let state = State {
            end: self.settled.then_some(self.end),
            records: self.records,
            done: self.done,
            ids: self.ids,
            durable: self.durable,
            marked: self.marked,
            follows: self.follows,
        };
        let bytes = state.encode();
        let there = bytes.len().min(self.size.saturating_sub(STATE));
        self.open(disk)?.write(STATE, &bytes[..there])
    }

    /// It comes after this one, 0 for none.
    pub fn follow(&mut self, number: u64, disk: &dyn Disk) -> io::Result<()> {
        self.follows = Some(number);
        self.dirty = true;
        self.write_state(disk)
    }

    /// It becomes the tail, after that one: every id below `ids` may have been given.
    pub fn begin(&mut self, ids: u64, follows: u64, disk: &dyn Disk) -> io::Result<()> {
        (self.ids, self.follows) = (ids, Some(follows));
        self.dirty = true;
        self.write_state(disk)
    }

    /// Nothing is appended any more.
    pub fn seal(&mut self) {
        self.sealed = true;
        if self.unwritten.is_empty() {
            self.unwritten = Vec::new();
        }
    }

    /// A sync is ordered of everything that is in the file now.
    pub fn cover(&mut self) {
        self.dirty = false;
        let (end, sealed) = (self.written(), self.sealed);
        self.covered = Some(Covered { end, marked: self.durable, sealed });
    }

    /// What was appended is on the disk, by a sync that covers no marks.
    pub fn flushed(&mut self) {
        self.appended = false;
        self.durable = self.durable.max(self.written());
    }

    /// What the sync covered is on the disk (M1). `marks`: since it was ordered, replaced records
    /// were marked, so that only the next one covers all that wait for a record before its end.
    pub fn synced(&mut self, marks: bool, disk: &dyn Disk) -> io::Result<()> {
        let Some(covered) = self.covered.take().filter(|_| !self.settled) else { return Ok(()) };
        self.durable = self.durable.max(covered.end);
        self.marked = self.marked.max(if marks { covered.marked } else { covered.end });
        // Q4: the seal presumes that every replaced record is marked, and Q6 the next one's header.
        self.settled = covered.sealed && self.marked == self.end;
        let written = self.write_state(disk);
        self.uncounted = self.settled && written.is_err();
        written
    }

    /// Everything that was written counts as durable, with the marks it brings.
    pub fn settle(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if !self.sealed || self.settled {
            return Ok(());
        }
        self.settled = true;
        let written = self.write_state(disk);
        self.uncounted = written.is_err();
        written
    }

    /// Recovery knows that everything up to the end, and what it replaces, is on the disk.
    pub fn recovered(&mut self, disk: &dyn Disk) -> io::Result<()> {
        (self.durable, self.marked, self.settled) = (self.end, self.end, self.sealed);
        self.write_state(disk)
    }

    /// How much need not be written again, and whose replaced records are marked for sure.
    pub fn known(&self) -> (usize, usize) {
        (self.durable.min(self.end), self.marked)
    }

    /// Records that the header's counters call not done; no more than there can be, whatever a
    /// damaged header says.
    pub fn claimed(&self) -> u64 {
        let possible = (self.end - HEADER) / record::HEAD;
        self.records.saturating_sub(self.done).min(possible as u64)
    }

    /// Corrects the counters after recovery counted for itself.
    pub fn recount(&mut self, records: u64, done: u64) {
        (self.records, self.done) = (records, done);
    }
}

/// Writes marks together with what stands between them, where that can be read. Their order is that
/// of their offsets.
fn write_near(file: &dyn File, marks: &[(usize, Mark)]) -> io::Result<()> {
    let start = marks.first().map_or(0, |(at, _)| *at);
    let end = marks.iter().map(|(at, mark)| at + mark.bytes().len()).max().unwrap_or(start);
    let together = match marks {
        [(at, mark)] => file.write(*at, mark.bytes()),
        _ => {
            let mut bytes = vec![0; end - start];
            file.read(start, &mut bytes).and_then(|()| {
                for (at, mark) in marks {
                    bytes[at - start..][..mark.bytes().len()].copy_from_slice(mark.bytes());
                }
                file.write(start, &bytes)
            })
        }
    };
    if together.is_ok() {
        return Ok(());
    }
    // One that cannot be written takes none of the others with it.
    let single = |(at, mark): &(usize, Mark)| file.write(*at, mark.bytes());
    marks.iter().map(single).fold(Ok(()), io::Result::and)
}
