//! The administration socket beside the pidfile: bound by the daemon, asked by the commands. Who is at
//! its other end is the kernel's word (SO_PEERCRED), and only those a daemon may run as are believed.

use super::place::Place;
use super::process::Process;
use crate::file;
use rustix::fs::{CWD, FileType, Mode, OFlags, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a socket with a full backlog is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// As many may wait to be heard.
const BACKLOG: i32 = 128;

/// To be called with the pidfile locked. From its first moment on nobody but this user may connect:
/// the mode of a socket is that of the file that it is bound to (unix(7)).
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    // The pidfile's lock is ours, so whatever is there is left over.
    let _ = std::fs::remove_file(path);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Connects within `patience`. Nobody listens: `NotFound` or `ConnectionRefused`; anything else is an
/// error that says what is there.
pub fn connect(place: &Place, patience: Duration) -> io::Result<(UnixStream, Process)> {
    match connect_to(&place.socket, place, patience) {
        // Whoever may only look is heard at the other socket.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            connect_to(&place.monitor_socket(), place, patience).map_err(|_| error)
        }
        reached => reached,
    }
}

fn connect_to(path: &Path, place: &Place, patience: Duration) -> io::Result<(UnixStream, Process)> {
    let deadline = Instant::now() + patience;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&socket)?;
    if let Some(why) = file::planted(&stat, FileType::Socket) {
        return Err(io::Error::other(why));
    }
    let stream = reach(&socket, deadline)?;
    let peer = sockopt::socket_peercred(&stream)?;
    if peer.uid.as_raw() != stat.st_uid && place.trusts(peer.uid) {
        return Err(io::Error::other(format!(
            "it belongs to the user {}, and the process {} of the user {} listens there: remove it, and the \
             daemon puts it back within seconds",
            stat.st_uid, peer.pid, peer.uid
        )));
    }
    if peer.uid.as_raw() != stat.st_uid || !place.trusts(peer.uid) {
        return Err(io::Error::other(format!(
            "the process {} of the user {} listens there and is not believed: it is not {}'s",
            peer.pid, peer.uid, place.whose
        )));
    }
    let process = Process::of(peer.pid, peer.uid)?;
    Ok((stream, process))
}

/// Connects to the very file that was looked at.
fn reach(socket: &OwnedFd, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let stream =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&stream, &address) {
            Ok(()) => {
                let stream = UnixStream::from(stream);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(AGAIN);
            }
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}
