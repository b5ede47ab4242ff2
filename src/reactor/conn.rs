//! One client: its socket, what it sent that is not a whole frame yet, and what it has not taken
//! yet. Owned by the reactor; never blocks, and never holds more than its limits allow.

use crate::wire::command;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// An outbox of this size is kept when it has been written out; a larger one is let go.
const OUTBOX_KEPT: usize = 4 * 1024;

/// How long a client may take to close its side after it was told to go.
const PARTING: Duration = Duration::from_secs(1);

/// Bytes read in one go.
pub const CHUNK: usize = 64 * 1024;

/// Bytes read from one client before others have their turn.
const TURN: usize = 4 * CHUNK;

pub enum Stream {
    Tcp(TcpStream),
    /// The administration socket.
    Unix(UnixStream),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

pub struct Conn {
    stream: Stream,
    pub generation: u32,
    /// What was read and is not a whole frame yet, or waits while `paused`.
    pub inbox: Vec<u8>,
    outbox: Vec<u8>,
    written: usize,
    /// Requests whose results have not come back yet.
    pub unanswered: usize,
    /// The socket may have more to read.
    pub readable: bool,
    /// The other side has sent its end, which no later edge will tell of again.
    pub ending: bool,
    /// Its next request could not be handed on; nothing is read until it can.
    pub paused: bool,
    /// It has sent all it will send.
    pub ended: bool,
    /// No more frames are taken from it: it is closed when everything it is owed is written, this
    /// last of all.
    pub last_words: Option<Vec<u8>>,
    /// When it last gave or took a byte.
    pub active: Instant,
    /// Something was put into the outbox in this turn.
    pub touched: bool,
    /// It takes no bytes any more; what it has sent is read all the same.
    pub deaf: bool,
    /// When its sending side was ended.
    parted: Option<Instant>,
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

impl Conn {
    pub fn new(stream: Stream, generation: u32, now: Instant) -> Conn {
        Conn {
            stream,
            generation,
            inbox: Vec::new(),
            outbox: Vec::new(),
            written: 0,
            unanswered: 0,
            readable: true,
            ending: false,
            paused: false,
            ended: false,
            last_words: None,
            active: now,
            touched: false,
            deaf: false,
            parted: None,
        }
    }

    pub fn is_admin(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(self.stream.source(), token, both)
    }

    /// Reads what the socket has, for one turn, and calls `each` with what there is to look at: the
    /// bytes read, or the inbox with these at its end. `each` says how many of them are used up; the
    /// rest is kept. After the last words everything read is thrown away.
    pub fn read(
        &mut self,
        chunk: &mut [u8],
        mut each: impl FnMut(&mut Conn, &[u8]) -> usize,
        now: Instant,
    ) -> Io {
        if !self.inbox.is_empty() && !self.paused {
            // What a pause has left.
            self.digest(&[], &mut each);
        }
        let mut taken = 0;
        while self.readable && !self.paused {
            if taken >= TURN {
                return Io::More;
            }
            match self.stream.read(chunk) {
                Ok(0) => {
                    self.ended = true;
                    self.readable = false;
                }
                Ok(count) => {
                    taken += count;
                    self.active = now;
                    // A short read has emptied the socket; the next edge tells of more.
                    self.readable = count == chunk.len() || self.ending;
                    self.digest(&chunk[..count], &mut each);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Io::Broken,
            }
        }
        Io::Done
    }

    fn digest(&mut self, chunk: &[u8], each: &mut impl FnMut(&mut Conn, &[u8]) -> usize) {
        if self.inbox.is_empty() {
            let used = each(self, chunk);
            self.inbox.extend_from_slice(&chunk[used..]);
            return;
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(chunk);
        let used = each(self, &inbox);
        if used < inbox.len() {
            inbox.drain(..used);
            self.inbox = inbox;
        }
    }

    /// Sends a result, and the listening sockets with it.
    pub fn give(&mut self, listeners: &[TcpListener], opaque: u32) {
        let mut frame = Vec::new();
        command::encode_result(&mut frame, command::OK, opaque, b"");
        let sockets: Vec<BorrowedFd> = listeners.iter().map(|socket| socket.as_fd()).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(sockets.len()))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let given = match &self.stream {
            Stream::Unix(stream) if !sockets.is_empty() && self.unwritten() == 0 => {
                ancillary.push(SendAncillaryMessage::ScmRights(&sockets))
                    && sendmsg(stream, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)
                        .is_ok_and(|count| count == frame.len())
            }
            _ => false,
        };
        if !given {
            let why = b"the listening sockets cannot be given";
            command::encode_result(&mut self.outbox, command::FAILED, opaque, why);
        }
    }

    /// Where replies are written to.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    pub fn unwritten(&self) -> usize {
        self.outbox.len() - self.written
    }

    /// Writes what the socket takes; a client that takes nothing any more is only read on.
    pub fn flush(&mut self, now: Instant) -> Io {
        let flushed = if self.deaf { Io::Broken } else { self.write(now) };
        if flushed != Io::More {
            self.outbox.clear();
            self.outbox.shrink_to(OUTBOX_KEPT);
            self.written = 0;
        }
        flushed
    }

    fn write(&mut self, now: Instant) -> Io {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(0) => return Io::Broken,
                Ok(count) => {
                    self.written += count;
                    self.active = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Io::More,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Io::Broken,
            }
        }
        Io::Done
    }

    /// It has sent half a frame, or does not take what it is owed, or was told to go.
    pub fn owes(&self) -> bool {
        let half_frame = !self.inbox.is_empty() && !self.paused;
        self.unwritten() > 0 || half_frame || self.parted.is_some()
    }

    /// It has owed something for longer than `limit`, which is off when zero.
    pub fn is_silent(&self, now: Instant, limit: Duration) -> bool {
        let parted = self.parted.is_some_and(|at| now.duration_since(at) > PARTING);
        let silent = !limit.is_zero() && now.duration_since(self.active) > limit;
        parted || (self.owes() && silent)
    }

    /// Ends the sending side when the last words are written; true if that was now. The other side
    /// is read on for a moment: closing a socket that has unread bytes would take the last words
    /// back.
    pub fn part(&mut self, now: Instant) -> bool {
        let written = self.unanswered == 0 && self.unwritten() == 0;
        let parts = written && self.last_words.is_some() && self.parted.is_none();
        if parts {
            self.parted = Some(now);
            // A socket that is closed already needs no end.
            let _ = match &self.stream {
                Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
                Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            };
            self.readable = true;
            self.paused = false;
        }
        parts
    }

    /// Nothing more will come from it or go to it.
    pub fn is_over(&self) -> bool {
        let settled = self.unanswered == 0 || self.deaf;
        self.ended && settled && self.unwritten() == 0 && !self.paused
    }
}
