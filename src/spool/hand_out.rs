//! Hands jobs to the workers, as many as the throttle allows and in the order that was asked for, and
//! takes back what none of them has begun. Part of the spool's loop.

use super::Spool;
use super::book::Failed;
use super::ends::Learnt;
use super::gate::Allowance;
use crate::class::Class;
use crate::clock::Now;
use crate::queue::{Mark, Message};
use crate::traffic::job::{Job, Reason, Waiting};
use crate::wire::not_now;
use std::borrow::Cow;
use std::time::Duration;

/// WeChat drops a repeated client_msg_id for ten minutes; a call may take some of that.
const RECOGNISED_FOR: Duration = Duration::from_secs(10 * 60 - 30);

impl Spool {
    /// Messages in workers' hands or ready for them.
    pub(super) fn in_flight(&self) -> usize {
        self.pushes.in_flight() + self.sends.in_flight()
    }

    /// Something could be handed out, if it were allowed.
    pub(super) fn something_waits(&self) -> bool {
        let queued = self.queue.depth() > self.pushes.in_flight() as u64;
        queued || !self.sends.none_ready() || self.pushes.is_peeked()
    }

    fn allowance(&self, now: Now) -> Allowance {
        match self.stopping {
            Some(_) => Allowance::Shut,
            None => self.throttle.allowance(now),
        }
    }

    /// A push that is due could be handed out now.
    pub(super) fn may_hand_out(&self, now: Now) -> bool {
        self.allowance(now) != Allowance::Shut && self.push_has_room()
    }

    pub(super) fn hand_out(&mut self, now: Now) {
        if self.throttle.turn(now) {
            self.answer_waiting_sends(now);
        }
        let mut jobs = std::mem::take(&mut self.leaving);
        while let Some(job) = self.next_allowed(now) {
            jobs.push(job);
        }
        // Q2: whatever end comes now, the next start knows what became of others, and who had these.
        self.queue.write_marks();
        jobs.drain(..).for_each(|job| self.hand(job, now));
        self.leaving = jobs;
    }

    fn next_allowed(&mut self, now: Now) -> Option<Job> {
        let allowance = self.allowance(now);
        // D1 in `quota`.
        let waits = self.something_waits();
        if allowance == Allowance::Shut || waits && !self.throttle.reserve(now) {
            return None;
        }
        let mut job = self.next_job(now)?;
        // A damaged segment may hold a push that nobody has counted.
        if !waits && !self.throttle.reserve(now) {
            self.pushes.land();
            self.queue.give_back(&job.message);
            return None;
        }
        job.probe = allowance == Allowance::Probe;
        job.round = self.round;
        self.throttle.spend(job.probe);
        Some(job)
    }

    fn hand(&mut self, job: Job, now: Now) {
        let apart = job.waiting.is_some() && self.config.queue.send_first;
        let channel = if apart { &self.inside.sends } else { &self.inside.pushes };
        // S3: there is room for every job in flight, and workers hold their ends as long as we do.
        if let Err(refused) = channel.try_send(job) {
            log::error!("a job found no room on its way to the workers; it is kept");
            self.take_back(refused.into_inner(), now);
        }
    }

    /// The next job whose kind still has room; sends first, or in the order of arrival.
    fn next_job(&mut self, now: Now) -> Option<Job> {
        let limit = self.inside.limit;
        let send_room = self.sends.in_flight() < limit;
        let push_room = self.push_has_room();
        let Some(before) = self.sends.next_before() else {
            return if push_room { self.next_push(None, now) } else { None };
        };
        if self.config.queue.send_first {
            return match (send_room, push_room) {
                (true, _) => self.sends.take(),
                (false, true) => self.next_push(None, now),
                (false, false) => None,
            };
        }
        match (send_room, push_room) {
            (true, true) => self.next_push(Some(before), now).or_else(|| self.sends.take()),
            // Whose turn it is cannot be told without taking one; the next outcome makes room.
            _ => None,
        }
    }

    /// One more may be in flight, and fail.
    fn push_has_room(&self) -> bool {
        self.pushes.in_flight() < self.inside.limit && self.ends.have_room()
    }

    /// The next push, if it was accepted before that.
    fn next_push(&mut self, before: Option<Mark>, now: Now) -> Option<Job> {
        let message = self.next_sure_push(now)?;
        if before.is_some_and(|before| !message.is_before(&before)) {
            self.pushes.peek(message);
            return None;
        }
        self.pushes.leave(&message);
        Some(Job { message, waiting: None, probe: false, round: 0 })
    }

    /// The next push that WeChat will not deliver twice: one whose first try is of unknown outcome
    /// and too long ago for WeChat to recognise it by its client_msg_id has failed.
    fn next_sure_push(&mut self, now: Now) -> Option<Message> {
        while self.ends.have_room() {
            // One that had to let a send go first may have waited long since.
            let peeked = self.pushes.take_peeked();
            let mut message = peeked.or_else(|| self.queue.take(now.ms))?;
            if let Some(kept) = self.ends.decided(&message) {
                self.end_failed(kept.with(message), now);
                continue;
            }
            if let Some(number) = self.queue.is_cancelled(&message) {
                message.forgive_attempt();
                self.cancel(message, number, now);
                continue;
            }
            let since = message.unclear_since();
            if since.is_none_or(|since| now.ms < since + RECOGNISED_FOR.as_millis() as u64) {
                return Some(message);
            }
            let text = "unknown: WeChat may have taken it, and it is too late to ask again";
            let reason = Reason::text(text);
            self.fail(message, Failed { class: Class::Unknown, reason, called: None }, now);
        }
        None
    }

    /// Nobody begins what is handed out already: the round ends, what no worker has taken comes back, and who
    /// waits for a send is told.
    pub(super) fn halt(&mut self, now: Now) {
        self.end_round(now);
        self.answer_waiting_sends(now);
    }

    pub(super) fn end_round(&mut self, now: Now) {
        self.inside.round.end(self.round);
        self.round = self.inside.round.current();
        self.recall(now);
    }

    /// Takes back what no worker has begun.
    pub(super) fn recall(&mut self, now: Now) {
        for unstarted in self.inside.unstarted.clone() {
            while let Ok(job) = unstarted.try_recv() {
                self.take_back(job, now);
            }
        }
    }

    /// A send ends that no worker holds.
    pub(super) fn give_up(
        &mut self,
        job: Job,
        class: &'static str,
        why: impl Into<Cow<'static, str>>,
        now: Now,
    ) {
        if let Some(waiting) = job.waiting {
            self.give_up_send(&job.message, waiting, class, why, now);
        }
    }

    /// The client that waits for it is told, and so is the message log.
    pub(super) fn give_up_send(
        &mut self,
        message: &Message,
        waiting: Waiting,
        class: &'static str,
        why: impl Into<Cow<'static, str>>,
        now: Now,
    ) {
        let learnt = Learnt { class, errcode: None, msgid: None, called: None };
        self.ends.log(message, Some(&waiting), learnt, now);
        self.books.account.sends.given_up += 1;
        let why = why.into();
        for to in self.ids.answered(message, None, now.at) {
            self.answers.not_now(to, why.clone());
        }
        self.answers.not_now(waiting.to, why);
    }

    /// While nobody may send, who waits for a send is told so instead of waiting on.
    pub(super) fn answer_waiting_sends(&mut self, now: Now) {
        let Some(why) = self.throttle.refusal() else { return };
        for job in self.sends.give_up_waiting() {
            self.give_up(job, "suspended", why.clone(), now);
        }
    }

    /// A job that was handed out and not begun.
    pub(super) fn take_back(&mut self, mut job: Job, now: Now) {
        self.throttle.refund(job.probe);
        if job.waiting.is_none() {
            self.pushes.land();
            self.cancels.landed(job.round);
            let Some(number) = self.queue.is_cancelled(&job.message) else {
                return self.queue.give_back(&job.message);
            };
            job.message.forgive_attempt();
            return self.cancel(job.message, number, now);
        }
        self.sends.landed(&job);
        if let Some(why) = self.throttle.refusal() {
            return self.give_up(job, "suspended", why, now);
        }
        match self.stopping {
            Some(_) => self.give_up(job, "stopping", not_now::STOPPING, now),
            // The outcome that ended its round is on its way.
            None => self.sends.delay(job, now.at),
        }
    }
}
