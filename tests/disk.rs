//! Disks that fill up, fail, or are not there.

use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A filesystem of its own, in memory.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Small {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        Small(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn big(n: u32) -> String {
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
fn a_segment_that_is_cut_short_while_the_daemon_runs_is_damage() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    let mut client = site.client();
    for n in 0..100 {
        client.push(n, &format!("o{n}"), &big(n));
        assert_eq!(client.read().code, 200);
    }
    let folder = site.folder.path().join("run/test.queue");
    let first = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).min();
    let first = first.expect("a segment");
    std::fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(50_000).unwrap();
    sandbox.faults(json!({}));
    // Once as it runs, once at the next start.
    site.kill();
    site.start();
    wait_for("what is left to be delivered", || site.count("queue_depth") == 0);
    assert!((1..100).contains(&sandbox.delivered()), "{}", sandbox.delivered());
    assert!(site.log().contains("of its 4194304 bytes"), "{}", site.log());
    let mut client = site.client();
    client.push(1, "afterwards", "null");
    assert_eq!(client.read().code, 200);
    wait_for("the next message", || site.count("queue_depth") == 0);
    site.ok(&["stop"]);
}

/// An ext4 in a file on a small filesystem: it runs out of room where the kernel believes there is
/// some, as a thinly provisioned disk does.
struct Thin {
    at: PathBuf,
    device: String,
    below: Small,
}

impl Thin {
    fn mount(folder: &Path, at: &Path) -> Option<Thin> {
        let run = |name: &str, arguments: &[&str]| {
            let output = Command::new(name).args(arguments).output().ok()?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success().then_some(said)
        };
        let below = Small::mount(&folder.join("below"), "40M");
        let image = below.0.join("image");
        std::fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
        let image = image.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-O", "^has_journal", "-E", "nodiscard", image])?;
        let device = run("losetup", &["--find", "--show", image])?;
        std::fs::create_dir_all(at).unwrap();
        let thin = Thin { at: at.to_owned(), device, below };
        run("mount", &[&thin.device, at.to_str().unwrap()])?;
        Some(thin)
    }

    fn filler(&self) -> PathBuf {
        self.below.0.join("filler")
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can make a disk that fails");
    }
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let mut site = Site::new(&sandbox, "[queue]\nsync = 20ms");
    let folder = site.folder.path().join("run/test.queue");
    let Some(thin) = Thin::mount(site.folder.path(), &folder) else {
        return println!("not run: no loop devices here");
    };
    site.start();
    // All that is left of the room below is taken.
    let mut filler = std::fs::File::create(thin.filler()).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    let mut client = site.client();
    let mut answered = 0;
    loop {
        let pushed = crate::support::push_frame(answered, &format!("o{answered}"), KEY, &big(1));
        if client.try_write(&pushed).is_err() {
            break;
        }
        match client.try_read() {
            Ok(answer) if answer.code == 200 => answered += 1,
            _ => break,
        }
    }
    wait_for("the daemon to end", || site.log().contains("the queue cannot be made durable"));
    wait_for("the daemon to be gone", || site.run(&["status"]).status.code() != Some(0));
    assert!(answered > 0);
    // Its room is free when nobody has it open any more.
    drop(filler);
    std::fs::remove_file(thin.filler()).unwrap();
    site.start();
    site.kill();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    sandbox.faults(json!({}));
    site.start();
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), u64::from(answered));
    assert!(!site.log().contains("skipped"), "{}", site.log());
    site.ok(&["stop"]);
    drop(thin);
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
