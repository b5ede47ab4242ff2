//! Finds openids that a list has more than once, in memory that does not grow with the list: 128 bits of each openid
//! go into one of 128 files by their value, and each file is looked through alone. The 128 bits are two SipHashes
//! under keys drawn anew each time, so nobody can prepare two openids that are taken for one; of ten million people
//! one is taken for another with a probability of 2^46 / 2^128, one in 10^24.

use super::scratch;
use std::collections::{BTreeMap, HashMap, hash_map::Entry};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

const PARTS: usize = 128;
/// Entries of a part that are kept in memory before they are written.
const HELD: usize = if cfg!(test) { 4 } else { 512 };
/// Bytes of an entry in a part's file.
const ENTRY: usize = 32;

/// Takes in the openids.
pub struct Repeats {
    folder: PathBuf,
    keys: [RandomState; 2],
    parts: Vec<Part>,
    people: u64,
}

#[derive(Default)]
struct Part {
    held: Vec<Seen>,
    file: Option<File>,
}

#[derive(Clone, Copy)]
struct Seen {
    hash: u128,
    /// Counted from 0.
    person: u64,
    line: u64,
}

/// What was found.
pub struct Found {
    /// A bit for each person.
    bits: Vec<u64>,
    pub count: u64,
    /// The lines of the first few that come again, and where each was before.
    pub first: Vec<(u64, u64)>,
}

impl Found {
    /// Whether the person was there before.
    pub fn repeats(&self, person: u64) -> bool {
        let word = usize::try_from(person / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (person % 64) & 1 == 1)
    }
}

impl Repeats {
    pub fn new(folder: &Path) -> Repeats {
        Repeats {
            folder: folder.to_owned(),
            keys: [RandomState::new(), RandomState::new()],
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            people: 0,
        }
    }

    /// The next person of the list.
    pub fn note(&mut self, openid: &str, line: u64) -> io::Result<()> {
        let [high, low] = self.keys.each_ref().map(|keys| keys.hash_one(openid));
        let hash = u128::from(high) << 64 | u128::from(low);
        let part = &mut self.parts[hash as usize % PARTS];
        part.held.push(Seen { hash, person: self.people, line });
        self.people += 1;
        match part.held.len() < HELD {
            true => Ok(()),
            false => part.spill(&self.folder),
        }
    }

    /// `few`: how many are told with their lines.
    pub fn find(self, few: usize) -> io::Result<Found> {
        let words = usize::try_from(self.people.div_ceil(64)).map_err(io::Error::other)?;
        let mut bits = vec![0; words];
        let (mut count, mut first) = (0, BTreeMap::new());
        for part in self.parts {
            let mut before: HashMap<u128, u64> = HashMap::new();
            part.each(|seen| match before.entry(seen.hash) {
                Entry::Vacant(entry) => {
                    entry.insert(seen.line);
                }
                Entry::Occupied(entry) => {
                    // Fits: there is a word for every 64 people.
                    bits[(seen.person / 64) as usize] |= 1 << (seen.person % 64);
                    count += 1;
                    first.insert(seen.line, *entry.get());
                    if first.len() > few {
                        first.pop_last();
                    }
                }
            })?;
        }
        Ok(Found { bits, count, first: first.into_iter().collect() })
    }
}

impl Part {
    /// Writes what is held to the part's file.
    fn spill(&mut self, folder: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(scratch::file(folder)?),
        };
        let mut bytes = Vec::with_capacity(self.held.len() * ENTRY);
        for seen in self.held.drain(..) {
            bytes.extend_from_slice(&seen.hash.to_le_bytes());
            bytes.extend_from_slice(&seen.person.to_le_bytes());
            bytes.extend_from_slice(&seen.line.to_le_bytes());
        }
        file.write_all(&bytes)
    }

    /// Tells all entries, in the order of people.
    fn each(self, mut tell: impl FnMut(Seen)) -> io::Result<()> {
        if let Some(mut file) = self.file {
            let count = file.stream_position()? / ENTRY as u64;
            file.rewind()?;
            let mut file = BufReader::new(file);
            let mut entry = [0; ENTRY];
            for _ in 0..count {
                file.read_exact(&mut entry)?;
                let (hash, rest) = entry.split_first_chunk().expect("invariant: 32 bytes");
                let (person, rest) = rest.split_first_chunk().expect("invariant: 16 bytes");
                let line = rest.first_chunk().expect("invariant: 8 bytes");
                tell(Seen {
                    hash: u128::from_le_bytes(*hash),
                    person: u64::from_le_bytes(*person),
                    line: u64::from_le_bytes(*line),
                });
            }
        }
        self.held.into_iter().for_each(tell);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_found_whatever_is_between() {
        let folder = tempfile::tempdir().unwrap();
        let random = fastrand::Rng::with_seed(7);
        let mut random = random;
        for people in [0, 1, 63, 64, 65, 5_000] {
            let list: Vec<u32> = (0..people).map(|_| random.u32(0..1 + people)).collect();
            let mut repeats = Repeats::new(folder.path());
            for (index, person) in list.iter().enumerate() {
                repeats.note(&person.to_string(), 2 * index as u64 + 1).unwrap();
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            let found = repeats.find(3).unwrap();
            let mut expected = Vec::new();
            for (index, person) in list.iter().enumerate() {
                let before = list[..index].iter().position(|before| before == person);
                assert_eq!(found.repeats(index as u64), before.is_some(), "{people} {index}");
                expected.extend(before.map(|before| (2 * index as u64 + 1, 2 * before as u64 + 1)));
            }
            assert_eq!(found.count, expected.len() as u64);
            assert_eq!(found.first, expected[..expected.len().min(3)]);
            assert!(!found.repeats(u64::MAX));
        }
    }
}
