//! A disk in memory that forgets what was not synced when the power goes, and fails on demand.

use crate::queue::disk::{Backing, Disk, Map};
use fastrand::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

enum Change {
    Appears(String, Arc<File>),
    Vanishes(String),
}

struct File {
    size: usize,
    memory: Box<[AtomicU64]>,
    /// None until the first sync: then even its length may be lost.
    durable: Mutex<Option<Vec<u8>>>,
}

impl File {
    fn with(bytes: &[u8]) -> Arc<File> {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            AtomicU64::new(u64::from_ne_bytes(word))
        });
        Arc::new(File {
            size: bytes.len(),
            memory: words.collect(),
            durable: Mutex::new(Some(bytes.to_vec())),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let words = self.memory.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(self.size);
        bytes
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            let mut word = self.memory[at / 8].load(Ordering::Relaxed).to_ne_bytes();
            word[at % 8] = *byte;
            self.memory[at / 8].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    fn after_power_loss(&self, loss: Loss, rng: &mut Rng) -> Vec<u8> {
        let new = self.bytes();
        let Some(mut bytes) = self.durable.lock().clone() else {
            return if rng.bool() { Vec::new() } else { vec![0; self.size] };
        };
        if let Loss::Torn = loss {
            for at in (0..self.size).step_by(SECTOR) {
                if rng.bool() {
                    let sector = at..(at + SECTOR).min(self.size);
                    bytes[sector.clone()].copy_from_slice(&new[sector]);
                }
            }
        }
        bytes
    }
}

struct Handle {
    disk: Simulated,
    file: Arc<File>,
}

impl Backing for Handle {
    /// One that fails has come half the way.
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let done = self.disk.operation();
        let there = if done.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.file.write(at, &bytes[..there]);
        done
    }

    fn next_data(&self, at: usize) -> Option<Range<usize>> {
        (at < self.file.size).then_some(at..self.file.size)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operation()?;
        *self.file.durable.lock() = Some(self.file.bytes());
        Ok(())
    }
}

impl Simulated {
    /// The `n`-th operation from now on fails, counted from 0.
    pub fn fail_in(&self, n: u64) {
        self.0.lock().fails_in = Some(n);
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

    fn map(&self, file: Arc<File>) -> Map {
        let (start, size) = (file.memory.as_ptr().cast_mut().cast(), file.size);
        let backing = Box::new(Handle { disk: self.clone(), file });
        // SAFETY: the words are aligned, at least `size` bytes long, and owned by the backing.
        unsafe { Map::new(start, size, backing) }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Arc<File>>) {
        match self {
            Change::Appears(name, file) => names.insert(name.clone(), Arc::clone(file)),
            Change::Vanishes(name) => names.remove(name),
        };
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.operation()?;
        Ok(self.names())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Map> {
        self.operation()?;
        if self.0.lock().names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File::with(&vec![0; size as usize]);
        *file.durable.lock() = None;
        self.change(Change::Appears(name.into(), Arc::clone(&file)));
        Ok(self.map(file))
    }

    fn open(&self, name: &str) -> io::Result<Map> {
        self.operation()?;
        let file = self.0.lock().names.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        if file.size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.map(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation()?;
        let file = self.0.lock().names.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Appears(to.into(), file));
        self.change(Change::Vanishes(from.into()));
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

    fn sync_folder(&self) -> io::Result<()> {
        self.operation()?;
        let mut state = self.0.lock();
        state.journal.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}
