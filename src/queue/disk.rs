//! The few file operations the queue needs, as a trait so that tests can put a simulated disk in
//! their place: one that forgets unsynced bytes or fails on demand. Used by the spool thread and
//! the janitor; decides nothing.
//!
//! The only module that hands out raw memory: a `Map` is a whole file mapped shared. Its bytes are
//! reached through the few methods here, each of which states why it is sound.

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// One folder of files. Names are plain file names in it.
pub trait Disk: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, really allocates `size` zero bytes and maps them.
    fn create(&self, name: &str, size: u64) -> io::Result<Map>;
    /// Maps the whole of an existing file; one of no bytes is an error of kind `UnexpectedEof`.
    fn open(&self, name: &str) -> io::Result<Map>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// The file behind a mapping.
pub trait Backing: Send + Sync {
    /// Writes through the file, which the mapping shows at once. A process that is killed in the
    /// middle leaves the first of these bytes written, and the rest as they were.
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()>;

    /// Returns when every byte written or stored before the call is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// The next part from `at` on that may hold anything but zeros, if there is one.
    fn next_data(&self, at: usize) -> Option<Range<usize>>;
}

/// A whole file in memory, shared with the disk.
///
/// Many bytes are written through the file and few are stored through the mapping: a store into a
/// page costs a fault, and one more flush of every processor's TLB each time the page is synced.
///
/// Invariant M1: bytes are written by one thread at a time, and only where nothing was written
/// before; what is written is changed only through the atomic methods.
pub struct Map {
    start: *mut u8,
    size: usize,
    backing: Box<dyn Backing>,
}

// SAFETY: the memory belongs to the backing, which is Send + Sync and lives as long as the map;
// by M1 there is one writer, and readers only look at written bytes.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// # Safety
    /// `start..start + size` must stay valid and 8-byte aligned as long as `backing` lives.
    pub unsafe fn new(start: *mut u8, size: usize, backing: Box<dyn Backing>) -> Map {
        Map { start, size, backing }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// See `Backing::write`.
    pub fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at <= self.size && bytes.len() <= self.size - at);
        self.backing.write(at, bytes)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.backing.sync()
    }

    /// See `Backing::next_data`.
    pub fn next_data(&self, at: usize) -> Option<Range<usize>> {
        self.backing.next_data(at)
    }

    /// Nothing was ever written from `at` on.
    pub fn is_zero(&self, mut at: usize) -> bool {
        while let Some(data) = self.next_data(at) {
            at = data.end;
            if self.bytes(data).iter().any(|byte| *byte != 0) {
                return false;
            }
        }
        true
    }

    /// Bytes that are not written to any more, or that the one writer reads itself.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.size);
        // SAFETY: in bounds by the assertion, initialised because files are; not written while
        // the slice lives by M1.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// Eight bytes, little-endian as the whole format.
    pub fn load(&self, at: usize) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Relaxed))
    }

    /// Stores one counter of the file in place.
    pub fn put_word(&self, at: usize, value: u64) {
        self.word(at).store(value.to_le(), Ordering::Relaxed);
    }

    /// Stores one byte in place, seen by everybody.
    pub fn put_byte(&self, at: usize, value: u8) {
        assert!(at < self.size);
        // SAFETY: in bounds; only ever accessed atomically once written.
        unsafe { AtomicU8::from_ptr(self.start.add(at)) }.store(value, Ordering::Relaxed);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at <= self.size && self.size - at >= 8);
        // SAFETY: in bounds and aligned by the assertion and `new`'s contract.
        unsafe { AtomicU64::from_ptr(self.start.add(at).cast()) }
    }
}

/// A folder on the real disk, locked against a second daemon.
pub struct Folder {
    path: PathBuf,
    /// Open on the folder itself: carries the lock and is what `sync_folder` syncs.
    handle: File,
    read_only: bool,
}

impl Folder {
    /// Opens and locks the folder, which must exist.
    pub fn lock(path: &Path) -> io::Result<Folder> {
        let handle = File::open(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder { path: path.to_owned(), handle, read_only: false }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another mega owns this queue folder",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the folder for reading only, beside a daemon that may own it. Storing into one of its
    /// maps ends the process.
    pub fn read_only(path: &Path) -> io::Result<Folder> {
        Ok(Folder { path: path.to_owned(), handle: File::open(path)?, read_only: true })
    }

    fn map(&self, file: File) -> io::Result<Map> {
        let size = file.metadata()?.len();
        if size == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let options = MmapOptions::new();
        let memory = match self.read_only {
            true => options.map_raw_read_only(&file)?,
            false => options.map_raw(&file)?,
        };
        let start = memory.as_mut_ptr();
        let backing = Box::new(Mapped { file, memory });
        // SAFETY: the mapping is page-aligned, `size` bytes long and owned by the backing.
        Ok(unsafe { Map::new(start, size, backing) })
    }
}

struct Mapped {
    file: File,
    memory: MmapRaw,
}

impl Backing for Mapped {
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)
    }

    /// On Linux fdatasync also writes what was stored through a shared mapping.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// What was allocated and never written is a hole to the kernel. A file system that cannot tell
    /// calls the whole file data, which costs only time.
    fn next_data(&self, at: usize) -> Option<Range<usize>> {
        let size = self.memory.len();
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at as u64)) {
            Ok(start) => start as usize,
            Err(rustix::io::Errno::NXIO) => return None,
            Err(_) => return (at < size).then_some(at..size),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start as u64));
        // The file may be longer than when it was mapped.
        let end = end.map_or(size, |end| size.min(end as usize));
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

    fn create(&self, name: &str, size: u64) -> io::Result<Map> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o640).open(&path)?;
        let mapped = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)
            .map_err(io::Error::from)
            .and_then(|()| self.map(file));
        if mapped.is_err() {
            // Half a file would be taken for a damaged one at the next start.
            let _ = std::fs::remove_file(&path);
        }
        mapped
    }

    fn open(&self, name: &str) -> io::Result<Map> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(!self.read_only).open(self.path.join(name))?;
        let held = file.metadata()?;
        if !self.read_only && held.blocks() * 512 < held.len() {
            // A copy with holes: storing into one on a full disk would be SIGBUS.
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, held.len())?;
        }
        self.map(file)
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
