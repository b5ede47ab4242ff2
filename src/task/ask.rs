//! Asks mega for a template's text: one request on a connection of its own, before a task begins. Blocks, with a
//! deadline.

use super::exit::{self, Refused};
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
pub fn template(to: &str, key: &str) -> Result<Told, Refused> {
    let failed = |error: io::Error| {
        Refused::new(
            exit::FAILED,
            [
                format!("cannot ask mega at {to} for the template: {error} (does it run there?)"),
                format!("无法向 {to} 的 mega 查询模板：{error}（mega 在运行吗？）"),
            ],
        )
    };
    let stranger = || {
        Refused::new(
            exit::FAILED,
            [format!("what answers at {to} is no mega"), format!("{to} 上应答的不是 mega")],
        )
    };
    let mut stream = connect(to, PATIENCE).map_err(failed)?;
    let mut bytes = Vec::new();
    command::encode_tget(&mut bytes, 1, key.as_bytes());
    stream.write_all(&bytes).map_err(failed)?;
    bytes.clear();
    loop {
        match split(&bytes, LONGEST) {
            Split::Frame { payload, .. } => {
                let Ok(Command::Result { code, message, .. }) = command::decode(payload) else {
                    return Err(stranger());
                };
                let message = String::from_utf8_lossy(message);
                return match code {
                    b"200" => Ok(Told::Text(message.into_owned())),
                    b"400" => Ok(Told::NoTemplate),
                    _ if message.starts_with("Expect tset") => Ok(Told::Unknown),
                    _ => Err(Refused::new(
                        exit::FAILED,
                        [
                            format!("mega at {to} answers: {message}"),
                            format!("{to} 的 mega 应答：{message}"),
                        ],
                    )),
                };
            }
            Split::TooLong => return Err(stranger()),
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

/// Refuses what cannot be mega's address.
pub fn check_address(to: &str) -> Result<(), Refused> {
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    match to.rsplit_once(':') {
        Some((host, digits)) if !host.is_empty() && port(digits) => Ok(()),
        _ => Err(Refused::wrong([
            format!("--to {to:?}: it must be HOST:PORT, such as 10.0.0.5:9501"),
            format!("--to {to:?}：应为 主机:端口，例如 10.0.0.5:9501"),
        ])),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:9501", "mega.example:1", "[::1]:9501"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "9501", "host", ":9501", "host:", "host:0", "host:70000", "host:x"] {
            assert_eq!(check_address(bad).err().map(|it| it.code), Some(exit::WRONG), "{bad}");
        }
    }
}
