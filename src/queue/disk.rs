//! The few file operations the queue needs, as a trait so that tests can put a simulated disk in
//! their place: one that forgets unsynced bytes or fails on demand. Used by the spool thread and
//! the janitor; decides nothing.
//!
//! Files are read and written through the kernel, never through a mapping: what the disk cannot
//! read, and what somebody cut off, is then an error to handle and not a signal that ends the
//! process. Many records travel in one call, so it costs no more.

use crate::file;
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom, Stat,
};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What tells a file or folder from all others: its device and its number there.
pub type Identity = (u64, u64);

/// Where something is that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In its place, as far as can be found out.
    InPlace,
    /// Nothing goes by its name.
    Gone,
    /// Something else goes by its name.
    Replaced,
}

/// One folder of files. Names are plain file names in it.
pub trait Disk: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist and really allocates `size` zero bytes.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Each gets the other's file, at one stroke.
    fn exchange(&self, one: &str, other: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Where the folder is; all that is done in it is done there.
    fn whereabouts(&self) -> Whereabouts;
    /// Where the file is that was opened by this name.
    fn whereabouts_of(&self, name: &str, file: Identity) -> Whereabouts;
}

/// What `write_anew` writes starts and ends at multiples of it: the largest block of usual disks.
pub const ALIGN: usize = 4096;

/// An open file.
pub trait File: Send + Sync {
    /// Bytes it had when it was opened.
    fn size(&self) -> usize;

    fn identity(&self) -> Identity;

    /// Fills `bytes`; where the file ends before, or the disk refuses, that is an error.
    fn read(&self, at: usize, bytes: &mut [u8]) -> io::Result<()>;

    /// A process that is killed in the middle leaves the first of these bytes written, and the rest
    /// as they were.
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()>;

    /// Writes what is there already so that it really gets to the disk. What a file system failed to
    /// write for the first time it may take for written where it is, and go on writing it to a place
    /// that the file does not know of, as ext4 does: so this goes past the page cache, where that is
    /// possible. Starts at a multiple of `ALIGN`, and ends at one or at the file's end.
    fn write_anew(&self, at: usize, bytes: &[u8]) -> io::Result<()>;

    /// Returns when every byte written before the call is on the disk. After an error nobody knows
    /// what is: the kernel forgets what it could not write, and the next call may succeed.
    fn sync(&self) -> io::Result<()>;

    /// The same, with all that the file system knows of the file: where its bytes are may have been
    /// lost as they were, and is written again only by this.
    fn sync_with_metadata(&self) -> io::Result<()>;

    /// The next part from `at` on that may hold anything but zeros, if there is one.
    fn next_data(&self, at: usize) -> Option<Range<usize>>;
}

/// A folder on the real disk, locked against a second daemon.
pub struct Folder {
    path: PathBuf,
    /// Open on the folder itself: carries the lock and is what `sync_folder` syncs. Files are looked
    /// for in it, wherever it was moved.
    handle: std::fs::File,
    read_only: bool,
}

impl Folder {
    /// Opens and locks the folder, which must exist.
    pub fn lock(path: &Path) -> io::Result<Folder> {
        let handle = std::fs::File::open(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder { path: path.to_owned(), handle, read_only: false }),
            Err(Errno::WOULDBLOCK) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another mega owns this queue folder",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the folder for reading only, beside a daemon that may own it.
    pub fn read_only(path: &Path) -> io::Result<Folder> {
        Ok(Folder { path: path.to_owned(), handle: std::fs::File::open(path)?, read_only: true })
    }
}

struct Opened {
    file: std::fs::File,
    size: usize,
    identity: Identity,
}

impl Opened {
    fn of(file: std::fs::File) -> io::Result<Arc<dyn File>> {
        let found = file.metadata()?;
        let size = usize::try_from(found.len()).map_err(io::Error::other)?;
        Ok(Arc::new(Opened { file, size, identity: (found.dev(), found.ino()) }))
    }
}

impl File for Opened {
    fn size(&self) -> usize {
        self.size
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn read(&self, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at as u64)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)
    }

    fn write_anew(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let name = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let Ok(direct) = rustix::fs::open(name, flags, Mode::empty()) else {
            // A file system in memory, or one that has no such way.
            return self.write(at, bytes);
        };
        let mut buffer = vec![0; bytes.len() + ALIGN];
        let start = buffer.as_ptr().align_offset(ALIGN);
        let aligned = &mut buffer[start..start + bytes.len()];
        aligned.copy_from_slice(bytes);
        match std::fs::File::from(direct).write_all_at(aligned, at as u64) {
            // The last bytes of a file that was cut off are no whole block.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.write(at, bytes),
            done => done,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_with_metadata(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// What was allocated and never written is a hole to the kernel. A file system that cannot tell
    /// calls the whole file data, which costs only time.
    fn next_data(&self, at: usize) -> Option<Range<usize>> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at as u64)) {
            Ok(start) => start as usize,
            Err(Errno::NXIO) => return None,
            Err(_) => return (at < self.size).then_some(at..self.size),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start as u64));
        // The file may be longer than when it was opened.
        let end = end.map_or(self.size, |end| self.size.min(end as usize));
        (start < end).then_some(start..end)
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            // Every name of ours is ASCII; others are not ours to touch.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(0o640))?;
        let file = std::fs::File::from(file);
        let made = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)
            .map_err(io::Error::from)
            .and_then(|()| Opened::of(file));
        if made.is_err() {
            // The next try must not find this name taken; what is left all the same is known for
            // what it is at the next start.
            let _ = self.remove(name);
        }
        made
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let access = if self.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = file::open_at(&self.handle, Path::new(name), access, 0)?;
        let held = file.metadata()?;
        if !self.read_only && held.blocks() * 512 < held.len() {
            // A copy with holes: there must be room for marking a message done on a full disk.
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, held.len())?;
        }
        Opened::of(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
    }

    fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        let (folder, flags) = (&self.handle, RenameFlags::EXCHANGE);
        Ok(rustix::fs::renameat_with(folder, one, folder, other, flags)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())?)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn whereabouts(&self) -> Whereabouts {
        let Ok(own) = rustix::fs::fstat(&self.handle) else { return Whereabouts::InPlace };
        whereabouts(rustix::fs::stat(&self.path), (own.st_dev, own.st_ino))
    }

    fn whereabouts_of(&self, name: &str, file: Identity) -> Whereabouts {
        whereabouts(rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW), file)
    }
}

fn whereabouts(found: rustix::io::Result<Stat>, wanted: Identity) -> Whereabouts {
    match found {
        Ok(found) if (found.st_dev, found.st_ino) == wanted => Whereabouts::InPlace,
        Ok(_) => Whereabouts::Replaced,
        Err(Errno::NOENT | Errno::NOTDIR) => Whereabouts::Gone,
        Err(_) => Whereabouts::InPlace,
    }
}
