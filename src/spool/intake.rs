//! Takes requests in: pushes into the queue, sends into memory. Part of the spool's loop.

use super::Spool;
use super::gate::Allowance;
use super::ids::{Known, Print};
use crate::clock::Now;
use crate::queue::{ClientMsgId, Queue, Refused};
use crate::stats::{Refusal, Stats};
use crate::traffic::batch::{Batch, Kind, Request};
use crate::wire::{command, not_now};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a segment is asked for again that could not be created.
const SPARE_RETRY: Duration = Duration::from_secs(1);

const ID_OF_A_PUSH: &str = "invalid id: a push has it, and nobody can answer for WeChat";

/// Batches that wait for the next segment, and why there is none.
#[derive(Default)]
pub struct Intake {
    held: VecDeque<Batch>,
    /// How far the first of them has got.
    from: usize,
    no_segment: Option<String>,
    ask_again: Option<Instant>,
    /// Status says why pushes are refused.
    shown: bool,
    /// So many bytes were too many for one more push.
    too_many: Option<u64>,
}

impl Intake {
    /// Creating the next segment failed: what needs it is refused until there is one.
    pub fn no_segment(&mut self, why: String) {
        self.no_segment = Some(why);
        self.ask_again = Some(Instant::now() + SPARE_RETRY);
    }

    /// There is a next segment; true if there was none before.
    pub fn segment_came(&mut self) -> bool {
        self.no_segment.take().is_some()
    }

    /// A push is refused, and status says why.
    fn refuses(&mut self, stats: &Stats, why: &str) {
        if !std::mem::replace(&mut self.shown, true) {
            *stats.full.lock() = Some(why.to_owned());
        }
    }

    /// One more push would go beyond the limit of bytes.
    fn reached_limit(&mut self, stats: &Stats, bytes: u64) {
        self.too_many = Some(bytes);
        self.refuses(stats, "queue.queue_max_bytes is reached");
    }

    /// Whoever keeps away while the queue is full hears of it when it is shorter, without a push that tries.
    pub fn look(&mut self, stats: &Stats, queue: &Queue) {
        let fewer = |bytes: u64| queue.bytes() < bytes || queue.depth() == 0;
        if self.too_many.is_some_and(fewer) {
            self.has_room(stats);
        }
    }

    /// A push has found room, or will.
    pub fn has_room(&mut self, stats: &Stats) {
        self.too_many = None;
        if std::mem::take(&mut self.shown) {
            *stats.full.lock() = None;
        }
    }

    pub fn why_no_segment(&self) -> Option<String> {
        self.no_segment.clone()
    }

    pub fn asks_again(&self) -> Option<Instant> {
        self.ask_again
    }

    /// True if a segment is to be asked for again now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.ask_again.is_some_and(|at| at <= now);
        if due {
            self.ask_again = None;
        }
        due
    }
}

impl Spool {
    pub(super) fn take_batch(&mut self, batch: Batch, now: Now) {
        self.intake.held.push_back(batch);
        self.work_off_held(now);
    }

    /// Takes in what is held, as far as segments reach.
    pub(super) fn work_off_held(&mut self, now: Now) {
        while let Some(batch) = self.intake.held.pop_front() {
            let from = std::mem::take(&mut self.intake.from);
            let stuck = batch.requests().skip(from).position(|request| !self.accept(&request, now));
            if let Some(index) = stuck {
                self.intake.from = from + index;
                self.intake.held.push_front(batch);
                return;
            }
            self.answers.finish(batch);
        }
    }

    /// Takes one request in, or answers why not; false if it must wait for the next segment.
    fn accept(&mut self, request: &Request, now: Now) -> bool {
        let Request { to, kind, id, new, .. } = *request;
        if self.stopping.is_some() {
            self.refuse(to, Refusal::Stopping, not_now::STOPPING);
            return true;
        }
        if self.draining.is_some() {
            self.refuse(to, Refusal::Draining, not_now::DRAINING);
            return true;
        }
        let id = ClientMsgId::new(id);
        let mut print = None;
        if let Some(id) = &id {
            print = self.look_at_id(request, id, now);
            if print.is_none() {
                return true;
            }
        }
        let append = |queue: &mut Queue| match &id {
            None => queue.append(new, now.ms),
            Some(id) => queue.append_as(new, id, now.ms),
        };
        match kind {
            Kind::Send => self.accept_send(request, print, now),
            Kind::Push => match append(&mut self.queue) {
                Ok(_) => {
                    self.intake.has_room(&self.stats);
                    print.into_iter().for_each(|print| self.ids.queued(print));
                    self.answers.accept(to);
                }
                Err(Refused::NoSegment) => match self.intake.no_segment.clone() {
                    Some(why) => {
                        self.intake.refuses(&self.stats, &why);
                        self.refuse(to, Refusal::NoRoom, why);
                    }
                    None => return false,
                },
                Err(Refused::Full) => {
                    self.intake.reached_limit(&self.stats, self.queue.bytes());
                    self.refuse(to, Refusal::QueueFull, Refused::Full.to_string());
                }
                Err(Refused::TooLarge) => {
                    self.books.account.refuse(Refusal::TooLarge);
                    self.answers.say(to, command::BAD_REQUEST, Refused::TooLarge.to_string());
                }
            },
        }
        true
    }

    /// What a request with an id is remembered by when it is taken in. None: it was asked for before under the same
    /// id, or nobody can tell, and is answered.
    fn look_at_id(&mut self, request: &Request, id: &ClientMsgId, now: Now) -> Option<Print> {
        let Request { to, new, .. } = *request;
        let queue = &self.queue;
        match self.ids.look(new.openid, id, to, || queue.own_ids(), now.at) {
            Known::New(print) => return Some(print),
            Known::Refused(why) => {
                self.refuse(to, Refusal::Ids, why);
                return None;
            }
            Known::Pushed if request.kind == Kind::Send => {
                self.books.account.refuse(Refusal::BadData);
                self.answers.say(to, command::BAD_REQUEST, ID_OF_A_PUSH);
                return None;
            }
            Known::Pushed => self.answers.accept_again(to),
            Known::Told(code, text) => self.answers.say(to, code, text.into_string()),
            Known::Joined => {}
        }
        self.books.account.repeated += 1;
        None
    }

    /// A send is answered at once while nobody may send; but where a probe is due and no other send waits to be
    /// it, this one is.
    fn accept_send(&mut self, request: &Request, print: Option<Print>, now: Now) {
        let to = request.to;
        let probes = || self.sends.none_ready() && self.throttle.allowance(now) == Allowance::Probe;
        if let Some(why) = self.throttle.refusal()
            && !probes()
        {
            return self.refuse(to, Refusal::Suspended, why);
        }
        if self.sends.full() {
            return self.refuse(to, Refusal::SendsFull, not_now::QUEUE_FULL);
        }
        self.books.account.sends.accepted += 1;
        let until = now.at + self.config.wechat.send_retry_for;
        self.sends.accept(request, until, self.queue.order_mark(), now);
        print.into_iter().for_each(|print| self.ids.sent(print));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_could_not_be_created_is_asked_for_once_more_a_moment_later() {
        let mut intake = Intake::default();
        assert_eq!((intake.is_due(Instant::now()), intake.asks_again()), (false, None));
        intake.no_segment("disk full".into());
        let at = intake.asks_again().unwrap();
        assert!(!intake.is_due(at - Duration::from_nanos(1)));
        assert!(intake.is_due(at));
        assert_eq!((intake.is_due(at), intake.asks_again()), (false, None));
        assert_eq!((intake.segment_came(), intake.segment_came()), (true, false));
    }
}
