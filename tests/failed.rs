//! The failed list, and looking into the queue, from the command line.

use crate::support::{Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::path::PathBuf;

fn list(site: &Site) -> PathBuf {
    let entries = std::fs::read_dir(site.folder.path().join("logs")).unwrap().flatten();
    let mut lists = entries.map(|entry| entry.path());
    lists.find(|path| path.extension().is_some_and(|ending| ending == "jsonl")).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn failed_messages_are_shown_counted_and_pushed_again_once() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {
        "o1": {"errcode": 43004}, "o2": {"errcode": 43004}, "o3": {"errcode": 40003},
    }}));
    let site = Site::started(&sandbox, "");
    site.push_many(10);
    wait_for("three failures", || site.count("failed") == 3);
    assert_eq!(lines(&site.ok(&["failed"])).len(), 3);
    assert_eq!(lines(&site.ok(&["failed", "--errcode", "40003"]))[0]["openid"], "o3");
    let counted = site.ok(&["failed", "--count"]);
    let counted: Vec<Vec<&str>> =
        counted.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(counted, [["40003", "1"], ["43004", "2"]]);
    sandbox.faults(json!({}));
    let list = list(&site);
    assert_eq!(site.ok(&["requeue", list.to_str().unwrap()]), "3 pushed, 0 refused\n");
    wait_for("what was pushed again", || sandbox.delivered() == 10);
    assert!(sandbox.get("/sandbox/delivered").contains(r#""openid":"o3""#));
    assert_eq!(site.ok(&["requeue", list.to_str().unwrap()]), "0 pushed, 0 refused\n");
}

#[test]
fn a_requeue_that_was_interrupted_goes_on_where_it_was() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut site = Site::started(&sandbox, "");
    site.push_many(2000);
    wait_for("all to fail", || site.count("failed") == 2000);
    sandbox.faults(json!({}));
    let list = list(&site);
    // Killed at any moment, and once the daemon is gone too.
    for pause in [3, 8, 15] {
        let mut requeue = site.command(&["requeue", list.to_str().unwrap()]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        requeue.kill().unwrap();
        requeue.wait().unwrap();
    }
    site.ok(&["stop"]);
    let refused = site.run(&["requeue", list.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    site.start();
    let last = site.run(&["requeue", list.to_str().unwrap()]);
    assert!(last.status.success());
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    let again: std::collections::HashSet<&str> = ids.iter().map(|id| id.0.as_str()).collect();
    assert_eq!(ids.len(), again.len(), "none was pushed twice");
    assert!(again.len() >= 2000 - 4, "{} of 2000, one in doubt for each kill", again.len());
}

#[test]
fn the_queue_is_shown_while_the_daemon_runs_and_when_it_does_not() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let site = Site::started(&sandbox, "");
    site.push_many(50);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    for running in [true, false] {
        if !running {
            site.ok(&["stop"]);
        }
        let records = lines(&site.ok(&["queue", "dump", "--ready"]));
        assert_eq!(records.len(), 50);
        assert_eq!(records[7]["openid"], "o7");
        assert_eq!(records[7]["data"], json!({"first": "7"}));
        assert_eq!(records[7]["client_msg_id"].as_str().unwrap().len(), 32);
        let segments = lines(&site.ok(&["queue", "check"]));
        assert_eq!(segments.iter().map(|s| s["ready"].as_u64().unwrap()).sum::<u64>(), 50);
    }
    let folder = site.folder.path().join("run/test.queue");
    let segment = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let segment =
        segment.filter(|path| path.extension().is_some_and(|e| e == "seg")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let check = site.run(&["queue", "check"]);
    assert_eq!(check.status.code(), Some(1));
    let shown = lines(&String::from_utf8(check.stdout).unwrap());
    assert_eq!(shown[0]["damage"].as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["ready"], 49);
}
