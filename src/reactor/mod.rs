//! The reactor thread: the mio poll, every socket and its buffers, the administration socket.
//! Turns bytes into requests, hands them on in batches, and writes results back. Never blocks: it
//! uses try_send only, and stops reading a client whose work cannot be handed on. What clients make
//! it hold is bounded: see `account`.
//!
//! - R1: of all clients together at most `BATCHES` batches are under way, so the spool's channel
//!   always has room for one more.
//! - R2: a request that was handed on is counted in its connection's `unanswered` until its result
//!   comes; the connection is kept until then, unless it is broken. Its weight stays charged until
//!   its result comes, whatever has become of the connection.
//! - R3: sockets are edge-triggered: what the last edge said holds until a read finds the socket
//!   empty.

mod account;
mod agenda;
mod asker;
mod bounds;
mod conn;
mod door;
mod heir;
mod inbox;
mod mail;
mod orders;
mod outbox;
mod questions;
mod serve;
mod stream;
#[cfg(test)]
mod tests;

use crate::clock::Seldom;
use crate::config::Config;
use crate::linger::linger;
use crate::stats::{Refusal, Stats};
use crate::template::Table;
use crate::traffic::batch::{ConnId, ReplyTo};
use crate::traffic::ledger::Ask;
use crate::traffic::mailbox::Letters;
use crate::traffic::steer::Halt;
use crate::traffic::{Event, Tset};
use crate::wechat::token::Tokens;
use crate::wire::command;
use account::{Account, CONN_COST, Part};
use agenda::Agenda;
use conn::{CHUNK, Conn, Course, Hold, Socket};
use crossbeam_channel::Sender;
use door::{ACCEPTS, Door, Visitor};
use mail::Ending;
use mio::{Events, Poll, Token};
use outbox::{Io, Keeps, Peer};
use serve::Desk;
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::Stream;

/// Clients of the administration sockets at a time.
const ADMINS: usize = 256;

/// Tokens below are the waker's and the door's.
const FIRST_CONN: usize = 1 << 16;
const WAKER: Token = Token(0);

/// Bytes read in one turn from all clients together, in equal parts, and from one client at most: so
/// many, however few there are, that its requests come in batches, and so few that others need not
/// wait for long.
const TURN_BYTES: usize = 1 << 20;
const MOST_BYTES: usize = 4 * CHUNK;
const LEAST_BYTES: usize = 2 * 1024;

/// How soon it is tried again to hand over what found a full channel.
const RETRY: Duration = Duration::from_millis(10);

/// Clients that were held back and go on in one turn: not fewer than come in.
const RESUMED: usize = ACCEPTS;

/// How long what is left is written when the daemon ends.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// What the reactor needs from the others.
pub struct Links {
    pub config: Arc<Config>,
    pub table: Arc<Table>,
    pub stats: Arc<Stats>,
    pub tokens: Arc<Tokens>,
    pub spool: Sender<Event>,
    pub store: Sender<Tset>,
    /// Asks main for a reload, which answers through the mailbox.
    pub reload: Box<dyn Fn(ReplyTo) + Send>,
    /// Asks main for the daemon's end, on behalf of somebody.
    pub stop: Box<dyn Fn(Halt, String) + Send>,
    pub ledger: Sender<Ask>,
    /// Where clients connect to, as bound.
    pub listen: Vec<SocketAddr>,
}

pub struct Reactor {
    poll: Poll,
    letters: Letters,
    door: Door,
    conns: Slab<Conn>,
    generation: u32,
    desk: Desk,
    agenda: Agenda,
    /// Bytes that each client may bring in this turn.
    quantum: usize,
    ending: Ending,
    /// When it makes sense to look again for clients that can make room.
    rests_until: Instant,
    /// Why no more clients are let in, as it was told.
    crowded: Option<&'static str>,
    /// Who has the listening sockets, to begin when this daemon has ended.
    heir: Option<ConnId>,
    told: Seldom,
}

/// The poll and its waker exist before the reactor, so that others can be given its mailbox.
pub fn poll() -> io::Result<(Poll, mio::Waker)> {
    let poll = Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    Ok((poll, waker))
}

impl Reactor {
    pub fn new(
        poll: Poll,
        letters: Letters,
        listeners: Vec<std::net::TcpListener>,
        admin: std::os::unix::net::UnixListener,
        links: Links,
    ) -> io::Result<Reactor> {
        let allow = links.config.server.allow.clone();
        let setting = &links.config.setting;
        links.stats.show_limits(setting.max_conn, setting.memory_limit);
        Ok(Reactor {
            door: Door::new(listeners, admin, allow, poll.registry())?,
            poll,
            letters,
            conns: Slab::new(),
            generation: 0,
            desk: Desk::new(links),
            agenda: Agenda::default(),
            quantum: MOST_BYTES,
            ending: Ending::NotYet,
            rests_until: Instant::now(),
            crowded: None,
            heir: None,
            told: Seldom::default(),
        })
    }

    /// A second socket, for those who may only look.
    pub fn hear_monitors(&mut self, monitor: std::os::unix::net::UnixListener) -> io::Result<()> {
        self.door.hear_monitors(monitor, self.poll.registry())
    }

    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut chunk = vec![0; CHUNK].into_boxed_slice();
        while !matches!(self.ending, Ending::Now) {
            self.turn(&mut events, &mut chunk)?;
        }
        self.last_writes();
        Ok(())
    }

    fn turn(&mut self, events: &mut Events, chunk: &mut [u8]) -> io::Result<()> {
        let timeout = self.timeout();
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        self.letters.rise();
        let now = Instant::now();
        for event in events.iter() {
            self.note(event);
        }
        let ready = std::mem::take(&mut self.agenda.read);
        let held = self.agenda.spool.len() + self.agenda.store.len();
        let sharers = (ready.len() + held).max(1);
        self.quantum = (TURN_BYTES / sharers).clamp(LEAST_BYTES, MOST_BYTES);
        for slot in ready {
            self.read(slot, chunk, now);
        }
        self.read_mail(now);
        self.go_on(chunk, now);
        // What finds no room stays with the desk, and the turn after the next mail tries again.
        self.desk.hand_on();
        self.pass_order_on();
        self.flush(now);
        self.let_in(now);
        if self.agenda.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
        let Account { clients, .. } = self.desk.account;
        self.desk.links.stats.show_clients(clients, self.desk.account.total());
        self.show_crowd();
        Ok(())
    }

    /// How long the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        let busy = !self.agenda.read.is_empty() || self.somebody_goes_on();
        if busy || self.results_come() || !self.letters.rest() {
            return Some(Duration::ZERO);
        }
        let waits = self.desk.is_stuck() || matches!(self.ending, Ending::Order { .. });
        let now = Instant::now();
        let times = [self.door.opens(now), self.agenda.sweep_at, waits.then(|| now + RETRY)];
        times.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }

    /// The results of what was handed on have come within a moment.
    fn results_come(&self) -> bool {
        let come = || (!self.letters.is_empty()).then_some(());
        !self.desk.is_idle() && linger(self.desk.soon, come).is_some()
    }

    /// R3: what an edge says is noted at once, and stays until it is worked off.
    fn note(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        if token < FIRST_CONN {
            if event.token() != WAKER {
                self.door.knock(token);
            }
            return;
        }
        let slot = token - FIRST_CONN;
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.tell(event.is_read_closed());
            self.agenda.read.push(slot);
        }
        if event.is_writable() && conn.outbox.unwritten() > 0 {
            self.agenda.touch(conn, slot);
        }
    }

    /// Lets in those who wait at the door, a few in each turn.
    fn let_in(&mut self, now: Instant) {
        if self.door.opens(now).is_none() {
            return;
        }
        for _ in 0..ACCEPTS {
            match self.door.accept(now) {
                Visitor::Admitted(stream, peer) => self.place(stream, peer, now),
                Visitor::TurnedAway(refusal) => self.desk.links.stats.turn_down(refusal),
                Visitor::Nobody => return,
            }
        }
    }

    /// Why no more clients may come in.
    fn full(&self) -> Option<(Refusal, &'static str)> {
        if self.desk.account.clients >= self.desk.links.config.setting.max_conn {
            return Some((Refusal::MaxConn, "setting.max_conn clients are connected"));
        }
        let room = self.desk.account.fits(Part::Conns, CONN_COST);
        (!room).then_some((Refusal::Memory, "setting.memory_limit has no room for more clients"))
    }

    /// Tells everybody whether one more client would be let in. Where somebody can make room for it, it would.
    fn show_crowd(&mut self) {
        let full = self.full().filter(|_| self.desk.account.newcomers == 0);
        let crowded = full.map(|(_, why)| why);
        if std::mem::replace(&mut self.crowded, crowded) != crowded {
            self.desk.links.stats.crowd.lock().full = crowded;
        }
    }

    /// Finds a place for a client. The administration sockets have theirs whoever else is there.
    fn place(&mut self, stream: Stream, peer: Option<IpAddr>, now: Instant) {
        if let Some(peer) = peer
            && self.full().is_some()
        {
            self.close_newcomers(now);
            if let Some((refusal, why)) = self.full() {
                let stats = &self.desk.links.stats;
                stats.turn_down(refusal);
                stats.crowd.lock().turned_away = Some((now, why));
                return self.door.turn_away(peer, why);
            }
        }
        // Those who may only look do not take the places of those who may steer.
        let looks = matches!(stream, Stream::Monitor(_));
        let alike = |conn: &Conn| conn.is_admin() && conn.only_looks() == looks;
        if peer.is_none() && self.conns.iter().filter(|(_, conn)| alike(conn)).count() >= ADMINS {
            if self.told.now() {
                log::warn!(
                    "{ADMINS} are connected to an administration socket: one more is turned away"
                );
            }
            return;
        }
        self.admit(stream, peer, now);
    }

    fn admit(&mut self, mut stream: Stream, peer: Option<IpAddr>, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        match stream.register(self.poll.registry(), Token(FIRST_CONN + slot)) {
            Ok(()) => {
                entry.insert(Conn::new(stream, peer, self.generation, now));
                self.desk.account.charge(Part::Conns, CONN_COST);
                let client = usize::from(peer.is_some());
                self.desk.account.clients += client;
                self.desk.account.newcomers += client;
            }
            Err(error) => log::error!("cannot watch a new connection: {error}"),
        }
    }

    fn close(&mut self, slot: usize) {
        self.conns.remove(slot).leave(&mut self.desk.account);
    }

    /// Why nobody can take this daemon's place now.
    fn busy(&self) -> Option<&'static str> {
        if self.desk.stopping {
            return Some("it is stopping already");
        }
        let heir = self.heir.as_ref()?;
        let conn = self.conns.get(heir.slot as usize);
        let restarts = conn.is_some_and(|conn| conn.generation == heir.generation);
        restarts.then_some("another restart is under way")
    }

    fn read(&mut self, slot: usize, chunk: &mut [u8], now: Instant) {
        let busy = self.busy();
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| !conn.is_held()) else { return };
        if let Some(hold) = self.desk.holds(conn) {
            conn.course = Course::Held(hold);
            self.agenda.held(hold).into_iter().for_each(|held| held.push_back(slot));
            return;
        }
        let id = ConnId { slot: slot as u32, generation: conn.generation };
        let desk = &mut self.desk;
        let each = |conn: &mut Conn, bytes: &[u8]| desk.frames(conn, id, bytes);
        let quantum = match conn.socket {
            // The sooner it is read up to its end, the sooner its place is free.
            Socket::Ending => MOST_BYTES,
            _ => self.quantum,
        };
        let read = conn.read(chunk, quantum, each, now);
        if let Some(opaque) = desk.heir.take() {
            let (code, why) = match busy {
                Some(why) => (command::UNAVAILABLE, why),
                None => (command::FAILED, "the listening sockets cannot be given"),
            };
            let gives = busy.is_none() && conn.outbox.unwritten() == 0;
            match gives && self.door.give(conn.stream(), opaque) {
                true => self.heir = Some(id),
                false => {
                    command::encode_result(conn.outbox.bytes(), code, opaque, why.as_bytes());
                }
            }
        }
        conn.settle(&mut self.desk.account);
        if read == Io::Broken {
            return self.close(slot);
        }
        match conn.course {
            // What is in its inbox already goes first, so that few inboxes are full at once.
            Course::Held(hold) => {
                self.agenda.held(hold).into_iter().for_each(|held| held.push_front(slot));
            }
            _ if read == Io::More => self.agenda.read.push(slot),
            _ => {}
        }
        self.agenda.watch(conn, now);
        self.agenda.touch(conn, slot);
        self.shed(Part::Frames, now);
        self.shed(Part::Replies, now);
    }

    fn somebody_goes_on(&self) -> bool {
        let Agenda { spool, store, .. } = &self.agenda;
        (!spool.is_empty() && self.desk.has_room(Hold::Spool))
            || (!store.is_empty() && self.desk.has_room(Hold::Store))
    }

    /// Those who were held back go on as far as there is room, the first one first.
    fn go_on(&mut self, chunk: &mut [u8], now: Instant) {
        for hold in [Hold::Spool, Hold::Store] {
            for _ in 0..RESUMED {
                if !self.desk.has_room(hold) {
                    break;
                }
                let next = self.agenda.held(hold).and_then(VecDeque::pop_front);
                let Some(slot) = next else { break };
                // It may have been closed, or told to go, meanwhile.
                let held = |conn: &&mut Conn| conn.course == Course::Held(hold);
                if let Some(conn) = self.conns.get_mut(slot).filter(held) {
                    conn.resume(now);
                    self.read(slot, chunk, now);
                }
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.agenda.write) {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.touched = false;
            // R2: the last words come after the last result.
            if conn.unanswered == 0
                && let Course::Closing(words) = &mut conn.course
            {
                let words = std::mem::take(words);
                conn.outbox.bytes().extend_from_slice(&words);
            }
            let took = conn.outbox.peer() == Peer::Takes;
            let keeps = match self.desk.account.is_easy(Part::Replies) {
                true => Keeps::Some,
                false => Keeps::Least,
            };
            let flushed = conn.flush(now, keeps);
            conn.settle(&mut self.desk.account);
            if conn.is_over() {
                self.close(slot);
                continue;
            }
            // One that is gone loses its replies only: what it has sent is read to the end.
            let gone = took && flushed == Io::Broken;
            if gone {
                conn.tell(false);
            }
            let goes_on = conn.course == Course::Held(Hold::Results) && self.desk.may_go_on(conn);
            if goes_on {
                conn.resume(now);
            }
            if goes_on || gone || conn.part(now) {
                self.agenda.read.push(slot);
            }
            self.agenda.watch(conn, now);
        }
    }

    fn last_writes(&mut self) {
        let deadline = Instant::now() + LAST_WRITES;
        while Instant::now() < deadline {
            self.conns.retain(|_, conn| conn.flush(deadline, Keeps::Least) == Io::More);
            if self.conns.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
