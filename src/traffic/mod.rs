//! What travels between the threads, and the channels it travels in: plain data below all of them. Every
//! capacity stands here, with the reason why it is enough.

pub mod batch;
pub mod class;
pub mod job;
pub mod mailbox;

use crate::queue::{Chore, ChoreDone};
use batch::{Batch, ReplyTo};
use crossbeam_channel::{Receiver, Sender, bounded};
use job::{Job, Outcome, Round};
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

/// Orders to stop: one, and one not to wait any longer.
const STOPS: usize = 2;

/// Chores under way at most: the spool orders the next when it has heard of the last.
pub const CHORES: usize = 1;

/// Syncs under way at most, likewise.
pub const SYNCS: usize = 1;

/// Jobs that lie ready at least, as long as there are so many.
const STOCK: usize = 32;

/// The ends of the spool's channels that others hold.
pub struct Channels {
    pub events: Sender<Event>,
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub chores: Receiver<Chore>,
    pub round: Round,
    inside: Inside,
}

/// The spool's own ends.
pub struct Inside {
    pub events: Receiver<Event>,
    pub sends: Sender<Job>,
    pub pushes: Sender<Job>,
    /// To take back what no worker has taken yet.
    pub unstarted: [Receiver<Job>; 2],
    pub chores: Sender<Chore>,
    pub round: Round,
    pub workers: usize,
    /// Jobs of each kind, sends and pushes, that may be in flight at once: one in each worker's hands and as
    /// many ready, so that no worker waits for the spool.
    pub limit: usize,
}

impl Channels {
    pub fn new(workers: usize) -> Channels {
        let limit = workers + workers.max(STOCK);
        // The spool hands out no job of a kind of which `limit` are in flight. With `send_first = off` sends
        // and pushes go through one channel, so that one has room for both kinds.
        let (sends, sends_out) = bounded(limit);
        let (pushes, pushes_out) = bounded(2 * limit);
        // Batches are counted by the reactor (R1); every job in flight comes back once; the others are counted
        // by who orders them.
        let (events, events_in) = bounded(BATCHES + 2 * limit + CHORES + SYNCS + STOPS);
        let (chores, chores_out) = bounded(CHORES + SYNCS);
        let round = Round::default();
        let inside = Inside {
            events: events_in,
            unstarted: [sends_out.clone(), pushes_out.clone()],
            sends,
            pushes,
            chores,
            round: round.clone(),
            workers,
            limit,
        };
        Channels { events, sends: sends_out, pushes: pushes_out, chores: chores_out, round, inside }
    }

    /// What the spool itself needs of them.
    pub fn inside(self) -> Inside {
        self.inside
    }
}
