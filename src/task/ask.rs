//! Asks mega for a template's text: one request on a connection of its own, before a task begins. Blocks, with a
//! deadline.

use crate::client::timed_out;
use crate::wire::command::{self, Command};
use crate::wire::frame::{Split, split};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than any template may be.
const LONGEST: usize = 16 << 20;

pub enum Told {
    Text(String),
    /// mega has no template of that key.
    NoTemplate,
    /// It does not know the question, as an older one.
    Unknown,
}

/// tget {key}
pub fn template(to: &str, key: &str) -> Result<Told, String> {
    let failed = |error: io::Error| format!("cannot ask mega at {to} for the template: {error}");
    let mut stream = connect(to, PATIENCE).map_err(failed)?;
    let mut bytes = Vec::new();
    command::encode_tget(&mut bytes, 1, key.as_bytes());
    stream.write_all(&bytes).map_err(failed)?;
    bytes.clear();
    loop {
        match split(&bytes, LONGEST) {
            Split::Frame { payload, .. } => {
                let Ok(Command::Result { code, message, .. }) = command::decode(payload) else {
                    return Err(format!("what answers at {to} is no mega"));
                };
                let message = String::from_utf8_lossy(message);
                return match code {
                    b"200" => Ok(Told::Text(message.into_owned())),
                    b"400" => Ok(Told::NoTemplate),
                    _ if message.starts_with("Expect tset") => Ok(Told::Unknown),
                    _ => Err(format!("mega at {to} answers: {message}")),
                };
            }
            Split::TooLong => return Err(format!("what answers at {to} is no mega")),
            Split::Partial { .. } => {
                let mut chunk = [0; 16 * 1024];
                match stream.read(&mut chunk).map_err(|error| failed(timed_out(error)))? {
                    0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                    count => bytes.extend_from_slice(&chunk[..count]),
                }
            }
        }
    }
}

/// Whichever of the addresses of its name answers.
pub fn connect(to: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in to.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
