//! What administrators order, and what an end in the middle leaves of it.

use super::*;
use crate::queue::{Purpose, Which};
use crate::traffic::steer::Steered;

fn cancel_all() -> Steering {
    let which = Which { key: Some("k".into()), ..Which::default() };
    Steering::Cancel { which, purpose: Purpose::End }
}

/// Sweeps as far as it goes without the ledger; returns what it is given.
fn sweep(alone: &mut Alone, now: Now) -> Vec<crate::traffic::ledger::Failure> {
    alone.spool.sweep(now).ok().unwrap();
    let failures = alone.notes.try_iter().map(|note| match note {
        Note::Failed(failure) => *failure,
        _ => panic!("another note"),
    });
    failures.collect()
}

fn record(alone: &mut Alone, failures: &[crate::traffic::ledger::Failure]) {
    let tickets: Vec<_> = failures.iter().filter_map(|it| it.message.ticket()).collect();
    let cancelled = tickets.len();
    alone.spool.turn(Event::Recorded { tickets, cancelled }).ok().unwrap();
}

#[test]
fn an_order_that_cannot_be_kept_cancels_nothing_and_says_so() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 3, now);
    let run = alone.folder.path().join("run");
    std::fs::create_dir(run.join("cancels.new")).unwrap();
    let told = steer(&mut alone, cancel_all(), now);
    assert!(
        told[0].starts_with("nothing is cancelled: ") && told[0].contains(" pause"),
        "{told:?}"
    );
    assert!(sweep(&mut alone, now).is_empty());
    alone.spool.hand_out(now);
    assert_eq!(alone.pushes.len(), 3);
    assert!(!run.join("cancels").exists());
}

#[test]
fn an_orders_count_and_the_accounts_are_of_one_moment() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 800, now);
    alone.spool.commit().ok().unwrap();
    steer(&mut alone, cancel_all(), now);
    let mut rounds = 0;
    loop {
        let failures = sweep(&mut alone, now);
        alone.spool.publish(now);
        let reading = alone.stats.read();
        reading.account.check();
        let (order, cancelled) = (&reading.cancels[0], reading.account.pushes.cancelled);
        assert_eq!(order.count, cancelled + reading.account.hands.unrecorded, "round {rounds}");
        if order.done {
            assert_eq!((order.count, order.at_least), (800, false));
            break;
        }
        record(&mut alone, &failures);
        alone.spool.queue.commit(Durability::Never).unwrap();
        rounds += 1;
    }
    assert!(rounds >= 2, "{rounds}");
}

#[test]
fn how_many_were_cancelled_is_known_after_a_stop_and_told_as_the_least_after_a_crash() {
    for killed in [false, true] {
        let disk = Simulated::default();
        let mut alone = Alone::with(open(&disk, now_ms()), |_| {});
        let now = Now::read();
        alone.ask(Kind::Push, 800, now);
        steer(&mut alone, cancel_all(), now);
        let caught = sweep(&mut alone, now).len() as u64;
        assert!((1..800).contains(&caught), "{caught}");
        let Alone { spool, folder, .. } = alone;
        match killed {
            true => drop(spool),
            false => drop(spool.end().ok().unwrap()),
        }
        for killed_again in [false, true] {
            let again = Alone::at(&folder, open(&disk, now_ms()), |_| {});
            let order = again.stats.read().cancels[0].clone();
            let expected = if killed { (0, true) } else { (caught, false) };
            assert_eq!((order.count, order.at_least), expected);
            // A stop that finds nothing done leaves what is known as it was.
            if !killed_again {
                again.spool.end().ok().unwrap();
            }
        }
        let again = Alone::at(&folder, open(&disk, now_ms()), |_| {});
        let order = again.stats.read().cancels[0].clone();
        let least = if killed { 0 } else { caught };
        assert_eq!((order.count, order.at_least), (least, true), "that run was killed");
    }
}

#[test]
fn who_asks_for_an_order_that_is_carried_out_and_forgotten_is_told_nothing_of_it() {
    let mut alone = Alone::new(|_| {});
    assert_eq!(steer(&mut alone, Steering::Progress(7), Now::read()), ["null"]);
}

#[test]
fn whoever_waits_for_a_count_that_waits_for_the_ledger_is_told_so() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 3, now);
    steer(&mut alone, cancel_all(), now);
    assert_eq!(sweep(&mut alone, now).len(), 3);
    *alone.stats.ledger.lock() = Some("the disk is full".into());
    let which = Which { key: Some("k".into()), ..Which::default() };
    let count = Steering::Cancel { which, purpose: Purpose::Count };
    let told = steer(&mut alone, count, now);
    let order: serde_json::Value = serde_json::from_str(&told[0]).unwrap();
    let number = order["number"].as_u64().unwrap();
    let told = steer(&mut alone, Steering::Progress(number), now);
    assert!(told[0].contains(r#""waits":"the disk is full""#), "{told:?}");
}

#[test]
fn what_was_in_hands_when_the_last_run_ended_has_an_attempt_of_unknown_outcome() {
    let disk = Simulated::default();
    let mut alone = Alone::with(open(&disk, now_ms()), |_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 40, now);
    alone.spool.hand_out(now);
    let handed = alone.pushes.len();
    assert!(handed < 40);
    // One has come back, and is no longer unknown; one was not begun.
    let job = alone.pushes.try_recv().unwrap();
    alone.book(job, Class::Later, now);
    let job = alone.pushes.try_recv().unwrap();
    alone.spool.take_back(job, now);
    alone.spool.queue.commit(Durability::Never).unwrap();
    drop(alone);

    let mut alone = Alone::with(open(&disk, now_ms()), |_| {});
    let now = later(Now::read(), Duration::from_millis(1));
    steer(&mut alone, cancel_all(), now);
    let failures = sweep(&mut alone, now);
    assert_eq!(failures.len(), 40);
    let unclear = failures.iter().filter(|it| it.text.contains("has an unknown outcome"));
    let unclear: Vec<u64> = unclear.filter_map(|it| it.message.unclear_since()).collect();
    assert_eq!(unclear.len(), handed - 2);
    assert!(unclear.iter().all(|since| since.abs_diff(now.ms) < 60_000), "{unclear:?}");
}

#[test]
fn a_push_that_had_to_wait_for_a_send_is_looked_at_again_before_it_goes() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.ask(Kind::Push, 1, now);
    let mut message = alone.spool.queue.take(now.ms).unwrap();
    message.mark_unclear();
    alone.spool.pushes.peek(message);
    alone.spool.hand_out(later(now, Duration::from_secs(660)));
    assert!(alone.pushes.is_empty());
    let Ok(Note::Failed(failure)) = alone.notes.try_recv() else { panic!("not recorded") };
    assert_eq!(failure.class, Class::Unknown);
}

#[test]
fn a_drained_daemon_that_ends_is_not_called_back() {
    let mut alone = Alone::new(|_| {});
    let now = Now::read();
    alone.spool.when_drained(|| {});
    steer(&mut alone, Steering::Drain, now);
    assert!(steer(&mut alone, Steering::EndDrain, now)[0].contains("\"draining\":true"));
    steer(&mut alone, Steering::Drain, now);
    alone.spool.look_drained();
    for order in [Steering::EndDrain, Steering::Resume] {
        let told = steer(&mut alone, order, now);
        assert!(told[0].starts_with("too late: the daemon stops"), "{told:?}");
        assert!(alone.spool.draining.is_some());
    }
    let told = steer(&mut alone, Steering::Pause { why: String::new() }, now);
    let told: Steered = serde_json::from_str(&told[0]).unwrap();
    assert!(told.stopping && told.draining);
}

#[test]
fn a_pause_for_orders_that_cannot_be_read_keeps_the_operators_reason() {
    for why in ["lunch", ""] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut alone = Alone::at(&folder, open(&Simulated::default(), now_ms()), |_| {});
        steer(&mut alone, Steering::Pause { why: why.into() }, Now::read());
        drop(alone);
        std::fs::write(folder.path().join("run/cancels"), "[{").unwrap();
        let alone = Alone::at(&folder, open(&Simulated::default(), now_ms()), |_| {});
        let paused = alone.stats.paused.lock().clone().unwrap();
        assert_eq!(paused.by, "ann");
        assert!(paused.why.starts_with(why) && paused.why.contains("cancel them again"));
        assert!(folder.path().join("run/cancels.bad").exists());
    }
}

#[test]
fn orders_that_cannot_be_read_stay_in_their_place_where_the_pause_cannot_be_kept() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    std::fs::create_dir_all(run.join("paused.new")).unwrap();
    std::fs::write(run.join("cancels"), "[{").unwrap();
    let mut alone = Alone::at(&folder, open(&Simulated::default(), now_ms()), |_| {});
    assert!(alone.stats.paused.lock().is_some());
    assert!(run.join("cancels").exists() && !run.join("cancels.bad").exists());
    alone.ask(Kind::Push, 1, Now::read());
    alone.spool.hand_out(Now::read());
    assert!(alone.pushes.is_empty());
}

#[test]
fn sends_that_a_stop_cannot_wait_for_are_in_the_message_log() {
    let mut alone = Alone::new(|config| config.log.message_log = Some("messages.log".into()));
    let now = Now::read();
    alone.ask(Kind::Send, 1, now);
    alone.spool.hand_out(now);
    alone.spool.stop(Duration::ZERO, now);
    assert_eq!(alone.spool.sends.in_flight(), 0, "what nobody had begun came back");
    let Alone { spool, blocks, .. } = alone;
    spool.end().ok().unwrap();
    assert_eq!(blocks.try_iter().map(|block| block.lines).sum::<u64>(), 1);

    let mut alone = Alone::new(|config| config.log.message_log = Some("messages.log".into()));
    alone.ask(Kind::Send, 1, now);
    alone.spool.hand_out(now);
    let _held = alone.sends.try_recv().unwrap();
    alone.spool.stop(Duration::ZERO, now);
    let Alone { spool, blocks, .. } = alone;
    spool.end().ok().unwrap();
    let block = blocks.try_recv().unwrap();
    let line = String::from_utf8(block.bytes).unwrap();
    assert!(line.contains(" send o k ") && line.contains(" 1 ") && line.contains(" stopping "));
}
