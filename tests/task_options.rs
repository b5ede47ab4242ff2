//! What mega-task can be told: when to begin, what to write, and how to say what happens.

use crate::support::desk::{Desk, address, end_of};
use crate::support::{KEY, Sandbox, Site, wait_for};
use encoding_rs::GBK;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn json_events_tell_what_happens_in_its_order() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o3": {"errcode": 43004}}, "latency_ms": 20}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(300));
    site.ok(&["pause", "--why", "lunch"]);
    let arguments = desk.task(&to, &list, &["--json", "--every", "1", "--rate", "200"]);
    let mut events = desk.events(&arguments);
    let mut seen = vec![events.news(), events.news()];
    let waits = &seen[1];
    assert_eq!(waits["reason"], "refused", "{waits}");
    assert!(waits["why"].as_str().unwrap().starts_with("sending suspended: paused"), "{waits}");
    site.ok(&["resume"]);
    seen.push(events.news());
    wait_for("some of them", || desk.done() > 20);
    desk.ends(0, &["pause", "t"]);
    seen.extend(events.by_ref().filter(|event| event["event"] != "progress"));
    assert_eq!(names(&seen), ["started", "waits", "goes_on", "drains", "ended"], "{seen:?}");
    assert_eq!((&seen[4]["how"], &seen[4]["why"]), (&json!("paused"), &Value::Null));
    assert_eq!(end_of(&mut events.child), Some(4));

    let mut events = desk.events(&["resume", "t", "--json", "--every", "1", "--rate", "100"]);
    let seen: Vec<Value> = events.by_ref().collect();
    assert_eq!(end_of(&mut events.child), Some(3));
    let (first, last) = (&seen[0], &seen[seen.len() - 1]);
    assert_eq!((&first["event"], &first["total"]), (&json!("started"), &json!(300)));
    assert_eq!((&last["event"], &last["how"]), (&json!("ended"), &json!("finished")));
    assert!(seen.len() > 2, "how far it is, each second: {seen:?}");
    let done = |event: &Value| {
        ["sent", "failed", "unknown"].map(|name| event[name].as_u64().unwrap()).iter().sum()
    };
    let done: Vec<u64> = seen.iter().map(done).collect();
    assert!(done.is_sorted() && done.last() == Some(&300), "{done:?}");
    assert_eq!(last["errcodes"], json!([{"errcode": 43004, "count": 1}]));
}

/// So many seconds from now, as people write it.
fn at(seconds: u64) -> (u64, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = chrono::DateTime::from_timestamp((now + seconds) as i64, 0).unwrap();
    (now + seconds, time.to_rfc3339())
}

#[test]
fn an_appointed_task_begins_at_its_time_and_can_be_paused_before() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(20));
    let said = desk.ends(2, &desk.task(&to, &list, &["--at", "2026-01-01T09:00+08:00"]));
    assert!(said.contains("is over"), "{said}");
    assert_eq!(desk.ends(0, &["list"]), "");

    let (_, later) = at(3_600);
    let mut events = desk.events(&desk.task(&to, &list, &["--at", &later, "--json"]));
    assert_eq!(events.news()["event"], "started");
    let waits = events.news();
    assert_eq!((&waits["event"], &waits["reason"]), (&json!("waits"), &json!("appointed")));
    wait_for("others to see why it waits", || {
        desk.show("t")["waits"].as_str().is_some_and(|why| why.starts_with("it begins at "))
    });
    desk.ends(0, &["pause", "t"]);
    assert_eq!(events.news()["how"], "paused");
    assert_eq!(end_of(&mut events.child), Some(4));
    assert_eq!(desk.show("t")["waits"], Value::Null);
    let mut events = desk.events(&["resume", "t", "--json"]);
    assert_eq!(events.news()["event"], "started");
    assert_eq!(events.news()["reason"], "appointed", "the appointment holds");
    desk.ends(0, &["end", "t"]);
    assert_eq!(events.news()["how"], "ended");
    assert_eq!(end_of(&mut events.child), Some(5));

    let (begins, soon) = at(3);
    let run = ["run", "--to", &to, "--key", KEY, "--file", &list, "--name", "u"];
    let mut events = desk.events(&[&run[..], &["--at", &soon, "--json"]].concat());
    assert_eq!([events.news(), events.news()].map(|it| it["event"].clone()), ["started", "waits"]);
    let went = loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if sandbox.delivered() > 0 {
            break now;
        }
        assert!(now < Duration::from_secs(begins + 20), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(went >= Duration::from_secs(begins), "{went:?} for {begins}");
    assert_eq!(events.news()["event"], "goes_on");
    assert_eq!(events.news()["how"], "finished");
    assert_eq!(end_of(&mut events.child), Some(0));
}

#[test]
fn a_gbk_result_opens_where_gbk_is_expected() {
    let sandbox = Sandbox::start();
    let refused = json!({"errcode": 43004, "errmsg": "需要关注 😀"});
    sandbox.faults(json!({"openids": {"o3": refused}, "latency_ms": 5}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(200));
    let arguments = desk.task(&to, &list, &["--gbk", "--rate", "200"]);
    let run = |arguments: &[&str]| {
        let mut command = desk.command(arguments);
        let command = command.env("LC_ALL", "zh_CN.UTF-8");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // What is counted of it are the bytes of the file, whatever they mean.
    let mut child = run(&arguments);
    wait_for("the failed one and more", || desk.done() > 20);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(end_of(&mut run(&["resume", "t"])), Some(3));
    let bytes = std::fs::read(desk.folder.path().join("t.result.csv")).unwrap();
    assert!(std::str::from_utf8(&bytes).is_err());
    let text = GBK.decode_without_bom_handling_and_without_replacement(&bytes).expect("it is GBK");
    let mut lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.remove(0), "line,openid,status,errcode,errmsg,meaning,msgid,time");
    let mut openids: Vec<&str> = lines.iter().filter_map(|line| line.split(',').nth(1)).collect();
    openids.sort();
    openids.dedup();
    assert_eq!((lines.len(), openids.len()), (200, 200));
    let failed: Vec<&&str> = lines.iter().filter(|line| line.contains(",failed,")).collect();
    assert!(failed.len() == 1 && failed[0].contains("43004,需要关注 ?,用户未关注"), "{failed:?}");
    // As a list it is read as what it is.
    let data = r#"{"first":"x"}"#;
    let path = desk.folder.path().join("t.result.csv");
    let list = path.to_str().unwrap();
    let said = desk
        .ends(0, &["run", "--to", &to, "--key", KEY, "--file", list, "--data", data, "--dry-run"]);
    assert!(said.contains("200"), "{said}");
}
