//! Drives the real mega-sandbox over sockets: one process per test, on a free port, killed at the end.

use crate::support;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const DEADLINE: Duration = Duration::from_secs(20);
const MESSAGE: &str =
    r#"{"touser":"o1","client_msg_id":"k1","template_id":"t","data":{"first":{"value":"你好"}}}"#;

struct Sandbox {
    child: Child,
    address: String,
}

impl Sandbox {
    fn start(arguments: &[&str]) -> Sandbox {
        let mut child =
            command().args(["--listen", "127.0.0.1:0"]).args(arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("mega-sandbox listening on http"), "{line}");
        let (_, address) = line.trim().rsplit_once("http://").unwrap();
        Sandbox { child, address: address.to_string() }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        self.connect().call(method, target, body)
    }

    fn stable_token(&self) -> String {
        let body = r#"{"grant_type":"client_credential","appid":"a","secret":"s"}"#;
        self.call("POST", "/cgi-bin/stable_token", body).member("access_token")
    }

    fn faults(&self, json: &str) {
        assert_eq!(self.call("POST", "/sandbox/faults", json).status, 200, "{json}");
    }

    fn stats(&self) -> Value {
        self.call("GET", "/sandbox/stats", "").json()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mega-sandbox"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn member(&self, name: &str) -> String {
        self.json()[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.text()))
            .to_string()
    }

    fn errcode(&self) -> i64 {
        self.json()["errcode"].as_i64().unwrap_or_else(|| panic!("no errcode in {}", self.text()))
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn call(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.write(request(method, target, body).as_bytes());
        self.answer().unwrap()
    }

    /// The next answer; None if the connection ends first.
    fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let status = line[9..12].parse().unwrap();
        let mut length = 0;
        loop {
            let mut header = String::new();
            self.0.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            if let Some(value) = header.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer { status, body })
    }
}

fn request(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: sandbox\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn wait_until(mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !ready() {
        assert!(Instant::now() < end, "it never came to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send_target(token: &str) -> String {
    format!("/cgi-bin/message/template/send?access_token={token}")
}

fn message(openid: &str) -> String {
    json!({"touser": openid, "client_msg_id": openid}).to_string()
}

#[test]
fn classic_calls_kill_each_other_and_stable_calls_do_not() {
    let sandbox = Sandbox::start(&[]);
    let classic = "/cgi-bin/token?grant_type=client_credential&appid=a&secret=s";
    let first = sandbox.call("GET", classic, "").member("access_token");
    let second = sandbox.call("GET", classic, "").member("access_token");
    let stable = sandbox.stable_token();
    assert_eq!(stable, sandbox.stable_token());
    assert_eq!(sandbox.call("POST", &send_target(&first), MESSAGE).errcode(), 40001);
    assert_eq!(sandbox.call("POST", &send_target(&second), MESSAGE).errcode(), 0);
    assert_eq!(sandbox.call("POST", &send_target(&stable), MESSAGE).errcode(), 0);
    let forced =
        r#"{"grant_type":"client_credential","appid":"a","secret":"s","force_refresh":true}"#;
    let fresh = sandbox.call("POST", "/cgi-bin/stable_token", forced).member("access_token");
    assert_eq!(sandbox.call("POST", &send_target(&stable), MESSAGE).errcode(), 40001);
    sandbox.call("POST", "/sandbox/expire", "");
    assert_eq!(sandbox.call("POST", &send_target(&fresh), MESSAGE).errcode(), 42001);
    assert_ne!(sandbox.stable_token(), fresh);
    assert_eq!(sandbox.stats()["token_calls"], json!({"classic": 2, "stable": 3, "forced": 1}));
}

#[test]
fn a_token_expires_after_its_ttl() {
    let sandbox = Sandbox::start(&["--token-ttl", "1"]);
    let token = sandbox.stable_token();
    assert_eq!(sandbox.call("POST", &send_target(&token), MESSAGE).errcode(), 0);
    let end = Instant::now() + DEADLINE;
    while sandbox.call("POST", &send_target(&token), MESSAGE).errcode() != 42001 {
        assert!(Instant::now() < end, "the token never expired");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn repeats_are_counted_listed_and_shown_but_not_delivered_again() {
    let sandbox = Sandbox::start(&[]);
    let target = send_target(&sandbox.stable_token());
    let mut client = sandbox.connect();
    let first = client.call("POST", &target, MESSAGE).json();
    assert_eq!(client.call("POST", &target, MESSAGE).json(), first);
    assert_eq!(client.call("POST", &target, r#"{"touser":"<b>"}"#).errcode(), 0);
    assert_eq!(client.call("GET", "/sandbox/ids", "").text(), "o1\tk1\t2\n<b>\t\t1\n");
    let delivered = client.call("GET", "/sandbox/delivered?limit=5", "").text();
    let last: Vec<Value> =
        delivered.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(last.len(), 2);
    assert_eq!(last[0]["msgid"], first["msgid"]);
    assert_eq!(last[0]["body"]["data"]["first"]["value"], "你好");
    assert_eq!(client.call("GET", "/sandbox/delivered?limit=1", "").text().lines().count(), 1);
    let page = client.call("GET", "/", "").text();
    assert!(page.contains("&lt;b&gt;") && !page.contains("<td><b>"), "{page}");
    let stats = sandbox.stats();
    assert_eq!((&stats["delivered"], &stats["repeats"]), (&json!(2), &json!(1)));
    client.call("POST", "/sandbox/reset", "");
    assert_eq!(sandbox.stats()["delivered"], 0);
    assert_eq!(client.call("GET", "/sandbox/ids", "").text(), "");
}

#[test]
fn errcode_faults_and_sequences_are_answered_per_openid() {
    let faults =
        r#"{"answer":{"seq":[42001,42001,0]},"openids":{"o9":{"errcode":43101,"errmsg":"no"}}}"#;
    let sandbox = Sandbox::start(&["--faults", faults]);
    let target = send_target(&sandbox.stable_token());
    let mut client = sandbox.connect();
    let mut code = |openid: &str| client.call("POST", &target, &message(openid)).errcode();
    assert_eq!(
        [code("a"), code("b"), code("a"), code("a"), code("a")],
        [42001, 42001, 42001, 0, 0]
    );
    assert_eq!([code("o9"), code("o9")], [43101, 43101]);
    assert_eq!(sandbox.call("GET", "/sandbox/faults", "").text(), faults);
    assert_eq!(sandbox.stats()["errors"], json!({"42001": 3, "43101": 2}));
    sandbox.faults("{}");
    assert_eq!(code("o9"), 0);
    let refused = sandbox.call("POST", "/sandbox/faults", r#"{"answer":{"crash":true}}"#);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("crash"), "{}", refused.text());
}

#[test]
fn faults_without_an_errcode_look_like_a_broken_network() {
    let sandbox = Sandbox::start(&[]);
    let target = send_target(&sandbox.stable_token());
    let send = |faults: &str, openid: &str| {
        sandbox.faults(faults);
        let mut client = sandbox.connect();
        client.write(request("POST", &target, &message(openid)).as_bytes());
        client
    };
    assert_eq!(send(r#"{"answer":{"http_status":500}}"#, "a").answer().unwrap().status, 500);
    let garbage = send(r#"{"answer":{"garbage":true}}"#, "b").answer().unwrap();
    assert!(garbage.status == 200 && serde_json::from_slice::<Value>(&garbage.body).is_err());
    assert!(send(r#"{"answer":{"close":true}}"#, "c").answer().is_none());
    assert_eq!(sandbox.stats()["delivered"], 0);
    assert!(send(r#"{"answer":{"close_after":true}}"#, "d").answer().is_none());
    assert_eq!(sandbox.stats()["delivered"], 1);
    let huge = send(r#"{"answer":{"huge":true}}"#, "e").answer().unwrap();
    assert_eq!(huge.body.len(), 100 * 1024 * 1024);

    let mut hanging = send(r#"{"answer":{"hang":true}}"#, "f");
    hanging.0.get_mut().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(hanging.0.read(&mut [0; 1]).is_err(), "an answer or an end came");
    assert_eq!(sandbox.stats()["in_flight"], 1);
    drop(hanging);
    let end = Instant::now() + DEADLINE;
    while sandbox.stats()["in_flight"] != 0 {
        assert!(Instant::now() < end, "the hanging request is still counted");
    }
}

#[test]
fn token_faults_and_the_quota_are_answered() {
    let sandbox = Sandbox::start(&["--app-id", "a", "--app-secret", "s"]);
    let token_call = |appid: &str, secret: &str| {
        let target =
            format!("/cgi-bin/token?grant_type=client_credential&appid={appid}&secret={secret}");
        sandbox.call("GET", &target, "")
    };
    assert_eq!(token_call("b", "s").errcode(), 40013);
    assert_eq!(token_call("a", "t").errcode(), 40125);
    sandbox.faults(r#"{"token_errcode":40164}"#);
    assert_eq!(token_call("a", "s").errcode(), 40164);
    sandbox.faults(r#"{"token_http_status":502}"#);
    assert_eq!(token_call("a", "s").status, 502);
    sandbox.faults(r#"{"token_latency_ms":100,"daily_quota":1}"#);
    let begun = Instant::now();
    let token = token_call("a", "s").member("access_token");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(sandbox.call("POST", &send_target(&token), &message("a")).errcode(), 0);
    assert_eq!(sandbox.call("POST", &send_target(&token), &message("b")).errcode(), 45009);
}

#[test]
fn requests_may_arrive_byte_by_byte_and_many_at_once() {
    let sandbox = Sandbox::start(&[]);
    let target = send_target(&sandbox.stable_token());
    let mut client = sandbox.connect();
    let chunked = format!(
        "POST {target} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{\"tou\r\nc\r\nser\":\"slow\"}}\r\n0\r\n\r\n"
    );
    for byte in format!("{}{chunked}", request("POST", &target, &message("byte"))).bytes() {
        client.write(&[byte]);
    }
    assert_eq!(client.answer().unwrap().errcode(), 0);
    assert_eq!(client.answer().unwrap().errcode(), 0);

    let mut pipelined = String::new();
    for n in 0..300 {
        pipelined += &request("POST", &target, &message(&format!("p{n}")));
    }
    client.write(pipelined.as_bytes());
    for _ in 0..300 {
        assert_eq!(client.answer().unwrap().errcode(), 0);
    }
    client.write(
        format!("POST {target} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(client.answer().unwrap().status, 100);
    client.write(br#"{"touser":"o99"}"#);
    assert_eq!(client.answer().unwrap().errcode(), 0);
    assert_eq!(sandbox.stats()["delivered"], 303);
}

#[test]
fn answers_made_before_a_close_fault_still_arrive() {
    let sandbox = Sandbox::start(&["--faults", r#"{"openids":{"bad":{"close":true}}}"#]);
    let target = send_target(&sandbox.stable_token());
    let mut client = sandbox.connect();
    let both =
        request("POST", &target, &message("good")) + &request("POST", &target, &message("bad"));
    client.write(both.as_bytes());
    assert_eq!(client.answer().unwrap().errcode(), 0);
    assert!(client.answer().is_none());
}

#[test]
fn two_hundred_delayed_answers_wait_side_by_side() {
    let sandbox = Sandbox::start(&["--faults", r#"{"latency_ms":500,"latency_jitter_ms":100}"#]);
    let target = send_target(&sandbox.stable_token());
    let mut clients: Vec<Client> = (0..200).map(|_| sandbox.connect()).collect();
    let begun = Instant::now();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write(request("POST", &target, &message(&format!("d{n}"))).as_bytes());
    }
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().errcode(), 0);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    let stats = sandbox.stats();
    assert_eq!((&stats["in_flight"], &stats["max_in_flight"]), (&json!(0), &json!(200)));
}

#[test]
fn bad_http_is_refused_and_the_sandbox_goes_on() {
    let sandbox = Sandbox::start(&[]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    for (bytes, status) in [
        ("\x01\x02\x03\r\n\r\n", 400),
        ("GET /nowhere HTTP/1.1\r\n\r\n", 404),
        ("DELETE /sandbox/stats HTTP/1.1\r\n\r\n", 405),
        ("GET /cgi-bin/stable_token HTTP/1.1\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (&long, 413),
    ] {
        let mut client = sandbox.connect();
        client.write(bytes.as_bytes());
        assert_eq!(client.answer().unwrap().status, status, "{bytes:.60}");
    }
    let mut client = sandbox.connect();
    client.write(b"GET /sandbox/stats HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    assert!(client.answer().is_none());
}

#[test]
fn it_counts_only_when_told_not_to_record() {
    let sandbox = Sandbox::start(&["--no-record"]);
    let target = send_target(&sandbox.stable_token());
    sandbox.call("POST", &target, MESSAGE);
    assert_eq!(sandbox.stats()["delivered"], 1);
    assert_eq!(sandbox.call("GET", "/sandbox/ids", "").text(), "");
}

/// Trusts the sandbox's authority, and keeps one connection.
fn tls_client(authority: &Path) -> Agent {
    let pem = std::fs::read(authority).unwrap();
    let roots = RootCerts::from([Certificate::from_pem(&pem).unwrap()]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let timeout = Some(Duration::from_secs(5));
    Agent::config_builder().tls_config(tls).timeout_global(timeout).build().into()
}

#[test]
fn with_tls_both_schemes_are_answered_on_one_port() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let sandbox = Sandbox::start(&["--tls", "--tls-ca", authority.to_str().unwrap()]);
    let client = tls_client(&authority);
    let port = sandbox.address.rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{port}{}", send_target(&sandbox.stable_token()));
        for _ in 0..3 {
            let mut answer = client.post(&url).send(MESSAGE).unwrap();
            assert!(answer.body_mut().read_to_string().unwrap().contains("\"errcode\":0"));
        }
    }
    // One of each name, and that of the question.
    assert_eq!(sandbox.stats()["connections"], 3);
    sandbox.faults(r#"{"answer":{"huge":true}}"#);
    let url = format!("https://{}{}", sandbox.address, send_target(&sandbox.stable_token()));
    let mut answer = client.post(&url).send(MESSAGE).unwrap();
    let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
    assert_eq!(body.len(), 100 * 1024 * 1024);
    let stranger = Agent::new_with_defaults().get(format!("https://{}/", sandbox.address)).call();
    assert!(stranger.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[test]
fn tls_goes_wrong_as_told_for_kept_connections_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let sandbox = Sandbox::start(&["--tls", "--tls-ca", authority.to_str().unwrap()]);
    let client = tls_client(&authority);
    let url = format!("https://{}/sandbox/stats", sandbox.address);
    for (fault, words) in [
        ("refuse", "HandshakeFailure"),
        ("close", ""),
        ("wrong_name", "not valid for name"),
        ("expired", "expired"),
    ] {
        client.get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        sandbox.faults(&format!(r#"{{"tls":"{fault}"}}"#));
        let error = client.get(&url).call().unwrap_err().to_string();
        assert!(error.contains(words), "{fault}: {error}");
        sandbox.faults("{}");
    }
    sandbox.faults(r#"{"tls":"hang"}"#);
    let short = client.get(&url).config().timeout_global(Some(Duration::from_millis(200)));
    assert!(matches!(short.build().call(), Err(ureq::Error::Timeout(_))));
    wait_until(|| sandbox.stats()["errors"]["tls"].as_u64().is_some_and(|count| count >= 3));
}

#[test]
fn mega_delivers_over_tls_and_what_tls_held_up_is_delivered_later() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let authority = authority.to_str().unwrap();
    let sandbox = support::Sandbox::with(&["--tls", "--tls-ca", authority]);
    let url = sandbox.url.replace("http://", "https://");
    let settings = format!(
        "[queue]\nretry_base = 100ms\n[wechat]\napi_hosts = {url}\nca_file = {authority}\n"
    );
    let site = support::Site::started(&sandbox, &settings);
    site.push_many(20);
    support::wait_for("the first ones", || sandbox.delivered() == 20);
    sandbox.faults(json!({ "tls": "refuse" }));
    site.push_many(5);
    support::wait_for("a handshake to fail", || sandbox.stats()["errors"]["tls"].is_u64());
    assert_eq!(sandbox.delivered(), 20);
    sandbox.faults(json!({}));
    support::wait_for("the others", || sandbox.delivered() == 25);
}

#[test]
fn nobody_listens_for_a_while_when_told_so() {
    let sandbox = Sandbox::start(&[]);
    let mut kept = sandbox.connect();
    assert_eq!(kept.call("GET", "/sandbox/stats", "").status, 200);
    sandbox.faults(r#"{"refuse_ms":300}"#);
    let shut = Instant::now();
    assert!(kept.answer().is_none());
    let refused = TcpStream::connect(&sandbox.address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    while TcpStream::connect(&sandbox.address).is_err() {
        assert!(shut.elapsed() < DEADLINE, "the door never opened");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(shut.elapsed() >= Duration::from_millis(200), "{:?}", shut.elapsed());
    assert_eq!(sandbox.call("GET", "/sandbox/stats", "").status, 200);
}

#[test]
fn an_errmsg_may_be_no_text_and_a_token_may_last_an_absurd_time() {
    // A lone surrogate's escape, then a byte that is not UTF-8.
    let faults = r#"{"openids":{"a":{"errcode":43101,"errmsg_hex":"5c7564383030ff"}},
                     "token_expires_in":-1e300}"#;
    let sandbox = Sandbox::start(&["--faults", faults]);
    let classic = "/cgi-bin/token?grant_type=client_credential&appid=a&secret=s";
    let token = sandbox.call("GET", classic, "").json();
    assert_eq!(token["expires_in"], -1e300);
    let target = send_target(token["access_token"].as_str().unwrap());
    let answer = sandbox.call("POST", &target, &message("a"));
    assert_eq!(answer.body, b"{\"errcode\":43101,\"errmsg\":\"\\ud800\xff\"}");
}

#[test]
fn term_ends_it_with_status_0() {
    let mut sandbox = Sandbox::start(&[]);
    let pid = rustix::process::Pid::from_child(&sandbox.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let end = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = sandbox.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "TERM was ignored");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn it_refuses_what_it_should_not_start_with() {
    for (arguments, words) in [
        (["--listen", "0.0.0.0:0"], "--allow-remote"),
        (["--faults", "{\"latncy_ms\":1}"], "latncy_ms"),
        (["--token-ttl", "0"], "token-ttl"),
    ] {
        let output = command().args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{arguments:?}: {error}");
    }
}
