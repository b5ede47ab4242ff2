//! The recorded transcripts, replayed against the real daemon in three segmentations.

use crate::support::{KEY, Sandbox, Site, TEMPLATE};
use mega::wire::command::{self, Command};
use mega::wire::frame::{Split, split};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const SEGMENTATIONS: [&str; 3] = ["whole", "one byte per write", "all in one write"];

fn unhex(text: &str) -> Vec<u8> {
    let digits = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
    (0..text.len() / 2).map(digits).collect()
}

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("data/transcripts.json")).unwrap()
}

/// What the recorded answer of WeChat is in the sandbox's terms.
fn faults(answers: &Value) -> Value {
    let mut faults = json!({});
    if let Some(seq) = answers["seq"].as_str() {
        let codes: Vec<i64> = seq.split(',').map(|code| code.parse().unwrap()).collect();
        faults["answer"] = json!({ "seq": codes });
    } else if let Some(status) = answers.get("http") {
        faults["answer"] = json!({ "http_status": status });
    } else if let Some(errcode) = answers.get("errcode") {
        let errmsg = answers["errmsg"].as_str().unwrap().replace('+', " ");
        faults["answer"] = json!({ "errcode": errcode, "errmsg": errmsg });
    }
    if answers.get("tokenfail").is_some() {
        faults["token_http_status"] = json!(500);
    }
    faults
}

fn write(stream: &mut TcpStream, request: &[u8], segmentation: &str) {
    let parts: Vec<&[u8]> = match segmentation {
        "one byte per write" => request.chunks(1).collect(),
        "whole" => {
            let (mut parts, mut rest) = (Vec::new(), request);
            while let Split::Frame { size, .. } = split(rest, usize::MAX) {
                parts.push(&rest[..size]);
                rest = &rest[size..];
            }
            parts.push(rest);
            parts
        }
        _ => vec![request],
    };
    for part in parts {
        // The daemon may have closed already: that is for the reading side to judge.
        if stream.write_all(part).is_err() {
            return;
        }
    }
}

/// What comes back, and whether the connection was closed.
fn read(stream: &mut TcpStream, expected: usize) -> (Vec<u8>, bool) {
    let (mut reply, mut chunk) = (Vec::new(), [0; 4096]);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // When all that is expected is there, only a short look for more is taken.
        let patience = if reply.len() < expected { 5_000 } else { 60 };
        stream.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
        match stream.read(&mut chunk) {
            Ok(0) => return (reply, true),
            Ok(count) => reply.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (reply, true),
            Err(_) if reply.len() >= expected || Instant::now() > deadline => {
                return (reply, false);
            }
            Err(_) => {}
        }
    }
}

/// What the case demands of ours where it differs from the original: code, the text's beginning and
/// whether the connection is closed.
fn differing(differs: &str) -> (u16, &'static str, bool) {
    match differs {
        "500 with another text, connection stays" => (500, "", false),
        "500 with another text, closed" => (500, "", true),
        "500 Unknown command, opaque 0, closed" => (500, "Unknown command", true),
        "200: any name is allowed" => (200, "", false),
        other if other.starts_with("400 invalid data") => (400, "invalid data: ", false),
        other => panic!("no expectation for {other:?}"),
    }
}

fn replay(site: &Site, case: &Value, segmentation: &str) -> Result<(), String> {
    let request = unhex(case["request_hex"].as_str().unwrap());
    let recorded = unhex(case["reply_hex"].as_str().unwrap());
    let mut stream = TcpStream::connect(site.address.unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    write(&mut stream, &request, segmentation);
    let differs = case["differs"].as_str().map(differing);
    let expected = if differs.is_some() { 1 } else { recorded.len() };
    let (reply, closed) = read(&mut stream, expected);
    let _ = stream.shutdown(Shutdown::Both);
    let Some((code, text, closes)) = differs else {
        let wanted = case["closed"].as_bool().unwrap();
        return match reply == recorded && closed == wanted {
            true => Ok(()),
            false => Err(format!("{reply:?} closed {closed}, wanted {recorded:?} closed {wanted}")),
        };
    };
    let Split::Frame { payload, .. } = split(&reply, usize::MAX) else {
        return Err(format!("no frame in {reply:?}"));
    };
    let Ok(Command::Result { code: got, opaque, message }) = command::decode(payload) else {
        return Err(format!("no result in {reply:?}"));
    };
    let Split::Frame { payload, .. } = split(&request, usize::MAX) else { panic!("{case}") };
    let own = match command::decode(payload) {
        Ok(Command::Send(request) | Command::Push(request)) => request.opaque,
        Ok(Command::Tset { opaque, .. }) => opaque,
        _ => 0,
    };
    let good = got == code.to_string().as_bytes()
        && message.starts_with(text.as_bytes())
        && opaque == own
        && closed == closes;
    let message = String::from_utf8_lossy(message);
    if good {
        Ok(())
    } else {
        Err(format!("{code} wanted: {message} opaque {opaque} closed {closed}"))
    }
}

fn check(cases: &[Value], site: &Site) {
    let mut wrong = Vec::new();
    for case in cases {
        for segmentation in SEGMENTATIONS {
            if let Err(why) = replay(site, case, segmentation) {
                wrong.push(format!("{} ({segmentation}): {why}", case["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), site.log());
}

#[test]
fn transcripts_that_need_nothing_special_are_answered_as_recorded() {
    let plain: Vec<Value> = cases()
        .into_iter()
        .filter(|case| case.get("wechat_answers").is_none() && case.get("needs").is_none())
        .collect();
    assert_eq!(plain.len(), 55);
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    check(&plain, &site);
}

#[test]
fn transcripts_of_wechats_answers_are_answered_as_recorded() {
    let answered: Vec<Value> =
        cases().into_iter().filter(|case| case.get("wechat_answers").is_some()).collect();
    assert_eq!(answered.len(), 8);
    // The original asked for one token after the other; a fresh one that is refused is a fault of the account.
    let (refused, answered): (Vec<Value>, Vec<Value>) =
        answered.into_iter().partition(|case| case["name"] == "send_errcode_42001_x5_then_ok");
    assert_eq!(refused.len(), 1);
    std::thread::scope(|scope| {
        for case in &answered {
            for segmentation in SEGMENTATIONS {
                scope.spawn(move || {
                    // Some of these answers stop sending as a whole: each has a daemon of its own.
                    let sandbox = Sandbox::start();
                    sandbox.faults(faults(&case["wechat_answers"]));
                    let site = Site::started(&sandbox, "[wechat]\nsend_retry_for = 1500ms");
                    if let Err(why) = replay(&site, case, segmentation) {
                        panic!("{} ({segmentation}): {why}", case["name"]);
                    }
                });
            }
        }
    });
}

#[test]
fn a_token_that_is_refused_again_and_again_is_no_reason_to_ask_for_more() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 42001}}));
    let site = Site::started(&sandbox, "[wechat]\nsend_retry_for = 1500ms");
    let mut client = site.client();
    client.send(11, "m11", "null");
    let answer = client.read();
    assert_eq!((answer.code, answer.opaque), (500, 11));
    assert!(answer.message.contains("42001"), "{answer:?}");
    let calls = sandbox.stats()["token_calls"].clone();
    assert!(calls["stable"].as_u64().unwrap() + calls["forced"].as_u64().unwrap() <= 2, "{calls}");
}

#[test]
fn transcripts_that_need_a_setting_are_answered_as_recorded() {
    let special: Vec<Value> =
        cases().into_iter().filter(|case| case.get("needs").is_some()).collect();
    let named = |name: &str| special.iter().find(|case| case["name"] == name).unwrap().clone();
    assert_eq!(special.len(), 4);
    let sandbox = Sandbox::start();

    let mut site = Site::new(&sandbox, "[server]\ntable_size = 2");
    site.put_template("t0001", TEMPLATE);
    site.start();
    check(&[named("tset_known_key_when_table_full"), named("push_key_case_differs")], &site);
    // The table is full: a new key is over its size.
    site.put_template_in_database_only("zz_new");
    let mut client = site.client();
    let mut frame = Vec::new();
    command::encode_tset(&mut frame, 5, b"zz_new");
    client.write(&frame);
    assert_eq!(client.read().message, "over table size");

    site.ok(&["template", "rm", KEY]);
    check(&[named("push_after_deleting_template_in_db")], &site);

    // The database is stopped: for SQLite, its file becomes something else.
    let database = site.folder.path().join("run/test.db");
    std::fs::write(&database, "this is no database, and long enough to look like a broken one")
        .unwrap();
    check(&[named("tset_database_down")], &site);
}
