//! mega-task while it, mega or both are killed or restarted: each person gets the message once.

use crate::support::desk::{Desk, address, end_of};
use crate::support::{Sandbox, Site, steady_address, wait_for};
use serde_json::json;
use std::process::Child;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Task,
    Mega,
    Both,
}

/// How long from a start to a kill: sometimes before the first message is out.
fn moment(random: &mut fastrand::Rng) -> Duration {
    let most = if random.u8(..3) == 0 { 30 } else { 500 };
    Duration::from_millis(random.u64(..most))
}

/// Runs the task, or goes on with it where it was made before its process was killed.
fn go(desk: &Desk, run: &[&str]) -> Child {
    let made = desk.run(&["show", "t"]).status.success();
    desk.start(if made { &["resume", "t"] } else { run })
}

#[test]
fn kill_9_of_task_and_mega_at_any_moment_sends_to_each_once() {
    let seed = std::env::var("MEGA_TASK_SEED")
        .map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    let rounds = std::env::var("MEGA_TASK_KILLS").map_or(6, |text| text.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 10 }));
    let to = steady_address();
    let more = format!("[server]\nlisten[] = {to}\n[setting]\ntask_worker_num = 16");
    let mut site = Site::started(&sandbox, &more);
    let count = 1_000;
    for round in 0..rounds {
        let mut kills = Vec::new();
        let desk = Desk::new();
        sandbox.post("/sandbox/reset", "");
        let list = desk.list(count);
        let run = desk.task(&to, &list, &["--window", "32"]);
        let mut child = go(&desk, &run);
        for kill in 0..3 {
            let victim = match (kill, random.u8(..3)) {
                (0, _) => [Victim::Task, Victim::Mega, Victim::Both][round % 3],
                (_, 0) => Victim::Mega,
                (_, 1) => Victim::Both,
                _ => Victim::Task,
            };
            let moment = moment(&mut random);
            kills.push((victim, moment));
            let pid = site.pid();
            std::thread::sleep(moment);
            if victim != Victim::Task {
                site.kill_process(pid);
            }
            if victim != Victim::Mega {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            if victim != Victim::Task {
                site.start();
            }
            if victim != Victim::Mega {
                child = go(&desk, &run);
            }
        }
        // A kill after the end leaves nothing to go on with.
        let code = end_of(&mut child);
        assert!(matches!(code, Some(0 | 1)), "it ended with {code:?}: seed {seed}, {kills:?}");
        let shown = desk.show("t");
        let told = format!("round {round}, seed {seed}, {kills:?}: {shown}");
        assert!(shown["stage"] == "finished" && shown["sent"] == count, "{told}");
        eprintln!("{told}");
        desk.assert_each_once(&sandbox, count);
    }
}

#[test]
fn a_restart_of_mega_repeats_nothing_and_the_task_goes_on_by_itself() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 20 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(1_500));
    let mut child = desk.start(&desk.task(&to, &list, &[]));
    for done in [100, 500, 900] {
        wait_for("some of them", || desk.done() >= done);
        site.ok(&["restart"]);
    }
    assert_eq!(end_of(&mut child), Some(0));
    desk.assert_each_once(&sandbox, 1_500);
    assert_eq!(sandbox.stats()["repeats"], 0);
}

/// What may be out was so long ago that no repeat of it would be recognised.
fn grow_old(desk: &Desk) -> usize {
    let journal = desk.folder.path().join("home/t/journal.db");
    let journal = rusqlite::Connection::open(journal).unwrap();
    let mut open: Vec<u8> =
        journal.query_row("SELECT open FROM state", [], |row| row.get(0)).unwrap();
    let mut grown = 0;
    // index, offset, since and turn.
    for open in open.chunks_mut(28) {
        let since = u64::from_le_bytes(open[16..24].try_into().unwrap());
        if since > 0 {
            open[16..24].copy_from_slice(&(since - 600_000).to_le_bytes());
            grown += 1;
        }
    }
    journal.execute("UPDATE state SET open = ?1", [open]).unwrap();
    grown
}

#[test]
fn who_may_have_it_and_can_be_asked_no_more_is_unknown_and_sent_to_only_on_demand() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 8_000 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(6));
    let mut child = desk.start(&desk.task(&to, &list, &["--window", "4"]));
    wait_for("them to be out", || sandbox.stats()["in_flight"] == 4);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(grow_old(&desk) >= 4);
    // Those who were only about to go out are unknown, too: nobody can tell.
    sandbox.faults(json!({}));
    let said = desk.ends(3, &["resume", "t"]);
    let shown = desk.show("t");
    let unknown = shown["unknown"].as_u64().unwrap();
    assert!((4..=6).contains(&unknown), "{shown}");
    assert!(said.contains(&format!("{unknown} unknown of 6")), "{said}");
    let results = desk.results("t");
    let lines = |of: &str| results.iter().filter(|line| line.contains(of)).count() as u64;
    assert_eq!((lines(",unknown,"), lines(",sent,")), (unknown, 6 - unknown));
    let said = desk.ends(1, &["resume", "t"]);
    assert!(said.contains("is finished"), "{said}");
    assert_eq!(desk.ends(1, &["retry", "t"]).matches("nobody of the task").count(), 1);

    desk.ends(0, &["resume", "t", "--resend-unknown"]);
    let shown = desk.show("t");
    assert_eq!((&shown["sent"], &shown["unknown"]), (&json!(6), &json!(0)));
    let results = desk.results("t");
    assert_eq!(results.len() as u64, 6 + unknown, "the later line counts");
    let again = sandbox.ids().iter().filter(|(_, id, _)| id.ends_with("-1-1")).count();
    assert_eq!(again, 1, "another message than the first: another id");
}
