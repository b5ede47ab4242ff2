//! The administration socket beside the pidfile: bound by the daemon, asked by the commands. Who is at
//! its other end is the kernel's word (SO_PEERCRED), and only those a daemon may run as are believed.

use super::own;
use super::process::Process;
use crate::config::Config;
use crate::file;
use nix::unistd::User;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Uid, geteuid, umask};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a socket with a full backlog is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// To be called with the pidfile locked, before there are threads.
pub fn bind(config: &Config) -> Result<UnixListener, String> {
    bind_at(&config.admin_socket())
}

pub(super) fn bind_at(path: &Path) -> Result<UnixListener, String> {
    // The pidfile's lock is ours, so whatever is there is left over.
    let _ = std::fs::remove_file(path);
    let usual = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(usual);
    bound.map_err(|error| {
        format!("cannot create the administration socket {}: {error}", path.display())
    })
}

/// Who is believed: whom the daemon is to run as, and else root and the caller. Of root's processes
/// root believes none in a folder of the service user, who could have moved another's socket there.
pub fn trusted(config: &Config) -> Vec<Uid> {
    let mut trusted = Vec::new();
    if let Some(name) = &config.setting.user {
        let number = name.parse().ok();
        let found = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        trusted.extend(number.or_else(found).map(Uid::from_raw));
    }
    let folder = config.setting.pid_file.parent().unwrap_or(Path::new("/"));
    if trusted.is_empty() || !geteuid().is_root() || own::is_roots_alone(folder) {
        trusted.extend([Uid::ROOT, geteuid()]);
    }
    trusted
}

/// Connects within `patience`. Nobody listens: `NotFound` or `ConnectionRefused`; anything else is an
/// error that says what is there.
pub fn connect(config: &Config, patience: Duration) -> io::Result<(UnixStream, Process)> {
    let admin = connect_to(&config.admin_socket(), config, patience);
    match admin {
        // Whoever may only look is heard at the other socket.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            connect_to(&config.monitor_socket(), config, patience).map_err(|_| error)
        }
        admin => admin,
    }
}

fn connect_to(
    path: &Path,
    config: &Config,
    patience: Duration,
) -> io::Result<(UnixStream, Process)> {
    let deadline = Instant::now() + patience;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&socket)?;
    if let Some(why) = file::planted(&stat, FileType::Socket) {
        return Err(io::Error::other(why));
    }
    let stream = reach(&socket, deadline)?;
    let peer = sockopt::socket_peercred(&stream)?;
    if peer.uid.as_raw() != stat.st_uid || !trusted(config).contains(&peer.uid) {
        return Err(io::Error::other(format!(
            "the process {} of the user {} listens there and is not believed: it is not {}'s",
            peer.pid,
            peer.uid,
            config.setting.user.as_deref().unwrap_or("root's or the caller")
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
