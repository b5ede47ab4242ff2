//! The bytes of one connection: as they are, or through TLS. With `--tls` the first byte a client sends
//! tells which: HTTP begins with a letter, TLS with the type of its first record. Never waits.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::http::Reader;
use crate::tls::Welcome;

/// The type of the record that holds a client's first words (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// A fatal alert, handshake_failure (RFC 8446, 6).
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

pub struct Wire {
    pub stream: TcpStream,
    speech: Speech,
    /// TLS was begun and came to nothing.
    pub failed: bool,
}

enum Speech {
    Plain,
    /// Nothing was heard so far; the welcome is for a client that speaks TLS.
    Unknown(Welcome),
    Tls(Box<ServerConnection>),
    /// TLS that is never answered.
    Silent,
}

pub enum Heard {
    /// Something for the reader.
    Bytes,
    /// Nothing for the reader: a part of a handshake or of a record.
    Nothing,
    /// The peer has finished.
    End,
}

impl Wire {
    /// Without a welcome TLS is not spoken.
    pub fn new(stream: TcpStream, welcome: Option<Welcome>) -> Wire {
        Wire { stream, speech: welcome.map_or(Speech::Plain, Speech::Unknown), failed: false }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.speech, Speech::Tls(_) | Speech::Silent)
    }

    /// Reads once; `WouldBlock` when nothing is there.
    pub fn read(&mut self, scratch: &mut [u8], reader: &mut Reader) -> io::Result<Heard> {
        let count = self.stream.read(scratch)?;
        let bytes = &scratch[..count];
        let Some(first) = bytes.first() else {
            return Ok(Heard::End);
        };
        if let Speech::Unknown(welcome) = &self.speech {
            self.speech = match *first {
                HANDSHAKE => {
                    self.failed = !matches!(welcome, Welcome::Session(_));
                    self.meet(welcome)?
                }
                _ => Speech::Plain,
            };
        }
        match &mut self.speech {
            Speech::Tls(session) => {
                let decoded = decode(session, &mut self.stream, bytes, reader);
                self.failed =
                    matches!(&decoded, Err(error) if error.kind() == ErrorKind::InvalidData);
                decoded
            }
            Speech::Silent => Ok(Heard::Nothing),
            Speech::Plain | Speech::Unknown(_) => {
                reader.push(bytes);
                Ok(Heard::Bytes)
            }
        }
    }

    fn meet(&self, welcome: &Welcome) -> io::Result<Speech> {
        match welcome {
            Welcome::Session(config) => {
                let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Ok(Speech::Tls(Box::new(session)))
            }
            Welcome::Refuse => {
                (&self.stream).write_all(ALERT)?;
                Err(ErrorKind::ConnectionAborted.into())
            }
            Welcome::Close => Err(ErrorKind::ConnectionAborted.into()),
            Welcome::Hang => Ok(Speech::Silent),
        }
    }

    /// Writes what is taken of the bytes; `WouldBlock` when that is nothing.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Speech::Tls(session) = &mut self.speech else {
            return self.stream.write(bytes);
        };
        match session.writer().write(bytes)? {
            0 => {
                transmit(session, &mut self.stream)?;
                session.writer().write(bytes)
            }
            count => Ok(count),
        }
    }

    /// Writes what TLS has yet to write; `WouldBlock` when the socket does not take it all.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.speech {
            Speech::Tls(session) => transmit(session, &mut self.stream),
            _ => Ok(()),
        }
    }

    /// Nothing more is written. TLS says so as well, as far as the socket takes it.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Speech::Tls(session) = &mut self.speech {
            session.send_close_notify();
            match transmit(session, &mut self.stream) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

/// Gives what the records hold to the reader, and answers a handshake.
fn decode(
    session: &mut ServerConnection,
    stream: &mut TcpStream,
    mut bytes: &[u8],
    reader: &mut Reader,
) -> io::Result<Heard> {
    let mut heard = Heard::Nothing;
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        if let Err(error) = session.process_new_packets() {
            // The alert says why; a client that is gone misses it.
            let _ = transmit(session, stream);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        loop {
            let mut words = session.reader();
            match words.fill_buf() {
                Ok([]) => return Ok(Heard::End),
                Ok(plain) => {
                    reader.push(plain);
                    let count = plain.len();
                    words.consume(count);
                    heard = Heard::Bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    if session.wants_write() {
        match transmit(session, stream) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(heard)
}

fn transmit(session: &mut ServerConnection, stream: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(stream) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
