//! Sends on their way: a client waits for each, so they live in memory only, bounded, and every one
//! of them ends with a reply. Part of the spool's state.

use crate::clock::Now;
use crate::queue::{Mark, Message};
use crate::traffic::batch::{ReplyTo, Request, SENDS};
use crate::traffic::job::{Job, Waiting};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

/// Bytes of sends waiting in memory.
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
        self.len() >= SENDS || self.bytes >= BYTES_LIMIT
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

    /// `until`: how long its client waits. `before`: pushes accepted later stand behind it.
    pub fn accept(&mut self, request: &Request, until: Instant, before: Mark, now: Now) {
        self.last += 1;
        let Request { to, client, id, new, .. } = *request;
        let message = Message::in_memory(self.origin, self.last, now.ms, new, id);
        let waiting = Some(Waiting { to, client, until, before });
        let job = Job { message, waiting, probe: false, round: 0 };
        self.bytes += size(&job);
        self.ready.push_back(job);
    }

    pub fn delay(&mut self, job: Job, due: Instant) {
        self.bytes += size(&job);
        self.delayed.push(Delayed { due, job });
    }

    /// Where the first one stands among the pushes.
    pub fn next_before(&self) -> Option<Mark> {
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
    message.own_id().map_or(0, <[u8]>::len)
        + message.openid().len()
        + message.key().len()
        + message.data().len()
        + size_of::<Job>()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::New;
    use crate::traffic::batch::{ConnId, Kind};
    use std::time::Duration;

    fn to(opaque: u32) -> ReplyTo {
        ReplyTo { conn: ConnId { slot: 0, generation: 0 }, opaque, weight: 0 }
    }

    fn request(opaque: u32, data: &[u8]) -> Request<'_> {
        let new = New { openid: b"o", key: b"k", data };
        Request { to: to(opaque), kind: Kind::Send, client: None, id: b"", new }
    }

    fn with(count: u32, now: Now) -> Sends {
        let mut sends = Sends::new().unwrap();
        for opaque in 0..count {
            sends.accept(&request(opaque, &[b'x'; 1000]), now.at, Mark::default(), now);
        }
        sends
    }

    fn opaque(job: &Job) -> u32 {
        job.waiting.unwrap().to.opaque
    }

    #[test]
    fn they_go_in_their_order_under_ids_of_their_own() {
        let mut sends = with(3, Now::read());
        assert_eq!((sends.len(), sends.in_flight(), sends.next_before().is_some()), (3, 0, true));
        let jobs: Vec<Job> = std::iter::from_fn(|| sends.take()).collect();
        assert_eq!(jobs.iter().map(opaque).collect::<Vec<_>>(), [0, 1, 2]);
        let ids: std::collections::HashSet<String> =
            jobs.iter().map(|job| job.message.client_msg_id().to_string()).collect();
        assert_eq!(ids.len(), 3);
        assert_eq!((sends.len(), sends.in_flight(), sends.none_ready()), (3, 3, true));
        jobs.iter().for_each(|job| sends.landed(job));
        assert_eq!((sends.len(), sends.bytes), (0, 0));
    }

    #[test]
    fn one_that_is_delayed_comes_when_its_time_has_come_the_earliest_first() {
        let now = Now::read();
        let mut sends = with(3, now);
        let due = |seconds| now.at + Duration::from_secs(seconds);
        for seconds in [3, 1, 2] {
            let job = sends.take().unwrap();
            sends.landed(&job);
            sends.delay(job, due(seconds));
        }
        assert_eq!((sends.len(), sends.next_due()), (3, Some(due(1))));
        sends.wake(due(2));
        let woken: Vec<u32> = std::iter::from_fn(|| sends.take()).map(|job| opaque(&job)).collect();
        assert_eq!(woken, [1, 2]);
        assert_eq!(sends.next_due(), Some(due(3)));
    }

    #[test]
    fn bytes_and_places_are_bounded_and_given_back() {
        let now = Now::read();
        let mut sends = with(1, now);
        let each = sends.bytes;
        assert!(each > 1000);
        while !sends.full() {
            sends.accept(&request(7, &[b'x'; 1 << 20]), now.at, Mark::default(), now);
        }
        assert!(sends.bytes >= BYTES_LIMIT && sends.bytes < BYTES_LIMIT + (2 << 20));
        let told = sends.give_up_waiting();
        assert_eq!(told.len(), sends.last as usize);
        assert_eq!((sends.len(), sends.bytes), (0, 0));
        assert!(!sends.full());
    }

    #[test]
    fn giving_up_tells_those_that_wait_and_those_in_flight_each_once() {
        let now = Now::read();
        let mut sends = with(4, now);
        let held = sends.take().unwrap();
        let delayed = sends.take().unwrap();
        sends.landed(&delayed);
        sends.delay(delayed, now.at);
        let mut waiting: Vec<u32> = sends.give_up_waiting().iter().map(opaque).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, [1, 2, 3]);
        assert_eq!(sends.give_up_in_flight(), [to(0)]);
        assert_eq!(sends.give_up_in_flight(), []);
        sends.landed(&held);
        assert_eq!(sends.len(), 0);
    }
}
