//! Real PHP clients, written as the legacy ones are.

use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::process::Command;

fn run(site: &Site, script: &str) {
    let output = Command::new("php")
        .arg(format!("{}/tests/php/{script}", env!("CARGO_MANIFEST_DIR")))
        .arg(site.address.unwrap().port().to_string())
        .arg(KEY)
        .output()
        .expect("php is installed (scripts/test installs it)");
    let text = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&text), "ok\n", "{script}\n{}", site.log());
}

fn delivered(sandbox: &Sandbox, prefix: &str) -> usize {
    sandbox.ids().iter().filter(|(openid, _, _)| openid.starts_with(prefix)).count()
}

#[test]
fn php_clients_see_what_they_always_saw() {
    let sandbox = Sandbox::start();
    sandbox
        .faults(json!({"openids": {"refused": {"errcode": 43004, "errmsg": "require subscribe"}}}));
    let site = Site::started(&sandbox, "");
    run(&site, "one_at_a_time.php");
    assert_eq!(delivered(&sandbox, "one-"), 100);
    assert!(sandbox.get("/sandbox/delivered").contains(r#"第100条 \"quoted\" / 😀"#));
    run(&site, "pipelined.php");
    run(&site, "tset.php");
    run(&site, "interleaved.php");
    sandbox.faults(json!({"latency_ms": 500}));
    run(&site, "leaves_early.php");
    for (prefix, count) in [("pipe-", 1000), ("a-", 200), ("b-", 200), ("gone-", 100)] {
        wait_for(prefix, || delivered(&sandbox, prefix) == count);
    }
    assert_eq!(sandbox.delivered(), 100 + 1000 + 400 + 100);
}
