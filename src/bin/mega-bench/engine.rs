//! The load: keeps a window of requests under way on each connection, or offers them at a rate, and
//! measures how long each answer takes. One thread, one epoll; time is looked at once for all that
//! was read in a turn.

use crate::conn::{Conn, Heard};
use crate::protocol::Protocol;
use crate::report::Report;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long it waits for an answer before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

const CHUNK: usize = 256 * 1024;

pub struct Load {
    pub connections: usize,
    pub window: usize,
    pub requests: u64,
    pub duration: Duration,
    /// Requests a second, if they are offered at a rate: `requests` of them then, however long
    /// that takes, so that the ones that had to wait are not left out.
    pub rate: Option<u32>,
}

pub struct Engine<'a, P> {
    address: SocketAddr,
    load: &'a Load,
    protocol: P,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    started: Instant,
    asked: u64,
    /// Whose turn it is to be offered a request.
    turn: usize,
    report: Report,
    chunk: Vec<u8>,
}

impl<'a, P: Protocol> Engine<'a, P> {
    pub fn new(address: SocketAddr, load: &'a Load, protocol: P) -> Result<Engine<'a, P>, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot_poll)?;
        let mut conns = Vec::new();
        for index in 0..load.connections {
            let stream = TcpStream::connect(address)
                .and_then(|stream| {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                })
                .map_err(|error| format!("cannot connect to {address}: {error}"))?;
            let data = EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, EventFlags::IN).map_err(cannot_poll)?;
            conns.push(Conn::new(stream, load.window));
        }
        let started = Instant::now();
        let (report, chunk) = (Report::default(), vec![0; CHUNK]);
        Ok(Engine {
            address,
            load,
            protocol,
            epoll,
            conns,
            started,
            asked: 0,
            turn: 0,
            report,
            chunk,
        })
    }

    /// What was measured until the end, or until a connection broke.
    pub fn run(mut self) -> Report {
        self.started = Instant::now();
        if let Err(why) = self.drive() {
            self.report.broke = Some(format!("{}: {why}", self.address));
        }
        self.report.seconds = self.started.elapsed().as_secs_f64();
        self.report
    }

    fn drive(&mut self) -> Result<(), String> {
        let mut heard = self.started;
        for index in 0..self.conns.len() {
            self.ask(index, self.started)?;
        }
        let mut events: Vec<Event> = Vec::with_capacity(self.conns.len().min(1024));
        while self.under_way() > 0 || !self.over() {
            let waited_for = self.under_way() > 0;
            match self.poll(&mut events) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(cannot_poll(error)),
            }
            let any = !events.is_empty();
            for event in events.drain(..) {
                self.serve(event.data.u64() as usize)?;
            }
            let now = Instant::now();
            if any || !waited_for {
                heard = now;
            } else if now - heard > PATIENCE {
                return Err(format!("no answer for {PATIENCE:?}"));
            }
            self.offer(now)?;
        }
        Ok(())
    }

    fn under_way(&self) -> u64 {
        self.asked - self.report.answered()
    }

    /// Nothing more is asked.
    fn over(&self) -> bool {
        self.asked >= self.load.requests || self.started.elapsed() >= self.load.duration
    }

    fn poll(&self, events: &mut Vec<Event>) -> rustix::io::Result<usize> {
        let mut wait = self.wait();
        if self.load.rate.is_some() {
            // epoll_wait counts in milliseconds, which is too coarse for a rate.
            poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&wait))?;
            wait = Timespec::default();
        }
        epoll::wait(&self.epoll, spare_capacity(events), Some(&wait))
    }

    /// Until the next request is due; where there is no room for one, until an answer makes some.
    fn wait(&self) -> Timespec {
        let second = Duration::from_secs(1);
        let full = self.under_way() == (self.conns.len() * self.load.window) as u64;
        let wait = match self.load.rate {
            Some(rate) if !full && !self.over() => {
                self.due(rate).saturating_duration_since(Instant::now()).min(second)
            }
            _ => second,
        };
        Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) }
    }

    /// When the next request is due.
    fn due(&self, rate: u32) -> Instant {
        self.started + Duration::from_secs_f64(self.asked as f64 / f64::from(rate))
    }

    fn serve(&mut self, index: usize) -> Result<(), String> {
        let heard = self.conns[index].hear(&self.protocol, &mut self.chunk, &mut self.report)?;
        if let Heard::Closed = heard {
            return Err("it closed the connection".into());
        }
        self.ask(index, Instant::now())
    }

    /// Fills a connection's window, where there is no rate to keep to.
    fn ask(&mut self, index: usize, now: Instant) -> Result<(), String> {
        if self.load.rate.is_none() && !self.over() {
            while self.asked < self.load.requests
                && self.conns[index].request(&mut self.protocol, self.asked, now)
            {
                self.asked += 1;
            }
        }
        self.flush(index)
    }

    /// Sends what is due by now, in turns to the connections that have room; what finds none is
    /// asked as soon as there is some.
    fn offer(&mut self, now: Instant) -> Result<(), String> {
        let Some(rate) = self.load.rate else { return Ok(()) };
        while !self.over() {
            let due = self.due(rate);
            let turns = (self.turn..self.conns.len()).chain(0..self.turn);
            let Some(index) = { turns }.find(|index| self.conns[*index].has_room()) else { break };
            if due > now {
                break;
            }
            self.conns[index].request(&mut self.protocol, self.asked, due);
            self.asked += 1;
            self.turn = (index + 1) % self.conns.len();
            self.flush(index)?;
        }
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<(), String> {
        let conn = &mut self.conns[index];
        let before = conn.blocked;
        conn.flush()?;
        if before == conn.blocked {
            return Ok(());
        }
        let wanted = if conn.blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let data = EventData::new_u64(index as u64);
        epoll::modify(&self.epoll, &conn.stream, data, wanted).map_err(cannot_poll)
    }
}

fn cannot_poll(error: rustix::io::Errno) -> String {
    format!("cannot poll: {error}")
}
