//! Tests of the queue: by hand, against a model, and with every kind of damage.

mod absence;
mod cancel;
mod damage;
pub(crate) mod fuzz;
mod known_cases;
mod model;
mod power;
mod room;
pub(crate) mod simulated;

use super::{Chore, Durability, Message, New, OpenError, Options, Progress, Queue, Refused};
use simulated::Simulated;
use std::sync::Arc;
use std::time::Duration;

/// Small, so that a few records fill a segment.
const SEGMENT: u64 = 4096;

const FAR: u64 = u64::MAX / 2;

fn open_at(disk: &Simulated, now: u64) -> Result<Queue, OpenError> {
    Queue::open(Arc::new(disk.clone()), options(), now)
}

fn options() -> Options {
    Options { segment_size: SEGMENT, max_bytes: 0, retry_cap: Duration::from_secs(60) }
}

fn open(disk: &Simulated) -> Queue {
    open_at(disk, 1_000).unwrap()
}

/// Does what the janitor would, until nothing is left to do.
fn run_chores(queue: &mut Queue) {
    while let Some(chore) = queue.chore() {
        run_chore(queue, chore).unwrap();
    }
}

fn run_chore(queue: &mut Queue, chore: Chore) -> std::io::Result<()> {
    match queue.chore_done(chore.run(), 1_000)? {
        Progress::NoRoom(error) | Progress::NotRetired(_, error) => Err(error),
        Progress::Nothing | Progress::Synced | Progress::Room => Ok(()),
    }
}

fn new(data: &[u8]) -> New<'_> {
    New { openid: b"o", key: b"k", data }
}

/// Appends, with the janitor at hand.
fn append(queue: &mut Queue, openid: &str) -> u64 {
    loop {
        let new = New { openid: openid.as_bytes(), key: b"key", data: b"{\"first\":\"value\"}" };
        match queue.append(new, 1_000) {
            Ok(id) => {
                queue.commit(Durability::Later).unwrap();
                return id;
            }
            Err(Refused::NoSegment) => run_chores(queue),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Takes everything there is and marks it done.
fn drain(queue: &mut Queue) -> Vec<Message> {
    let mut taken = Vec::new();
    while let Some(message) = queue.take(FAR) {
        queue.done(message.ticket().unwrap());
        taken.push(message);
        run_chores(queue);
    }
    queue.sync_all().unwrap();
    run_chores(queue);
    taken
}

fn openids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8(m.openid().to_vec()).unwrap()).collect()
}

/// Says how to run a case again if it fails.
struct Case {
    variable: &'static str,
    seed: u64,
}

impl Case {
    /// Cases from a seed drawn by chance, or from the one in the environment.
    fn series(
        variable: &'static str,
        kept: &'static [u64],
        count: u64,
    ) -> impl Iterator<Item = Case> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let first: u64 = number(variable).unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
        let count = number("MEGA_CASES").unwrap_or(count);
        let seeds = kept.iter().copied().chain(first..first + count);
        seeds.map(move |seed| Case { variable, seed })
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("to run this case again: {}={} MEGA_CASES=1", self.variable, self.seed);
        }
    }
}
