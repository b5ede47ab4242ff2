//! Real PHP clients: some written as the legacy ones are, some by means of the client package in `scripts/php`.

use crate::support::{DEADLINE, KEY, Sandbox, Site, steady_address, wait_for};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn run(site: &Site, script: &str) {
    run_with(site, site.address.unwrap(), script, &[]);
}

fn run_with(site: &Site, address: SocketAddr, script: &str, more: &[&str]) {
    let output = Command::new("php")
        .arg(format!("{}/tests/php/{script}", env!("CARGO_MANIFEST_DIR")))
        .arg(address.port().to_string())
        .arg(KEY)
        .args(more)
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
    for (prefix, count) in
        [("pipe-", 1000), ("window-", 200), ("a-", 200), ("b-", 200), ("gone-", 100)]
    {
        wait_for(prefix, || delivered(&sandbox, prefix) == count);
    }
    assert_eq!(sandbox.delivered(), 100 + 1000 + 200 + 400 + 100);
}

/// Hands everything on to `to`, and breaks each connection after so many bytes of answers.
fn breaking_proxy(to: SocketAddr, answers: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut mega)) = (client, TcpStream::connect(to)) else { return };
            let (mut requests, mut taken) =
                (client.try_clone().unwrap(), mega.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut requests, &mut taken);
                let _ = taken.shutdown(Shutdown::Write);
            });
            let mut left = vec![0; answers];
            while let Ok(n) = mega.read(&mut left)
                && n > 0
                && client.write_all(&left[..n]).is_ok()
            {
                left.truncate(left.len() - n);
            }
            let _ = client.shutdown(Shutdown::Both);
        }
    });
    address
}

#[test]
fn the_package_repeats_under_its_ids_what_lost_its_answer_and_nothing_goes_out_twice() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    // Ten answers and a half.
    let proxy = breaking_proxy(site.address.unwrap(), 273);
    run_with(&site, proxy, "repeats.php", &["300"]);
    wait_for("an empty queue", || site.count("queue_depth") == 0);
    for prefix in ["push-", "send-"] {
        wait_for(prefix, || delivered(&sandbox, prefix) == 300);
    }
    let ids = sandbox.ids();
    assert_eq!(ids.len(), 600);
    for (openid, id, times) in ids {
        assert_eq!((id, times), (openid.replace('-', "-id-"), 1), "{openid}");
    }
}

#[test]
fn the_package_rides_out_kill_9_of_mega_and_each_message_is_one() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 10}));
    let address = steady_address();
    let mut site = Site::started(&sandbox, &format!("[server]\nlisten[] = {address}"));
    let address: SocketAddr = address.parse().unwrap();
    std::thread::scope(|scope| {
        let client = {
            let (folder, key) = (env!("CARGO_MANIFEST_DIR"), KEY);
            let mut command = Command::new("php");
            command.arg(format!("{folder}/tests/php/repeats.php"));
            command.args([&address.port().to_string(), key, "2000"]);
            scope.spawn(move || {
                command.output().expect("php is installed (scripts/test installs it)")
            })
        };
        for (prefix, some) in [("push-", 1), ("push-", 500), ("send-", 1), ("send-", 1_000)] {
            let pid = site.pid();
            wait_for(prefix, || delivered(&sandbox, prefix) >= some);
            site.kill_process(pid);
            site.start();
        }
        let output = client.join().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&text), "ok\n", "{}", site.log());
    });
    for prefix in ["push-", "send-"] {
        wait_for(prefix, || delivered(&sandbox, prefix) == 2_000);
    }
    wait_for("an empty queue", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    assert_eq!(ids.len(), 4_000);
    let strange = ids.iter().find(|(openid, id, _)| *id != openid.replace('-', "-id-"));
    assert_eq!(strange, None);
}

#[test]
fn the_package_tells_refusals_from_failures() {
    let sandbox = Sandbox::start();
    for code in [500, 503] {
        let site = Site::started(&sandbox, &format!("[setting]\nunavailable_code = {code}"));
        let address = site.address.unwrap();
        site.ok(&["pause"]);
        run_with(&site, address, "refused.php", &["send", "Suspended"]);
        // One is queued, so the drained daemon stays.
        site.push_many(1);
        site.ok(&["drain", "--no-wait"]);
        run_with(&site, address, "refused.php", &["push", "Draining"]);
    }
}

#[test]
fn the_examples_of_the_packages_manuals_run_as_they_stand() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for manual in ["README.md", "README.zh-CN.md"] {
        let manual = format!("{}/scripts/php/{manual}", env!("CARGO_MANIFEST_DIR"));
        run_with(&site, site.address.unwrap(), "readme.php", &[&manual]);
    }
}

#[test]
fn the_package_passes_its_own_tests() {
    let folder = format!("{}/scripts/php", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("phpunit")
        .current_dir(folder)
        .output()
        .expect("phpunit is installed (scripts/test installs it)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
