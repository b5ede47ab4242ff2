//! Ids that clients give their messages: a repeat is answered like the first, and nothing goes out twice.

use crate::support::{Answer, Client, KEY, Sandbox, Site, wait_for};
use mega::wire::command::{encode_push, encode_send, encode_tget};
use serde_json::{Value, json};

/// How often WeChat saw each pair of openid and id.
fn seen(sandbox: &Sandbox) -> Vec<(String, String, u64)> {
    let mut ids = sandbox.ids();
    ids.sort_unstable();
    ids
}

fn told(client: &mut Client) -> (u16, String) {
    let Answer { code, message, .. } = client.read();
    (code, message)
}

fn ok() -> (u16, String) {
    (200, String::new())
}

fn push(client: &mut Client, openid: &str, id: &str) -> (u16, String) {
    client.ask(encode_push, 1, openid, Some(id), "null");
    told(client)
}

fn send(client: &mut Client, openid: &str, id: &str) -> (u16, String) {
    client.ask(encode_send, 1, openid, Some(id), "null");
    told(client)
}

/// What a push is told when the ids of before have been read.
fn push_later(client: &mut Client, openid: &str, id: &str) -> (u16, String) {
    let mut last = (0, String::new());
    wait_for("the ids to be read", || {
        last = push(client, openid, id);
        !last.1.contains("come again")
    });
    last
}

#[test]
fn a_push_that_is_repeated_goes_out_once_while_it_waits_and_after_its_end() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    site.ok(&["pause"]);
    // The same id for another openid is another message.
    for (openid, id) in [("a", "ORDER-1"), ("a", "ORDER-1"), ("b", "ORDER-1"), ("a", "ORDER-2")] {
        assert_eq!(push(&mut client, openid, id), ok());
    }
    let status = site.status();
    assert_eq!((&status["queue_depth"], &status["repeated"]), (&json!(3), &json!(1)));
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(push(&mut client, "a", "ORDER-1"), ok());
    assert_eq!(site.count("repeated"), 2);
    let once = |openid: &str, id: &str| (openid.to_owned(), id.to_owned(), 1);
    assert_eq!(seen(&sandbox), [once("a", "ORDER-1"), once("a", "ORDER-2"), once("b", "ORDER-1")]);
}

#[test]
fn a_push_that_is_repeated_after_a_crash_is_known_while_it_waits() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "[queue]\nsegment_size = 1M\n");
    site.ok(&["pause"]);
    let mut client = site.client();
    const COUNT: usize = 6_000;
    let pad = format!("{{\"first\":\"{}\"}}", "x".repeat(1_000));
    let all = |client: &mut Client| {
        for n in 0..COUNT {
            client.ask(encode_push, n as u32, &format!("o{n}"), Some(&format!("id-{n}")), &pad);
        }
        (0..COUNT).map(|_| told(client)).collect::<Vec<_>>()
    };
    assert!(all(&mut client).iter().all(|told| *told == ok()));
    assert!(site.count("segments") > 1, "{}", site.status());
    for _ in 0..2 {
        site.kill();
        site.start();
        client = site.client();
        assert_eq!(push_later(&mut client, "o0", "id-0"), ok());
        assert!(all(&mut client).iter().all(|told| *told == ok()));
        assert_eq!(site.count("queue_depth"), COUNT as u64);
    }
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    assert_eq!(sandbox.delivered(), COUNT as u64);
    assert!(all(&mut client).iter().all(|told| *told == ok()));
    assert_eq!((site.count("queue_depth"), seen(&sandbox).len()), (0, COUNT));
    assert!(
        seen(&sandbox)
            .iter()
            .all(|(openid, id, times)| *id == openid.replace('o', "id-") && *times == 1)
    );
}

#[test]
fn a_send_that_is_repeated_while_it_is_in_hand_gets_the_same_answer() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 500, "openids": { "bad": { "errcode": 43004 } } }));
    let site = Site::started(&sandbox, "");
    for openid in ["good", "bad"] {
        let mut clients: Vec<Client> = (0..3).map(|_| site.client()).collect();
        for client in &mut clients {
            client.ask(encode_send, 1, openid, Some("x"), "null");
        }
        let answers: Vec<_> = clients.iter_mut().map(told).collect();
        let code = if openid == "good" { 200 } else { 400 };
        assert!(answers.iter().all(|told| *told == answers[0]), "{answers:?}");
        assert_eq!(answers[0].0, code);
        // And afterwards.
        assert_eq!(send(&mut clients[0], openid, "x"), answers[0]);
        if code == 400 {
            let answer: Value = serde_json::from_str(&answers[0].1).unwrap();
            assert_eq!((&answer["errcode"], &answer["openid"]), (&json!(43004), &json!("bad")));
        }
    }
    let status = site.status();
    assert_eq!((&status["repeated"], &status["classes"]["permanent"]), (&json!(6), &json!(1)));
    assert_eq!(sandbox.delivered(), 1);
}

#[test]
fn a_send_of_which_nobody_knows_what_became_is_tried_again_under_its_id() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\nsend_retry_for = 0\n");
    let mut client = site.client();
    sandbox.faults(json!({ "answer": { "close_after": true } }));
    assert_eq!(send(&mut client, "a", "x").0, 500);
    sandbox.faults(json!({}));
    assert_eq!(send(&mut client, "a", "x"), ok());
    assert_eq!(send(&mut client, "a", "x"), ok());
    assert_eq!(sandbox.delivered(), 1);
    // WeChat had it already, and does not tell.
    assert_eq!((site.count("repeated"), seen(&sandbox)), (1, vec![("a".into(), "x".into(), 2)]));
}

#[test]
fn a_send_that_joined_one_is_told_with_it_that_the_daemon_stops() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "answer": { "hang": true } }));
    let site = Site::started(&sandbox, "[setting]\nstop_timeout = 0\n");
    let mut clients: Vec<Client> = (0..2).map(|_| site.client()).collect();
    clients[0].ask(encode_send, 1, "a", Some("x"), "null");
    wait_for("the send to be in hand", || site.count("in_flight") == 1);
    clients[1].ask(encode_send, 2, "a", Some("x"), "null");
    wait_for("the repeat to be counted", || site.count("repeated") == 1);
    site.ok(&["stop"]);
    for client in &mut clients {
        assert_eq!(told(client), (500, "stopping".to_owned()));
    }
}

#[test]
fn what_is_no_id_is_refused_and_other_words_are_ignored() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    for bad in ["", "a.b", "ä", &"x".repeat(33)] {
        let (code, text) = push(&mut client, "a", bad);
        assert_eq!(code, 400, "{bad:?}");
        assert!(text.starts_with("invalid id: 1 to 32 "), "{text}");
    }
    let mut frame = Vec::new();
    mega::wire::frame::encode(
        &mut frame,
        &[b"push", b"a", KEY.as_bytes(), b"more", b"id=a.b"],
        1,
        Some(b"null"),
    );
    client.write(&frame);
    assert_eq!(told(&mut client), ok());
    assert_eq!(push(&mut client, "a", &"x".repeat(32)), ok());
    wait_for("both to be delivered", || sandbox.delivered() == 2);
}

#[test]
fn the_command_line_gives_ids_too() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for command in ["send", "send", "push"] {
        assert_eq!(site.ok(&[command, "a", KEY, "--id", "cli-1"]).trim_end(), "200");
    }
    assert_eq!(seen(&sandbox), [("a".into(), "cli-1".into(), 1)]);
    let refused = site.run(&["push", "a", KEY, "--id", "a.b"]);
    assert!(String::from_utf8_lossy(&refused.stdout).starts_with("400 invalid id"));
    assert!(!site.run(&["push", "a", KEY, "--id", "a b"]).status.success());
}

#[test]
fn no_more_ids_may_wait_than_are_remembered_and_those_that_ended_make_room() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[queue]\nids_max = 1000\n");
    site.ok(&["pause"]);
    let mut client = site.client();
    for n in 0..1_000 {
        client.ask(encode_push, n, &format!("o{n}"), Some("x"), "null");
    }
    (0..1_000).for_each(|_| assert_eq!(told(&mut client), ok()));
    let refused = (500, "queue full: 1000 ids are remembered (queue.ids_max)".to_owned());
    assert_eq!(push(&mut client, "more", "x"), refused);
    // Those that are remembered, and what has no id.
    assert_eq!(push(&mut client, "o7", "x"), ok());
    client.push(1, "more", "null");
    assert_eq!(told(&mut client), ok());
    let status = site.status();
    assert_eq!((&status["refusals"]["ids"], &status["repeated"]), (&json!(1), &json!(1)));
    site.ok(&["resume"]);
    wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    // More than are remembered, and never as many that wait.
    for batch in 0..6 {
        for n in 0..500 {
            client.ask(encode_push, n, &format!("p{batch}-{n}"), Some("x"), "null");
        }
        (0..500).for_each(|_| assert_eq!(told(&mut client), ok()));
        wait_for("the queue to be empty", || site.count("queue_depth") == 0);
    }
    assert_eq!(push(&mut client, "more", "x"), ok());
}

#[test]
fn a_send_under_the_id_of_a_push_is_no_answer_of_wechats() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o1": {"errcode": 43004, "errmsg": "require subscribe"}}}));
    let site = Site::started(&sandbox, "");
    let mut client = site.client();
    assert_eq!(push(&mut client, "o1", "x"), ok());
    let text = "invalid id: a push has it, and nobody can answer for WeChat";
    assert_eq!(send(&mut client, "o1", "x"), (400, text.to_owned()));
    wait_for("the end", || site.count("failed") == 1);
    assert_eq!(send(&mut client, "o1", "x"), (400, text.to_owned()));
    assert_eq!(send(&mut client, "o1", "y").0, 400);
    // And the other way round: as the send was.
    let (code, told) = push(&mut client, "o1", "y");
    assert!(code == 400 && told.contains("43004"), "{code} {told}");
}

#[test]
fn clients_may_ask_for_a_templates_text() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.put_template("other", "{\"touser\":\"${OPENID}\",\"data\":{\"a\":\"${名}\"}}");
    let mut client = site.client();
    for (key, code, text) in [
        ("other", 200, "{\"touser\":\"${OPENID}\",\"data\":{\"a\":\"${名}\"}}"),
        ("nosuch", 400, "template key not exists"),
    ] {
        let mut frame = Vec::new();
        encode_tget(&mut frame, 9, key.as_bytes());
        client.write(&frame);
        assert_eq!(client.read(), Answer { code, opaque: 9, message: text.into() });
    }
}
