//! Single behaviours of the queue, one by one.

use super::simulated::Simulated;
use super::{FAR, SEGMENT, append, drain, open, open_at, openids, options, run_chores};
use crate::queue::header::{self, HEADER};
use crate::queue::{
    ClientMsgId, Durability, HEAP_LIMIT, New, OPEN_LIMIT, Options, Progress, Queue, Refused, record,
};
use std::sync::Arc;

fn new(data: &[u8]) -> New<'_> {
    New { openid: b"o", key: b"k", data }
}

#[test]
fn messages_come_out_in_the_order_in_which_they_went_in() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for openid in &sent {
        append(&mut queue, openid);
    }
    assert_eq!(queue.depth(), 500);
    assert!(queue.segments() > 3);
    assert_eq!(openids(&drain(&mut queue)), sent);
    assert_eq!((queue.depth(), queue.segments()), (0, 1));
}

#[test]
fn what_was_handed_out_comes_again_after_a_crash_with_the_same_id() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..10 {
        append(&mut queue, &n.to_string());
    }
    let first: Vec<_> = (0..5).map(|_| queue.take(FAR).unwrap()).collect();
    queue.done(first[2].ticket().unwrap());
    let ids: Vec<_> = first.iter().map(|message| message.client_msg_id()).collect();
    queue.commit(Durability::Later).unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!(queue.depth(), 9);
    let again = drain(&mut queue);
    assert_eq!(openids(&again), ["0", "1", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!([again[0].client_msg_id(), again[1].client_msg_id()], ids[..2]);
    assert_eq!((again[0].attempts(), again[4].attempts()), (2, 1));
}

#[test]
fn ids_are_never_used_twice_even_if_the_clock_goes_back() {
    let disk = Simulated::default();
    let mut queue = open_at(&disk, 5_000).unwrap();
    let first = append(&mut queue, "a");
    drop(queue);
    let mut queue = open_at(&disk, 1_000).unwrap();
    assert!(append(&mut queue, "b") > first);
}

#[test]
fn a_retry_waits_for_its_time_and_pins_no_segment() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "stubborn");
    let message = queue.take(1_000).unwrap();
    for n in 0..200 {
        append(&mut queue, &n.to_string());
    }
    queue.retry(&message, 5_000, 1_000);
    queue.commit(Durability::Later).unwrap();
    queue.sync_all().unwrap();
    while let Some(message) = queue.take(4_999) {
        queue.done(message.ticket().unwrap());
    }
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    assert_eq!((queue.depth(), queue.segments(), queue.next_due()), (1, 1, Some(5_000)));
    let again = queue.take(5_000).unwrap();
    assert_eq!((again.attempts(), again.client_msg_id()), (2, message.client_msg_id()));
}

#[test]
fn a_retry_survives_a_crash_before_its_old_record_is_ended() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "a");
    append(&mut queue, "b");
    let message = queue.take(1_000).unwrap();
    queue.retry(&message, 5_000, 1_000);
    queue.commit(Durability::Later).unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!(queue.depth(), 2);
    assert_eq!(openids(&drain(&mut queue)), ["b", "a"]);
}

#[test]
fn what_is_given_back_comes_first_and_is_charged_nothing() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for openid in ["a", "b", "c"] {
        append(&mut queue, openid);
    }
    let (a, b) = (queue.take(FAR).unwrap(), queue.take(FAR).unwrap());
    queue.give_back(&b);
    queue.give_back(&a);
    let messages = drain(&mut queue);
    assert_eq!(openids(&messages), ["a", "b", "c"]);
    assert!(messages.iter().all(|message| message.attempts() == 1));
}

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
fn what_is_not_written_out_yet_is_not_handed_out() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    queue.append(new(b"x"), 1_000).unwrap();
    assert!(queue.take(FAR).is_none());
    queue.commit(Durability::Later).unwrap();
    assert!(queue.take(FAR).is_some());
}

#[test]
fn a_message_keeps_the_id_that_it_was_given() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let given = ClientMsgId::new(b"order-4711_again").unwrap();
    append(&mut queue, "before");
    queue.append_as(new(b"data"), &given, 7_000).unwrap();
    queue.commit(Durability::Later).unwrap();
    let message = drain(&mut queue).pop().unwrap();
    assert_eq!((message.client_msg_id(), message.enqueued()), (given, 7_000));
    assert_eq!([message.openid(), message.key(), message.data()], [&b"o"[..], b"k", b"data"]);
    queue.append_as(new(b"data"), &given, 7_000).unwrap();
    queue.commit(Durability::Later).unwrap();
    let message = queue.take(7_000).unwrap();
    queue.retry(&message, 8_000, 7_000);
    queue.commit(Durability::Later).unwrap();
    drop(queue);
    let again = drain(&mut open_at(&disk, 9_000).unwrap()).pop().unwrap();
    assert_eq!((again.client_msg_id(), again.enqueued()), (given, 7_000));
    assert_eq!([again.openid(), again.key(), again.data()], [&b"o"[..], b"k", b"data"]);
}

#[test]
fn what_is_held_is_known_by_its_id_also_when_it_is_done() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    queue.keep_finished(true);
    let id = |n: u32| ClientMsgId::new(format!("id-{n}").as_bytes()).unwrap();
    for n in 0..100 {
        while queue.append_as(new(&[b'x'; 100]), &id(n), 1_000).is_err() {
            run_chores(&mut queue);
        }
        queue.commit(Durability::Later).unwrap();
    }
    append(&mut queue, "another");
    let messages = drain(&mut queue);
    let made = messages[100].client_msg_id();
    let asked = (50..150).map(id).chain([made]).collect();
    let held: Vec<_> = (50..100).map(id).chain([made]).collect();
    let found = queue.holding(&asked).unwrap();
    assert_eq!(found.iter().map(|held| held.id).collect::<Vec<_>>(), held);
    assert!(found.iter().all(|held| *held.openid == *b"o" || held.id == made));
    assert!(found.iter().all(|held| held.enqueued == 1_000 && held.done));
    assert!(queue.segments() > 2);
    queue.keep_finished(false);
    assert_eq!(queue.segments(), 1);
    run_chores(&mut queue);
    assert!(disk.names().len() <= 2, "{:?}", disk.names());
    assert!(!queue.holding(&asked).unwrap().iter().any(|held| held.id == id(50)));
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
    queue.commit(Durability::Later).unwrap();
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
fn ids_do_not_repeat_where_only_retries_are_left_and_the_clock_goes_back() {
    let disk = Simulated::default();
    let mut queue = open_at(&disk, 1_000).unwrap();
    append(&mut queue, "stubborn");
    let message = queue.take(1_000).unwrap();
    // As if so many messages had been taken in meanwhile.
    queue.next_id += 5 << 20;
    let mut last = 0;
    for n in 0..200 {
        last = append(&mut queue, &n.to_string());
    }
    queue.retry(&message, 2_000, 1_000);
    let own = queue.tail().number;
    while queue.tail().number == own {
        queue.commit(Durability::Now).unwrap();
        let again = queue.take(2_000).unwrap();
        match again.id() == message.id() {
            true => queue.retry(&again, 2_000, 1_000),
            false => queue.done(again.ticket().unwrap()),
        }
        run_chores(&mut queue);
    }
    queue.commit(Durability::Now).unwrap();
    while let Some(other) = queue.take(1_999) {
        queue.done(other.ticket().unwrap());
    }
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    assert_eq!((queue.depth(), queue.segments()), (1, 1));
    drop(queue);
    let mut queue = open_at(&disk, 1_000).unwrap();
    assert!(append(&mut queue, "next") > last);
}

#[test]
fn no_retry_waits_longer_than_the_cap_after_the_clock_was_set_back() {
    let (disk, day) = (Simulated::default(), 86_400_000);
    let mut queue = open_at(&disk, day).unwrap();
    append(&mut queue, "a");
    let mut message = queue.take(day).unwrap();
    message.mark_unclear();
    queue.retry(&message, day + 30_000, day);
    queue.sync_all().unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 1_000).unwrap();
    assert!(queue.take(60_999).is_none());
    assert_eq!(queue.next_due(), Some(61_000));
    let message = queue.take(61_000).unwrap();
    assert_eq!(message.unclear_since(), Some(61_000));
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
        queue.commit(Durability::Later).unwrap();
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

#[test]
fn a_mark_parts_what_was_accepted_before_from_what_came_later() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "before");
    let mark = queue.order_mark();
    append(&mut queue, "after");
    let (before, after) = (queue.take(1_000).unwrap(), queue.take(1_000).unwrap());
    queue.retry(&before, 1_001, 1_000);
    queue.commit(Durability::Now).unwrap();
    let again = queue.take(2_000).unwrap();
    assert_eq!([&before, &again, &after].map(|m| m.is_before(&mark)), [true, true, false]);
}
