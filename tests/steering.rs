//! How operators steer a daemon that runs: pause, drain, cancel, in every phase that a kill can meet.

use crate::support::{Client, KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

fn paused(site: &Site) -> Option<String> {
    site.status()["paused"].as_str().map(str::to_owned)
}

/// Longer than a message takes to go out where nothing holds it.
const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn a_pause_keeps_what_comes_in_and_survives_every_end() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    let told = site.ok(&["pause", "--why", "wrong  price\nlist"]);
    assert!(told.contains("is paused"), "{told}");
    let text = paused(&site).unwrap();
    assert!(text.starts_with("paused by ") && text.ends_with(": wrong price list"), "{text}");
    let by = site.status()["paused_by"].clone();
    site.push_many(100);
    let mut client = site.client();
    client.send(1, "s", "null");
    let answer = client.read();
    assert_eq!((answer.code, answer.message), (500, format!("sending suspended: {text}")));
    for killed in [true, false] {
        match killed {
            true => site.kill(),
            false => drop(site.ok(&["stop"])),
        }
        site.start();
        let status = site.status();
        assert_eq!((&status["paused"], &status["paused_by"]), (&json!(text), &by));
        assert_eq!((&status["queue_depth"], &status["suspended"]), (&json!(100), &json!(null)));
    }
    // A look at the state after a while would prove nothing that the last one does not: two restarts sent nothing.
    assert_eq!(sandbox.delivered(), 0);

    let told = site.ok(&["pause", "--why", "another"]);
    assert!(told.contains("it was already") && told.contains("wrong price list"), "{told}");
    assert!(paused(&site).unwrap().ends_with(": another"));
    assert!(site.ok(&["resume"]).contains("sends again, 100 messages"));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), 100);
    assert!(site.ok(&["resume"]).contains("is not paused"));
    site.kill();
    site.start();
    assert_eq!(paused(&site), None);
    let log = site.log();
    assert!(log.contains("wrong price list") && log.contains("resumed by"), "{log}");
}

#[test]
fn what_workers_hold_when_the_pause_comes_ends_as_usual_and_nothing_follows() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 500 }));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    site.push_many(50);
    wait_for("all workers to hold one", || site.count("in_flight") == 4);
    site.ok(&["pause"]);
    wait_for("the workers to come back", || site.count("in_flight") == 0);
    let status = site.status();
    let (delivered, queued) = (&status["pushes"]["delivered"], &status["queue_depth"]);
    let (delivered, queued) = (delivered.as_u64().unwrap(), queued.as_u64().unwrap());
    assert!((4..=8).contains(&delivered) && delivered + queued == 50, "{status}");
    std::thread::sleep(MOMENT);
    assert_eq!(sandbox.delivered(), delivered);
    sandbox.faults(json!({}));
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!((sandbox.delivered(), &sandbox.stats()["repeats"]), (50, &json!(0)));
}

#[test]
fn a_pause_hides_no_other_reason_and_changes_none() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "answer": { "errcode": 48001, "errmsg": "no" } }));
    let site = Site::started(&sandbox, "");
    site.push_many(3);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    site.ok(&["pause", "--why", "lunch"]);
    let status = site.status();
    assert_eq!(status["suspended"], "48001 no");
    assert!(status["paused"].as_str().unwrap().ends_with("lunch"), "{status}");
    let shown = site.ok(&["status"]);
    assert!(shown.contains("48001 no") && shown.contains("lunch"), "{shown}");
    site.ok(&["resume"]);
    let status = site.status();
    assert_eq!((&status["suspended"], &status["paused"]), (&json!("48001 no"), &json!(null)));
    let mut client: Client = site.client();
    client.send(1, "s", "null");
    assert_eq!(client.read().message, "sending suspended: 48001 no");
    assert_eq!(sandbox.stats()["delivered"], 0, "{KEY}");
}

#[test]
fn a_pause_that_cannot_be_read_is_one_and_says_so() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    site.start();
    site.ok(&["pause"]);
    site.ok(&["stop"]);
    let queue = site.folder.path().join("run");
    let mut files = vec![queue];
    let mut found = None;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.ends_with("paused") {
            found = Some(path);
        }
    }
    std::fs::write(found.expect("the file that keeps it"), "{\"by\":").unwrap();
    site.start();
    let text = paused(&site).unwrap();
    assert!(text.contains("cannot be read"), "{text}");
    site.ok(&["resume"]);
    assert_eq!(paused(&site), None);
}

/// Lines of `failed`, as many as there are.
fn failed(site: &Site, class: &str) -> usize {
    site.ok(&["failed", "--class", class]).lines().count()
}

/// A1 of the statistics.
fn adds_up(site: &Site) {
    let status = site.status();
    let pushes = &status["pushes"];
    let sum = |names: &[&str]| names.iter().map(|name| pushes[name].as_u64().unwrap()).sum::<u64>();
    let came = sum(&["found", "accepted", "requeued"]);
    assert_eq!(came, sum(&["delivered", "failed", "cancelled", "lost", "queued"]), "{pushes}");
}

#[test]
fn what_is_queued_and_meant_is_cancelled_and_the_rest_goes_out() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.ok(&["pause"]);
    site.push_many(2_000);
    let why = site.run(&["cancel"]);
    assert!(!why.status.success());
    // o1, o1., o1.., o1...
    assert!(site.ok(&["cancel", "--openid", "o1", "--dry-run"]).starts_with("1111 would be"));
    assert_eq!(site.count("queue_depth"), 2_000);
    assert_eq!(site.ok(&["cancel", "--key", "another", "--dry-run"]), "0 would be cancelled\n");
    let told = site.ok(&["cancel", "--openid", "o1", "--key", KEY, "--since", "1h"]);
    assert!(told.starts_with("1111 cancelled"), "{told}");
    let status = site.status();
    assert_eq!(
        (&status["pushes"]["cancelled"], &status["pushes"]["failed"]),
        (&json!(1111), &json!(0))
    );
    assert_eq!((failed(&site, "cancelled"), site.count("queue_depth")), (1111, 889));
    let line = site.ok(&["failed", "--class", "cancelled", "--openid", "o17"]);
    assert!(
        line.contains("\"errmsg\":\"cancelled by ") && line.contains("\"attempts\":0"),
        "{line}"
    );
    adds_up(&site);
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), 889);
    let told = site.ok(&["requeue", "--class", "cancelled", "--openid", "o17"]);
    assert!(told.contains("1 requeued"), "{told}");
    wait_for("the one to go out", || sandbox.delivered() == 890);
    adds_up(&site);
}

#[test]
fn an_empty_beginning_does_not_mean_everybody() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.ok(&["pause"]);
    site.push_many(5);
    for meant in [["--openid", ""], ["--key", ""]] {
        for more in [&["--dry-run"][..], &[]] {
            let said = site.run(&[&["cancel"], &meant[..], more].concat());
            let why = String::from_utf8_lossy(&said.stderr);
            assert!(!said.status.success() && why.contains("must not be empty"), "{why}");
        }
    }
    assert_eq!(site.count("queue_depth"), 5);
}

#[test]
fn what_a_kill_finds_in_workers_hands_is_cancelled_as_of_unknown_outcome() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 60_000 }));
    let mut site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    site.push_many(50);
    wait_for("all workers to hold one", || site.count("in_flight") == 4);
    site.ok(&["pause"]);
    site.kill();
    site.start();
    let told = site.ok(&["cancel", "--key", KEY]);
    assert!(told.starts_with("50 cancelled"), "{told}");
    let listed = site.ok(&["failed", "--class", "cancelled"]);
    assert_eq!(listed.matches("an earlier attempt has an unknown outcome").count(), 4, "{listed}");
}

#[test]
fn whoever_waits_for_an_order_waits_over_a_kill_too() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    site.ok(&["pause"]);
    site.push_many(20_000);
    let mut waiting = site.command(&["cancel", "--openid", "o"]);
    let waiting = waiting.stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("some to be cancelled", || site.status()["pushes"]["cancelled"] != 0);
    site.kill();
    site.start();
    let ended = waiting.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("cancelled"), "{told}");
    assert_eq!((failed(&site, "cancelled"), site.count("queue_depth")), (20_000, 0));
}

#[test]
fn what_was_to_be_cancelled_never_goes_out_whatever_kills_the_daemon() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    site.ok(&["pause"]);
    site.push_many(30_000);
    site.ok(&["cancel", "--openid", "o1", "--no-wait"]);
    site.ok(&["resume"]);
    for _ in 0..3 {
        site.kill_process(site.pid());
        site.start();
    }
    let meant = 11_111;
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let cancelled = failed(&site, "cancelled");
    let wrong = sandbox.ids().iter().filter(|(openid, _, _)| openid.starts_with("o1")).count();
    assert_eq!((cancelled, wrong, sandbox.ids().len()), (meant, 0, 30_000 - meant));
    wait_for("the order to be forgotten", || {
        site.status()["cancels"].as_array().unwrap().iter().all(|order| order["done"] == true)
    });
    adds_up(&site);
    // A new message like those is not meant.
    let mut client = site.client();
    client.push(1, "o1-later", "null");
    assert_eq!(client.read().code, 200);
    wait_for("the later one to go out", || {
        sandbox.ids().iter().any(|(openid, _, _)| openid == "o1-later")
    });
}

#[test]
fn the_first_message_that_is_meant_stays_while_workers_are_busy_and_retries_are_cancelled_too() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 300, "answer": { "errcode": -1, "errmsg": "busy" } }));
    let site = Site::started(
        &sandbox,
        "[setting]\ntask_worker_num = 2\n[queue]\nretry_base = 30s\nretry_max = 5",
    );
    site.push_many(40);
    wait_for("one to wait for its retry", || site.count("retrying") > 0);
    let told = site.ok(&["cancel", "--openid", "o"]);
    let status = site.status();
    let count = status["pushes"]["cancelled"].as_u64().unwrap();
    assert_eq!((count, site.count("queue_depth"), site.count("retrying")), (40, 0, 0), "{told}");
    sandbox.faults(json!({}));
    assert_eq!(sandbox.delivered(), 0);
}

#[test]
fn an_order_that_cannot_be_read_at_the_start_stops_sending_and_says_so() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    site.push_many(1);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    site.ok(&["stop"]);
    let mut folders = vec![site.folder.path().join("run")];
    let mut queue = None;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false if entry.extension().is_some_and(|it| it == "seg") => {
                    queue = entry.parent().map(Into::into)
                }
                false => {}
            }
        }
    }
    let queue: std::path::PathBuf = queue.expect("the queue's folder");
    std::fs::write(queue.join("cancels"), "[{\"number\":").unwrap();
    site.start();
    let text = paused(&site).unwrap();
    assert!(text.contains("cancels.bad") && text.contains("cancel them again"), "{text}");
    site.ok(&["resume"]);
    site.kill();
    site.start();
    assert_eq!(paused(&site), None);
}

#[test]
fn a_drained_daemon_takes_nothing_in_delivers_the_rest_and_ends() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 20 }));
    let mut site = Site::started(&sandbox, "");
    site.ok(&["pause", "--why", "lunch"]);
    site.push_many(100);
    let waiting = site.command(&["drain"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("it to be drained", || site.status()["draining"].is_string());
    let mut client = site.client();
    client.push(1, "o", "null");
    client.send(2, "o", "null");
    for _ in 0..2 {
        let answer = client.read();
        assert_eq!((answer.code, answer.message.as_str()), (500, "draining"));
    }
    assert_eq!(site.status()["refusals"]["draining"], 2);
    assert_eq!((site.count("queue_depth"), sandbox.delivered()), (100, 0));
    assert!(site.ok(&["resume"]).contains("it is drained"));
    let ended = waiting.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && text.contains("stopped, 0 messages left"), "{text}");
    assert_eq!(sandbox.delivered(), 100);
    assert!(!site.run(&["status"]).status.success());

    // The next one starts as usual, and so does one that was killed in the middle.
    site.start();
    site.ok(&["pause"]);
    site.push_many(1);
    site.ok(&["drain", "--no-wait"]);
    site.kill();
    site.start();
    assert_eq!(site.status()["draining"], json!(null));
    site.push_many(1);
    site.ok(&["drain", "--no-wait"]);
    assert!(site.ok(&["drain", "--cancel"]).contains("not drained any more"));
    site.push_many(1);
    site.ok(&["drain", "--no-wait"]);
    assert!(site.ok(&["stop"]).contains("3 messages left"));
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    assert!(site.ok(&["log-level", "error"]).contains("it was debug"));
    assert_eq!(site.status()["log_level"], "error");
    site.ok(&["log-level", "INFO"]);
    assert!(site.log().contains("log_level is info until a restart or reload, by "));
    let refused = site.run(&["log-level", "loud"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("loud is no level"));
}

/// Runs a command as somebody who is in this group and in no other.
fn as_member(site: &Site, gid: u32, arguments: &[&str]) -> (bool, String) {
    let output = site.command(arguments).uid(65_533).gid(gid).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    (output.status.success(), said)
}

#[test]
fn members_of_the_groups_may_do_what_is_theirs_and_are_called_by_their_own_names() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: needs root");
    }
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[setting]\nadmin_group = 64001\nmonitor_group = 64002");
    let open = |folder: &std::path::Path| {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    };
    open(site.folder.path());
    site.start();
    let run = site.folder.path().join("run");
    let log = site.log();
    assert!(log.contains("chmod o+x"), "{log}");
    open(&run);
    let (done, said) = as_member(&site, 64_001, &["pause", "--why", "lunch"]);
    assert!(done, "{said}");
    // Not what the client says, but who it is.
    assert_eq!(site.status()["paused_by"], "user 65533");
    for (gid, arguments, may) in [
        (64_001, &["status"][..], true),
        (64_002, &["status"], true),
        (64_002, &["resume"], false),
        (64_002, &["push", "o", KEY], false),
        (64_002, &["tset", KEY], false),
        (64_003, &["status"], false),
    ] {
        let (done, said) = as_member(&site, gid, arguments);
        assert_eq!(done, may, "{gid} {arguments:?}: {said}");
        if gid == 64_002 && !may {
            assert!(said.contains("answers status and nothing else"), "{said}");
        }
    }
    assert_eq!(
        (site.count("queue_depth"), site.status()["paused_by"].clone()),
        (0, json!("user 65533"))
    );
    site.ok(&["stop"]);
    let left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".sock")), "{left:?}");
}
