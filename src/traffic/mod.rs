//! What travels between the threads, and the channels it travels in: plain data below all of them. Every
//! capacity stands here, with the reason why it is enough.

pub mod batch;
pub mod class;
pub mod job;
pub mod ledger;
pub mod line;
pub mod mailbox;

use crate::queue::{Chore, ChoreDone, Ticket};
use batch::{Batch, ReplyTo};
use crossbeam_channel::{Receiver, Sender, bounded};
use job::{Job, Outcome, Round};
use ledger::{Again, Note};
use line::Block;
use std::time::Duration;

/// Everything that can happen to the spool.
pub enum Event {
    Batch(Batch),
    Outcome(Box<Outcome>),
    Chore(ChoreDone),
    /// The failures of these are in the ledger.
    Recorded(Vec<Ticket>),
    /// Put these into the queue again, and say what came of it.
    Requeue(Vec<Again>),
    /// What became of them is in the ledger too.
    Confirmed,
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

/// Failed pushes that the ledger has not recorded yet: beyond that no push is handed out. Those in flight may
/// fail all the same.
pub const UNRECORDED: usize = 1024;

/// Batches under way to be requeued: the ledger begins the next when the last is confirmed.
const REQUEUES: usize = 1;

/// The last note: everything is marked and durable.
const LAST: usize = 1;

/// Blocks of the message log that may wait for the disk: a second's at the highest rate there is. Where the disk
/// stands still for longer the log misses lines and says how many; nobody waits for it.
const BLOCKS: usize = 512;

/// Administrators' requests to the ledger that may wait; beyond that the reactor stops reading who sends them.
pub const ASKS: usize = 4;

/// Jobs that lie ready at least, as long as there are so many.
const STOCK: usize = 32;

/// The ends of the spool's channels that others hold.
pub struct Channels {
    pub events: Sender<Event>,
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub chores: Receiver<Chore>,
    pub notes: Receiver<Note>,
    pub blocks: Receiver<Block>,
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
    pub notes: Sender<Note>,
    pub blocks: Sender<Block>,
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
        // by who orders them. Each `Recorded` is of one failure at least, and a batch to be requeued is followed
        // by its `Confirmed`.
        let unrecorded = UNRECORDED + limit;
        let (events, events_in) =
            bounded(BATCHES + 2 * limit + CHORES + SYNCS + STOPS + unrecorded + 2 * REQUEUES);
        let (notes, notes_out) = bounded(unrecorded + REQUEUES + LAST);
        let (blocks, blocks_out) = bounded(BLOCKS);
        let (chores, chores_out) = bounded(CHORES + SYNCS);
        let round = Round::default();
        let inside = Inside {
            events: events_in,
            unstarted: [sends_out.clone(), pushes_out.clone()],
            sends,
            pushes,
            chores,
            notes,
            blocks,
            round: round.clone(),
            workers,
            limit,
        };
        Channels {
            events,
            sends: sends_out,
            pushes: pushes_out,
            chores: chores_out,
            notes: notes_out,
            blocks: blocks_out,
            round,
            inside,
        }
    }

    /// What the spool itself needs of them.
    pub fn inside(self) -> Inside {
        self.inside
    }
}
