//! What signals do to mega-task: while it reads its list, when the session is lost, and in the background.

use crate::support::desk::{Desk, Running, address, end_of};
use crate::support::{KEY, Sandbox, Site, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};

fn send(child: &Running, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

/// Whether the process has a handler for the signal.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

/// A run that waits for its list.
fn reads(desk: &Desk, to: &str) -> (Running, ChildStdin) {
    let arguments = ["run", "--to", to, "--key", KEY, "--file", "-", "--name", "t"];
    let mut command = desk.command(&arguments);
    let said = std::fs::File::create(desk.folder.path().join("said")).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    (Running::new(child), stdin)
}

#[test]
fn a_signal_while_the_list_is_read_pauses_before_anything_goes_out() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (mut child, mut stdin) = reads(&desk, &address(&site));
    wait_for("it to listen", || catches(child.id(), Signal::TERM));
    send(&child, Signal::TERM);
    wait_for("it to have heard", || {
        let said = std::fs::read_to_string(desk.folder.path().join("said")).unwrap();
        said.contains("it pauses before anything goes out")
    });
    stdin.write_all(b"openid,first\no0,a\no1,b\n").unwrap();
    drop(stdin);
    assert_eq!(end_of(&mut child), Some(4));
    assert_eq!((&desk.show("t")["stage"], sandbox.delivered()), (&json!("paused"), 0));
    desk.ends(0, &["resume", "t"]);
    desk.assert_each_once(&sandbox, 2);
}

#[test]
fn a_second_signal_while_the_list_is_read_ends_it_at_once() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (mut child, _stdin) = reads(&desk, &address(&site));
    wait_for("it to listen", || catches(child.id(), Signal::INT));
    // Two that are alike and come together are one.
    send(&child, Signal::INT);
    send(&child, Signal::TERM);
    assert_eq!(end_of(&mut child), Some(4));
    assert_eq!(desk.ends(0, &["list"]), "");
}

#[test]
fn a_hangup_pauses_and_a_second_one_makes_no_haste() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 2_000 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let mut child = desk.with_four_out(&sandbox, &address(&site));
    send(&child, Signal::HUP);
    wait_for("it to drain", || desk.ends(0, &["log", "t"]).contains("ends when"));
    send(&child, Signal::HUP);
    assert_eq!(end_of(&mut child), Some(4));
    assert_eq!(desk.show("t")["sent"].as_u64(), Some(sandbox.delivered()), "it has drained");
    sandbox.faults(json!({}));
    desk.ends(0, &["resume", "t"]);
    desk.assert_each_once(&sandbox, 100);
}

#[test]
fn a_hangup_is_nothing_to_a_task_in_the_background_or_under_nohup() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(1_000));
    desk.ends(0, &desk.task(&to, &list, &["--rate", "200", "--detach"]));
    wait_for("some of them", || desk.done() > 5);
    let pid = desk.show("t")["pid"].as_i64().unwrap() as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    let done = desk.done();
    wait_for("it to go on", || desk.done() > done + 100);
    desk.ends(0, &["pause", "t"]);

    let task = desk.command(&["resume", "t"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$0" resume t"#]).arg(task.get_program());
    command.env("MEGA_TASK_HOME", desk.folder.path().join("home"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Running::new(command.spawn().unwrap());
    let done = desk.done();
    wait_for("it to go on", || desk.done() > done + 20);
    send(&child, Signal::HUP);
    let done = desk.done();
    wait_for("it to go on still", || desk.done() > done + 100);
    assert_eq!(end_of(&mut child), Some(0));
    desk.assert_each_once(&sandbox, 1_000);
}
