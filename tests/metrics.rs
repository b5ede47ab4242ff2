//! The endpoint for Prometheus and load balancers.

use crate::support::{Client, KEY, Sandbox, Site, push_frame, wait_for};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the endpoint is, as the log says.
fn address(site: &Site) -> String {
    let log = site.log();
    let at = log.split("metrics at http://").nth(1).unwrap_or_else(|| panic!("no endpoint: {log}"));
    at.split('/').next().unwrap().to_owned()
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The status and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = connect(address);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Samples by name and labels.
fn samples(address: &str) -> BTreeMap<String, f64> {
    let (status, page) = get(address, "/metrics");
    assert_eq!(status, 200);
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

fn promtool(arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::piped());
    let mut promtool = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

const LISTEN: &str = "[metrics]\nlisten = 127.0.0.1:0\n";

#[test]
fn what_is_shown_adds_up_and_promtool_finds_no_fault_in_it() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({
        "latency_ms": 20,
        "openids": {"o1": {"errcode": 43004}, "o2": {"errcode": 98765, "errmsg": "\"new\""}},
    }));
    let site = Site::started(&sandbox, &format!("{LISTEN}[wechat]\ndaily_limit = 1000"));
    site.push_many(50);
    let mut client = site.client();
    client.send(7, "o7", "null");
    assert_eq!(client.read().code, 200);
    let address = address(&site);
    wait_for("all to end", || samples(&address)["mega_failed_total{kind=\"push\"}"] == 2.0);
    wait_for("the rest", || samples(&address)["mega_queue_messages"] == 0.0);
    let found = samples(&address);
    for (name, value) in [
        ("mega_accepted_total{kind=\"push\"}", 50.0),
        ("mega_accepted_total{kind=\"send\"}", 1.0),
        ("mega_delivered_total{kind=\"push\"}", 48.0),
        ("mega_delivered_total{kind=\"send\"}", 1.0),
        ("mega_attempts_total{class=\"ok\"}", 49.0),
        ("mega_attempts_total{class=\"permanent\"}", 1.0),
        // An unknown code is tried once more.
        ("mega_attempts_total{class=\"once\"}", 2.0),
        ("mega_failures_total{class=\"permanent\",errcode=\"43004\"}", 1.0),
        ("mega_failures_total{class=\"once\",errcode=\"98765\"}", 1.0),
        ("mega_failures_total{class=\"other\",errcode=\"other\"}", 0.0),
        ("mega_wechat_seconds_count", 52.0),
        ("mega_wechat_seconds_bucket{le=\"0.01\"}", 0.0),
        ("mega_wechat_seconds_bucket{le=\"+Inf\"}", 52.0),
        ("mega_queue_age_seconds_count", 48.0),
        ("mega_workers", 8.0),
        ("mega_in_flight", 0.0),
        ("mega_templates", 1.0),
        ("mega_sent_today", 52.0),
        ("mega_daily_limit", 1000.0),
        ("mega_token_calls_today", 1.0),
        ("mega_suspended{cause=\"rate\"}", 0.0),
        ("mega_trouble{what=\"full\"}", 0.0),
        ("mega_memory_limit_bytes", 268_435_456.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
    let sum = found["mega_wechat_seconds_sum"];
    assert!((52.0 * 0.02..20.0).contains(&sum), "{sum}");
    assert!(found["mega_workers_busy_seconds_total"] >= sum * 0.9, "{found:#?}");
    assert!(found["mega_sync_seconds_count"] >= 1.0 && found["mega_connections"] >= 1.0);
    assert!(found["mega_disk_free_bytes{folder=\"queue\"}"] > 0.0);
    assert!(found["process_resident_memory_bytes"] > 1e6);
    match promtool(&["check", "metrics"], &get(&address, "/metrics").1) {
        Some(said) => assert_eq!(said, ""),
        None => println!("not run: promtool is not installed (Debian's prometheus)"),
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let rules = [
        &["check", "rules", "scripts/alerts.yml"][..],
        &["test", "rules", "tests/data/alerts.yml"],
    ];
    for arguments in rules {
        if promtool(arguments, "").is_none() {
            println!("not run: promtool is not installed (Debian's prometheus)");
        }
    }
}

/// What scripts/alerts.yml and scripts/grafana.json ask for is there.
#[test]
fn every_metric_that_is_looked_at_exists() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, LISTEN);
    site.push_many(1);
    wait_for("it to be delivered", || sandbox.delivered() == 1);
    let found = samples(&address(&site));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut asked = 0;
    for file in ["alerts.yml", "grafana.json"] {
        let text = std::fs::read_to_string(scripts.join(file)).unwrap();
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text.split(|c: char| !letter(c)) {
            let is_metric = name.starts_with("mega_") || name.starts_with("process_");
            if is_metric {
                asked += 1;
                let known = |sample: &String| sample.split('{').next() == Some(name);
                assert!(found.keys().any(known), "{file} asks for {name}, which is not shown");
            }
        }
    }
    assert!(asked > 40, "{asked}");
    let dashboard = std::fs::read_to_string(scripts.join("grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids: Vec<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn health_is_whether_a_push_would_be_taken() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 2000}));
    let site = Site::started(
        &sandbox,
        &format!(
            "{LISTEN}[queue]\nsegment_size = 1M\nqueue_max_bytes = 2M\n[setting]\nstop_timeout = 20s"
        ),
    );
    let address = address(&site);
    assert_eq!(get(&address, "/healthz"), (200, "ok\n".into()));
    let big = format!(r#"{{"first":"{}"}}"#, "x".repeat(2_000));
    let mut client = site.client();
    loop {
        client.push(1, "o", &big);
        if client.read().code != 200 {
            break;
        }
    }
    let full = (503, "queue full: queue.queue_max_bytes is reached\n".to_owned());
    assert_eq!(get(&address, "/healthz"), full);
    sandbox.faults(json!({}));
    wait_for("room", || get(&address, "/healthz").0 == 200);
    wait_for("the rest to go out", || site.count("queue_depth") == 0);
    // Nothing is sent, and pushes are taken all the same.
    sandbox.faults(json!({"answer": {"http_status": 500}}));
    site.push_many(10);
    wait_for("the gate to close", || site.status()["suspended"].is_string());
    let (status, line) = get(&address, "/healthz");
    assert_eq!((status, line.lines().count()), (200, 1));
    assert!(line.starts_with("ok; sending is suspended: ") && line.contains("500"), "{line}");
    assert_eq!(samples(&address)["mega_suspended{cause=\"unreachable\"}"], 1.0);
    // One that is on its way keeps the daemon from ending at once.
    sandbox.faults(json!({"openids": {"slow": {"hang": true}}}));
    let mut stop = Command::new(env!("CARGO_BIN_EXE_mega"));
    wait_for("it to go on", || site.status()["suspended"].is_null());
    // What was delivered before may still take up its place.
    wait_for("it to be taken in", || {
        client.push(3, "slow", "null");
        client.read().code == 200
    });
    wait_for("it to be on its way", || site.count("in_flight") == 1);
    stop.arg("-c").arg(site.folder.path().join("conf/test.ini")).arg("stop");
    let mut stop = stop.stdout(Stdio::null()).spawn().unwrap();
    wait_for("the stop to be told", || get(&address, "/healthz") == (503, "stopping\n".into()));
    site.run(&["stop", "--now"]);
    stop.wait().unwrap();
}

#[test]
fn a_full_house_is_told_everywhere_and_who_did_nothing_makes_room() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, &format!("{LISTEN}[setting]\nmax_conn = 4"));
    let address = address(&site);
    let refused: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = site.client();
            client.write(&push_frame(1, "o", "no-such-key", "null"));
            assert_eq!(client.read().code, 400);
            client
        })
        .collect();
    assert_eq!(get(&address, "/healthz"), (200, "ok\n".into()));
    let comes = |clients: &mut Vec<Client>| {
        let mut client = site.client();
        let pushed = client.try_write(&push_frame(1, "o", KEY, "null"));
        let served = pushed.and_then(|()| client.try_read()).is_ok_and(|it| it.code == 200);
        clients.extend(served.then_some(client));
        served
    };
    let mut worked = Vec::new();
    wait_for("places for four others", || comes(&mut worked) && worked.len() == 4);
    let why = "setting.max_conn clients are connected";
    wait_for("it to be told", || get(&address, "/healthz") == (503, format!("{why}\n")));
    assert!(!comes(&mut Vec::new()));
    let health = site.run(&["health"]);
    assert_eq!(health.status.code(), Some(2));
    let line = String::from_utf8(health.stdout).unwrap();
    assert!(line.contains(&format!("no client is let in: {why}")), "{line}");
    assert!(site.ok(&["status"]).contains(&format!("! no client is let in: {why}")));
    assert_eq!(samples(&address)["mega_trouble{what=\"crowded\"}"], 1.0);
    let doctor = site.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8(doctor.stdout).unwrap().contains("crowded"));
    drop((refused, worked.pop()));
    wait_for("room", || get(&address, "/healthz").0 == 200);
    assert!(comes(&mut worked));
}

#[test]
fn whoever_comes_over_this_port_costs_little_and_keeps_nobody_out() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, LISTEN);
    let address = address(&site);
    let before = samples(&address);
    let (mut waiting, mut dribbling) = (Vec::new(), Vec::new());
    for n in 0..1_000 {
        let mut stream = connect(&address);
        // Those that were shown the door already are what this is about.
        let _ = match n % 5 {
            0 => stream.write_all(b"GET /met"),
            1 => stream.write_all(&[b"GET /", &[b'a'; 100_000][..]].concat()),
            2 => stream.write_all(b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx"),
            3 => stream.write_all(b"GET /\r\n"),
            _ => Ok(()),
        };
        if n % 5 == 0 { &mut dribbling } else { &mut waiting }.push(stream);
    }
    let began = Instant::now();
    let during = samples(&address);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let more = |name: &str| during[name] - before[name];
    assert!(more("process_open_fds") <= 40.0, "{}", more("process_open_fds"));
    assert_eq!(more("process_threads"), 0.0);
    assert!(
        more("process_resident_memory_bytes") < 8e6,
        "{}",
        more("process_resident_memory_bytes")
    );
    for (bytes, status) in [
        (&b"GET /\r\n"[..], "400 Bad Request"),
        (b"\x16\x03\x01", "400 Bad Request"),
        (b"GET foo:80 HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", "400 Bad Request"),
        (&[b'a'; 9_000], "431 Request Header Fields Too Large"),
    ] {
        let mut stream = connect(&address);
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{bytes:?}: {answer}");
    }
    site.push_many(100);
    wait_for("all of them", || sandbox.delivered() == 100);
    assert!(!site.log().contains("panicked"));
    drop((waiting, dribbling));
}

#[test]
fn an_address_that_is_taken_is_named_with_the_setting() {
    let sandbox = Sandbox::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::new(&sandbox, &format!("[metrics]\nlisten = {address}"));
    let refused = site.run(&["start"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(&format!("metrics.listen: {address} is in use")), "{said}");
}

#[test]
fn a_restart_takes_the_endpoint_along_and_without_a_setting_there_is_none() {
    let sandbox = Sandbox::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::started(&sandbox, &format!("[metrics]\nlisten = {free}"));
    let started = |site: &Site| samples(&address(site))["process_start_time_seconds"];
    let before = started(&site);
    site.ok(&["restart"]);
    assert!(started(&site) > before);
    site.ok(&["stop"]);
    assert!(TcpStream::connect(free).is_err());
    let site = Site::started(&sandbox, "");
    assert!(!site.log().contains("metrics at"));
}
