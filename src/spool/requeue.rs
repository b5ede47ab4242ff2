//! Puts failed messages into the queue again, at the ledger's order, and says what came of it. Part of the
//! spool's loop. Rare, so that it may wait for the disk: what is told to be placed is durable.

use super::{Spool, SyncFailed};
use crate::clock::Now;
use crate::queue::{New, Refused};
use crate::traffic::ledger::{Again, Note, Placed, Stopped};
use crate::wire::not_now;

impl Spool {
    pub(super) fn requeue(&mut self, batch: &[Again], now: Now) -> Result<(), SyncFailed> {
        // Until the ledger has heard of it, what is in the queue, and what was, says what became of each.
        self.queue.keep_finished(true);
        // The records that failed are marked done on the disk before there are new ones.
        self.queue.sync_all().map_err(|error| self.cannot_keep(error, now))?;
        let mut placed = Placed::default();
        for again in batch {
            placed.stopped = self.place(again, now);
            if placed.stopped.is_some() {
                break;
            }
            placed.count += 1;
            self.books.account.pushes.requeued += 1;
        }
        self.write_out(now)?;
        self.queue.sync_all().map_err(|error| self.cannot_keep(error, now))?;
        self.ends.tell(Note::Placed(placed));
        Ok(())
    }

    /// Why one cannot be placed, if it cannot.
    fn place(&mut self, again: &Again, now: Now) -> Option<Stopped> {
        let Again { id, openid, key, data } = again;
        if self.stopping.is_some() {
            return Some(Stopped::NotNow(not_now::STOPPING.into()));
        }
        if self.draining.is_some() {
            return Some(Stopped::NotNow(not_now::DRAINING.into()));
        }
        match self.queue.append_as(New { openid, key, data }, id, now.ms) {
            Ok(_) => {
                self.ids.requeued(openid, id);
                None
            }
            Err(Refused::TooLarge) => Some(Stopped::TooLarge),
            Err(Refused::Full) => Some(Stopped::NotNow(not_now::QUEUE_FULL.into())),
            Err(Refused::NoSegment) => {
                let coming = "the queue's next segment is on its way".to_owned();
                Some(Stopped::NotNow(self.intake.why_no_segment().unwrap_or(coming)))
            }
        }
    }
}
