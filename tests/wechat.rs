//! What can be wrong with WeChat, with the way to it, or with its answers: played by a WeChat of the test's own.

use crate::support::{Client, KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOKEN: &[u8] = br#"{"access_token":"the-token-of-the-test","expires_in":7200}"#;
const OK: &[u8] = br#"{"errcode":0,"errmsg":"ok","msgid":1}"#;

/// What a request is answered with.
#[derive(Clone)]
enum Say {
    Json(Vec<u8>),
    Status(u16),
    Hang,
}

/// A WeChat whose answers are bytes of the test's choice.
struct Fake {
    address: SocketAddr,
    sends: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
    say: Arc<Mutex<Say>>,
}

impl Fake {
    fn start(token: Say, send: Say) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sends, tokens) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let say = Arc::new(Mutex::new(send));
        let fake = Fake {
            address,
            sends: Arc::clone(&sends),
            tokens: Arc::clone(&tokens),
            say: Arc::clone(&say),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let (sends, tokens) = (Arc::clone(&sends), Arc::clone(&tokens));
                let (token, say) = (token.clone(), Arc::clone(&say));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(first) = read_request(&mut reader) {
                        let is_send = first.contains("/message/template/send");
                        let (count, answer) = match is_send {
                            true => (&sends, say.lock().unwrap().clone()),
                            false => (&tokens, token.clone()),
                        };
                        count.fetch_add(1, Ordering::SeqCst);
                        let (status, body) = match answer {
                            Say::Json(body) => (200, body),
                            Say::Status(status) => (status, b"<html>no</html>".to_vec()),
                            Say::Hang => continue,
                        };
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        if reader.get_mut().write_all(&[head.as_bytes(), &body].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        fake
    }

    fn answering(send: &[u8]) -> Fake {
        Fake::start(Say::Json(TOKEN.to_vec()), Say::Json(send.to_vec()))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn sends(&self) -> usize {
        self.sends.load(Ordering::SeqCst)
    }

    fn tokens(&self) -> usize {
        self.tokens.load(Ordering::SeqCst)
    }

    fn say(&self, send: Say) {
        *self.say.lock().unwrap() = send;
    }
}

/// Its first line; None at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(first)
}

/// An installation that asks these hosts. The sandbox is not asked.
fn site(hosts: &[String], more: &str) -> Site {
    let sandbox = Sandbox::start();
    Site::started(&sandbox, &format!("[wechat]\napi_hosts = {}\n{more}", hosts.join(", ")))
}

fn send(site: &Site) -> (u16, String) {
    let mut client = site.client();
    client.send(1, "o", "null");
    let answer = client.read();
    (answer.code, answer.message)
}

#[test]
fn five_hundred_sends_with_a_refused_token_make_few_token_calls() {
    for (source, code) in [("stable", 40001), ("classic", 42001)] {
        let sandbox = Sandbox::start();
        sandbox.faults(json!({"answer": {"errcode": code, "errmsg": "invalid credential"}}));
        let more = format!("[wechat]\ntoken_source = {source}\nsend_retry_for = 1s");
        let site = Site::started(&sandbox, &more);
        let mut client = site.client();
        let began = Instant::now();
        for n in 0..500 {
            client.send(n, "o", "null");
        }
        for _ in 0..500 {
            let answer = client.read();
            assert!(answer.code >= 500 && answer.message.contains(&code.to_string()), "{answer:?}");
        }
        let calls = sandbox.stats()["token_calls"].clone();
        let sum: u64 = calls.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        let allowed = 1 + began.elapsed().as_secs() / 10;
        assert!(sum <= allowed, "{calls} in {:?}", began.elapsed());
        assert_eq!(site.status()["token_calls_today"], sum);
    }
}

#[test]
fn a_second_refusal_of_a_fresh_token_stops_sends_and_pushes() {
    let sandbox = Sandbox::start();
    let more = "[wechat]\ntoken_source = classic\nsend_retry_for = 0\n[queue]\nretry_base = 100ms";
    let site = Site::started(&sandbox, more);
    site.push_many(1);
    wait_for("the first message", || sandbox.delivered() == 1);
    sandbox.faults(json!({"answer": {"errcode": 40001}}));
    // The first refusal is in the shadow of the first call; the second is of a token that replaced one.
    wait_for("the fault to be the account's", || {
        let (code, words) = send(&site);
        assert!(code >= 500 && words.contains("40001"), "{code} {words}");
        sandbox.stats()["token_calls"]["classic"] == 2
            && site.status()["suspended"].as_str().is_some_and(|why| why.starts_with("40001"))
    });
    let (code, words) = send(&site);
    assert!(code >= 500 && words.starts_with("sending suspended: 40001"), "{code} {words}");
    site.push_many(1);
    assert_eq!(site.count("queue_depth"), 1);
}

#[test]
fn a_life_that_no_token_has_stops_no_worker() {
    for life in ["0", "-1", "9223372036854775808", "1000000000000000000", "1e400"] {
        let token = format!(r#"{{"access_token":"abc","expires_in":{life}}}"#);
        let fake = Fake::start(Say::Json(token.into_bytes()), Say::Json(OK.to_vec()));
        let site = site(&[fake.url()], "[setting]\ntask_worker_num = 1");
        for _ in 0..5 {
            assert_eq!(send(&site).0, 200, "{life}");
        }
        assert_eq!(fake.tokens(), 1, "{life}");
        assert!(!site.log().contains("panicked"), "{life}");
    }
}

#[test]
fn a_host_that_answers_502_or_hangs_is_left_for_the_next() {
    for (fault, more) in [(Say::Status(502), ""), (Say::Hang, "[wechat]\ntimeout = 300ms")] {
        let bad = Fake::start(Say::Json(TOKEN.to_vec()), fault);
        let good = Fake::answering(OK);
        let more = format!("{more}\n[queue]\nretry_base = 10ms\nretry_cap = 20ms");
        let site = site(&[bad.url(), good.url()], &more);
        site.push_many(20);
        wait_for("all messages", || site.count("delivered") == 20);
        assert_eq!(site.count("failed"), 0);
        let before = bad.sends();
        site.push_many(20);
        wait_for("all messages", || site.count("delivered") == 40);
        assert_eq!(bad.sends(), before, "nobody asks the first host any more");
        assert!(site.log().contains("gave no usable answer 3 times in a row"), "{}", site.log());
    }
}

#[test]
fn what_reached_no_host_is_sent_to_the_next_one_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = Fake::answering(OK);
    let site = site(&[format!("http://{closed}"), good.url()], "");
    assert_eq!(send(&site).0, 200);
    site.push_many(20);
    wait_for("all messages", || site.count("delivered") == 21);
    assert_eq!(site.count("retried"), 0);
}

/// A proxy that notes whom it is asked to connect to, and connects to one address whatever it is asked for.
fn proxy(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let Some(first) = read_request(&mut reader) else { continue };
            notes.lock().unwrap().push(first.trim().to_owned());
            let server = TcpStream::connect(target).unwrap();
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, asked)
}

#[test]
fn the_environments_proxy_is_not_used_and_loopback_needs_none() {
    let fake = Fake::answering(OK);
    let (proxy, asked) = proxy(fake.address);
    for more in [String::new(), format!("[wechat]\nproxy = http://{proxy}")] {
        let sandbox = Sandbox::start();
        let mut site =
            Site::new(&sandbox, &format!("[wechat]\napi_hosts = {}\n{more}", fake.url()));
        let url = format!("http://{proxy}");
        let mut start = site.command(&["start"]);
        start.env("HTTP_PROXY", &url).env("ALL_PROXY", &url).env("https_proxy", &url);
        let line = String::from_utf8(start.output().unwrap().stdout).unwrap();
        site.address = Some(line.trim().rsplit(' ').next().unwrap().parse().unwrap());
        assert_eq!(send(&site).0, 200);
        assert_eq!(*asked.lock().unwrap(), [""; 0]);
    }
}

/// openssl's server with a certificate for this name, issued by an authority of its own.
struct Tls {
    folder: tempfile::TempDir,
    server: Child,
    address: SocketAddr,
}

impl Tls {
    fn start(name: &str) -> Tls {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
        let issue = |more: &[&str]| {
            let made = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"])
                .args(more)
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        let (ca, ca_key) = (path("ca"), path("ca-key"));
        issue(&["-subj", "/CN=authority of the test", "-keyout", &ca_key, "-out", &ca]);
        let (subject, name) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        let leaf = ["-subj", &subject, "-addext", &name, "-addext", "basicConstraints=CA:FALSE"];
        let files = ["-keyout", &path("key"), "-out", &path("cert")];
        issue(&[&["-CA", &ca, "-CAkey", &ca_key], &leaf[..], &files[..]].concat());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Answers every GET with a web page.
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &address.to_string()])
            .args(["-key", &path("key"), "-cert", &path("cert")])
            .spawn()
            .unwrap();
        wait_for("openssl to listen", || TcpStream::connect(address).is_ok());
        Tls { folder, server, address }
    }

    fn authority(&self) -> String {
        self.folder.path().join("ca").display().to_string()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_ca_file_names_it() {
    let tls = Tls::start("localhost");
    let url = format!("https://localhost:{}", tls.address.port());
    for (more, words) in [
        (String::new(), "is not trusted"),
        // The handshake is done, and openssl's page is no answer of WeChat's.
        (format!("ca_file = {}", tls.authority()), "not a JSON object"),
    ] {
        let site = site(
            std::slice::from_ref(&url),
            &format!("token_source = classic\nsend_retry_for = 0\n{more}"),
        );
        let (code, said) = send(&site);
        assert_eq!(code, 500);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_proxy_that_is_asked_for_connects_to_hosts_beyond_this_machine() {
    let tls = Tls::start("api.weixin.test");
    let (proxy, asked) = proxy(tls.address);
    let more = format!(
        "token_source = classic\nsend_retry_for = 0\nproxy = http://{proxy}\nca_file = {}",
        tls.authority()
    );
    let site = site(&["https://api.weixin.test".to_owned()], &more);
    let (_, said) = send(&site);
    assert!(said.contains("not a JSON object"), "{said}");
    assert_eq!(asked.lock().unwrap()[0], "CONNECT api.weixin.test:443 HTTP/1.1");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("send_retry_for = 0\nproxy = http://{closed}");
    let (_, said) = send(&self::site(&["https://api.weixin.test".to_owned()], &more));
    assert!(
        said.contains("cannot be reached") && said.contains("(through wechat.proxy)"),
        "{said}"
    );
}

#[test]
fn a_ca_file_that_is_missing_or_no_certificate_is_an_error_at_start() {
    let sandbox = Sandbox::start();
    for (text, words) in [
        (None, "cannot be read"),
        (Some("no certificate"), "holds no certificate in PEM form"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "its certificate 1 is not one",
        ),
    ] {
        let site = Site::new(&sandbox, "[wechat]\nca_file = own-ca.pem");
        let path = site.folder.path().join("own-ca.pem");
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let refused = site.run(&["start"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let key = format!("wechat.ca_file: {}: ", path.display());
        assert!(said.contains(&key) && said.contains(words), "{said}");
    }
}

#[test]
fn an_errmsg_that_is_not_text_reaches_the_client_with_its_errcode() {
    for (answer, words) in [
        (
            &b"{\"errcode\":40003,\"errmsg\":\"bad \xff id\"}"[..],
            r#"{"errcode":40003,"errmsg":"bad \ufffd id","openid":"o"}"#,
        ),
        (
            br#"{"errcode":40003,"errmsg":"bad \ud800 id"}"#,
            r#"{"errcode":40003,"errmsg":"bad \ufffd id","openid":"o"}"#,
        ),
    ] {
        let fake = Fake::answering(answer);
        let site = site(&[fake.url()], "");
        assert_eq!(send(&site), (400, words.to_owned()));
    }
}

/// Bytes of the daemon's own memory.
fn anonymous_memory(site: &Site) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_worker_that_has_worked_holds_at_most_80_kib() {
    const WORKERS: usize = 256;
    let sandbox = Sandbox::start();
    // Slow enough that every worker gets its share.
    sandbox.faults(json!({ "latency_ms": 200 }));
    let more = format!("[setting]\ntask_worker_num = {WORKERS}");
    let site = Site::started(&sandbox, &more);
    let before = anonymous_memory(&site);
    site.push_many(4 * WORKERS as u32);
    wait_for("all messages", || site.count("delivered") == 4 * WORKERS as u64);
    assert!(sandbox.stats()["max_connections"].as_u64().unwrap() >= WORKERS as u64);
    let each = anonymous_memory(&site).saturating_sub(before) / WORKERS;
    println!("{each} bytes for each worker");
    assert!(each <= 80 * 1024, "{each} bytes for each worker");
}

#[test]
fn a_token_call_that_hangs_holds_up_nobody_for_longer_than_its_timeout() {
    let fake = Fake::start(Say::Hang, Say::Json(OK.to_vec()));
    let site = site(&[fake.url()], "timeout = 500ms\nsend_retry_for = 0");
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..16).map(|_| site.client()).collect();
    for client in &mut clients {
        client.send(1, "o", "null");
    }
    for client in &mut clients {
        let answer = client.read();
        assert!(answer.code >= 500 && answer.message.contains("access token"), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(fake.tokens(), 1);
    fake.say(Say::Json(OK.to_vec()));
    assert_eq!(fake.sends(), 0);
    // But where the load doubts the template itself.
    let log = site.log();
    let named = log.lines().filter(|line| line.contains(KEY));
    assert!(named.clone().all(|line| line.contains("first or remark")), "{log}");
}
