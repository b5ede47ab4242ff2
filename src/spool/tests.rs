//! What cannot be waited for in a test of the whole daemon.

use super::*;
use crate::class::Class;
use crate::clock::now_ms;
use crate::queue::tests::simulated::Simulated;
use crate::queue::{Durability, Message, New, Options};
use crate::traffic::batch::{Batch, ConnId, Kind, ReplyTo, Request};
use crate::traffic::job::{Job, Outcome, Reason, Verdict};
use crate::traffic::ledger::Note;
use crate::traffic::mailbox::{Letters, Mail};
use crate::traffic::steer::{Steer, Steering};
use crate::traffic::{Channels, UNRECORDED};
use crossbeam_channel::{Receiver, Sender};

/// A spool with nobody around it.
struct Alone {
    spool: Spool,
    events: Sender<Event>,
    pushes: Receiver<Job>,
    sends: Receiver<Job>,
    letters: Letters,
    notes: Receiver<Note>,
    stats: Arc<Stats>,
    _poll: mio::Poll,
    _folder: tempfile::TempDir,
}

fn open(disk: &Simulated, now: u64) -> Queue {
    let retry_cap = Duration::from_secs(60);
    let options = Options { segment_size: 64 * 1024, max_bytes: 0, retry_cap };
    Queue::open(Arc::new(disk.clone()), options, now).unwrap()
}

impl Alone {
    fn new(change: impl FnOnce(&mut Config)) -> Alone {
        Alone::with(open(&Simulated::default(), now_ms()), change)
    }

    fn with(queue: Queue, change: impl FnOnce(&mut Config)) -> Alone {
        let folder = tempfile::tempdir().unwrap();
        for name in ["logs", "run"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut config = Config::demo(folder.path()).unwrap();
        config.setting.task_worker_num = 1;
        config.server.queue_file_path = folder.path().join("run");
        change(&mut config);
        let (_poll, waker) = crate::reactor::poll().unwrap();
        let (mailbox, letters) = Mailbox::new(waker);
        let channels = Channels::new(1);
        let (pushes, sends) = (channels.pushes.clone(), channels.sends.clone());
        let (events, notes) = (channels.events.clone(), channels.notes.clone());
        let stats = Arc::new(Stats::default());
        let inside = channels.inside();
        let spool =
            Spool::new(Arc::new(config), queue, inside, mailbox, Arc::clone(&stats)).unwrap();
        Alone { spool, events, pushes, sends, letters, notes, stats, _poll, _folder: folder }
    }

    fn ask(&mut self, kind: Kind, count: u32, now: Now) {
        let mut batch = Batch::default();
        let conn = ConnId { slot: 0, generation: 0 };
        for opaque in 0..count {
            let to = ReplyTo { conn, opaque, weight: 0 };
            let new = New { openid: b"o", key: b"k", data: b"null" };
            batch.add(&Request { to, kind, client: None, id: b"", new });
        }
        self.spool.take_batch(batch, now);
        self.spool.queue.commit(Durability::Never).unwrap();
        self.spool.answers.mail();
    }

    /// What a worker does that meets it, and the spool when it hears.
    fn book(&mut self, job: Job, class: Class, now: Now) {
        let errcode = class.row().given.then_some(1);
        let reason = Reason { errcode, text: class.name().into(), answer: None };
        let verdict = Verdict::Refused(class, reason);
        if verdict.ends_round() {
            self.spool.inside.round.end(job.round);
        }
        let verdict = Some(verdict);
        self.spool.book(Outcome { job, verdict, called: None }, now);
        self.spool.answers.mail();
    }

    fn replies(&self) -> Vec<String> {
        let mail = self.letters.read();
        let replies = mail.flat_map(|mail| match mail {
            Mail::Replies { replies, .. } => replies,
            Mail::Steered(reply) => vec![reply],
            _ => Vec::new(),
        });
        replies.map(|reply| reply.message.into_owned()).collect()
    }
}

fn later(now: Now, by: Duration) -> Now {
    let (at, ms) = (now.at + by, now.ms + by.as_millis() as u64);
    Now { at, ms, unix: now.unix + by.as_secs() }
}

#[test]
fn what_the_end_of_a_run_left_in_somebodys_hands_fails_as_unknown_where_wechat_forgets_it_meanwhile()
 {
    let disk = Simulated::default();
    let mut before = Alone::with(open(&disk, now_ms()), |_| {});
    let now = Now::read();
    before.ask(Kind::Push, 1, now);
    // The end comes as soon as a worker can have it.
    before.spool.hand_out(now);
    let job = before.pushes.try_recv().unwrap();
    assert_eq!(job.message.unclear_since(), None);
    for (minutes, fails) in [(11, 1), (8, 0)] {
        let now = later(now, Duration::from_secs(60 * minutes));
        let mut after = Alone::with(open(&disk.copy(), now.ms), |_| {});
        after.spool.hand_out(now);
        assert_eq!((after.spool.ends.unrecorded(), after.pushes.len()), (fails, 1 - fails));
    }
}

#[test]
fn an_unclear_attempt_that_wechat_would_not_recognise_fails_as_unknown() {
    let (disk, minutes) = (Simulated::default(), 60_000);
    for (minutes_ago, fails) in [(11, 1), (8, 0)] {
        let then = now_ms() - minutes_ago * minutes;
        let mut queue = open(&disk, then);
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, then).unwrap();
        queue.commit(Durability::Never).unwrap();
        let mut message = queue.take(then).unwrap();
        message.mark_unclear();
        queue.retry(&message, then + 1, then);
        queue.commit(Durability::Never).unwrap();
        drop((message, queue));

        let mut alone = Alone::with(open(&disk, now_ms()), |_| {});
        alone.spool.hand_out(Now::read());
        alone.spool.queue.commit(Durability::Never).unwrap();
        assert_eq!(alone.spool.ends.unrecorded() as u64, fails);
        assert_eq!(alone.pushes.len() as u64, 1 - fails);
        if fails > 0 {
            let Ok(Note::Failed(failure)) = alone.notes.try_recv() else { panic!("not recorded") };
            assert!(failure.text.starts_with("unknown: WeChat may have taken it"));
            // It is done when it is recorded, and not before.
            let shown = |alone: &mut Alone| {
                alone.spool.publish(Now::read());
                let account = alone.stats.read().account;
                account.check();
                (account.pushes.queued, account.pushes.failed, account.hands.unrecorded)
            };
            assert_eq!(shown(&mut alone), (1, 0, 1));
            let recorded = vec![failure.message.ticket().unwrap()];
            alone.spool.turn(Event::Recorded { tickets: recorded, cancelled: 0 }).ok().unwrap();
            assert_eq!(shown(&mut alone), (0, 1, 0));
            alone.spool.queue.write_marks();
        }
    }
}

#[test]
fn a_code_that_nobody_knows_costs_no_message_its_attempts_while_it_speaks_of_the_account() {
    let start = Now::read();
    let mut queue = open(&Simulated::default(), start.ms);
    for n in 0..10 {
        let openid = n.to_string();
        let new = New { openid: openid.as_bytes(), key: b"k", data: b"null" };
        queue.append(new, start.ms).unwrap();
    }
    queue.commit(Durability::Never).unwrap();
    let mut alone = Alone::with(queue, |_| {});
    let meet = |alone: &mut Alone, now: Now| {
        alone.spool.hand_out(now);
        let job = alone.pushes.try_recv().unwrap();
        let met = (job.probe, job.message.attempts());
        alone.book(job, Class::Once, now);
        alone.spool.queue.commit(Durability::Never).unwrap();
        met
    };
    for _ in 0..10 {
        assert!(alone.stats.suspended.lock().is_none());
        assert_eq!(meet(&mut alone, start), (false, 1));
    }
    assert!(alone.stats.suspended.lock().is_some());
    for probe in 1..=15 {
        let now = later(start, Duration::from_secs(31 * probe));
        assert_eq!(meet(&mut alone, now), (true, 2));
    }
    assert_eq!((alone.spool.ends.unrecorded(), alone.spool.queue.depth()), (0, 10));
}

#[test]
fn what_is_due_and_finds_no_room_wakes_nobody() {
    let mut queue = open(&Simulated::default(), now_ms());
    let limit = Channels::new(1).inside().limit;
    for _ in 0..=limit {
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, now_ms()).unwrap();
    }
    queue.commit(Durability::Never).unwrap();
    let message = queue.take(now_ms()).unwrap();
    let mut alone = Alone::with(queue, |_| {});
    alone.spool.hand_out(Now::read());
    alone.spool.queue.give_back(&message);
    alone.spool.hand_out(Now::read());
    assert_eq!(alone.pushes.len(), limit);
    assert_eq!(alone.spool.wakes_at(Now::read()), None);
}

#[test]
fn every_job_finds_room_whichever_way_sends_go() {
    for send_first in [true, false] {
        let mut alone = Alone::new(|config| config.queue.send_first = send_first);
        let (now, limit) = (Now::read(), alone.spool.inside.limit);
        alone.ask(Kind::Send, 2 * limit as u32, now);
        alone.ask(Kind::Push, 2 * limit as u32, now);
        alone.spool.hand_out(now);
        let handed = (alone.sends.len() + alone.pushes.len(), alone.spool.in_flight());
        // In their order, the pushes behind the sends wait for these.
        let expected = if send_first { 2 * limit } else { limit };
        assert_eq!(handed, (expected, expected));
        let mut done = 0;
        while done < 4 * limit {
            let job = alone.sends.try_recv().or_else(|_| alone.pushes.try_recv()).unwrap();
            let verdict = Some(Verdict::Delivered { duplicate: false, msgid: None });
            alone.spool.book(Outcome { job, verdict, called: None }, now);
            alone.spool.hand_out(now);
            done += 1;
        }
        assert_eq!((alone.spool.in_flight(), alone.spool.queue.depth()), (0, 0));
    }
}

#[test]
fn what_comes_due_between_two_looks_at_the_clock_wakes_the_spool() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 2, now);
    alone.spool.hand_out(now);
    let job = alone.pushes.try_recv().unwrap();
    alone.book(job, Class::Config, now);
    assert_eq!(alone.spool.in_flight(), 0, "the second came back unbegun");
    let probe_at = now.at + Duration::from_secs(30);
    let before = Now { at: probe_at - Duration::from_nanos(1), ..now };
    alone.spool.hand_out(before);
    assert!(alone.pushes.is_empty());
    assert_eq!(alone.spool.wakes_at(before), Some(probe_at));
    alone.spool.hand_out(Now { at: probe_at, ..now });
    assert_eq!(alone.pushes.len(), 1, "one probe");
    assert!(alone.pushes.try_recv().unwrap().probe);
}

#[test]
fn stopping_wakes_the_spool_at_its_deadline() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 1, now);
    alone.spool.hand_out(now);
    let _held = alone.pushes.try_recv().unwrap();
    alone.spool.stop(Duration::from_secs(5), now);
    let deadline = later(now, Duration::from_secs(5));
    let before = Now { at: deadline.at - Duration::from_nanos(1), ..now };
    assert!(!alone.spool.ended(before));
    assert_eq!(alone.spool.wakes_at(before), Some(deadline.at));
    assert!(alone.spool.ended(deadline));
}

#[test]
fn sends_that_wait_when_the_gate_closes_are_answered_and_one_of_the_next_probes() {
    let mut alone = Alone::new(|_| {});
    let (now, limit) = (Now::read(), alone.spool.inside.limit);
    alone.ask(Kind::Send, limit as u32 + 5, now);
    alone.spool.hand_out(now);
    let job = alone.sends.try_recv().unwrap();
    alone.book(job, Class::Config, now);
    let told = alone.replies();
    assert_eq!(told.len(), limit + 5, "the one, those ready for the worker, those that waited");
    assert_eq!(told.iter().filter(|text| *text == "sending suspended: config").count(), limit + 4);
    let sends = &alone.spool.books.account.sends;
    let counted = (sends.accepted as usize, sends.given_up as usize, sends.failed);
    assert_eq!(counted, (limit + 5, limit + 4, 1), "the one had its turn");

    alone.ask(Kind::Send, 1, now);
    assert_eq!(alone.replies(), ["sending suspended: config"]);
    let due = later(now, Duration::from_secs(30));
    alone.ask(Kind::Send, 3, due);
    assert_eq!(alone.replies().len(), 2, "one probes, the others are answered");
    alone.spool.hand_out(due);
    assert!(alone.sends.try_recv().unwrap().probe);
}

#[test]
fn however_many_probes_were_in_vain_a_worker_begins_the_next() {
    for class in [Class::Rate, Class::Config] {
        let mut now = Now::read();
        let mut alone = Alone::new(|_| {});
        alone.ask(Kind::Push, 2, now);
        for probes in 0..5 {
            alone.spool.hand_out(now);
            let job = alone.pushes.try_recv().expect("one is handed out");
            assert_eq!(job.probe, probes > 0, "{class:?}");
            assert!(!alone.spool.inside.round.has_ended(&job), "{class:?}: {probes} in vain");
            alone.book(job, class, now);
            assert_eq!(alone.spool.in_flight(), 0);
            now = later(now, Duration::from_secs(2 * 3_600));
        }
    }
}

#[test]
fn a_probe_that_reaches_nobody_is_charged_no_attempt() {
    let mut alone = Alone::new(|config| config.setting.task_worker_num = 1);
    let mut now = Now::read();
    alone.ask(Kind::Push, 1, now);
    let mut attempts = Vec::new();
    for _ in 0..12 {
        now = later(now, Duration::from_secs(60));
        alone.spool.queue.commit(Durability::Never).unwrap();
        alone.spool.hand_out(now);
        let job = alone.pushes.try_recv().unwrap();
        attempts.push(job.message.attempts());
        alone.book(job, Class::Unclear, now);
        if attempts.len() == 8 {
            // What WeChat would recognise no more is another matter.
            break;
        }
    }
    assert_eq!(attempts, [1, 2, 3, 4, 4, 4, 4, 4], "three failures close the gate");
}

#[test]
fn a_send_that_probes_in_vain_is_answered_and_so_are_those_behind_it() {
    let mut alone = Alone::new(|config| config.queue.send_first = false);
    let now = Now::read();
    alone.ask(Kind::Push, 3, now);
    alone.spool.hand_out(now);
    for _ in 0..3 {
        let job = alone.pushes.try_recv().unwrap();
        alone.book(job, Class::Unreachable, now);
        alone.spool.hand_out(now);
    }
    let due = later(now, Duration::from_secs(60));
    alone.replies();
    alone.ask(Kind::Send, 1, due);
    alone.spool.hand_out(due);
    let push = alone.pushes.try_recv().unwrap();
    assert!(push.waiting.is_none() && push.probe);
    alone.book(push, Class::Unreachable, due);
    assert_eq!(alone.replies(), ["sending suspended: unreachable: unreachable"]);

    let mut alone = Alone::new(|_| {});
    alone.ask(Kind::Send, 1, now);
    alone.spool.hand_out(now);
    let job = alone.sends.try_recv().unwrap();
    alone.book(job, Class::Config, now);
    alone.replies();
    alone.ask(Kind::Send, 1, due);
    alone.spool.hand_out(due);
    let probe = alone.sends.try_recv().unwrap();
    alone.book(probe, Class::Unclear, due);
    assert_eq!(alone.replies(), ["unclear"]);
    assert_eq!(alone.spool.sends.len(), 0);
}

#[test]
fn no_push_is_handed_out_while_too_many_failures_are_not_recorded() {
    let mut queue = open(&Simulated::default(), now_ms());
    let mut appended = 0;
    while appended < 2 * UNRECORDED {
        match queue.append(New { openid: b"o", key: b"k", data: b"null" }, now_ms()) {
            Ok(_) => appended += 1,
            Err(_) => {
                let chore = queue.chore().unwrap();
                queue.chore_done(chore.run(), now_ms()).unwrap();
            }
        }
    }
    queue.commit(Durability::Never).unwrap();
    let mut alone = Alone::with(queue, |_| {});
    let most = UNRECORDED + alone.spool.inside.limit;
    loop {
        alone.spool.hand_out(Now::read());
        let jobs: Vec<_> = alone.pushes.try_iter().collect();
        if jobs.is_empty() {
            break;
        }
        jobs.into_iter().for_each(|job| alone.book(job, Class::Permanent, Now::read()));
    }
    // All of them found room on their way to the ledger.
    let unrecorded: Vec<_> = alone.notes.try_iter().collect();
    assert!((UNRECORDED..=most).contains(&unrecorded.len()), "{}", unrecorded.len());
    assert_eq!(alone.spool.wakes_at(Now::read()), alone.spool.ends.wakes_at());
    let tickets = |notes: &[Note]| {
        let ticket = |note: &Note| match note {
            Note::Failed(failure) => failure.message.ticket().unwrap(),
            _ => panic!("another note"),
        };
        notes.iter().map(ticket).collect()
    };
    let enough = &unrecorded[..unrecorded.len() - UNRECORDED + 1];
    alone.spool.turn(Event::Recorded { tickets: tickets(enough), cancelled: 0 }).ok().unwrap();
    alone.spool.hand_out(Now::read());
    assert!(!alone.pushes.is_empty());
}

/// What an administrator orders.
fn steer(alone: &mut Alone, order: Steering, now: Now) -> Vec<String> {
    let to = ReplyTo { conn: ConnId { slot: 9, generation: 9 }, opaque: 0, weight: 0 };
    alone.spool.steer(Steer { to, by: "ann".into(), order }, now);
    alone.spool.answers.mail();
    alone.replies()
}

#[test]
fn a_probe_that_is_under_way_when_a_pause_comes_is_booked_and_the_pause_holds() {
    for (class, opens) in [(Class::Ok, true), (Class::Config, false)] {
        let mut alone = Alone::new(|_| {});
        let now = Now::read();
        alone.ask(Kind::Push, 3, now);
        alone.spool.hand_out(now);
        let job = alone.pushes.try_recv().unwrap();
        alone.book(job, Class::Config, now);
        let due = later(now, Duration::from_secs(30));
        alone.spool.hand_out(due);
        let probe = alone.pushes.try_recv().unwrap();
        assert!(probe.probe);
        steer(&mut alone, Steering::Pause { why: "lunch".into() }, due);
        match class {
            Class::Ok => {
                let verdict = Some(Verdict::Delivered { duplicate: false, msgid: None });
                alone.spool.book(Outcome { job: probe, verdict, called: None }, due);
            }
            _ => alone.book(probe, class, due),
        }
        let much_later = later(due, Duration::from_secs(300));
        alone.spool.hand_out(much_later);
        assert!(alone.pushes.is_empty());
        assert_eq!(alone.spool.wakes_at(much_later), alone.spool.ends.wakes_at());
        alone.ask(Kind::Send, 1, much_later);
        assert_eq!(alone.replies(), ["sending suspended: paused by ann: lunch"]);
        assert_eq!(alone.stats.suspended.lock().is_none(), opens);
        steer(&mut alone, Steering::Resume, much_later);
        alone.spool.hand_out(much_later);
        // The gate holds as it was: all of them go, or one probes.
        assert_eq!(alone.pushes.len(), if opens { 2 } else { 1 });
        assert_eq!(alone.pushes.try_recv().unwrap().probe, !opens);
    }
}

#[test]
fn what_no_worker_has_begun_comes_back_at_a_pause_and_sends_that_wait_are_answered() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 5, now);
    alone.ask(Kind::Send, 5, now);
    alone.spool.hand_out(now);
    let told = steer(&mut alone, Steering::Pause { why: String::new() }, now);
    assert_eq!(told.iter().filter(|text| *text == "sending suspended: paused by ann").count(), 5);
    assert_eq!((alone.spool.in_flight(), alone.spool.queue.depth()), (0, 5));
    steer(&mut alone, Steering::Resume, now);
    alone.spool.hand_out(now);
    let attempts: Vec<u8> = alone.pushes.try_iter().map(|job| job.message.attempts()).collect();
    assert_eq!(attempts, [1; 5], "nobody was charged one");
}

#[test]
fn damage_is_counted_while_the_spool_runs() {
    let disk = Simulated::default();
    let mut queue = open(&disk, now_ms());
    for _ in 0..3 {
        queue.append(New { openid: b"o", key: b"k", data: b"null" }, now_ms()).unwrap();
    }
    queue.sync_all().unwrap();
    drop(queue);
    let name = disk.names().into_iter().filter(|name| name.ends_with(".seg")).min().unwrap();
    let at = disk.read(&name).windows(4).position(|bytes| bytes == b"null").unwrap();
    disk.poke(&name, at, b"?");
    let alone = Alone::with(open(&disk, now_ms()), |_| {});
    alone.events.send(Event::Stop { within: Duration::ZERO }).unwrap();
    let left = alone.spool.run().ok().unwrap();
    let account = alone.stats.read().account;
    account.check();
    assert_eq!((left, account.damaged, account.pushes.found), (2, 1, 2));
}

#[test]
fn the_spool_waits_awake_for_what_follows_fast_unless_workers_need_the_processor() {
    let outcome = || {
        let message = Message::in_memory(1, 1, 0, New { openid: b"o", key: b"k", data: b"" }, b"");
        let job = Job { message, waiting: None, probe: false, round: 0 };
        Event::Outcome(Box::new(Outcome { job, verdict: None, called: None }))
    };
    let confirmed = || Event::Confirmed;
    let cases: [(&dyn Fn() -> Event, u32, bool); 3] =
        [(&outcome, 0, true), (&confirmed, 0, false), (&outcome, 2, false)];
    for (event, working, awake) in cases {
        let mut alone = Alone::new(|_| {});
        alone.ask(Kind::Push, working, Now::read());
        alone.spool.hand_out(Now::read());
        let mut wait = || {
            alone.spool.rhythm.outcome();
            alone.events.send(event()).unwrap();
            assert!(alone.spool.wait(Now::read()).is_ok());
            let (began, now) = (Instant::now(), Now::read());
            // It sleeps until a moment that has passed.
            alone.spool.stopping = Some(now.at + Duration::from_nanos(1));
            assert!(alone.spool.wait(now).is_err());
            began.elapsed()
        };
        let shortest = (0..100).map(|_| wait()).min().unwrap();
        assert_eq!(shortest >= rhythm::LINGER, awake, "{working}: {shortest:?}");
    }
}

#[test]
fn status_shows_since_when_nothing_goes_out_and_when_the_next_probe_may() {
    let mut alone = Alone::new(|_| {});
    let start = Now::read();
    alone.ask(Kind::Push, 1, start);
    for probes in 0..3 {
        let now = later(start, Duration::from_secs(30) * probes);
        alone.spool.hand_out(now);
        let job = alone.pushes.try_recv().unwrap();
        alone.book(job, Class::Config, now);
        let suspended = alone.stats.suspended.lock();
        let shown = suspended.as_ref().map(|shown| (shown.since, shown.next_probe));
        assert_eq!(shown, Some((start.unix, Some(now.unix + 30))));
    }
}

#[test]
fn the_account_adds_up_at_every_turn_and_says_who_works_and_who_waits() {
    let mut alone = Alone::new(|_| {});
    let start = Now::read();
    let shown = |alone: &mut Alone, now: Now| {
        alone.spool.publish(now);
        let account = alone.stats.read().account;
        account.check();
        account
    };
    assert_eq!(shown(&mut alone, start).queue.oldest, None);
    alone.ask(Kind::Push, 3, start);
    alone.spool.commit().ok().unwrap();
    let account = shown(&mut alone, later(start, Duration::from_secs(1)));
    assert_eq!((account.pushes.accepted, account.pushes.queued), (3, 3));
    assert_eq!((account.queue.oldest, account.hands.busy), (Some(start.ms), 0));

    alone.spool.hand_out(start);
    let account = shown(&mut alone, later(start, Duration::from_secs(2)));
    assert_eq!((account.hands.in_flight(), account.hands.ready(), account.day.sent), (1, 2, 3));
    let now = later(start, Duration::from_secs(5));
    assert_eq!(shown(&mut alone, now).hands.busy, 3_000_000, "one worker, three seconds");

    let job = alone.pushes.try_recv().unwrap();
    let verdict = Some(Verdict::Delivered { duplicate: true, msgid: None });
    let called = Some(Duration::from_millis(90));
    alone.spool.book(Outcome { job, verdict, called }, now);
    let job = alone.pushes.try_recv().unwrap();
    alone.book(job, Class::Permanent, now);
    let account = shown(&mut alone, now);
    assert_eq!((account.pushes.delivered, account.duplicates, account.pushes.queued), (1, 1, 2));
    assert_eq!((account.hands.handed_out, account.hands.unrecorded), (1, 1));
    let between = |counts: crate::stats::Counts| (counts.total(), counts.percentile(50).unwrap());
    assert_eq!(between(alone.stats.latency.read()), (1, Duration::from_millis(100)));
    assert_eq!(between(alone.stats.age.read()), (1, Duration::from_secs(5)));
    let (most, others) = alone.stats.failures.most(9);
    assert_eq!((most.len(), most[0].0.class, others), (1, Class::Permanent, 0));

    // The account is kept for the rates, at most once a second.
    for (seconds, accepted) in [(5, 3), (6, 3)] {
        alone.spool.sample(later(start, Duration::from_secs(seconds)));
        assert_eq!(alone.stats.read().account.pushes.accepted, accepted);
    }
    assert_eq!(alone.stats.read().five_minutes.accepted, 0.0, "nothing since the first look");
}
