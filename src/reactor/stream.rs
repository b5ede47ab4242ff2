//! A client's socket, of either kind. Never blocks: what it says about being empty or full is its owner's
//! business.

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::Shutdown;

pub enum Stream {
    Tcp(TcpStream),
    /// The administration socket.
    Unix(UnixStream),
    /// The one for those who may only look.
    Monitor(UnixStream),
}

impl Stream {
    /// Watches it for both directions.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => registry.register(stream, token, both),
            Stream::Unix(stream) | Stream::Monitor(stream) => {
                registry.register(stream, token, both)
            }
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) | Stream::Monitor(stream) => stream.read(buffer),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) | Stream::Monitor(stream) => stream.write(bytes),
        }
    }

    /// Ends our side. A socket that is closed already needs no end.
    pub fn end(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) | Stream::Monitor(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}
