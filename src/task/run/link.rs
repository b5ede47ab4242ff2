//! One connection to mega: bytes on their way out and in. Knows frames and nothing of people; never blocks.

use crate::task::plan::Verb;
use crate::wire::command::{self, Command, Request};
use crate::wire::frame::{Split, split};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longer than mega tries a send; who says nothing for so long is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// For the connection itself.
const CONNECT: Duration = Duration::from_secs(10);

/// Results are short; this bounds what a stranger can make us keep.
const LONGEST: usize = 1 << 20;

pub struct Link {
    stream: TcpStream,
    /// It is connected.
    up: bool,
    out: Vec<u8>,
    written: usize,
    received: Vec<u8>,
    /// Requests without an answer.
    pub outstanding: usize,
    /// When it began, or last said something, or began to owe an answer.
    heard: Instant,
}

/// One result.
pub struct Reply<'a> {
    pub opaque: u32,
    pub code: u16,
    pub message: &'a [u8],
}

/// What a look at the socket brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Some,
    NoMore,
    /// The other side has closed it.
    End,
}

fn garbled() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what it answers is no result of mega's")
}

impl Link {
    pub fn begin(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Link> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link {
            stream,
            up: false,
            out: Vec::new(),
            written: 0,
            received: Vec::new(),
            outstanding: 0,
            heard: Instant::now(),
        })
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Until when something must have happened.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.up, self.outstanding) {
            (false, _) => Some(self.heard + CONNECT),
            (true, 0) => None,
            (true, _) => Some(self.heard + PATIENCE),
        }
    }

    /// Something happened to the socket; true when it has just been connected.
    pub fn look(&mut self) -> io::Result<bool> {
        if self.up {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.stream.set_nodelay(true)?;
                self.up = true;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a request among the bytes on their way.
    pub fn put(&mut self, verb: Verb, request: Request, now: Instant) {
        if self.outstanding == 0 {
            self.heard = now;
        }
        self.outstanding += 1;
        match verb {
            Verb::Send => command::encode_send(&mut self.out, request),
            Verb::Push => command::encode_push(&mut self.out, request),
        }
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads a chunk of what is there. To be called until there is no more: an end that came in the same event as the
    /// last bytes is told by no other.
    pub fn read(&mut self, chunk: &mut [u8], now: Instant) -> io::Result<Heard> {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return Ok(Heard::End),
                Ok(count) => {
                    self.heard = now;
                    self.received.extend_from_slice(&chunk[..count]);
                    return Ok(Heard::Some);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::NoMore),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Calls `on` for each whole result that was read; it says whether it answers a request of this connection.
    pub fn replies(&mut self, mut on: impl FnMut(Reply) -> bool) -> io::Result<()> {
        let mut used = 0;
        loop {
            let (payload, size) = match split(&self.received[used..], LONGEST) {
                Split::Frame { payload, size } => (payload, size),
                Split::Partial { .. } => break,
                Split::TooLong => return Err(garbled()),
            };
            let Ok(Command::Result { opaque, code, message }) = command::decode(payload) else {
                return Err(garbled());
            };
            let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
            let code = code.ok_or_else(garbled)?;
            if !on(Reply { opaque, code, message }) {
                return Err(garbled());
            }
            self.outstanding = self.outstanding.checked_sub(1).ok_or_else(garbled)?;
            used += size;
        }
        self.received.drain(..used);
        Ok(())
    }

    pub fn end(mut self, registry: &Registry) {
        // A socket that is closed is polled no more.
        let _ = registry.deregister(&mut self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::TcpListener;

    #[test]
    fn an_end_that_comes_with_the_last_answer_is_heard_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut poll = Poll::new().unwrap();
        let address = listener.local_addr().unwrap();
        let mut link = Link::begin(address, poll.registry(), Token(0)).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let mut answer = Vec::new();
        command::encode_result(&mut answer, 200, 7, b"");
        other.write_all(&answer).unwrap();
        drop(other);
        let mut events = Events::with_capacity(8);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !events.iter().any(|event| event.is_read_closed()) {
            assert!(Instant::now() < deadline);
            poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
        }
        link.look().unwrap();
        link.outstanding = 1;
        let (mut chunk, now) = ([0; 1024], Instant::now());
        assert_eq!(link.read(&mut chunk, now).unwrap(), Heard::Some);
        let mut opaques = Vec::new();
        link.replies(|reply| {
            opaques.push(reply.opaque);
            true
        })
        .unwrap();
        assert_eq!(opaques, [7]);
        assert_eq!(link.read(&mut chunk, now).unwrap(), Heard::End);
    }
}
