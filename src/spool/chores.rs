//! Orders slow file work, and takes what became of it. Part of the spool's loop.

use super::{Spool, SyncFailed};
use crate::clock::Now;
use crate::queue::ChoreDone;
use crate::traffic::{CHORES, SYNCS};

impl Spool {
    pub(super) fn send_chores(&mut self) {
        while self.chores < CHORES + SYNCS
            && let Some(chore) = self.queue.chore()
        {
            match self.inside.chores.try_send(chore) {
                Ok(()) => self.chores += 1,
                // A janitor that has ended ends the daemon too.
                Err(_) => return log::error!("a chore found no janitor"),
            }
        }
    }

    pub(super) fn chore_done(&mut self, done: ChoreDone, now: Now) -> Result<(), SyncFailed> {
        self.chores -= 1;
        match done {
            ChoreDone::Created(created) => {
                match self.queue.spare_arrived(created) {
                    Ok(()) => {
                        if self.intake.segment_came() {
                            crate::notice!("the queue takes messages in again");
                            *self.stats.full.lock() = None;
                        }
                    }
                    Err(error) => self.no_segment(&error),
                }
                self.work_off_held(now);
            }
            ChoreDone::Retired(number, Err(error)) => {
                log::error!("a finished queue segment ({number}) cannot be removed: {error}");
            }
            ChoreDone::Retired(_, Ok(())) => {}
            ChoreDone::Synced(synced) => {
                self.syncing.done();
                synced.map_err(|error| self.cannot_keep(error, now))?;
                self.queue.synced();
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
        self.intake.no_segment(why);
    }
}
