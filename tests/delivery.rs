//! What becomes of messages between the queue and WeChat.

use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::{Value, json};

fn failed_list(site: &Site) -> Vec<Value> {
    site.ok(&["failed"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_expired_token_is_refreshed_once_for_64_workers_and_loses_nothing() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 20, "token_latency_ms": 100 }));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 64");
    site.push_many(200);
    wait_for("the first messages", || sandbox.delivered() == 200);
    assert_eq!(sandbox.stats()["token_calls"]["stable"], 1);
    sandbox.post("/sandbox/expire", "");
    site.push_many(2000);
    wait_for("all messages", || sandbox.delivered() == 2200);
    let calls = &sandbox.stats()["token_calls"];
    assert_eq!(*calls, json!({"classic": 0, "stable": 2, "forced": 0}), "one more for all workers");
    wait_for("the daemon to book them", || site.count("delivered") == 2200);
    assert!(sandbox.ids().iter().all(|(_, _, seen)| *seen == 1));
}

#[test]
fn the_classic_token_works_too() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\ntoken_source = classic");
    site.push_many(20);
    wait_for("all messages", || sandbox.delivered() == 20);
    assert_eq!(sandbox.stats()["token_calls"]["classic"], 1);
}

#[test]
fn a_token_is_renewed_before_it_ends_while_messages_go_on() {
    // The shortest life that is believed.
    let sandbox = Sandbox::with(&["--token-ttl", "60"]);
    let site = Site::started(&sandbox, "");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(63);
    let mut sent = 0;
    while std::time::Instant::now() < end {
        site.push_many(10);
        sent += 10;
        wait_for("the messages", || sandbox.delivered() == sent);
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    let stats = sandbox.stats();
    assert_eq!(stats["errors"], json!({}), "no message met an expired token");
    assert_eq!(stats["token_calls"]["stable"], 2);
}

#[test]
fn permanent_failures_are_listed_at_once_and_others_go_on() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o3": {"errcode": 43004, "errmsg": "require subscribe"}}}));
    let site = Site::started(&sandbox, "");
    site.push_many(10);
    wait_for("nine messages", || sandbox.delivered() == 9);
    wait_for("one failure", || site.count("failed") == 1);
    let listed = failed_list(&site);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["openid"], "o3");
    assert_eq!(listed[0]["key"], KEY);
    assert_eq!(listed[0]["data"], json!({"first": "3"}));
    assert_eq!((&listed[0]["errcode"], &listed[0]["attempts"]), (&json!(43004), &json!(1)));
    assert_eq!(site.count("queue_depth"), 0);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_with_the_same_id() {
    let sandbox = Sandbox::start();
    sandbox
        .faults(json!({"openids": {"o1": {"seq": [-1, -1, 0]}, "o2": {"seq": [43101, 43101, 0]}}}));
    let site = Site::started(&sandbox, "[queue]\nretry_base = 50ms");
    site.push_many(4);
    wait_for("what can be delivered", || sandbox.delivered() == 3);
    wait_for("what is tried only twice to fail", || site.count("failed") == 1);
    assert_eq!(failed_list(&site)[0]["openid"], "o2");
    assert_eq!(site.count("retried"), 3);
}

#[test]
fn an_answer_lost_on_the_way_does_not_double_a_message() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o1": {"close_after": true}}}));
    let site = Site::started(&sandbox, "[queue]\nretry_base = 50ms");
    site.push_many(3);
    wait_for("a repeat", || sandbox.stats()["repeats"].as_u64() >= Some(1));
    sandbox.faults(json!({}));
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), 3);
    assert_eq!(sandbox.ids().len(), 3, "every repeat carries its message's id");
}

#[test]
fn a_limit_and_a_fault_of_the_account_stop_sending_but_not_accepting() {
    for (errcode, word) in [(45009, "45009"), (40164, "40164")] {
        let sandbox = Sandbox::start();
        sandbox.faults(json!({ "answer": { "errcode": errcode, "errmsg": "no" } }));
        let site = Site::started(&sandbox, "");
        site.push_many(100);
        wait_for("sending to stop", || site.status()["suspended"].is_string());
        site.push_many(100);
        let status = site.status();
        assert!(status["suspended"].as_str().unwrap().contains(word), "{status}");
        assert_eq!((&status["queue_depth"], &status["failed"]), (&json!(200), &json!(0)));
        let asked = sandbox.stats()["requests"].as_u64().unwrap();
        assert!(asked <= 1 + 16, "{asked} requests before sending stopped");
        let mut client = site.client();
        client.send(5, "o", "null");
        let answer = client.read();
        assert_eq!(
            (answer.code, answer.message),
            (500, format!("sending suspended: {errcode} no"))
        );
    }
}

#[test]
fn a_wrong_secret_stops_sending_after_few_token_calls() {
    let sandbox = Sandbox::with(&["--app-secret", "another-secret"]);
    let site = Site::started(&sandbox, "");
    site.push_many(500);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    let requests = sandbox.stats()["requests"].as_u64().unwrap();
    assert!(requests <= 3, "{requests} requests");
    assert_eq!(site.count("queue_depth"), 500);
}

#[test]
fn the_certificate_of_the_api_host_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &path("key"),
            "-out",
            &path("cert"),
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-key", &path("key"), "-cert", &path("cert")])
        .spawn()
        .unwrap();
    wait_for("openssl to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let sandbox = Sandbox::start();
    let more = format!("[wechat]\napi_hosts = https://localhost:{port}\nsend_retry_for = 300ms");
    let site = Site::started(&sandbox, &more);
    let mut client = site.client();
    client.send(1, "o", "null");
    let answer = client.read();
    assert_eq!(answer.code, 500);
    assert!(answer.message.contains("not trusted"), "{}", answer.message);
    // Nothing was sent there, so the next host is asked.
    let more = format!("[wechat]\napi_hosts = https://localhost:{port}, {}", sandbox.url);
    let site = Site::started(&sandbox, &more);
    let mut client = site.client();
    client.send(1, "o", "null");
    let answer = client.read();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(answer.code, 200, "{}", answer.message);
}

#[test]
fn no_secret_is_in_any_log_or_error() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\nsend_retry_for = 300ms");
    site.push_many(5);
    wait_for("the messages", || sandbox.delivered() == 5);
    sandbox.faults(json!({"answer": {"close": true}, "token_http_status": 500}));
    sandbox.post("/sandbox/expire", "");
    let mut client = site.client();
    client.send(1, "o", "null");
    let answer = client.read().message;
    let shown = [site.ok(&["check"]), site.status().to_string(), site.log(), answer].concat();
    assert!(!shown.contains("the-secret-of-the-test"), "{shown}");
    assert!(!shown.contains("access_token="), "{shown}");
}

#[test]
fn a_send_is_answered_with_wechats_own_words() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"用户": {"errcode": 40003, "errmsg": "无效/openid"}}}));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    client.send(3, "用户", "null");
    let answer = client.read();
    let words = r#"{"errcode":40003,"errmsg":"\u65e0\u6548\/openid","openid":"\u7528\u6237"}"#;
    assert_eq!((answer.code, answer.opaque, answer.message.as_str()), (400, 3, words));
}

#[test]
fn sends_do_not_wait_behind_pushes_unless_asked_to() {
    for (setting, first) in [("on", true), ("off", false)] {
        let sandbox = Sandbox::start();
        sandbox.faults(json!({ "latency_ms": 10 }));
        let more = format!("[setting]\ntask_worker_num = 1\n[queue]\nsend_first = {setting}");
        let site = Site::started(&sandbox, &more);
        site.push_many(200);
        let mut client = site.client();
        client.send(1, "the-send", "null");
        assert_eq!(client.read().code, 200);
        let before = sandbox.delivered();
        assert_eq!(
            before < 150,
            first,
            "send_first = {setting}: {before} messages were sent first"
        );
    }
}

#[test]
fn the_pace_of_a_second_and_the_limit_of_a_day_are_kept() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "[wechat]\nmax_per_second = 100\ndaily_limit = 150");
    let started = std::time::Instant::now();
    site.push_many(200);
    wait_for("the first hundred", || sandbox.delivered() >= 100);
    assert!(started.elapsed().as_millis() > 800, "{:?}", started.elapsed());
    wait_for("the day to be over", || site.status()["suspended"].is_string());
    wait_for("what was under way", || site.count("queue_depth") == 50);
    assert_eq!(sandbox.delivered(), 150);
    let mut client = site.client();
    client.send(5, "o", "null");
    assert_eq!(client.read().message, "sending suspended: daily_limit is reached");
    site.ok(&["stop"]);
    site.start();
    wait_for("the day to be over still", || site.status()["suspended"].is_string());
    assert_eq!((sandbox.delivered(), site.count("queue_depth")), (150, 50));
}
