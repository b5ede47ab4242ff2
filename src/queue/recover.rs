//! Opens a queue folder: finds out what each segment file is, where the tail ends and what has
//! been damaged. Runs once, before the spool thread starts. Deletes nothing and rewrites no record.
//!
//! What each crash leaves:
//! - `kill -9`: every written byte, in their order. The tail may end with the beginning of a record,
//!   which was not accepted; it is not a record, and nothing is appended behind it.
//! - power loss: of what was not synced, any page may be old or new. The tail is searched to its
//!   last byte, so records behind a lost page are found.
//! - between two steps of a rotation: an empty segment too many, which becomes the spare.

use super::disk::{Disk, Map};
use super::record::{self, Found, Record};
use super::segment::{self, BAD, HEADER, Segment, Unusable};
use super::{Damage, OpenError};
use std::collections::HashMap;

/// What recovery found.
pub struct Recovered {
    /// In order of their numbers; all but the last one in use and the empty ones behind it are sealed.
    pub segments: Vec<Segment>,
    pub queue: Option<u64>,
    pub highest_id: u64,
    /// Over segments and files set aside, so that no name is used twice.
    pub highest_number: u64,
    pub damage: Vec<Damage>,
}

pub fn recover(disk: &dyn Disk) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|error| OpenError::Folder { error })?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let kept = names.iter().filter_map(|name| segment::number(name.strip_suffix(BAD)?));
    let highest_number = kept.chain(numbers.last().copied()).max().unwrap_or(0);
    let mut damage = Vec::new();
    let mut maps = Vec::new();
    for number in numbers {
        let name = segment::name(number);
        match disk.open(&name) {
            Ok(map) => maps.push((number, map)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                set_aside(disk, number, "the file is empty".into(), &mut damage)?;
            }
            Err(error) => return Err(OpenError::Segment { name, why: error.to_string() }),
        }
    }
    let queue = majority(maps.iter().filter_map(|(_, map)| Segment::queue_of(map)));
    let mut segments = Vec::new();
    for (number, map) in maps {
        let opened = identify(disk, queue, number, map, &mut damage)?;
        segments.extend(opened);
    }
    let (mut highest_id, mut retries, mut full) = (0, Vec::new(), Vec::new());
    for (index, segment) in segments.iter_mut().enumerate() {
        if segment.sealed {
            segment.unread = segment.claimed() as i64;
            continue;
        }
        highest_id = highest_id.max(scan(segment, &mut retries, &mut damage));
        // Bytes behind the end are of a record that was cut off, or of a damaged one: nothing is
        // written over them.
        if segment.damaged || !segment.map.is_zero(segment.end) {
            full.push(index);
        }
    }
    settle(&mut segments, &retries).map_err(|error| OpenError::Folder { error })?;
    for index in full {
        segments[index].seal();
    }
    // Only the last segment in use may still grow; what follows it is empty.
    let last_used = segments.iter().rposition(Segment::is_used).unwrap_or(0);
    for segment in segments[..last_used].iter_mut().filter(|segment| !segment.sealed) {
        segment.seal();
    }
    Ok(Recovered { segments, queue, highest_id, highest_number, damage })
}

/// The id that most segments name; a single foreign file cannot take the queue over.
pub(super) fn majority(ids: impl Iterator<Item = u64>) -> Option<u64> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for id in ids {
        *votes.entry(id).or_default() += 1;
    }
    votes.into_iter().max_by_key(|(id, count)| (*count, *id)).map(|(id, _)| id)
}

fn identify(
    disk: &dyn Disk,
    queue: Option<u64>,
    number: u64,
    map: Map,
    damage: &mut Vec<Damage>,
) -> Result<Option<Segment>, OpenError> {
    let name = || segment::name(number);
    let Some(queue) = queue else {
        return set_aside(disk, number, "no header in this folder can be read".into(), damage);
    };
    // The mapping moves into the segment, so the header is looked at before.
    let complaint = match Segment::check(&map, queue, number) {
        Ok(()) => None,
        Err(Unusable::NewerVersion { version }) => {
            let why = Unusable::NewerVersion { version }.to_string();
            return Err(OpenError::Segment { name: name(), why });
        }
        Err(other) => Some(other),
    };
    let Some(complaint) = complaint else {
        return Ok(Some(Segment::open(map, queue, number)));
    };
    let savable = matches!(
        complaint,
        Unusable::NotASegment | Unusable::HeaderDamaged | Unusable::Truncated { .. }
    );
    let mut salvaged = Segment::open(map, queue, number);
    salvaged.damaged = true;
    let start = salvaged.place(HEADER);
    let size = salvaged.map.size();
    if savable && record::search(&salvaged.map, start, size).is_some() {
        salvaged.sealed = false;
        damage.push(Damage {
            segment: number,
            at: 0,
            bytes: HEADER as u64,
            why: complaint.to_string(),
        });
        return Ok(Some(salvaged));
    }
    drop(salvaged);
    set_aside(disk, number, complaint.to_string(), damage)
}

/// Gives a file of which nothing can be saved another name, so that it is kept and out of the way.
fn set_aside(
    disk: &dyn Disk,
    number: u64,
    why: String,
    damage: &mut Vec<Damage>,
) -> Result<Option<Segment>, OpenError> {
    let name = segment::name(number);
    disk.rename(&name, &format!("{name}{BAD}"))
        .and_then(|()| disk.sync_folder())
        .map_err(|error| OpenError::Segment { name, why: error.to_string() })?;
    damage.push(Damage { segment: number, at: 0, bytes: 0, why });
    Ok(None)
}

/// Marks done what a retry has taken the place of, where the crash came before that (Q4).
fn settle(segments: &mut [Segment], retries: &[Record]) -> std::io::Result<()> {
    let mut replaced = Vec::new();
    for retry in retries {
        let Some(old) = retry.replaces else { continue };
        let index = segments.binary_search_by_key(&old.segment, |segment| segment.number);
        let Ok(index) = index else { continue };
        let segment = &segments[index];
        let found = record::read(&segment.map, segment.place(old.at), segment.end);
        if matches!(found, Found::Record(record) if record.id == retry.id && !record.done) {
            replaced.push((index, old.at));
        }
    }
    if replaced.is_empty() {
        return Ok(());
    }
    // What the retries stand in may be in the page cache only.
    segments.iter().filter(|s| !s.sealed).try_for_each(|s| s.map.sync())?;
    for (index, at) in replaced {
        let segment = &mut segments[index];
        record::mark_done(&segment.map, at);
        segment.count_done();
        segment.unread -= 1;
        segment.dirty = true;
    }
    Ok(())
}

/// Finds the end of a segment that was not sealed, counts its records, collects the retries among
/// them and returns the highest id.
fn scan(segment: &mut Segment, retries: &mut Vec<Record>, damage: &mut Vec<Damage>) -> u64 {
    let size = segment.map.size();
    let (mut at, mut records, mut done, mut highest_id) = (HEADER, 0, 0, 0);
    loop {
        let place = segment.place(at);
        let found = record::read(&segment.map, place, size);
        if let Found::Record(record) = found {
            records += 1;
            done += u64::from(record.done);
            highest_id = highest_id.max(record.id);
            // Of a file that was cut off, the last record's padding may be missing.
            at = (at + record.size()).min(size);
            if record.replaces.is_some() {
                retries.push(record);
            }
            continue;
        }
        let after = segment.place(at + record::ALIGN);
        if let Some(next) = record::search(&segment.map, after, size) {
            // Reported when the cursor gets there, as in a sealed segment.
            at = next;
            continue;
        }
        if found == Found::Damaged {
            segment.damaged = true;
            let why = "the last record fails its checksum".into();
            damage.push(Damage { segment: segment.number, at, bytes: (size - at) as u64, why });
        }
        break;
    }
    segment.end = at;
    segment.unread = (records - done) as i64;
    segment.recount(records, done);
    highest_id
}
