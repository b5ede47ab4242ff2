//! The spool thread: the loop that alone owns the queue. Takes batches of requests from the
//! reactor, hands jobs to the workers, books their outcomes, and answers through the mailbox.
//! Never touches a socket, never waits for a worker, and calls no file operation that may be slow
//! but the sync that `sync = always` promises.
//!
//! - S1: a push is answered 200 only after `commit`, that is when it is as safe as `sync` asks.
//! - S2: every send ends with exactly one reply.
//! - S3: the event channel has room for everything that can be under way at once, so nobody who
//!   sends an event ever waits (see `channels`).

pub mod failed;
pub mod gate;
mod outcome;
mod sends;

use crate::clock::{Seldom, now_ms};
use crate::config::{Config, SyncPolicy};
use crate::queue::{Chore, ChoreDone, Message, New, Queue, Refused};
use crate::reactor::mailbox::{Mail, Mailbox};
use crate::reactor::{Batch, Kind, Reply, ReplyTo, Request};
use crate::stats::{self, Stats};
use crate::wire::command;
use crate::worker::{Job, Outcome, Waiting};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use failed::FailedList;
use gate::Gate;
use sends::Sends;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that can happen to the spool.
pub enum Event {
    Batch(Batch),
    Outcome(Box<Outcome>),
    Chore(ChoreDone),
    /// Hand nothing out any more and end when the workers have brought back what they hold.
    Stop {
        within: Duration,
    },
}

/// Batches the reactor may have under way.
pub const BATCHES: usize = 16;

/// Events taken before replies are sent and jobs handed out.
const EVENTS_A_TURN: usize = 256;

/// How often a segment is asked for again that could not be created.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// Under `sync = always` the marks of done messages are not waited for; they follow so soon.
const MARKS_INTERVAL: Duration = Duration::from_secs(1);

/// Why the spool had to end by itself.
pub struct SyncFailed(pub std::io::Error);

/// The ends of the spool's channels that others hold.
pub struct Channels {
    pub events: Sender<Event>,
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub chores: Receiver<Chore>,
    inside: Inside,
}

/// The spool's own ends.
pub struct Inside {
    events: Receiver<Event>,
    sends: Sender<Job>,
    pushes: Sender<Job>,
    /// To take back what no worker has taken yet.
    unstarted: Receiver<Job>,
    chores: Sender<Chore>,
    /// Jobs of each kind that may be handed out at once: one in each worker's hands and one ready.
    limit: usize,
}

impl Channels {
    pub fn new(workers: usize) -> Channels {
        let limit = workers * 2;
        let (events, events_in) = bounded(BATCHES + 2 * limit + 16);
        let (sends_out, sends) = bounded(limit);
        let (pushes_out, pushes) = bounded(limit);
        let (chores_out, chores) = crossbeam_channel::unbounded();
        let unstarted = pushes.clone();
        let (sends_in, pushes_in) = (sends_out, pushes_out);
        let inside = Inside {
            events: events_in,
            sends: sends_in,
            pushes: pushes_in,
            unstarted,
            chores: chores_out,
            limit,
        };
        Channels { events, sends, pushes, chores, inside }
    }

    /// What the spool itself needs of them.
    pub fn inside(self) -> Inside {
        self.inside
    }
}

pub struct Spool {
    config: Arc<Config>,
    queue: Queue,
    inside: Inside,
    mailbox: Mailbox,
    stats: Arc<Stats>,
    sends: Sends,
    gate: Gate,
    failed: FailedList,
    /// Batches that wait for the next segment, and how far the first one has got.
    held: VecDeque<Batch>,
    held_from: usize,
    /// Why there is no next segment, if creating one failed.
    no_segment: Option<String>,
    spare_again: Option<Instant>,
    /// A push taken from the queue that must let a send go first.
    peeked: Option<Message>,
    pushes_in_flight: usize,
    /// What makes a send's client_msg_id its own: random for each run.
    run: u64,
    send_ids: u64,
    replies: Vec<Reply>,
    finished: Vec<Batch>,
    sync_under_way: bool,
    next_sync: Option<Instant>,
    stopping: Option<Instant>,
    said: Seldom,
}

impl Spool {
    pub fn new(
        config: Arc<Config>,
        queue: Queue,
        inside: Inside,
        mailbox: Mailbox,
        stats: Arc<Stats>,
    ) -> std::io::Result<Spool> {
        let run = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Spool {
            failed: FailedList::beside(&config.log.log_file),
            config,
            queue,
            inside,
            mailbox,
            stats,
            sends: Sends::default(),
            gate: Gate::default(),
            held: VecDeque::new(),
            held_from: 0,
            no_segment: None,
            spare_again: None,
            peeked: None,
            pushes_in_flight: 0,
            run,
            send_ids: 0,
            replies: Vec::new(),
            finished: Vec::new(),
            sync_under_way: false,
            next_sync: None,
            stopping: None,
            said: Seldom::default(),
        })
    }

    /// Runs until it is stopped; returns how many messages are left in the queue.
    pub fn run(mut self) -> Result<u64, SyncFailed> {
        loop {
            self.send_chores();
            self.report_damage();
            self.hand_out();
            self.publish();
            if self.ended() {
                break;
            }
            match self.wait() {
                Ok(event) => self.turn(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick();
            self.commit()?;
        }
        self.end()
    }

    fn wait(&self) -> Result<Event, RecvTimeoutError> {
        let now = Instant::now();
        let queue_due = self.queue.next_due().filter(|_| self.may_hand_out(now) > 0);
        let queue_due =
            queue_due.map(|due| now + Duration::from_millis(due.saturating_sub(now_ms())));
        let opens = self.gate.opens().filter(|at| *at > now);
        let times = [
            queue_due,
            opens,
            self.sends.next_due(),
            self.next_sync,
            self.spare_again,
            self.stopping,
        ];
        match times.into_iter().flatten().min() {
            Some(at) => self.inside.events.recv_deadline(at),
            None => self.inside.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn turn(&mut self, first: Event) -> Result<(), SyncFailed> {
        let mut next = Some(first);
        for _ in 0..EVENTS_A_TURN {
            match next {
                Some(Event::Batch(batch)) => self.take_batch(batch),
                Some(Event::Outcome(outcome)) => self.book(*outcome),
                Some(Event::Chore(done)) => self.chore_done(done)?,
                Some(Event::Stop { within }) => self.stop(within),
                None => break,
            }
            next = self.inside.events.try_recv().ok();
        }
        // An event that was taken and not handled would be lost.
        match next {
            Some(event) => self.turn(event),
            None => Ok(()),
        }
    }

    /// What only time brings.
    fn tick(&mut self) {
        let now = Instant::now();
        self.sends.wake(now);
        if self.spare_again.is_some_and(|at| at <= now) {
            self.spare_again = None;
            self.queue.order_spare(now_ms());
        }
        if self.next_sync.is_some_and(|at| at <= now) && !self.sync_under_way {
            self.next_sync = None;
            self.sync_under_way = self.queue.order_sync();
        }
    }

    /// Makes what was accepted in this turn as safe as promised, then answers.
    fn commit(&mut self) -> Result<(), SyncFailed> {
        if self.config.queue.sync == SyncPolicy::Always
            && let Err(error) = self.queue.sync()
        {
            let text = format!("the queue cannot be made durable: {error}");
            for reply in self.replies.iter_mut().filter(|reply| reply.code == command::OK) {
                reply.code = command::FAILED;
                reply.message = text.clone().into();
            }
            self.mail();
            return Err(SyncFailed(error));
        }
        if self.next_sync.is_none() && !self.sync_under_way && self.queue.dirty() {
            self.next_sync = match self.config.queue.sync {
                SyncPolicy::Every(interval) => Some(Instant::now() + interval),
                SyncPolicy::Always => Some(Instant::now() + MARKS_INTERVAL),
                SyncPolicy::Never => None,
            };
        }
        self.mail();
        Ok(())
    }

    fn mail(&mut self) {
        if self.replies.is_empty() && self.finished.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.replies);
        let batches = std::mem::take(&mut self.finished);
        self.mailbox.send(Mail::Replies { replies, batches });
    }

    fn reply(
        &mut self,
        to: ReplyTo,
        code: u16,
        message: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        if code == command::UNAVAILABLE {
            stats::add(&self.stats.refused, 1);
        }
        self.replies.push(Reply { to, code, message: message.into(), close: false });
    }

    fn take_batch(&mut self, batch: Batch) {
        self.held.push_back(batch);
        self.work_off_held();
    }

    /// Takes in what is held, as far as segments reach.
    fn work_off_held(&mut self) {
        while let Some(batch) = self.held.pop_front() {
            let from = std::mem::take(&mut self.held_from);
            let stuck = batch.requests().skip(from).position(|request| !self.accept(&request));
            if let Some(index) = stuck {
                self.held_from = from + index;
                self.held.push_front(batch);
                return;
            }
            self.finished.push(batch);
        }
    }

    /// Takes one request in, or answers why not; false if it must wait for the next segment.
    fn accept(&mut self, request: &Request) -> bool {
        let Request { to, kind, new } = *request;
        if self.stopping.is_some() {
            self.reply(to, command::UNAVAILABLE, "stopping");
            return true;
        }
        match kind {
            Kind::Send => self.accept_send(to, new),
            Kind::Push => match self.queue.append(new, now_ms()) {
                Ok(_) => {
                    stats::add(&self.stats.accepted, 1);
                    self.reply(to, command::OK, "");
                }
                Err(Refused::NoSegment) => match self.no_segment.clone() {
                    Some(why) => self.reply(to, command::UNAVAILABLE, why),
                    None => return false,
                },
                Err(Refused::Full) => self.reply(to, command::UNAVAILABLE, "queue full"),
                Err(Refused::TooLarge) => {
                    self.reply(
                        to,
                        command::BAD_REQUEST,
                        "invalid data: larger than a queue segment",
                    );
                }
            },
        }
        true
    }

    fn accept_send(&mut self, to: ReplyTo, new: New) {
        if let Some(why) = self.gate.why()
            && self.gate.allowed(1, Instant::now()) == 0
        {
            let text = format!("sending suspended: {why}");
            return self.reply(to, command::UNAVAILABLE, text);
        }
        if self.sends.full() {
            return self.reply(to, command::UNAVAILABLE, "queue full");
        }
        self.send_ids += 1;
        let message = Message::in_memory(self.run, self.send_ids, now_ms(), new);
        let until = Instant::now() + self.config.wechat.send_retry_for;
        let waiting = Some(Waiting { to, until, before: self.queue.next_id() });
        self.sends.arrive(Job { message, waiting });
    }

    /// How many jobs of each kind may be in workers' hands now.
    fn may_hand_out(&self, now: Instant) -> usize {
        let in_flight = self.pushes_in_flight + self.sends.in_flight();
        match self.gate.allowed(self.inside.limit, now) {
            _ if self.stopping.is_some() => 0,
            1 if in_flight > 0 => 0,
            allowed => allowed,
        }
    }

    fn hand_out(&mut self) {
        let now = Instant::now();
        // A closed gate allows one at a time, so each one handed out is asked for anew.
        while let limit @ 1.. = self.may_hand_out(now) {
            let job = match self.next_job(limit) {
                Some(job) => job,
                None => return,
            };
            let apart = job.waiting.is_some() && self.config.queue.send_first;
            let channel = if apart { &self.inside.sends } else { &self.inside.pushes };
            // S3: `limit` jobs of each kind fit, and workers hold their ends as long as we do.
            let handed = channel.try_send(job);
            debug_assert!(handed.is_ok(), "invariant S3: there is room for every job");
        }
    }

    /// The next job whose kind still has room; sends first, or in the order of arrival.
    fn next_job(&mut self, limit: usize) -> Option<Job> {
        let send_room = self.sends.in_flight() < limit;
        let push_room = self.pushes_in_flight < limit;
        let Some(before) = self.sends.next_before() else {
            return if push_room { self.next_push(u64::MAX) } else { None };
        };
        if self.config.queue.send_first {
            return match (send_room, push_room) {
                (true, _) => self.sends.take(),
                (false, true) => self.next_push(u64::MAX),
                (false, false) => None,
            };
        }
        match (send_room, push_room) {
            (true, true) => self.next_push(before).or_else(|| self.sends.take()),
            // Whose turn it is cannot be told without taking one; the next outcome makes room.
            _ => None,
        }
    }

    /// The next push, if its id is below `before`.
    fn next_push(&mut self, before: u64) -> Option<Job> {
        let message = self.peeked.take().or_else(|| self.queue.take(now_ms()))?;
        if message.id() >= before {
            self.peeked = Some(message);
            return None;
        }
        self.pushes_in_flight += 1;
        Some(Job { message, waiting: None })
    }

    fn publish(&self) {
        stats::set(&self.stats.depth, self.queue.depth());
        stats::set(&self.stats.bytes, self.queue.bytes());
        stats::set(&self.stats.segments, self.queue.segments() as u64);
        let in_flight = self.pushes_in_flight + self.sends.in_flight();
        stats::set(&self.stats.in_flight, in_flight as u64);
        stats::set(&self.stats.sends, self.sends.len() as u64);
    }

    fn send_chores(&mut self) {
        while let Some(chore) = self.queue.chore() {
            // The janitor ends only after the spool has dropped this channel.
            let _ = self.inside.chores.send(chore);
        }
    }

    fn report_damage(&mut self) {
        for damage in self.queue.damage() {
            stats::add(&self.stats.damaged, 1);
            log::error!("{damage}");
        }
    }

    fn chore_done(&mut self, done: ChoreDone) -> Result<(), SyncFailed> {
        match done {
            ChoreDone::Created(created) => {
                match self.queue.spare_arrived(created) {
                    Ok(()) => {
                        if self.no_segment.take().is_some() {
                            crate::notice!("the queue takes messages in again");
                            *self.stats.full.lock() = None;
                        }
                    }
                    Err(error) => self.no_segment(&error),
                }
                self.work_off_held();
            }
            ChoreDone::Retired(number, Err(error)) => {
                log::error!("a finished queue segment ({number}) cannot be removed: {error}");
            }
            ChoreDone::Retired(_, Ok(())) => {}
            ChoreDone::Synced(synced) => {
                self.sync_under_way = false;
                synced.map_err(SyncFailed)?;
            }
        }
        Ok(())
    }

    fn no_segment(&mut self, error: &std::io::Error) {
        let why = format!("queue full: no room for the next segment: {error}");
        if self.said.now() {
            log::error!("{why}; it is tried again every second");
        }
        *self.stats.full.lock() = Some(why.clone());
        self.no_segment = Some(why);
        self.spare_again = Some(Instant::now() + SPARE_RETRY);
    }

    fn stop(&mut self, within: Duration) {
        self.stopping = Some(Instant::now() + within);
        for to in self.sends.give_up_waiting() {
            self.reply(to, command::UNAVAILABLE, "stopping");
        }
        self.recall();
        if let Some(message) = self.peeked.take() {
            self.queue.give_back(&message);
        }
        // What waits for a segment is not accepted yet, and is told so.
        self.work_off_held();
    }

    /// Takes back what no worker has begun.
    fn recall(&mut self) {
        while let Ok(job) = self.inside.unstarted.try_recv() {
            match job.waiting {
                None => {
                    self.pushes_in_flight -= 1;
                    self.queue.give_back(&job.message);
                }
                Some(waiting) => {
                    self.sends.landed(&job);
                    let why = self.gate.why().map(|why| format!("sending suspended: {why}"));
                    let why = why.unwrap_or_else(|| "stopping".into());
                    self.reply(waiting.to, command::UNAVAILABLE, why);
                }
            }
        }
    }

    fn ended(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let idle = self.pushes_in_flight + self.sends.in_flight() == 0;
        (idle || Instant::now() >= deadline) && !self.sync_under_way
    }

    fn end(mut self) -> Result<u64, SyncFailed> {
        for to in self.sends.give_up_in_flight() {
            self.reply(to, command::UNAVAILABLE, "stopping");
        }
        if self.pushes_in_flight > 0 {
            log::warn!(
                "{} messages were given up while WeChat had not answered; they go out again at \
                 the next start with the same client_msg_id",
                self.pushes_in_flight
            );
        }
        let synced = self.queue.sync_all();
        self.mail();
        self.publish();
        synced.map_err(SyncFailed)?;
        Ok(self.queue.depth())
    }
}
