//! Sends on their way: a client waits for each, so they live in memory only, bounded, and every one
//! of them ends with a reply. Part of the spool's state.

use crate::clock::Now;
use crate::queue::{Message, New};
use crate::traffic::batch::ReplyTo;
use crate::traffic::job::{Job, Waiting};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

/// Sends waiting in memory: so many, and so many bytes.
const COUNT_LIMIT: usize = 100_000;
const BYTES_LIMIT: usize = 64 << 20;

pub struct Sends {
    /// What makes a send's client_msg_id its own: random for each run of the daemon, and a number in it.
    origin: u64,
    last: u64,
    ready: VecDeque<Job>,
    delayed: BinaryHeap<Delayed>,
    /// Those in workers' hands, by message id: whom to tell when there is no time to wait.
    in_flight: HashMap<u64, ReplyTo>,
    bytes: usize,
}

struct Delayed {
    due: Instant,
    job: Job,
}

impl Sends {
    pub fn new() -> std::io::Result<Sends> {
        let origin = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Sends {
            origin,
            last: 0,
            ready: VecDeque::new(),
            delayed: BinaryHeap::new(),
            in_flight: HashMap::new(),
            bytes: 0,
        })
    }

    pub fn full(&self) -> bool {
        self.len() >= COUNT_LIMIT || self.bytes >= BYTES_LIMIT
    }

    pub fn len(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.in_flight.len()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn none_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// `until`: how long its client waits. `before`: the id of the first push behind it.
    pub fn accept(&mut self, to: ReplyTo, new: New, until: Instant, before: u64, now: Now) {
        self.last += 1;
        let message = Message::in_memory(self.origin, self.last, now.ms, new);
        let waiting = Some(Waiting { to, until, before });
        let job = Job { message, waiting, probe: false, round: 0 };
        self.bytes += size(&job);
        self.ready.push_back(job);
    }

    pub fn delay(&mut self, job: Job, due: Instant) {
        self.bytes += size(&job);
        self.delayed.push(Delayed { due, job });
    }

    /// Where the first one stands among the pushes: the id of the first push behind it.
    pub fn next_before(&self) -> Option<u64> {
        Some(self.ready.front()?.waiting?.before)
    }

    pub fn take(&mut self) -> Option<Job> {
        let job = self.ready.pop_front()?;
        self.bytes -= size(&job);
        if let Some(waiting) = &job.waiting {
            self.in_flight.insert(job.message.id(), waiting.to);
        }
        Some(job)
    }

    /// A worker has brought it back.
    pub fn landed(&mut self, job: &Job) {
        self.in_flight.remove(&job.message.id());
    }

    /// Moves those whose time has come to the ready ones.
    pub fn wake(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|first| first.due <= now) {
            if let Some(Delayed { job, .. }) = self.delayed.pop() {
                self.ready.push_back(job);
            }
        }
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|first| first.due)
    }

    /// Everyone whose send is not in a worker's hands; the sends are given up.
    pub fn give_up_waiting(&mut self) -> Vec<Job> {
        self.bytes = 0;
        let delayed = std::mem::take(&mut self.delayed).into_iter().map(|delayed| delayed.job);
        self.ready.drain(..).chain(delayed).collect()
    }

    /// Everyone whose send is in a worker's hands; their outcomes will find nobody.
    pub fn give_up_in_flight(&mut self) -> Vec<ReplyTo> {
        self.in_flight.drain().map(|(_, to)| to).collect()
    }
}

fn size(job: &Job) -> usize {
    let message = &job.message;
    message.openid().len() + message.key().len() + message.data().len() + size_of::<Job>()
}

impl Ord for Delayed {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Delayed {}
