//! What `status` tells: every answer is whole, whatever goes on meanwhile.

use crate::support::{Sandbox, Site, wait_for};
use crate::torture::{push_until_killed, send_until_killed};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WORKERS: u64 = 8;

/// The equations of README, and what else holds in each answer.
fn check(status: &Value) {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).expect(path);
    let pushes = |name: &str| number(&format!("/pushes/{name}"));
    assert_eq!(
        pushes("found") + pushes("accepted") + pushes("requeued"),
        pushes("delivered") + pushes("failed") + pushes("lost") + pushes("queued"),
        "{status}"
    );
    let sends = |name: &str| number(&format!("/sends/{name}"));
    assert_eq!(
        sends("accepted"),
        sends("delivered") + sends("failed") + sends("given_up") + sends("waiting"),
        "{status}"
    );
    let (in_flight, ready) = (number("/in_flight"), number("/ready"));
    assert!(in_flight <= number("/workers"), "{status}");
    assert!(ready == 0 || in_flight == number("/workers"), "nobody rests: {status}");
    assert!(in_flight + ready <= pushes("queued") + sends("waiting"), "{status}");
    assert!(number("/unrecorded") + number("/retrying") <= pushes("queued"), "{status}");
    assert_eq!(number("/queue_depth"), pushes("queued"));
    assert!(pushes("queued") > 0 || status["oldest_seconds"].is_null(), "{status}");
    for (sum, part) in
        [("/accepted", "accepted"), ("/delivered", "delivered"), ("/failed", "failed")]
    {
        assert_eq!(number(sum), pushes(part) + sends(part));
    }
    let refusals = status["refusals"].as_object().unwrap().values();
    assert_eq!(number("/refused"), refusals.map(|count| count.as_u64().unwrap()).sum::<u64>());
}

/// Asks until it is told to stop, or nobody answers; returns how many answers there were.
fn ask(site: &Site, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = site.run(&["status", "--json"]);
        match serde_json::from_slice(&asked.stdout) {
            Ok(status) if asked.status.success() => check(&status),
            _ => break,
        }
        answers += 1;
    }
    answers
}

/// Pushes, sends, retries, failures and requeues at once, until the daemon is killed.
fn round(site: &Site, number: usize) -> usize {
    let address = site.address.unwrap();
    let pid = site.pid();
    let mut clients = Vec::new();
    for n in 0..2 {
        let name = format!("push-{number}-{n}");
        clients.push(std::thread::spawn(move || push_until_killed(address, &name)));
        let name = format!("send-{number}-{n}");
        clients.push(std::thread::spawn(move || send_until_killed(address, &name)));
    }
    let mut requeue =
        site.command(&["requeue"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stop = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(site, &stop));
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..300)));
        site.kill_process(pid);
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    requeue.wait().unwrap();
    clients.into_iter().for_each(|client| drop(client.join().unwrap()));
    answers
}

/// MEGA_TORTURE_ROUNDS makes it longer.
#[test]
fn every_answer_adds_up_under_load_kills_and_restarts() {
    let rounds = std::env::var("MEGA_TORTURE_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let sandbox = Sandbox::start();
    let more = format!("[setting]\ntask_worker_num = {WORKERS}\n[queue]\nretry_base = 20ms");
    let mut site = Site::started(&sandbox, &more);
    let mut answers = 0;
    for number in 0..rounds {
        let errcode = if number % 2 == 0 { -1 } else { 43004 };
        let answer = json!({"errcode": errcode, "share": 0.05});
        sandbox.faults(json!({"latency_ms": 1, "latency_jitter_ms": 3, "answer": answer}));
        answers += round(&site, number);
        site.start();
        let status = site.status();
        check(&status);
        assert_eq!(
            (&status["pushes"]["lost"], &status["pushes"]["accepted"]),
            (&json!(0), &json!(0))
        );
    }
    println!("{rounds} kills, {answers} answers under load");
    assert!(answers > rounds);

    // Without a kill nothing is left open between two runs.
    let stopped = site.ok(&["stop"]);
    let left = stopped.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    site.start();
    assert_eq!(site.status()["pushes"]["found"].as_u64(), left, "{stopped}");

    // Nobody is counted twice, or not at all.
    sandbox.faults(json!({"openids": {"o7": {"errcode": 43004}}}));
    site.push_many(500);
    let mut client = site.client();
    (0..20).for_each(|n| client.send(n, if n == 3 { "o7" } else { "s" }, "null"));
    (0..20).for_each(|_| drop(client.read()));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let status = site.status();
    check(&status);
    assert_eq!(status["pushes"]["accepted"], 500);
    assert_eq!(
        (&status["sends"]["delivered"], &status["sends"]["failed"]),
        (&json!(19), &json!(1))
    );
}
