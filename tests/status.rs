//! What `status` tells: every answer is whole, whatever goes on meanwhile.

use crate::support::{Sandbox, Site, wait_for};
use crate::torture::{push_until_killed, send_until_killed};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WORKERS: u64 = 8;

/// The equations of README, and what else holds in each answer.
fn check(status: &Value) {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).expect(path);
    let pushes = |name: &str| number(&format!("/pushes/{name}"));
    assert_eq!(
        pushes("found") + pushes("accepted") + pushes("requeued"),
        pushes("delivered") + pushes("failed") + pushes("lost") + pushes("queued"),
        "{status}"
    );
    let sends = |name: &str| number(&format!("/sends/{name}"));
    assert_eq!(
        sends("accepted"),
        sends("delivered") + sends("failed") + sends("given_up") + sends("waiting"),
        "{status}"
    );
    let (in_flight, ready) = (number("/in_flight"), number("/ready"));
    assert!(in_flight <= number("/workers"), "{status}");
    assert!(ready == 0 || in_flight == number("/workers"), "nobody rests: {status}");
    assert!(in_flight + ready <= pushes("queued") + sends("waiting"), "{status}");
    assert!(number("/unrecorded") + number("/retrying") <= pushes("queued"), "{status}");
    assert_eq!(number("/queue_depth"), pushes("queued"));
    assert!(pushes("queued") > 0 || status["oldest_seconds"].is_null(), "{status}");
    for (sum, part) in
        [("/accepted", "accepted"), ("/delivered", "delivered"), ("/failed", "failed")]
    {
        assert_eq!(number(sum), pushes(part) + sends(part));
    }
    let refusals = status["refusals"].as_object().unwrap().values();
    assert_eq!(number("/refused"), refusals.map(|count| count.as_u64().unwrap()).sum::<u64>());
}

/// Asks until it is told to stop, or nobody answers; returns how many answers there were.
fn ask(site: &Site, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = site.run(&["status", "--json"]);
        match serde_json::from_slice(&asked.stdout) {
            Ok(status) if asked.status.success() => check(&status),
            _ => break,
        }
        answers += 1;
    }
    answers
}

/// Pushes, sends, retries, failures and requeues at once, until the daemon is killed.
fn round(site: &Site, number: usize) -> usize {
    let address = site.address.unwrap();
    let pid = site.pid();
    let mut clients = Vec::new();
    for n in 0..2 {
        let name = format!("push-{number}-{n}");
        clients.push(std::thread::spawn(move || push_until_killed(address, &name)));
        let name = format!("send-{number}-{n}");
        clients.push(std::thread::spawn(move || send_until_killed(address, &name)));
    }
    let mut requeue =
        site.command(&["requeue"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stop = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(site, &stop));
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..300)));
        site.kill_process(pid);
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    requeue.wait().unwrap();
    clients.into_iter().for_each(|client| drop(client.join().unwrap()));
    answers
}

/// MEGA_TORTURE_ROUNDS makes it longer.
#[test]
fn every_answer_adds_up_under_load_kills_and_restarts() {
    let rounds = std::env::var("MEGA_TORTURE_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let sandbox = Sandbox::start();
    let more = format!("[setting]\ntask_worker_num = {WORKERS}\n[queue]\nretry_base = 20ms");
    let mut site = Site::started(&sandbox, &more);
    let mut answers = 0;
    for number in 0..rounds {
        let errcode = if number % 2 == 0 { -1 } else { 43004 };
        let answer = json!({"errcode": errcode, "share": 0.05});
        sandbox.faults(json!({"latency_ms": 1, "latency_jitter_ms": 3, "answer": answer}));
        answers += round(&site, number);
        site.start();
        let status = site.status();
        check(&status);
        assert_eq!(
            (&status["pushes"]["lost"], &status["pushes"]["accepted"]),
            (&json!(0), &json!(0))
        );
    }
    println!("{rounds} kills, {answers} answers under load");
    assert!(answers > rounds);

    // Without a kill nothing is left open between two runs.
    let stopped = site.ok(&["stop"]);
    let left = stopped.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    site.start();
    assert_eq!(site.status()["pushes"]["found"].as_u64(), left, "{stopped}");

    // Nobody is counted twice, or not at all.
    sandbox.faults(json!({"openids": {"o7": {"errcode": 43004}}}));
    site.push_many(500);
    let mut client = site.client();
    (0..20).for_each(|n| client.send(n, if n == 3 { "o7" } else { "s" }, "null"));
    (0..20).for_each(|_| drop(client.read()));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    let status = site.status();
    check(&status);
    assert_eq!(status["pushes"]["accepted"], 500);
    assert_eq!(
        (&status["sends"]["delivered"], &status["sends"]["failed"]),
        (&json!(19), &json!(1))
    );
}

/// The names in the first column of a table of fields; `a.*` stands for all that is in `a`.
fn documented(table: &str) -> Vec<String> {
    let cells = table.lines().skip(2).map(|row| row.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn each_field_of_the_answer_is_documented_and_nothing_else_is() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let status = site.status();
    for table in [
        include_str!("../src/cli/status/fields.md"),
        include_str!("../src/cli/status/fields.zh-CN.md"),
    ] {
        let mut documented = documented(table);
        let mut shown: Vec<String> = Vec::new();
        for (name, value) in status.as_object().unwrap() {
            match value {
                Value::Object(_) if documented.contains(&format!("{name}.*")) => {
                    shown.push(format!("{name}.*"));
                }
                Value::Object(parts) => {
                    shown.extend(parts.keys().map(|part| format!("{name}.{part}")));
                }
                _ => shown.push(name.clone()),
            }
        }
        documented.sort_unstable();
        shown.sort_unstable();
        assert_eq!(documented, shown);
    }
}

#[test]
fn health_has_the_exit_codes_of_plugins() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    let health = |site: &Site, options: &[&str]| {
        let output = site.run(&[&["health"], options].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, line) = health(&site, &[]);
    assert_eq!((code, line.as_str()), (2, "MEGA test CRITICAL - mega test is not running\n"));
    site.start();
    let (code, line) = health(&site, &[]);
    assert!(code == 0 && line.starts_with("MEGA test OK - 0 messages are queued"), "{line}");
    assert!(
        line.contains(" | queued=0;;;0 oldest=0s;300;1800;0 failed_share=0%;20;50;0;100 "),
        "{line}"
    );
    for (errcode, cause, expected) in [(48001, "config", 2), (45009, "rate", 1)] {
        sandbox.faults(json!({"answer": {"errcode": errcode}}));
        site.push_many(1);
        wait_for("sending to stop", || site.status()["suspended_cause"] == cause);
        let (code, line) = health(&site, &[]);
        assert!(code == expected && line.contains("sending is suspended"), "{line}");
        assert!(site.ok(&["status"]).contains("! sending is suspended: "));
        sandbox.faults(json!({}));
        site.ok(&["restart"]);
        wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    }
    sandbox.faults(json!({"answer": {"hang": true}}));
    site.push_many(3);
    assert_eq!(health(&site, &["--max-depth", "3"]).0, 0);
    assert_eq!(health(&site, &["--max-depth", "2"]).0, 1);
    assert_eq!(health(&site, &["--max-depth=1,2"]).0, 2);
    wait_for("a second to pass", || health(&site, &["--max-age=0s"]).0 == 1);
}

/// Moves the cursor, names the window, turns the direction, and forges a line.
const EVIL: &str =
    "\u{1b}[2J\u{1b}]0;pwn\u{7}\u{9b}31m\n[2026-01-01 00:00:00] forged\u{202e}\u{200b}";

#[test]
fn no_text_from_outside_steers_the_terminal_of_who_looks() {
    let sandbox = Sandbox::start();
    let errmsg = format!("{EVIL}{}", "A".repeat(3_000));
    sandbox.faults(json!({"openids": {"o1\u{9b}\u{202e}": {"errcode": 43004, "errmsg": errmsg}}}));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.push(1, "o1\u{9b}\u{202e}", "null");
    assert_eq!(client.read().code, 200);
    wait_for("it to fail", || site.status()["pushes"]["failed"] == 1);
    sandbox.faults(json!({"answer": {"errcode": 40164, "errmsg": errmsg}}));
    site.push_many(1);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    site.run(&["pause", "--why", EVIL]);
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["health"],
        &["failed"],
        &["find", "o1\u{9b}\u{202e}"],
        &["queue", "dump"],
        &["doctor"],
    ] {
        let output = site.run(words);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let steers = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{200b}".contains(c);
        assert!(!said.contains(steers), "{words:?}: {said:?}");
        assert!(!said.contains("AAAAA".repeat(70).as_str()), "{words:?}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("[2026-01-01")), "{words:?}: {said}");
    }
    let failed: Value = serde_json::from_str(&site.ok(&["failed"])).unwrap();
    assert_eq!(failed["openid"], "o1\u{9b}\u{202e}", "the text itself is kept");
    // The message log has openids as they came, for programs.
    let log = site.log();
    let mut lines = log.lines().filter(|line| line.starts_with('['));
    assert!(!lines.any(|line| line.contains('\u{202e}')), "{log}");
}

#[test]
fn a_monitor_that_asks_wrongly_is_told_unknown_on_the_output_that_it_reads() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let root = site.folder.path().to_str().unwrap();
    let of_name = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mega"));
        command.args(["--root", root, name, "health"]).output().unwrap()
    };
    for (output, why) in [
        (site.run(&["health", "--bogus"]), "--bogus"),
        (site.run(&["health", "--max-age", "soon"]), "no time"),
        (site.run(&["health", "--max-age", "10s,5s"]), "lies below"),
        (of_name("misspelt"), "misspelt.ini"),
        (of_name("a/b"), "is not a name"),
    ] {
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(line.starts_with("MEGA ? UNKNOWN - ") && line.lines().count() == 1, "{line}");
        assert!(line.contains(why), "{line}");
    }
    assert_eq!(of_name("test").status.code(), Some(0));
    // Whoever misspells another command reads stderr, and help is no fault.
    assert_eq!(site.run(&["status", "--bogus"]).status.code(), Some(2));
    assert_eq!(site.run(&["health", "--help"]).status.code(), Some(0));
}

#[test]
fn what_stops_delivery_is_critical_and_failures_that_are_not_recorded_have_failed() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut site = Site::started(&sandbox, "");
    let ledger = site.folder.path().join("run/test.ledger.db");
    site.push_many(1);
    wait_for("one to be recorded", || site.status()["pushes"]["failed"] == 1);
    let lock = rusqlite::Connection::open(&ledger).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    site.push_many(1_500);
    wait_for("the ledger to hold up delivery", || site.status()["blocked"].is_string());
    let status = site.status();
    assert_eq!(status["pushes"]["failed"], 1);
    assert!(status["unrecorded"].as_u64().unwrap() >= 1_024, "{status}");
    assert!(status["rates_5m"]["failed"].as_f64().unwrap() > 1.0, "{status}");
    let health = site.run(&["health"]);
    let line = String::from_utf8(health.stdout).unwrap();
    assert_eq!(health.status.code(), Some(2), "{line}");
    assert!(line.contains("no push is delivered: ") && line.contains("% have failed"), "{line}");
    let page = site.ok(&["status"]);
    assert!(page.contains("! no push is delivered: "), "{page}");
    assert!(page.contains("failed, not yet recorded"), "{page}");
    for words in [&["failed"][..], &["failed", "--count"]] {
        let output = site.run(words);
        let said = String::from_utf8(output.stderr).unwrap();
        let unrecorded = status["unrecorded"].to_string();
        assert!(said.contains(&format!("{unrecorded} more have failed")), "{words:?}: {said}");
    }
    // A start says at once what it has met.
    site.kill();
    site.start();
    assert!(site.status()["ledger"].is_string());
    assert_ne!(site.run(&["health"]).status.code(), Some(0));
    drop(lock);
    wait_for("all to be recorded", || site.count("queue_depth") == 0);
    let status = site.status();
    assert_eq!((&status["ledger"], &status["blocked"]), (&Value::Null, &Value::Null));
    assert_eq!(String::from_utf8(site.run(&["failed"]).stderr).unwrap(), "");
}

#[test]
fn what_is_watched_is_a_block_for_each_look_and_ends_when_it_is_told_to() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for (language, first, rates) in [
        ("C", "mega test is running: pid ", "per second"),
        ("zh_CN.UTF-8", "mega test 正在运行", "每秒"),
    ] {
        let mut watch = site
            .command(&["status", "--watch=1"])
            .env("LC_ALL", language)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
        for look in 0..2 {
            let block: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            assert!(block[0].starts_with(first), "{block:?}");
            let table = block.iter().position(|line| line.starts_with(rates)).unwrap();
            let columns = block[table + 1].split_whitespace().count();
            assert_eq!(columns, 5 + look, "with what happens now: {block:?}");
        }
        let pid = rustix::process::Pid::from_child(&watch);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(watch.wait().unwrap().code(), Some(0));
    }
}

/// Needs script(1), which plays the terminal.
#[test]
fn a_terminal_is_drawn_over_and_left_as_it_was() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let command = site.command(&["status", "--watch=1"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let line = format!("stty cols 60 rows 10; timeout --foreground -s INT 2.5 {}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["-qc", &line, "/dev/null"]).env("LC_ALL", "C").stdin(Stdio::null());
    let drawn = String::from_utf8(script.output().unwrap().stdout).unwrap();
    // The terminal puts a carriage return before each new line.
    let drawn = drawn.replace("\r\r\n", "\r\n");
    let inside = drawn.split_once("\x1b[?1049h\x1b[?25l").expect(&drawn).1;
    let (inside, after) = inside.split_once("\x1b[?25h\x1b[?1049l").expect(&drawn);
    assert_eq!(after.trim(), "", "nothing is left on the screen");
    let frames: Vec<&str> = inside.split("\x1b[H").skip(1).collect();
    assert!((2..=4).contains(&frames.len()), "{drawn:?}");
    for frame in frames {
        assert!(frame.ends_with("\x1b[J"));
        let lines: Vec<&str> = frame.trim_end_matches("\x1b[J").split("\r\n").collect();
        assert_eq!(lines.len(), 10, "as many as there are rows");
        assert!(lines.iter().all(|line| line.ends_with("\x1b[K") && line.chars().count() < 60 + 3));
    }
}

#[test]
fn both_manuals_show_each_field() {
    for (table, manual) in [
        (include_str!("../src/cli/status/fields.md"), include_str!("../README.md")),
        (include_str!("../src/cli/status/fields.zh-CN.md"), include_str!("../README.zh-CN.md")),
    ] {
        for row in table.lines() {
            assert!(manual.lines().any(|line| line == row), "not in the manual: {row}");
        }
    }
}
