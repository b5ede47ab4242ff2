//! Control never depends on the configuration being right: whatever happened to the ini, the pidfile,
//! the socket or the facts, the running daemon is found, told the truth about, and stopped.

use crate::support::{DEADLINE, KEY, Sandbox, Site, wait_for};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn not_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: needs root");
    }
    !root
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edit(&self, change: impl FnOnce(String) -> String) {
        let ini = self.path("conf/test.ini");
        let text = std::fs::read_to_string(&ini).unwrap();
        std::fs::write(&ini, change(text)).unwrap();
    }

    /// Runs a command that must end with this code, and returns what it said.
    fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "mega {arguments:?}: {said}\n{}", self.log());
        said
    }

    fn signal(&self, pid: i32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills the daemon, and returns when its locks are gone.
    fn kill_hard(&self) {
        let pid = self.pid();
        self.kill_process(pid);
        wait_for("the killed daemon to be gone", || {
            !PathBuf::from(format!("/proc/{pid}")).exists()
        });
    }

    fn leftovers(&self) -> Vec<&'static str> {
        let names = ["run/test.pid", "run/test.sock", "run/test.facts", "run/test.facts.new"];
        names.into_iter().filter(|name| self.path(name).symlink_metadata().is_ok()).collect()
    }
}

/// What can be wrong with the file that a running daemon was started with.
#[derive(Debug, Clone, Copy)]
enum Ini {
    Broken,
    Removed,
    Folder,
    OtherPidFile,
}

impl Ini {
    const ALL: [Ini; 4] = [Ini::Broken, Ini::Removed, Ini::Folder, Ini::OtherPidFile];

    fn spoil(self, site: &Site) {
        let ini = site.path("conf/test.ini");
        match self {
            Ini::Broken => site.edit(|text| text + "\n[setting]\ntask_worker_num = none\n"),
            Ini::Removed => std::fs::remove_file(ini).unwrap(),
            // Root can read whatever is a file.
            Ini::Folder => {
                std::fs::remove_file(&ini).unwrap();
                std::fs::create_dir(ini).unwrap();
            }
            Ini::OtherPidFile => site.edit(|text| text + "\n[setting]\npid_file = run/new.pid\n"),
        }
    }

    fn is_readable(self) -> bool {
        matches!(self, Ini::OtherPidFile)
    }
}

#[test]
fn whatever_became_of_the_ini_the_running_daemon_is_reached() {
    let sandbox = Sandbox::start();
    for ini in Ini::ALL {
        for pid_file in ["", "[setting]\npid_file = elsewhere/daemon.pid"] {
            let mut site = Site::new(&sandbox, pid_file);
            site.start();
            let pid = site.pid();
            ini.spoil(&site);
            let what = format!("{ini:?}, {pid_file:?}");
            assert!(site.ends(0, &["status"]).contains("is running"), "{what}");
            assert_eq!(site.pid(), pid, "{what}");
            assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n", "{what}");
            assert_eq!(site.ok(&["send", "o", KEY, "first=1"]), "200\n", "{what}");
            assert_eq!(site.ok(&["tset", KEY]), "200\n", "{what}");
            if !ini.is_readable() {
                for words in [&["restart"][..], &["reload"], &["start"]] {
                    let why = site.ends(1, words);
                    assert!(why.contains("conf/test.ini"), "{what}, {words:?}: {why}");
                    assert_eq!(site.pid(), pid, "{what}, {words:?}");
                }
                assert!(site.ends(1, &["restart"]).contains("the running daemon goes on"));
            }
            let stop = if pid_file.is_empty() { &["stop"][..] } else { &["stop", "--now"] };
            assert!(site.ends(0, stop).contains("stopped, 0 messages left"), "{what}");
            assert_eq!(site.leftovers(), [""; 0], "{what}");
            assert!(!site.path("elsewhere/daemon.pid").exists(), "{what}");
            site.ends(3, &["status"]);
            site.ends(0, &["stop"]);
        }
    }
}

#[test]
fn the_facts_hold_no_secret_and_end_with_the_daemon() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[pdo]\npassword = hush-hush-hush");
    let text = std::fs::read_to_string(site.path("run/test.facts")).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(facts["pid"], site.pid());
    assert_eq!(facts["pid_file"], site.path("run/test.pid").to_str().unwrap());
    assert_eq!(facts["socket"], site.path("run/test.sock").to_str().unwrap());
    assert_eq!(facts["config"], site.path("conf/test.ini").to_str().unwrap());
    assert_eq!(facts["user"], rustix::process::geteuid().as_raw());
    assert_eq!(facts["stop_timeout_seconds"], 5);
    assert!(!text.contains("hush") && !text.contains("the-secret"), "{text}");
    site.ok(&["stop"]);
    assert_eq!(site.leftovers(), [""; 0]);
}

#[test]
fn a_start_after_a_broken_ini_was_mended_finds_the_daemon_that_still_runs() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    site.start();
    let pid = site.pid();
    Ini::OtherPidFile.spoil(&site);
    assert!(site.ends(1, &["start"]).contains(&format!("already running, pid {pid}")));
    site.ok(&["restart"]);
    assert_ne!(site.pid(), pid);
    assert!(site.path("run/new.pid").exists());
    assert_eq!(site.leftovers(), ["run/test.facts"]);
    site.ok(&["stop"]);
    assert!(!site.path("run/new.pid").exists() && !site.path("run/new.sock").exists());
}

#[test]
fn what_is_removed_comes_back_and_meanwhile_the_daemon_is_not_dead() {
    let sandbox = Sandbox::start();
    let all = ["run/test.pid", "run/test.sock", "run/test.facts"];
    let cases: [&[&str]; 7] =
        [&all[..1], &all[1..2], &all[2..], &all[..2], &all[1..], &[all[0], all[2]], &all];
    for removed in cases {
        let site = Site::started(&sandbox, "");
        let pid = site.pid();
        removed.iter().for_each(|name| std::fs::remove_file(site.path(name)).unwrap());
        // With all of them gone nothing is left to tell by, for a moment.
        if removed.len() < 3 {
            let text = site.ends(0, &["status"]);
            assert!(text.contains(&pid.to_string()), "{removed:?}: {text}");
        }
        wait_for("all of it to come back", || site.leftovers() == all);
        wait_for("the socket to be heard", || site.run(&["status", "--json"]).status.success());
        assert_eq!(site.pid(), pid, "{removed:?}");
        assert_eq!(std::fs::read_to_string(site.path(all[0])).unwrap(), format!("{pid}\n"));
        for name in removed {
            let log = site.log();
            let told = |line: &&str| line.contains("WARNING") && line.contains(name);
            assert_eq!(log.lines().filter(told).count(), 1, "{name}: {log}");
        }
        assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n");
        site.ok(&["stop"]);
        assert_eq!(site.leftovers(), [""; 0], "{removed:?}");
    }
}

#[test]
fn what_is_replaced_is_replaced_back() {
    let sandbox = Sandbox::start();
    for name in ["run/test.pid", "run/test.sock", "run/test.facts"] {
        let site = Site::started(&sandbox, "");
        let (pid, path, victim) = (site.pid(), site.path(name), site.path("victim"));
        std::fs::write(&victim, "precious").unwrap();
        let original = std::fs::read_to_string(&path).unwrap_or_default();
        for plant in ["file", "link", "pipe", "second name"] {
            std::fs::remove_file(&path).unwrap();
            match plant {
                "file" => std::fs::write(&path, "1\n").unwrap(),
                "link" => symlink(&victim, &path).unwrap(),
                "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                _ => std::fs::hard_link(&victim, &path).unwrap(),
            }
            wait_for("it to come back", || match path.symlink_metadata() {
                Ok(stat) if stat.is_file() && stat.nlink() == 1 => {
                    std::fs::read_to_string(&path).unwrap_or_default() == original
                }
                Ok(stat) => name.ends_with(".sock") && stat.file_type().is_socket(),
                Err(_) => false,
            });
            wait_for("the daemon to be reached", || site.run(&["status"]).status.code() == Some(0));
            assert_eq!(site.pid(), pid, "{plant} in place of {name}");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "{plant}, {name}");
        }
        site.ok(&["stop"]);
        assert_eq!(site.leftovers(), [""; 0], "{name}");
    }
}

#[test]
fn a_stop_removes_what_a_killed_daemon_left_and_says_so() {
    let sandbox = Sandbox::start();
    for pid_file in ["run/test.pid", "elsewhere/daemon.pid"] {
        for ini in [None, Some(Ini::Broken), Some(Ini::OtherPidFile)] {
            let site = Site::started(&sandbox, &format!("[setting]\npid_file = {pid_file}"));
            site.kill_hard();
            assert!(site.ends(1, &["status"]).contains("is dead"), "{pid_file}");
            if let Some(ini) = ini {
                ini.spoil(&site);
            }
            let text = site.ends(0, &["stop"]);
            assert!(text.contains("is not running") && text.contains(pid_file), "{text}");
            let socket = site.path(pid_file).with_extension("sock");
            assert!(!site.path(pid_file).exists() && !socket.exists(), "{pid_file}, {ini:?}");
            assert_eq!(site.leftovers(), [""; 0], "{pid_file}, {ini:?}");
            site.ends(3, &["status"]);
            assert!(!site.ends(0, &["stop"]).contains(pid_file));
        }
    }
}

#[test]
fn a_frozen_daemon_is_told_within_patience_and_is_not_dead() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pid = site.pid();
    site.signal(pid, rustix::process::Signal::STOP);
    wait_for("all its threads to be frozen", || {
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    });
    Ini::Broken.spoil(&site);
    let since = Instant::now();
    let text = site.ends(4, &["status"]);
    assert!(since.elapsed() < DEADLINE / 2 && text.contains("does not answer"), "{text}");
    assert!(site.ends(1, &["reload"]).contains("conf/test.ini"));
    site.signal(pid, rustix::process::Signal::CONT);
    site.ends(0, &["status"]);
    site.ends(0, &["stop"]);
}

#[test]
fn whoever_gives_a_frozen_daemon_an_order_is_told_what_to_do_and_soon() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nstop_timeout = 1s");
    let pid = site.pid();
    site.signal(pid, rustix::process::Signal::STOP);
    let orders: [&[&str]; 5] =
        [&["pause"], &["reload"], &["push", "o", KEY], &["requeue"], &["stop"]];
    let since = Instant::now();
    let running: Vec<_> = orders
        .iter()
        .map(|words| {
            let mut command = site.command(words);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (child, words) in running.into_iter().zip(orders) {
        let output = child.wait_with_output().unwrap();
        let text = said(&output);
        assert!(since.elapsed().as_secs() < 20, "{words:?}: {:?}", since.elapsed());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(text.contains(&format!("kill -9 {pid}")) && text.contains("test.log"), "{text}");
    }
    site.signal(pid, rustix::process::Signal::CONT);
}

#[test]
fn a_daemon_whose_files_were_all_removed_is_not_dead_and_is_stopped() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pid = site.pid();
    let remove = || {
        for name in ["run/test.pid", "run/test.sock", "run/test.facts"] {
            std::fs::remove_file(site.path(name)).unwrap();
        }
    };
    remove();
    let text = site.ends(4, &["status"]);
    assert!(text.contains(&format!("the process {pid} holds the queue")), "{text}");
    assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n", "it is waited for");
    remove();
    let text = site.ends(0, &["stop"]);
    assert!(text.contains("stopped, 0 messages left"), "{text}");
    site.ends(3, &["status"]);
}

#[test]
fn what_needs_paths_only_works_with_a_broken_ini() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[log]\nmessage_log = on");
    sandbox.faults(serde_json::json!({"answer": {"errcode": 43004, "share": 1}}));
    assert_eq!(site.ok(&["push", "someone", KEY, "first=1"]), "200\n");
    wait_for("the failure", || site.count("failed") == 1);
    Ini::Broken.spoil(&site);
    for (words, word) in [
        (&["find", "someone"][..], "someone"),
        (&["failed"], "someone"),
        (&["failed", "--count"], "43004"),
        (&["queue", "check"], "segment"),
        (&["failed", "dismiss", "--everything"], "1 dismissed"),
    ] {
        let text = site.ends(0, words);
        assert!(text.contains(word), "{words:?}: {text}");
        assert!(
            text.contains("task_worker_num") || text.contains("running daemon tells"),
            "{text}"
        );
    }
    let text = site.ends(1, &["doctor"]);
    assert!(text.contains("wrong: configuration") && text.contains("task_worker_num"), "{text}");
    assert!(text.contains("daemon: runs, version"), "{text}");
    site.ok(&["stop"]);
    assert!(site.ends(1, &["failed"]).contains("task_worker_num"));
}

#[test]
fn members_of_the_admin_group_stop_it_and_are_told_who_may_start_it() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "[setting]\nuser = nobody\nadmin_group = nogroup");
    for folder in ["", "run", "conf"] {
        std::fs::set_permissions(site.path(folder), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let program = site.path("mega");
    std::fs::copy(env!("CARGO_BIN_EXE_mega"), &program).unwrap();
    let member = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("-c").arg(site.path("conf/test.ini")).args(words).uid(7).gid(65534);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), said(&output))
    };
    for words in [&["stop"][..], &["stop", "--now"]] {
        site.ok(&["start"]);
        std::fs::set_permissions(site.path("run"), PermissionsExt::from_mode(0o755)).unwrap();
        let pid = site.pid();
        let (code, text) = member(&["restart"]);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains("only root") && !text.contains("stop that program"), "{text}");
        assert_eq!(site.pid(), pid);
        let (code, text) = member(words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        assert!(text.contains("stopped, 0 messages left"), "{text}");
        assert!(site.log().contains("told to stop by"), "{}", site.log());
        site.ends(3, &["status"]);
    }
    assert_eq!(member(&["start"]).0, Some(4));
    std::fs::set_permissions(site.path("conf/test.ini"), PermissionsExt::from_mode(0o600)).unwrap();
    let (code, text) = member(&["start"]);
    assert!(code == Some(4) && text.contains("chgrp") && !text.contains("commented"), "{text}");
}

#[test]
fn a_start_that_fails_leaves_nothing_and_names_nothing_that_is_not_there() {
    let sandbox = Sandbox::start();
    for (more, killed) in [
        ("[pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=mega\"", false),
        ("[pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=mega\"", true),
        ("[log]\nmessage_log = /proc/nowhere/messages.log", false),
        ("[wechat]\nca_file = run/none.pem", true),
    ] {
        let site = Site::new(&sandbox, "");
        if killed {
            site.ok(&["start"]);
            site.kill_hard();
        }
        site.edit(|text| text + "\n[setting]\nlog_file = run/err.log\n" + more);
        let why = site.ends(1, &["start"]);
        assert!(!why.contains("err.log"), "{why}");
        // What a killed daemon left is a start's to take over once it can start, a stop's to remove.
        site.ends(if killed { 1 } else { 3 }, &["status"]);
        site.ends(0, &["stop"]);
        assert_eq!(site.leftovers(), [""; 0], "{more}");
    }
}

#[test]
fn a_daemon_that_dies_while_it_starts_leaves_nothing_and_says_where_to_look() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "[setting]\nlog_file = run/err.log");
    let mut traced = Command::new("strace");
    // Of the command and the daemon only the daemon does this, for its socket: its pidfile is there.
    traced.args(["-f", "-q", "-e", "trace=fchmod", "-e", "inject=fchmod:signal=KILL", "-o"]);
    let start = site.command(&["start"]);
    traced.arg(site.path("trace")).arg(start.get_program()).args(start.get_args());
    let output = traced.output().unwrap();
    let text = said(&output);
    assert!(text.contains("died while it was starting"), "{text}");
    assert!(!text.contains("err.log"), "an empty file is named: {text}");
    site.ends(3, &["status"]);
    assert_eq!(site.leftovers(), [""; 0]);
}

#[test]
fn who_may_not_ask_is_told_so_with_code_4() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for folder in ["conf", "run"] {
        std::fs::set_permissions(site.path(folder), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let program = site.path("mega");
    std::fs::copy(env!("CARGO_BIN_EXE_mega"), &program).unwrap();
    let as_nobody = |words: &str| {
        let mut command = Command::new(&program);
        command.arg("-c").arg(site.path("conf/test.ini")).arg(words).uid(65534).gid(65534);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), said(&output))
    };
    for mode in [0o755, 0o700] {
        std::fs::set_permissions(site.path("run"), PermissionsExt::from_mode(mode)).unwrap();
        for mode in [0o644, 0o600] {
            let ini = site.path("conf/test.ini");
            std::fs::set_permissions(ini, PermissionsExt::from_mode(mode)).unwrap();
            for words in ["status", "stop"] {
                let (code, text) = as_nobody(words);
                assert_eq!(code, Some(4), "{words}: {text}");
                assert!(
                    text.contains("only root, the user") && text.contains("admin_group"),
                    "{text}"
                );
            }
        }
    }
    site.ends(0, &["status"]);
}

#[test]
fn a_restart_that_would_fail_stops_nothing_and_says_why() {
    let sandbox = Sandbox::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let site = Site::started(&sandbox, "");
    std::fs::write(site.path("victim"), "no certificate").unwrap();
    let pid = site.pid();
    let good = std::fs::read_to_string(site.path("conf/test.ini")).unwrap();
    for (more, why) in [
        (format!("[server]\nlisten[] = {taken}"), "is in use by"),
        ("[pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=mega\"".into(), "pdo.dsn"),
        ("[wechat]\nca_file = victim".into(), "victim"),
        ("[log]\nlog_file = /proc/nowhere/x.log".into(), "/proc/nowhere"),
        ("[setting]\nuser = no-such-user".into(), "no-such-user"),
        ("[server]\nqueue_file_path = victim/queue".into(), "victim"),
    ] {
        std::fs::write(site.path("conf/test.ini"), format!("{good}\n{more}\n")).unwrap();
        let text = site.ends(1, &["restart"]);
        assert!(text.contains(why) && text.contains("the running daemon goes on"), "{text}");
        assert_eq!(site.pid(), pid, "{more}");
        assert!(!site.status()["stopping"].as_bool().unwrap());
    }
    std::fs::write(site.path("conf/test.ini"), good).unwrap();
    site.ok(&["restart"]);
    assert_ne!(site.pid(), pid);
}

#[test]
fn a_database_that_never_answers_holds_up_no_restart_for_ever() {
    let sandbox = Sandbox::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = Site::started(&sandbox, "");
    let pid = site.pid();
    site.edit(|text| {
        format!("{text}\n[pdo]\ndsn = \"mysql:host=127.0.0.1;port={port};dbname=m\"\n")
    });
    let since = Instant::now();
    let text = site.ends(1, &["restart"]);
    assert!(since.elapsed() < DEADLINE * 2 && text.contains("goes on"), "{text}");
    assert_eq!(site.pid(), pid);
}

#[test]
fn of_several_restarts_one_wins_and_the_others_say_what_is_under_way() {
    let sandbox = Sandbox::start();
    for _ in 0..5 {
        let mut site = Site::new(&sandbox, "");
        site.start();
        let old = site.pid();
        let spawn = |words: &str| {
            let mut command = site.command(&[words]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let restarts: Vec<_> = (0..4).map(|_| spawn("restart")).collect();
        let ends: Vec<Output> =
            restarts.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let won = ends.iter().filter(|output| output.status.success()).count();
        assert!(won >= 1, "{:?}", ends.iter().map(said).collect::<Vec<_>>());
        for output in ends.iter().filter(|output| !output.status.success()) {
            let text = said(output);
            assert!(text.contains("another ") || text.contains("already running"), "{text}");
        }
        assert_ne!(site.pid(), old);
        assert!(!site.log().contains("asked to stop a second time"), "{}", site.log());
        site.ok(&["stop"]);
        assert_eq!(site.leftovers(), [""; 0]);
    }
}

#[test]
fn of_several_starts_one_wins_and_the_others_say_what_is_under_way() {
    let sandbox = Sandbox::start();
    for listen in ["127.0.0.1:0".to_owned(), {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    }] {
        let site = Site::new(&sandbox, "");
        site.edit(|text| text.replace("127.0.0.1:0", &listen));
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let mut command = site.command(&["start"]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let ends: Vec<Output> =
            starts.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let texts: Vec<String> = ends.iter().map(said).collect();
        assert_eq!(ends.iter().filter(|output| output.status.success()).count(), 1, "{texts:?}");
        for text in texts.iter().filter(|text| !text.contains("started")) {
            assert!(text.contains("another start") || text.contains("already running"), "{text}");
        }
        site.ends(0, &["status"]);
        site.ok(&["stop"]);
        assert_eq!(site.leftovers(), [""; 0]);
    }
}
