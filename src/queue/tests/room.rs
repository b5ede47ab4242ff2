//! What the queue takes of disk, memory and descriptors, and what it does where there is no more.

use super::simulated::Simulated;
use super::{FAR, SEGMENT, append, drain, new, open, open_at, openids, options, run_chores};
use crate::queue::header::{self, HEADER};
use crate::queue::{Durability, HEAP_LIMIT, OPEN_LIMIT, Options, Progress, Queue, Refused, record};
use std::sync::Arc;

#[test]
fn due_times_take_bounded_memory() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..3 * HEAP_LIMIT {
        append(&mut queue, &n.to_string());
    }
    let messages: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
    for message in &messages {
        while queue.spare.is_none() {
            run_chores(&mut queue);
        }
        queue.retry(message, 9_000, 1_000);
    }
    queue.commit(Durability::Later).unwrap();
    queue.sync_all().unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert!(queue.take(2_000).is_none());
    assert_eq!(queue.heap.len(), HEAP_LIMIT);
    assert_eq!(drain(&mut queue).len(), 3 * HEAP_LIMIT);
}

#[test]
fn the_limit_of_bytes_holds_and_is_freed_by_finished_segments() {
    let disk = Simulated::default();
    let options = Options { max_bytes: 2 * SEGMENT, ..options() };
    let mut queue = Queue::open(Arc::new(disk.clone()), options, 1_000).unwrap();
    let mut count = 0;
    loop {
        match queue.append(new(&[7; 500]), 1_000) {
            Ok(_) => count += 1,
            Err(Refused::NoSegment) => run_chores(&mut queue),
            Err(refused) => break assert_eq!(refused, Refused::Full),
        }
    }
    queue.commit(Durability::Later).unwrap();
    assert!(queue.bytes() <= 2 * SEGMENT && queue.bytes() > 2 * SEGMENT - 600);
    assert_eq!(drain(&mut queue).len(), count);
    assert!(queue.append(new(&[7; 500]), 1_000).is_ok());
}

#[test]
fn a_message_fills_a_segment_or_is_too_large() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let mut largest = SEGMENT as usize;
    while (HEADER + record::size(largest)) as u64 > SEGMENT {
        largest -= 1;
    }
    let data = vec![b'x'; largest - 2];
    queue.append(new(&data), 1_000).unwrap();
    queue.commit(Durability::Later).unwrap();
    let larger = vec![b'x'; largest - 1];
    assert_eq!(queue.append(new(&larger), 1_000), Err(Refused::TooLarge));
    assert_eq!(queue.take(FAR).unwrap().data(), data);
}

#[test]
fn without_room_for_a_segment_marks_and_retries_go_on() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "a");
    append(&mut queue, "b");
    run_chores(&mut queue);
    queue.spare = None;
    while queue.append(new(b"x"), 1_000).is_ok() {}
    queue.commit(Durability::Later).unwrap();
    let (a, b) = (queue.take(1_000).unwrap(), queue.take(1_000).unwrap());
    queue.done(a.ticket().unwrap());
    queue.retry(&b, 5_000, 1_000);
    assert_eq!(queue.next_due(), Some(5_000), "it waits in its place");
}

#[test]
fn segments_of_another_size_are_read_too() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let sent: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for openid in &sent {
        append(&mut queue, openid);
    }
    run_chores(&mut queue);
    drop(queue);
    let options = Options { segment_size: 4 * SEGMENT, ..options() };
    let mut queue = Queue::open(Arc::new(disk.clone()), options, 2_000).unwrap();
    assert_eq!(openids(&drain(&mut queue)), sent);
}

#[test]
fn what_is_unclear_stays_so_where_there_is_no_room_for_a_retry() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "a");
    run_chores(&mut queue);
    queue.spare = None;
    while queue.append(new(b"x"), 1_000).is_ok() {}
    let mut message = {
        queue.commit(Durability::Later).unwrap();
        queue.take(5_000).unwrap()
    };
    message.mark_unclear();
    queue.retry(&message, 9_000, 5_000);
    queue.write_marks();
    assert!(queue.unsettled.is_empty(), "it waits in its place");
    drop(queue);
    let mut queue = open_at(&disk, 6_000).unwrap();
    while let Some(message) = queue.take(8_999) {
        assert_eq!((message.openid(), message.unclear_since()), (&b"o"[..], None));
    }
    let message = queue.take(9_000).unwrap();
    assert_eq!((message.openid(), message.unclear_since()), (&b"a"[..], Some(5_000)));
}

#[test]
fn retries_are_taken_whatever_the_limit_of_bytes() {
    let disk = Simulated::default();
    let options = Options { max_bytes: 2 * SEGMENT, ..options() };
    let mut queue = Queue::open(Arc::new(disk.clone()), options, 1_000).unwrap();
    run_chores(&mut queue);
    loop {
        match queue.append(new(&[7; 500]), 1_000) {
            Err(Refused::NoSegment) => run_chores(&mut queue),
            Err(refused) => break assert_eq!(refused, Refused::Full),
            Ok(_) => {}
        }
    }
    queue.commit(Durability::Later).unwrap();
    run_chores(&mut queue);
    let message = queue.take(1_000).unwrap();
    queue.retry(&message, 5_000, 1_000);
    assert_eq!(queue.unsettled.len(), 1);
    assert!(queue.bytes() > 2 * SEGMENT);
    assert_eq!(Refused::Full.to_string(), "queue full");
}

#[test]
fn a_limit_below_the_size_of_a_segment_is_not_full_for_ever() {
    let disk = Simulated::default();
    let options = Options { max_bytes: SEGMENT / 2, ..options() };
    let mut queue = Queue::open(Arc::new(disk.clone()), options, 1_000).unwrap();
    for round in 0..5 {
        run_chores(&mut queue);
        let mut count = 0;
        while queue.append(new(&[7; 500]), 1_000).is_ok() {
            count += 1;
        }
        assert_eq!(count, 3, "in round {round}");
        queue.commit(Durability::Later).unwrap();
        assert_eq!(queue.append(new(&[7; 500]), 1_000), Err(Refused::Full));
        while let Some(message) = queue.take(1_000) {
            assert_eq!(queue.append(new(&[7; 500]), 1_000), Err(Refused::Full));
            queue.done(message.ticket().unwrap());
        }
    }
    drain(&mut queue);
    assert!(queue.segments() <= 2 && disk.names().len() <= 3, "{:?}", disk.names());
}

#[test]
fn a_segment_whose_creation_was_cut_off_is_no_damage() {
    for size in [0, 100, SEGMENT as usize] {
        let disk = Simulated::default();
        let mut queue = open(&disk);
        append(&mut queue, "a");
        drop(queue);
        disk.write(&header::name(17), &vec![0; size]);
        let mut queue = open(&disk);
        assert_eq!(queue.damage(), []);
        assert_eq!(openids(&drain(&mut queue)), ["a"]);
        assert!(!disk.names().iter().any(|name| name.contains("17.seg")), "{:?}", disk.names());
    }
}

#[test]
fn a_disk_without_room_is_asked_once_a_second() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let create = |queue: &mut Queue, now| {
        let chore = queue.chore().expect("a segment to be ordered");
        disk.fail_in(0);
        let done = queue.chore_done(chore.run(), now);
        assert!(matches!(done, Ok(Progress::NoRoom(_))), "{done:?}");
    };
    create(&mut queue, 1_000);
    while queue.append(new(b"x"), 1_000).is_ok() {}
    for now in [1_000, 1_500, 1_999] {
        assert_eq!(queue.append(new(b"x"), now), Err(Refused::NoSegment));
        assert!(queue.chore().is_none(), "at {now}");
    }
    assert_eq!(queue.append(new(b"x"), 2_000), Err(Refused::NoSegment));
    create(&mut queue, 2_000);
}

#[test]
fn only_what_is_worked_on_is_open() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..2_000 {
        append(&mut queue, &n.to_string());
        if n % 100 == 0 {
            queue.sync_all().unwrap();
        }
    }
    queue.sync_all().unwrap();
    assert!(queue.segments() > 30);
    assert!(disk.open_files() <= 3, "{} are open", disk.open_files());
    assert_eq!(queue.segments.iter().map(|s| s.buffer()).filter(|size| *size > 0).count(), 1);
    drop(queue);
    let mut queue = open(&disk);
    assert!(disk.open_files() <= 3, "{} are open", disk.open_files());
    let messages: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
    for message in messages {
        queue.done(message.ticket().unwrap());
        queue.write_marks();
        assert!(disk.open_files() <= OPEN_LIMIT + 3, "{} are open", disk.open_files());
    }
    assert_eq!(queue.depth(), 0);
}

#[test]
fn what_cannot_be_opened_now_is_opened_later() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "a");
    queue.sync_all().unwrap();
    drop(queue);
    let mut queue = open(&disk);
    disk.fail_in(0);
    assert!(queue.take(1_000).is_none());
    assert_eq!((queue.damage().len(), queue.next_due()), (0, Some(2_000)));
    assert!(queue.take(1_999).is_none());
    assert_eq!(queue.take(2_000).unwrap().openid(), b"a");
}
