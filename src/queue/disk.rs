//! The few file operations the queue needs, as a trait so that tests can put a simulated disk in
//! their place: one that forgets unsynced bytes or fails on demand. Used by the spool thread and
//! the janitor; decides nothing.
//!
//! Files are read and written through the kernel, never through a mapping: what the disk cannot
//! read, and what somebody cut off, is then an error to handle and not a signal that ends the
//! process. Many records travel in one call, so it costs no more.

use crate::file;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One folder of files. Names are plain file names in it.
pub trait Disk: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist and really allocates `size` zero bytes.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// What `write_anew` writes starts and ends at multiples of it: the largest block of usual disks.
pub const ALIGN: usize = 4096;

/// An open file.
pub trait File: Send + Sync {
    /// Bytes it had when it was opened.
    fn size(&self) -> usize;

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
    /// Open on the folder itself: carries the lock and is what `sync_folder` syncs.
    handle: std::fs::File,
    read_only: bool,
}

impl Folder {
    /// Opens and locks the folder, which must exist.
    pub fn lock(path: &Path) -> io::Result<Folder> {
        let handle = std::fs::File::open(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder { path: path.to_owned(), handle, read_only: false }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
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
}

impl Opened {
    fn of(file: std::fs::File) -> io::Result<Arc<dyn File>> {
        let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Arc::new(Opened { file, size }))
    }
}

impl File for Opened {
    fn size(&self) -> usize {
        self.size
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
            Err(rustix::io::Errno::NXIO) => return None,
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
        for entry in std::fs::read_dir(&self.path)? {
            // Every name of ours is ASCII; others are not ours to touch.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o640).open(&path)?;
        let made = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)
            .map_err(io::Error::from)
            .and_then(|()| Opened::of(file));
        if made.is_err() {
            // The next try must not find this name taken; what is left all the same is known for
            // what it is at the next start.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let access = if self.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = file::open(&self.path.join(name), access, 0)?;
        let held = file.metadata()?;
        if !self.read_only && held.blocks() * 512 < held.len() {
            // A copy with holes: there must be room for marking a message done on a full disk.
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, held.len())?;
        }
        Opened::of(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}
