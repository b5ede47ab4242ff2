//! Orders slow file work, and takes what became of it. Part of the spool's loop.

use super::{Spool, SyncFailed};
use crate::clock::Now;
use crate::queue::{ChoreDone, Progress};
use crate::wire::not_now::{QUEUE_FULL, QUEUE_GONE};

impl Spool {
    /// The next chore, when the last one is done: what is left of them stays with the queue.
    pub(super) fn send_chore(&mut self) {
        if self.chore_under_way {
            return;
        }
        if let Some(chore) = self.queue.chore() {
            // S3: the janitor has none. One that has ended ends the daemon too.
            self.chore_under_way = self.inside.chores.try_send(chore).is_ok();
        }
    }

    /// A sync waits behind no chore: it has a thread of its own.
    pub(super) fn order_sync(&mut self) {
        if let Some(sync) = self.queue.order_sync() {
            // S3: no other is under way. A syncer that has ended ends the daemon too.
            if self.inside.syncs.try_send(sync).is_ok() {
                self.syncing.ordered();
            }
        }
    }

    pub(super) fn chore_done(&mut self, done: ChoreDone, now: Now) -> Result<(), SyncFailed> {
        let progress = self.queue.chore_done(done, now.ms);
        let progress = progress.map_err(|error| self.cannot_keep(error, now))?;
        match &progress {
            Progress::Synced => {
                self.syncing.done().inspect(|took| self.stats.sync.record(*took));
            }
            _ => self.chore_under_way = false,
        }
        match progress {
            Progress::Nothing | Progress::Synced => {}
            Progress::Room => {
                if self.intake.segment_came() {
                    self.intake.has_room(&self.stats);
                    crate::notice!("the queue takes messages in again");
                }
                self.work_off_held(now);
            }
            Progress::NoRoom(error) => {
                let why = format!("{QUEUE_FULL}: no room for the next segment: {error}");
                if self.said.now() {
                    log::error!("{why}; it is tried again every second");
                }
                self.intake.no_segment(why);
                self.work_off_held(now);
            }
            Progress::NotRetired(name, error) => {
                log::error!("a finished queue segment ({name}) cannot be removed: {error}");
            }
        }
        if self.queue.is_astray() {
            self.close_intake(now);
        }
        Ok(())
    }

    /// What would be taken in, the next start would not find.
    fn close_intake(&mut self, now: Now) {
        let why = format!("{QUEUE_GONE} or removed");
        if self.intake.why_no_segment().as_deref() != Some(&*why) {
            log::error!(
                "{why}: {}; pushes are refused until it is back in its place (a restart goes on with \
                 what it finds there)",
                self.config.server.queue_file_path.display()
            );
        }
        self.intake.no_segment(why);
        self.work_off_held(now);
    }
}
