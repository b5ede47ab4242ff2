//! Clients that do what no client should: they harm nobody else, and cost bounded memory.

use crate::support::{Client, DEADLINE, KEY, Sandbox, Site, push_frame};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn is_served(site: &Site) {
    let mut client = site.client();
    client.push(7, "somebody", "null");
    assert_eq!(client.read().code, 200);
}

/// Resident memory of the daemon that is not of mapped files, in KiB.
fn memory(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn garbage_is_answered_once_and_closed() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes: Vec<u8> = (0..random.usize(1..4000)).map(|_| random.u8(..)).collect();
        if seed % 2 == 0 && bytes.len() >= 4 {
            // Half of them have a plausible length.
            let length = (bytes.len() as u32 - 4).to_be_bytes();
            bytes[..4].copy_from_slice(&length);
        }
        let mut client = site.client();
        let _ = client.stream.write_all(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        client.assert_closed();
    }
    is_served(&site);
}

#[test]
fn half_a_frame_for_ever_is_closed_and_a_silent_client_without_one_is_not() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nheartbeat_idle_time = 1s");
    let mut idle = site.client();
    let mut half = site.client();
    half.write(&push_frame(1, "o", KEY, "null")[..20]);
    half.assert_closed();
    idle.push(1, "o", "null");
    assert_eq!(idle.read().code, 200);
}

#[test]
fn announced_lengths_cost_nothing() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let before = memory(&site);
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut client = site.client();
        // As long as is allowed, and never sent.
        client.write(&2_465_788_u32.to_be_bytes());
        held.push(client);
        let mut too_long = site.client();
        too_long.write(&u32::MAX.to_be_bytes());
        too_long.assert_closed();
    }
    is_served(&site);
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 500 announcements");
}

#[test]
fn a_client_that_never_reads_is_closed_and_costs_its_limit() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nbuffer_output_size = 1M");
    let before = memory(&site);
    let mut deaf = site.client();
    deaf.stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let frames = push_frame(1, "o", "no-such-key", "null").repeat(1000);
    let started = Instant::now();
    while deaf.stream.write_all(&frames).is_ok() {
        assert!(started.elapsed() < DEADLINE, "it was never closed");
    }
    is_served(&site);
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for one deaf client");
    assert!(site.log().contains("does not read its replies"));
}

#[test]
fn the_largest_frame_is_taken_and_one_byte_more_is_not() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let around = push_frame(9, "o", KEY, r#"{"a":""}"#).len();
    let largest = format!(r#"{{"a":"{}"}}"#, "x".repeat(2_465_792 - around));
    let mut client = site.client();
    client.push(9, "o", &largest);
    assert_eq!((client.read().code, largest.len() > 2_000_000), (200, true));
    let mut client = site.client();
    let frame = push_frame(9, "o", KEY, &largest.replacen('x', "xx", 1));
    let _ = client.stream.write_all(&frame);
    client.assert_closed();
    is_served(&site);
}

#[test]
fn a_client_that_ends_its_sending_side_still_gets_its_replies() {
    let sandbox = Sandbox::start();
    sandbox.faults(serde_json::json!({ "latency_ms": 200 }));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.push(1, "o1", "null");
    client.send(2, "o2", "null");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (first, second) = (client.read(), client.read());
    assert_eq!([(first.code, first.opaque), (second.code, second.opaque)], [(200, 1), (200, 2)]);
    client.assert_closed();
}

#[test]
fn beyond_max_conn_clients_are_turned_away_and_admitted_again_later() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nmax_conn = 3");
    let mut held: Vec<Client> = (0..3).map(|_| site.client()).collect();
    for client in &mut held {
        client.push(1, "o", "null");
        assert_eq!(client.read().code, 200);
    }
    site.client().assert_closed();
    drop(held);
    crate::support::wait_for("a place to be free", || {
        let mut client = site.client();
        client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let _ = client.stream.write_all(&push_frame(1, "o", KEY, "null"));
        client.stream.read(&mut [0; 64]).is_ok_and(|count| count > 0)
    });
}
