//! The spool thread: the loop that alone owns the queue. Takes batches of requests from the
//! reactor, hands jobs to the workers, books their outcomes, and answers through the mailbox.
//! Never touches a socket, never waits for a worker, and calls no file operation that may be slow
//! but the sync that `sync = always` promises.
//!
//! Its state is in parts that own their rules: `intake`, `answers`, `throttle` (gate, pace, quota), `pushes`,
//! `sends`, `ends`, `syncing`, `rhythm`.
//!
//! - S1: a push is answered 200 only after `commit`, that is when it is as safe as `sync` asks.
//! - S2: every send ends with exactly one reply.
//! - S3: every channel has room for everything that can be under way at once, so nobody who
//!   sends into one ever waits (see `traffic`).

mod answers;
mod book;
mod cancel;
mod chores;
mod count;
mod ends;
mod gate;
mod hand_out;
mod ids;
mod intake;
mod pace;
mod pause;
mod pushes;
mod quota;
mod requeue;
mod rhythm;
mod sends;
mod steer;
mod syncing;
#[cfg(test)]
mod tests;
mod throttle;

use crate::clock::{Now, Seldom};
use crate::config::{Config, SyncPolicy};
use crate::queue::{Durability, Queue};
use crate::stats::{Account, Stats};
use crate::traffic::job::Job;
use crate::traffic::ledger::{Kept, Note};
use crate::traffic::mailbox::Mailbox;
use crate::traffic::{self, Configure, Event, Inside};
use crate::wire::not_now;
use answers::Answers;
use cancel::Cancels;
use count::Books;
use crossbeam_channel::RecvTimeoutError;
use ends::Ends;
use ids::Ids;
use intake::Intake;
use pushes::Pushes;
use rhythm::Rhythm;
use sends::Sends;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncing::Syncing;
use throttle::Throttle;

/// Bytes of records that are written into the queue's file before more batches are taken.
const WRITE_OUT: usize = 256 * 1024;

/// Why the spool had to end by itself.
pub struct SyncFailed(pub io::Error);

/// Who hears, once, that it was drained and nothing is left: the daemon stops then.
enum Drained {
    Nobody,
    Tell(Box<dyn FnOnce() + Send>),
    Told,
}

pub struct Spool {
    config: Arc<Config>,
    stats: Arc<Stats>,
    books: Books,
    inside: Inside,
    queue: Queue,
    intake: Intake,
    pushes: Pushes,
    sends: Sends,
    ends: Ends,
    ids: Ids,
    answers: Answers,
    throttle: Throttle,
    cancels: Cancels,
    /// By whom and since when (seconds since 1970): requests are refused.
    draining: Option<(String, u64)>,
    drained: Drained,
    syncing: Syncing,
    rhythm: Rhythm,
    /// Jobs that are handed out belong to it.
    round: u64,
    /// Those that the queue's files are to name before workers get them; empty between two turns.
    leaving: Vec<Job>,
    /// The janitor has one.
    chore_under_way: bool,
    /// Until when workers may bring back what they hold.
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
    ) -> io::Result<Spool> {
        let now = Now::read();
        let mut spool = Spool {
            books: Books::new(Account::default(), now.at),
            ends: Ends::new(
                inside.notes.clone(),
                inside.blocks.clone(),
                config.log.message_log.is_some(),
            ),
            ids: Ids::new(config.queue.ids_max, queue.depth() > 0, now.at),
            answers: Answers::new(mailbox),
            throttle: Throttle::open(&config, Arc::clone(&stats), now)?,
            cancels: Cancels::none(&config.server.queue_file_path),
            draining: None,
            drained: Drained::Nobody,
            syncing: Syncing::new(config.queue.sync),
            intake: Intake::default(),
            pushes: Pushes::default(),
            sends: Sends::new()?,
            rhythm: Rhythm::new(now.at),
            round: inside.round.current(),
            leaving: Vec::new(),
            chore_under_way: false,
            stopping: None,
            said: Seldom::default(),
            config,
            stats,
            inside,
            queue,
        };
        spool.open_cancels(now);
        // Whoever asks for the status before the first turn sees what was found.
        spool.publish(now);
        Ok(spool)
    }

    /// Verdicts that an earlier run came to and could not record.
    pub fn remember(&mut self, decided: HashMap<u64, Kept>) {
        self.ends.remember(decided);
    }

    /// What is to be called when it was drained and nothing is left.
    pub fn when_drained(&mut self, tell: impl FnOnce() + Send + 'static) {
        self.drained = Drained::Tell(Box::new(tell));
    }

    /// Runs until it is stopped; returns how many messages are left in the queue.
    pub fn run(mut self) -> Result<u64, SyncFailed> {
        loop {
            // What is due at this moment is done in this turn, and the wait is for what comes after it.
            let now = Now::read();
            self.send_chore();
            self.report_damage();
            self.hand_out(now);
            self.sweep(now)?;
            self.look_drained();
            self.publish(now);
            if self.ended(now) {
                break;
            }
            match self.wait(now) {
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
        let now = Now::read();
        self.sample(now);
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Batch(batch) => {
                    self.take_batch(batch, now);
                    if self.queue.unwritten() >= WRITE_OUT {
                        self.write_out(now)?;
                    }
                }
                Event::Outcome(outcome) => {
                    self.rhythm.outcome();
                    self.book(*outcome, now);
                }
                Event::Chore(done) => self.chore_done(done, now)?,
                Event::Recorded { tickets, cancelled } => {
                    self.ends.recorded(tickets.len(), cancelled);
                    let pushes = &mut self.books.account.pushes;
                    pushes.failed += (tickets.len() - cancelled) as u64;
                    pushes.cancelled += cancelled as u64;
                    tickets.into_iter().for_each(|ticket| self.queue.done(ticket));
                }
                Event::Kept => self.ends.kept(),
                Event::Requeue(batch) => self.requeue(&batch, now)?,
                Event::Confirmed => self.queue.keep_finished(false),
                Event::Configure(order) => self.configure(order, now),
                Event::Steer(steer) => self.steer(*steer, now),
                Event::Stop { within } => self.stop(within, now),
            }
            next = self.inside.events.try_recv().ok();
        }
        self.write_out(now)
    }

    /// Goes by another configuration from the next message on.
    fn configure(&mut self, order: Configure, now: Now) {
        let Configure { config, done } = order;
        let workers = config.setting.task_worker_num;
        (self.inside.workers, self.inside.limit) = (workers, traffic::limit(workers));
        let account = |config: &Config| (config.wechat.clone(), config.errcode.clone());
        let mended = account(&config) != account(&self.config);
        self.throttle.configure(&config, mended, now);
        self.ids.configure(config.queue.ids_max);
        self.config = config;
        done();
    }

    fn write_out(&mut self, now: Now) -> Result<(), SyncFailed> {
        self.queue.commit(Durability::Later).map_err(|error| self.cannot_keep(error, now))
    }

    /// Nothing that was accepted in this turn can be kept, and nobody is told otherwise (S1).
    fn cannot_keep(&mut self, error: io::Error, now: Now) -> SyncFailed {
        self.answers.not_kept(&format!("the queue cannot be made durable: {error}"));
        self.stop(Duration::ZERO, now);
        self.give_up_in_flight(now);
        self.answers.mail();
        SyncFailed(error)
    }

    /// What only time brings.
    fn tick(&mut self) {
        let now = Now::read();
        self.intake.look(&self.stats, &self.queue);
        self.sends.wake(now.at);
        self.ends.flush(now.at, false);
        if self.intake.is_due(now.at) {
            self.queue.order_spare(now.ms);
        }
        if self.syncing.is_due(now.at) {
            self.order_sync();
        }
    }

    /// Makes what was accepted in this turn as safe as promised, then answers (S1).
    fn commit(&mut self) -> Result<(), SyncFailed> {
        let durability = match self.syncing.policy {
            SyncPolicy::Always => Durability::Now,
            SyncPolicy::Every(_) => Durability::Later,
            SyncPolicy::Never => Durability::Never,
        };
        // Nothing else waits for the disk.
        let syncs = durability == Durability::Now && !self.answers.nobody_accepted();
        let began = syncs.then(Instant::now);
        let committed = self.queue.commit(durability);
        committed.map_err(|error| self.cannot_keep(error, Now::read()))?;
        began.inspect(|began| self.stats.sync.record(began.elapsed()));
        if self.queue.dirty() {
            self.syncing.wanted();
        }
        self.books.account.pushes.accepted += self.answers.kept();
        self.answers.mail();
        Ok(())
    }

    fn report_damage(&mut self) {
        for damage in self.queue.damage() {
            self.books.account.damaged += 1;
            log::error!("{damage}");
        }
    }

    fn stop(&mut self, within: Duration, now: Now) {
        self.stopping = Some(now.at + within);
        for job in self.sends.give_up_waiting() {
            self.give_up(job, "stopping", not_now::STOPPING, now);
        }
        self.recall(now);
        if let Some(message) = self.pushes.take_peeked() {
            self.queue.give_back(&message);
        }
        // What waits for a segment is not accepted yet, and is told so.
        self.work_off_held(now);
    }

    /// Tells who waits for a send that a worker still holds (S2).
    fn give_up_in_flight(&mut self, now: Now) {
        for (mut message, waiting) in self.sends.give_up_in_flight() {
            message.count_attempt();
            self.give_up_send(&message, waiting, "stopping", not_now::STOPPING, now);
        }
        for to in self.ids.give_up() {
            self.answers.not_now(to, not_now::STOPPING);
        }
    }

    fn ended(&mut self, now: Now) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let nothing_open = self.in_flight() == 0 && self.ends.last();
        // What takes no long time is waited for.
        let unfinished = self.syncing.is_under_way() || self.queue.puts_back();
        (nothing_open || now.at >= deadline) && !unfinished
    }

    fn end(mut self) -> Result<u64, SyncFailed> {
        self.give_up_in_flight(Now::read());
        if self.pushes.in_flight() > 0 {
            log::warn!(
                "{} messages were given up while WeChat had not answered; they go out again at \
                 the next start with the same client_msg_id",
                self.pushes.in_flight()
            );
        }
        self.throttle.close();
        self.cancels.close();
        let synced = self.queue.sync_all();
        self.answers.mail();
        self.publish(Now::read());
        self.ends.flush(Instant::now(), true);
        synced.map_err(SyncFailed)?;
        if self.ends.all_recorded() {
            self.ends.tell(Note::Ended);
        }
        Ok(self.queue.depth())
    }
}
