//! The chores that the queue leaves to other threads: creating the next segment ahead of need,
//! deleting finished ones, syncing in the background. Decides nothing.

use super::disk::{Disk, File};
use super::header;
use super::segment::Segment;
use std::io;
use std::sync::Arc;

/// One thing to do, on any thread; chores that `Queue::chore` hands out are done in their order.
pub struct Chore {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Create {
        number: u64,
        origin: u64,
        size: u64,
        now: u64,
    },
    /// A finished segment. A damaged one is kept under another name.
    Retire {
        number: u64,
        damaged: bool,
    },
    Sync(Vec<ToSync>),
}

pub(super) enum ToSync {
    Open(Arc<dyn File>),
    /// A segment whose file was closed since it was written to.
    Closed(u64),
}

/// What became of a chore, for `Queue::chore_done`.
pub struct ChoreDone(pub(super) Done);

pub(super) enum Done {
    Created(io::Result<Segment>),
    Retired(u64, io::Result<()>),
    Synced(io::Result<()>),
}

impl Chore {
    pub fn run(self) -> ChoreDone {
        let disk = &*self.disk;
        ChoreDone(match self.work {
            Work::Create { number, origin, size, now } => {
                Done::Created(create(disk, number, origin, size, now))
            }
            Work::Retire { number, damaged } => {
                let name = header::name(number);
                let retired = match damaged {
                    true => disk.rename(&name, &header::bad_name(number)),
                    false => disk.remove(&name),
                };
                Done::Retired(number, retired.and_then(|()| disk.sync_folder()))
            }
            Work::Sync(files) => Done::Synced(files.iter().try_for_each(|file| match file {
                ToSync::Open(file) => file.sync(),
                // The kernel tells who opens a file later of an error that nobody has heard of.
                ToSync::Closed(number) => match disk.open(&header::name(*number)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    opened => opened?.sync(),
                },
            })),
        })
    }
}

/// A new segment counts only when its header and its name are durable.
pub(super) fn create(
    disk: &dyn Disk,
    number: u64,
    origin: u64,
    size: u64,
    now: u64,
) -> io::Result<Segment> {
    let name = header::name(number);
    let file = disk.create(&name, size)?;
    let durable = Segment::format(Arc::clone(&file), origin, number, now).and_then(|segment| {
        file.sync()?;
        disk.sync_folder()?;
        Ok(segment)
    });
    if durable.is_err() {
        // The next try must not find this name taken.
        let _ = disk.remove(&name);
    }
    durable
}
