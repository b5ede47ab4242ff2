//! Takes requests in: pushes into the queue, sends into memory. Part of the spool's loop.

use super::Spool;
use crate::clock::now_ms;
use crate::queue::{Message, New, Refused};
use crate::stats;
use crate::traffic::batch::{Batch, Kind, ReplyTo, Request};
use crate::traffic::job::{Job, Waiting};
use crate::wire::command;
use std::time::Instant;

impl Spool {
    pub(super) fn take_batch(&mut self, batch: Batch) {
        self.held.push_back(batch);
        self.work_off_held();
    }

    /// Takes in what is held, as far as segments reach.
    pub(super) fn work_off_held(&mut self) {
        let now = now_ms();
        while let Some(batch) = self.held.pop_front() {
            let from = std::mem::take(&mut self.held_from);
            let stuck = batch.requests().skip(from).position(|request| !self.accept(&request, now));
            if let Some(index) = stuck {
                self.held_from = from + index;
                self.held.push_front(batch);
                return;
            }
            self.finished.push(batch);
        }
    }

    /// Takes one request in, or answers why not; false if it must wait for the next segment.
    fn accept(&mut self, request: &Request, now: u64) -> bool {
        let Request { to, kind, new } = *request;
        if self.stopping.is_some() {
            self.reply(to, command::UNAVAILABLE, "stopping");
            return true;
        }
        match kind {
            Kind::Send => self.accept_send(to, new, now),
            Kind::Push => match self.queue.append(new, now) {
                Ok(_) => {
                    stats::add(&self.stats.accepted, 1);
                    self.accepted.push(to);
                }
                Err(Refused::NoSegment) => match self.no_segment.clone() {
                    Some(why) => self.reply(to, command::UNAVAILABLE, why),
                    None => return false,
                },
                Err(Refused::Full) => {
                    self.reply(to, command::UNAVAILABLE, Refused::Full.to_string());
                }
                Err(Refused::TooLarge) => {
                    self.reply(to, command::BAD_REQUEST, Refused::TooLarge.to_string());
                }
            },
        }
        true
    }

    fn accept_send(&mut self, to: ReplyTo, new: New, now: u64) {
        if let Some(why) = self.gate.why()
            && self.gate.allowed(1, Instant::now()) == 0
        {
            let text = format!("sending suspended: {why}");
            return self.reply(to, command::UNAVAILABLE, text);
        }
        if self.pace.day_is_over() {
            return self.reply(
                to,
                command::UNAVAILABLE,
                "sending suspended: daily_limit is reached",
            );
        }
        if self.sends.full() {
            return self.reply(to, command::UNAVAILABLE, "queue full");
        }
        self.send_ids += 1;
        let message = Message::in_memory(self.run, self.send_ids, now, new);
        let until = Instant::now() + self.config.wechat.send_retry_for;
        let waiting = Some(Waiting { to, until, before: self.queue.order_mark() });
        self.sends.arrive(Job { message, waiting });
    }
}
