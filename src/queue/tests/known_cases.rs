//! Single behaviours of the queue, one by one.

use super::simulated::Simulated;
use super::{FAR, append, drain, new, open, open_at, openids, run_chores};
use crate::queue::{ClientMsgId, Durability};

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
    queue.write_marks();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!(queue.depth(), 9);
    let again = drain(&mut queue);
    assert_eq!(openids(&again), ["0", "1", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!([again[0].client_msg_id(), again[1].client_msg_id()], ids[..2]);
    assert_eq!((again[0].attempts(), again[4].attempts()), (2, 1));
}

#[test]
fn what_the_end_finds_handed_out_is_unclear_since_then_and_what_came_back_is_not() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for openid in ["lost", "unsent", "refused", "unclear", "kept"] {
        append(&mut queue, openid);
    }
    let mut taken: Vec<_> = (0..5).map(|n| queue.take(1_000 + n * 100).unwrap()).collect();
    assert!(taken.iter().all(|message| message.unclear_since().is_none()));
    queue.give_back(&taken[1]);
    queue.retry(&taken[2], 1_500, 1_400);
    taken[3].mark_unclear();
    queue.retry(&taken[3], 1_500, 1_400);
    queue.sync_all().unwrap();
    // Out again for the second time, and in nobody's hands at the end.
    let unsent = queue.take(1_450).unwrap();
    assert_eq!((unsent.openid(), unsent.unclear_since()), (&b"unsent"[..], None));
    queue.give_back(&unsent);
    queue.write_marks();
    let image = |now: u64| {
        let mut queue = open_at(&disk.copy(), now).unwrap();
        let mut found: Vec<_> = drain(&mut queue)
            .iter()
            .map(|message| {
                let openid = String::from_utf8(message.openid().to_vec()).unwrap();
                (openid, message.attempts(), message.unclear_since())
            })
            .collect();
        found.sort();
        found
    };
    let as_text =
        |(openid, attempts, since): (&str, u8, Option<u64>)| (openid.to_owned(), attempts, since);
    let expected = [
        ("kept", 2, Some(1_400)),
        ("lost", 2, Some(1_000)),
        ("refused", 2, None),
        ("unclear", 2, Some(1_300)),
        ("unsent", 1, None),
    ];
    assert_eq!(image(2_000), expected.map(as_text));
    // What another run takes out again keeps the first such time.
    drop(queue);
    let mut queue = open_at(&disk, 3_000).unwrap();
    while queue.take(3_500).is_some() {}
    queue.write_marks();
    let expected = [
        ("kept", 3, Some(1_400)),
        ("lost", 3, Some(1_000)),
        ("refused", 3, Some(3_500)),
        ("unclear", 3, Some(1_300)),
        ("unsent", 2, Some(3_500)),
    ];
    assert_eq!(image(4_000), expected.map(as_text));
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
