//! One connection: its bytes in and out and the stage of its present request. Each call does one read or
//! writes what the socket takes, never waits, and leaves it to server.rs when to call again.

use std::io::{self, ErrorKind, Read};

use crate::answer::{Answer, Outcome};
use crate::http::{self, Afterwards, Reader};
use crate::wire::{Heard, Wire};

/// Answers to pipelined requests are gathered up to this size before they must be written.
const OUT_LIMIT: usize = 64 * 1024;
const HUGE_ANSWER: usize = 100 * 1024 * 1024;

pub enum Stage {
    Reading,
    /// The answer to the request is held back until its timer fires.
    Delayed {
        timer: u64,
        outcome: Outcome,
        afterwards: Afterwards,
    },
    /// A request that is never answered.
    Hanging,
    /// Write what is left, then linger.
    Finishing,
    Lingering {
        timer: u64,
    },
}

pub struct Connection {
    pub wire: Wire,
    pub reader: Reader,
    out: Vec<u8>,
    written: usize,
    /// Bytes of a huge answer that are still to be made.
    huge_left: usize,
    pub stage: Stage,
    pub peer_finished: bool,
}

pub enum Flush {
    Done,
    Blocked,
    /// Everything is written, but more of a huge answer follows.
    More,
}

pub enum Fill {
    Some,
    Blocked,
}

impl Connection {
    pub fn new(wire: Wire) -> Connection {
        Connection {
            wire,
            reader: Reader::new(),
            out: Vec::new(),
            written: 0,
            huge_left: 0,
            stage: Stage::Reading,
            peer_finished: false,
        }
    }

    /// Answers to pipelined requests are gathered, but not without bound.
    pub fn is_full(&self) -> bool {
        self.out.len() >= OUT_LIMIT
    }

    pub fn flush(&mut self) -> io::Result<Flush> {
        while self.written < self.out.len() {
            match self.wire.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flush::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.wire.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flush::Blocked),
            flushed => flushed?,
        }
        self.out.clear();
        self.written = 0;
        let piece = self.huge_left.min(OUT_LIMIT);
        if piece == 0 {
            return Ok(Flush::Done);
        }
        self.out.resize(piece, b' ');
        self.huge_left -= piece;
        Ok(Flush::More)
    }

    /// Reads once. A peer that has finished is noted, and reads as Blocked ever after.
    pub fn fill(&mut self, scratch: &mut [u8]) -> io::Result<Fill> {
        while !self.peer_finished {
            match self.wire.read(scratch, &mut self.reader) {
                Ok(Heard::End) => self.peer_finished = true,
                Ok(Heard::Bytes) => return Ok(Fill::Some),
                Ok(Heard::Nothing) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Fill::Blocked)
    }

    /// Throws away what a finished connection still receives.
    pub fn discard(&mut self, scratch: &mut [u8]) -> io::Result<Step> {
        match self.wire.stream.read(scratch) {
            Ok(0) => Ok(Step::Gone),
            Ok(_) => Ok(Step::Again),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Step::Blocked),
            Err(error) => Err(error),
        }
    }

    /// Whether a request waits for its answer, perhaps for ever: what `in_flight` counts.
    pub fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Delayed { .. } | Stage::Hanging)
    }

    pub fn put_continue(&mut self) {
        self.out.extend_from_slice(http::CONTINUE);
    }

    pub fn put(&mut self, answer: &Answer, afterwards: Afterwards) {
        let Answer { status, content_type, body } = answer;
        http::write_head(&mut self.out, *status, content_type, body.len(), afterwards);
        self.out.extend_from_slice(body);
        self.stage = match afterwards {
            Afterwards::KeepAlive => Stage::Reading,
            Afterwards::Close => Stage::Finishing,
        };
    }

    /// Puts the outcome of a request; Gone if it is to lose the connection.
    pub fn conclude(&mut self, outcome: Outcome, afterwards: Afterwards) -> Step {
        match outcome {
            Outcome::Answer(answer) => self.put(&answer, afterwards),
            Outcome::Hang => self.stage = Stage::Hanging,
            Outcome::Close => {
                // Earlier answers go out first, as far as the client takes them; the end is abrupt anyway.
                let _ = self.flush();
                return Step::Gone;
            }
            Outcome::Huge => {
                http::write_head(
                    &mut self.out,
                    200,
                    "application/json",
                    HUGE_ANSWER,
                    Afterwards::Close,
                );
                self.huge_left = HUGE_ANSWER;
                self.stage = Stage::Finishing;
            }
        }
        Step::Again
    }
}

pub enum Step {
    Again,
    /// Nothing to do before the next event or timer.
    Blocked,
    Gone,
}
