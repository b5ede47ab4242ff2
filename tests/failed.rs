//! The failed messages: how they are shown, counted, dismissed and requeued; and looking into the queue, from
//! the command line.

use crate::support::{Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::collections::HashSet;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn openids(text: &str) -> Vec<String> {
    lines(text).iter().map(|line| line["openid"].as_str().unwrap().to_owned()).collect()
}

/// Fewer workers run into each other less, and what failed is known when it is counted.
fn failed(site: &Site) -> usize {
    lines(&site.ok(&["failed"])).len()
}

#[test]
fn failed_messages_are_shown_counted_dismissed_and_requeued_once() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {
        "o1": {"errcode": 43004}, "o2": {"errcode": 43004}, "o3": {"errcode": 40003},
    }}));
    let site = Site::started(&sandbox, "");
    site.push_many(10);
    wait_for("three failures", || failed(&site) == 3);
    let shown = lines(&site.ok(&["failed", "--errcode", "40003"]));
    assert_eq!((shown.len(), &shown[0]["openid"]), (1, &json!("o3")));
    assert_eq!(shown[0]["class"], "permanent");
    assert_eq!(shown[0]["data"], json!({"first": "3"}));
    let time = shown[0]["time"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    assert!(shown[0]["errmsg"].as_str().unwrap().starts_with("40003 "));
    assert_eq!(openids(&site.ok(&["failed", "--openid", "o2"])), ["o2"]);
    assert_eq!(openids(&site.ok(&["failed", "--since", "1h", "--limit", "2"])).len(), 2);
    assert_eq!(site.ok(&["failed", "--until", "1h"]), "");
    let counted = site.ok(&["failed", "--count"]);
    let counted: Vec<&str> = counted.lines().map(str::trim_start).collect();
    assert!(
        counted[0].starts_with("40003        1  the openid is not of this account"),
        "{counted:?}"
    );
    assert!(counted[1].starts_with("43004        2  the user does not follow"), "{counted:?}");
    let chinese =
        site.command(&["failed", "--count"]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
    assert!(String::from_utf8(chinese.stdout).unwrap().contains("用户未关注公众号"));

    assert_eq!(site.run(&["failed", "dismiss"]).status.code(), Some(1));
    assert_eq!(site.ok(&["failed", "dismiss", "--openid", "o1"]), "1 dismissed\n");
    assert_eq!(failed(&site), 2);
    let dismissed = lines(&site.ok(&["failed", "--all", "--openid", "o1"]));
    assert_eq!(dismissed[0]["state"], "dismissed");
    assert!(dismissed[0]["changed_by"].is_string() && dismissed[0]["changed"].is_string());

    let ids: HashSet<Value> =
        lines(&site.ok(&["failed"])).iter().map(|line| line["client_msg_id"].clone()).collect();
    sandbox.faults(json!({}));
    assert_eq!(site.ok(&["requeue"]), "2 requeued\n");
    wait_for("what was requeued", || sandbox.delivered() == 9);
    assert_eq!(site.ok(&["requeue"]), "0 requeued\n");
    let delivered = sandbox.ids();
    for (openid, id, _) in &delivered {
        let again = ["o2", "o3"].contains(&openid.as_str());
        assert_eq!(ids.contains(&json!(id)), again, "{openid} under its own id");
    }
    assert_eq!(failed(&site), 0);
    assert_eq!(lines(&site.ok(&["failed", "--all"])).len(), 3);
    // Without a daemon too.
    site.ok(&["stop"]);
    assert_eq!(lines(&site.ok(&["failed", "--all"])).len(), 3);
    assert_eq!(site.ok(&["failed", "dismiss", "--everything"]), "0 dismissed\n");
}

#[test]
fn a_class_that_there_is_not_is_an_error_that_names_those_there_are() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "");
    for command in [&["failed"][..], &["failed", "dismiss"], &["requeue"]] {
        let output = site.run(&[command, &["--class", "nope"]].concat());
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{command:?}");
        for known in ["nope", "permanent", "unknown", "data", "list"] {
            assert!(why.contains(known), "{command:?}: {known} is not in {why}");
        }
    }
    assert_eq!(site.ok(&["failed", "--class", "permanent"]), "");
}

#[test]
fn a_requeue_does_not_meet_what_fails_meanwhile() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let site = Site::started(&sandbox, "");
    site.push_many(2_000);
    wait_for("all to fail", || site.count("failed") == 2_000);
    wait_for("all to be recorded", || failed(&site) == 2_000);
    assert_eq!(site.ok(&["requeue"]), "2000 requeued\n");
    wait_for("all to fail again", || site.count("failed") == 4_000);
    wait_for("all to be recorded again", || failed(&site) == 2_000);
    assert_eq!(sandbox.stats()["repeats"].as_u64().unwrap_or(0) % 2_000, 0);
}

#[test]
fn a_requeue_survives_kill_9_at_any_moment() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let count = 3_000;
    let mut site = Site::started(&sandbox, "[setting]\ntask_worker_num = 16");
    site.push_many(count);
    wait_for("all to be recorded", || failed(&site) == count as usize);
    let ids = |text: &str| -> HashSet<String> {
        lines(text).iter().map(|l| l["client_msg_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = ids(&site.ok(&["failed"]));
    sandbox.faults(json!({}));
    for round in 0..20_u64 {
        let mut requeue = site.command(&["requeue"]);
        requeue.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut requeue = requeue.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(4 + 7 * round % 90));
        site.kill_process(site.pid());
        requeue.wait().unwrap();
        site.start();
    }
    site.ok(&["requeue"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let delivered = sandbox.ids();
    let under: HashSet<String> = delivered.iter().map(|(_, id, _)| id.clone()).collect();
    assert_eq!(under, all, "none is lost, and none came under another id");
    let openids: HashSet<&String> = delivered.iter().map(|(openid, _, _)| openid).collect();
    assert_eq!(openids.len(), count as usize);
    // The failed attempt was the first time that WeChat saw it; only what workers held is seen again.
    let often = delivered.iter().filter(|(_, _, seen)| *seen > 2).count();
    assert!(often <= 20 * 16, "{often} were repeated, more than workers could hold");
    assert_eq!(failed(&site), 0);
}

#[test]
fn an_old_list_is_requeued_once_and_what_is_garbled_in_it_is_named() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let old = |openid: &str, id: &str| {
        json!({"time": "2026-11-23 10:00:00", "openid": openid, "key": crate::support::KEY,
            "data": {"first": "x"}, "attempts": 1, "errcode": 43004,
            "errmsg": "43004 require subscribe", "client_msg_id": id})
        .to_string()
    };
    let text = [
        old("a", "id-1"),
        "garbled".into(),
        old("b", "id-2"),
        old("b", "id-2"),
        old("c", "id-3")[..40].to_owned(),
        // Only both together say which message it is.
        old("b", "id-1"),
        old("b", "id-4"),
    ];
    let list = site.folder.path().join("old.jsonl");
    std::fs::write(&list, text.join("\n")).unwrap();
    let list = list.to_str().unwrap();
    for requeued in [4, 0, 0] {
        let output = site.run(&["requeue", "--file", list]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("{requeued} requeued, 2 lines skipped\n"));
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(why.contains(":2: skipped") && why.contains(":5: skipped"), "{why}");
        assert_eq!(output.status.code(), Some(1));
    }
    wait_for("all of them", || sandbox.delivered() == 4);
    let mut ids: Vec<_> = sandbox.ids().into_iter().map(|(openid, id, _)| (openid, id)).collect();
    ids.sort();
    let expected = [("a", "id-1"), ("b", "id-1"), ("b", "id-2"), ("b", "id-4")];
    assert_eq!(ids, expected.map(|(openid, id)| (openid.to_owned(), id.to_owned())));
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
