//! Real PHP clients, written as the legacy ones are.

use crate::support::{DEADLINE, KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn run(site: &Site, script: &str) {
    let output = Command::new("php")
        .arg(format!("{}/tests/php/{script}", env!("CARGO_MANIFEST_DIR")))
        .arg(site.address.unwrap().port().to_string())
        .arg(KEY)
        .output()
        .expect("php is installed (scripts/test installs it)");
    let text = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&text), "ok\n", "{script}\n{}", site.log());
}

/// A task of so many messages, by a client that behaves as the original's does.
struct Task(Child);

impl Task {
    fn begin(site: &Site, count: u32, prefix: &str) -> Task {
        let child = Command::new("php")
            .arg(format!("{}/tests/php/task_client.php", env!("CARGO_MANIFEST_DIR")))
            .arg(site.address.unwrap().port().to_string())
            .args([KEY, &count.to_string(), prefix])
            .stdout(Stdio::piped())
            .spawn()
            .expect("php is installed (scripts/test installs it)");
        Task(child)
    }

    /// What it says in the end: it must end, and not wait for ever.
    fn ends(mut self, site: &Site) -> String {
        let deadline = Instant::now() + DEADLINE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the client waits for ever\n{}", site.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_task_goes_through_while_all_is_well_and_while_sending_is_suspended() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    assert_eq!(Task::begin(&site, 300, "well").ends(&site), "done\n");
    wait_for("all of them", || delivered(&sandbox, "well-") == 300);
    sandbox.faults(json!({"answer": {"errcode": 45009, "errmsg": "reach max api limit"}}));
    assert_eq!(Task::begin(&site, 300, "suspended").ends(&site), "done\n");
    assert!(site.status()["suspended"].is_string());
}

#[test]
fn a_task_is_interrupted_when_the_queue_is_full() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 5000}));
    let site = Site::started(
        &sandbox,
        "[setting]\nstop_timeout = 0\n[queue]\nsegment_size = 1M\nqueue_max_bytes = 2M",
    );
    let said = Task::begin(&site, 100_000, "full").ends(&site);
    assert!(said.starts_with("interrupted at ") && said.ends_with(": queue full\n"), "{said}");
}

#[test]
fn a_task_is_interrupted_or_refused_when_the_daemon_stops_and_loses_nothing() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 100}));
    let mut site = Site::started(&sandbox, "");
    let task = Task::begin(&site, 1_000_000, "stop");
    wait_for("the middle of the task", || site.count("accepted") > 500);
    site.ok(&["stop"]);
    let said = task.ends(&site);
    let at = said.strip_prefix("interrupted at ").or(said.strip_prefix("refused at "));
    let number = at.and_then(|at| at.trim().split(':').next()).map(str::parse::<usize>);
    let Some(Ok(at)) = number else { panic!("{said}") };
    sandbox.faults(json!({}));
    site.start();
    // The one without an answer may have been taken in, too.
    wait_for("what was accepted", || site.count("queue_depth") == 0);
    let came = delivered(&sandbox, "stop-");
    assert!(came == at - 1 || came == at, "{came} came, {said}");
}

fn delivered(sandbox: &Sandbox, prefix: &str) -> usize {
    sandbox.ids().iter().filter(|(openid, _, _)| openid.starts_with(prefix)).count()
}

#[test]
fn php_clients_see_what_they_always_saw() {
    let sandbox = Sandbox::start();
    sandbox
        .faults(json!({"openids": {"refused": {"errcode": 43004, "errmsg": "require subscribe"}}}));
    let site = Site::started(&sandbox, "");
    run(&site, "one_at_a_time.php");
    assert_eq!(delivered(&sandbox, "one-"), 100);
    assert!(sandbox.get("/sandbox/delivered").contains(r#"第100条 \"quoted\" / 😀"#));
    run(&site, "pipelined.php");
    run(&site, "tset.php");
    run(&site, "interleaved.php");
    sandbox.faults(json!({"latency_ms": 500}));
    run(&site, "leaves_early.php");
    for (prefix, count) in [("pipe-", 1000), ("a-", 200), ("b-", 200), ("gone-", 100)] {
        wait_for(prefix, || delivered(&sandbox, prefix) == count);
    }
    assert_eq!(sandbox.delivered(), 100 + 1000 + 400 + 100);
}
