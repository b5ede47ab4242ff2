//! Clients that do what no client should: they harm nobody else, and cost bounded memory.

use crate::support::{Client, DEADLINE, KEY, Sandbox, Site, push_frame};
use mega::wire::command::{self, Request};
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
    let more = "[setting]\nbuffer_output_size = 1M\nheartbeat_idle_time = 2s";
    let site = Site::started(&sandbox, more);
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
fn a_byte_now_and_then_does_not_keep_half_a_frame_open() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nheartbeat_idle_time = 1s");
    let (mut dripping, mut whole) = (site.client(), site.client());
    let frame = push_frame(1, "o", KEY, &format!(r#"{{"first":"{}"}}"#, "x".repeat(1000)));
    let started = Instant::now();
    for byte in &frame {
        // One that finishes a frame each time may go on for ever.
        whole.push(1, "o", "null");
        assert_eq!(whole.read().code, 200);
        if dripping.try_write(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "open for {took:?}");
    dripping.assert_closed();
    assert!(site.log().contains("1 clients closed: each did not finish a frame within"));
}

#[test]
fn a_client_that_always_keeps_a_backlog_of_replies_costs_its_backlog() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nbuffer_output_size = 4M");
    let before = memory(&site);
    let mut client = site.client();
    let mut writer = client.stream.try_clone().unwrap();
    // Each is answered with three times as many bytes.
    let frames = push_frame(1, "o", "k", "null").repeat(1000);
    let pumped = std::thread::spawn(move || while writer.write_all(&frames).is_ok() {});
    let (mut chunk, mut read, mut most) = (vec![0; 256 * 1024], 0, 0);
    while read < 400 << 20 {
        let count = client.stream.read(&mut chunk).unwrap();
        assert!(count > 0, "closed after {read} bytes");
        read += count;
        if fastrand::u8(..) == 0 {
            most = most.max(memory(&site).saturating_sub(before));
        }
    }
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    pumped.join().unwrap();
    assert!(most < 24 * 1024, "{most} KiB");
    is_served(&site);
}

#[test]
fn half_frames_of_many_clients_are_bounded_all_together() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nmemory_limit = 16M");
    let before = memory(&site);
    let half = &push_frame(1, "o", KEY, &format!("{{\"first\":\"{}\"}}", "x".repeat(2_000_000)));
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut client = site.client();
        // Some are closed while they write.
        let _ = client.try_write(&half[..1_800_000]);
        held.push(client);
        is_served(&site);
    }
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 40 half frames of 1.8 MB");
    assert!(site.log().contains("parts of frames take up more than setting.memory_limit"));
    // The longest frame there may be still has room.
    let mut client = site.client();
    client.write(half);
    assert_eq!(client.read().code, 200);
}

#[test]
fn one_client_cannot_take_all_places_for_sends() {
    let sandbox = Sandbox::start();
    sandbox.faults(serde_json::json!({ "latency_ms": 3000 }));
    let site = Site::started(&sandbox, "[setting]\nstop_timeout = 0\n[wechat]\ntimeout = 60s");
    let mut greedy = site.client();
    let mut frame = Vec::new();
    let request = Request { opaque: 1, openid: b"o", key: KEY.as_bytes(), id: None, data: b"null" };
    command::encode_send(&mut frame, request);
    let frames = frame.repeat(1000);
    greedy.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while written < 120 && greedy.try_write(&frames).is_ok() {
        written += 1;
    }
    crate::support::wait_for("its share of sends", || site.count("sends_waiting") >= 10_000);
    std::thread::sleep(Duration::from_millis(300));
    let waiting = site.count("sends_waiting");
    assert_eq!((waiting, site.count("refused")), (10_000, 0));
    is_served(&site);
    // It is slowed only: what it has written is taken in when there is room again.
    sandbox.faults(serde_json::json!({}));
    assert_eq!(greedy.read().code, 200);
    crate::support::wait_for("more of its sends", || sandbox.delivered() > 15_000);
}

#[test]
fn a_client_that_reads_slowly_is_slowed_and_loses_nothing() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nbuffer_output_size = 64K");
    let mut client = site.client();
    let mut writer = client.stream.try_clone().unwrap();
    const COUNT: u32 = 400_000;
    let pumped = std::thread::spawn(move || {
        for first in (0..COUNT).step_by(1000) {
            let frames = (first..first + 1000).flat_map(|n| push_frame(n, "o", "no", "null"));
            writer.write_all(&frames.collect::<Vec<u8>>()).unwrap();
        }
    });
    // Until everything between the two is full.
    std::thread::sleep(Duration::from_millis(500));
    for n in 0..COUNT {
        assert_eq!(client.read().opaque, n);
    }
    pumped.join().unwrap();
}

#[test]
fn a_flood_of_tsets_with_long_keys_is_refused() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nmemory_limit = 16M");
    let before = memory(&site);
    let mut frame = Vec::new();
    command::encode_tset(&mut frame, 1, &[b'k'; 2_000_000]);
    let mut clients: Vec<Client> = (0..20).map(|_| site.client()).collect();
    for client in &mut clients {
        let _ = client.try_write(&frame);
    }
    is_served(&site);
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
}

/// What its kernel had sent when a client closed with replies unread is taken in, all of it: what
/// was not sent by then is thrown away by that kernel, and never seen by anybody.
#[test]
fn what_a_client_had_sent_before_it_reset_the_connection_is_taken_in() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for (round, nodelay) in [true, false].repeat(50).into_iter().enumerate() {
        let before = site.count("accepted");
        let mut client = site.client();
        client.stream.set_nodelay(nodelay).unwrap();
        let frame = push_frame(1, "o", KEY, "null");
        for _ in 0..50 {
            client.write(&frame);
        }
        let mut unsent: i32 = 0;
        let socket = std::os::fd::AsRawFd::as_raw_fd(&client.stream);
        // SAFETY: SIOCOUTQNSD writes one int.
        let asked = unsafe { nix::libc::ioctl(socket, 0x894b, &raw mut unsent) };
        assert_eq!(asked, 0);
        drop(client);
        let sent = 50 - (unsent as u64).div_ceil(frame.len() as u64);
        let what = format!("{sent} of 50 pushes in round {round}, nodelay {nodelay}");
        crate::support::wait_for(&what, || site.count("accepted") - before >= sent);
    }
}

#[test]
fn a_flood_of_connections_does_not_keep_a_client_waiting() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nbacklog = 4096");
    let mut client = site.client();
    let address = site.address.unwrap();
    let flood = std::thread::spawn(move || {
        for _ in 0..5_000 {
            drop(std::net::TcpStream::connect(address));
        }
    });
    while !flood.is_finished() {
        let asked = Instant::now();
        client.push(1, "o", "null");
        assert_eq!(client.read().code, 200);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    flood.join().unwrap();
}

#[test]
fn who_is_no_longer_allowed_is_closed_by_a_reload() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[server]\nallow[] = 127.0.0.1");
    let mut clients = [site.client(), site.client()];
    for client in &mut clients {
        client.push(1, "o", "null");
        assert_eq!(client.read().code, 200);
    }
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text.replace("allow[] = 127.0.0.1", "allow[] = 10.0.0.0/8")).unwrap();
    site.ok(&["reload"]);
    clients.iter_mut().for_each(Client::assert_closed);
    let log = site.log();
    assert!(log.contains("2 clients are closed: they are no longer among server.allow[]"), "{log}");
}

#[test]
fn not_now_is_500_unless_503_is_asked_for_and_each_refusal_is_counted_by_its_cause() {
    let sandbox = Sandbox::start();
    for (more, code) in [("", 500), ("[setting]\nunavailable_code = 503", 503)] {
        sandbox.faults(serde_json::json!({ "latency_ms": 1000 }));
        let site = Site::started(&sandbox, &format!("{more}\n[server]\ntable_size = 1"));
        let mut client = site.client();
        for n in 0..20 {
            client.push(n, "o", "null");
            assert_eq!(client.read().code, 200);
        }
        client.write(&push_frame(1, "o", "no-such-key", "null"));
        assert_eq!(client.read().code, 400);
        assert_eq!(site.status()["refusals"]["no_template"], 1);
        let stopped = std::thread::scope(|scope| {
            let stopping = scope.spawn(|| site.ok(&["stop"]));
            let mut refused = 0;
            loop {
                client.push(1, "o", "null");
                let Ok(answer) = client.try_read() else { break };
                if answer.code != 200 {
                    assert_eq!((answer.code, &answer.message[..]), (code, "stopping"));
                    refused += 1;
                    if refused == 3 {
                        // The connection stays, and the daemon still says how it is.
                        assert_eq!(site.status()["refusals"]["stopping"], 3);
                        assert_eq!(site.count("refused"), 4);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(refused >= 3, "{refused} refused");
            stopping.join().unwrap()
        });
        assert!(stopped.contains("stopped"), "{stopped}");
    }
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

#[test]
fn what_the_spool_refuses_is_counted_and_what_it_answers_is_not() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.send(1, "o", "null");
    assert_eq!((client.read().code, site.count("refused")), (200, 0));
    sandbox.faults(serde_json::json!({"answer": {"errcode": 45009, "errmsg": "no more"}}));
    client.push(2, "o", "null");
    assert_eq!(client.read().code, 200);
    crate::support::wait_for("sending to stop", || site.status()["suspended"].is_string());
    client.send(3, "o", "null");
    let answer = client.read();
    assert!(answer.code == 500 && answer.message.starts_with("sending suspended: "), "{answer:?}");
    assert_eq!(site.count("refused"), 1);
}
