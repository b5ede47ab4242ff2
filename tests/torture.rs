//! `kill -9` at random moments under random load, again and again. `scripts/torture` runs many
//! rounds of it.

use crate::support::{Client, KEY, Sandbox, Site, push_frame, wait_for};
use mega::wire::command::{self, Request};
use serde_json::json;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

const WORKERS: usize = 8;

/// What a client knows when its connection breaks.
#[derive(Default)]
pub struct Known {
    /// Pushes answered 200, and sends answered 200.
    acked: Vec<String>,
    asked: usize,
}

/// Pushes in windows of random size, now and then, until the daemon is gone.
pub fn push_until_killed(address: SocketAddr, name: &str) -> Known {
    let mut known = Known::default();
    let mut client = Client::connect(address);
    loop {
        std::thread::sleep(Duration::from_micros(fastrand::u64(..5_000)));
        let window = fastrand::usize(1..60);
        let first = known.asked;
        let mut frames = Vec::new();
        for n in first..first + window {
            let data = format!(r#"{{"first":"{}"}}"#, "x".repeat(fastrand::usize(..400)));
            frames.extend(push_frame(n as u32, &format!("{name}-{n}"), KEY, &data));
        }
        known.asked += window;
        if client.try_write(&frames).is_err() {
            return known;
        }
        for _ in 0..window {
            match client.try_read() {
                Ok(answer) if answer.code == 200 => {
                    known.acked.push(format!("{name}-{}", answer.opaque));
                }
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => return known,
            }
        }
    }
}

/// Sends one message after the other until the daemon is gone.
pub fn send_until_killed(address: SocketAddr, name: &str) -> Known {
    let mut known = Known::default();
    let mut client = Client::connect(address);
    loop {
        let openid = format!("{name}-{}", known.asked);
        let mut frame = Vec::new();
        let (key, data) = (KEY.as_bytes(), &b"null"[..]);
        command::encode_send(
            &mut frame,
            Request { opaque: 1, openid: openid.as_bytes(), key, id: None, data },
        );
        known.asked += 1;
        if client.try_write(&frame).is_err() {
            return known;
        }
        match client.try_read() {
            Ok(answer) if answer.code == 200 => known.acked.push(openid),
            // WeChat's own refusal.
            Ok(answer) if answer.code == 400 => {}
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return known,
        }
    }
}

/// One round of load, ended by SIGKILL at a random moment.
fn round(site: &Site, number: usize, acked: &mut HashSet<String>) -> usize {
    let address = site.address.unwrap();
    let pid = site.pid();
    let mut clients = Vec::new();
    for n in 0..fastrand::usize(1..5) {
        let name = format!("push-{number}-{n}");
        clients.push(std::thread::spawn(move || push_until_killed(address, &name)));
    }
    for n in 0..fastrand::usize(..3) {
        let name = format!("send-{number}-{n}");
        clients.push(std::thread::spawn(move || send_until_killed(address, &name)));
    }
    // What has failed so far is to go out again, as far as it gets.
    let requeue = site.command(&["requeue"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    std::thread::sleep(Duration::from_millis(fastrand::u64(1..250)));
    site.kill_process(pid);
    requeue.unwrap().wait().unwrap();
    let known: Vec<Known> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    acked.extend(known.iter().flat_map(|known| known.acked.iter().cloned()));
    known.iter().map(|known| known.asked).sum()
}

#[test]
fn kill_9_loses_nothing_and_doubles_nothing() {
    let rounds = std::env::var("MEGA_TORTURE_ROUNDS").map_or(10, |text| text.parse().unwrap());
    let sandbox = Sandbox::start();
    let more = format!("[setting]\ntask_worker_num = {WORKERS}\n[queue]\nretry_base = 20ms");
    let mut site = Site::started(&sandbox, &more);
    let (mut acked, mut asked) = (HashSet::new(), 0);
    for number in 0..rounds {
        let errcode = if number % 2 == 0 { -1 } else { 43004 };
        let answer = json!({"errcode": errcode, "share": 0.02});
        sandbox.faults(json!({"latency_ms": 1, "latency_jitter_ms": 3, "answer": answer}));
        asked += round(&site, number, &mut acked);
        site.start();
        assert_eq!(site.count("damaged"), 0);
    }
    // What is left is delivered at once.
    sandbox.faults(json!({}));
    let (mut left, mut failed) = (u64::MAX, String::new());
    while left > 0 || !failed.is_empty() {
        let before = (left, failed.len());
        wait_for(&format!("fewer than {before:?} to be left"), || {
            site.ok(&["requeue"]);
            left = site.count("queue_depth");
            failed = site.ok(&["failed", "--count"]);
            (left, failed.len()) < before || left + failed.len() as u64 == 0
        });
        std::thread::sleep(Duration::from_millis(100));
    }

    let ids = sandbox.ids();
    let delivered: HashSet<&str> = ids.iter().map(|(openid, _, _)| openid.as_str()).collect();
    let lost = acked.iter().filter(|openid| !delivered.contains(openid.as_str())).count();
    let other_id = ids.len() - delivered.len();
    let same_id: u64 = ids.iter().map(|(_, _, seen)| seen - 1).sum();
    println!("rounds | asked | acked | delivered | again, same id | again, other id | lost");
    println!(
        "{rounds} | {asked} | {} | {} | {same_id} | {other_id} | {lost}",
        acked.len(),
        delivered.len()
    );
    assert_eq!((lost, other_id), (0, 0));
    // Only what a worker held, or had just brought back, can go out a second time.
    assert!(same_id <= (rounds * WORKERS * 4) as u64);
    assert!(ids.iter().all(|(openid, _, seen)| *seen == 1 || openid.starts_with("push")));
}
