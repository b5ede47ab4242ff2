//! Carries out what administrators order: to pause and to go on. Part of the spool's loop. Rare, so that it
//! may wait for the disk: what is answered survives the daemon's end.

use super::{Drained, Spool};
use crate::clock::Now;
use crate::traffic::batch::{Reply, ReplyTo};
use crate::traffic::steer::{Paused, Steer, Steered, Steering};
use crate::wire::command;
use serde::Serialize;

impl Spool {
    pub(super) fn steer(&mut self, steer: Steer, now: Now) {
        let Steer { to, by, order } = steer;
        match order {
            Steering::Pause { why } => self.pause(to, Paused { by, why, since: now.unix }, now),
            Steering::Resume => self.resume(to, &by),
            Steering::Drain => self.drain(to, by, now),
            Steering::EndDrain => self.end_drain(to, &by),
            Steering::Cancel { which, purpose } => self.order_cancel(to, by, which, purpose, now),
            Steering::Progress(number) => self.tell_progress(to, number),
        }
    }

    fn pause(&mut self, to: ReplyTo, paused: Paused, now: Now) {
        let (before, kept) = self.throttle.pause(paused);
        // What workers hold ends as it ends; what none has begun comes back.
        self.halt(now);
        match kept {
            Ok(()) => self.steered(to, &Steered { paused: before, ..self.as_it_is() }),
            Err(error) => {
                let why = format!(
                    "sending is paused, but a restart will not know of it: {error} (see \
                     server.queue_file_path)"
                );
                log::error!("{why}");
                self.not_steered(to, why);
            }
        }
    }

    fn resume(&mut self, to: ReplyTo, by: &str) {
        match self.throttle.resume(by) {
            // Whoever resumes what is not paused wants an end of the draining.
            Ok(None) if self.draining.is_some() => self.end_drain(to, by),
            Ok(before) => self.steered(to, &Steered { paused: before, ..self.as_it_is() }),
            Err(error) => self.not_steered(to, format!("sending stays paused: {error}")),
        }
    }

    fn as_it_is(&self) -> Steered {
        Steered {
            paused: None,
            draining: self.draining.is_some(),
            stopping: self.ends_soon(),
            queued: self.queue.depth(),
        }
    }

    /// It was told to stop, or main was told that nothing is left.
    fn ends_soon(&self) -> bool {
        self.stopping.is_some() || self.draining.is_some() && matches!(self.drained, Drained::Told)
    }

    fn drain(&mut self, to: ReplyTo, by: String, now: Now) {
        self.steered(to, &self.as_it_is());
        if self.draining.is_none() {
            log::warn!(
                "drained by {by}: requests are refused, and the daemon stops when nothing is left"
            );
            self.draining = Some((by, now.unix));
            self.stats.draining.lock().clone_from(&self.draining);
        }
    }

    fn end_drain(&mut self, to: ReplyTo, by: &str) {
        if self.draining.is_some() && self.ends_soon() {
            let why =
                "too late: the daemon stops; it takes requests in again when it is started".into();
            return self.not_steered(to, why);
        }
        self.steered(to, &self.as_it_is());
        if self.draining.take().is_some() {
            crate::notice!("not drained any more, by {by}: requests are taken in again");
            *self.stats.draining.lock() = None;
        }
    }

    /// The daemon ends when it is drained and nothing is left, of which anybody could still hear.
    pub(super) fn look_drained(&mut self) {
        let empty = self.queue.depth() == 0 && self.sends.len() == 0;
        if self.draining.is_some()
            && empty
            && self.in_flight() == 0
            && self.ends.all_recorded()
            && let Drained::Tell(tell) = std::mem::replace(&mut self.drained, Drained::Told)
        {
            tell();
        }
    }

    pub(super) fn steered(&self, to: ReplyTo, answer: &impl Serialize) {
        let text = serde_json::to_string(answer).expect("invariant: numbers and texts are JSON");
        self.answers.steered(Reply { to, code: command::OK, message: text.into(), close: false });
    }

    pub(super) fn not_steered(&self, to: ReplyTo, why: String) {
        let code = command::FAILED;
        self.answers.steered(Reply { to, code, message: why.into(), close: false });
    }
}
