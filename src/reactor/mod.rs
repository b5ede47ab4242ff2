//! The reactor thread: the mio poll, every socket and its buffers, the administration socket.
//! Turns bytes into requests, hands them on in batches, and writes results back. Never blocks: it
//! uses try_send only, and stops reading a client whose work cannot be handed on.
//!
//! - R1: of all clients together at most `BATCHES` batches are under way, so the spool's channel
//!   always has room for one more.
//! - R2: a request that was handed on is counted in its connection's `unanswered` until its result
//!   comes; the connection is kept until then, unless it is broken.
//! - R3: sockets are edge-triggered: `readable` says what the last edge said until a read finds
//!   the socket empty.

mod conn;
mod serve;

use crate::clock::Seldom;
use crate::config::Config;
use crate::linger::linger;
use crate::stats::Stats;
use crate::template::Table;
use crate::traffic::batch::{ConnId, Reply};
use crate::traffic::ledger::Ask;
use crate::traffic::mailbox::{Letters, Mail};
use crate::traffic::{Event, Order};
use crate::wire::command;
use conn::{CHUNK, Conn, Io, Stream};
use crossbeam_channel::Sender;
use ipnet::IpNet;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token};
use serve::Desk;
use slab::Slab;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens below are those of listeners and the waker.
const FIRST_CONN: usize = 1 << 16;
const WAKER: Token = Token(0);
const ADMIN: Token = Token(1);
const FIRST_LISTENER: usize = 2;

/// How long accepting rests when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How often connections are looked at for having been silent too long.
const SWEEP: Duration = Duration::from_secs(1);

/// How long what is left is written when the daemon ends.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// What the reactor needs from the others.
pub struct Links {
    pub config: Arc<Config>,
    pub table: Arc<Table>,
    pub stats: Arc<Stats>,
    pub spool: Sender<Event>,
    pub store: Sender<Order>,
    pub ledger: Sender<Ask>,
    /// Where clients connect to, as bound.
    pub listen: Vec<SocketAddr>,
}

pub struct Reactor {
    poll: Poll,
    letters: Letters,
    listeners: Vec<TcpListener>,
    admin: UnixListener,
    conns: Slab<Conn>,
    generation: u32,
    desk: Desk,
    allow: Vec<IpNet>,
    /// Connections with something to do before the next poll.
    again: Vec<usize>,
    paused: Vec<usize>,
    touched: Vec<usize>,
    accept_at: Option<Instant>,
    sweep_at: Option<Instant>,
    /// Waits until it can be passed on to the spool.
    stop_order: Option<Event>,
    quit: bool,
    turned_away: Seldom,
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
        let registry = poll.registry();
        let mut mio_listeners = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            registry.register(&mut listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
            mio_listeners.push(listener);
        }
        admin.set_nonblocking(true)?;
        let mut admin = UnixListener::from_std(admin);
        registry.register(&mut admin, ADMIN, Interest::READABLE)?;
        Ok(Reactor {
            poll,
            letters,
            listeners: mio_listeners,
            admin,
            conns: Slab::new(),
            generation: 0,
            allow: links.config.server.allow.clone(),
            desk: Desk::new(links),
            again: Vec::new(),
            paused: Vec::new(),
            touched: Vec::new(),
            accept_at: None,
            sweep_at: None,
            stop_order: None,
            quit: false,
            turned_away: Seldom::default(),
        })
    }

    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut chunk = vec![0; CHUNK].into_boxed_slice();
        while !self.quit {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.letters.rise();
            let now = Instant::now();
            for event in &events {
                self.note(event, now);
            }
            let ready = std::mem::take(&mut self.again);
            for slot in ready {
                self.read(slot, &mut chunk, now);
            }
            self.read_mail(now);
            self.desk.hand_on();
            self.pass_stop_on();
            self.flush(now);
            self.on_time(now);
        }
        self.last_writes();
        Ok(())
    }

    /// How long the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || self.linger() || !self.letters.rest() {
            return Some(Duration::ZERO);
        }
        let next = [self.accept_at, self.sweep_at].into_iter().flatten().min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The results of what was handed on have come within a moment.
    fn linger(&self) -> bool {
        let come = || (!self.letters.is_empty()).then_some(());
        !self.desk.is_idle() && linger(self.desk.linger, come).is_some()
    }

    fn note(&mut self, event: &mio::event::Event, now: Instant) {
        match event.token() {
            WAKER => {}
            ADMIN => self.accept_admin(now),
            Token(token) if token < FIRST_CONN => self.accept(token - FIRST_LISTENER, now),
            Token(token) => {
                let slot = token - FIRST_CONN;
                let Some(conn) = self.conns.get_mut(slot) else { return };
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    conn.readable = true;
                    conn.ending |= event.is_read_closed();
                    self.again.push(slot);
                }
                if event.is_writable() && conn.unwritten() > 0 {
                    self.touched.push(slot);
                }
            }
        }
    }

    fn accept(&mut self, index: usize, now: Instant) {
        while self.accept_at.is_none() {
            let Some(listener) = self.listeners.get(index) else { return };
            match listener.accept() {
                Ok((stream, peer)) => match self.refusal(peer) {
                    None => {
                        // Replies are small and awaited.
                        let _ = stream.set_nodelay(true);
                        self.admit(Stream::Tcp(stream), now);
                    }
                    Some(why) if self.turned_away.now() => {
                        log::warn!("{peer} is turned away: {why}")
                    }
                    Some(_) => {}
                },
                Err(error) => return self.accept_failed(&error, now),
            }
        }
    }

    fn refusal(&self, peer: SocketAddr) -> Option<&'static str> {
        let address = peer.ip().to_canonical();
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(&address)) {
            return Some("its address is not among server.allow[]");
        }
        let full = self.conns.len() >= self.desk.links.config.setting.max_conn;
        full.then_some("setting.max_conn clients are connected")
    }

    fn accept_admin(&mut self, now: Instant) {
        loop {
            match self.admin.accept() {
                Ok((stream, _)) => self.admit(Stream::Unix(stream), now),
                Err(error) => return self.accept_failed(&error, now),
            }
        }
    }

    /// Out of descriptors: what waits in the backlog is accepted when some have been closed.
    fn accept_failed(&mut self, error: &io::Error, now: Instant) {
        match error.kind() {
            ErrorKind::WouldBlock => {}
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted => self.accept_at = Some(now),
            _ => {
                log::error!("cannot accept a connection: {error}; trying again soon");
                self.accept_at = Some(now + ACCEPT_PAUSE);
            }
        }
    }

    fn admit(&mut self, stream: Stream, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let mut conn = Conn::new(stream, self.generation, now);
        match conn.register(self.poll.registry(), Token(FIRST_CONN + slot)) {
            Ok(()) => {
                entry.insert(conn);
            }
            Err(error) => log::error!("cannot watch a new connection: {error}"),
        }
    }

    fn read_mail(&mut self, now: Instant) {
        let mail: Vec<Mail> = self.letters.read().collect();
        for letter in mail {
            match letter {
                Mail::Replies { replies, batches } => {
                    for batch in batches {
                        self.desk.take_back(batch);
                    }
                    for reply in replies {
                        self.deliver(reply, now);
                    }
                    // What was held back may go on now.
                    for slot in std::mem::take(&mut self.paused) {
                        if let Some(conn) = self.conns.get_mut(slot) {
                            conn.paused = false;
                            self.again.push(slot);
                        }
                    }
                }
                Mail::Allow(networks) => self.allow = networks,
                Mail::Stop { now } => self.stop(now),
                Mail::Quit { left } => self.quit(left, now),
            }
        }
    }

    fn stop(&mut self, now: bool) {
        self.desk.stopping = true;
        self.listeners.clear();
        let patience = self.desk.links.config.setting.stop_timeout;
        let within = if now { Duration::ZERO } else { patience };
        self.stop_order = Some(Event::Stop { within });
    }

    fn quit(&mut self, left: u64, now: Instant) {
        for to in std::mem::take(&mut self.desk.waiting) {
            let message = left.to_string().into();
            self.deliver(Reply { to, code: command::OK, message, close: true }, now);
        }
        self.quit = true;
    }

    /// The spool's order to stop comes after every request that was taken in.
    fn pass_stop_on(&mut self) {
        if self.stop_order.is_some()
            && self.desk.hand_on()
            && let Some(order) = self.stop_order.take()
        {
            // S3: there is room; a spool that has ended needs no order.
            let _ = self.desk.links.spool.try_send(order);
        }
    }

    fn read(&mut self, slot: usize, chunk: &mut [u8], now: Instant) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let id = ConnId { slot: slot as u32, generation: conn.generation };
        let desk = &mut self.desk;
        let read = conn.read(chunk, |conn, bytes| desk.frames(conn, id, bytes), now);
        if conn.paused {
            self.paused.push(slot);
        }
        match read {
            Io::Broken => {
                self.conns.remove(slot);
                return;
            }
            Io::More if !conn.paused => self.again.push(slot),
            Io::More | Io::Done => {}
        }
        if conn.owes() {
            self.sweep_at.get_or_insert(now + SWEEP);
        }
        touch(&mut self.touched, conn, slot);
    }

    fn deliver(&mut self, reply: Reply, now: Instant) {
        let slot = reply.to.conn.slot as usize;
        let known = |conn: &&mut Conn| conn.generation == reply.to.conn.generation;
        let Some(conn) = self.conns.get_mut(slot).filter(known) else { return };
        conn.unanswered -= 1;
        command::encode_result(
            conn.outbox(),
            reply.code,
            reply.to.opaque,
            reply.message.as_bytes(),
        );
        if reply.close && conn.last_words.is_none() {
            conn.last_words = Some(Vec::new());
        }
        conn.active = if conn.unwritten() > 0 { conn.active } else { now };
        touch(&mut self.touched, conn, slot);
    }

    fn flush(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.touched) {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.touched = false;
            if conn.unanswered == 0
                && let Some(words) = &mut conn.last_words
            {
                let words = std::mem::take(words);
                conn.outbox().extend_from_slice(&words);
            }
            let limit = self.desk.links.config.setting.buffer_output_size;
            let flushed = conn.flush(now);
            if conn.unwritten() > limit {
                log::warn!("a client is closed: it does not read its replies (buffer_output_size)");
            }
            if conn.unwritten() > limit || conn.is_over() {
                self.conns.remove(slot);
                continue;
            }
            // One that is gone loses its replies only: what it has sent is read to the end.
            let gone = flushed == Io::Broken && !std::mem::replace(&mut conn.deaf, true);
            conn.readable |= gone;
            if gone || conn.part(now) {
                self.again.push(slot);
            }
            if conn.owes() {
                self.sweep_at.get_or_insert(now + SWEEP);
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.accept_admin(now);
            for index in 0..self.listeners.len() {
                self.accept(index, now);
            }
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
    }

    /// Closes clients that have been silent too long in the middle of something.
    fn sweep(&mut self, now: Instant) {
        let limit = self.desk.links.config.setting.heartbeat_idle_time;
        let mut waiting = false;
        self.conns.retain(|_, conn| {
            waiting |= conn.owes();
            !conn.is_silent(now, limit)
        });
        self.sweep_at = waiting.then(|| now + SWEEP);
    }

    fn last_writes(&mut self) {
        let deadline = Instant::now() + LAST_WRITES;
        while Instant::now() < deadline {
            self.conns.retain(|_, conn| conn.flush(deadline) == Io::More);
            if self.conns.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Puts a connection on the list of those to be written to, once.
fn touch(touched: &mut Vec<usize>, conn: &mut Conn, slot: usize) {
    if !conn.touched {
        conn.touched = true;
        touched.push(slot);
    }
}
