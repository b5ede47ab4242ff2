//! Disks that lose what they were given, and files that somebody takes away while they are in use.

use crate::disk::big;
use crate::support::device::{Ext4, Small};
use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::json;

/// Messages of about 2 KiB that wait, more than one segment of them.
const COUNT: u32 = 3_000;

fn push_big(site: &Site) {
    let mut client = site.client();
    for n in 0..COUNT {
        client.push(n, &format!("o{n}"), &big(n));
        assert_eq!(client.read().code, 200);
    }
}

#[test]
fn a_block_that_cannot_be_read_costs_the_messages_in_it() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can make a disk that fails");
    }
    // In a sealed segment, in its header, and in the tail.
    for (number, block) in [(1, 100), (1, 0), (2, 10)] {
        let sandbox = Sandbox::start();
        sandbox.faults(json!({"answer": {"errcode": 40164}}));
        let mut site = Site::new(&sandbox, "[queue]\nsync = 20ms");
        let folder = site.folder.path().join("run/test.queue");
        let Some(mut disk) = Ext4::mount(site.folder.path().join("image"), &folder) else {
            return println!("not run: no loop devices here");
        };
        site.start();
        push_big(&site);
        site.kill();
        disk.lose(&[(format!("{number:020}.seg"), block)]);
        sandbox.faults(json!({}));
        site.start();
        wait_for("what is left to be delivered", || site.count("queue_depth") == 0);
        // It spans the ends of two records and all of a third at most.
        let lost = u64::from(COUNT) - sandbox.delivered();
        assert!((1..=3).contains(&lost), "of block {block} of segment {number}: {lost}");
        assert!(site.count("damaged") >= 1);
        assert!(site.log().contains("Input/output error"), "{}", site.log());
        let bad = folder.join(format!("{number:020}.seg.bad"));
        wait_for("the file to be kept", || bad.exists());
        // Nothing of it is left for the next start.
        let delivered = sandbox.delivered();
        site.kill();
        site.start();
        assert_eq!((site.count("queue_depth"), site.count("damaged")), (0, 0));
        site.client().push(1, "afterwards", "null");
        wait_for("the next message", || sandbox.delivered() == delivered + 1);
        site.ok(&["stop"]);
        drop(disk);
    }
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

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can make a disk that fails");
    }
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    let mut site = Site::new(&sandbox, "[queue]\nsync = 20ms");
    let folder = site.folder.path().join("run/test.queue");
    // It runs out of room where the kernel believes there is some, as a thinly provisioned disk does.
    let below = Small::mount(&site.folder.path().join("below"), "40M");
    let Some(thin) = Ext4::mount(below.file("image"), &folder) else {
        return println!("not run: no loop devices here");
    };
    site.start();
    // All that is left of the room below is taken.
    let mut filler = std::fs::File::create(below.file("filler")).unwrap();
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
    std::fs::remove_file(below.file("filler")).unwrap();
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
    drop(below);
}
