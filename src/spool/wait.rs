//! How the spool waits for its next event. Part of the spool's loop.

use super::Spool;
use crate::clock::now_ms;
use crate::linger::linger;
use crate::traffic::Event;
use crossbeam_channel::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How long it is waited for the next batch without sleeping.
const LINGER: Duration = Duration::from_micros(100);

/// Workers that have brought nothing for so long wait for WeChat, and need no processor.
const QUIET: Duration = Duration::from_millis(1);

/// How long outcomes may lie before they are booked.
const NAP: Duration = Duration::from_micros(50);

impl Spool {
    /// The next event, or what time brings.
    pub(super) fn wait(&mut self) -> Result<Event, RecvTimeoutError> {
        if self.napping() {
            std::thread::sleep(NAP);
        }
        let began = Instant::now();
        let event = self.linger(began).map_or_else(|| self.sleep(began), Ok);
        let followed = match &event {
            Ok(Event::Batch(batch)) => batch.is_followed(),
            Ok(Event::Outcome(_)) => true,
            _ => false,
        };
        self.brisk = followed && began.elapsed() < 2 * LINGER;
        event
    }

    /// While outcomes come in fast and enough jobs lie ready, the spool does not let itself be woken
    /// by each of them: it books all that came meanwhile at once.
    fn napping(&mut self) -> bool {
        let outcomes = std::mem::take(&mut self.outcomes);
        if outcomes > 0 {
            self.outcome_at = Instant::now();
        }
        outcomes > 0 && self.pushes_in_flight > self.inside.workers + self.inside.workers / 2
    }

    /// Waits a moment without sleeping, where the last batches came so fast that to sleep and be
    /// woken would take longer, and no worker could use the processor; whoever else could, may.
    fn linger(&self, now: Instant) -> Option<Event> {
        let in_flight = self.pushes_in_flight + self.sends.in_flight();
        if !self.brisk || (in_flight > 1 && now < self.outcome_at + QUIET) {
            return self.inside.events.try_recv().ok();
        }
        linger(LINGER, || self.inside.events.try_recv().ok())
    }

    fn sleep(&self, now: Instant) -> Result<Event, RecvTimeoutError> {
        match self.wakes_at(now) {
            Some(at) => self.inside.events.recv_deadline(at),
            None => self.inside.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When time brings something to do.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        // What was due already found no room: the outcome that makes some is an event.
        let later = |due: &u64| *due > self.handed_out && self.may_hand_out(now) > 0;
        let queue_due = self.queue.next_due().filter(later);
        let times = [
            queue_due.map(|due| now + Duration::from_millis(due.saturating_sub(now_ms()))),
            self.gate.opens().filter(|at| *at > now),
            self.pace_asks(now),
            self.sends.next_due(),
            self.next_sync,
            self.spare_again,
            self.stopping.filter(|at| *at > now),
        ];
        times.into_iter().flatten().min()
    }
}
