//! The one thread of the sandbox: a mio loop over the listener, its connections, the answers that are held
//! back and the signals. Each connection is answered one request at a time, in order; while an answer is
//! pending its further requests wait in a bounded buffer, then in the kernel's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use slab::Slab;

use crate::answer::Answer;
use crate::connection::{Connection, Fill, Flush, Stage, Step};
use crate::door::Door;
use crate::http::{Afterwards, Next};
use crate::tls::Tls;
use crate::wechat::WeChat;
use crate::wire::Wire;

const LISTENER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const ALARM: Token = Token(usize::MAX - 3);
const READ_SIZE: usize = 64 * 1024;
/// A connection that always has something to do gives way to the others after this many steps.
const STEPS_PER_TURN: usize = 64;
/// How long a finished connection is read on, so that the client gets the last answer and not a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Without free file descriptors, accepting is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Timers by time. One whose connection has moved on since fires for nothing.
struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    last: u64,
    /// Ends the wait when the next one is due: a wait's own timeout is as coarse as a millisecond,
    /// and an answer "after 50 ms" would be late by half of that.
    alarm: OwnedFd,
    /// What the alarm is set to.
    alarm_at: Option<Instant>,
}

impl Timers {
    fn new() -> io::Result<Timers> {
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        Ok(Timers { heap: BinaryHeap::new(), last: 0, alarm, alarm_at: None })
    }

    /// Sets the alarm for the next timer; true if that is due already.
    fn arm(&mut self) -> io::Result<bool> {
        let Some(Reverse((next, ..))) = self.heap.peek() else {
            return Ok(false);
        };
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        if self.alarm_at != Some(*next) {
            self.alarm_at = Some(*next);
            let it_value = left.try_into().map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once)?;
        }
        Ok(false)
    }

    fn set(&mut self, when: Instant, key: usize) -> u64 {
        self.last += 1;
        self.heap.push(Reverse((when, self.last, key)));
        self.last
    }

    fn due(&mut self, now: Instant) -> Option<(u64, usize)> {
        match self.heap.peek() {
            Some(Reverse((when, timer, key))) if *when <= now => {
                let due = (*timer, *key);
                self.heap.pop();
                Some(due)
            }
            _ => None,
        }
    }
}

pub struct Server {
    poll: Poll,
    door: Door,
    /// When the door, which is shut, opens.
    opens: Option<Instant>,
    tls: Option<Tls>,
    signals: UnixStream,
    connections: Slab<Connection>,
    timers: Timers,
    /// Connections that used up their turn.
    unfinished: VecDeque<usize>,
    accept_paused: bool,
    scratch: Vec<u8>,
    wechat: WeChat,
}

impl Server {
    /// `signals` becomes readable when the sandbox is to end.
    pub fn new(
        door: Door,
        tls: Option<Tls>,
        mut signals: UnixStream,
        wechat: WeChat,
    ) -> io::Result<Server> {
        let poll = Poll::new()?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let timers = Timers::new()?;
        let mut alarm = SourceFd(&timers.alarm.as_raw_fd());
        poll.registry().register(&mut alarm, ALARM, Interest::READABLE)?;
        let mut server = Server {
            poll,
            door,
            opens: None,
            tls,
            signals,
            connections: Slab::new(),
            timers,
            unfinished: VecDeque::new(),
            accept_paused: false,
            scratch: vec![0; READ_SIZE],
            wechat,
        };
        server.watch_door()?;
        Ok(server)
    }

    /// Serves until a signal arrives.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.heed_faults();
            let timeout = self.timeout()?;
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            if self.accept_paused {
                self.accept();
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SIGNALS => {
                        if self.signalled()? {
                            return Ok(());
                        }
                    }
                    ALARM => {}
                    Token(key) if event.is_error() => self.remove(key),
                    Token(key) => self.turn(key),
                }
            }
            let now = Instant::now();
            if self.opens.is_some_and(|at| at <= now) {
                self.opens = None;
                self.door.reopen()?;
                self.watch_door()?;
            }
            while let Some((timer, key)) = self.timers.due(now) {
                self.fire(timer, key);
            }
            for _ in 0..self.unfinished.len() {
                if let Some(key) = self.unfinished.pop_front() {
                    self.turn(key);
                }
            }
        }
    }

    fn timeout(&mut self) -> io::Result<Option<Duration>> {
        if self.timers.arm()? || !self.unfinished.is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        let opens = self.opens.map(|at| at.saturating_duration_since(Instant::now()));
        Ok(opens.or(self.accept_paused.then_some(ACCEPT_PAUSE)))
    }

    fn watch_door(&mut self) -> io::Result<()> {
        match &mut self.door.listener {
            Some(listener) => self.poll.registry().register(listener, LISTENER, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// What new faults do to the connections there are. Their request has been answered.
    fn heed_faults(&mut self) {
        let faults = &mut self.wechat.faults;
        if !std::mem::take(&mut faults.fresh) {
            return;
        }
        let (shut, tls) = (faults.refuse, faults.tls.is_some());
        if let Some(time) = shut {
            self.door.listener = None;
            self.opens = Some(Instant::now() + time);
        }
        let ends = |connection: &Connection| shut.is_some() || tls && connection.wire.is_tls();
        let ending = self.connections.iter().filter(|(_, connection)| ends(connection));
        let keys: Vec<usize> = ending.map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    fn signalled(&mut self) -> io::Result<bool> {
        match self.signals.read(&mut [0; 16]) {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        self.accept_paused = false;
        loop {
            let Some(listener) = &self.door.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.add(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                // Out of file descriptors or memory: the listener is not reported again by itself.
                Err(_) => {
                    self.accept_paused = true;
                    return;
                }
            }
        }
    }

    /// A connection that cannot be registered is dropped: its client sees it closed.
    fn add(&mut self, mut stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        // Without it a small answer may wait for the client's delayed acknowledgement.
        let ready = stream.set_nodelay(true);
        if ready
            .and_then(|()| self.poll.registry().register(&mut stream, Token(entry.key()), interest))
            .is_err()
        {
            return;
        }
        let welcome = self.tls.as_ref().map(|tls| tls.welcome(self.wechat.faults.tls));
        entry.insert(Connection::new(Wire::new(stream, welcome)));
        let stats = &mut self.wechat.stats;
        stats.connections += 1;
        stats.max_connections = stats.max_connections.max(stats.connections);
    }

    fn remove(&mut self, key: usize) {
        let Some(connection) = self.connections.try_remove(key) else {
            return;
        };
        self.wechat.stats.connections -= 1;
        if connection.is_held() {
            self.wechat.stats.in_flight -= 1;
        }
        if connection.wire.failed {
            self.wechat.count_error("tls".to_string());
        }
    }

    /// Lets a connection do what it can, up to one turn.
    fn turn(&mut self, key: usize) {
        for _ in 0..STEPS_PER_TURN {
            match self.step(key) {
                Ok(Step::Again) => {}
                Ok(Step::Blocked) => return,
                Ok(Step::Gone) | Err(_) => return self.remove(key),
            }
        }
        self.unfinished.push_back(key);
    }

    /// A key may have been removed, or be another connection's by now: both do no harm.
    fn step(&mut self, key: usize) -> io::Result<Step> {
        let Some(connection) = self.connections.get_mut(key) else {
            return Ok(Step::Blocked);
        };
        match connection.stage {
            Stage::Reading => self.read(key),
            Stage::Delayed { .. } | Stage::Hanging => {
                if let Flush::More = connection.flush()? {
                    return Ok(Step::Again);
                }
                if connection.reader.has_room()
                    && let Fill::Some = connection.fill(&mut self.scratch)?
                {
                    return Ok(Step::Again);
                }
                let hopeless =
                    connection.peer_finished && matches!(connection.stage, Stage::Hanging);
                Ok(if hopeless { Step::Gone } else { Step::Blocked })
            }
            Stage::Finishing => match connection.flush()? {
                Flush::Blocked => Ok(Step::Blocked),
                Flush::More => Ok(Step::Again),
                Flush::Done if connection.peer_finished => Ok(Step::Gone),
                Flush::Done => {
                    connection.wire.finish()?;
                    let timer = self.timers.set(Instant::now() + LINGER, key);
                    connection.stage = Stage::Lingering { timer };
                    Ok(Step::Again)
                }
            },
            Stage::Lingering { .. } => connection.discard(&mut self.scratch),
        }
    }

    fn read(&mut self, key: usize) -> io::Result<Step> {
        let connection = &mut self.connections[key];
        if connection.is_full()
            && let Flush::Blocked = connection.flush()?
        {
            return Ok(Step::Blocked);
        }
        match connection.reader.next() {
            Ok(Next::Request(request)) => {
                let now = Instant::now();
                let reply = self.wechat.reply(&request, now);
                let afterwards = match request.keep_alive {
                    true => Afterwards::KeepAlive,
                    false => Afterwards::Close,
                };
                let step = if reply.delay > Duration::ZERO {
                    let timer = self.timers.set(now + reply.delay, key);
                    let outcome = reply.outcome;
                    connection.stage = Stage::Delayed { timer, outcome, afterwards };
                    Step::Again
                } else {
                    connection.conclude(reply.outcome, afterwards)
                };
                if connection.is_held() {
                    self.wechat.stats.hold();
                }
                Ok(step)
            }
            Ok(Next::Continue) => {
                connection.put_continue();
                Ok(Step::Again)
            }
            Ok(Next::More) => {
                let flushed = connection.flush()?;
                match (connection.fill(&mut self.scratch)?, flushed) {
                    (Fill::Some, _) => Ok(Step::Again),
                    (Fill::Blocked, Flush::Done) if connection.peer_finished => Ok(Step::Gone),
                    (Fill::Blocked, _) => Ok(Step::Blocked),
                }
            }
            Err(refused) => {
                connection.put(&Answer::status(refused.0), Afterwards::Close);
                Ok(Step::Again)
            }
        }
    }

    fn fire(&mut self, timer: u64, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match std::mem::replace(&mut connection.stage, Stage::Reading) {
            Stage::Delayed { timer: own, outcome, afterwards } if own == timer => {
                let step = connection.conclude(outcome, afterwards);
                if !connection.is_held() {
                    self.wechat.stats.in_flight -= 1;
                }
                match step {
                    Step::Gone => self.remove(key),
                    _ => self.turn(key),
                }
            }
            Stage::Lingering { timer: own } if own == timer => self.remove(key),
            other => connection.stage = other,
        }
    }
}
