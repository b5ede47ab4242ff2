//! mega-bench against a real daemon, and against itself.

use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mega-bench")).args(arguments).output().unwrap()
}

fn measured(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_request_is_counted_and_arrives_once() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let address = site.address.unwrap().to_string();
    let common = [&address[..], "--key", KEY, "--json", "--connections", "5", "--requests", "1000"];
    let push = measured(&[&common[..], &["--window", "16", "--openid-prefix", "push"]].concat());
    assert_eq!((&push["requests"], &push["errors"]), (&json!(1000), &json!(0)));
    assert!(push["latency_us"]["p50"].as_f64().unwrap() > 0.0);
    measured(&[&common[..], &["--send", "--openid-prefix", "send"]].concat());
    wait_for("all of them", || sandbox.delivered() == 2000);
    assert_eq!(sandbox.ids().len(), 2000);
    let rate = measured(&[&address, "--key", KEY, "--json", "--requests", "500", "--rate", "1000"]);
    let seconds = rate["seconds"].as_f64().unwrap();
    assert!((0.45..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn errors_are_counted_and_a_failure() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let address = site.address.unwrap().to_string();
    let output = bench(&[&address, "--key", "no-such-key", "--requests", "10"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("10 errors: template key not exists"), "{shown}");
    let output = bench(&["127.0.0.1:1"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect to 127.0.0.1:1"));
}

#[test]
fn a_run_that_breaks_off_shows_what_it_measured_and_who_broke_it() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let address = site.address.unwrap().to_string();
    let killed = std::thread::scope(|scope| {
        let run = scope.spawn(|| bench(&[&address, "--key", KEY, "--json", "--duration", "60"]));
        wait_for("some pushes", || site.count("accepted") > 100);
        site.kill();
        run.join().unwrap()
    });
    assert_eq!(killed.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&killed.stdout).unwrap();
    assert!(report["requests"].as_u64().unwrap() > 100, "{report}");
    assert!(report["broke"].as_str().unwrap().starts_with(&address), "{report}");
}

#[test]
fn another_protocol_than_the_one_asked_for_is_told_at_once() {
    let sandbox = Sandbox::start();
    let output = bench(&[sandbox.url.trim_start_matches("http://"), "--duration", "60"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("what it answers is of another protocol"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
}

/// Ten a second is more than one worker delivers that needs 200 ms each.
#[test]
fn requests_that_were_due_are_counted_however_late_they_are() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 200 }));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 1");
    let address = site.address.unwrap().to_string();
    let arguments = [&address, "--key", KEY, "--json", "--send", "--duration", "1", "--rate", "10"];
    let report = measured(&arguments);
    assert_eq!(report["requests"], 10, "{report}");
    assert!(report["latency_us"]["max"].as_f64().unwrap() > 900_000.0, "{report}");
}

#[test]
fn its_own_ceiling_is_measured_for_every_protocol() {
    for protocol in ["mega", "redis", "beanstalkd"] {
        let arguments = ["--ceiling", "--protocol", protocol, "--json", "--requests", "5000"];
        let echo = measured(&[&arguments[..], &["--window", "8"]].concat());
        assert_eq!((&echo["requests"], &echo["errors"]), (&json!(5000), &json!(0)));
    }
}

#[test]
fn the_bare_loop_posts_messages_of_the_size_asked_for_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let authority = authority.to_str().unwrap();
    let sandbox = Sandbox::with(&["--tls", "--tls-ca", authority]);
    let address = sandbox.url.trim_start_matches("http://");
    let common = [address, "--json", "--connections", "3", "--requests", "50", "--protocol"];
    let https = &["https", "--ca", authority][..];
    for (protocol, size) in [(&["http"][..], 64), (https, 300)] {
        // All of them carry the same client_msg_id.
        sandbox.post("/sandbox/reset", "");
        let size_option = ["--size", &size.to_string()];
        let report = measured(&[&common[..], protocol, &size_option].concat());
        assert_eq!((&report["requests"], &report["errors"]), (&json!(50), &json!(0)));
        let last: Value = serde_json::from_str(&sandbox.get("/sandbox/delivered?limit=1")).unwrap();
        let data = json!({ "first": last["body"]["data"]["first"]["value"] });
        assert_eq!(data.to_string().len(), size);
    }
    for arguments in [&["--protocol", "https"][..], &["--protocol", "redis", "--ca", authority]] {
        let output = bench(&[&[address], arguments].concat());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--ca"));
        assert!(!output.status.success());
    }
}
