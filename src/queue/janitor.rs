//! The chores that the queue leaves to the janitor thread: creating the next segment ahead of
//! need, deleting finished ones, syncing in the background. Decides nothing.

use super::disk::{Disk, Map};
use super::segment::{self, Segment};
use std::io;
use std::sync::Arc;

/// One thing to do. The queue hands them out in order.
pub enum Chore {
    Create {
        number: u64,
        queue: u64,
        size: u64,
        now: u64,
    },
    /// A finished segment. A damaged one is kept under another name.
    Retire {
        number: u64,
        damaged: bool,
    },
    Sync(Vec<Arc<Map>>),
}

/// What became of a chore.
pub enum ChoreDone {
    Created(io::Result<Segment>),
    Retired(u64, io::Result<()>),
    Synced(io::Result<()>),
}

pub fn run(disk: &dyn Disk, chore: Chore) -> ChoreDone {
    match chore {
        Chore::Create { number, queue, size, now } => {
            ChoreDone::Created(create(disk, number, queue, size, now))
        }
        Chore::Retire { number, damaged } => {
            let name = segment::name(number);
            let retired = match damaged {
                true => disk.rename(&name, &format!("{name}{}", segment::BAD)),
                false => disk.remove(&name),
            };
            ChoreDone::Retired(number, retired.and_then(|()| disk.sync_folder()))
        }
        Chore::Sync(maps) => ChoreDone::Synced(maps.iter().try_for_each(|map| map.sync())),
    }
}

/// A new segment counts only when its header and its name are durable.
pub fn create(
    disk: &dyn Disk,
    number: u64,
    queue: u64,
    size: u64,
    now: u64,
) -> io::Result<Segment> {
    let name = segment::name(number);
    let map = disk.create(&name, size)?;
    let durable = Segment::format(map, queue, number, now).and_then(|segment| {
        segment.map.sync()?;
        disk.sync_folder()?;
        Ok(segment)
    });
    if durable.is_err() {
        // The next try must not find this name taken.
        let _ = disk.remove(&name);
    }
    durable
}
