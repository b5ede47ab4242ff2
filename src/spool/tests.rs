//! What cannot be waited for in a test of the whole daemon.

use super::*;
use crate::clock::now_ms;
use crate::queue::tests::simulated::Simulated;
use crate::queue::{New, Options};
use crate::traffic::class::Class;
use crate::traffic::job::{Outcome, Reason, Verdict};
use crate::traffic::{Channels, UNRECORDED};
use std::sync::atomic::Ordering;

#[test]
fn an_unclear_attempt_that_wechat_would_not_recognise_fails_as_unknown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let config = Arc::new(Config::demo(folder.path()).unwrap());
    let (disk, minutes) = (Simulated::default(), 60_000);
    let open = |now| Queue::open(&disk, Options { segment_size: 4096, max_bytes: 0 }, now).unwrap();
    for (minutes_ago, fails) in [(11, 1), (8, 0)] {
        let then = now_ms() - minutes_ago * minutes;
        let mut queue = open(then);
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, then).unwrap();
        queue.write_out().unwrap();
        let mut message = queue.take(then).unwrap();
        message.mark_unclear();
        queue.retry(&message, then + 1, then);
        queue.write_out().unwrap();
        drop((message, queue));

        let (_poll, waker) = crate::reactor::poll().unwrap();
        let (mailbox, _letters) = Mailbox::new(waker);
        let channels = Channels::new(1);
        let (pushes, stats) = (channels.pushes.clone(), Arc::new(Stats::default()));
        let notes = channels.notes.clone();
        let config = Arc::clone(&config);
        let queue = open(now_ms());
        let inside = channels.inside();
        let mut spool = Spool::new(config, queue, inside, mailbox, Arc::clone(&stats)).unwrap();
        spool.hand_out(Now::read());
        assert_eq!(stats.failed.load(Ordering::Relaxed), fails);
        assert_eq!(pushes.len() as u64, 1 - fails);
        if fails > 0 {
            let Ok(Note::Failed(failure)) = notes.try_recv() else { panic!("not recorded") };
            assert!(failure.text.starts_with("unknown: WeChat may have taken it"));
            // It is done when it is recorded, and not before.
            assert_eq!(spool.queue.depth(), 1);
            let recorded = vec![failure.message.ticket().unwrap()];
            spool.turn(Event::Recorded(recorded)).ok().unwrap();
            assert_eq!(spool.queue.depth(), 0);
        }
    }
}

#[test]
fn what_is_due_and_finds_no_room_wakes_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(Config::demo(folder.path()).unwrap());
    let disk = Simulated::default();
    let options = Options { segment_size: 64 * 1024, max_bytes: 0 };
    let mut queue = Queue::open(&disk, options, now_ms()).unwrap();
    let (_poll, waker) = crate::reactor::poll().unwrap();
    let (mailbox, _letters) = Mailbox::new(waker);
    let channels = Channels::new(1);
    let (pushes, inside) = (channels.pushes.clone(), channels.inside());
    for _ in 0..=inside.limit {
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, now_ms()).unwrap();
    }
    queue.write_out().unwrap();
    let message = queue.take(now_ms()).unwrap();
    let stats = Arc::new(Stats::default());
    let mut spool = Spool::new(config, queue, inside, mailbox, stats).unwrap();
    spool.hand_out(Now::read());
    spool.queue.give_back(&message);
    spool.hand_out(Now::read());
    assert_eq!(pushes.len(), spool.inside.limit);
    assert_eq!(spool.wakes_at(Now::read()), None);
}

#[test]
fn no_push_is_handed_out_while_too_many_failures_are_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(Config::demo(folder.path()).unwrap());
    let disk = Simulated::default();
    let options = Options { segment_size: 1 << 20, max_bytes: 0 };
    let mut queue = Queue::open(&disk, options, now_ms()).unwrap();
    for _ in 0..2 * UNRECORDED {
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, now_ms()).unwrap();
    }
    queue.write_out().unwrap();
    let (_poll, waker) = crate::reactor::poll().unwrap();
    let (mailbox, _letters) = Mailbox::new(waker);
    let channels = Channels::new(1);
    let (pushes, notes) = (channels.pushes.clone(), channels.notes.clone());
    let inside = channels.inside();
    let most = UNRECORDED + inside.limit;
    let mut spool = Spool::new(config, queue, inside, mailbox, Arc::default()).unwrap();
    loop {
        spool.hand_out(Now::read());
        let jobs: Vec<_> = pushes.try_iter().collect();
        if jobs.is_empty() {
            break;
        }
        for job in jobs {
            let verdict = Some(Verdict::Refused(Class::Permanent, Reason::text("no")));
            spool.book(Outcome { job, verdict, called: None }, Now::read());
        }
    }
    // All of them found room on their way to the ledger.
    let unrecorded: Vec<_> = notes.try_iter().collect();
    assert!((UNRECORDED..=most).contains(&unrecorded.len()), "{}", unrecorded.len());
    assert_eq!(spool.wakes_at(Now::read()), spool.ends.wakes_at());
    let Note::Failed(first) = &unrecorded[0] else { panic!() };
    let tickets = vec![first.message.ticket().unwrap(); unrecorded.len() - UNRECORDED + 1];
    spool.turn(Event::Recorded(tickets)).ok().unwrap();
    spool.hand_out(Now::read());
    assert!(!pushes.is_empty());
}
