//! Single behaviours of the queue, one by one.

use super::simulated::Simulated;
use super::{FAR, SEGMENT, append, drain, open, open_at, openids, run_chores};
use crate::queue::{ClientMsgId, HEAP_LIMIT, New, Options, Queue, Refused, segment_size_for};

fn new(data: &[u8]) -> New<'_> {
    New { openid: b"o", key: b"k", data }
}

#[test]
fn messages_come_out_in_the_order_in_which_they_went_in() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for openid in &sent {
        append(&mut queue, &disk, openid);
    }
    assert_eq!(queue.depth(), 500);
    assert!(queue.segments() > 3);
    assert_eq!(openids(&drain(&mut queue, &disk)), sent);
    assert_eq!((queue.depth(), queue.segments()), (0, 1));
}

#[test]
fn what_was_handed_out_comes_again_after_a_crash_with_the_same_id() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..10 {
        append(&mut queue, &disk, &n.to_string());
    }
    let first: Vec<_> = (0..5).map(|_| queue.take(FAR).unwrap()).collect();
    queue.done(first[2].ticket().unwrap());
    let ids: Vec<_> = first.iter().map(|message| message.client_msg_id()).collect();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!(queue.depth(), 9);
    let again = drain(&mut queue, &disk);
    assert_eq!(openids(&again), ["0", "1", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!([again[0].client_msg_id(), again[1].client_msg_id()], ids[..2]);
    assert_eq!((again[0].attempts(), again[4].attempts()), (2, 1));
}

#[test]
fn ids_are_never_used_twice_even_if_the_clock_goes_back() {
    let disk = Simulated::default();
    let mut queue = open_at(&disk, 5_000).unwrap();
    let first = append(&mut queue, &disk, "a");
    drop(queue);
    let mut queue = open_at(&disk, 1_000).unwrap();
    assert!(append(&mut queue, &disk, "b") > first);
}

#[test]
fn a_retry_waits_for_its_time_and_pins_no_segment() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, &disk, "stubborn");
    let message = queue.take(1_000).unwrap();
    for n in 0..200 {
        append(&mut queue, &disk, &n.to_string());
    }
    queue.retry(&message, 5_000, 1_000);
    queue.write_out().unwrap();
    queue.sync_all().unwrap();
    while let Some(message) = queue.take(4_999) {
        queue.done(message.ticket().unwrap());
    }
    run_chores(&mut queue, &disk);
    assert_eq!((queue.depth(), queue.segments(), queue.next_due()), (1, 1, Some(5_000)));
    let again = queue.take(5_000).unwrap();
    assert_eq!((again.attempts(), again.client_msg_id()), (2, message.client_msg_id()));
}

#[test]
fn a_retry_survives_a_crash_before_its_old_record_is_ended() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, &disk, "a");
    append(&mut queue, &disk, "b");
    let message = queue.take(1_000).unwrap();
    queue.retry(&message, 5_000, 1_000);
    queue.write_out().unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!(queue.depth(), 2);
    assert_eq!(openids(&drain(&mut queue, &disk)), ["b", "a"]);
}

#[test]
fn what_is_given_back_comes_first_and_is_charged_nothing() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for openid in ["a", "b", "c"] {
        append(&mut queue, &disk, openid);
    }
    let (a, b) = (queue.take(FAR).unwrap(), queue.take(FAR).unwrap());
    queue.give_back(&b);
    queue.give_back(&a);
    let messages = drain(&mut queue, &disk);
    assert_eq!(openids(&messages), ["a", "b", "c"]);
    assert!(messages.iter().all(|message| message.attempts() == 1));
}

#[test]
fn due_times_take_bounded_memory() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..3 * HEAP_LIMIT {
        append(&mut queue, &disk, &n.to_string());
    }
    let messages: Vec<_> = std::iter::from_fn(|| queue.take(1_000)).collect();
    for message in &messages {
        while queue.spare.is_none() {
            run_chores(&mut queue, &disk);
        }
        queue.retry(message, 9_000, 1_000);
    }
    queue.write_out().unwrap();
    queue.sync_all().unwrap();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert!(queue.take(2_000).is_none());
    assert_eq!(queue.heap.len(), HEAP_LIMIT);
    assert_eq!(drain(&mut queue, &disk).len(), 3 * HEAP_LIMIT);
}

#[test]
fn the_limit_of_bytes_holds_and_is_freed_by_finished_segments() {
    let disk = Simulated::default();
    let options = Options { segment_size: SEGMENT, max_bytes: 2 * SEGMENT };
    let mut queue = Queue::open(&disk, options, 1_000).unwrap();
    let mut count = 0;
    loop {
        match queue.append(new(&[7; 500]), 1_000) {
            Ok(_) => count += 1,
            Err(Refused::NoSegment) => run_chores(&mut queue, &disk),
            Err(refused) => break assert_eq!(refused, Refused::Full),
        }
    }
    queue.write_out().unwrap();
    assert!(queue.bytes() <= 2 * SEGMENT && queue.bytes() > 2 * SEGMENT - 600);
    assert_eq!(drain(&mut queue, &disk).len(), count);
    assert!(queue.append(new(&[7; 500]), 1_000).is_ok());
}

#[test]
fn a_message_fills_a_segment_or_is_too_large() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let mut largest = SEGMENT as usize;
    while segment_size_for(largest) > SEGMENT {
        largest -= 1;
    }
    let data = vec![b'x'; largest - 2];
    queue.append(new(&data), 1_000).unwrap();
    queue.write_out().unwrap();
    let larger = vec![b'x'; largest - 1];
    assert_eq!(queue.append(new(&larger), 1_000), Err(Refused::TooLarge));
    assert_eq!(queue.take(FAR).unwrap().data(), data);
}

#[test]
fn without_room_for_a_segment_marks_and_retries_go_on() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, &disk, "a");
    append(&mut queue, &disk, "b");
    run_chores(&mut queue, &disk);
    queue.spare = None;
    while queue.append(new(b"x"), 1_000).is_ok() {}
    queue.write_out().unwrap();
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
        append(&mut queue, &disk, openid);
    }
    run_chores(&mut queue, &disk);
    drop(queue);
    let options = Options { segment_size: 4 * SEGMENT, max_bytes: 0 };
    let mut queue = Queue::open(&disk, options, 2_000).unwrap();
    assert_eq!(openids(&drain(&mut queue, &disk)), sent);
}

#[test]
fn what_is_not_written_out_yet_is_not_handed_out() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    queue.append(new(b"x"), 1_000).unwrap();
    assert!(queue.take(FAR).is_none());
    queue.write_out().unwrap();
    assert!(queue.take(FAR).is_some());
}

#[test]
fn a_message_keeps_the_id_that_it_was_given() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let given = ClientMsgId::new(b"order-4711_again").unwrap();
    append(&mut queue, &disk, "before");
    queue.append_as(new(b"data"), &given, 7_000).unwrap();
    queue.write_out().unwrap();
    let message = drain(&mut queue, &disk).pop().unwrap();
    assert_eq!((message.client_msg_id(), message.enqueued()), (given, 7_000));
    assert_eq!([message.openid(), message.key(), message.data()], [&b"o"[..], b"k", b"data"]);
    queue.append_as(new(b"data"), &given, 7_000).unwrap();
    queue.write_out().unwrap();
    let message = queue.take(7_000).unwrap();
    queue.retry(&message, 8_000, 7_000);
    queue.write_out().unwrap();
    drop(queue);
    let again = drain(&mut open_at(&disk, 9_000).unwrap(), &disk).pop().unwrap();
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
            run_chores(&mut queue, &disk);
        }
        queue.write_out().unwrap();
    }
    append(&mut queue, &disk, "another");
    let messages = drain(&mut queue, &disk);
    let made = messages[100].client_msg_id();
    let asked = (50..150).map(id).chain([made]).collect();
    let held: Vec<_> = (50..100).map(id).chain([made]).collect();
    let found = queue.holding(&asked);
    assert_eq!(found.iter().map(|held| held.id).collect::<Vec<_>>(), held);
    assert!(found.iter().all(|held| *held.openid == *b"o" || held.id == made));
    assert!(found.iter().all(|held| held.enqueued == 1_000 && held.done));
    assert!(queue.segments() > 2);
    queue.keep_finished(false);
    assert_eq!(queue.segments(), 1);
    run_chores(&mut queue, &disk);
    assert!(disk.names().len() <= 2, "{:?}", disk.names());
    assert!(!queue.holding(&asked).iter().any(|held| held.id == id(50)));
}
