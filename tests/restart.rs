//! A restart as clients see it: no connection is refused; and the rest of what goes over the
//! administration socket.

use crate::support::{Client, KEY, Sandbox, Site, wait_for};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn configure(site: &Site, more: &str) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text + more).unwrap();
}

fn replace(site: &Site, from: &str, to: &str) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    assert!(text.contains(from));
    std::fs::write(&ini, text.replace(from, to)).unwrap();
}

#[test]
fn no_connect_is_refused_while_it_restarts() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let address = site.address.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (ended, answered) = (Arc::clone(&ended), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut refused = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    let stream = match TcpStream::connect(address) {
                        Ok(stream) => stream,
                        Err(error) => {
                            refused.push(error.to_string());
                            continue;
                        }
                    };
                    let mut client = Client::over(stream);
                    let frame = crate::support::push_frame(1, "o", KEY, "null");
                    // One that had been accepted may see the end; it connects again.
                    if client.try_write(&frame).is_ok()
                        && client.try_read().is_ok_and(|answer| answer.code == 200)
                    {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                refused
            })
        })
        .collect();
    for _ in 0..5 {
        let before = answered.load(Ordering::Relaxed);
        wait_for("pushes", || answered.load(Ordering::Relaxed) > before + 20);
        let said = site.ok(&["restart"]);
        assert!(said.contains(&address.to_string()), "{said}");
    }
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        let refused = client.join().unwrap();
        assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused.first());
    }
}

#[test]
fn addresses_come_and_go_with_a_restart() {
    let sandbox = Sandbox::start();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (first, second, third) = (free(), free(), free());
    let site = Site::new(&sandbox, &format!("[server]\nlisten[] = {first}\nlisten[] = {second}"));
    site.ok(&["start"]);
    replace(&site, &second.to_string(), &third.to_string());
    let said = site.ok(&["restart"]);
    assert!(said.contains(&third.to_string()) && !said.contains(&second.to_string()), "{said}");
    assert!(TcpStream::connect(second).is_err());
    for address in [first, third] {
        let mut client = Client::connect(address);
        client.push(1, "o", "null");
        assert_eq!(client.read().code, 200);
    }
    // The same port on all addresses: bound when the old daemon has let go of it.
    replace(&site, &first.to_string(), &format!("0.0.0.0:{}", first.port()));
    site.ok(&["restart"]);
    assert!(TcpStream::connect(first).is_ok());
}

#[test]
fn a_restart_that_could_not_start_stops_nothing() {
    let sandbox = Sandbox::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for broken in [
        "[server]\nlisten[] = 1.2.3.4:9501".to_owned(),
        "[setting]\nuser = no-such-user".to_owned(),
        "[setting]\ntask_worker_num = 0".to_owned(),
    ] {
        let site = Site::started(&sandbox, "");
        let pid = site.pid();
        let ini = site.folder.path().join("conf/test.ini");
        let good = std::fs::read_to_string(&ini).unwrap();
        configure(&site, &broken);
        let output = site.run(&["restart"]);
        assert_eq!(output.status.code(), Some(1), "{broken}");
        std::fs::write(&ini, good).unwrap();
        assert_eq!(site.pid(), pid, "{broken}");
    }
    drop(taken);
}

#[test]
fn the_command_line_needs_no_place_among_the_allowed_networks() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[server]\nallow[] = 10.0.0.0/8");
    assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n");
    assert_eq!(site.ok(&["send", "o", KEY, "first=1"]), "200\n");
    assert_eq!(site.ok(&["tset", KEY]), "200\n");
}

#[test]
fn a_reload_closes_who_is_no_longer_allowed_and_says_when_everybody_is() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[server]\nallow[] = 127.0.0.0/8");
    let mut client = site.client();
    client.push(1, "o", "null");
    assert_eq!(client.read().code, 200);
    replace(&site, "allow[] = 127.0.0.0/8", "allow[] = 10.0.0.0/8");
    site.ok(&["reload"]);
    client.assert_closed();
    replace(&site, "allow[] = 10.0.0.0/8", "");
    site.ok(&["reload"]);
    let everybody = "WARNING: server.allow[] has no line any more";
    wait_for("the warning", || site.log().contains(everybody));
    site.ok(&["reload"]);
    assert_eq!(site.log().matches(everybody).count(), 1);
    client = site.client();
    client.push(1, "o", "null");
    assert_eq!(client.read().code, 200);
}

fn said(output: &std::process::Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn free() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn whatever_check_calls_wrong_a_restart_and_a_start_refuse() {
    let sandbox = Sandbox::start();
    let address = free();
    let port = address.port();
    let site = Site::started(&sandbox, &format!("[server]\nlisten[] = {address}"));
    let pid = site.pid();
    let path = |name: &str| site.folder.path().join(name);
    let today = chrono::Local::now().format("%Y-%m-%d");
    for folder in ["taken/x.pid", "taken/y.sock", &format!("taken/mega-{today}.log")] {
        std::fs::create_dir_all(path(folder)).unwrap();
    }
    std::os::unix::fs::symlink(path("conf/test.ini"), path("link")).unwrap();
    let good = std::fs::read_to_string(path("conf/test.ini")).unwrap();
    let long = "n".repeat(120);
    for (more, why) in [
        (format!("[server]\nlisten[] = {address}"), "cannot be bound beside"),
        (format!("[server]\nlisten[] = 0.0.0.0:{port}"), "cannot be bound beside"),
        (format!("[server]\nlisten[] = [::]:{port}"), "cannot be bound beside"),
        (format!("[metrics]\nlisten = {address}"), "cannot be bound beside"),
        ("[server]\nledger_file = conf/test.ini".into(), "both are"),
        ("[server]\nledger_file = link".into(), "both are"),
        ("[server]\nledger_file = run/test.queue".into(), "both are"),
        ("[server]\nledger_file = run/test.facts".into(), "both are"),
        ("[setting]\npid_file = conf/test.ini".into(), "both are"),
        ("[setting]\npid_file = run/test.templates".into(), "both are"),
        (format!("[setting]\npid_file = run/{long}.pid"), "the kernel takes 107"),
        ("[setting]\npid_file = run".into(), "run is a folder"),
        ("[setting]\npid_file = taken/x.pid".into(), "x.pid is a folder"),
        ("[setting]\npid_file = taken/y.pid".into(), "y.sock is a folder"),
        ("[setting]\npid_file = /proc/mega.pid".into(), "/proc"),
        ("[setting]\npid_file = /dev/null".into(), "is a device"),
        ("[setting]\nlog_file = run".into(), "run is a folder"),
        ("[log]\nlog_file = taken/mega.log".into(), ".log is a folder"),
        ("[errcode]\n0 = permanent".into(), "success"),
    ] {
        let text = format!("{good}\n{more}\n");
        std::fs::write(path("conf/test.ini"), &text).unwrap();
        for words in ["check", "restart"] {
            let output = site.run(&[words]);
            let told = said(&output);
            assert_eq!(output.status.code(), Some(1), "{words} with {more}: {told}");
            assert!(told.contains(why), "{words} with {more}: {told}");
            assert!(!told.contains("remove /dev/null"), "{told}");
        }
        assert_eq!(site.pid(), pid, "{more}");
        assert_eq!(std::fs::read_to_string(path("conf/test.ini")).unwrap(), text);
    }
    std::fs::write(
        path("conf/test.ini"),
        format!("{good}\n[server]\nledger_file = conf/test.ini\n"),
    )
    .unwrap();
    site.ok(&["stop"]);
    let output = site.run(&["start"]);
    assert!(!output.status.success() && said(&output).contains("both are"), "{}", said(&output));
    std::fs::write(path("conf/test.ini"), good).unwrap();
    site.ok(&["start"]);
}

#[test]
fn the_ports_of_listen_and_metrics_change_places_at_a_restart() {
    let sandbox = Sandbox::start();
    let (one, two) = (free(), free());
    let listens =
        |listen, metrics| format!("[server]\nlisten[] = {listen}\n[metrics]\nlisten = {metrics}\n");
    let site = Site::new(&sandbox, "");
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap().replace("listen[] = 127.0.0.1:0", "");
    std::fs::write(&ini, text.clone() + &listens(one, two)).unwrap();
    site.ok(&["start"]);
    std::fs::write(&ini, text + &listens(two, one)).unwrap();
    let told = site.ok(&["restart"]);
    assert!(told.contains(&two.to_string()), "{told}");
    let mut client = Client::connect(two);
    client.push(1, "o", "null");
    assert_eq!(client.read().code, 200);
}

#[test]
fn a_restart_that_fails_after_the_stop_says_that_nothing_runs() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    // The trial cannot tell: the disk refuses only what the start itself writes.
    let mut traced = std::process::Command::new("strace");
    traced.args(["-f", "-q", "-e", "trace=fchmod", "-e", "inject=fchmod:error=ENOSPC", "-o"]);
    let restart = site.command(&["restart"]);
    traced.arg(site.folder.path().join("trace"));
    traced.arg(restart.get_program()).args(restart.get_args());
    let output = traced.output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("nothing runs now") && told.contains("mega test start"), "{told}");
    site.ok(&["start"]);
}
