//! The spool's channels: what flows in and out, and room for all of it. Part of the spool.

use super::{BATCHES, Event};
use crate::queue::Chore;
use crate::worker::Job;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Jobs that lie ready at least, as long as there are so many.
const STOCK: usize = 32;

/// The ends of the spool's channels that others hold.
pub struct Channels {
    pub events: Sender<Event>,
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub chores: Receiver<Chore>,
    /// A worker met a limit or a fault of the account: nobody begins a job until the spool, which
    /// has yet to hear of it, hands out again.
    pub halted: Arc<AtomicBool>,
    inside: Inside,
}

/// The spool's own ends.
pub struct Inside {
    pub(super) events: Receiver<Event>,
    pub(super) sends: Sender<Job>,
    pub(super) pushes: Sender<Job>,
    /// To take back what no worker has taken yet.
    pub(super) unstarted: Receiver<Job>,
    pub(super) chores: Sender<Chore>,
    pub(super) halted: Arc<AtomicBool>,
    pub(super) workers: usize,
    /// Jobs of each kind that may be handed out at once: one in each worker's hands and as many
    /// ready, so that no worker waits for the spool.
    pub(super) limit: usize,
}

impl Channels {
    pub fn new(workers: usize) -> Channels {
        let limit = workers + workers.max(STOCK);
        let (events, events_in) = bounded(BATCHES + 2 * limit + 16);
        let (sends_out, sends) = bounded(limit);
        let (pushes_out, pushes) = bounded(limit);
        let (chores_out, chores) = crossbeam_channel::unbounded();
        let unstarted = pushes.clone();
        let (sends_in, pushes_in) = (sends_out, pushes_out);
        let halted = Arc::new(AtomicBool::new(false));
        let inside = Inside {
            events: events_in,
            sends: sends_in,
            pushes: pushes_in,
            unstarted,
            chores: chores_out,
            halted: Arc::clone(&halted),
            workers,
            limit,
        };
        Channels { events, sends, pushes, chores, halted, inside }
    }

    /// What the spool itself needs of them.
    pub fn inside(self) -> Inside {
        self.inside
    }
}
