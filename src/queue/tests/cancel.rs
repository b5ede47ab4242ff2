//! Rules and sweeps, one by one.

use super::simulated::Simulated;
use super::{FAR, append, drain, open, open_at, openids, run_chores};
use crate::queue::{Durability, Message, Purpose, Queue, Rule, Swept, Which};

fn rule(queue: &Queue, number: u64, openid: &str) -> Rule {
    let which = Which { openid: Some(openid.into()), ..Which::default() };
    Rule { number, which, before: queue.order_mark() }
}

/// Begins what an order begins.
fn cancel(queue: &mut Queue, openid: &str) {
    let rule = rule(queue, 1, openid);
    queue.cancel(rule.clone());
    queue.begin_sweep(Purpose::End, vec![rule]);
}

/// All that the sweep gives out.
fn sweep(queue: &mut Queue) -> Vec<Message> {
    let mut caught = Vec::new();
    loop {
        match queue.sweep(1_000) {
            Swept::Caught(_, message) => caught.push(message),
            Swept::Passed => {}
            Swept::Waits => queue.sync_all().unwrap(),
            Swept::Ended => return caught,
        }
    }
}

fn end(queue: &mut Queue, messages: &[Message]) {
    messages.iter().for_each(|message| queue.done(message.ticket().unwrap()));
}

/// What is handed out, with the janitor and the sweep at hand.
fn take_all(queue: &mut Queue) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        match queue.take(FAR) {
            Some(message) => taken.push(message),
            None if queue.hurries() => {}
            None => return openids(&taken),
        }
    }
}

#[test]
fn what_a_rule_catches_is_passed_by_and_given_out_by_the_sweep_alone() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..200 {
        append(&mut queue, &format!("{}{n}", if n % 2 == 0 { "a" } else { "b" }));
    }
    let first = queue.take(1_000).unwrap();
    cancel(&mut queue, "a");
    append(&mut queue, "a-later");
    let taken = take_all(&mut queue);
    assert_eq!(taken.len(), 101);
    assert!(taken.iter().all(|openid| openid.starts_with('b') || openid == "a-later"));
    let caught = sweep(&mut queue);
    assert_eq!(caught.len(), 99, "all but the one in a worker's hands");
    assert!(caught.iter().all(|message| message.attempts() == 0));
    assert_eq!(queue.is_cancelled(&first), Some(1));
    assert_eq!(queue.depth(), 201);
    end(&mut queue, &caught);
    assert_eq!(queue.depth(), 102);
    assert!(sweep(&mut queue).is_empty());
}

#[test]
fn whole_segments_ahead_of_the_cursor_go_when_all_in_them_is_done() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    append(&mut queue, "b-first");
    for n in 0..300 {
        append(&mut queue, &format!("a{n}"));
    }
    append(&mut queue, "b-last");
    let (segments, bytes) = (queue.segments(), queue.bytes());
    assert!(segments > 5);
    cancel(&mut queue, "a");
    let caught = sweep(&mut queue);
    end(&mut queue, &caught);
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    assert!(queue.segments() <= 2, "{} of {segments} are left", queue.segments());
    assert!(queue.bytes() < bytes / 2);
    assert_eq!((queue.depth(), queue.damage()), (2, vec![]));
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    assert_eq!((queue.depth(), queue.damage()), (2, vec![]));
    assert_eq!(openids(&drain(&mut queue)), ["b-first", "b-last"]);
}

#[test]
fn what_is_not_done_keeps_its_segment_whatever_the_header_says() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..100 {
        append(&mut queue, &format!("a{n}"));
    }
    queue.sync_all().unwrap();
    drop(queue);
    // The counters of each header say that nothing waits.
    for name in disk.names() {
        let records = disk.read(&name)[72..80].to_vec();
        disk.poke(&name, 80, &records);
    }
    let mut queue = open_at(&disk, 2_000).unwrap();
    cancel(&mut queue, "a1");
    let caught = sweep(&mut queue);
    end(&mut queue, &caught);
    queue.sync_all().unwrap();
    run_chores(&mut queue);
    queue.forget_rule(1);
    assert_eq!((caught.len(), drain(&mut queue).len()), (11, 89));
}

#[test]
fn a_retry_that_waits_for_its_time_does_not_wait_to_be_cancelled() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    let ids: Vec<u64> = ["a1", "b1", "a2"].map(|openid| append(&mut queue, openid)).into();
    for message in (0..3).map(|_| queue.take(1_000).unwrap()).collect::<Vec<_>>() {
        queue.retry(&message, 50_000, 1_000);
    }
    queue.commit(Durability::Later).unwrap();
    // They are not durable yet.
    cancel(&mut queue, "a");
    let mut caught: Vec<u64> = sweep(&mut queue).iter().map(Message::id).collect();
    caught.sort_unstable();
    assert_eq!(caught, [ids[0], ids[2]]);
    assert_eq!((queue.retrying(), queue.next_due()), (1, Some(50_000)));
    assert_eq!(queue.take(60_000).unwrap().id(), ids[1]);
    assert!(queue.take(60_000).is_none());
}

#[test]
fn a_count_ends_nothing_and_meets_what_an_order_would() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..50 {
        append(&mut queue, &format!("{}{n}", if n % 5 == 0 { "a" } else { "b" }));
    }
    let message = queue.take(1_000).unwrap();
    queue.retry(&message, 50_000, 1_000);
    queue.commit(Durability::Later).unwrap();
    queue.sync_all().unwrap();
    let counted = rule(&queue, 7, "a");
    queue.begin_sweep(Purpose::Count, vec![counted]);
    assert_eq!(sweep(&mut queue).len(), 10);
    cancel(&mut queue, "a");
    assert_eq!(sweep(&mut queue).len(), 10);
    queue.forget_rule(1);
    assert_eq!(queue.depth(), 50);
}

#[test]
fn an_order_that_was_not_carried_out_to_its_end_goes_on_after_a_crash() {
    let disk = Simulated::default();
    let mut queue = open(&disk);
    for n in 0..100 {
        append(&mut queue, &format!("a{n}"));
    }
    let rule = rule(&queue, 1, "a");
    cancel(&mut queue, "a");
    let caught: Vec<Message> = std::iter::from_fn(|| match queue.sweep(1_000) {
        Swept::Caught(_, message) => Some(message),
        _ => None,
    })
    .take(30)
    .collect();
    end(&mut queue, &caught[..20]);
    queue.write_marks();
    drop(queue);
    let mut queue = open_at(&disk, 2_000).unwrap();
    queue.cancel(rule.clone());
    queue.begin_sweep(Purpose::End, vec![rule]);
    assert!(take_all(&mut queue).is_empty());
    let rest = sweep(&mut queue);
    assert_eq!(rest.len(), 80);
    end(&mut queue, &rest);
    assert_eq!(queue.depth(), 0);
}
