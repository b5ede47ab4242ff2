//! One connection of the load: its window of slots, and the bytes on their way in and out.

use crate::protocol::{Answer, Protocol};
use crate::report::Report;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

pub struct Conn {
    pub stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    received: Vec<u8>,
    /// When the request under way in each slot was sent, or was due.
    since: Vec<Option<Instant>>,
    free: Vec<u32>,
    /// Slots in the order of their requests, for protocols that answer in order.
    order: VecDeque<u32>,
    /// Waits until it can be written to.
    pub blocked: bool,
}

/// What a turn of reading came to.
pub enum Heard {
    Open,
    /// The peer closed it.
    Closed,
}

impl Conn {
    pub fn new(stream: TcpStream, window: usize) -> Conn {
        Conn {
            stream,
            out: Vec::new(),
            written: 0,
            received: Vec::new(),
            since: vec![None; window],
            free: (0..window as u32).rev().collect(),
            order: VecDeque::new(),
            blocked: false,
        }
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Puts request number `number` into the buffer, if the window has room.
    pub fn request<P: Protocol>(&mut self, protocol: &mut P, number: u64, since: Instant) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        self.since[slot as usize] = Some(since);
        if P::IN_ORDER {
            self.order.push_back(slot);
        }
        protocol.write(&mut self.out, number, slot);
        true
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<(), String> {
        self.blocked = false;
        while self.written < self.out.len() && !self.blocked {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
        }
        if !self.blocked {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once what is there, and notes every answer.
    pub fn hear<P: Protocol>(
        &mut self,
        protocol: &P,
        chunk: &mut [u8],
        report: &mut Report,
    ) -> Result<Heard, String> {
        let count = match self.stream.read(chunk) {
            Ok(0) => return Ok(Heard::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::Open),
            Err(error) => return Err(format!("the connection broke: {error}")),
        };
        let now = Instant::now();
        // The end of an answer that began in the last turn makes this one's copy necessary.
        if self.received.is_empty() {
            let used = self.answers(protocol, &chunk[..count], now, report)?;
            self.received.extend_from_slice(&chunk[used..count]);
        } else {
            let mut received = std::mem::take(&mut self.received);
            received.extend_from_slice(&chunk[..count]);
            let used = self.answers(protocol, &received, now, report)?;
            received.drain(..used);
            self.received = received;
        }
        Ok(Heard::Open)
    }

    /// Notes the whole answers at the head of `received`, and returns their bytes.
    fn answers<P: Protocol>(
        &mut self,
        protocol: &P,
        received: &[u8],
        now: Instant,
        report: &mut Report,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let (size, slot, error) = match protocol.read(&received[used..]) {
                Answer::Whole { size, slot, error } => (size, slot, error),
                Answer::Partial => return Ok(used),
                Answer::Foreign => return Err("what it answers is of another protocol".into()),
            };
            used += size;
            let slot = if P::IN_ORDER { self.order.pop_front() } else { slot };
            let under_way =
                slot.and_then(|slot| Some((slot, self.since.get_mut(slot as usize)?.take()?)));
            let Some((slot, since)) = under_way else {
                return Err("an answer came to no request under way".into());
            };
            report.note(now - since, error);
            self.free.push(slot);
        }
    }
}
