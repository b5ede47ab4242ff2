//! The chores that the queue leaves to other threads: creating the next segment ahead of need,
//! deleting finished ones, syncing in the background. Decides nothing.

use super::BLOCK;
use super::disk::{Disk, File, Identity, Whereabouts};
use super::header::{self, Header};
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
        /// The tail.
        follows: u64,
    },
    /// A finished segment.
    Retire {
        number: u64,
        end: End,
        heir: Option<Heir>,
    },
    Sync(Vec<ToSync>),
    /// Whether they are where they should be.
    Look(InUse),
    /// Somebody has put another file in the place of one that is in use.
    PutBack(PutBack),
}

/// A segment whose own file is to be in its place again: a file with the same bytes, up to `written`.
pub(super) struct PutBack {
    pub number: u64,
    pub origin: u64,
    pub ours: Arc<dyn File>,
    pub written: usize,
}

/// What becomes of the file of a finished segment.
pub(super) enum End {
    Remove,
    /// Something in it was damaged: it is kept under another name.
    SetAside,
    /// Somebody took it away already.
    Nothing,
}

/// The segment behind a finished one: it is to say which it comes after now.
pub(super) struct Heir {
    pub number: u64,
    pub follows: Option<u64>,
}

/// Segments, and their files that are open.
pub(super) type InUse = Vec<(u64, Identity)>;

pub(super) enum ToSync {
    Open(u64, Arc<dyn File>),
    /// A segment whose file was closed since it was written to.
    Closed(u64),
}

/// What became of a chore, for `Queue::chore_done`.
pub struct ChoreDone(pub(super) Done);

pub(super) enum Done {
    Created(io::Result<Segment>),
    Retired(u64, io::Result<()>),
    Synced(io::Result<Missed>),
    Looked(Missed),
    /// Of a segment of which so many bytes were written.
    PutBack(u64, usize, io::Result<Back>),
    /// A sync on the way to something else has failed, with all that follows from it.
    Failed(io::Error),
}

/// What is not where it should be.
pub(super) struct Missed {
    pub folder: bool,
    pub segments: Vec<Taken>,
}

/// A segment whose file is not in its place.
pub(super) struct Taken {
    pub number: u64,
    /// The one that was looked for.
    pub file: Identity,
    /// There is something else.
    pub replaced: bool,
}

/// The file that is in the segment's place now.
pub(super) struct Back {
    pub file: Arc<dyn File>,
    /// What stood there was no copy of the segment, and is kept.
    pub kept: bool,
}

impl Chore {
    pub fn run(self) -> ChoreDone {
        let disk = &*self.disk;
        ChoreDone(match self.work {
            Work::Create { number, origin, size, now, follows } => {
                let created = create(disk, number, origin, size, now);
                Done::Created(created.and_then(|segment| known_to_follow(segment, follows, disk)))
            }
            Work::Retire { number, end, heir } => match inherit(disk, heir) {
                Ok(file) => match file.map_or(Ok(()), |file| file.sync()) {
                    Ok(()) => Done::Retired(number, retire(disk, number, end)),
                    Err(error) => Done::Failed(error),
                },
                Err(error) => Done::Retired(number, Err(error)),
            },
            Work::Sync(files) => Done::Synced(sync(disk, files)),
            Work::Look(files) => Done::Looked(look(disk, &files)),
            Work::PutBack(work) => {
                let back = put_back(disk, &work).map_err(|error| {
                    // The next start is not to take it for ours: its messages would go out again.
                    let (name, bad) = (header::name(work.number), header::bad_name(work.number));
                    let set_aside = disk.rename(&name, &bad).and_then(|()| disk.sync_folder());
                    set_aside.map_or_else(
                        |also| io::Error::other(format!("{error}; it cannot be set aside: {also}")),
                        |()| io::Error::other(format!("{error}; it is kept as {bad}")),
                    )
                });
                Done::PutBack(work.number, work.written, back)
            }
        })
    }
}

fn sync(disk: &dyn Disk, files: Vec<ToSync>) -> io::Result<Missed> {
    let mut in_use = Vec::new();
    for file in files {
        match file {
            ToSync::Open(number, file) => {
                file.sync()?;
                in_use.push((number, file.identity()));
            }
            // The kernel tells who opens a file later of an error that nobody has heard of.
            ToSync::Closed(number) => match disk.open(&header::name(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync()?,
            },
        }
    }
    Ok(look(disk, &in_use))
}

/// Nothing is written to a file that the next start will not find, without somebody being told.
pub(super) fn look(disk: &dyn Disk, files: &InUse) -> Missed {
    let segments = files.iter().filter_map(|(number, file)| {
        let taken = |replaced| Some(Taken { number: *number, file: *file, replaced });
        match disk.whereabouts_of(&header::name(*number), *file) {
            Whereabouts::InPlace => None,
            Whereabouts::Gone => taken(false),
            Whereabouts::Replaced => taken(true),
        }
    });
    let folder = disk.whereabouts() != Whereabouts::InPlace;
    Missed { folder, segments: segments.collect() }
}

/// Whenever it ends meanwhile, the one or the other is in the place, and whole.
fn put_back(disk: &dyn Disk, work: &PutBack) -> io::Result<Back> {
    let PutBack { number, origin, ours, written } = work;
    let (name, fresh) = (header::name(*number), header::fresh_name(*number));
    match disk.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&fresh, ours.size() as u64)?;
    let copied = copy(&**ours, &*file, *written).and_then(|()| file.sync());
    let there = copied.and_then(|()| match disk.exchange(&fresh, &name) {
        Ok(()) => Ok(true),
        // It is gone again, or the file system cannot exchange.
        Err(_) => disk.rename(&fresh, &name).map(|()| false),
    });
    let there = there.inspect_err(|_| {
        let _ = disk.remove(&fresh);
    })?;
    let header = disk.open(&fresh).map(|stranger| Header::read(&stranger));
    let is_copy = header.is_ok_and(|header| header.check(*origin, *number).is_ok());
    let kept = there && !is_copy;
    // Ours is in its place: of what is left over the next start lets go.
    let _ = match kept {
        true => disk.rename(&fresh, &header::bad_name(*number)),
        false => disk.remove(&fresh),
    };
    let _ = disk.sync_folder();
    Ok(Back { file, kept })
}

fn copy(from: &dyn File, to: &dyn File, end: usize) -> io::Result<()> {
    let mut bytes = vec![0; BLOCK.min(end)];
    for at in (0..end).step_by(BLOCK) {
        let part = &mut bytes[..BLOCK.min(end - at)];
        from.read(at, part)?;
        to.write(at, part)?;
    }
    Ok(())
}

/// Q7: returns what must be durable before the file goes.
fn inherit(disk: &dyn Disk, heir: Option<Heir>) -> io::Result<Option<Arc<dyn File>>> {
    let Some(Heir { number, follows }) = heir else { return Ok(None) };
    match disk.open(&header::name(number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => {
            let file = opened?;
            file.write(header::FOLLOWS, &header::follows(follows))?;
            Ok(Some(file))
        }
    }
}

fn retire(disk: &dyn Disk, number: u64, end: End) -> io::Result<()> {
    let name = header::name(number);
    match end {
        End::Nothing => return Ok(()),
        End::Remove => disk.remove(&name)?,
        End::SetAside => disk.rename(&name, &header::bad_name(number))?,
    }
    disk.sync_folder()
}

/// The next start misses the tail, if somebody takes it away.
fn known_to_follow(mut spare: Segment, tail: u64, disk: &dyn Disk) -> io::Result<Segment> {
    let known = spare.follow(tail, disk);
    if known.is_err() {
        let _ = disk.remove(&header::name(spare.number));
    }
    known.map(|()| spare)
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
