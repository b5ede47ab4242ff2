//! Hands jobs to the workers, as many as the gate allows and in the order that was asked for, and
//! takes back what none of them has begun. Part of the spool's loop.

use super::Spool;
use crate::clock::{now_ms, unix_seconds};
use crate::queue::{Mark, Message};
use crate::traffic::job::{Job, Reason};
use crate::wire::command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// WeChat drops a repeated client_msg_id for ten minutes; a call may take some of that.
const RECOGNISED_FOR: Duration = Duration::from_secs(10 * 60 - 30);

impl Spool {
    /// When the pace lets the next message go, if something waits for that.
    pub(super) fn pace_asks(&self, now: Instant) -> Option<Instant> {
        let waits = self.sends.next_before().is_some() || self.peeked.is_some();
        let waits = waits || self.queue.depth() > self.pushes_in_flight as u64;
        let open = waits && self.gate.allowed(1, now) > 0 && self.stopping.is_none();
        if open && !self.pace.allows() { self.pace.asks_again(now, unix_seconds()) } else { None }
    }

    /// The day's limit stops sending as WeChat's own does, and is shown as such.
    fn tell_the_day(&mut self) {
        let over = self.pace.day_is_over();
        if over == self.day_told {
            return;
        }
        self.day_told = over;
        let limit = self.config.wechat.daily_limit;
        let why = format!("daily_limit = {limit} is reached, until midnight UTC+8");
        match over {
            true => log::warn!("sending suspended: {why}"),
            false => crate::notice!("sending goes on: a new day"),
        }
        *self.stats.suspended.lock() = over.then_some(why);
    }

    /// How many jobs of each kind may be in workers' hands now.
    pub(super) fn may_hand_out(&self, now: Instant) -> usize {
        let in_flight = self.pushes_in_flight + self.sends.in_flight();
        match self.gate.allowed(self.inside.limit, now) {
            _ if self.stopping.is_some() || !self.pace.allows() => 0,
            1 if in_flight > 0 => 0,
            allowed => allowed,
        }
    }

    pub(super) fn hand_out(&mut self) {
        let now = Instant::now();
        self.handed_out = now_ms();
        self.pace.turn(now, unix_seconds());
        self.tell_the_day();
        // A closed gate allows one at a time, so each one handed out is asked for anew.
        while let limit @ 1.. = self.may_hand_out(now) {
            let job = match self.next_job(limit) {
                Some(job) => job,
                None => return,
            };
            self.pace.spend();
            self.inside.halted.store(false, Ordering::Relaxed);
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
            return if push_room { self.next_push(None) } else { None };
        };
        if self.config.queue.send_first {
            return match (send_room, push_room) {
                (true, _) => self.sends.take(),
                (false, true) => self.next_push(None),
                (false, false) => None,
            };
        }
        match (send_room, push_room) {
            (true, true) => self.next_push(Some(before)).or_else(|| self.sends.take()),
            // Whose turn it is cannot be told without taking one; the next outcome makes room.
            _ => None,
        }
    }

    /// The next push, if it was accepted before that.
    fn next_push(&mut self, before: Option<Mark>) -> Option<Job> {
        let message = self.peeked.take().or_else(|| self.next_sure_push())?;
        if before.is_some_and(|before| !message.is_before(&before)) {
            self.peeked = Some(message);
            return None;
        }
        self.pushes_in_flight += 1;
        Some(Job { message, waiting: None })
    }

    /// The next push that WeChat will not deliver twice: one whose first try is of unknown outcome
    /// and too long ago for WeChat to recognise it by its client_msg_id has failed.
    fn next_sure_push(&mut self) -> Option<Message> {
        let now = now_ms();
        loop {
            let message = self.queue.take(now)?;
            let since = message.unclear_since();
            if since.is_none_or(|since| now < since + RECOGNISED_FOR.as_millis() as u64) {
                return Some(message);
            }
            let text = "unknown: WeChat may have taken it, and it is too late to ask again";
            self.fail(&message, &Reason::text(text));
        }
    }

    /// Takes back what no worker has begun.
    pub(super) fn recall(&mut self) {
        while let Ok(job) = self.inside.unstarted.try_recv() {
            self.take_back(job);
        }
    }

    /// A job that was handed out and not begun.
    pub(super) fn take_back(&mut self, job: Job) {
        self.pace.refund();
        let Some(waiting) = job.waiting else {
            self.pushes_in_flight -= 1;
            return self.queue.give_back(&job.message);
        };
        self.sends.landed(&job);
        let suspended = self.gate.why().map(|why| format!("sending suspended: {why}"));
        match suspended.or_else(|| self.stopping.map(|_| "stopping".into())) {
            Some(why) => self.reply(waiting.to, command::UNAVAILABLE, why),
            // The outcome that closes the gate is on its way.
            None => self.sends.arrive(job),
        }
    }
}
