//! mega-task against the real daemon: what becomes of each person, whoever refuses, pauses or ends it meanwhile.

use crate::support::desk::{Desk, address};
use crate::support::{KEY, Sandbox, Site, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_task_sends_to_everybody_and_says_who_was_not_reached_and_why() {
    let sandbox = Sandbox::start();
    let refused = json!({"errcode": 43004, "errmsg": "=1+1"});
    sandbox.faults(json!({"openids": {"o3": refused, "o5": refused}}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(100));
    let said = desk.ends(3, &desk.task(&to, &list, &[]));
    assert!(said.contains("98 sent, 2 failed, 0 unknown of 100"), "{said}");
    assert!(said.contains("43004  the user does not follow the account"), "{said}");
    let results = desk.results("t");
    assert_eq!(results.len(), 100);
    let failed: Vec<&String> = results.iter().filter(|line| line.contains(",failed,")).collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[0].contains(",43004,'=1+1,the user does not follow"), "{failed:?}");
    assert_eq!(desk.show("t")["stage"], "finished");
    assert!(desk.ends(0, &["list"]).contains("t  finished  98 sent"));
    assert!(desk.ends(0, &["log", "t"]).contains("finished: 98 sent"));
    desk.ends(7, &["resume", "t"]);
    desk.ends(6, &desk.task(&to, &list, &[]));

    sandbox.faults(json!({}));
    desk.ends(7, &["retry", "t", "--errcode", "-1,45009"]);
    let said = desk.ends(0, &["retry", "t", "--errcode", "-1,43004"]);
    assert!(said.contains("t-retry-1: 2 sent, 0 failed, 0 unknown of 2"), "{said}");
    assert_eq!(desk.results("t-retry-1").len(), 2);
    assert_eq!(sandbox.delivered(), 100);
    let said = desk.ends(7, &["retry", "t"]);
    assert!(said.contains("t-retry-1 has them: mega-task show t-retry-1"), "{said}");
    // What is known of them goes with the task, and that they were retried stays.
    let said = desk.ends(0, &["remove", "t-retry-1"]);
    assert!(said.contains("its results stay"), "{said}");
    assert_eq!(desk.results("t-retry-1").len(), 2);
    let said = desk.ends(7, &["retry", "t"]);
    assert!(said.contains("a task that was removed had them"), "{said}");
    assert_eq!(sandbox.delivered(), 100);
}

#[test]
fn those_who_are_in_a_retry_are_in_no_other() {
    let sandbox = Sandbox::start();
    let refused = json!({"errcode": 43004});
    let openids: serde_json::Map<String, Value> =
        (0..20).map(|n| (format!("o{n}"), refused.clone())).collect();
    sandbox.faults(json!({ "openids": openids }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(30));
    desk.ends(3, &desk.task(&to, &list, &[]));
    sandbox.faults(json!({}));
    let mut child = desk.start(&["retry", "t", "--rate", "5"]);
    wait_for("some of them", || sandbox.delivered() > 12);
    let said = desk.ends(7, &["retry", "t"]);
    assert!(said.contains("t-retry-1 has them: mega-task resume t-retry-1"), "{said}");
    child.end_at_once();
    desk.ends(7, &["retry", "t"]);
    desk.ends(6, &["remove", "t-retry-1"]);
    desk.ends(0, &["resume", "t-retry-1", "--rate", "100000"]);
    desk.ends(7, &["retry", "t"]);
    assert_eq!(sandbox.delivered(), 30, "each once");
    assert_eq!(desk.results("t-retry-1").len(), 20);
}

#[test]
fn a_retry_that_was_never_begun_has_nobody() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o3": {"errcode": 43004}}}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(10));
    desk.ends(3, &desk.task(&to, &list, &[]));
    sandbox.faults(json!({}));
    let taken = desk.folder.path().join("t-retry-1.result.csv");
    std::fs::write(&taken, "precious").unwrap();
    let said = desk.ends(6, &["retry", "t"]);
    assert!(said.contains("is there already"), "{said}");
    std::fs::remove_file(&taken).unwrap();
    desk.ends(0, &["retry", "t"]);
    assert_eq!(sandbox.delivered(), 10);
}

#[test]
fn a_result_file_that_is_lost_is_made_anew_and_told() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"openids": {"o3": {"errcode": 43004}}}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(300));
    let path = desk.folder.path().join("t.result.csv");
    let mut events = desk.events(&desk.task(&to, &list, &["--json", "--rate", "100"]));
    wait_for("some of them", || desk.done() > 20);
    // As logrotate does with copytruncate.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let lost = events.find(|event| event["event"] == "result_lost").expect("it is told");
    let second = desk.folder.path().join("t.result-2.csv");
    assert_eq!(lost["new"], second.to_str().unwrap());
    wait_for("more of them", || desk.done() > 60);
    desk.ends(0, &["pause", "t"]);
    assert_eq!(events.find(|event| event["event"] == "ended").unwrap()["how"], "paused");
    assert!(desk.ends(0, &["log", "t"]).contains("t.result.csv was changed"), "told");
    std::fs::remove_file(&second).unwrap();
    let said = desk.ends(3, &["resume", "t", "--rate", "100000"]);
    assert!(said.contains("t.result-2.csv was removed or moved away"), "{said}");
    let lines = std::fs::read_to_string(&second).unwrap();
    let mut openids: Vec<&str> =
        lines.lines().skip(1).filter_map(|it| it.split(',').nth(1)).collect();
    openids.sort();
    openids.dedup();
    assert_eq!((lines.lines().count(), openids.len()), (301, 300), "each has one line");
    assert!(lines.contains(",o3,failed,43004,"), "{lines}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "the old one is let be");
}

#[test]
fn what_is_wrong_from_the_beginning_leaves_nothing_behind() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(5));
    let run = |code, more: &[&str], why: [&str; 2]| {
        let arguments = desk.task(&to, &list, more);
        for (locale, why) in ["C", "zh_CN.UTF-8"].into_iter().zip(why) {
            let output = desk.command(&arguments).env("LC_ALL", locale).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
            assert!(said.contains(why), "{more:?}: {said}");
        }
        assert_eq!(desk.ends(0, &["list"]), "", "{more:?}");
    };
    run(2, &["--data", "x"], ["--data is no JSON object", "--data 不是"]);
    run(2, &["--at", "yesterday"], ["is no time", "不是时间"]);
    let taken = desk.folder.path().join("t.result.csv");
    std::fs::write(&taken, "precious").unwrap();
    run(6, &[], ["is there already", "已存在，不会覆盖"]);
    std::fs::remove_file(&taken).unwrap();
    for wrong in [
        ["--to", "127.0.0.1", "--key", KEY, "--name", "t"],
        ["--to", &to, "--key", "a b", "--name", "t"],
        ["--to", &to, "--key", KEY, "--name", "a/b"],
    ] {
        desk.ends(2, &[&["run", "--file", &list][..], &wrong].concat());
    }
    for word in ["resume", "retry", "pause", "end", "remove", "show", "log"] {
        let said = desk.ends(2, &[word, "t"]);
        assert!(said.contains("there is no task t"), "{said}");
    }
    assert_eq!(desk.ends(0, &["list"]), "");
    assert_eq!(sandbox.delivered(), 0);
    let help = desk.ends(0, &["--help"]);
    assert!(help.contains("7  nothing is left to do"), "{help}");
    desk.ends(0, &desk.task(&to, &list, &["--push"]));
    for file in ["home", "home/t", "home/t/list", "home/t/journal.db", "t.result.csv"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = desk.folder.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is nobody else's");
    }
    desk.ends(0, &["remove", "t"]);
    assert_eq!(desk.ends(0, &["list"]), "");
}

#[test]
fn nothing_goes_out_before_list_and_template_fit() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let to = address(&site);
    let plain = desk.folder.path().join("plain.txt");
    std::fs::write(&plain, "o1\no2\no1\n").unwrap();
    let plain = plain.to_str().unwrap();
    let said = desk.ends(6, &desk.task(&to, plain, &[]));
    assert!(said.contains("wants ${first}"), "{said}");
    let said = desk.ends(6, &["run", "--to", &to, "--key", "none", "--file", plain]);
    assert!(said.contains("has no template \"none\""), "{said}");
    let data = r#"{"first":"hello"}"#;
    let said = desk.ends(0, &desk.task(&to, plain, &["--data", data, "--dry-run"]));
    assert!(said.contains("1 duplicates left out"), "{said}");
    assert!(said.contains(r#"2 o2: {"touser":"o2""#) && said.contains("hello"), "{said}");
    assert_eq!(desk.ends(0, &["list"]), "");
    assert_eq!(sandbox.delivered(), 0);
    desk.ends(0, &desk.task(&to, plain, &["--data", data, "--push"]));
    wait_for("both messages", || sandbox.delivered() == 2);
}

#[test]
fn a_pause_ends_when_the_window_is_answered_and_resume_goes_on() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 20 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(1_000));
    let mut child = desk.start(&desk.task(&to, &list, &["--rate", "200"]));
    wait_for("some of them", || desk.done() > 20);
    desk.ends(0, &["pause", "t"]);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let shown = desk.show("t");
    assert_eq!(shown["stage"], "paused");
    let answered = sandbox.delivered();
    assert_eq!(shown["sent"].as_u64(), Some(answered), "nobody is out");
    assert!(answered < 1_000);
    desk.ends(7, &["pause", "t"]);
    desk.ends(0, &["resume", "t", "--rate", "100000"]);
    desk.assert_each_once(&sandbox, 1_000);
    assert_eq!(sandbox.stats()["repeats"], 0);
}

#[test]
fn an_end_is_for_good() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(1_000));
    let said = desk.ends(0, &desk.task(&to, &list, &["--rate", "50", "--detach"]));
    assert!(said.contains("runs in the background"), "{said}");
    wait_for("some of them", || desk.done() > 5);
    desk.ends(0, &["end", "t"]);
    assert_eq!(desk.show("t")["stage"], "ended");
    let said = desk.ends(7, &["resume", "t"]);
    assert!(said.contains("ended for good"), "{said}");
}

#[test]
fn a_refusal_is_waited_out_and_nobody_is_charged_for_it() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(300));
    site.ok(&["pause", "--why", "lunch"]);
    let mut child = desk.start(&desk.task(&to, &list, &[]));
    wait_for("the task to say why it waits", || {
        let shown = desk.run(&["show", "t", "--json"]).stdout;
        let shown: Value = serde_json::from_slice(&shown).unwrap_or_default();
        shown["waits"].as_str().is_some_and(|why| why.starts_with("sending suspended: paused"))
    });
    assert_eq!(sandbox.delivered(), 0);
    site.ok(&["resume"]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    desk.assert_each_once(&sandbox, 300);
    let log = desk.ends(0, &["log", "t"]);
    assert!(log.contains("waits: sending suspended: paused") && log.contains("goes on"), "{log}");
}

#[test]
fn a_limit_of_the_account_costs_nobody_the_message() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 48001}}));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(100));
    let mut child = desk.start(&desk.task(&to, &list, &[]));
    wait_for("the task to wait", || {
        let shown = desk.run(&["show", "t", "--json"]).stdout;
        let shown: Value = serde_json::from_slice(&shown).unwrap_or_default();
        shown["waits"].is_string()
    });
    assert_eq!(desk.done(), 0);
    sandbox.faults(json!({}));
    // The daemon's own probes let it go on.
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| child.wait().unwrap().code());
        site.ok(&["reload"]);
        assert_eq!(ended.join().unwrap(), Some(0));
    });
    desk.assert_each_once(&sandbox, 100);
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_was_out_goes_out_again_under_the_same_id() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({ "latency_ms": 8_000 }));
    let site = Site::started(&sandbox, "");
    let desk = Desk::new();
    let (to, list) = (address(&site), desk.list(4));
    let mut child = desk.start(&desk.task(&to, &list, &[]));
    wait_for("them to be out", || sandbox.stats()["in_flight"] == 4);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let began = std::time::Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_for("it to drain", || desk.ends(0, &["log", "t"]).contains("ends when 4 answers"));
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(began.elapsed() < Duration::from_secs(6));
    desk.ends(0, &["resume", "t"]);
    desk.assert_each_once(&sandbox, 4);
}
