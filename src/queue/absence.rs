//! What somebody takes away while it is in use. Looked for when files are synced, and at each new
//! segment, never for a single message. Part of the queue.

use super::janitor::{InUse, Missed, Work};
use super::{Damage, Progress, Queue};

impl Queue {
    /// The folder was moved away or removed. Nothing is taken in until it is back; what it holds goes
    /// on, where it is. `order_spare` looks for it again.
    pub fn is_astray(&self) -> bool {
        self.astray
    }

    pub(super) fn order_look(&mut self) {
        let busy = self.busy.iter().filter_map(|number| self.index(*number));
        let files: InUse = busy
            .filter_map(|index| {
                let segment = &self.segments[index];
                segment.file().map(|file| (segment.number, file.identity()))
            })
            .collect();
        self.push_chore(Work::Look(files));
    }

    /// Takes note of what is not where it should be.
    pub(super) fn miss(&mut self, missed: Missed) {
        self.astray |= missed.folder;
        for (number, replaced) in missed.segments {
            let Some(index) = self.index(number) else { continue };
            let segment = &mut self.segments[index];
            if !segment.missing {
                segment.miss();
                self.damage.push(Damage::TakenAway { segment: number, replaced });
            }
        }
    }

    /// The same of a look that was ordered for it, which alone finds the folder back in its place.
    pub(super) fn looked(&mut self, missed: Missed) -> Progress {
        let back = self.astray && !missed.folder;
        self.astray &= !back;
        self.miss(missed);
        if back { Progress::Room } else { Progress::Nothing }
    }
}
