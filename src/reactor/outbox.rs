//! What a client has not taken yet. Gives its memory back as it is written, not only when it is
//! empty: a client that always keeps a backlog costs its backlog.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// An empty outbox keeps so much, which is part of what a connection costs.
pub const KEPT: usize = 512;

#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Of these, what is written already: never more than half of them.
    written: usize,
    /// When the client last took a byte, or was first left one; none while nothing is left.
    stalled: Option<Instant>,
    peer: Peer,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    #[default]
    Takes,
    /// It takes no bytes any more; what it has sent is read all the same.
    Gone,
}

/// What reading or writing came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Io {
    /// There may be more at once.
    More,
    /// The socket is done for now, or for ever.
    Done,
    /// The connection is broken.
    Broken,
}

impl Outbox {
    /// Where replies are written to.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn unwritten(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Bytes of memory beyond those that every connection is charged for.
    pub fn memory(&self) -> usize {
        self.bytes.capacity().saturating_sub(KEPT)
    }

    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Nothing was taken of what is left for so long.
    pub fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        self.stalled.is_some_and(|since| now.duration_since(since) > limit)
    }

    /// Writes what `socket` takes; `More` if something is left. From the first refusal on, everything
    /// is thrown away.
    pub fn flush(
        &mut self,
        now: Instant,
        mut socket: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Io {
        while self.peer == Peer::Takes && self.unwritten() > 0 {
            match socket(&self.bytes[self.written..]) {
                Ok(0) => self.peer = Peer::Gone,
                Ok(count) => {
                    self.written += count;
                    self.stalled = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.peer = Peer::Gone,
            }
        }
        if self.peer == Peer::Gone || self.unwritten() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.written = 0;
            self.stalled = None;
            return if self.peer == Peer::Gone { Io::Broken } else { Io::Done };
        }
        self.stalled.get_or_insert(now);
        self.give_back();
        Io::More
    }

    /// A byte is moved only when at least as many before it have gone, so each one is moved once on
    /// average.
    fn give_back(&mut self) {
        if self.written >= self.unwritten() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to((2 * self.bytes.len()).max(KEPT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A socket that takes so many bytes and then blocks.
    fn takes(mut room: usize) -> impl FnMut(&[u8]) -> io::Result<usize> {
        move |bytes| {
            let count = bytes.len().min(room);
            room -= count;
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }
    }

    #[test]
    fn a_backlog_that_is_never_empty_costs_no_more_than_itself() {
        let (mut outbox, now, mut seen) = (Outbox::default(), Instant::now(), Vec::new());
        for n in 0..10_000_u32 {
            outbox.bytes().extend(n.to_be_bytes().repeat(250));
            if n >= 100 {
                let mut room = takes(1000);
                let flushed = outbox.flush(now, |bytes| {
                    let count = room(bytes)?;
                    seen.extend_from_slice(&bytes[..count]);
                    Ok(count)
                });
                assert_eq!(flushed, Io::More);
                assert_eq!(outbox.unwritten(), 100_000);
                assert!(outbox.memory() <= 400_000, "{} bytes", outbox.memory());
            }
        }
        let expected = (0..9_900_u32).flat_map(|n| n.to_be_bytes().repeat(250));
        assert!(seen.into_iter().eq(expected));
    }

    #[test]
    fn a_large_backlog_is_given_back_as_it_is_written() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.bytes().resize(8 << 20, 7);
        for left in (0..8_usize).rev() {
            let wanted = if left == 0 { Io::Done } else { Io::More };
            assert_eq!(outbox.flush(now, takes(1 << 20)), wanted);
            assert!(outbox.memory() <= (4 * left) << 20, "{} for {left} MiB", outbox.memory());
        }
    }

    #[test]
    fn a_byte_taken_is_progress_and_a_byte_left_is_not() {
        let (mut outbox, began) = (Outbox::default(), Instant::now());
        let after = |minutes: u32| began + minutes * MINUTE;
        outbox.flush(began, takes(9));
        assert!(!outbox.is_stalled(after(9), MINUTE), "nothing is left");
        outbox.bytes().extend_from_slice(b"12345");
        outbox.flush(after(1), takes(0));
        outbox.bytes().extend_from_slice(b"67890");
        outbox.flush(after(2), takes(0));
        assert!(!outbox.is_stalled(after(2), MINUTE) && outbox.is_stalled(after(3), MINUTE));
        outbox.flush(after(3), takes(1));
        assert!(!outbox.is_stalled(after(4), MINUTE) && outbox.is_stalled(after(5), MINUTE));
        outbox.flush(after(5), takes(9));
        assert!(!outbox.is_stalled(after(9), MINUTE));
    }

    #[test]
    fn after_a_refusal_everything_is_thrown_away() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        for _ in 0..2 {
            outbox.bytes().extend_from_slice(&[1; 9000]);
            assert_eq!(outbox.flush(now, |_| Err(ErrorKind::BrokenPipe.into())), Io::Broken);
            assert_eq!((outbox.unwritten(), outbox.memory()), (0, 0));
        }
        assert_eq!(outbox.peer(), Peer::Gone);
    }
}
