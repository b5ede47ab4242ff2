//! Stops of every kind, under load.

use crate::support::{KEY, Sandbox, Site, push_frame, wait_for};
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

#[test]
fn what_was_answered_200_survives_kill_9() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 2 }));
    let mut site = Site::started(&sandbox, "");
    let mut acked = HashSet::new();
    for round in 0..5 {
        let mut client = site.client();
        for n in 0..3000 {
            client.push(n, &format!("r{round}-{n}"), r#"{"first":"x"}"#);
        }
        for _ in 0..2000 {
            acked.insert(format!("r{round}-{}", client.read().opaque));
        }
        site.kill_process(site.pid());
        site.start();
    }
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    let delivered: HashSet<String> = ids.iter().map(|(openid, _, _)| openid.clone()).collect();
    let lost: Vec<&String> = acked.difference(&delivered).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!(ids.len(), delivered.len(), "no openid has two client_msg_ids");
    let repeated = ids.iter().filter(|(_, _, seen)| *seen > 1).count();
    assert!(repeated <= 5 * 16, "{repeated} were repeated, more than workers could hold");
}

/// MEGA_RESTART_MESSAGES makes it longer.
#[test]
fn ten_restarts_over_several_segments_lose_and_double_nothing() {
    let count = std::env::var("MEGA_RESTART_MESSAGES").map_or(40_000, |text| text.parse().unwrap());
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 20 }));
    let site =
        Site::started(&sandbox, "[setting]\ntask_worker_num = 64\n[queue]\nsegment_size = 4M");
    site.push_many(count);
    assert!(site.count("segments") > 1);
    for _ in 0..10 {
        let stopped = site.ok(&["restart"]);
        assert!(stopped.contains("messages left in the queue"), "{stopped}");
    }
    sandbox.faults(json!({}));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), u64::from(count));
    assert_eq!(sandbox.stats()["repeats"], 0);
    assert_eq!(sandbox.ids().len() as u32, count);
}

#[test]
fn stop_under_load_answers_waiting_sends_and_keeps_its_deadline() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 5000 }));
    let mut site = Site::started(&sandbox, "[setting]\nstop_timeout = 1s");
    let mut client = site.client();
    for n in 0..20 {
        client.push(n, &format!("o{n}"), "null");
        client.send(100 + n, &format!("s{n}"), "null");
    }
    let mut accepted = 0;
    while accepted < 20 {
        let answer = client.read();
        assert_eq!((answer.code, answer.opaque < 100), (200, true));
        accepted += 1;
    }
    let asked = Instant::now();
    site.ok(&["stop"]);
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(2300), "{took:?}");
    for _ in 0..20 {
        let answer = client.read();
        assert_eq!((answer.code, answer.message.as_str()), (500, "stopping"));
    }
    client.assert_closed();
    sandbox.faults(json!({}));
    site.start();
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    assert_eq!(ids.iter().filter(|(openid, _, _)| openid.starts_with('o')).count(), 20);
}

#[test]
fn stop_now_does_not_wait_for_wechat() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "answer": { "hang": true } }));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.write(&push_frame(1, "o", KEY, "null"));
    assert_eq!(client.read().code, 200);
    wait_for("a worker to hold it", || site.count("in_flight") == 1);
    let asked = Instant::now();
    assert!(site.ok(&["stop", "--now"]).contains("1 messages left"));
    assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
}
