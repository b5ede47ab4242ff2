//! Carries out what administrators order: to pause and to go on. Part of the spool's loop. Rare, so that it
//! may wait for the disk: what is answered survives the daemon's end.

use super::Spool;
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
        }
    }

    fn pause(&mut self, to: ReplyTo, paused: Paused, now: Now) {
        let (before, kept) = self.throttle.pause(paused);
        // What workers hold ends as it ends; what none has begun comes back.
        self.halt(now);
        match kept {
            Ok(()) => self.steered(to, &Steered { paused: before, queued: self.queue.depth() }),
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
            Ok(before) => self.steered(to, &Steered { paused: before, queued: self.queue.depth() }),
            Err(error) => self.not_steered(to, format!("sending stays paused: {error}")),
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
