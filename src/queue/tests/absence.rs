//! Files that somebody takes away, while the queue is open or while it is not.

use super::simulated::Simulated;
use super::{append, drain, new, open, openids, run_chore, run_chores};
use crate::queue::disk::Disk;
use crate::queue::{Durability, Queue, Refused, header};

fn said(queue: &mut Queue) -> Vec<String> {
    queue.damage().iter().map(|damage| damage.to_string()).collect()
}

/// Messages `m0` to `m199`, in several segments.
fn several() -> (Simulated, Queue) {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..200 {
        append(&mut queue, &format!("m{n}"));
    }
    run_chores(&mut queue);
    queue.sync_all().unwrap();
    assert!(queue.segments() > 4);
    (disk, queue)
}

#[test]
fn whichever_segment_is_taken_away_between_two_runs_is_missed_once() {
    let (disk, queue) = several();
    let segments: Vec<u64> = queue.segments.iter().map(|segment| segment.number).collect();
    drop(queue);
    for number in segments {
        let disk = disk.copy();
        disk.remove(&header::name(number)).unwrap();
        let mut queue = open(&disk);
        let damage = said(&mut queue);
        assert_eq!(damage.len(), 1, "{number}: {damage:?}");
        let expected = format!("queue segment {} is missing", header::name(number));
        assert!(damage[0].starts_with(&expected), "{damage:?}");
        let left = drain(&mut queue).len();
        assert!((1..200).contains(&left), "{left}");
        drop(queue);
        assert_eq!(said(&mut open(&disk)), [] as [&str; 0], "of {number} it was told already");
    }
}

#[test]
fn a_segment_that_was_missed_and_is_back_is_used() {
    let (disk, queue) = several();
    let name = header::name(queue.segments[2].number);
    drop(queue);
    let kept = disk.read(&name);
    disk.remove(&name).unwrap();
    assert_eq!(said(&mut open(&disk)).len(), 1);
    disk.write(&name, &kept);
    let mut queue = open(&disk);
    assert_eq!(said(&mut queue), [] as [&str; 0]);
    assert_eq!(drain(&mut queue).len(), 200);
}

#[test]
fn finished_segments_are_missed_by_nobody_in_whatever_order_they_went() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (disk, mut queue) = several();
        let mut held: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
        rng.shuffle(&mut held);
        // Those of some segments first, as they happen to come.
        let key = |message: &crate::queue::Message| {
            message.ticket().unwrap().0.segment.wrapping_mul(seed * 2 + 1) % 5
        };
        held.sort_by_key(key);
        let count = rng.usize(..held.len());
        for message in &held[..count] {
            queue.done(message.ticket().unwrap());
        }
        queue.sync_all().unwrap();
        run_chores(&mut queue);
        drop(queue);
        let mut queue = open(&disk);
        assert_eq!(said(&mut queue), [] as [&str; 0], "seed {seed}");
        assert_eq!(drain(&mut queue).len(), 200 - count);
        drop(queue);
        assert_eq!(said(&mut open(&disk)), [] as [&str; 0], "seed {seed}");
    }
}

#[test]
fn a_tail_that_is_taken_away_is_delivered_and_written_to_no_more() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..5 {
        append(&mut queue, &format!("m{n}"));
    }
    run_chores(&mut queue);
    let tail = header::name(queue.tail().number);
    disk.remove(&tail).unwrap();
    queue.sync_all().unwrap();
    let damage = said(&mut queue);
    assert!(damage.len() == 1 && damage[0].contains("has been removed"), "{damage:?}");
    append(&mut queue, "after");
    assert_ne!(header::name(queue.tail().number), tail);
    assert_eq!(openids(&drain(&mut queue)), ["m0", "m1", "m2", "m3", "m4", "after"]);
    assert_eq!(said(&mut queue), [] as [&str; 0]);
    assert!(!disk.names().contains(&tail), "it is not ours any more");
    assert_eq!(queue.segments(), 1);
}

/// Everything comes out once, whatever a process that ends now leaves to the next.
fn left(disk: &Simulated) -> Vec<String> {
    openids(&drain(&mut open(&disk.copy())))
}

#[test]
fn a_segment_in_whose_place_another_file_is_put_is_put_back_and_nothing_goes_out_again() {
    let foreign = &b"something else"[..];
    for (what, kept) in [("copy", false), ("older copy", false), ("foreign", true)] {
        for stops in [false, true] {
            let disk = Simulated::default();
            let mut queue = open(&disk);
            append(&mut queue, "m0");
            let tail = header::name(queue.tail().number);
            let older = disk.read(&tail);
            for n in 1..5 {
                append(&mut queue, &format!("m{n}"));
            }
            run_chores(&mut queue);
            let out: Vec<_> = (0..3).map(|_| queue.take(1_000).unwrap()).collect();
            queue.done(out[0].ticket().unwrap());
            queue.sync_all().unwrap();
            let there = match what {
                "copy" => disk.read(&tail),
                "older copy" => older,
                _ => foreign.to_vec(),
            };
            disk.write(&tail, &there);
            queue.done(out[1].ticket().unwrap());
            append(&mut queue, "m5");
            if stops {
                queue.sync_all().unwrap();
            } else {
                let chore = queue.order_sync().unwrap();
                run_chore(&mut queue, chore).unwrap();
                // What happens while it is being put back is not lost on the way.
                let chore = queue.chore().unwrap();
                let done = chore.run();
                queue.done(out[2].ticket().unwrap());
                queue.write_marks();
                queue.chore_done(done, 1_000).unwrap();
            }
            let damage = said(&mut queue);
            assert!(damage.len() == 1 && damage[0].contains("put back"), "{what}: {damage:?}");
            let expected = &["m2", "m3", "m4", "m5"][usize::from(!stops)..];
            assert_eq!(left(&disk), expected, "{what}");
            let bad = format!("{tail}.bad");
            assert_eq!(disk.names().contains(&bad), kept, "{what}");
            assert!(!kept || disk.read(&bad) == foreign);
            // It goes on as if nothing had been.
            append(&mut queue, "m6");
            assert_eq!(header::name(queue.tail().number), tail);
            if stops {
                queue.done(out[2].ticket().unwrap());
            }
            assert_eq!(openids(&drain(&mut queue)), ["m3", "m4", "m5", "m6"]);
            assert_eq!(left(&disk), [] as [&str; 0], "{what}");
            assert_eq!(said(&mut queue), [] as [&str; 0]);
        }
    }
}

#[test]
fn what_cannot_be_put_back_is_out_of_the_next_starts_way_and_each_crash_leaves_one_of_both() {
    for fails in 0..12 {
        let disk = Simulated::default();
        let mut queue = open(&disk);
        for n in 0..5 {
            append(&mut queue, &format!("m{n}"));
        }
        run_chores(&mut queue);
        queue.sync_all().unwrap();
        let tail = header::name(queue.tail().number);
        disk.write(&tail, &disk.read(&tail));
        let first = queue.take(1_000).unwrap();
        queue.done(first.ticket().unwrap());
        let chore = queue.order_sync().unwrap();
        run_chore(&mut queue, chore).unwrap();
        let chore = queue.chore().unwrap();
        disk.fail_in(fails);
        let done = chore.run();
        disk.fail_no_more();
        queue.chore_done(done, 1_000).unwrap();
        let damage = said(&mut queue);
        assert!(damage.len() == 1, "{damage:?}");
        let (left, rest) = (left(&disk), ["m1", "m2", "m3", "m4"]);
        match damage[0].contains("cannot be put back") {
            true => assert_eq!(left, [] as [&str; 0], "{fails}: {damage:?}"),
            false => assert_eq!(left, rest, "{fails}: {damage:?}"),
        }
        assert_eq!(openids(&drain(&mut queue)), rest);
    }
}

#[test]
fn a_file_that_is_gone_is_told_once_whatever_waits_in_it() {
    let (disk, mut queue) = several();
    let messages: Vec<_> = (0..5).map(|_| queue.take(1_000).unwrap()).collect();
    for message in &messages {
        queue.wait_until(2_000, message.ticket().unwrap().0);
    }
    let rest: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
    rest.iter().for_each(|message| queue.done(message.ticket().unwrap()));
    queue.sync_all().unwrap();
    disk.remove(&header::name(messages[0].ticket().unwrap().0.segment)).unwrap();
    assert!(queue.take(2_000).is_none());
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    assert_eq!((queue.depth(), queue.segments(), said(&mut queue).len()), (0, 1, 1));
}

#[test]
fn a_folder_that_is_moved_away_takes_nothing_in_until_it_is_back() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "before");
    run_chores(&mut queue);
    disk.move_away(true);
    queue.sync_all().unwrap();
    assert!(queue.is_astray());
    assert_eq!(queue.append(new(b"x"), 1_000), Err(Refused::NoSegment));
    // A retry goes where its message is.
    let message = queue.take(1_000).unwrap();
    queue.retry(&message, 2_000, 1_000);
    queue.commit(Durability::Now).unwrap();
    queue.order_spare(1_000);
    run_chores(&mut queue);
    assert!(queue.is_astray());
    disk.move_away(false);
    // Who syncs does not tell anybody that there is room.
    queue.sync_all().unwrap();
    assert!(queue.is_astray());
    queue.order_spare(1_000);
    run_chores(&mut queue);
    assert!(!queue.is_astray());
    append(&mut queue, "after");
    assert_eq!(drain(&mut queue).len(), 2);
}
