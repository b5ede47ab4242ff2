//! The door: listeners, the administration socket, and who may come in. A few at a time, so that a
//! flood of connections does not keep those who are in from being served.

use super::heir;
use super::stream::Stream;
use crate::clock::Seldom;
use crate::stats::Refusal;
use ipnet::IpNet;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Tokens of the door: the administration socket's, then one for each listener.
pub const ADMIN: usize = 1;
const MONITOR: usize = 2;
const FIRST_LISTENER: usize = 3;

/// Accepted in one turn.
pub const ACCEPTS: usize = 256;

/// How long accepting rests when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub struct Door {
    listeners: Vec<TcpListener>,
    admin: UnixListener,
    /// Where only questions that change nothing are answered.
    monitor: Option<UnixListener>,
    /// Empty: everybody may come in.
    allow: Vec<IpNet>,
    /// Tokens of those where somebody waits; edge-triggered (R3): until accepting finds nobody.
    knocked: VecDeque<usize>,
    rests_until: Option<Instant>,
    turned_away: Seldom,
}

/// Who came in.
pub enum Visitor {
    /// From where; none at the administration socket.
    Admitted(Stream, Option<IpAddr>),
    TurnedAway(Refusal),
    Nobody,
}

impl Door {
    pub fn new(
        listeners: Vec<std::net::TcpListener>,
        admin: std::os::unix::net::UnixListener,
        allow: Vec<IpNet>,
        registry: &Registry,
    ) -> io::Result<Door> {
        let mut watched = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            registry.register(&mut listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
            watched.push(listener);
        }
        let admin = watch_admin(admin, registry)?;
        Ok(Door {
            listeners: watched,
            admin,
            monitor: None,
            allow,
            knocked: VecDeque::new(),
            rests_until: None,
            turned_away: Seldom::default(),
        })
    }

    /// Administrators come in here from now on.
    pub fn move_admin(
        &mut self,
        admin: std::os::unix::net::UnixListener,
        registry: &Registry,
    ) -> io::Result<()> {
        self.admin = watch_admin(admin, registry)?;
        Ok(())
    }

    /// Those who may only look come in here.
    pub fn hear_monitors(
        &mut self,
        monitor: std::os::unix::net::UnixListener,
        registry: &Registry,
    ) -> io::Result<()> {
        monitor.set_nonblocking(true)?;
        let mut monitor = UnixListener::from_std(monitor);
        registry.register(&mut monitor, Token(MONITOR), Interest::READABLE)?;
        self.monitor = Some(monitor);
        Ok(())
    }

    /// See `heir::give`.
    pub fn give(&self, stream: &Stream, opaque: u32) -> bool {
        heir::give(stream, &self.listeners, opaque)
    }

    /// Somebody waits at the listener of this token.
    pub fn knock(&mut self, token: usize) {
        if !self.knocked.contains(&token) {
            self.knocked.push_back(token);
        }
    }

    /// When somebody may be let in next; none: nobody waits.
    pub fn opens(&self, now: Instant) -> Option<Instant> {
        (!self.knocked.is_empty()).then(|| self.rests_until.unwrap_or(now))
    }

    /// Lets the next one in, one listener after the other.
    pub fn accept(&mut self, now: Instant) -> Visitor {
        if self.rests_until.is_some_and(|at| at > now) {
            return Visitor::Nobody;
        }
        self.rests_until = None;
        while let Some(token) = self.knocked.pop_front() {
            let accepted = match self.listeners.get(token.wrapping_sub(FIRST_LISTENER)) {
                Some(listener) => listener.accept().map(|(stream, peer)| self.greet(stream, peer)),
                None if token == ADMIN => {
                    let visitor = |stream| Visitor::Admitted(Stream::Unix(stream), None);
                    self.admin.accept().map(|(stream, _)| visitor(stream))
                }
                None if token == MONITOR && self.monitor.is_some() => {
                    let monitor = self.monitor.as_ref().expect("invariant: looked at a line above");
                    let visitor = |stream| Visitor::Admitted(Stream::Monitor(stream), None);
                    monitor.accept().map(|(stream, _)| visitor(stream))
                }
                // It was closed.
                None => continue,
            };
            match accepted {
                Ok(visitor) => {
                    self.knocked.push_back(token);
                    return visitor;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.knocked.push_back(token);
                    let passing = [ErrorKind::Interrupted, ErrorKind::ConnectionAborted];
                    if !passing.contains(&error.kind()) {
                        // Out of descriptors: who waits is let in when some have been closed.
                        log::error!("cannot accept a connection: {error}; trying again soon");
                        self.rests_until = Some(now + ACCEPT_PAUSE);
                        return Visitor::Nobody;
                    }
                }
            }
        }
        Visitor::Nobody
    }

    fn greet(&mut self, stream: mio::net::TcpStream, peer: SocketAddr) -> Visitor {
        let peer = peer.ip().to_canonical();
        if !self.allows(peer) {
            self.turn_away(peer, "its address is not among server.allow[]");
            return Visitor::TurnedAway(Refusal::NotAllowed);
        }
        // Replies are small and awaited; a client that has gone already is no loss.
        let _ = stream.set_nodelay(true);
        Visitor::Admitted(Stream::Tcp(stream), Some(peer))
    }

    pub fn turn_away(&mut self, peer: IpAddr, why: &str) {
        if self.turned_away.now() {
            log::warn!("{peer} is turned away: {why}");
        }
    }

    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&address))
    }

    /// Only these may come in from now on.
    pub fn allow_only(&mut self, networks: Vec<IpNet>) {
        self.allow = networks;
    }

    /// Closed to clients, for good.
    pub fn close(&mut self) {
        self.listeners.clear();
    }
}

fn watch_admin(
    admin: std::os::unix::net::UnixListener,
    registry: &Registry,
) -> io::Result<UnixListener> {
    admin.set_nonblocking(true)?;
    let mut admin = UnixListener::from_std(admin);
    registry.register(&mut admin, Token(ADMIN), Interest::READABLE)?;
    Ok(admin)
}
