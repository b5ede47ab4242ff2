//! The daemon on a real MariaDB, which goes away and comes back.

use crate::support::{KEY, Sandbox, Site, TEMPLATE, wait_for};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// The server's address and the database's name, from the dsn that scripts/with-mariadb sets.
fn server() -> (SocketAddr, String) {
    let dsn = variable("MEGA_TEST_MYSQL");
    let part = |name: &str| {
        let found = dsn.split([':', ';']).find_map(|part| part.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{dsn} has no {name}")).to_owned()
    };
    let address = format!("{}:{}", part("host="), part("port=")).parse().unwrap();
    (address, part("dbname="))
}

/// Passes connections on to the database, until it is cut or nothing comes through any more.
struct Line {
    address: SocketAddr,
    open: Arc<Mutex<(bool, Vec<TcpStream>)>>,
    mute: Arc<AtomicBool>,
}

impl Line {
    fn to(server: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new((true, Vec::new())));
        let state = Arc::clone(&open);
        let mute = Arc::new(AtomicBool::new(false));
        let is_mute = Arc::clone(&mute);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let mut state = state.lock().unwrap();
                if !state.0 {
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    let mute = Arc::clone(&is_mute);
                    std::thread::spawn(move || {
                        let mut chunk = [0; 65536];
                        while let Ok(count @ 1..) = from.read(&mut chunk) {
                            if !mute.load(Ordering::Relaxed)
                                && to.write_all(&chunk[..count]).is_err()
                            {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                state.1.extend([client, server]);
            }
        });
        Line { address, open, mute }
    }

    /// As a server that was stopped (SIGSTOP): it lets in and says nothing.
    fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Relaxed);
    }

    fn cut(&self) {
        let mut state = self.open.lock().unwrap();
        state.0 = false;
        for stream in state.1.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.lock().unwrap().0 = true;
    }
}

/// An installation whose templates are in MariaDB, in a table of its own.
fn site(sandbox: &Sandbox, prefix: &str, server: SocketAddr, database: &str) -> Site {
    let (user, password) = (variable("MEGA_TEST_MYSQL_USER"), variable("MEGA_TEST_MYSQL_PASSWORD"));
    let more = format!(
        "[pdo]\ndsn = \"mysql:host={};port={};dbname={database}\"\nusername = {user}\n\
         password = {password}\ntable_prefix = {prefix}",
        server.ip(),
        server.port()
    );
    let address = crate::database::server().0;
    let schema =
        std::fs::read_to_string(format!("{}/scripts/schema.sql", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
            .replace("mega_wechat_template", &format!("{prefix}wechat_template"));
    let made = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=tcp", "--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string(), "--user", &user, "--skip-ssl"])
        .arg(format!("--password={password}"))
        .args(["--execute", &schema, database])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Site::new(sandbox, &more)
}

#[test]
fn a_database_that_goes_away_costs_only_tset_and_comes_back_by_itself() {
    let sandbox = Sandbox::start();
    let (server, database) = server();
    let line = Line::to(server);
    let mut site = site(&sandbox, "away_", line.address, &database);
    site.start();
    assert_eq!(site.ok(&["tset", KEY]), "200\n");
    line.cut();
    let mut client = site.client();
    client.write(&tset(7, KEY));
    let answer = client.read();
    assert_eq!((answer.code, answer.opaque), (500, 7));
    assert!(!answer.message.contains(&variable("MEGA_TEST_MYSQL_PASSWORD")), "{}", answer.message);
    client.assert_closed();
    let mut client = site.client();
    client.push(1, "o", r#"{"first":"水"}"#);
    client.send(2, "p", "null");
    assert_eq!([client.read().code, client.read().code], [200, 200]);
    wait_for("both messages", || sandbox.delivered() == 2);
    line.mend();
    assert_eq!(site.ok(&["tset", KEY]), "200\n");
    let refused = site.command(&["start"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already running"));
    site.ok(&["stop"]);
    line.cut();
    // With the templates that were kept.
    site.start();
    let why = site.status()["database"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("MySQL"), "{why}");
    assert_eq!(site.ok(&["send", "o", KEY, "first=1"]), "200\n");
    line.mend();
    wait_for("the database", || site.status()["database"].is_null());
    site.ok(&["stop"]);
    line.cut();
    std::fs::remove_file(site.folder.path().join("run/test.templates")).unwrap();
    let refused = site.run(&["start"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("pdo.dsn") && said.contains("MySQL"), "{said}");
}

#[test]
fn a_wrong_password_or_table_is_no_absence() {
    let sandbox = Sandbox::start();
    let (server, database) = server();
    let mut site = site(&sandbox, "wrong_", server, &database);
    site.start();
    let pid = site.pid();
    let ini = site.folder.path().join("conf/test.ini");
    let good = std::fs::read_to_string(&ini).unwrap();
    for (more, word) in
        [("password = no-such", "denies access"), ("table_prefix = nowhere_", "no template table")]
    {
        std::fs::write(&ini, format!("{good}\n[pdo]\n{more}\n")).unwrap();
        for words in ["check", "restart", "doctor"] {
            let output = site.run(&[words]);
            let said =
                [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
            assert_eq!(output.status.code(), Some(1), "{words} with {more}: {said}");
            assert!(said.contains("wrong: pdo.dsn") && said.contains(word), "{words}: {said}");
            for debug in ["{", "IoError", "DriverError", "CodecError"] {
                assert!(words == "check" || !said.contains(debug), "{said}");
            }
        }
        assert_eq!(site.pid(), pid);
    }
}

#[test]
fn a_database_that_says_nothing_holds_up_no_message_and_no_start_for_long() {
    let sandbox = Sandbox::start();
    let (server, database) = server();
    let line = Line::to(server);
    let mut site = site(&sandbox, "mute_", line.address, &database);
    site.start();
    line.mute(true);
    std::thread::scope(|scope| {
        let began = Instant::now();
        let reload = scope.spawn(|| site.run(&["reload"]));
        let mut client = site.client();
        while !reload.is_finished() {
            let asked = Instant::now();
            client.push(1, "o", "null");
            assert_eq!(client.read().code, 200);
            assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        let reload = reload.join().unwrap();
        let said = String::from_utf8_lossy(&reload.stderr).into_owned();
        assert!(reload.status.code() == Some(1) && said.contains("MySQL"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    });
    site.ok(&["stop"]);
    let began = Instant::now();
    site.start();
    // It is tried out, and then begun: a connection that says nothing is given up twice.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    line.mute(false);
    wait_for("the database", || site.status()["database"].is_null());
    site.ok(&["reload"]);
}

#[test]
fn texts_are_changed_in_the_database_without_a_release() {
    let sandbox = Sandbox::start();
    let (server, database) = server();
    let mut site = site(&sandbox, "texts_", server, &database);
    site.start();
    let text = TEMPLATE.replace("${first}", "您的水已送达😀 ${first}");
    let file = site.folder.path().join("new.json");
    std::fs::write(&file, text).unwrap();
    site.ok(&["template", "put", KEY, file.to_str().unwrap(), "--title", "送水通知"]);
    assert_eq!(site.ok(&["send", "o", KEY, "first=3桶"]), "200\n");
    assert!(sandbox.get("/sandbox/delivered").contains("您的水已送达😀 3桶"));
    site.ok(&["template", "undo", KEY]);
    assert_eq!(site.ok(&["template", "show", KEY]), format!("{TEMPLATE}\n"));
    assert_eq!(site.ok(&["template", "history", KEY]).lines().count(), 3);
    assert!(site.ok(&["template", "list"]).contains("送水通知"));
}

fn tset(opaque: u32, key: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    mega::wire::command::encode_tset(&mut frame, opaque, key.as_bytes());
    frame
}
