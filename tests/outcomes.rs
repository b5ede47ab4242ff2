//! Every errcode that WeChat's documents name, played by the sandbox: what becomes of a push.

use crate::support::{Sandbox, Site, wait_for};
use serde_json::{Map, Value, json};

const ONCE: [i64; 3] = [40037, 43101, 99999];
const LATER: [i64; 3] = [-1, 61450, 61503];
const RATE: [i64; 5] = [45009, 45011, 45047, 45102, 43100];
const PERMANENT: [i64; 33] = [
    40003, 43004, 43019, 46004, 48002, 50005, 40033, 40034, 40035, 40036, 40038, 40039, 40097,
    40165, 40166, 40173, 40249, 41009, 41011, 41028, 41030, 43116, 44002, 45002, 45012, 45013,
    45014, 45015, 47001, 47002, 47003, 48011, 61451,
];
const CONFIG: [i64; 41] = [
    40002, 40013, 40125, 40164, 40243, 41002, 41004, 43001, 43002, 43003, 40066, 43102, 43104,
    43106, 45103, 45109, 48001, 48004, 48008, 48009, 50001, 50002, 50003, 50004, 61003, 61004,
    61005, 61006, 61007, 61014, 61015, 61016, 61017, 61023, 89501, 89502, 89503, 89504, 89505,
    89506, 89507,
];

fn push(site: &Site, openid: &str) {
    let mut client = site.client();
    client.push(1, openid, "null");
    assert_eq!(client.read().code, 200);
}

#[test]
fn what_concerns_one_message_ends_or_repeats_that_one() {
    let (permanent, once, later) = (PERMANENT.iter(), ONCE.iter(), LATER.iter());
    let mut openids = Map::new();
    for code in permanent.chain(once).chain(later).chain(&[43117]) {
        openids.insert(format!("of{code}"), json!({ "errcode": code }));
    }
    openids.insert("duplicate".into(), json!({"errcode": 40241}));
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "openids": openids }));
    let site = Site::started(&sandbox, "[queue]\nretry_base = 5ms\nretry_cap = 20ms");
    openids.keys().for_each(|openid| push(&site, openid));
    push(&site, "others");
    wait_for("all outcomes", || site.count("queue_depth") == 0);
    let status = site.status();
    assert_eq!((&status["delivered"], &status["duplicates"]), (&json!(2), &json!(1)), "{status}");
    let listed = site.ok(&["failed"]);
    let attempts = |code: i64| {
        let lines = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = lines.filter(|line| line["errcode"] == code).collect();
        assert_eq!(found.len(), 1, "{code}: {listed}");
        found[0]["attempts"].as_u64().unwrap()
    };
    PERMANENT.iter().for_each(|code| assert_eq!(attempts(*code), 1, "{code}"));
    ONCE.iter().for_each(|code| assert_eq!(attempts(*code), 2, "{code}"));
    LATER.iter().chain(&[43117]).for_each(|code| assert_eq!(attempts(*code), 8, "{code}"));
}

#[test]
fn what_concerns_the_account_stops_sending_and_fails_nothing() {
    let sandbox = Sandbox::start();
    for code in RATE.iter().chain(&CONFIG) {
        sandbox.faults(json!({"answer": { "errcode": code }}));
        let site = Site::started(&sandbox, "");
        push(&site, "o");
        let word = code.to_string();
        wait_for("sending to stop", || {
            site.status()["suspended"].as_str().is_some_and(|why| why.contains(&word))
        });
        let status = site.status();
        assert_eq!((&status["queue_depth"], &status["failed"]), (&json!(1), &json!(0)), "{code}");
    }
}

#[test]
fn sending_goes_on_by_itself_when_the_fault_is_mended() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 45011}}));
    let site = Site::started(&sandbox, "[errcode]\n45011 = rate");
    site.push_many(20);
    wait_for("sending to stop", || site.status()["suspended"].is_string());
    sandbox.faults(json!({}));
    // The next window is the next minute.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(62);
    while sandbox.delivered() < 20 {
        assert!(std::time::Instant::now() < deadline, "{}", site.status());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    wait_for("the status to say so", || site.status()["suspended"].is_null());
}
