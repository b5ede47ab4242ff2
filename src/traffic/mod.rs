//! What travels between the threads, and the channels it travels in: plain data below all of them. Every
//! capacity stands here, with the reason why it is enough.

pub mod batch;
pub mod job;
pub mod ledger;
pub mod line;
pub mod mailbox;
pub mod steer;

pub(crate) use crate::class;
use crate::config::Config;
use crate::queue::{Chore, ChoreDone, Ticket};
use batch::{Batch, ReplyTo};
use crossbeam_channel::{Receiver, Sender, bounded};
use job::{Job, Outcome, Round};
use ledger::{Again, Note};
use line::Block;
use std::sync::Arc;
use std::time::Duration;
use steer::{STEERS, Steer};

/// Everything that can happen to the spool.
pub enum Event {
    Batch(Batch),
    Outcome(Box<Outcome>),
    Chore(ChoreDone),
    /// The failures of these are in the ledger; so many of them were cancelled.
    Recorded {
        tickets: Vec<Ticket>,
        cancelled: usize,
    },
    /// The answer to `Note::Last`: what is not recorded cannot be, and the next run will record it.
    Kept,
    /// Put these into the queue again, and say what came of it.
    Requeue(Vec<Again>),
    /// What became of them is in the ledger too.
    Confirmed,
    Configure(Configure),
    /// An administrator's order; `Mail::Steered` answers it.
    Steer(Box<Steer>),
    /// Hand nothing out any more and end when the workers have brought back what they hold.
    Stop {
        within: Duration,
    },
}

/// The store is asked for one template.
pub struct Tset {
    pub to: ReplyTo,
    pub key: Box<[u8]>,
}

/// The store is asked for all templates, as this configuration has them.
pub struct Reload {
    pub config: Arc<Config>,
    /// Told when they are in the table, or why they are not, and nothing has changed.
    pub done: Box<dyn FnOnce(Result<Changed, String>) + Send>,
}

/// What a reload has made of the templates.
#[derive(Debug, Clone)]
pub struct Changed {
    /// So many are in the table now.
    pub templates: usize,
    /// So many have another text than before, those included that are gone.
    pub changed: usize,
    /// The keys of those.
    pub gone: Vec<String>,
}

/// The spool is to go by this configuration.
pub struct Configure {
    pub config: Arc<Config>,
    /// Told when it does.
    pub done: Box<dyn FnOnce() + Send>,
}

/// Templates asked for that may wait; beyond that the reactor stops reading the clients that send them.
pub const TSETS: usize = 1024;

/// Reloads under way at most: main begins the next when everybody goes by the last.
pub const RELOADS: usize = 1;

/// Batches the reactor may have under way.
pub const BATCHES: usize = 16;

/// Orders to stop: one, and one not to wait any longer.
const STOPS: usize = 2;

/// Chores and syncs under way at most: the spool orders the next of each when it has heard of the last.
const CHORES: usize = 1;
const SYNCS: usize = 1;

/// Failed pushes that the ledger has not recorded yet: beyond that no push is handed out. Those in flight may
/// fail all the same.
pub const UNRECORDED: usize = 1024;

/// Batches under way to be requeued: the ledger begins the next when the last is confirmed.
const REQUEUES: usize = 1;

/// The last notes, that nothing more will fail and that everything is marked, and the answer to the first.
const LAST: usize = 2;
const KEPT: usize = 1;

/// Blocks of the message log that may wait for the disk: a second's at the highest rate there is. Where the disk
/// stands still for longer the log misses lines and says how many; nobody waits for it.
const BLOCKS: usize = 512;

/// Administrators' requests to the ledger that may wait; beyond that the reactor stops reading who sends them.
pub const ASKS: usize = 4;

/// Lists of changed templates that may wait for the ledger: one comes of each reload or tset that changes a text. What
/// finds no room is missing in the history, and nobody waits for it.
pub const CHANGES: usize = 64;

/// Jobs that lie ready at least, as long as there are so many.
const STOCK: usize = 32;

/// The channels have room for four times as many workers as the daemon is started with, for so many at least, and
/// for no more than can be configured.
const GROWTH: usize = 4;
const LEAST_ROOM: usize = 64;
const MOST_ROOM: usize = 1024;

/// The ends of the spool's channels that others hold.
pub struct Channels {
    pub events: Sender<Event>,
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub chores: Receiver<Chore>,
    pub syncs: Receiver<Chore>,
    pub notes: Receiver<Note>,
    pub blocks: Receiver<Block>,
    pub round: Round,
    /// Whoever takes one out is a worker no longer. There are no more than workers.
    pub dismissals: (Sender<()>, Receiver<()>),
    /// Whoever takes one out, for all of them, looks at what a reload has changed. One is enough.
    pub nudges: (Sender<()>, Receiver<()>),
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
    pub syncs: Sender<Chore>,
    pub notes: Sender<Note>,
    pub blocks: Sender<Block>,
    pub round: Round,
    pub workers: usize,
    /// See `limit`.
    pub limit: usize,
}

/// The workers that a daemon started with so many may come to have.
pub fn most_workers(workers: usize) -> usize {
    (GROWTH * workers).clamp(LEAST_ROOM, MOST_ROOM)
}

/// Jobs of each kind, sends and pushes, that may be in flight at once: one in each worker's hands and as many
/// ready, so that no worker waits for the spool.
pub fn limit(workers: usize) -> usize {
    workers + workers.max(STOCK)
}

/// Failed pushes that the ledger has not recorded yet, those included that fail in flight.
pub fn unrecorded(workers: usize) -> usize {
    UNRECORDED + limit(workers)
}

impl Channels {
    pub fn new(workers: usize) -> Channels {
        let most = most_workers(workers);
        let limit = limit(most);
        let dismissals = bounded(most);
        // The spool hands out no job of a kind of which `limit` are in flight. With `send_first = off` sends
        // and pushes go through one channel, so that one has room for both kinds.
        let (sends, sends_out) = bounded(limit);
        let (pushes, pushes_out) = bounded(2 * limit);
        // Batches are counted by the reactor (R1), and so are orders to steer; every job in flight comes back once; the others are counted
        // by who orders them. Each `Recorded` is of one failure at least, and a batch to be requeued is followed
        // by its `Confirmed`.
        let unrecorded = unrecorded(most);
        let (events, events_in) = bounded(
            RELOADS
                + BATCHES
                + 2 * limit
                + CHORES
                + SYNCS
                + STOPS
                + STEERS
                + unrecorded
                + KEPT
                + 2 * REQUEUES,
        );
        let (notes, notes_out) = bounded(unrecorded + REQUEUES + LAST);
        let (blocks, blocks_out) = bounded(BLOCKS);
        let (chores, chores_out) = bounded(CHORES);
        let (syncs, syncs_out) = bounded(SYNCS);
        let round = Round::default();
        let inside = Inside {
            events: events_in,
            unstarted: [sends_out.clone(), pushes_out.clone()],
            sends,
            pushes,
            chores,
            syncs,
            notes,
            blocks,
            round: round.clone(),
            workers,
            limit: self::limit(workers),
        };
        Channels {
            events,
            sends: sends_out,
            pushes: pushes_out,
            chores: chores_out,
            syncs: syncs_out,
            notes: notes_out,
            blocks: blocks_out,
            round,
            dismissals,
            nudges: bounded(1),
            inside,
        }
    }

    /// What the spool itself needs of them.
    pub fn inside(self) -> Inside {
        self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Message, New};

    fn job() -> Job {
        let message = Message::in_memory(1, 1, 0, New { openid: b"o", key: b"k", data: b"" }, b"");
        Job { message, waiting: None, probe: false, round: 0 }
    }

    #[test]
    fn the_spools_events_have_room_for_all_that_can_be_under_way_and_no_more() {
        for workers in [1, 8, 100, 1024] {
            let channels = Channels::new(workers);
            let events = channels.events.clone();
            // A reload may make it so many.
            let limit = limit(most_workers(workers));
            let outcome =
                || Event::Outcome(Box::new(Outcome { job: job(), verdict: None, called: None }));
            let expected = [
                (BATCHES, &(|| Event::Batch(Batch::default())) as &dyn Fn() -> Event),
                (2 * limit, &outcome),
                (CHORES + SYNCS, &outcome),
                (RELOADS, &|| {
                    let config = Config::demo(std::path::Path::new("/nowhere")).unwrap();
                    Event::Configure(Configure { config: Arc::new(config), done: Box::new(|| {}) })
                }),
                (STOPS + STEERS, &|| Event::Stop { within: Duration::ZERO }),
                (UNRECORDED + limit, &|| Event::Recorded { tickets: Vec::new(), cancelled: 0 }),
                (KEPT, &|| Event::Kept),
                (REQUEUES, &|| Event::Requeue(Vec::new())),
                (REQUEUES, &|| Event::Confirmed),
            ];
            for (count, event) in expected {
                (0..count).for_each(|_| assert!(events.try_send(event()).is_ok()));
            }
            assert!(events.try_send(outcome()).is_err());
        }
    }

    #[test]
    fn a_reload_may_multiply_the_workers_and_channels_for_many_are_no_larger_than_can_be_configured()
     {
        let most = [1, 8, 16, 17, 255, 256, 1024].map(most_workers);
        assert_eq!(most, [64, 64, 64, 68, 1020, 1024, 1024]);
        let inside = Channels::new(8).inside();
        assert_eq!((inside.workers, inside.limit), (8, 40));
    }

    #[test]
    fn sends_and_pushes_have_room_each_on_its_own_and_both_in_one_channel() {
        let inside = Channels::new(1).inside();
        let limit = limit(most_workers(1));
        for (channel, room) in [(&inside.sends, limit), (&inside.pushes, 2 * limit)] {
            (0..room).for_each(|_| assert!(channel.try_send(job()).is_ok()));
            assert!(channel.try_send(job()).is_err());
        }
    }
}
