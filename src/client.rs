//! A blocking client of the wire protocol, as the command line uses it: one request, one result.

use crate::wire::command::{self, Command};
use crate::wire::frame::{Split, split};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than the daemon tries a send.
const PATIENCE: Duration = Duration::from_secs(60);

/// Results are short; this bounds what a stranger on the port can make us read.
const RESULT_LIMIT: usize = 16 << 20;

pub trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

pub struct Client {
    wire: Box<dyn Wire>,
    received: Vec<u8>,
}

pub struct Answer {
    pub code: u16,
    pub message: String,
}

impl Client {
    pub fn tcp(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { wire: Box::new(stream), received: Vec::new() })
    }

    /// The administration socket of a running daemon.
    pub fn admin(path: &Path, patience: Duration) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Client { wire: Box::new(stream), received: Vec::new() })
    }

    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.wire.write_all(frame)
    }

    /// The next result.
    pub fn read(&mut self) -> io::Result<Answer> {
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not a result");
        loop {
            match split(&self.received, RESULT_LIMIT) {
                Split::TooLong => return Err(garbled()),
                Split::Frame { payload, size } => {
                    let Ok(Command::Result { code, message, .. }) = command::decode(payload) else {
                        return Err(garbled());
                    };
                    let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
                    let code = code.ok_or_else(garbled)?;
                    let message = String::from_utf8_lossy(message).into_owned();
                    self.received.drain(..size);
                    return Ok(Answer { code, message });
                }
                Split::Partial { .. } => {
                    let mut chunk = [0; 16 * 1024];
                    match self.wire.read(&mut chunk)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        count => self.received.extend_from_slice(&chunk[..count]),
                    }
                }
            }
        }
    }

    pub fn call(&mut self, frame: &[u8]) -> io::Result<Answer> {
        self.write(frame)?;
        self.read()
    }
}
