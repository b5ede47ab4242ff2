//! Disks that fill up, fail, or are not there.

use crate::support::device::Small;
use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub fn big(n: u32) -> String {
    format!(r#"{{"first":"{n}{}"}}"#, "x".repeat(2_000))
}

#[test]
fn a_full_disk_costs_pushes_only_and_only_as_long_as_it_is_full() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can mount a small filesystem");
    }
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let mut site = Site::new(&sandbox, "[queue]\nsegment_size = 4M");
    let small = Small::mount(&site.folder.path().join("run/test.queue"), "13M");
    site.start();
    let mut client = site.client();
    let (mut taken, mut refused) = (0_u32, None);
    for n in 0..10_000 {
        client.push(n, &format!("o{n}"), &big(n));
        let answer = client.read();
        match answer.code {
            200 => taken += 1,
            500 => refused = Some(answer.message),
            _ => panic!("{answer:?}"),
        }
        if refused.is_some() {
            break;
        }
    }
    let why = refused.expect("the disk to fill up");
    assert!(why.contains("queue full: no room for the next segment: No space left"), "{why}");
    for n in 0..2_000 {
        client.push(n, "more", &big(n));
        assert_eq!(client.read().code, 500);
    }
    assert!(site.status()["full"].as_str().unwrap().contains("No space left"));
    let complaints = site.log().matches("no room for the next segment").count();
    assert_eq!(complaints, 1, "once a minute, not once a message");
    // What is queued goes out and is marked, and a send needs no room.
    sandbox.faults(json!({}));
    site.ok(&["restart"]);
    let line = site.status()["listen"][0].as_str().unwrap().parse().unwrap();
    site.address = Some(line);
    client = site.client();
    client.send(1, "the-send", "null");
    assert_eq!(client.read().code, 200);
    wait_for("what was taken to be delivered", || sandbox.delivered() == u64::from(taken) + 1);
    wait_for("pushes to be taken again", || {
        client.push(2, "again", "null");
        client.read().code == 200
    });
    wait_for("the status to say so", || site.status()["full"].is_null());
    site.ok(&["stop"]);
    drop(small);
}

#[test]
fn space_that_comes_back_is_used_without_a_restart() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can mount a small filesystem");
    }
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let mut site = Site::new(&sandbox, "[queue]\nsegment_size = 4M");
    let folder = site.folder.path().join("run/test.queue");
    let small = Small::mount(&folder, "13M");
    let filler = folder.join("somebody-elses");
    std::fs::write(&filler, vec![1; 6 << 20]).unwrap();
    site.start();
    let mut client = site.client();
    let mut codes = Vec::new();
    while codes.last() != Some(&500) {
        client.push(1, "o", &big(1));
        codes.push(client.read().code);
    }
    std::fs::remove_file(filler).unwrap();
    wait_for("pushes to be taken again", || {
        client.push(2, "o", &big(2));
        client.read().code == 200
    });
    assert!(site.log().contains("the queue takes messages in again"));
    site.ok(&["stop"]);
    drop(small);
}

#[test]
fn a_full_queue_refuses_until_it_is_shorter() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 2000}));
    let site = Site::started(&sandbox, "[queue]\nsegment_size = 1M\nqueue_max_bytes = 2M");
    let mut client = site.client();
    let mut taken = 0_u64;
    loop {
        client.push(1, &format!("o{taken}"), &big(1));
        let answer = client.read();
        if answer.code == 500 {
            break assert_eq!(answer.message, "queue full");
        }
        taken += 1;
    }
    sandbox.faults(json!({}));
    wait_for("pushes to be taken again", || {
        client.push(2, "again", "null");
        client.read().code == 200
    });
    wait_for("all messages", || sandbox.delivered() == taken + 1);
}

#[test]
fn a_queue_that_is_shorter_again_says_so_to_who_keeps_away_meanwhile() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 2000}));
    let site = Site::started(&sandbox, "[queue]\nsegment_size = 1M\nqueue_max_bytes = 2M");
    let mut client = site.client();
    loop {
        client.push(1, "o", &big(1));
        if client.read().code == 500 {
            break;
        }
    }
    assert!(site.status()["full"].is_string());
    sandbox.faults(json!({}));
    wait_for("the status to say that there is room", || site.status()["full"].is_null());
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let second = Site::new(&sandbox, "");
    let ini = second.folder.path().join("conf/test.ini");
    let queue = site.folder.path().join("run/test.queue");
    let text = std::fs::read_to_string(&ini).unwrap();
    let more = format!("[server]\nqueue_file_path = {}", queue.display());
    std::fs::write(&ini, format!("{text}{more}")).unwrap();
    let refused = second.run(&["start"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("another process holds the queue"), "{said}");
    std::fs::write(&ini, format!("{text}[server]\nqueue_file_path = /proc/self/fd")).unwrap();
    let refused = second.run(&["start"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("/proc/self/fd"), "{said}");
}

/// The daemon in the foreground, under a tracer that makes system calls fail.
fn traced(site: &Site, inject: &str) -> Child {
    let mega = site.command(&["start", "-f"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", inject]);
    strace.arg(mega.get_program()).args(mega.get_args());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("scripts/test installs strace")
}

fn listening(site: &mut Site) {
    wait_for("the daemon to listen", || site.run(&["status"]).status.code() == Some(0));
    site.address = Some(site.status()["listen"][0].as_str().unwrap().parse().unwrap());
}

#[test]
fn a_sync_that_fails_ends_the_daemon_and_says_so_to_who_waits() {
    for (sync, waits) in [("always", true), ("20ms", false)] {
        let sandbox = Sandbox::start();
        let mut site = Site::new(&sandbox, &format!("[queue]\nsync = {sync}"));
        // The first syncs are those of new segments.
        let mut daemon = traced(&site, "inject=fdatasync:error=EIO:when=5+");
        listening(&mut site);
        sandbox.faults(json!({"openids": {"slow": {"hang": true}}}));
        let mut sender = site.client();
        sender.send(1, "slow", "null");
        let mut client = site.client();
        let mut codes = Vec::new();
        let ended = loop {
            client.push(1, "o", "null");
            match client.try_read() {
                Ok(answer) => codes.push(answer.code),
                Err(_) => break daemon.wait().unwrap(),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(ended.code(), Some(74), "{}", site.log());
        assert_eq!(sender.read().code, 500);
        assert!(site.log().contains("the queue cannot be made durable"));
        // Without waiting, one that came with the bad news may have been told.
        let told = codes.pop_if(|code| *code == 500);
        assert!(told.is_some() || !waits, "{codes:?}");
        assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
        // What was answered 200 goes out at the next start.
        site.start();
        wait_for("the queue to be empty", || site.count("queue_depth") == 0);
        assert!(sandbox.delivered() >= codes.len() as u64);
    }
}

#[test]
fn out_of_descriptors_it_rests_and_what_it_has_goes_on() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    let mut daemon = traced(&site, "inject=accept4:error=EMFILE:when=2..12");
    listening(&mut site);
    // The status was the first; every one of these needs several tries.
    let mut client = site.client();
    client.push(1, "o", "null");
    assert_eq!(client.read().code, 200);
    let complaints = site.log().matches("cannot accept a connection").count();
    assert!((1..=12).contains(&complaints), "{complaints}");
    site.ok(&["stop"]);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_low_limit_of_descriptors_leaves_some_for_the_queue() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    let start = site.command(&["start"]);
    let started = Command::new("prlimit")
        .args(["--nofile=320:320", "--"])
        .arg(start.get_program())
        .args(start.get_args())
        .output()
        .unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    listening(&mut site);
    assert!(site.log().contains("clients may connect instead of setting.max_conn = 10000"));
    let crowd: Vec<_> = (0..400).map(|_| site.client()).collect();
    wait_for("some to be turned away", || site.log().contains("is turned away"));
    let mut served = 0;
    for mut client in crowd {
        client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let pushed = crate::support::push_frame(1, "o", KEY, "null");
        if client.try_write(&pushed).is_ok() && client.try_read().is_ok_and(|a| a.code == 200) {
            served += 1;
        }
    }
    assert!(served >= 30, "{served}");
    assert!(!site.log().contains("Too many open files"), "{}", site.log());
}

#[test]
fn a_segment_that_cannot_be_opened_holds_up_nobody_and_is_told() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let site =
        Site::started(&sandbox, "[queue]\nsegment_size = 1M\n[setting]\npackage_max_length = 64K");
    let mut client = site.client();
    for n in 0..2_500 {
        client.push(n, &format!("o{n}"), &big(n));
        assert_eq!(client.read().code, 200);
    }
    // The third and the fourth of its files: settled by now, and not open.
    let segment = |n: u32| site.folder.path().join(format!("run/test.queue/{n:020}.seg"));
    wait_for("the segments to be sealed", || site.count("segments") >= 5);
    std::thread::sleep(Duration::from_millis(500));
    std::fs::rename(segment(3), site.folder.path().join("run/kept")).unwrap();
    std::fs::create_dir(segment(3)).unwrap();
    sandbox.faults(json!({}));
    wait_for("the others", || site.count("queue_depth") == 0);
    assert!(site.count("damaged") > 0);
    assert!(site.log().contains("the file cannot be opened"), "{}", site.log());
    let delivered = sandbox.delivered();
    assert!((1_500..2_500).contains(&delivered), "{delivered}");
}
