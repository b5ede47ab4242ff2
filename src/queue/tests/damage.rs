//! Known errors: one test for each way in which a file can be wrong.

use super::simulated::Simulated;
use super::{append, drain, open, openids, run_chores};
use crate::queue::disk::Disk;
use crate::queue::header::{self, HEADER};
use crate::queue::record::HEAD;
use crate::queue::{Damage, OpenError, Queue};

/// Three segments with messages `m0` to `m59` and a spare one; the process has ended.
fn folder() -> (Simulated, Vec<String>) {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let sent = (0..60).map(|n| format!("m{n}")).collect::<Vec<_>>();
    for openid in &sent {
        append(&mut queue, openid);
    }
    run_chores(&mut queue);
    queue.sync_all().unwrap();
    assert_eq!(queue.segments(), 2);
    (disk, sent)
}

fn segments(disk: &Simulated) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

fn damaged(disk: &Simulated, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read(name);
    change(&mut bytes);
    disk.write(name, &bytes);
}

struct Found {
    openids: Vec<String>,
    damage: Vec<String>,
    bad: Vec<String>,
}

/// Opens, delivers everything, and checks that the queue works on.
fn recover(disk: &Simulated) -> Found {
    let mut queue = open(disk);
    let mut delivered = openids(&drain(&mut queue));
    append(&mut queue, "afterwards");
    delivered.extend(openids(&drain(&mut queue)));
    // Whatever was counted has ended, or is known to be lost.
    assert_eq!(queue.found() + 1, delivered.len() as u64 + queue.lost());
    assert_eq!(delivered.pop().as_deref(), Some("afterwards"));
    assert_eq!(queue.depth(), 0);
    let damage = queue.damage().iter().map(|damage| damage.to_string()).collect();
    // The tail's turn comes when it is full.
    for n in 0..80 {
        append(&mut queue, &n.to_string());
    }
    assert_eq!(drain(&mut queue).len(), 80);
    let bad = disk.names().into_iter().filter(|name| name.ends_with(".bad")).collect();
    Found { openids: delivered, damage, bad }
}

fn record_size() -> usize {
    crate::queue::record::size("m10".len() + "key".len() + "{\"first\":\"value\"}".len())
}

#[test]
fn any_flipped_byte_costs_at_most_the_record_it_is_in() {
    let (disk, sent) = folder();
    for name in segments(&disk) {
        let bytes = disk.read(&name);
        for at in (0..HEADER + 3 * record_size()).chain(bytes.len() - 200..bytes.len()) {
            for flip in [0x01, 0x80, 0x55] {
                let copy = disk.copy();
                damaged(&copy, &name, |bytes| bytes[at] ^= flip);
                let found = recover(&copy);
                let missing = sent.iter().filter(|openid| !found.openids.contains(openid)).count();
                assert!(missing <= 1, "{name}, byte {at}: {missing} are missing");
                assert!(found.openids.iter().all(|openid| sent.contains(openid)));
                assert!(missing == 0 || found.damage.len() == 1, "{name}, byte {at}: in silence");
                assert!(found.bad.len() == found.damage.len(), "{name}, byte {at}: not kept");
            }
        }
    }
}

#[test]
fn a_zeroed_page_costs_the_records_in_it() {
    let (disk, sent) = folder();
    for name in &segments(&disk)[..2] {
        for at in [HEADER, 512, 900] {
            let copy = disk.copy();
            damaged(&copy, name, |bytes| bytes[at..at + 512].fill(0));
            let found = recover(&copy);
            let missing = sent.len() - found.openids.len();
            assert!((1..=512 / record_size() + 2).contains(&missing), "{missing} are missing");
            assert_eq!((found.damage.len(), found.bad.len()), (1, 1), "{name} at {at}");
        }
    }
}

#[test]
fn a_length_that_points_anywhere_is_skipped() {
    let (disk, _) = folder();
    let name = &segments(&disk)[0];
    for length in [0, 1, 63, 4096, u32::MAX / 2, u32::MAX] {
        let copy = disk.copy();
        let at = HEADER + 2 * record_size() + 24;
        damaged(&copy, name, |bytes| bytes[at..at + 4].copy_from_slice(&length.to_le_bytes()));
        let found = recover(&copy);
        assert_eq!((found.openids.len(), found.damage.len(), found.bad.len()), (59, 1, 1));
    }
}

/// The last segment with records, and the offset behind its last record.
fn tail(disk: &Simulated) -> (String, usize) {
    let name = segments(disk)[1].clone();
    let bytes = disk.read(&name);
    let mut end = HEADER;
    while bytes[end..end + 8] != [0; 8] {
        end += record_size();
    }
    (name, end)
}

/// As kill -9 in the middle of a write leaves it.
#[test]
fn a_write_that_was_cut_off_anywhere_leaves_whole_records_and_no_damage() {
    let (disk, sent) = folder();
    let (tail, end) = tail(&disk);
    let whole = disk.read(&tail);
    for cut in end - 3 * record_size()..end {
        let copy = disk.copy();
        damaged(&copy, &tail, |bytes| bytes[cut..].fill(0));
        let found = recover(&copy);
        // A record may lack what was zero anyway.
        let missing =
            whole[cut..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let missing = missing.div_ceil(record_size());
        assert_eq!(found.openids, sent[..sent.len() - missing], "cut at {cut}");
        assert_eq!((found.damage, found.bad), (vec![], vec![]), "cut at {cut}");
    }
}

#[test]
fn damage_to_the_very_last_record_is_told_from_a_write_that_was_cut_off() {
    let (disk, sent) = folder();
    let (tail, end) = tail(&disk);
    for at in end - record_size()..end {
        for flip in [0x01, 0x80, 0x55] {
            let copy = disk.copy();
            damaged(&copy, &tail, |bytes| bytes[at] ^= flip);
            let found = recover(&copy);
            let missing = sent.len() - found.openids.len();
            let start = end - record_size();
            let skipped = format!("{} bytes at offset {start} skipped", 4096 - start);
            let told = || found.damage.len() == 1 && found.damage[0].contains(&skipped);
            assert!(missing == 0 || told(), "byte {at}: {:?}", found.damage);
        }
    }
}

#[test]
fn a_truncated_segment_loses_what_was_cut_off() {
    let (disk, sent) = folder();
    for name in &segments(&disk)[..2] {
        for size in [HEADER + 10 * record_size(), HEADER + 10 * record_size() + 20] {
            let copy = disk.copy();
            damaged(&copy, name, |bytes| bytes.truncate(size));
            let found = recover(&copy);
            assert!(found.openids.len() < sent.len());
            assert!(found.openids.len() >= 10);
            assert!(found.damage[0].contains("of its 4096 bytes"), "{:?}", found.damage);
            assert_eq!(found.bad, [format!("{name}.bad")]);
        }
    }
}

#[test]
fn a_segment_too_short_for_anything_is_set_aside() {
    for (size, why) in [(0, "the file is empty"), (5, "too few"), (HEADER - 1, "too few")] {
        let (disk, sent) = folder();
        let name = &segments(&disk)[0];
        damaged(&disk, name, |bytes| bytes.truncate(size));
        let found = recover(&disk);
        assert!(found.openids.len() < sent.len());
        assert!(found.damage[0].contains(why), "{:?}", found.damage);
        assert_eq!(found.bad, [format!("{name}.bad")]);
    }
}

#[test]
fn a_missing_segment_is_told_and_the_others_go_on() {
    let (disk, sent) = folder();
    let names = segments(&disk);
    let others = Simulated::default();
    for name in &names[1..] {
        others.write(name, &disk.read(name));
    }
    let found = recover(&others);
    assert!(sent.ends_with(&found.openids) && !found.openids.is_empty());
    assert!(
        found.damage.len() == 1 && found.damage[0].contains("is missing"),
        "{:?}",
        found.damage
    );
}

#[test]
fn a_foreign_file_is_set_aside_and_other_names_are_left_alone() {
    let (disk, sent) = folder();
    disk.write(&header::name(77), &b"what somebody copied here by mistake ".repeat(100));
    disk.write("notes.txt", b"do not touch");
    let found = recover(&disk);
    assert_eq!(found.openids, sent);
    assert!(found.damage[0].contains("does not begin as a segment does"), "{:?}", found.damage);
    assert_eq!(found.bad, [format!("{}.bad", header::name(77))]);
    assert_eq!(disk.read("notes.txt"), b"do not touch");
}

#[test]
fn a_segment_of_another_queue_or_number_is_set_aside() {
    let (disk, sent) = folder();
    let (other, _) = folder();
    let names = segments(&disk);
    disk.write(&header::name(70), &other.read(&names[0]));
    disk.write(&header::name(71), &disk.read(&names[0]));
    let found = recover(&disk);
    assert_eq!(found.openids, sent);
    assert!(found.damage[0].contains("belongs to another queue"), "{:?}", found.damage);
    assert!(found.damage[1].contains("says it is segment"), "{:?}", found.damage);
    assert_eq!(found.bad.len(), 2);
}

#[test]
fn a_newer_format_is_left_alone_and_named() {
    let (disk, _) = folder();
    let name = &segments(&disk)[0];
    damaged(&disk, name, |bytes| {
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    });
    let before = disk.names();
    match super::open_at(&disk, 1_000) {
        Err(OpenError::Segment { name: named, why }) => {
            assert_eq!(&named, name);
            assert!(why.contains("version 3 is newer"), "{why}");
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(disk.names(), before);
}

#[test]
fn a_folder_of_which_no_header_is_left_starts_anew_and_keeps_the_files() {
    let (disk, _) = folder();
    let names = segments(&disk);
    for name in &names {
        damaged(&disk, name, |bytes| bytes[..HEADER].fill(0));
    }
    let found = recover(&disk);
    assert_eq!(found.openids, [] as [&str; 0]);
    // In the spare one there was nothing else.
    assert_eq!(found.bad.len(), names.len() - 1);
}

#[test]
fn damage_that_happens_while_the_daemon_runs_is_found_at_the_hand_out() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..10 {
        append(&mut queue, &format!("m{n}"));
    }
    disk.poke(&segments(&disk)[0], HEADER + 3 * record_size() + HEAD, b"?");
    assert_eq!(drain(&mut queue).len(), 9);
    let (at, bytes) = (HEADER + 3 * record_size(), record_size() as u64);
    let why = "records that fail their checksum".into();
    assert_eq!(queue.damage(), [Damage::Part { segment: 1, at, bytes, why }]);
}

/// Of a sector that cannot be read no other record is lost, and the file is kept; so it is where what
/// became of a message cannot be written.
#[test]
fn an_unreadable_sector_costs_the_records_in_it() {
    for running in [true, false] {
        for at in [0, HEADER, 1_000, 2_000] {
            let (disk, sent) = folder();
            let name = segments(&disk)[0].clone();
            let mut queue = running.then(|| open(&disk));
            disk.spoil(&name, at);
            let mut found = Found { openids: vec![], damage: vec![], bad: vec![] };
            if let Some(queue) = &mut queue {
                found.openids = openids(&drain(queue));
                found.damage = queue.damage().iter().map(|damage| damage.to_string()).collect();
                found.bad = disk.names().into_iter().filter(|n| n.ends_with(".bad")).collect();
            } else {
                found = recover(&disk);
            }
            let missing = sent.len() - found.openids.len();
            assert!(missing <= 4096 / record_size() + 2, "{at}: {missing} are missing");
            assert!(!found.damage.is_empty() || at == 0, "{at}: in silence");
            assert!(found.damage.is_empty() || found.bad == [format!("{name}.bad")]);
        }
    }
}

#[test]
fn what_is_cut_off_while_the_daemon_runs_is_damage() {
    let (disk, sent) = folder();
    let names = segments(&disk);
    let mut queue = open(&disk);
    let held: Vec<_> = (0..3).map(|_| queue.take(1_000).unwrap()).collect();
    disk.truncate(&names[0], HEADER + 10);
    disk.truncate(&names[1], HEADER + record_size() * 2);
    held.iter().for_each(|message| queue.done(message.ticket().unwrap()));
    let left = drain(&mut queue).len();
    assert!(left < sent.len() && queue.damage().len() >= 2);
    append(&mut queue, "afterwards");
    assert_eq!(drain(&mut queue).len(), 1);
    assert_eq!(queue.depth(), 0);
}

/// A queue of which all is done but the first message, which waits until 2,000.
fn one_that_waits() -> (Simulated, Queue) {
    let (disk, _) = folder();
    let mut queue = open(&disk);
    let messages: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
    for message in &messages[1..] {
        queue.done(message.ticket().unwrap());
    }
    queue.wait_until(2_000, messages[0].ticket().unwrap().0);
    queue.sync_all().unwrap();
    (disk, queue)
}

#[test]
fn a_damaged_record_that_waits_for_its_time_pins_no_segment() {
    let (disk, mut queue) = one_that_waits();
    assert_eq!((queue.depth(), queue.segments()), (1, 2));
    disk.poke(&segments(&disk)[0], HEADER + HEAD, b"?");
    assert!(queue.take(2_000).is_none());
    queue.sync_all().unwrap();
    assert_eq!((queue.depth(), queue.segments(), queue.damage().len()), (0, 1, 1));
}

#[test]
fn a_record_that_waits_for_its_time_in_a_file_that_goes_is_damage() {
    let (disk, mut queue) = one_that_waits();
    disk.remove(&segments(&disk)[0]).unwrap();
    assert!(queue.take(2_000).is_none());
    assert_eq!((queue.depth(), queue.next_due()), (0, None));
    let damage: Vec<_> = queue.damage().iter().map(|damage| damage.to_string()).collect();
    assert!(damage.len() == 1 && damage[0].contains("the file is gone"), "{damage:?}");
}

/// As version 1 wrote it: one record, its head laid out by hand.
#[test]
fn what_an_older_version_wrote_is_read_and_nothing_is_added_to_it() {
    let disk = Simulated::default();
    let (origin, number) = (0xAB_u64, 1_u64);
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(b"MEGAQSEG");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&128_u32.to_le_bytes());
    for (index, word) in [number, origin, 1_000, 4096].into_iter().enumerate() {
        bytes[16 + 8 * index..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    let at = HEADER;
    bytes[at + 4] = 0x0F;
    bytes[at + 6..at + 8].copy_from_slice(&0x526D_u16.to_le_bytes());
    for (index, length) in [8_u32, 6, 1, 0].into_iter().enumerate() {
        bytes[at + 8 + 4 * index..][..4].copy_from_slice(&length.to_le_bytes());
    }
    for (index, word) in [0, 7_u64 << 20, 900, 2_000, 950].into_iter().enumerate() {
        bytes[at + 24 + 8 * index..][..8].copy_from_slice(&word.to_le_bytes());
    }
    bytes[at + HEAD..at + HEAD + 8].copy_from_slice(b"openidkd");
    let mut hasher = crc32fast::Hasher::new();
    for word in [origin, number, at as u64] {
        hasher.update(&word.to_le_bytes());
    }
    hasher.update(&bytes[at + 8..at + HEAD + 8]);
    bytes[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.write(&header::name(number), &bytes);

    let mut queue = open(&disk);
    assert!(queue.take(1_999).is_none());
    append(&mut queue, "new");
    let (new, old) = (queue.take(1_999).unwrap(), queue.take(2_000).unwrap());
    assert_eq!(new.openid(), b"new");
    assert_eq!([old.openid(), old.key(), old.data()], [&b"openid"[..], b"k", b"d"]);
    assert_eq!((old.unclear_since(), old.enqueued(), queue.damage().len()), (Some(950), 900, 0));
    assert_eq!(old.client_msg_id().as_str(), "00000000000000ab0000000000700000");
    queue.retry(&old, 3_000, 2_000);
    queue.done(new.ticket().unwrap());
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    assert_eq!(disk.names().iter().filter(|name| **name == header::name(number)).count(), 0);
    assert_eq!(queue.take(3_000).unwrap().openid(), b"openid");
}
