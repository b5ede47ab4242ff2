//! mega-task while it, mega or both are killed or restarted: each person gets the message once.

use crate::support::desk::{Desk, Running, address, end_of};
use crate::support::{DEADLINE, Sandbox, Site, TEMPLATE, steady_address, wait_for};
use serde_json::json;
use std::io::Read;
use std::net::TcpListener;
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
fn go(desk: &Desk, run: &[&str]) -> Running {
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
                child.end_at_once();
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
        assert!(matches!(code, Some(0 | 7)), "it ended with {code:?}: seed {seed}, {kills:?}");
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

#[test]
fn a_connection_that_says_nothing_is_no_mega_and_costs_one_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let desk = Desk::new();
    let (list, template) = (desk.list(100), desk.folder.path().join("template"));
    std::fs::write(&template, TEMPLATE).unwrap();
    let more = ["--connections", "1", "--window", "4", "--template", template.to_str().unwrap()];
    let mut child = desk.start(&desk.task(&to, &list, &more));
    // As what stands before a mega that is away: it takes all, and closes.
    let mut requests = Vec::new();
    for _ in 0..5 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut chunk = [0; 65536];
        let count = stream.read(&mut chunk).unwrap();
        requests.push(chunk[..count].windows(3).filter(|it| it == b"id=").count());
    }
    assert!(requests[0] >= 1 && requests[1..] == [1; 4], "{requests:?}");
    let log = desk.ends(0, &["log", "t"]);
    let said = |what: &str| log.matches(what).count();
    assert_eq!((said("waits: mega is not reached"), said("goes on")), (1, 0), "{log}");
    child.end_at_once();
}

/// Of how many the journal says that a message may be out.
fn in_doubt(desk: &Desk) -> usize {
    let open: Vec<u8> =
        journal(desk).query_row("SELECT open FROM state", [], |row| row.get(0)).unwrap();
    open.chunks(OPEN).filter(|open| open[SINCE] != NOTHING).count()
}

#[test]
fn who_never_went_out_is_in_no_doubt_after_a_kill_while_mega_refuses() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(100));
    site.ok(&["pause"]);
    let mut child = desk.start(&desk.task(&to, &list, &["--window", "4"]));
    // A window of them, and two that tried later whether it still does.
    wait_for("mega to refuse", || site.count("refused") >= 6);
    child.end_at_once();
    assert!(in_doubt(&desk) <= 1, "{} of 100", in_doubt(&desk));
}

/// Bytes of one in the journal's `open`: index, offset, since and turn.
const OPEN: usize = 28;
const SINCE: std::ops::Range<usize> = 16..24;
const NOTHING: [u8; 8] = i64::MIN.to_le_bytes();

fn journal(desk: &Desk) -> rusqlite::Connection {
    rusqlite::Connection::open(desk.folder.path().join("home/t/journal.db")).unwrap()
}

/// What may be out was so long ago that no repeat of it would be recognised.
fn grow_old(desk: &Desk) -> usize {
    let journal = journal(desk);
    let mut open: Vec<u8> =
        journal.query_row("SELECT open FROM state", [], |row| row.get(0)).unwrap();
    let mut grown = 0;
    for open in open.chunks_mut(OPEN) {
        let since = i64::from_le_bytes(open[SINCE].try_into().unwrap());
        if since != i64::MIN {
            open[SINCE].copy_from_slice(&(since - 600_000).to_le_bytes());
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
    let mut child = desk.with_four_out(&sandbox, &address(&site));
    child.end_at_once();
    assert!(grow_old(&desk) > 4, "more are let go out, so that they need not wait");
    // Of them, only those who did are in doubt.
    sandbox.faults(json!({}));
    let said = desk.ends(3, &["resume", "t"]);
    let shown = desk.show("t");
    assert_eq!(shown["unknown"], 4, "{shown}");
    assert!(said.contains("4 unknown of 100"), "{said}");
    let results = desk.results("t");
    let lines = |of: &str| results.iter().filter(|line| line.contains(of)).count() as u64;
    assert_eq!((lines(",unknown,"), lines(",sent,")), (4, 96));
    let said = desk.ends(7, &["resume", "t"]);
    assert!(said.contains("is finished"), "{said}");
    assert_eq!(desk.ends(7, &["retry", "t"]).matches("nobody of the task").count(), 1);

    desk.ends(0, &["resume", "t", "--resend-unknown"]);
    let shown = desk.show("t");
    assert_eq!((&shown["sent"], &shown["unknown"]), (&json!(100), &json!(0)));
    let results = desk.results("t");
    assert_eq!(results.len(), 104, "the later line counts");
    let again = sandbox.ids().iter().filter(|(_, id, _)| id.ends_with("-1-1")).count();
    assert_eq!(again, 1, "another message than the first: another id");
}

/// The machine was started anew after a kill, and its clock says that so many ms have passed: how many are unknown.
fn unknown_after_a_new_start(passed: i64) -> usize {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 2_000 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let mut child = desk.with_four_out(&sandbox, &address(&site));
    child.end_at_once();
    let sql = "UPDATE state SET boot = 'another', changed = changed - ?1";
    journal(&desk).execute(sql, [passed]).unwrap();
    sandbox.faults(json!({}));
    desk.run(&["resume", "t"]);
    let shown = desk.show("t");
    assert_eq!(shown["stage"], "finished");
    let unknown = shown["unknown"].as_u64().unwrap() as usize;
    assert_eq!(shown["sent"], json!(100 - unknown));
    // Nobody gets it twice.
    wait_for("what was out to arrive", || sandbox.ids().len() >= 100 - unknown.saturating_sub(4));
    let mut openids: Vec<String> = sandbox.ids().into_iter().map(|(openid, ..)| openid).collect();
    let count = openids.len();
    openids.sort();
    openids.dedup();
    assert_eq!(openids.len(), count);
    unknown
}

#[test]
fn after_a_new_start_of_the_machine_the_walls_clock_counts_unless_it_was_set_back() {
    assert_eq!(unknown_after_a_new_start(1_000), 0);
    assert!(unknown_after_a_new_start(-3_600_000) >= 4);
}
