//! Opens a queue folder: finds out what each segment file is, where the tail ends and what has
//! been damaged. Runs once, before the spool thread starts. Deletes nothing but a file in which
//! there never was anything, and changes no record but what a retry has taken the place of.
//!
//! What each end leaves:
//! - `kill -9`: every written byte, in their order. The tail may end with the beginning of a record,
//!   which was not accepted; it is not a record, and nothing is appended behind it.
//! - power loss: of what was not synced, any page may be old or new. The tail is searched to its
//!   last byte, so records behind a lost page are found.
//! - a sync that failed: pages that look written and are not. What no sync has covered is therefore
//!   written once more and synced before anybody believes it (M1). Of a sealed segment that is the
//!   marks of delivered messages at most: if they are lost, those go out again with the same
//!   client_msg_id, as after any loss of power.
//! - between two steps of a rotation: an empty segment too many, which becomes the spare, or a file
//!   of zeros, which is removed.

use super::disk::{ALIGN, Disk, File};
use super::header::{self, HEADER, Header, Unusable};
use super::reader::Reader;
use super::record::{self, Change, Found, Record};
use super::segment::Segment;
use super::{BLOCK, Damage, OpenError, Position};
use std::collections::{HashMap, HashSet};
use std::io;

/// What recovery found.
pub struct Recovered {
    /// In order of their numbers; all but the last one in use and the empty ones behind it are sealed.
    pub segments: Vec<Segment>,
    pub origin: Option<u64>,
    /// Every id that was ever given is below.
    pub ids: u64,
    /// Over segments and files set aside, so that no name is used twice.
    pub highest_number: u64,
    pub damage: Vec<Damage>,
}

pub fn recover(disk: &dyn Disk) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|error| OpenError::Folder { error })?;
    for name in names.iter().filter(|name| header::is_fresh(name)) {
        let removed = disk.remove(name);
        removed.map_err(|why| OpenError::Segment { name: name.clone(), why: why.to_string() })?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| header::number(name)).collect();
    numbers.sort_unstable();
    let kept = names.iter().filter_map(|name| header::bad_number(name));
    let present: HashSet<u64> = kept.clone().chain(numbers.iter().copied()).collect();
    let highest_number = kept.chain(numbers.last().copied()).max().unwrap_or(0);
    let mut headers = Vec::new();
    for number in numbers {
        let file = disk.open(&header::name(number)).map_err(because(number))?;
        headers.push((number, Header::read(&file)));
    }
    let origin = majority(headers.iter().filter_map(|(_, header)| header.origin()));
    let known = headers.iter().rposition(|(_, header)| header.origin().is_some());
    let mut damage = Vec::new();
    let mut segments = Vec::new();
    for (index, (number, header)) in headers.iter().enumerate() {
        // The creation of a segment was cut off: there is nothing in it.
        if known.is_none_or(|known| index > known) && is_blank(disk, *number)? {
            disk.remove(&header::name(*number)).map_err(because(*number))?;
            continue;
        }
        segments.extend(identify(disk, origin, *number, header, &mut damage)?);
    }
    let ids = headers.iter().filter(|(_, header)| header.origin().is_some());
    let mut ids = ids.map(|(_, header)| header.ids()).max().unwrap_or(0);
    let mut scanned = Vec::new();
    for (index, segment) in segments.iter_mut().enumerate() {
        if segment.sealed {
            segment.unread = segment.claimed() as i64;
            continue;
        }
        let scan = Scan::of(segment, disk, &mut damage).map_err(because(segment.number))?;
        ids = ids.max(scan.ids);
        scanned.push((index, scan));
    }
    // Only the last segment in use may still grow; what follows it is empty.
    let used = segments.iter().rposition(Segment::is_used).map_or(0, |last| last + 1);
    for (index, scan) in &scanned {
        if scan.full || index + 1 < used {
            segments[*index].seal();
        }
    }
    damage.extend(missing(&segments, &present));
    chain(disk, &mut segments[..used]).map_err(|error| OpenError::Sync { error })?;
    make_durable(disk, &mut segments, &scanned).map_err(|error| OpenError::Sync { error })?;
    Ok(Recovered { segments, origin, ids, highest_number, damage })
}

fn because(number: u64) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Segment { name: header::name(number), why: error.to_string() }
}

/// Those that another names and nobody has, whatever it is called. What stands between two of which
/// one names the other is finished, could only not be removed, and has nothing to say.
fn missing(segments: &[Segment], present: &HashSet<u64>) -> Vec<Damage> {
    let mut named = u64::MAX;
    let mut damage = Vec::new();
    for next in segments.iter().rev() {
        let Some(segment) = next.follows.filter(|_| next.number <= named) else { continue };
        named = segment;
        if segment > 0 && !present.contains(&segment) {
            damage.push(Damage::Missing { segment, next: next.number });
        }
    }
    damage
}

/// Q7, where something was missing, or is back. What nobody knows stays so.
fn chain(disk: &dyn Disk, segments: &mut [Segment]) -> io::Result<()> {
    let mut before = 0;
    for segment in segments {
        if segment.follows.is_some_and(|follows| follows != before) {
            // What cannot be said there is found out again by the next start.
            if segment.follow(before, disk).is_ok() {
                segment.open(disk)?.sync()?;
            }
            segment.dirty = false;
            segment.close();
        }
        before = segment.number;
    }
    Ok(())
}

/// The origin that most segments name; a single foreign file cannot take the queue over.
pub(super) fn majority(origins: impl Iterator<Item = u64>) -> Option<u64> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for origin in origins {
        *votes.entry(origin).or_default() += 1;
    }
    votes.into_iter().max_by_key(|(origin, count)| (*count, *origin)).map(|(origin, _)| origin)
}

fn is_blank(disk: &dyn Disk, number: u64) -> Result<bool, OpenError> {
    let file = disk.open(&header::name(number)).map_err(because(number))?;
    let size = file.size();
    Ok(Reader::new(file, size, BLOCK).is_zero(0))
}

fn identify(
    disk: &dyn Disk,
    origin: Option<u64>,
    number: u64,
    header: &Header,
    damage: &mut Vec<Damage>,
) -> Result<Option<Segment>, OpenError> {
    let Some(origin) = origin else {
        return set_aside(disk, number, "no header in this folder can be read".into(), damage);
    };
    let complaint = match header.check(origin, number) {
        Ok(()) => return Ok(Some(Segment::new(header, origin, number))),
        Err(newer @ Unusable::NewerVersion { .. }) => {
            return Err(because(number)(io::Error::other(newer.to_string())));
        }
        Err(other) => other,
    };
    let savable = matches!(
        complaint,
        Unusable::NotASegment | Unusable::HeaderDamaged | Unusable::Truncated { .. }
    );
    let mut salvaged = Segment::new(header, origin, number);
    let size = salvaged.size();
    let mut file = Reader::new(salvaged.open(disk).map_err(because(number))?, size, BLOCK);
    for version in (1..=header::VERSION).rev().take_while(|_| savable) {
        salvaged.set_version(version);
        if record::search(&mut file, salvaged.place(HEADER), size).is_some() {
            salvaged.damaged = true;
            salvaged.unseal();
            salvaged.close();
            let (bytes, why) = (HEADER as u64, complaint.to_string());
            damage.push(Damage::Part { segment: number, at: 0, bytes, why });
            return Ok(Some(salvaged));
        }
    }
    set_aside(disk, number, complaint.to_string(), damage)
}

/// Gives a file of which nothing can be saved another name, so that it is kept and out of the way.
fn set_aside(
    disk: &dyn Disk,
    number: u64,
    why: String,
    damage: &mut Vec<Damage>,
) -> Result<Option<Segment>, OpenError> {
    disk.rename(&header::name(number), &header::bad_name(number))
        .and_then(|()| disk.sync_folder())
        .map_err(because(number))?;
    damage.push(Damage::Part { segment: number, at: 0, bytes: 0, why });
    Ok(None)
}

/// What was found in a segment that is not sealed in its file.
struct Scan {
    /// Every id in it is below.
    ids: u64,
    /// Its retries that wait, as far as is known, for the record they replace to be marked.
    retries: Vec<(usize, Record)>,
    /// Nothing may be written behind its end.
    full: bool,
}

impl Scan {
    /// Finds its end, and counts its records.
    fn of(segment: &mut Segment, disk: &dyn Disk, damage: &mut Vec<Damage>) -> io::Result<Scan> {
        let size = segment.size();
        let mut file = Reader::new(segment.open(disk)?, size, BLOCK);
        let (_, marked) = segment.known();
        let (mut at, mut records, mut done) = (HEADER, 0, 0);
        let full = segment.damaged || !segment.takes_more();
        let mut scan = Scan { ids: 0, retries: Vec::new(), full };
        let mut last = Found::Nothing;
        while at < size {
            last = record::read(&mut file, segment.place(at), size);
            if let Found::Record(record) = last {
                records += 1;
                done += u64::from(record.done);
                scan.ids = scan.ids.max(record.id + 1);
                if record.replaces.is_some() && at >= marked {
                    scan.retries.push((at, record));
                }
                // Of a file that was cut off, the last record's padding may be missing.
                at = (at + record.size()).min(size);
                continue;
            }
            let after = segment.place(at + record::ALIGN);
            match record::search(&mut file, after, size) {
                // Reported when the cursor gets there, as in a sealed segment.
                Some(next) => at = next,
                None => break,
            }
        }
        segment.end = at;
        segment.counted = at;
        segment.unread = (records - done) as i64;
        segment.recount(records, done);
        // Bytes behind the end are of a record that was cut off, or of a damaged one: nothing is
        // written over them.
        scan.full &= segment.is_used() || segment.damaged;
        scan.full |= !file.is_zero(at);
        let why = match (file.unreadable(), last) {
            (Some(why), _) => format!("it cannot be read to its end: {why}"),
            (None, Found::Damaged) => "the last record fails its checksum".into(),
            (None, _) => return Ok(scan),
        };
        (segment.damaged, scan.full) = (true, true);
        damage.push(Damage::Part { segment: segment.number, at, bytes: (size - at) as u64, why });
        Ok(scan)
    }
}

/// How often what is not durable is written, and synced, before the disk counts as broken.
const TRIES: usize = 3;

/// Restores M1 for what was scanned, and Q4: marks done what a retry has taken the place of, where
/// the end came before that was sure. Each step is on the disk before the next.
fn make_durable(
    disk: &dyn Disk,
    segments: &mut [Segment],
    scanned: &[(usize, Scan)],
) -> io::Result<()> {
    for (index, _) in scanned {
        let segment = &mut segments[*index];
        let file = segment.open(disk)?;
        let (durable, _) = segment.known();
        // After a failed sync a file system may have lost with what it could not write what stood
        // before it, too, and was covered by an earlier one: then all of it is written again.
        // The header is in the first block.
        let until = if durable < segment.end { segment.end } else { 1 };
        let mut tries = TRIES;
        loop {
            rewrite(&*file, until)?;
            tries -= 1;
            match file.sync_with_metadata() {
                Ok(()) => break,
                // It may tell of errors of the past that nobody has heard of.
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }
    let replaced = replaced(segments, scanned, disk)?;
    let mut marked: Vec<usize> = replaced.iter().map(|(index, ..)| *index).collect();
    marked.dedup();
    for (index, at, done) in replaced {
        let segment = &mut segments[index];
        if !done {
            segment.unread -= 1;
            segment.count_done();
        }
        // The mark may be there and not on the disk, so it is written in any case.
        segment.mark(at, Change::Done);
    }
    for index in marked {
        let segment = &mut segments[index];
        let file = segment.open(disk)?;
        let _ = file.sync();
        // With an open file an error means that the disk refuses what stands there.
        segment.damaged |= segment.write_marks(disk).is_err();
        file.sync()?;
        segment.dirty = false;
        segment.close();
    }
    for (index, _) in scanned {
        let segment = &mut segments[*index];
        // What cannot be said in the file is found out again by the next start.
        let _ = segment.recovered(disk);
        segment.close();
    }
    Ok(())
}

/// Writes the blocks up to this byte over themselves, so that the next sync means it. What cannot be
/// read is left alone.
fn rewrite(file: &dyn File, until: usize) -> io::Result<()> {
    let mut at = 0;
    let end = until.next_multiple_of(ALIGN).min(file.size());
    let mut bytes = vec![0; BLOCK.max(ALIGN).min(end)];
    while at < end {
        let length = bytes.len().min(end - at);
        let mut part = &mut bytes[..length];
        if file.read(at, part).is_err() {
            part = &mut part[..length.min(ALIGN)];
            if file.read(at, part).is_err() {
                at += part.len();
                continue;
            }
        }
        file.write_anew(at, part)?;
        at += part.len();
    }
    Ok(())
}

/// Where the records stand that retries have taken the place of, and whether they say so: by the
/// place that a retry names, and among the retries of one message by its id. In order.
fn replaced(
    segments: &mut [Segment],
    scanned: &[(usize, Scan)],
    disk: &dyn Disk,
) -> io::Result<Vec<(usize, usize, bool)>> {
    let mut found = Vec::new();
    let mut latest: HashMap<u64, (usize, usize, bool)> = HashMap::new();
    let retries = scanned
        .iter()
        .flat_map(|(index, scan)| scan.retries.iter().map(|(at, record)| (*index, *at, record)));
    let mut targets: Vec<(Position, u64)> = Vec::new();
    for (index, at, record) in retries {
        targets.extend(record.replaces.map(|old| (old, record.id)));
        found.extend(latest.insert(record.id, (index, at, record.done)));
    }
    targets.sort_unstable();
    for near in targets.chunk_by(|(one, _), (next, _)| one.segment == next.segment) {
        let number = near[0].0.segment;
        let index = segments.binary_search_by_key(&number, |segment| segment.number);
        let Ok(index) = index else { continue };
        let segment = &mut segments[index];
        let was_open = segment.file().is_some();
        let mut file = Reader::new(segment.open(disk)?, segment.end, record::HEAD);
        for (old, id) in near {
            if old.at >= HEADER
                && let Found::Record(record) =
                    record::read(&mut file, segment.place(old.at), segment.end)
                && record.id == *id
            {
                found.push((index, old.at, record.done));
            }
        }
        if !was_open {
            segment.close();
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
