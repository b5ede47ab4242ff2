//! What cannot be waited for in a test of the whole daemon.

use super::*;
use crate::clock::now_ms;
use crate::queue::tests::simulated::Simulated;
use crate::queue::{New, Options};
use crate::traffic::Channels;
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
        let config = Arc::clone(&config);
        let queue = open(now_ms());
        let inside = channels.inside();
        let mut spool = Spool::new(config, queue, inside, mailbox, Arc::clone(&stats)).unwrap();
        spool.hand_out(Now::read());
        assert_eq!(stats.failed.load(Ordering::Relaxed), fails);
        assert_eq!(pushes.len() as u64, 1 - fails);
    }
    let list = &failed::files(&config.log.log_file).unwrap()[0];
    assert!(std::fs::read_to_string(list).unwrap().contains("unknown: WeChat may have taken it"));
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
