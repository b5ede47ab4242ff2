//! What travels between the threads, and the channels it travels in: plain data below all of them. Every
//! capacity stands here, with the reason why it is enough.

pub mod batch;
pub mod job;
pub mod mailbox;

use crate::queue::{Chore, ChoreDone};
use batch::{Batch, ReplyTo};
use crossbeam_channel::{Receiver, Sender, bounded};
use job::{Job, Outcome};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Everything that can happen to the spool.
pub enum Event {
    Batch(Batch),
    Outcome(Box<Outcome>),
    Chore(ChoreDone),
    /// Hand nothing out any more and end when the workers have brought back what they hold.
    Stop {
        within: Duration,
    },
}

/// What the store is asked for.
pub enum Order {
    Tset { to: ReplyTo, key: Box<[u8]> },
    ReloadAll,
}

/// Orders that may wait; beyond that the reactor stops reading the clients that send them.
pub const ORDERS: usize = 1024;

/// Batches the reactor may have under way.
pub const BATCHES: usize = 16;

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
    pub events: Receiver<Event>,
    pub sends: Sender<Job>,
    pub pushes: Sender<Job>,
    /// To take back what no worker has taken yet.
    pub unstarted: Receiver<Job>,
    pub chores: Sender<Chore>,
    pub halted: Arc<AtomicBool>,
    pub workers: usize,
    /// Jobs of each kind that may be handed out at once: one in each worker's hands and as many
    /// ready, so that no worker waits for the spool.
    pub limit: usize,
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
