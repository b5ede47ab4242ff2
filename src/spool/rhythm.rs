//! How the spool waits for its next event. Part of the spool's loop.

use super::Spool;
use crate::clock::Now;
use crate::linger::linger;
use crate::traffic::Event;
use crossbeam_channel::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How long it is waited for the next batch without sleeping.
pub(super) const LINGER: Duration = Duration::from_micros(100);

/// Workers that have brought nothing for so long wait for WeChat, and need no processor.
const QUIET: Duration = Duration::from_millis(1);

/// How long outcomes may lie before they are booked.
const NAP: Duration = Duration::from_micros(50);

/// How fast events have come of late.
pub struct Rhythm {
    /// Batches come one upon the other.
    brisk: bool,
    /// Outcomes since the last look, and when there were some.
    outcomes: usize,
    outcome_at: Instant,
}

impl Rhythm {
    pub fn new(now: Instant) -> Rhythm {
        Rhythm { brisk: false, outcomes: 0, outcome_at: now }
    }

    pub fn outcome(&mut self) {
        self.outcomes += 1;
    }

    /// While outcomes come in fast and enough jobs lie ready, the spool does not let itself be woken
    /// by each of them: it books all that came meanwhile at once.
    fn naps(&mut self, in_flight: usize, workers: usize) -> bool {
        let outcomes = std::mem::take(&mut self.outcomes);
        if outcomes > 0 {
            self.outcome_at = Instant::now();
        }
        outcomes > 0 && in_flight > workers + workers / 2
    }
}

impl Spool {
    /// The next event, or what time brings after `now`, up to which all is done.
    pub(super) fn wait(&mut self, now: Now) -> Result<Event, RecvTimeoutError> {
        if self.hurries(now) {
            return self.inside.events.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
        if self.rhythm.naps(self.pushes.in_flight(), self.inside.workers) {
            std::thread::sleep(NAP);
        }
        let began = Instant::now();
        let event = self.lingers(began).map_or_else(|| self.sleep(now), Ok);
        let followed = match &event {
            Ok(Event::Batch(batch)) => batch.is_followed(),
            Ok(Event::Outcome(_)) => true,
            _ => false,
        };
        self.rhythm.brisk = followed && began.elapsed() < 2 * LINGER;
        event
    }

    /// Waits a moment without sleeping, where the last batches came so fast that to sleep and be
    /// woken would take longer, and no worker could use the processor; whoever else could, may.
    fn lingers(&self, now: Instant) -> Option<Event> {
        let working = self.in_flight() > 1 && now < self.rhythm.outcome_at + QUIET;
        if !self.rhythm.brisk || working {
            return self.inside.events.try_recv().ok();
        }
        linger(LINGER, || self.inside.events.try_recv().ok())
    }

    fn sleep(&self, now: Now) -> Result<Event, RecvTimeoutError> {
        match self.wakes_at(now) {
            Some(at) => self.inside.events.recv_deadline(at),
            None => self.inside.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When time brings something to do: what was due up to `now` is done already, or waits for an event.
    pub(super) fn wakes_at(&self, now: Now) -> Option<Instant> {
        let later = |due: &u64| *due > now.ms && self.may_hand_out(now);
        let queue_due = self.queue.next_due().filter(later);
        let throttled = self.stopping.is_none() && self.something_waits();
        let times = [
            queue_due.map(|due| now.at + Duration::from_millis(due - now.ms)),
            self.throttle.asks_again(now).filter(|_| throttled),
            self.sends.next_due(),
            self.syncing.next(),
            self.intake.asks_again(),
            self.ends.wakes_at(),
            self.cancels.wakes_at(now.at).filter(|_| self.stopping.is_none()),
            self.stopping.filter(|at| *at > now.at),
        ];
        times.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spool_naps_only_where_outcomes_come_and_jobs_lie_ready() {
        let mut rhythm = Rhythm::new(Instant::now());
        assert!(!rhythm.naps(100, 8), "there was no outcome");
        rhythm.outcome();
        assert!(!rhythm.naps(12, 8), "the workers would wait for it");
        rhythm.outcome();
        assert!(rhythm.naps(13, 8));
        assert!(!rhythm.naps(13, 8), "there was no other outcome");
    }
}
