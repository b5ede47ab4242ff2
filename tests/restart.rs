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
