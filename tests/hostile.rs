//! Jobs that go wrong in every way: each has an outcome, and its worker comes back.

use crate::support::{KEY, Sandbox, Site};
use serde_json::json;
use std::time::{Duration, Instant};

/// Probes that meet the fault by chance several times in a row are half a minute apart.
fn settled(site: &Site, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let status = site.status();
        let number = |name: &str| status[name].as_u64().unwrap();
        if number("queue_depth") == 0 && number("delivered") + number("failed") == count {
            return;
        }
        assert!(Instant::now() < deadline, "not every job has an outcome: {status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Messages a second of an undisturbed run.
fn throughput(site: &Site, total: &mut u64) -> f64 {
    let started = Instant::now();
    site.push_many(4_000);
    *total += 4_000;
    settled(site, *total);
    4_000.0 / started.elapsed().as_secs_f64()
}

#[test]
fn thousands_of_hostile_jobs_leave_the_workers_as_they_were() {
    let sandbox = Sandbox::start();
    let more = "[setting]\ntask_worker_num = 64\n[queue]\nretry_max = 1\n[wechat]\ntimeout = 500ms";
    let site = Site::started(&sandbox, more);
    let mut total = 0;
    throughput(&site, &mut total);
    let before = throughput(&site, &mut total);
    // Every other one: where nothing gets through any more, sending stops and no job is begun.
    for (mut fault, count) in [
        (json!({"close": true}), 4_000),
        (json!({"close_after": true}), 4_000),
        (json!({"garbage": true}), 4_000),
        (json!({"http_status": 502}), 4_000),
        (json!({"errcode": 47003}), 3_000),
        (json!({"hang": true}), 600),
        (json!({"huge": true}), 400),
    ] {
        fault["share"] = json!(0.5);
        sandbox.faults(json!({ "answer": fault }));
        site.push_many(count);
        total += u64::from(count);
        settled(&site, total);
    }
    sandbox.faults(json!({}));
    site.ok(&["template", "rm", KEY]);
    sandbox.faults(json!({"latency_ms": 50}));
    site.push_many(500);
    site.ok(&["reload"]);
    total += 500;
    settled(&site, total);
    sandbox.faults(json!({}));
    site.put_template(KEY, crate::support::TEMPLATE);
    let failed = site.count("failed");
    assert!(failed >= 9_000, "{failed}");
    // A busy machine is slow now and then; workers that are worse off are slow every time.
    let mut after = throughput(&site, &mut total);
    assert_eq!(site.count("failed"), failed, "nothing fails any more");
    for _ in 0..4 {
        if after <= before / 2.0 {
            after = throughput(&site, &mut total);
        }
    }
    assert!(after > before / 2.0, "{after:.0} a second after, {before:.0} before");
}

#[test]
fn after_a_restart_with_a_backlog_every_worker_is_busy_within_a_second() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 3_000}));
    let mut site = Site::started(&sandbox, "[setting]\ntask_worker_num = 32\nstop_timeout = 0");
    site.push_many(1_000);
    site.ok(&["stop"]);
    let before = sandbox.stats()["requests"].as_u64().unwrap();
    site.start();
    std::thread::sleep(Duration::from_secs(1));
    let began = sandbox.stats()["requests"].as_u64().unwrap() - before;
    assert!(began >= 32, "{began} of 32 workers have begun");
}
