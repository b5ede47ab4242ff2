//! Disks that lose what they were given, and files that somebody takes away while they are in use.

use crate::disk::big;
use crate::support::device::{Ext4, Small};
use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

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
        let sandbox = unwilling();
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

/// It refuses the account, so that whatever is pushed stays in the queue until the fault is ended.
fn unwilling() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 40164}}));
    sandbox
}

fn segment(site: &Site, number: u32) -> PathBuf {
    site.folder.path().join(format!("run/test.queue/{number:020}.seg"))
}

fn cut_short(file: &Path) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(50_000).unwrap();
}

#[test]
fn a_segment_that_is_cut_short_while_the_daemon_runs_is_damage() {
    let sandbox = unwilling();
    let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    push_big(&site);
    // The cursor reads the first, and the second is appended to.
    cut_short(&segment(&site, 1));
    cut_short(&segment(&site, 2));
    let mut client = site.client();
    client.push(1, "behind-the-cut", "null");
    assert_eq!(client.read().code, 200);
    let pid = site.pid();
    sandbox.faults(json!({}));
    wait_for("what is left to be delivered", || site.count("queue_depth") == 0);
    let delivered = sandbox.delivered();
    assert!((40..1_500).contains(&delivered), "{delivered}");
    assert!(sandbox.ids().iter().any(|(openid, ..)| openid == "behind-the-cut"));
    assert!(site.count("damaged") >= 2);
    assert!(site.log().contains("cannot be read"), "{}", site.log());
    wait_for("the first file to be kept", || segment(&site, 1).with_extension("seg.bad").exists());
    assert_eq!(site.pid(), pid);
    site.kill();
    site.start();
    client = site.client();
    client.push(1, "afterwards", "null");
    assert_eq!(client.read().code, 200);
    wait_for("the next message", || sandbox.delivered() == delivered + 1);
    assert_eq!(site.count("queue_depth"), 0);
    site.ok(&["stop"]);
}

#[test]
fn a_segment_that_is_cut_short_is_damage_for_the_next_start_too() {
    let sandbox = unwilling();
    let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    push_big(&site);
    cut_short(&segment(&site, 1));
    cut_short(&segment(&site, 2));
    sandbox.faults(json!({}));
    site.kill();
    site.start();
    wait_for("what is left to be delivered", || site.count("queue_depth") == 0);
    assert!((40..100).contains(&sandbox.delivered()), "{}", sandbox.delivered());
    assert!(site.log().contains("of its 4194304 bytes"), "{}", site.log());
    site.ok(&["stop"]);
}

#[test]
fn a_queue_file_that_is_removed_while_it_is_in_use_is_told_and_used_no_more() {
    let sandbox = unwilling();
    let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    site.push_many(100);
    std::fs::remove_file(segment(&site, 1)).unwrap();
    let mut client = site.client();
    wait_for("somebody to notice", || {
        client.push(1, "o", "null");
        assert_eq!(client.read().code, 200);
        site.log().contains("has been removed")
    });
    assert!(site.count("damaged") == 1, "{}", site.log());
    // What is taken in from now on is found by the next start.
    for n in 0..100 {
        client.push(n, &format!("after-{n}"), "null");
        assert_eq!(client.read().code, 200);
    }
    site.kill();
    sandbox.faults(json!({}));
    site.start();
    wait_for("what is left to be delivered", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    let after = ids.iter().filter(|(openid, ..)| openid.starts_with("after-")).count();
    assert_eq!(after, 100);
    site.ok(&["stop"]);
}

#[test]
fn a_queue_file_that_is_replaced_by_a_copy_of_it_is_put_back_and_nothing_goes_out_twice() {
    for killed in [false, true] {
        let sandbox = Sandbox::start();
        let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
        site.ok(&["pause"]);
        site.push_many(100);
        let copy = site.folder.path().join("run/copy");
        std::fs::copy(segment(&site, 1), &copy).unwrap();
        std::fs::rename(&copy, segment(&site, 1)).unwrap();
        site.ok(&["resume"]);
        wait_for("everything to be done", || site.count("queue_depth") == 0);
        wait_for("the file to be put back", || site.log().contains("it is put back"));
        assert_eq!((sandbox.delivered(), site.count("damaged")), (100, 1));
        match killed {
            true => site.kill(),
            false => drop(site.ok(&["stop"])),
        }
        site.start();
        assert_eq!(site.count("damaged"), 0);
        site.client().push(1, "last", "null");
        wait_for("the last", || sandbox.delivered() == 101);
        wait_for("nothing to be left", || site.count("queue_depth") == 0);
        assert!(sandbox.ids().iter().all(|(.., times)| *times == 1), "{:?}", sandbox.ids());
        site.ok(&["stop"]);
    }
}

#[test]
fn what_was_in_a_file_that_was_removed_is_delivered_while_the_daemon_runs() {
    let sandbox = unwilling();
    let site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    site.push_many(100);
    std::fs::remove_file(segment(&site, 1)).unwrap();
    let mut client = site.client();
    client.push(1, "o", "null");
    wait_for("somebody to notice", || site.log().contains("has been removed"));
    sandbox.faults(json!({}));
    wait_for("everything to be delivered", || sandbox.delivered() == 101);
    wait_for("everything to be done", || site.count("queue_depth") == 0);
    assert!(!site.log().contains("cannot be removed"), "{}", site.log());
}

#[test]
fn a_folder_that_was_moved_away_takes_nothing_in_until_it_is_back() {
    let sandbox = unwilling();
    let mut site = Site::started(&sandbox, "[queue]\nsync = 20ms");
    site.push_many(100);
    let folder = site.folder.path().join("run/test.queue");
    let elsewhere = site.folder.path().join("run/elsewhere");
    std::fs::rename(&folder, &elsewhere).unwrap();
    let mut client = site.client();
    let mut taken = 100;
    wait_for("a push to be refused", || {
        client.push(1, "o", "null");
        let answer = client.read();
        taken += u64::from(answer.code == 200);
        answer.code == 500 && answer.message.contains("moved away or removed")
    });
    assert!(site.status()["full"].as_str().unwrap().contains("moved away or removed"));
    assert!(site.log().contains("moved away or removed"));
    // One of the same name is another.
    std::fs::create_dir(&folder).unwrap();
    client.push(1, "o", "null");
    assert_eq!(client.read().code, 500);
    std::fs::remove_dir(&folder).unwrap();
    std::fs::rename(&elsewhere, &folder).unwrap();
    wait_for("pushes to be taken again", || {
        client.push(1, "o", "null");
        let answer = client.read();
        taken += u64::from(answer.code == 200);
        answer.code == 200
    });
    assert!(site.status()["full"].is_null());
    site.kill();
    sandbox.faults(json!({}));
    site.start();
    wait_for("everything to be delivered", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), taken);
    site.ok(&["stop"]);
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can make a disk that fails");
    }
    let sandbox = unwilling();
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
