//! What somebody takes away while it is in use. Looked for when files are synced, and at each new
//! segment, never for a single message. Part of the queue.

use super::janitor::{self, Back, InUse, Missed, PutBack, Taken, Work};
use super::{Chore, Damage, Progress, Queue};
use std::io;

impl Queue {
    /// The folder was moved away or removed. Nothing is taken in until it is back; what it holds goes
    /// on, where it is. `order_spare` looks for it again.
    pub fn is_astray(&self) -> bool {
        self.astray
    }

    pub(super) fn order_look(&mut self) {
        let files = self.in_use();
        self.push_chore(Work::Look(files));
    }

    pub(super) fn in_use(&self) -> InUse {
        let busy = self.busy.iter().filter_map(|number| self.index(*number));
        busy.filter_map(|index| {
            let segment = &self.segments[index];
            segment.file().map(|file| (segment.number, file.identity()))
        })
        .collect()
    }

    /// Takes note of what is not where it should be.
    pub(super) fn miss(&mut self, missed: Missed) {
        self.astray |= missed.folder;
        for Taken { number, file, replaced } in missed.segments {
            let Some(index) = self.index(number) else { continue };
            let segment = &mut self.segments[index];
            // What was put back meanwhile is another one.
            let other = segment.file().is_some_and(|ours| ours.identity() != file);
            if segment.missing || other {
                continue;
            }
            segment.miss();
            match segment.file().cloned().filter(|_| replaced) {
                Some(ours) => {
                    segment.begin_move();
                    let (origin, written) = (self.origin, segment.written());
                    self.push_chore(Work::PutBack(PutBack { number, origin, ours, written }));
                }
                None => self.damage.push(Damage::TakenAway { segment: number, replaced }),
            }
        }
    }

    /// Segments are being put back into their places.
    pub fn puts_back(&self) -> bool {
        let mut busy = self.busy.iter().filter_map(|number| self.index(*number));
        busy.any(|index| self.segments[index].moves())
    }

    /// Takes note of a segment's own file, in its place again, or why it is not.
    pub(super) fn put_back(&mut self, number: u64, written: usize, back: io::Result<Back>) {
        let Some(index) = self.index(number) else { return };
        let segment = &mut self.segments[index];
        let moved = back.and_then(|Back { file, kept }| {
            segment.end_move(file, written, &*self.disk)?;
            Ok(kept)
        });
        self.damage.push(match moved {
            Ok(kept) => Damage::PutBack { segment: number, kept },
            Err(error) => {
                segment.give_up_move();
                Damage::NotPutBack { segment: number, why: error.to_string() }
            }
        });
        // What is read next stands in another file.
        if number == self.cursor.segment {
            self.ahead = None;
        }
        self.cancels.read_anew(number);
        self.retire_finished(number);
    }

    /// Looks for it at once, and puts it back before this returns: there is no later.
    pub(super) fn put_all_back(&mut self) -> io::Result<()> {
        let missed = janitor::look(&*self.disk, &self.in_use());
        self.miss(missed);
        let is_one = |chore: &Chore| matches!(chore.work, Work::PutBack(_));
        while let Some(at) = self.chores.iter().position(is_one) {
            let chore = self.chores.remove(at).expect("invariant: it was found there");
            self.chore_done(chore.run(), 0)?;
        }
        Ok(())
    }

    /// The same of a look that was ordered for it, which alone finds the folder back in its place.
    pub(super) fn looked(&mut self, missed: Missed) -> Progress {
        let back = self.astray && !missed.folder;
        self.astray &= !back;
        self.miss(missed);
        if back { Progress::Room } else { Progress::Nothing }
    }
}
