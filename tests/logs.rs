//! Where the log goes, how it looks, and what becomes of it where it cannot go.

use crate::support::device::Small;
use crate::support::{Sandbox, Site, wait_for};
use rustix::fs::fstat;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A daemon in the foreground that writes its stderr here.
struct Foreground(Child);

impl Foreground {
    fn start(
        site: &mut Site,
        stderr: impl Into<Stdio>,
        environment: &[(&str, &str)],
    ) -> Foreground {
        let mut command = site.command(&["start", "-f"]);
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().unwrap();
        wait_for("the daemon to listen", || site.run(&["status"]).status.code() == Some(0));
        site.address = Some(site.status()["listen"][0].as_str().unwrap().parse().unwrap());
        Foreground(child)
    }

    fn end(mut self, site: &Site) {
        site.ok(&["stop"]);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn without_a_log_file(site: &Site) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text.replace("log_file = logs/test.log\n", "")).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn in_the_foreground_the_log_is_stderr_unless_a_file_is_named() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    without_a_log_file(&site);
    let stderr = site.folder.path().join("stderr");
    let daemon = Foreground::start(&mut site, File::create(&stderr).unwrap(), &[]);
    site.push_many(3);
    wait_for("the messages", || sandbox.delivered() == 3);
    daemon.end(&site);
    let text = std::fs::read_to_string(&stderr).unwrap();
    assert!(text.contains("] test.NOTICE: queue opened, 0 messages are waiting [] []\n"), "{text}");
    assert!(
        text.contains("] test.NOTICE: stopped, 0 messages left in the queue [] []\n"),
        "{text}"
    );
    // The message log is where it always is: `find` looks for it there.
    let logs = files(&site.folder.path().join("logs"));
    assert!(
        logs.iter().all(|name| name.starts_with("test-messages-")) && logs.len() == 1,
        "{logs:?}"
    );
    assert!(site.ok(&["find", "o1"]).contains("o1"));
    // In the background the same file logs to a file.
    site.start();
    assert!(site.log().contains("queue opened"));
}

#[test]
fn a_daemon_in_the_background_has_no_stderr_to_log_to_unless_it_is_led_somewhere() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[log]\nlog_file = -");
    for command in ["start", "restart"] {
        let refused = site.run(&[command]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            said.contains("log.log_file = - is stderr") && said.contains("start it with -f"),
            "{said}"
        );
    }
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text + "[setting]\nlog_file = run/stderr\n").unwrap();
    site.start();
    let led = std::fs::read_to_string(site.folder.path().join("run/stderr")).unwrap();
    assert!(led.contains("test.NOTICE: queue opened"), "{led}");
    assert!(site.status()["log"].is_null());
}

#[test]
fn where_the_journal_reads_stderr_each_line_tells_its_severity_and_no_time() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[log]\nlog_file = -");
    let path = site.folder.path().join("stderr");
    let stderr = File::create(&path).unwrap();
    let stat = fstat(&stderr).unwrap();
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    let daemon = Foreground::start(&mut site, stderr, &[("JOURNAL_STREAM", &stream)]);
    daemon.end(&site);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("<5>test.NOTICE: queue opened, 0 messages are waiting [] []\n"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.starts_with('<') || line.starts_with("mega: ")), "{text}");
}

#[test]
fn whoever_does_not_read_stderr_holds_up_nothing_and_is_told_what_is_missing() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[log]\nlog_file = -");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let daemon = Foreground::start(&mut site, writer, &[]);
    // Each of them fails, and that is a line of the log at this level.
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let mut client = site.client();
    for n in 0..2_000 {
        client.push(n, &format!("o{n}"), "null");
    }
    (0..2_000).for_each(|_| assert_eq!(client.read().code, 200));
    wait_for("all of them to fail", || site.count("failed") == 2_000);
    let status = site.status();
    let log = status["log"].as_str().unwrap_or_else(|| panic!("nothing is missing: {status}"));
    assert!(log.contains(" lines could not be written to stderr: nobody reads it"), "{log}");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    wait_for("the log to go on", || site.status()["log"].is_null());
    daemon.end(&site);
    let text = reading.join().unwrap();
    assert!(text.contains(" lines before this one could not be written [] []\n"), "the log");
    assert!(text.contains("test.NOTICE: stopped"));
}

#[test]
fn each_line_is_an_object_or_has_the_time_of_rfc_3339_where_that_is_asked_for() {
    let sandbox = Sandbox::start();
    let site = Site::started(
        &sandbox,
        "[log]\nlog_format = json\nlog_prefix = \"a \\ b\"\nmessage_log = off",
    );
    site.ok(&["stop"]);
    let log = site.log();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["time", "level", "channel", "message", "context"]);
        assert!(chrono::DateTime::parse_from_rfc3339(line["time"].as_str().unwrap()).is_ok());
        assert_eq!(line["channel"], "a \\ b");
    }
    assert!(
        log.contains(r#""level":"notice","channel":"a \\ b","message":"queue opened, 0 "#),
        "{log}"
    );
    let site = Site::started(&sandbox, "[log]\nlog_format = rfc3339\nmessage_log = off");
    for line in site.log().lines() {
        let (time, rest) = line[1..].split_once("] ").unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.contains('.'), "{line}");
        assert!(rest.starts_with("test."), "{line}");
    }
}

#[test]
fn failures_are_one_line_for_all_of_them_and_the_last_are_told_at_the_end() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({
        "answer": {"errcode": 43004, "errmsg": "require subscribe"},
        "openids": {"o1": {"errcode": 40003}, "o2": {"errcode": 40003}, "o3": {"errcode": 98765}},
    }));
    let site = Site::started(&sandbox, "[log]\nlog_level = warning\nmessage_log = off");
    site.push_many(50);
    // The unknown code is tried once more.
    wait_for("all of them to fail", || site.count("failed") == 50);
    assert!(!site.log().contains("failed for good"), "{}", site.log());
    site.ok(&["stop"]);
    let log = site.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("failed for good")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains("test.WARNING: in the last ") && told[0].contains(" s 50 messages"),
        "{log}"
    );
    let ends = "failed for good: 43004 (the user does not follow the account) 47, 40003 (the openid is not \
                of this account) 2, 98765 1 (see: mega test failed)";
    assert!(told[0].contains(ends), "{log}");
}

#[test]
fn a_full_log_disk_shows_in_status_costs_lines_only_and_heals() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can mount a small filesystem");
    }
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    let folder = site.folder.path().join("logs");
    let small = Small::mount(&folder, "256K");
    let filler = folder.join("somebody-elses");
    std::fs::write(&filler, vec![1; 200 << 10]).unwrap();
    site.start();
    let mut pushed = 0;
    let both = |site: &Site| {
        let status = site.status();
        status["log"].is_string() && status["message_log"].is_string()
    };
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    wait_for("the disk to fill up", || {
        let mut client = site.client();
        (0..100).for_each(|n| client.push(n, &format!("o{n}"), "null"));
        (0..100).for_each(|_| assert_eq!(client.read().code, 200));
        pushed += 100;
        wait_for("them to fail", || site.count("failed") == pushed);
        both(&site)
    });
    let status = site.status();
    for (log, file) in [("log", "/logs/test-"), ("message_log", "/logs/test-messages-")] {
        let why = status[log].as_str().unwrap();
        assert!(why.contains(" lines could not be written to ") && why.contains(file), "{why}");
        assert!(why.ends_with("No space left on device (os error 28)"), "{why}");
    }
    std::fs::remove_file(filler).unwrap();
    // Nothing is logged or sent meanwhile.
    wait_for("both to heal", || {
        let status = site.status();
        status["log"].is_null() && status["message_log"].is_null()
    });
    site.ok(&["stop"]);
    assert!(
        site.log().contains("test.WARNING: ") && site.log().contains("# "),
        "both say what is missing"
    );
    assert!(site.log().contains(" lines before this one could not be written [] []\n"));
    assert!(site.log().contains(" lines before this one could not be written\n"));
    drop(small);
}

#[test]
fn the_systems_log_is_written_too_and_one_that_is_missing_ends_nothing() {
    let sandbox = Sandbox::start();
    let system = Path::new("/dev/log");
    if system.exists() || !rustix::process::geteuid().is_root() {
        return println!("not run: {} is somebody else's here", system.display());
    }
    let site = Site::started(&sandbox, "[log]\nsyslog = on");
    let log = site.status()["log"].as_str().unwrap().to_owned();
    assert!(log.contains(" lines could not be written to /dev/log: No such file"), "{log}");
    site.push_many(3);
    wait_for("the messages", || sandbox.delivered() == 3);
    let socket = UnixDatagram::bind(system).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let healed = site.status()["log"].clone();
    site.ok(&["stop"]);
    std::fs::remove_file(system).unwrap();
    assert!(healed.is_null(), "{healed}");
    let mut lines = Vec::new();
    let mut bytes = [0; 4096];
    while !lines.last().is_some_and(|line: &String| line.contains("stopped, 0 messages")) {
        let count = socket.recv(&mut bytes).unwrap();
        lines.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
    }
    assert!(lines[0].contains(" lines before this one could not be written"), "{lines:?}");
    let stopped = lines.last().unwrap();
    assert!(stopped.starts_with("<29>") && stopped.contains(" mega-test["), "{stopped}");
    assert!(stopped.ends_with("]: NOTICE stopped, 0 messages left in the queue"), "{stopped}");
    assert!(site.log().contains("test.NOTICE: stopped"), "the file is written as well");
}
