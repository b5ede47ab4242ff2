//! How operators steer a daemon that runs: pause, drain, cancel, in every phase that a kill can meet.

use crate::support::{Client, KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::time::Duration;

fn paused(site: &Site) -> Option<String> {
    site.status()["paused"].as_str().map(str::to_owned)
}

/// Longer than a message takes to go out where nothing holds it.
const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn a_pause_keeps_what_comes_in_and_survives_every_end() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    let told = site.ok(&["pause", "--why", "wrong  price\nlist"]);
    assert!(told.contains("is paused"), "{told}");
    let text = paused(&site).unwrap();
    assert!(text.starts_with("paused by ") && text.ends_with(": wrong price list"), "{text}");
    let by = site.status()["paused_by"].clone();
    site.push_many(100);
    let mut client = site.client();
    client.send(1, "s", "null");
    let answer = client.read();
    assert_eq!((answer.code, answer.message), (500, format!("sending suspended: {text}")));
    for killed in [true, false] {
        match killed {
            true => site.kill(),
            false => drop(site.ok(&["stop"])),
        }
        site.start();
        let status = site.status();
        assert_eq!((&status["paused"], &status["paused_by"]), (&json!(text), &by));
        assert_eq!((&status["queue_depth"], &status["suspended"]), (&json!(100), &json!(null)));
    }
    // A look at the state after a while would prove nothing that the last one does not: two restarts sent nothing.
    assert_eq!(sandbox.delivered(), 0);

    let told = site.ok(&["pause", "--why", "another"]);
    assert!(told.contains("it was already") && told.contains("wrong price list"), "{told}");
    assert!(paused(&site).unwrap().ends_with(": another"));
    assert!(site.ok(&["resume"]).contains("sends again, 100 messages"));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), 100);
    assert!(site.ok(&["resume"]).contains("is not paused"));
    site.kill();
    site.start();
    assert_eq!(paused(&site), None);
    let log = site.log();
    assert!(log.contains("wrong price list") && log.contains("resumed by"), "{log}");
}

#[test]
fn what_workers_hold_when_the_pause_comes_ends_as_usual_and_nothing_follows() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 500 }));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    site.push_many(50);
    wait_for("all workers to hold one", || site.count("in_flight") == 4);
    site.ok(&["pause"]);
    wait_for("the workers to come back", || site.count("in_flight") == 0);
    let status = site.status();
    let (delivered, queued) = (&status["pushes"]["delivered"], &status["queue_depth"]);
    let (delivered, queued) = (delivered.as_u64().unwrap(), queued.as_u64().unwrap());
    assert!((4..=8).contains(&delivered) && delivered + queued == 50, "{status}");
    std::thread::sleep(MOMENT);
    assert_eq!(sandbox.delivered(), delivered);
    sandbox.faults(json!({}));
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!((sandbox.delivered(), &sandbox.stats()["repeats"]), (50, &json!(0)));
}

#[test]
fn a_pause_hides_no_other_reason_and_changes_none() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "answer": { "errcode": 48001, "errmsg": "no" } }));
    let site = Site::started(&sandbox, "");
    site.push_many(3);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    site.ok(&["pause", "--why", "lunch"]);
    let status = site.status();
    assert_eq!(status["suspended"], "48001 no");
    assert!(status["paused"].as_str().unwrap().ends_with("lunch"), "{status}");
    let shown = site.ok(&["status"]);
    assert!(shown.contains("48001 no") && shown.contains("lunch"), "{shown}");
    site.ok(&["resume"]);
    let status = site.status();
    assert_eq!((&status["suspended"], &status["paused"]), (&json!("48001 no"), &json!(null)));
    let mut client: Client = site.client();
    client.send(1, "s", "null");
    assert_eq!(client.read().message, "sending suspended: 48001 no");
    assert_eq!(sandbox.stats()["delivered"], 0, "{KEY}");
}

#[test]
fn a_pause_that_cannot_be_read_is_one_and_says_so() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    site.start();
    site.ok(&["pause"]);
    site.ok(&["stop"]);
    let queue = site.folder.path().join("run");
    let mut files = vec![queue];
    let mut found = None;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.ends_with("paused") {
            found = Some(path);
        }
    }
    std::fs::write(found.expect("the file that keeps it"), "{\"by\":").unwrap();
    site.start();
    let text = paused(&site).unwrap();
    assert!(text.contains("cannot be read"), "{text}");
    site.ok(&["resume"]);
    assert_eq!(paused(&site), None);
}
