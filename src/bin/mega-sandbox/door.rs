//! The listening socket, and the times when nobody listens: the port stays the sandbox's own then, and
//! whoever connects is refused by the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mio::net::TcpListener;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

pub struct Door {
    pub address: SocketAddr,
    /// None while it is shut.
    pub listener: Option<TcpListener>,
    /// Bound as well, but never listening: it keeps the port while the door is shut.
    _port: OwnedFd,
}

impl Door {
    pub fn open(address: SocketAddr) -> io::Result<Door> {
        let port = bound(address)?;
        let address = rustix::net::getsockname(&port)?.try_into()?;
        let listener = Some(listen(address)?);
        Ok(Door { address, listener, _port: port })
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        self.listener = Some(listen(self.address)?);
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Several sockets may be bound to an address as long as none but the last listens.
fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
