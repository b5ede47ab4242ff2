//! A disk in memory that forgets what was not synced when the power goes, and fails on demand.

use crate::queue::disk::{self, Disk, Identity, Whereabouts};
use fastrand::Rng;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What a loss of power does to bytes that were not synced.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    /// All of them are gone.
    Whole,
    /// Of each sector either the old or the new bytes are there, whatever was written first.
    Torn,
}

#[derive(Default, Clone)]
pub struct Simulated(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: BTreeMap<String, Arc<File>>,
    durable_names: BTreeMap<String, Arc<File>>,
    /// Changes of names since the folder was synced, in their order, as a journal keeps them.
    journal: Vec<Change>,
    /// Operations until one fails.
    fails_in: Option<u64>,
    open: Arc<()>,
    moved: bool,
}

enum Change {
    Appears(String, Arc<File>),
    Vanishes(String),
    Exchange((String, Arc<File>), (String, Arc<File>)),
}

struct File {
    /// What it had when it was made.
    size: usize,
    bytes: Mutex<Bytes>,
}

struct Bytes {
    /// What everybody sees.
    cache: Vec<u8>,
    /// What a loss of power leaves. None until the first sync: then even its length may be lost.
    durable: Option<Vec<u8>>,
    /// Sectors of which the next sync will write what the cache holds. A sync that fails forgets
    /// them, and the cache is none the wiser.
    dirty: BTreeSet<usize>,
    /// Sectors that a sync has failed to write for the first time: the file system takes them for written
    /// where they are, and what goes through the cache never finds its way into the file.
    stuck: BTreeSet<usize>,
    /// Sectors that cannot be read, nor written in part.
    spoilt: BTreeSet<usize>,
}

fn sectors(at: usize, length: usize) -> impl Iterator<Item = usize> {
    at / SECTOR..(at + length).div_ceil(SECTOR)
}

impl File {
    fn with(bytes: &[u8]) -> Arc<File> {
        let bytes = Bytes {
            cache: bytes.to_vec(),
            durable: Some(bytes.to_vec()),
            dirty: BTreeSet::new(),
            stuck: BTreeSet::new(),
            spoilt: BTreeSet::new(),
        };
        Arc::new(File { size: bytes.cache.len(), bytes: Mutex::new(bytes) })
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().cache.clone()
    }

    fn after_power_loss(&self, loss: Loss, rng: &mut Rng) -> Vec<u8> {
        let bytes = self.bytes.lock();
        let Some(mut left) = bytes.durable.clone() else {
            return if rng.bool() { Vec::new() } else { vec![0; self.size] };
        };
        if let Loss::Torn = loss {
            for sector in bytes.dirty.iter().filter(|_| rng.bool()) {
                bytes.write_back(*sector, &mut left);
            }
        }
        left
    }
}

impl Bytes {
    fn write_back(&self, sector: usize, durable: &mut Vec<u8>) {
        durable.resize(self.cache.len(), 0);
        if self.stuck.contains(&sector) {
            return;
        }
        let sector = sector * SECTOR..((sector + 1) * SECTOR).min(self.cache.len());
        durable[sector.clone()].copy_from_slice(&self.cache[sector]);
    }

    /// Nothing of it was ever made durable.
    fn is_new(&self, sector: usize) -> bool {
        let durable = self.durable.as_deref().unwrap_or_default();
        let sector = sector * SECTOR..((sector + 1) * SECTOR).min(durable.len());
        durable.get(sector).is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0))
    }

    fn is_spoilt(&self, at: usize, length: usize) -> bool {
        sectors(at, length).any(|sector| self.spoilt.contains(&sector))
    }
}

struct Handle {
    disk: Simulated,
    file: Arc<File>,
    /// Counted by whoever holds one.
    _open: Arc<()>,
}

impl disk::File for Handle {
    fn size(&self) -> usize {
        self.file.bytes.lock().cache.len()
    }

    fn identity(&self) -> Identity {
        identity(&self.file)
    }

    fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.file.bytes.lock();
        if bytes.is_spoilt(at, into.len()) {
            return Err(io::Error::other("simulated unreadable sector"));
        }
        let there = bytes.cache.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(there);
        Ok(())
    }

    /// One that fails has come half the way.
    fn write(&self, at: usize, new: &[u8]) -> io::Result<()> {
        let done = self.disk.operation();
        let there = if done.is_ok() { new.len() } else { new.len() / 2 };
        let mut bytes = self.file.bytes.lock();
        if bytes.is_spoilt(at, there) {
            return Err(io::Error::other("simulated unreadable sector"));
        }
        let end = bytes.cache.len().max(at + there);
        bytes.cache.resize(end, 0);
        bytes.cache[at..at + there].copy_from_slice(&new[..there]);
        bytes.dirty.extend(sectors(at, there));
        done
    }

    fn next_data(&self, at: usize) -> Option<Range<usize>> {
        let size = self.file.bytes.lock().cache.len();
        (at < size).then_some(at..size)
    }

    fn sync_with_metadata(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        let done = self.disk.operation();
        let mut bytes = self.file.bytes.lock();
        let dirty = std::mem::take(&mut bytes.dirty);
        if done.is_ok() {
            let mut durable = bytes.durable.take().unwrap_or_default();
            durable.resize(bytes.cache.len(), 0);
            dirty.into_iter().for_each(|sector| bytes.write_back(sector, &mut durable));
            bytes.durable = Some(durable);
        } else {
            let stuck: Vec<usize> = dirty.into_iter().filter(|at| bytes.is_new(*at)).collect();
            bytes.stuck.extend(stuck);
        }
        done
    }

    fn write_anew(&self, at: usize, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.file.bytes.lock();
        let written: BTreeSet<usize> = sectors(at, new.len()).collect();
        bytes.stuck.retain(|sector| !written.contains(sector));
        drop(bytes);
        self.write(at, new)
    }
}

impl Simulated {
    /// The `n`-th operation from now on fails, counted from 0.
    pub fn fail_in(&self, n: u64) {
        self.0.lock().fails_in = Some(n);
    }

    /// Somebody moves the folder away, or back.
    pub fn move_away(&self, away: bool) {
        self.0.lock().moved = away;
    }

    /// One is still to fail.
    pub fn is_failing(&self) -> bool {
        self.0.lock().fails_in.is_some()
    }

    pub fn fail_no_more(&self) {
        self.0.lock().fails_in = None;
    }

    fn operation(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        match state.fails_in {
            Some(0) => {
                state.fails_in = None;
                Err(io::Error::other("simulated failure"))
            }
            Some(n) => {
                state.fails_in = Some(n - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What is there after the power has come back: every map of before is meaningless.
    pub fn lose_power(&self, loss: Loss, rng: &mut Rng) -> Simulated {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        for change in state.journal.iter().take(rng.usize(..=state.journal.len())) {
            change.apply(&mut names);
        }
        let mut files = BTreeMap::new();
        for (name, file) in names {
            files.insert(name, File::with(&file.after_power_loss(loss, rng)));
        }
        Simulated::of(files)
    }

    /// A copy on which anything can be tried.
    pub fn copy(&self) -> Simulated {
        let state = self.0.lock();
        let files =
            state.names.iter().map(|(name, file)| (name.clone(), File::with(&file.bytes())));
        Simulated::of(files.collect())
    }

    fn of(files: BTreeMap<String, Arc<File>>) -> Simulated {
        let state = State { names: files.clone(), durable_names: files, ..State::default() };
        Simulated(Arc::new(Mutex::new(state)))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        self.0.lock().names[name].bytes()
    }

    /// Puts a file there as if it had always been there.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let file = File::with(bytes);
        let mut state = self.0.lock();
        state.names.insert(name.into(), Arc::clone(&file));
        state.durable_names.insert(name.into(), file);
    }

    fn change(&self, change: Change) {
        let mut state = self.0.lock();
        change.apply(&mut state.names);
        state.journal.push(change);
    }

    /// Changes bytes under the hands of who has the file open.
    pub fn poke(&self, name: &str, at: usize, new: &[u8]) {
        let mut bytes = self.file(name).bytes.lock().cache.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        self.file(name).bytes.lock().cache = bytes;
    }

    pub fn truncate(&self, name: &str, size: usize) {
        self.file(name).bytes.lock().cache.truncate(size);
    }

    /// The sector can be neither read nor changed any more.
    pub fn spoil(&self, name: &str, at: usize) {
        self.file(name).bytes.lock().spoilt.insert(at / SECTOR);
    }

    fn file(&self, name: &str) -> Arc<File> {
        Arc::clone(&self.0.lock().names[name])
    }

    fn handle(&self, file: Arc<File>) -> Arc<dyn disk::File> {
        let open = Arc::clone(&self.0.lock().open);
        Arc::new(Handle { disk: self.clone(), file, _open: open })
    }

    /// Files that somebody has open.
    pub fn open_files(&self) -> usize {
        Arc::strong_count(&self.0.lock().open) - 1
    }
}

fn identity(file: &Arc<File>) -> Identity {
    (0, Arc::as_ptr(file) as u64)
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Arc<File>>) {
        match self {
            Change::Appears(name, file) => names.insert(name.clone(), Arc::clone(file)),
            Change::Vanishes(name) => names.remove(name),
            Change::Exchange(one, other) => {
                names.extend([one.clone(), other.clone()]);
                None
            }
        };
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.operation()?;
        Ok(self.names())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn disk::File>> {
        self.operation()?;
        if self.0.lock().names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File::with(&vec![0; size as usize]);
        file.bytes.lock().durable = None;
        self.change(Change::Appears(name.into(), Arc::clone(&file)));
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn disk::File>> {
        self.operation()?;
        let file = self.0.lock().names.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation()?;
        let file = self.0.lock().names.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Appears(to.into(), file));
        self.change(Change::Vanishes(from.into()));
        Ok(())
    }

    fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        self.operation()?;
        let file = |name| self.0.lock().names.get(name).cloned().ok_or(io::ErrorKind::NotFound);
        let (first, second) = (file(one)?, file(other)?);
        self.change(Change::Exchange((one.into(), second), (other.into(), first)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operation()?;
        if !self.0.lock().names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Vanishes(name.into()));
        Ok(())
    }

    fn whereabouts(&self) -> Whereabouts {
        if self.0.lock().moved { Whereabouts::Gone } else { Whereabouts::InPlace }
    }

    fn whereabouts_of(&self, name: &str, file: Identity) -> Whereabouts {
        match self.0.lock().names.get(name) {
            Some(found) if identity(found) == file => Whereabouts::InPlace,
            Some(_) => Whereabouts::Replaced,
            None => Whereabouts::Gone,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.operation()?;
        let mut state = self.0.lock();
        state.journal.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}
