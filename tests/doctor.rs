//! `doctor`: names what is wrong in the world, on the machine and with the running daemon, in either
//! language, ends in time whatever hangs, and disturbs nobody.

use crate::support::device::Small;
use crate::support::{Sandbox, Site, wait_for};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn doctor(site: &Site, locale: &str, options: &[&str]) -> Output {
    let mut command = site.command(&["doctor"]);
    command.args(options).env("LC_ALL", locale).output().unwrap()
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The findings of `--json`.
fn findings(site: &Site) -> Vec<Value> {
    let output = doctor(site, "C", &["--json"]);
    let whole: Value = serde_json::from_slice(&output.stdout).unwrap();
    whole["findings"].as_array().unwrap().clone()
}

fn level<'a>(findings: &'a [Value], subject: &str) -> &'a str {
    let found = findings.iter().filter(|finding| finding["subject"] == subject);
    let levels: Vec<&str> = found.map(|finding| finding["level"].as_str().unwrap()).collect();
    assert_eq!(levels.len(), 1, "{subject} in {findings:#?}");
    levels[0]
}

fn token_calls(sandbox: &Sandbox) -> u64 {
    let calls = &sandbox.stats()["token_calls"];
    calls["classic"].as_u64().unwrap() + calls["stable"].as_u64().unwrap()
}

fn is_stopped(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status"));
    tasks.filter_map(|task| status(task).ok()).all(|status| status.contains("T (stopped)"))
}

/// Fills the disk with one file, and gives so many bytes back.
fn fill_but_for(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[test]
fn five_faults_at_once_are_all_found_with_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return println!("not run: only root can mount a small filesystem");
    }
    let sandbox = Sandbox::with(&["--clock-offset", "3600", "--app-secret", "another"]);
    let hosts = format!("[wechat]\napi_hosts = {}, https://no-such-host.invalid", sandbox.url);
    let mut site = Site::new(&sandbox, &hosts);
    let queue = site.folder.path().join("run/test.queue");
    let _small = Small::mount(&queue, "16M");
    site.start();
    fill_but_for(&queue.join("filler"), 1 << 19);
    let limited = Command::new("prlimit")
        .args(["--pid", &site.pid().to_string(), "--nofile=300:300"])
        .status()
        .unwrap();
    assert!(limited.success());
    let (clock, host) = (format!("clock {}", sandbox.url), &sandbox.url);
    let disk = format!("disk {}", queue.display());
    let english = doctor(&site, "en_US.UTF-8", &[]);
    let text = shown(&english);
    println!("{text}");
    assert_eq!(english.status.code(), Some(1), "{text}");
    for [level, subject, what, todo] in [
        ["wrong", &clock, " s behind WeChat's", "timedatectl"],
        ["wrong", "token", "40125", "check app_secret"],
        ["wrong", "dns no-such-host.invalid", "cannot be looked up", "/etc/resolv.conf"],
        ["wrong", &disk, "0 MiB free", "larger disk"],
        ["warning", "setting.max_conn", "limit of open files is 300", "LimitNOFILE"],
    ] {
        let begins = format!("{level}: {subject}: ");
        let found = text
            .lines()
            .any(|line| line.starts_with(&begins) && line.contains(what) && line.contains(todo));
        assert!(found, "no {begins}{what} in\n{text}");
    }
    assert!(text.contains(&format!("ok: {host}: answers")), "{text}");
    assert!(text.contains("ok: daemon: runs, version"), "{text}");
    assert!(!text.contains("the-secret-of-the-test"), "{text}");
    let chinese = shown(&doctor(&site, "zh_CN.UTF-8", &[]));
    println!("{chinese}");
    for line in [
        &format!("错误：{clock}：本机时钟比微信慢 3"),
        "错误：token：WeChat gives no access token: 40125",
        "AppSecret 无效",
        "错误：dns no-such-host.invalid：无法解析",
        &format!("错误：{disk}：剩余 0 MiB"),
        "警告：setting.max_conn：",
    ] {
        assert!(chinese.contains(line), "no {line} in\n{chinese}");
    }
    site.ok(&["status"]);
}

#[test]
fn of_a_sound_installation_nothing_is_wrong_and_it_costs_one_token_call() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let before = token_calls(&sandbox);
    let found = findings(&site);
    assert!(found.iter().all(|finding| finding["level"] != "wrong"), "{found:#?}");
    assert_eq!(token_calls(&sandbox), before + 1);
    let clock = format!("clock {}", sandbox.url);
    for subject in ["token", "daemon", "queue", "failures", "open files", &clock, "pdo.dsn"] {
        assert_eq!(level(&found, subject), "ok", "{found:#?}");
    }
    let output = doctor(&site, "C", &[]);
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_classic_token_that_the_daemon_uses_is_left_to_it_and_its_troubles_are_told() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\ntoken_source = classic");
    sandbox.faults(serde_json::json!({
        "openids": {"bad": {"errcode": 43004}, "config": {"errcode": 40164}}
    }));
    site.ok(&["push", "bad", crate::support::KEY, "first=1"]);
    wait_for("the failure", || site.count("failed") == 1);
    site.ok(&["push", "config", crate::support::KEY, "first=1"]);
    wait_for("the suspension", || site.status()["suspended"].is_string());
    let before = token_calls(&sandbox);
    let found = findings(&site);
    assert_eq!(token_calls(&sandbox), before);
    let of = |subject: &str| found.iter().find(|it| it["subject"] == subject).unwrap();
    assert!(of("token")["what"].as_str().unwrap().starts_with("not fetched"), "{found:#?}");
    assert!(of("suspended")["what"].as_str().unwrap().contains("40164"), "{found:#?}");
    assert_eq!(of("failures")["what"], "1 today: 43004");
    assert!(of("failures")["todo"].as_str().unwrap().contains("does not follow"), "{found:#?}");
    assert!(of("queue")["what"].as_str().unwrap().starts_with("1 messages wait"), "{found:#?}");
    site.ok(&["stop"]);
    findings(&site);
    assert_eq!(token_calls(&sandbox), before + 1, "nobody uses one");
}

#[test]
fn it_ends_in_half_a_minute_whatever_hangs() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    // They take connections, and never say a word.
    let silent = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [host, database] = silent.each_ref().map(|listener| listener.local_addr().unwrap());
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    let port = database.port();
    let more = format!(
        "[wechat]\napi_hosts = http://{host}\ntimeout = 5m\n\
         [pdo]\ndsn = \"mysql:host=127.0.0.1;port={port};dbname=m\"\n"
    );
    let site_pid = site.pid();
    let pid = rustix::process::Pid::from_raw(site_pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    wait_for("every thread to stop", || is_stopped(site_pid));
    std::fs::write(&ini, format!("{text}\n{more}")).unwrap();
    let began = Instant::now();
    let output = doctor(&site, "C", &[]);
    let took = began.elapsed();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    std::fs::write(&ini, text).unwrap();
    let text = shown(&output);
    assert!(took < Duration::from_secs(30), "{took:?}\n{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for subject in
        ["wrong: daemon: ", "wrong: pdo.dsn", &format!("wrong: http://{host}: "), "wrong: token: "]
    {
        assert!(text.contains(subject), "no {subject} in\n{text}");
    }
}
