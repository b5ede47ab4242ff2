//! The log in the system's log, as RFC 3164 has it, over the socket that its daemon listens on. Never waits for
//! that daemon: it may be slow, restarted or missing.

use super::entry::Entry;
use crate::config::Named;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

pub const SOCKET: &str = "/dev/log";

/// The facility `daemon`.
const DAEMON: u8 = 3 << 3;

/// Longer messages are cut: what usual daemons take, and less than a datagram may have.
const LONGEST: usize = 8 * 1024;

pub struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// `name[pid]`.
    tag: String,
}

impl Syslog {
    pub fn new(path: PathBuf, name: &str) -> Syslog {
        let name =
            name.replace(|c: char| !c.is_ascii_graphic() || matches!(c, '[' | ']' | ':'), "_");
        Syslog { path, socket: None, tag: format!("{name}[{}]", std::process::id()) }
    }

    pub fn write(&mut self, entry: &Entry, line: &str) -> io::Result<()> {
        let priority = DAEMON | entry.severity();
        let time = entry.time.format("%b %e %H:%M:%S");
        let level = entry.level.name().to_uppercase();
        let mut text = format!("<{priority}>{time} {}: {level} {line}", self.tag);
        text.truncate(text.floor_char_boundary(LONGEST));
        // A daemon that was restarted listens on another socket of the same name.
        for known in [true, false] {
            let socket = match self.socket.take().filter(|_| known) {
                Some(socket) => socket,
                None if known => continue,
                None => self.connect()?,
            };
            match socket.send(text.as_bytes()) {
                Ok(_) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                // It is there, and has too much to do.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket = Some(socket);
                    return Err(error);
                }
                Err(error) if !known => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64 * 1024];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_priority_time_and_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let system = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::new(path, "mega a:[b]");
        let entry = entry("hello");
        syslog.write(&entry, "hello").unwrap();
        let (time, pid) = (entry.time.format("%b %e %H:%M:%S"), std::process::id());
        assert_eq!(heard(&system), format!("<28>{time} mega_a__b_[{pid}]: WARNING hello"));
        syslog.write(&entry, &"中".repeat(LONGEST)).unwrap();
        assert!((LONGEST - 3..=LONGEST).contains(&heard(&system).len()));
    }

    #[test]
    fn a_daemon_that_is_missing_restarted_or_stuck_costs_lines_and_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog::new(path.clone(), "mega");
        assert!(syslog.write(&entry("a"), "a").is_err());
        let first = UnixDatagram::bind(&path).unwrap();
        syslog.write(&entry("b"), "b").unwrap();
        assert!(heard(&first).ends_with("b"));
        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.write(&entry("c"), "c").is_err());
        let second = UnixDatagram::bind(&path).unwrap();
        syslog.write(&entry("d"), "d").unwrap();
        drop(second);
        std::fs::remove_file(&path).unwrap();
        // Gone and back between two lines: none is lost.
        let third = UnixDatagram::bind(&path).unwrap();
        syslog.write(&entry("e"), "e").unwrap();
        assert!(heard(&third).ends_with("e"));
        let taken = (0..10_000).take_while(|_| syslog.write(&entry("f"), "f").is_ok()).count();
        assert!(taken < 10_000, "a daemon that reads nothing takes everything");
        assert!(heard(&third).ends_with("f"));
        syslog.write(&entry("g"), "g").unwrap();
    }
}
