//! The steps in which failed messages are requeued.

use super::*;
use crate::traffic::Channels;
use crate::traffic::batch::ConnId;
use crate::traffic::ledger::Placed;
use crate::traffic::mailbox::Letters;

fn add(write: &rusqlite::Connection, id: &str, size: usize) -> rusqlite::Result<()> {
    let (openid, key, data) = (&b"o"[..], &b"k"[..], vec![b'x'; size]);
    let (class, errcode, errmsg) = ("permanent", Some(43004), "43004 require subscribe");
    let (time, enqueued, attempts) = (10_000, None, 1);
    let data = &data[..];
    failed::record(
        write,
        New { id, openid, key, data, time, enqueued, attempts, class, errcode, errmsg },
    )
}

#[test]
fn a_step_takes_as_many_as_its_bytes_have_room_for_and_one_at_least() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::new(&folder.path().join("l.db"));
    let half = order::STEP_BYTES / 2;
    let sizes = [half, half, 1, 2 * order::STEP_BYTES, half, half - 1, 1, 1];
    database
        .write(|write| {
            let mut ids = sizes.iter().enumerate().map(|(index, size)| (index.to_string(), *size));
            ids.try_for_each(|(id, size)| add(write, &id, size))
        })
        .unwrap();
    let mut request = Request { limit: 100, ..Request::default() };
    let mut steps = Vec::new();
    loop {
        let (rows, answer) = claim(&mut database, &request).unwrap();
        assert!(!rows.is_empty() && answer.after > request.after, "no step forward");
        steps.push(rows.len());
        request.after = answer.after;
        if answer.done {
            break;
        }
    }
    assert_eq!(steps, [2, 1, 1, 3, 1]);
}

fn replies(letters: &Letters) -> Vec<(u32, u16, String)> {
    let replies = letters.read().flat_map(|mail| match mail {
        Mail::Replies { replies, .. } => replies,
        _ => Vec::new(),
    });
    replies.map(|reply| (reply.to.opaque, reply.code, reply.message.into_owned())).collect()
}

/// A ledger in which one message has failed.
fn with_one() -> (tempfile::TempDir, Config, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let mut config = Config::demo(folder.path()).unwrap();
    config.server.queue_file_path = folder.path().to_owned();
    let mut ledger = Ledger::open(&config).unwrap();
    ledger.database.write(|write| add(write, "1", 10)).unwrap();
    (folder, config, ledger)
}

/// What it is linked to while it runs.
fn links(channels: &Channels) -> (Links, Letters, mio::Poll) {
    let (poll, waker) = crate::reactor::poll().unwrap();
    let (mailbox, letters) = Mailbox::new(waker);
    let links = Links {
        notes: channels.notes.clone(),
        blocks: channels.blocks.clone(),
        asks: never(),
        changes: never(),
        spool: channels.events.clone(),
        mailbox,
        stats: Arc::default(),
    };
    (links, letters, poll)
}

#[test]
fn whoever_asks_while_the_disk_is_full_is_told_so_at_once() {
    let (_folder, _config, mut ledger) = with_one();
    let channels = Channels::new(1);
    let (links, letters, _poll) = links(&channels);
    let spool = channels.inside().events;
    let ask = |ledger: &mut Ledger, opaque| {
        let conn = ConnId { slot: 0, generation: 0 };
        let request = Request { limit: 10, ..Request::default() };
        let body = serde_json::to_vec(&request).unwrap().into();
        let to = ReplyTo { conn, opaque, weight: 0 };
        ledger.ask(&Ask { to, what: What::Requeue, by: "ann".into(), body }, &links);
    };
    ask(&mut ledger, 1);
    assert!(matches!(spool.try_recv(), Ok(Event::Requeue(batch)) if batch.len() == 1));
    assert!(replies(&letters).is_empty());
    // Whatever the reason is for which it cannot be written.
    let other = rusqlite::Connection::open(ledger.database.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.note(Note::Placed(Placed { count: 1, stopped: None }));
    ledger.record(&links);
    ask(&mut ledger, 2);
    let told = replies(&letters);
    assert_eq!(told.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), [1, 2], "{told:?}");
    for (_, code, why) in &told {
        assert!(*code == command::FAILED && why.contains("locked"), "{why}");
    }
    assert!(told[0].2.starts_with("1 are in the queue again"), "{told:?}");
    assert!(spool.is_empty(), "nothing counts as requeued yet");
    // It is recorded when it can be, and only once.
    other.execute_batch("COMMIT").unwrap();
    ask(&mut ledger, 3);
    assert!(matches!(spool.try_recv(), Ok(Event::Confirmed)) && spool.is_empty());
    let told = replies(&letters);
    assert_eq!((told.len(), told[0].0, told[0].1), (1, 3, command::OK), "{told:?}");
}

#[test]
fn what_fails_while_somebody_else_holds_the_ledger_is_kept_within_a_second() {
    let (_folder, config, ledger) = with_one();
    let other = rusqlite::Connection::open(ledger.database.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let channels = Channels::new(1);
    let (links, _letters, _poll) = links(&channels);
    let inside = channels.inside();
    std::thread::scope(|scope| {
        scope.spawn(|| ledger.run(links));
        for number in 0..4 {
            let fields = crate::queue::New { openid: b"o", key: b"k", data: b"null" };
            let message = crate::queue::Message::in_memory(1, number, 5, fields, b"");
            let reason = crate::traffic::job::Reason::text("no");
            let failure = Failure::new(message, Class::Permanent, reason, 7, None);
            let failed = Instant::now();
            inside.notes.send(Note::Failed(Box::new(failure))).unwrap();
            while Verdicts::open(&config).earlier().len() as u64 <= number {
                std::thread::sleep(Duration::from_millis(5));
                assert!(failed.elapsed() < Duration::from_secs(20));
            }
            assert!(failed.elapsed() < Duration::from_millis(1_200), "{:?}", failed.elapsed());
        }
        drop(inside);
    });
}
