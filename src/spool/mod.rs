//! The spool thread: the loop that alone owns the queue. Takes batches of requests from the
//! reactor, hands jobs to the workers, books their outcomes, and answers through the mailbox.
//! Never touches a socket, never waits for a worker, and calls no file operation that may be slow
//! but the sync that `sync = always` promises.
//!
//! - S1: a push is answered 200 only after `commit`, that is when it is as safe as `sync` asks.
//! - S2: every send ends with exactly one reply.
//! - S3: the event channel has room for everything that can be under way at once, so nobody who
//!   sends an event ever waits (see `traffic`).

mod book;
mod chores;
pub mod failed;
pub mod gate;
mod hand_out;
mod intake;
mod pace;
mod sends;
#[cfg(test)]
mod tests;
mod wait;

use crate::clock::{Seldom, now_ms};
use crate::config::{Config, SyncPolicy};
use crate::queue::{Message, Queue};
use crate::stats::{self, Stats};
use crate::traffic::batch::{Batch, Reply, ReplyTo};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{Event, Inside};
use crate::wire::command;
use crossbeam_channel::RecvTimeoutError;
use failed::FailedList;
use gate::Gate;
use pace::Pace;
use sends::Sends;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of records that are written into the queue's file before more batches are taken.
const WRITE_OUT: usize = 256 * 1024;

/// The file beside the segments that keeps how many messages went out today.
const SENT_TODAY: &str = "sent-today";
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Under `sync = always` the marks of done messages are not waited for; they follow so soon.
const MARKS_INTERVAL: Duration = Duration::from_secs(1);

/// Why the spool had to end by itself.
pub struct SyncFailed(pub std::io::Error);

pub struct Spool {
    config: Arc<Config>,
    queue: Queue,
    inside: Inside,
    mailbox: Mailbox,
    stats: Arc<Stats>,
    sends: Sends,
    gate: Gate,
    /// When the pace was saved, and whether it was said that the day is over.
    saved: Instant,
    day_told: bool,
    pace: Pace,
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
    /// When jobs were last handed out, as far as there was room; milliseconds since 1970.
    handed_out: u64,
    /// What makes a send's client_msg_id its own: random for each run.
    run: u64,
    send_ids: u64,
    /// Whose pushes are in the queue, but not as safe as promised yet.
    accepted: Vec<ReplyTo>,
    replies: Vec<Reply>,
    finished: Vec<Batch>,
    sync_under_way: bool,
    next_sync: Option<Instant>,
    stopping: Option<Instant>,
    /// Batches come one upon the other.
    brisk: bool,
    /// Outcomes since the last look, and when there were some.
    outcomes: usize,
    outcome_at: Instant,
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
        let wechat = &config.wechat;
        let sent_today = config.server.queue_file_path.join(SENT_TODAY);
        let pace = Pace::new(wechat.max_per_second, wechat.daily_limit, sent_today);
        Ok(Spool {
            failed: FailedList::beside(&config.log.log_file),
            config,
            queue,
            inside,
            mailbox,
            stats,
            sends: Sends::default(),
            gate: Gate::default(),
            pace,
            saved: Instant::now(),
            day_told: false,
            held: VecDeque::new(),
            held_from: 0,
            no_segment: None,
            spare_again: None,
            peeked: None,
            pushes_in_flight: 0,
            handed_out: 0,
            run,
            send_ids: 0,
            accepted: Vec::new(),
            replies: Vec::new(),
            finished: Vec::new(),
            sync_under_way: false,
            next_sync: None,
            stopping: None,
            brisk: false,
            outcomes: 0,
            outcome_at: Instant::now(),
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

    /// Takes every event there is; few can come meanwhile, as nothing is handed out or given back
    /// in a turn (S3).
    fn turn(&mut self, first: Event) -> Result<(), SyncFailed> {
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Batch(batch) => {
                    self.take_batch(batch);
                    if self.queue.unwritten() >= WRITE_OUT {
                        self.write_out()?;
                    }
                }
                Event::Outcome(outcome) => {
                    self.outcomes += 1;
                    self.book(*outcome);
                }
                Event::Chore(done) => self.chore_done(done)?,
                Event::Stop { within } => self.stop(within),
            }
            next = self.inside.events.try_recv().ok();
        }
        self.write_out()
    }

    fn write_out(&mut self) -> Result<(), SyncFailed> {
        self.queue.write_out().map_err(|error| self.cannot_accept(error))
    }

    /// Nothing that was accepted in this turn can be kept, and nobody is told otherwise.
    fn cannot_accept(&mut self, error: std::io::Error) -> SyncFailed {
        let text = format!("the queue cannot be made durable: {error}");
        for to in std::mem::take(&mut self.accepted) {
            self.reply(to, command::FAILED, text.clone());
        }
        self.stop(Duration::ZERO);
        self.give_up_in_flight();
        self.mail();
        SyncFailed(error)
    }

    /// What only time brings.
    fn tick(&mut self) {
        let now = Instant::now();
        self.sends.wake(now);
        if now.duration_since(self.saved) >= SAVE_INTERVAL {
            self.save_pace(now);
        }
        if self.spare_again.is_some_and(|at| at <= now) {
            self.spare_again = None;
            self.queue.order_spare(now_ms());
        }
        if self.next_sync.is_some_and(|at| at <= now) && !self.sync_under_way {
            self.next_sync = None;
            self.sync_under_way = self.queue.order_sync();
        }
    }

    fn save_pace(&mut self, now: Instant) {
        self.saved = now;
        if let Err(error) = self.pace.save()
            && self.said.now()
        {
            log::warn!("cannot keep the number of messages sent today: {error}");
        }
    }

    /// Makes what was accepted in this turn as safe as promised, then answers.
    fn commit(&mut self) -> Result<(), SyncFailed> {
        if self.config.queue.sync == SyncPolicy::Always
            && let Err(error) = self.queue.sync()
        {
            return Err(self.cannot_accept(error));
        }
        if self.config.queue.sync == SyncPolicy::Never {
            self.queue.settle();
        }
        if self.next_sync.is_none() && !self.sync_under_way && self.queue.dirty() {
            self.next_sync = match self.config.queue.sync {
                SyncPolicy::Every(interval) => Some(Instant::now() + interval),
                SyncPolicy::Always => Some(Instant::now() + MARKS_INTERVAL),
                SyncPolicy::Never => None,
            };
        }
        let kept = self.accepted.drain(..);
        self.replies.extend(kept.map(|to| Reply {
            to,
            code: command::OK,
            message: "".into(),
            close: false,
        }));
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

    fn publish(&self) {
        stats::set(&self.stats.depth, self.queue.depth());
        stats::set(&self.stats.bytes, self.queue.bytes());
        stats::set(&self.stats.segments, self.queue.segments() as u64);
        let in_flight = self.pushes_in_flight + self.sends.in_flight();
        stats::set(&self.stats.in_flight, in_flight as u64);
        stats::set(&self.stats.sends, self.sends.len() as u64);
    }

    fn report_damage(&mut self) {
        for damage in self.queue.damage() {
            stats::add(&self.stats.damaged, 1);
            log::error!("{damage}");
        }
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

    /// Tells who waits for a send that a worker still holds.
    fn give_up_in_flight(&mut self) {
        for to in self.sends.give_up_in_flight() {
            self.reply(to, command::UNAVAILABLE, "stopping");
        }
    }

    fn ended(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let idle = self.pushes_in_flight + self.sends.in_flight() == 0;
        (idle || Instant::now() >= deadline) && !self.sync_under_way
    }

    fn end(mut self) -> Result<u64, SyncFailed> {
        self.give_up_in_flight();
        if self.pushes_in_flight > 0 {
            log::warn!(
                "{} messages were given up while WeChat had not answered; they go out again at \
                 the next start with the same client_msg_id",
                self.pushes_in_flight
            );
        }
        self.save_pace(Instant::now());
        let synced = self.queue.sync_all();
        self.mail();
        self.publish();
        synced.map_err(SyncFailed)?;
        Ok(self.queue.depth())
    }
}
