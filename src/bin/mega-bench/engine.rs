//! The load: keeps a window of requests under way on each connection, or offers them at a rate, and
//! measures how long each answer takes. One thread, one epoll; time is looked at once for all that
//! was read in a turn.

use crate::protocol::{Answer, Protocol};
use crate::report::Report;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
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
    /// Requests a second, if they are offered at a rate.
    pub rate: Option<u32>,
}

struct Conn {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    received: Vec<u8>,
    /// When the request in each slot was sent, or was due.
    since: Vec<Instant>,
    free: Vec<u32>,
    /// Slots in the order of their requests, for protocols that answer in order.
    order: VecDeque<u32>,
    /// Waits until it can be written to.
    blocked: bool,
}

pub struct Engine<'a, P> {
    load: &'a Load,
    protocol: P,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    started: Instant,
    asked: u64,
    report: Report,
    chunk: Vec<u8>,
}

impl<'a, P: Protocol> Engine<'a, P> {
    pub fn new(address: SocketAddr, load: &'a Load, protocol: P) -> Result<Engine<'a, P>, String> {
        let failed = |error| format!("cannot poll: {error}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
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
            epoll::add(&epoll, &stream, data, EventFlags::IN).map_err(failed)?;
            conns.push(Conn {
                stream,
                out: Vec::new(),
                written: 0,
                received: Vec::new(),
                since: vec![Instant::now(); load.window],
                free: (0..load.window as u32).rev().collect(),
                order: VecDeque::new(),
                blocked: false,
            });
        }
        let chunk = vec![0; CHUNK];
        let (started, report) = (Instant::now(), Report::default());
        Ok(Engine { load, protocol, epoll, conns, started, asked: 0, report, chunk })
    }

    pub fn run(mut self) -> Result<Report, String> {
        self.started = Instant::now();
        let mut heard = self.started;
        for index in 0..self.conns.len() {
            self.ask(index, self.started)?;
        }
        let mut events: Vec<Event> = Vec::with_capacity(self.conns.len().min(1024));
        while self.answered() < self.asked || !self.over() {
            match self.poll(&mut events) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(format!("cannot poll: {error}")),
            }
            let before = self.answered();
            for event in events.drain(..) {
                let index = event.data.u64() as usize;
                self.hear(index)?;
                self.flush(index)?;
            }
            let now = Instant::now();
            if self.answered() > before || self.answered() == self.asked {
                heard = now;
            } else if now - heard > PATIENCE {
                return Err(format!("no answer for {PATIENCE:?}"));
            }
            if self.load.rate.is_some() {
                self.offer(now)?;
            }
        }
        self.report.seconds = self.started.elapsed().as_secs_f64();
        Ok(self.report)
    }

    fn answered(&self) -> u64 {
        self.report.latencies.len() + self.report.errors
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

    /// Until the next request is due.
    fn wait(&self) -> Timespec {
        let second = Duration::from_secs(1);
        let wait = match self.load.rate {
            Some(rate) if !self.over() => {
                let due = Duration::from_secs_f64(self.asked as f64 / f64::from(rate));
                due.saturating_sub(self.started.elapsed()).min(second)
            }
            _ => second,
        };
        Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) }
    }

    /// Fills a connection's window, where there is no rate to keep to.
    fn ask(&mut self, index: usize, now: Instant) -> Result<(), String> {
        if self.load.rate.is_none() && !self.over() {
            while self.asked < self.load.requests && self.request(index, now) {}
        }
        self.flush(index)
    }

    /// Sends what is due by now; a request that finds every window full is asked when there is room.
    fn offer(&mut self, now: Instant) -> Result<(), String> {
        let rate = f64::from(self.load.rate.unwrap_or(1));
        while !self.over() {
            let due = self.started + Duration::from_secs_f64(self.asked as f64 / rate);
            let index = self.asked as usize % self.conns.len();
            if due > now || !self.request(index, due) {
                break;
            }
            self.flush(index)?;
        }
        Ok(())
    }

    fn request(&mut self, index: usize, since: Instant) -> bool {
        let conn = &mut self.conns[index];
        let Some(slot) = conn.free.pop() else { return false };
        conn.since[slot as usize] = since;
        conn.order.push_back(slot);
        self.protocol.write(&mut conn.out, self.asked, slot);
        self.asked += 1;
        true
    }

    fn flush(&mut self, index: usize) -> Result<(), String> {
        let conn = &mut self.conns[index];
        let mut blocked = false;
        while conn.written < conn.out.len() && !blocked {
            match conn.stream.write(&conn.out[conn.written..]) {
                Ok(count) => conn.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
        }
        if !blocked {
            conn.out.clear();
            conn.written = 0;
        }
        if blocked != conn.blocked {
            conn.blocked = blocked;
            let wanted = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &conn.stream, data, wanted)
                .map_err(|error| format!("cannot poll: {error}"))?;
        }
        Ok(())
    }

    /// Reads once what is there, and asks again for every answer.
    fn hear(&mut self, index: usize) -> Result<(), String> {
        let conn = &mut self.conns[index];
        match conn.stream.read(&mut self.chunk) {
            Ok(0) => return Err("the connection was closed".into()),
            Ok(count) => conn.received.extend_from_slice(&self.chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("the connection broke: {error}")),
        }
        let now = Instant::now();
        let mut used = 0;
        while let Answer::Whole { size, slot, error } = self.protocol.read(&conn.received[used..]) {
            used += size;
            let oldest = conn.order.pop_front();
            let Some(slot) = slot.or(oldest).filter(|slot| (*slot as usize) < conn.since.len())
            else {
                return Err("an answer to no request".into());
            };
            self.report.note(now - conn.since[slot as usize], error);
            conn.free.push(slot);
        }
        conn.received.drain(..used);
        self.ask(index, now)
    }
}
