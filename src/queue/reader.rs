//! Reads a file a block at a time. The disk may refuse some of it at any moment: what cannot be read
//! counts as zeros, which no record's checksum takes for a record, and is remembered.

use super::disk::File;
use std::ops::Range;
use std::sync::Arc;

/// What the disk refuses is found in pieces of this size, at its multiples.
pub const PAGE: usize = 4096;

pub struct Reader {
    file: Arc<dyn File>,
    /// Nothing from here on is read: it may be written yet.
    end: usize,
    block: usize,
    /// What was read last, and where it begins.
    bytes: Vec<u8>,
    start: usize,
    unreadable: Option<String>,
}

impl Reader {
    /// Reads the file up to `end`, about `block` bytes at once.
    pub fn new(file: Arc<dyn File>, end: usize, block: usize) -> Reader {
        Reader { file, end, block, bytes: Vec::new(), start: 0, unreadable: None }
    }

    pub fn end(&self) -> usize {
        self.end
    }

    /// More was written meanwhile.
    pub fn extend(&mut self, end: usize) {
        self.end = self.end.max(end);
    }

    /// The bytes of `range`, which must not reach beyond the end.
    pub fn bytes(&mut self, range: Range<usize>) -> &[u8] {
        if self.must_load(range.clone()) {
            assert!(range.start <= range.end && range.end <= self.end);
            let end = range.end.max((range.start + self.block).min(self.end));
            self.load(range.start..end);
        }
        &self.bytes[range.start - self.start..range.end - self.start]
    }

    /// The range is not in memory yet.
    pub fn must_load(&self, range: Range<usize>) -> bool {
        range.start < self.start || range.end > self.start + self.bytes.len()
    }

    /// Shows what is about to be written, if it is in memory.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        if !self.must_load(at..at + bytes.len()) {
            self.bytes[at - self.start..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    fn load(&mut self, range: Range<usize>) {
        self.start = range.start;
        self.bytes.resize(range.len(), 0);
        if self.file.read(range.start, &mut self.bytes).is_ok() {
            return;
        }
        let mut at = range.start;
        while at < range.end {
            // A page of the file: of what stands beside one that is lost nothing is.
            let end = range.end.min((at + 1).next_multiple_of(PAGE));
            let page = &mut self.bytes[at - range.start..end - range.start];
            if let Err(error) = self.file.read(at, page) {
                page.fill(0);
                self.unreadable = Some(error.to_string());
            }
            at = end;
        }
    }

    /// The next part from `at` on that may hold anything but zeros, if there is one.
    pub fn next_data(&self, at: usize) -> Option<Range<usize>> {
        let data = self.file.next_data(at).filter(|data| data.start < self.end)?;
        Some(data.start..data.end.min(self.end))
    }

    /// Nothing was ever written from `at` on, as far as can be seen.
    pub fn is_zero(&mut self, mut at: usize) -> bool {
        while let Some(data) = self.next_data(at) {
            at = data.end;
            for from in data.clone().step_by(self.block) {
                let part = from..data.end.min(from + self.block);
                if !is_blank(self.bytes(part)) || self.unreadable.is_some() {
                    return false;
                }
            }
        }
        true
    }

    /// Why some of what was asked for could not be read, if so.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// The same, once.
    pub fn take_unreadable(&mut self) -> Option<String> {
        self.unreadable.take()
    }
}

/// Nothing but zeros.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE).all(|page| page.iter().fold(0, |any, byte| any | byte) == 0)
}
