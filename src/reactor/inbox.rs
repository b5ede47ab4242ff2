//! What a client has sent that is not a whole frame yet, or that waits while the client is held back.
//! Costs what is in it: a long frame's buffer is not kept for the beginning of a short one.

use std::time::Instant;

#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// When the first of these bytes came; none while there are none.
    since: Option<Instant>,
}

impl Inbox {
    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The time before now does not count.
    pub fn begin_anew(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// What it has cost so far: bytes times milliseconds.
    pub fn cost(&self, now: Instant) -> u128 {
        self.since
            .map_or(0, |since| self.memory() as u128 * (1 + now.duration_since(since).as_millis()))
    }

    /// Shows `each` what there is with `chunk` at its end, and keeps what `each` says is not used up.
    pub fn digest(&mut self, chunk: &[u8], each: impl FnOnce(&[u8]) -> usize, now: Instant) {
        if self.bytes.is_empty() {
            let used = each(chunk);
            if used < chunk.len() {
                self.bytes = chunk[used..].to_vec();
                self.since = Some(now);
            }
            return;
        }
        extend(&mut self.bytes, chunk);
        let used = each(&self.bytes);
        let left = self.bytes.len() - used;
        if used > 0 {
            self.since = (left > 0).then_some(now);
        }
        // Also where nothing is left: an empty inbox costs nothing.
        match left <= self.bytes.capacity() / 4 {
            true => self.bytes = self.bytes[used..].to_vec(),
            false => drop(self.bytes.drain(..used)),
        }
    }
}

/// A buffer grows by a quarter at least: not by so little that its bytes are moved all the time, nor
/// by so much that half of what is charged for is empty.
fn extend(inbox: &mut Vec<u8>, chunk: &[u8]) {
    let (wanted, capacity) = (inbox.len() + chunk.len(), inbox.capacity());
    if wanted > capacity {
        inbox.reserve_exact(wanted.max(capacity + capacity / 4) - inbox.len());
    }
    inbox.extend_from_slice(chunk);
}
