//! WeChat cannot be reached, limits, or refuses: who sends meanwhile, what it costs, and how it ends.

use crate::support::{Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn suspended(site: &Site) -> Option<String> {
    site.status()["suspended"].as_str().map(str::to_owned)
}

/// Nothing listens where the sandbox was.
fn gone(sandbox: Sandbox) -> String {
    let address = sandbox.url.trim_start_matches("http://").to_owned();
    drop(sandbox);
    address
}

fn assert_all_delivered_once(site: &Site, sandbox: &Sandbox, count: usize) {
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(site.count("failed"), 0);
    let ids = sandbox.ids();
    assert_eq!(ids.len(), count);
}

#[test]
fn an_outage_longer_than_all_retries_fails_no_message_and_says_why_nothing_goes_out() {
    let sandbox = Sandbox::start();
    let more =
        "[queue]\nretry_base = 1ms\nretry_cap = 2ms\nretry_max = 2\n[log]\nlog_level = warning";
    let site = Site::new(&sandbox, more);
    let address = gone(sandbox);
    let mut site = site;
    site.start();
    site.push_many(2_000);
    wait_for("sending to stop", || {
        suspended(&site).is_some_and(|why| why.starts_with("unreachable: "))
    });
    let status = site.status();
    for time in ["suspended_since", "next_probe"] {
        assert!(status[time].as_str().is_some_and(|t| t.len() >= 20), "{status}");
    }
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((site.count("failed"), site.count("queue_depth")), (0, 2_000));
    assert_eq!(site.log().matches("WeChat gives no usable answer").count(), 1, "{}", site.log());
    let sandbox = Sandbox::with(&["--listen", &address]);
    assert_all_delivered_once(&site, &sandbox, 2_000);
    assert_eq!(suspended(&site), None);
}

#[test]
fn an_outage_of_bad_gateways_costs_no_more_than_what_was_in_flight() {
    let sandbox = Sandbox::start();
    let more =
        "[setting]\ntask_worker_num = 4\n[queue]\nretry_base = 1ms\nretry_cap = 2ms\nretry_max = 3";
    let site = Site::started(&sandbox, more);
    sandbox.faults(json!({"answer": {"http_status": 502}}));
    site.push_many(1_000);
    wait_for("sending to stop", || suspended(&site).is_some());
    std::thread::sleep(Duration::from_secs(4));
    let asked = sandbox.stats()["requests"].as_u64().unwrap();
    assert!(asked < 60, "{asked} calls although nothing gets through");
    sandbox.faults(json!({}));
    assert_all_delivered_once(&site, &sandbox, 1_000);
}

#[test]
fn a_single_message_survives_an_outage_too() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[queue]\nretry_base = 500ms\nretry_cap = 1s");
    sandbox.faults(json!({"answer": {"http_status": 503}}));
    site.push_many(1);
    wait_for("sending to stop", || suspended(&site).is_some());
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(site.count("failed"), 0, "{}", site.log());
    sandbox.faults(json!({}));
    assert_all_delivered_once(&site, &sandbox, 1);
}

#[test]
fn messages_that_concern_only_their_recipients_do_not_hold_up_recovery() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"http_status": 502}}));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 2");
    site.push_many(20);
    wait_for("sending to stop", || suspended(&site).is_some());
    let refused: Vec<Value> = (0..20).map(|_| json!({"errcode": 43101})).collect();
    let refused = (0..20).map(|n| format!("o{n}")).zip(refused);
    sandbox.faults(json!({"openids": Value::Object(refused.collect())}));
    let began = Instant::now();
    wait_for("sending to go on", || suspended(&site).is_none());
    wait_for("all to have an outcome", || site.count("queue_depth") == 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn where_only_sends_come_one_of_them_finds_out_that_sending_may_go_on() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"http_status": 502}}));
    let site =
        Site::started(&sandbox, "[wechat]\nsend_retry_for = 0\n[setting]\ntask_worker_num = 2");
    let mut client = site.client();
    let mut answers = Vec::new();
    wait_for("sending to stop", || {
        client.send(1, "o", "null");
        answers.push(client.read().message);
        suspended(&site).is_some()
    });
    client.send(2, "o", "null");
    let at_once = client.read();
    assert!(at_once.message.starts_with("sending suspended: unreachable: "), "{at_once:?}");
    sandbox.faults(json!({}));
    wait_for("a send to go through", || {
        client.send(3, "o", "null");
        client.read().code == 200
    });
    assert_eq!(suspended(&site), None);
}

#[test]
fn a_send_in_the_shadow_of_the_days_limit_is_answered_at_once() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\ndaily_limit = 3");
    site.push_many(5);
    wait_for("the limit to be reached", || sandbox.delivered() == 3);
    let mut client = site.client();
    let began = Instant::now();
    client.send(1, "o", "null");
    let answer = client.read();
    assert_eq!(answer.message, "sending suspended: daily_limit is reached");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(suspended(&site).unwrap().contains("daily_limit = 3"));
    site.ok(&["restart"]);
    assert_eq!(sandbox.delivered(), 3, "the day goes on after a restart");
}

#[test]
fn sends_and_pushes_in_one_channel_have_room_for_both() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 5}));
    for first in ["on", "off"] {
        let more = format!("[setting]\ntask_worker_num = 1\n[queue]\nsend_first = {first}");
        let site = Site::started(&sandbox, &more);
        let mut client = site.client();
        for n in 0..200 {
            client.push(n, &format!("p{first}{n}"), "null");
            client.send(1_000 + n, &format!("s{first}{n}"), "null");
        }
        let codes: Vec<u16> = (0..400).map(|_| client.read().code).collect();
        assert_eq!(codes, [200; 400]);
        wait_for("the pushes", || site.count("queue_depth") == 0);
        assert_eq!(site.count("in_flight"), 0);
    }
    assert_eq!(sandbox.ids().len(), 800);
}

#[test]
fn messages_that_the_door_turns_away_hold_up_nobody() {
    let sandbox = Sandbox::start();
    let turned_away = (0..20).map(|n| (format!("o{n}"), json!({"http_status": 413})));
    sandbox.faults(json!({"openids": Value::Object(turned_away.collect())}));
    let site = Site::started(&sandbox, "[queue]\nretry_base = 50ms\nretry_cap = 100ms");
    site.push_many(200);
    wait_for("all to have an outcome", || site.count("queue_depth") == 0);
    assert_eq!((sandbox.delivered(), site.count("failed")), (180, 20));
    let failed = site.ok(&["failed", "--class", "once"]);
    assert_eq!(failed.lines().count(), 20, "{failed}");
    assert!(failed.contains("HTTP 413"));
}

/// Takes a minute: two probes in vain, 30 s apart.
#[test]
fn probes_go_on_until_one_gets_through() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "answer": { "errcode": 48001 } }));
    let site = Site::started(&sandbox, "");
    site.push_many(100);
    let mut next = Vec::new();
    let until = Instant::now() + Duration::from_secs(150);
    while site.count("queue_depth") > 0 {
        assert!(Instant::now() < until, "{next:?}: {}", site.status());
        // What stands there is a time, and another one after each probe.
        if let Some(at) = site.status()["next_probe"].as_str()
            && next.last().is_none_or(|last| last != at)
        {
            next.push(at.to_owned());
        }
        if next.len() == 3 {
            sandbox.faults(json!({}));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(next.len() >= 3, "{next:?}");
    assert_all_delivered_once(&site, &sandbox, 100);
}

#[test]
fn an_outage_that_answers_http_400_or_a_code_that_nobody_knows_fails_no_message() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "[queue]\nretry_base = 50ms\nretry_cap = 100ms");
    for (round, fault) in
        [json!({"http_status": 400}), json!({"errcode": 99_001})].iter().enumerate()
    {
        sandbox.faults(json!({"answer": fault}));
        site.push_many(200);
        wait_for("sending to stop", || suspended(&site).is_some());
        assert_eq!((site.count("failed"), site.count("queue_depth")), (0, 200), "{fault}");
        // Whatever the time is of the next probe.
        site.ok(&["stop"]);
        sandbox.faults(json!({}));
        site.start();
        wait_for("all to be delivered", || site.count("queue_depth") == 0);
        assert_eq!(sandbox.delivered(), 200 * (round as u64 + 1), "{fault}");
    }
    assert_eq!(site.ok(&["failed"]), "");
}
