//! Orders slow file work, and takes what became of it. Part of the spool's loop.

use super::{Spool, SyncFailed};
use crate::clock::now_ms;
use crate::queue::{ChoreDone, Progress};
use std::time::{Duration, Instant};

/// How often a segment is asked for again that could not be created.
const SPARE_RETRY: Duration = Duration::from_secs(1);

impl Spool {
    pub(super) fn send_chores(&mut self) {
        while let Some(chore) = self.queue.chore() {
            // The janitor ends only after the spool has dropped this channel.
            let _ = self.inside.chores.send(chore);
        }
    }

    pub(super) fn chore_done(&mut self, done: ChoreDone) -> Result<(), SyncFailed> {
        let progress = self.queue.chore_done(done, now_ms());
        match progress.map_err(|error| self.cannot_accept(error))? {
            Progress::Nothing => {}
            Progress::Synced => self.sync_under_way = false,
            Progress::Room => {
                if self.no_segment.take().is_some() {
                    crate::notice!("the queue takes messages in again");
                    *self.stats.full.lock() = None;
                }
                self.work_off_held();
            }
            Progress::NoRoom(error) => {
                self.no_segment(&error);
                self.work_off_held();
            }
            Progress::NotRetired(name, error) => {
                log::error!("a finished queue segment ({name}) cannot be removed: {error}");
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
        self.no_segment = Some(why);
        self.spare_again = Some(Instant::now() + SPARE_RETRY);
    }
}
