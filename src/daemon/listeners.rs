//! The sockets that clients connect to: bound at the start, or taken over from the daemon before, so
//! that the kernel holds new connections while one ends and the other begins.

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

/// One place for each address of `listen[]`, in its order.
pub struct Listeners {
    addresses: Vec<SocketAddr>,
    backlog: i32,
    bound: Vec<Option<TcpListener>>,
    /// Where the daemon that is about to end listens; none: it did not tell.
    before: Option<Vec<SocketAddr>>,
}

/// What becomes of an address that is in use.
#[derive(PartialEq, Eq)]
pub enum InUse {
    /// The daemon that is about to end may have it.
    Later,
    Refuse,
}

impl Listeners {
    pub fn new(addresses: &[SocketAddr], backlog: u32) -> Listeners {
        let bound = addresses.iter().map(|_| None).collect();
        Listeners { addresses: addresses.to_vec(), backlog: backlog as i32, bound, before: None }
    }

    /// Takes over those that are still wanted, and closes the others; `kept` is where the daemon listens besides.
    pub fn inherit(&mut self, descriptors: Vec<OwnedFd>, kept: &[SocketAddr]) {
        let listens = |socket: &OwnedFd| sockopt::socket_acceptconn(socket) == Ok(true);
        let sockets = descriptors.into_iter().filter(listens).map(TcpListener::from);
        let mut sockets: Vec<(SocketAddr, TcpListener)> = sockets
            .filter_map(|listener| listener.local_addr().ok().map(|address| (address, listener)))
            .collect();
        let before = sockets.iter().map(|(address, _)| address).chain(kept);
        self.before = Some(before.copied().collect());
        // Those that ask for any free port come last: it must not be one that another line names.
        for any in [false, true] {
            for (wanted, place) in self.addresses.iter().zip(&mut self.bound) {
                let fits = |found: &SocketAddr| match any {
                    false => found == wanted,
                    true => wanted.port() == 0 && found.ip() == wanted.ip(),
                };
                if place.is_none()
                    && let Some(index) = sockets.iter().position(|(address, _)| fits(address))
                {
                    *place = Some(sockets.swap_remove(index).1);
                }
            }
        }
    }

    /// Binds what is not there yet.
    pub fn bind(&mut self, in_use: InUse, pid_file: &Path) -> Result<(), String> {
        for (address, place) in self.addresses.iter().zip(&mut self.bound) {
            match place {
                // As many may wait as are configured now.
                Some(listener) => rustix::net::listen(listener, self.backlog)
                    .map_err(|error| cannot_bind(*address, &error.into(), pid_file))?,
                None => match bind(*address, self.backlog) {
                    Ok(listener) => *place = Some(listener),
                    Err(error)
                        if error.kind() == io::ErrorKind::AddrInUse
                            && in_use == InUse::Later
                            && self.before.as_ref().is_none_or(|b| is_in_the_way(b, *address)) => {}
                    Err(error) => return Err(cannot_bind(*address, &error, pid_file)),
                },
            }
        }
        Ok(())
    }

    pub fn into_vec(self) -> Vec<TcpListener> {
        self.bound.into_iter().flatten().collect()
    }
}

/// Of two listeners of one port, one is on all addresses or both are on the same.
fn is_in_the_way(before: &[SocketAddr], address: SocketAddr) -> bool {
    before.iter().any(|other| {
        let all = other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && (all || other.ip() == address.ip())
    })
}

fn cannot_bind(address: SocketAddr, error: &io::Error, pid_file: &Path) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "cannot bind {address}: address in use (is another mega running? see {})",
            pid_file.display()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot bind {address}: {error} (ports below 1024 need root; see setting.user)")
        }
        _ => format!("cannot bind {address}: {error} (see server.listen[])"),
    }
}

/// As `TcpListener::bind`, with a backlog of one's own.
fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = bound(address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

/// A socket that has the address and does not listen yet.
pub fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of the one before to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn what_is_still_wanted_is_kept_and_the_rest_is_closed() {
        let kept = TcpListener::bind(any()).unwrap();
        let dropped = TcpListener::bind(any()).unwrap();
        let (kept_at, dropped_at) = (kept.local_addr().unwrap(), dropped.local_addr().unwrap());
        let mut listeners = Listeners::new(&["[::1]:0".parse().unwrap(), kept_at], 16);
        let file = std::fs::File::open("/dev/null").unwrap();
        listeners.inherit(vec![dropped.into(), file.into(), kept.into()], &[]);
        assert!(std::net::TcpStream::connect(dropped_at).is_err());
        assert!(std::net::TcpStream::connect(kept_at).is_ok());
        assert!(listeners.bound[0].is_none() && listeners.bound[1].is_some());
    }

    #[test]
    fn an_address_is_bound_later_only_if_the_daemon_before_is_in_the_way() {
        let (one, other) = (TcpListener::bind(any()).unwrap(), TcpListener::bind(any()).unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let bound_beside = |kept: &[SocketAddr], wanted: &str, port: u16, in_use: InUse| {
            let mut listeners = Listeners::new(&[format!("{wanted}:{port}").parse().unwrap()], 16);
            listeners.inherit(vec![one.try_clone().unwrap().into()], kept);
            listeners.bind(in_use, Path::new("x.pid")).is_ok()
        };
        let bound = |wanted: &str, port: u16, in_use| bound_beside(&[], wanted, port, in_use);
        assert!(bound("0.0.0.0", port(&one), InUse::Later));
        assert!(!bound("0.0.0.0", port(&one), InUse::Refuse));
        assert!(!bound("0.0.0.0", port(&other), InUse::Later));
        assert!(!bound("127.0.0.1", port(&other), InUse::Later));
        let kept = [other.local_addr().unwrap()];
        assert!(bound_beside(&kept, "127.0.0.1", port(&other), InUse::Later));
    }

    #[test]
    fn any_free_port_is_the_one_it_was_unless_another_line_names_that() {
        let (one, two) = (TcpListener::bind(any()).unwrap(), TcpListener::bind(any()).unwrap());
        let (first, second) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let mut listeners = Listeners::new(&[any(), first], 16);
        listeners.inherit(vec![one.into(), two.into()], &[]);
        let bound: Vec<SocketAddr> =
            listeners.into_vec().iter().map(|l| l.local_addr().unwrap()).collect();
        assert_eq!(bound, [second, first]);
    }
}
