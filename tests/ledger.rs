//! What becomes of each message: failures that are recorded before they are done, and the message log.

use crate::support::{Client, KEY, Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

fn failed(site: &Site) -> Vec<Value> {
    site.ok(&["failed"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn message_log(site: &Site) -> PathBuf {
    let day = chrono::Local::now().date_naive();
    site.folder.path().join(format!("logs/test-messages-{day}.log"))
}

fn log_lines(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(message_log(site)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Messages that have failed, recorded or not.
fn decided(site: &Site) -> u64 {
    let status = site.status();
    status["failed"].as_u64().unwrap() + status["unrecorded"].as_u64().unwrap()
}

#[test]
fn a_push_that_failed_is_in_the_queue_or_in_the_ledger_whenever_the_daemon_is_killed() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut site = Site::started(&sandbox, "[setting]\ntask_worker_num = 32");
    let count = 4_000;
    site.push_many(count);
    for round in 0..8_u64 {
        std::thread::sleep(std::time::Duration::from_millis(5 + 11 * round));
        site.kill_process(site.pid());
        site.start();
    }
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    wait_for("every message to be in the ledger", || failed(&site).len() >= count as usize);
    let rows = failed(&site);
    let openids: HashSet<&str> = rows.iter().map(|row| row["openid"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), openids.len()), (count as usize, count as usize));
}

#[test]
fn a_ledger_that_was_moved_or_removed_while_it_is_written_is_begun_anew() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let site = Site::started(&sandbox, "");
    site.push_many(10);
    wait_for("ten failures", || failed(&site).len() == 10);
    let file = site.folder.path().join("run/test.ledger.db");
    std::fs::remove_file(&file).unwrap();
    site.push_many(5);
    wait_for("the next failures", || failed(&site).len() == 5);
    assert!(site.log().contains("was moved or removed"));
    assert!(site.status()["ledger"].is_null());
    assert_eq!(site.count("damaged"), 1, "whoever looks sees it until the next start");
}

#[test]
fn verdicts_that_somebody_removes_while_they_are_needed_are_made_anew() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut site = Site::started(&sandbox, "");
    site.client().push(1, "first", "null");
    wait_for("the first failure", || failed(&site).len() == 1);
    let run = site.folder.path().join("run");
    let other = rusqlite::Connection::open(run.join("test.ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    site.push_many(100);
    wait_for("all to fail", || site.count("unrecorded") == 100);
    let verdicts = run.join("test.queue/verdicts");
    std::fs::remove_file(&verdicts).unwrap();
    let kept = || std::fs::read_to_string(&verdicts).unwrap_or_default().matches("number").count();
    wait_for("what is kept to be there again", || kept() == 100);
    assert!(site.log().contains("was removed or replaced while it was in use"));
    site.kill();
    site.start();
    wait_for("the verdicts to be known", || site.count("unrecorded") == 100);
    other.execute_batch("ROLLBACK").unwrap();
    wait_for("all to be recorded", || failed(&site).len() == 101);
    assert!(sandbox.ids().iter().all(|(.., times)| *times == 1), "{:?}", sandbox.ids());
}

#[test]
fn a_ledger_that_is_damaged_at_the_start_is_set_aside_and_stops_nobody() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut site = Site::new(&sandbox, "");
    let run = site.folder.path().join("run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("test.ledger.db"), "garbage ".repeat(1_000)).unwrap();
    site.start();
    site.push_many(3);
    wait_for("three failures", || failed(&site).len() == 3);
    assert!(run.join("test.ledger.db.bad").exists());
    assert!(site.log().contains(".ERROR: the ledger"));
}

/// A file system of 8 MiB that can be filled.
struct Small(PathBuf);

impl Small {
    /// None if this user cannot mount one.
    fn mount(folder: PathBuf) -> Option<Small> {
        if !rustix::process::geteuid().is_root() {
            println!("not run: only root can mount a small filesystem");
            return None;
        }
        std::fs::create_dir_all(&folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=8M", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&folder).status();
        assert!(mounted.unwrap().success());
        Some(Small(folder))
    }

    /// Until nothing more fits.
    fn fill(&self) {
        let _ = std::fs::write(self.0.join("filler"), vec![1; 16 << 20]);
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn while_the_ledger_cannot_be_written_nobody_waits_and_no_restart_has_wechat_asked_again() {
    let sandbox = Sandbox::start();
    let settings = "[server]\nledger_file = small/ledger.db\n[setting]\nstop_timeout = 60s";
    let mut site = Site::new(&sandbox, settings);
    let Some(small) = Small::mount(site.folder.path().join("small")) else { return };
    site.start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    site.push_many(20);
    wait_for("the first to be recorded", || failed(&site).len() == 20);
    small.fill();
    let count = 300;
    let mut client = site.client();
    for n in 0..count {
        client.push(n, &format!("stuck{n}"), &format!(r#"{{"first":"{}"}}"#, "x".repeat(500)));
        client.read();
    }
    wait_for("all to fail", || decided(&site) == 20 + u64::from(count));
    wait_for("the status to say so", || site.status()["ledger"].is_string());
    let calls = || sandbox.stats()["requests"].as_u64().unwrap();
    let before = calls();

    // Whoever asks for what it cannot do is told at once.
    let asked = Instant::now();
    for command in [&["requeue", "--openid", "o1"][..], &["failed", "dismiss", "--openid", "o2"]] {
        let refused = site.run(command);
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && why.contains("full"), "{command:?}: {why}");
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

    let asked = Instant::now();
    site.ok(&["stop"]);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    for killed in [true, true, false] {
        site.start();
        wait_for("all to have failed", || decided(&site) == u64::from(count));
        wait_for("the status to say so", || site.status()["ledger"].is_string());
        if killed {
            site.kill();
        }
    }
    small.clear();
    wait_for("all to be recorded", || failed(&site).len() == 320);
    wait_for("all to be done", || site.count("queue_depth") == 0);
    assert_eq!(calls(), before, "WeChat was called again");
    let rows = failed(&site);
    assert!(rows.iter().all(|row| row["attempts"] == 1 && row["errcode"] == 43004), "{rows:?}");
    sandbox.faults(json!({}));
    // What is requeued under the same client_msg_id is another matter.
    assert_eq!(site.ok(&["requeue", "--openid", "stuck7"]), "1 requeued\n");
    wait_for("one more call", || sandbox.delivered() == 1);
    site.ok(&["stop"]);
}

#[test]
fn while_the_ledger_cannot_be_written_the_verdict_is_kept_and_wechat_is_not_asked_again() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[server]\nledger_file = small/ledger.db");
    let Some(small) = Small::mount(site.folder.path().join("small")) else { return };
    site.start();
    small.fill();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    site.push_many(1_500);
    wait_for("the status to say so", || site.status()["ledger"].is_string());
    let calls = || sandbox.stats()["calls"].as_u64().or(sandbox.stats()["requests"].as_u64());
    let seen = || sandbox.ids().iter().map(|(_, _, seen)| seen).sum::<u64>();
    wait_for("no more to be handed out", || {
        let before = (seen(), calls());
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        before == (seen(), calls())
    });
    let (depth, failures) = (site.count("queue_depth"), site.count("unrecorded"));
    assert_eq!(depth, 1_500, "none is done that is not recorded");
    assert!((1_024..1_500).contains(&failures), "{failures}");
    assert!(site.log().contains("stay in the queue until they can be recorded"));
    small.clear();
    wait_for("all to be recorded", || failed(&site).len() == 1_500);
    wait_for("all to be done", || site.count("queue_depth") == 0);
    assert_eq!(site.count("failed"), 1_500, "each was decided once");
    assert!(site.status()["ledger"].is_null());
    site.ok(&["stop"]);
}

#[test]
fn every_message_that_ends_is_a_line_and_a_moved_log_is_begun_anew() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"bad": {"errcode": 43004}, "bad-send": {"errcode": 40003}}}));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.push(1, "good", r#"{"first":"1"}"#);
    client.push(2, "bad", r#"{"first":"1"}"#);
    client.send(3, "用户", "null");
    client.send(4, "bad-send", "null");
    (0..4).for_each(|_| drop(client.read()));
    wait_for("four lines", || log_lines(&site).len() == 4);
    let lines = log_lines(&site);
    let words = |openid: &str| -> Vec<String> {
        let line = lines.iter().find(|line| line.split(' ').nth(2) == Some(openid));
        let line = line.unwrap_or_else(|| panic!("{openid} is not in {lines:?}"));
        line.split(' ').map(str::to_owned).collect()
    };
    let good = words("good");
    assert_eq!(good.len(), 12, "{good:?}");
    assert!(chrono::DateTime::parse_from_rfc3339(&good[0]).is_ok());
    assert_eq!([&good[1], &good[3], &good[6], &good[9], &good[10]], ["push", KEY, "1", "ok", "0"]);
    assert_eq!((good[4].len(), good[5].parse::<u64>().is_ok()), (32, true), "{good:?}");
    let bad = words("bad");
    assert_eq!([&bad[1], &bad[5], &bad[9], &bad[10]], ["push", "-", "permanent", "43004"]);
    assert_eq!(words("用户")[1], "send");
    assert_eq!([&words("bad-send")[9], &words("bad-send")[10]], ["permanent", "40003"]);

    let moved = site.folder.path().join("moved.log");
    std::fs::rename(message_log(&site), &moved).unwrap();
    let pid = rustix::process::Pid::from_raw(site.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    wait_for("lines in a new file", || {
        client.push(5, "later", "null");
        client.read();
        !log_lines(&site).is_empty()
    });
    assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().take(4).count(), 4);
}

#[test]
fn the_line_of_a_send_has_the_address_of_its_client() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"bad-send": {"errcode": 40003}}}));
    let site = Site::started(&sandbox, "[server]\nlisten[] = [::1]:0");
    let listen = site.status()["listen"].as_array().unwrap().clone();
    let mut clients: Vec<Client> = listen
        .iter()
        .map(|address| Client::connect(address.as_str().unwrap().parse().unwrap()))
        .collect();
    clients[0].send(1, "over-4", "null");
    clients[0].send(2, "bad-send", "null");
    clients[0].push(3, "pushed", "null");
    clients[1].send(4, "over-6", "null");
    (0..3).for_each(|_| drop(clients[0].read()));
    clients[1].read();
    site.ok(&["send", "by-command", KEY]);
    wait_for("five lines", || log_lines(&site).len() == 5);
    let lines = log_lines(&site);
    let client = |openid: &str| {
        let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = lines.iter().map(words).find(|words| words[2] == openid);
        line.unwrap_or_else(|| panic!("{openid} is not in {lines:?}"))[11].clone()
    };
    let clients = ["over-4", "bad-send", "over-6", "by-command", "pushed"].map(client);
    assert_eq!(clients, ["127.0.0.1", "127.0.0.1", "::1", "-", "-"]);
}

#[test]
fn a_message_is_found_wherever_it_is() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"failing": {"errcode": 43004}}}));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    for (n, openid) in ["delivered", "failing"].into_iter().enumerate() {
        client.push(n as u32, openid, r#"{"first":"1"}"#);
        assert_eq!(client.read().code, 200);
    }
    let find = |what: &str| -> Vec<Value> {
        let found = site.run(&["find", what]);
        let found = String::from_utf8(found.stdout).unwrap();
        found.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let places = |found: &[Value]| -> Vec<String> {
        found.iter().map(|found| found["where"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the line", || places(&find("delivered")) == ["log"]);
    wait_for("both traces of the failure", || places(&find("failing")) == ["log", "ledger"]);
    let id = find("failing")[1]["client_msg_id"].as_str().unwrap().to_owned();
    assert_eq!(find(&id), find("failing"));
    assert_eq!(find("delivered")[0]["class"], "ok");
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    client.push(3, "waiting", "null");
    assert_eq!(client.read().code, 200);
    assert_eq!(places(&find("waiting")), ["queue"]);
    let nowhere = site.run(&["find", "nobody"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert_eq!(site.run(&["find", "waiting"]).status.code(), Some(0));
}

#[test]
fn rows_end_after_the_days_that_they_are_kept() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "[server]\nfailed_keep = 30");
    let line = |id: &str, time: &str| json!({"time": time, "openid": "o", "key": "gone", "data": null, "client_msg_id": id});
    let list = site.folder.path().join("old.jsonl");
    let text = format!("{}\n{}\n", line("old", "2020-01-01 00:00:00"), line("new", "1h"));
    std::fs::write(&list, text).unwrap();
    site.ok(&["requeue", "--file", list.to_str().unwrap()]);
    // They fail again, as their template is not there.
    wait_for("both to fail again", || failed(&site).len() == 2);
    site.ok(&["stop"]);
    let ledger = site.folder.path().join("run/test.ledger.db");
    let database = rusqlite::Connection::open(ledger).unwrap();
    database.execute("UPDATE failed SET time = 1000 WHERE id = 'old'", []).unwrap();
    drop(database);
    site.start();
    wait_for("the old one to be gone", || failed(&site).len() == 1);
    assert_eq!(failed(&site)[0]["client_msg_id"], "new");
}
