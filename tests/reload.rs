//! A reload: what it takes over, what it says, and that it changes nothing where anything is wrong. And a start while
//! the templates' database is away.

use crate::support::{DEADLINE, KEY, Sandbox, Site, TEMPLATE, wait_for};
use mega::wire::command::{self, Command};
use mega::wire::frame::{Split, split};
use mega::wire::question::Question;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::time::{Duration, Instant};

/// Adds settings at the end of the file, where they win.
fn set(site: &Site, more: &str) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, format!("{text}\n{more}\n")).unwrap();
}

fn reload(site: &Site, more: &str) -> String {
    set(site, more);
    site.command(&["reload"]).env("LC_ALL", "C").output().map(said).unwrap()
}

/// What a command that must succeed has printed.
fn said(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Code and words of a command that must fail.
fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks the daemon itself: no command reads the file before it does.
fn ask(site: &Site, question: Question) -> (u16, String) {
    let mut wire = UnixStream::connect(site.folder.path().join("run/test.sock")).unwrap();
    wire.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut frame = Vec::new();
    command::encode_ask(&mut frame, 1, question, b"");
    wire.write_all(&frame).unwrap();
    let mut received = Vec::new();
    loop {
        if let Split::Frame { payload, .. } = split(&received, usize::MAX) {
            let Ok(Command::Result { code, message, .. }) = command::decode(payload) else {
                panic!("not a result");
            };
            let code = std::str::from_utf8(code).unwrap().parse().unwrap();
            return (code, String::from_utf8_lossy(message).into_owned());
        }
        let mut chunk = [0; 4096];
        let count = wire.read(&mut chunk).unwrap();
        assert!(count > 0, "no answer");
        received.extend_from_slice(&chunk[..count]);
    }
}

fn status(site: &Site) -> Value {
    serde_json::from_str(&ask(site, Question::Status).1).unwrap()
}

fn workers(site: &Site) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", status(site)["pid"])).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    let names = tasks.flatten().filter_map(|task| name(task).ok());
    names.filter(|name| name.starts_with("worker-")).count()
}

#[test]
fn a_reload_says_what_changed_what_needs_a_restart_and_what_it_left_alone() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.put_template_in_database_only("second");
    let text = reload(
        &site,
        "[server]\ntable_size = 50\n[setting]\ntask_worker_num = 5\nbacklog = 7\n[wechat]\napp_secret = another-secret\n\
         [errcode]\n43101 = later",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "mega test reloaded; templates: 2 (changed: 1), settings changed: 4",
            "  server.table_size: 100 -> 50",
            "  setting.task_worker_num: 8 -> 5",
            "  wechat.app_secret: *** -> ***",
            "  errcode.43101: (none) -> later",
            "not in effect before a restart (mega test restart):",
            "  setting.backlog: 512 -> 7",
        ]
    );
    let status = site.status();
    assert_eq!((&status["workers"], &status["templates"]), (&json!(5), &json!(2)));
    wait_for("three workers to end", || workers(&site) == 5);
    // What needs a restart is said as long as it does.
    let text = reload(&site, "[setting]\ntask_worker_num = 65");
    assert!(
        text.contains("settings changed: 0") && text.contains("setting.backlog: 512 -> 7"),
        "{text}"
    );
    assert!(text.contains("task_worker_num: 5 -> 65 (without one there may be 64)"), "{text}");
    let text = reload(&site, "[setting]\ntask_worker_num = 64\nbacklog = 512");
    assert!(!text.contains("restart"), "{text}");
    wait_for("all workers", || workers(&site) == 64);
    set(&site, "[wechat]\napp_secret = hunter2hunter2");
    let chinese = site.command(&["reload"]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
    assert!(said(chinese).contains("已重载；模板：2（有改动：0），设置有改动：1"));
    assert!(!site.log().contains("hunter2") && !site.log().contains("another-secret"));
}

#[test]
fn where_anything_is_wrong_nothing_changes() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.put_template_in_database_only("second");
    let unchanged = || {
        let status = status(&site);
        assert_eq!((&status["workers"], &status["templates"]), (&json!(8), &json!(1)), "{status}");
        // Those who were hired for it have gone.
        wait_for("the workers that were there before", || workers(&site) == 8);
    };
    let ini = site.folder.path().join("conf/test.ini");
    let good = std::fs::read_to_string(&ini).unwrap();
    // The file.
    set(&site, "[setting]\ntask_worker_num = 20\n[wechat]\ntimeout = soon\n[queue]\nretry_max = 0");
    refused(site.run(&["reload"]));
    let (code, why) = ask(&site, Question::Reload);
    assert_eq!(code, 500);
    assert!(why.contains("wechat.timeout") && why.contains("queue.retry_max"), "{why}");
    unchanged();
    // The database.
    std::fs::write(&ini, &good).unwrap();
    set(&site, "[setting]\ntask_worker_num = 20\n[pdo]\ndsn = sqlite:conf/test.ini/none.db");
    let why = refused(site.run(&["reload"]));
    assert!(
        why.contains("nothing has changed") && why.contains("cannot load the templates"),
        "{why}"
    );
    unchanged();
    // What the network needs.
    std::fs::write(&ini, &good).unwrap();
    set(&site, "[setting]\ntask_worker_num = 20\n[wechat]\nca_file = none.pem");
    assert!(refused(site.run(&["reload"])).contains("none.pem"));
    unchanged();
    std::fs::remove_file(&ini).unwrap();
    assert!(ask(&site, Question::Reload).1.contains("cannot read"));
    unchanged();
    assert!(site.log().contains("ERROR: not reloaded, nothing has changed: "));
    std::fs::write(&ini, &good).unwrap();
    reload(&site, "[setting]\ntask_worker_num = 20");
    assert_eq!((site.count("workers"), site.count("templates")), (20, 2));
    wait_for("all workers", || workers(&site) == 20);
}

#[test]
fn the_signal_does_the_same_and_the_log_says_so() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    set(&site, "[queue]\nretry_max = 3\n[log]\nlog_prefix = other");
    let pid = rustix::process::Pid::from_raw(site.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    wait_for("the log", || site.log().contains("reloaded: queue.retry_max: 8 -> 3"));
    wait_for("the log", || site.log().contains("log.log_prefix has changed and needs a restart"));
}

#[test]
fn reloads_at_once_and_reloads_of_one_that_stops_are_all_answered() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[wechat]\ntimeout = 60s\n[setting]\nstop_timeout = 2s");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| site.ok(&["reload"]));
        }
    });
    sandbox.faults(json!({"answer": {"hang": true}}));
    site.push_many(1);
    wait_for("the message to be on its way", || site.count("in_flight") == 1);
    let mut stop = site.command(&["stop"]).spawn().unwrap();
    wait_for("the stop", || site.log().contains("NOTICE: stopping"));
    let why = refused(site.run(&["reload"]));
    assert!(why.contains("stopping"), "{why}");
    assert!(stop.wait().unwrap().success());
}

#[test]
fn a_shorter_timeout_fewer_attempts_and_another_meaning_of_an_errcode_take_effect() {
    let sandbox = Sandbox::start();
    let more = "[wechat]\ntimeout = 60s\nsend_retry_for = 0\n[queue]\nretry_max = 100\nretry_base = 50ms\n\
                retry_cap = 50ms\n[setting]\ntask_worker_num = 4";
    let site = Site::started(&sandbox, more);
    reload(&site, "[wechat]\ntimeout = 300ms");
    sandbox.faults(json!({"answer": {"hang": true}}));
    let (mut client, began) = (site.client(), Instant::now());
    client.send(1, "o", "null");
    assert_eq!(client.read().code, 500);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    wait_for("the gate to stay open or to open", || {
        sandbox.faults(json!({"answer": {"errcode": 43101}}));
        site.status()["suspended"].is_null()
    });
    // Tried once more, and failed.
    site.push_many(1);
    wait_for("a failure", || site.status()["classes"]["once"] == 2);
    reload(&site, "[errcode]\n43101 = permanent");
    site.push_many(1);
    wait_for("a failure at once", || site.status()["classes"]["permanent"] == 1);
    assert_eq!(site.status()["classes"]["once"], 2);
    reload(&site, "[errcode]\n43101 = openid_rate\n[queue]\nretry_max = 3");
    site.push_many(1);
    wait_for("the third attempt to be the last", || site.count("queue_depth") == 0);
    assert_eq!(site.status()["classes"]["openid_rate"], 3);
}

#[test]
fn pace_and_the_days_limit_take_effect_and_end() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.push_many(2_000);
    wait_for("all to be delivered", || sandbox.delivered() == 2_000);
    // What went out without a limit is no debt.
    reload(&site, "[wechat]\nmax_per_second = 100");
    site.push_many(400);
    let began = Instant::now();
    wait_for("the slow ones", || sandbox.delivered() == 2_400);
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    reload(&site, "[wechat]\nmax_per_second = 0\ndaily_limit = 2500");
    site.push_many(200);
    wait_for("the limit", || {
        site.status()["suspended"].as_str().is_some_and(|why| why.contains("daily_limit = 2500"))
    });
    assert_eq!(sandbox.delivered(), 2_500);
    reload(&site, "[wechat]\ndaily_limit = 2550");
    wait_for("the next limit", || {
        site.status()["suspended"].as_str().is_some_and(|why| why.contains("daily_limit = 2550"))
    });
    assert_eq!(sandbox.delivered(), 2_550);
    reload(&site, "[wechat]\ndaily_limit = 0");
    wait_for("the rest", || sandbox.delivered() == 2_600);
    assert!(site.status()["suspended"].is_null());
}

#[test]
fn another_secret_fetches_another_token_once_and_opens_the_gate() {
    let sandbox = Sandbox::with(&["--app-secret", "the-secret-of-the-test"]);
    let mut site = Site::new(&sandbox, "");
    set(&site, "[wechat]\napp_secret = the-old-secret");
    site.start();
    site.push_many(5);
    wait_for("the gate to close", || site.status()["suspended"].is_string());
    assert!(site.status()["suspended"].as_str().unwrap().contains("40125"));
    let began = Instant::now();
    reload(&site, "[wechat]\napp_secret = the-secret-of-the-test");
    wait_for("all to be delivered", || sandbox.delivered() == 5);
    // Without the reload the next probe would be thirty seconds after the last.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let calls = || site.count("token_calls_today");
    assert_eq!(calls(), 2);
    // One that held is replaced.
    reload(&site, "[wechat]\napp_secret = the-third-secret");
    wait_for("the call with the new one", || calls() == 3);
    assert!(!site.log().contains("the-third-secret") && !site.log().contains("the-old-secret"));
}

#[test]
fn workers_come_and_go_under_load_and_no_message_is_lost_or_doubled() {
    const MESSAGES: u32 = 6_000;
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[setting]\ntask_worker_num = 4");
    set(&site, "[log]\nlog_level = warning");
    site.start();
    sandbox.faults(json!({"latency_ms": 5, "latency_jitter_ms": 40}));
    site.push_many(MESSAGES);
    let mut client = site.client();
    for round in 0..50_u32 {
        let count = [64, 1, 17, 3, 40][round as usize % 5];
        reload(&site, &format!("[setting]\ntask_worker_num = {count}"));
        client.send(round, &format!("s{round}"), "null");
        assert_eq!(client.read().code, 200);
    }
    reload(&site, "[setting]\ntask_worker_num = 48");
    wait_for("all to be delivered", || site.count("queue_depth") == 0);
    let ids = sandbox.ids();
    assert_eq!(ids.len(), MESSAGES as usize + 50);
    assert!(ids.iter().all(|(_, _, seen)| *seen == 1), "doubled");
    assert_eq!((site.count("failed"), site.count("retried")), (0, 0));
    wait_for("those who were let go to end", || workers(&site) == 48);
    // They are as many at once as there are now.
    let before = sandbox.stats()["requests"].as_u64().unwrap();
    sandbox.faults(json!({"answer": {"hang": true}}));
    site.push_many(200);
    let asked = || sandbox.stats()["requests"].as_u64().unwrap() - before;
    wait_for("forty-eight calls", || asked() == 48);
    reload(&site, "[setting]\ntask_worker_num = 60");
    wait_for("sixty calls", || asked() == 60);
}

#[test]
fn what_clients_meet_is_taken_over() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\nheartbeat_idle_time = 60s\nmax_conn = 5");
    let mut client = site.client();
    client.push(1, "o", "{}");
    assert_eq!(client.read().code, 200);
    reload(&site, "[wechat]\nmissing_variables = refuse\n[setting]\nunavailable_code = 503");
    client.push(2, "o", "{}");
    let answer = client.read();
    assert!(answer.code == 400 && answer.message.contains("first"), "{answer:?}");
    reload(&site, "[wechat]\nmissing_variables = keep\ntemplate_escape = raw");
    client.push(3, "raw", r#"{"first":"a\nb"}"#);
    assert_eq!(client.read().code, 200);
    wait_for("the message as it is", || sandbox.stats()["requests"].as_u64() >= Some(2));
    // Half a frame, for a second.
    client.write(&[0, 0, 0]);
    let text = reload(&site, "[setting]\nheartbeat_idle_time = 1s\nmax_conn = 1");
    assert!(text.contains("heartbeat_idle_time: 1m -> 1s"), "{text}");
    client.assert_closed();
    let mut first = site.client();
    first.push(1, "o", "null");
    assert_eq!(first.read().code, 200);
    site.client().assert_closed();
    // No setting takes a template away that is in use.
    set(&site, "[server]\ntemplate_size = 10\n[setting]\nmax_conn = 100");
    assert!(refused(site.run(&["reload"])).contains("template_size = 10"));
    assert_eq!((site.count("templates"), site.count("clients_limit")), (1, 1));
}

/// The database as one that is there and no database.
struct Away {
    path: std::path::PathBuf,
    whole: Vec<u8>,
}

impl Away {
    fn take(site: &Site) -> Away {
        let path = site.folder.path().join("run/test.db");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(
            &path,
            "this is no database, and long enough to be taken for one".repeat(99),
        )
        .unwrap();
        Away { path, whole }
    }

    fn give_back(self) {
        std::fs::write(self.path, self.whole).unwrap();
    }
}

#[test]
fn a_start_without_the_database_serves_the_backlog_and_finds_it_again_by_itself() {
    let sandbox = Sandbox::start();
    let mut site = Site::started(&sandbox, "");
    sandbox.faults(json!({"answer": {"hang": true}}));
    site.push_many(50);
    let kept = site.folder.path().join("run/test.templates");
    site.kill();
    let away = Away::take(&site);
    sandbox.faults(json!({}));
    site.start();
    wait_for("the backlog to be delivered", || site.count("queue_depth") == 0);
    let status = site.status();
    assert!(status["database"].as_str().is_some_and(|why| why.contains("database")), "{status}");
    for time in ["database_since", "templates_loaded"] {
        assert!(status[time].as_str().is_some_and(|t| t.len() >= 20), "{status}");
    }
    assert!(site.log().contains("those kept in"), "{}", site.log());
    let answer = site.run(&["tset", KEY]);
    assert!(String::from_utf8_lossy(&answer.stdout).starts_with("500 "), "{answer:?}");
    let why = refused(site.run(&["reload"]));
    assert!(why.contains("cannot load the templates"), "{why}");
    away.give_back();
    wait_for("the database", || site.status()["database"].is_null());
    assert!(site.log().contains("the templates' database answers again"));
    assert_eq!(site.ok(&["tset", KEY]), "200\n");
    site.ok(&["stop"]);
    // Without the file, or with one that is damaged, it is as if there was none.
    let away = Away::take(&site);
    let whole = std::fs::read_to_string(&kept).unwrap();
    std::fs::write(&kept, whole.replace("first", "fifth")).unwrap();
    let why = refused(site.run(&["start"]));
    assert!(why.contains("it is damaged, or no file of mega's"), "{why}");
    std::fs::remove_file(&kept).unwrap();
    let why = refused(site.run(&["start"]));
    assert!(why.contains("template database") && !why.contains("kept"), "{why}");
    away.give_back();
    site.start();
}

#[test]
fn a_misspelt_path_of_the_database_takes_no_template_away_and_creates_nothing() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pid = site.pid();
    let ini = site.folder.path().join("conf/test.ini");
    let good = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, format!("{good}\n[pdo]\ndsn = sqlite:rum/test.db\n")).unwrap();
    for words in ["check", "reload", "restart"] {
        let why = refused(site.run(&[words]));
        assert!(why.contains("rum/test.db") && why.contains("template put"), "{words}: {why}");
    }
    assert!(!site.folder.path().join("rum").exists());
    assert_eq!((site.pid(), site.count("templates")), (pid, 1));
    assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n");
    // Who stores a template there means it.
    let file = site.folder.path().join("template.json");
    let put = site.run(&["template", "put", "other", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&put.stdout).into_owned();
    assert!(told.contains("other stored"), "{told}");
    site.ok(&["restart"]);
    assert_eq!(site.count("templates"), 1);
    // The same where the file is there and has no table of templates.
    std::fs::write(&ini, &good).unwrap();
    site.ok(&["restart"]);
    std::fs::write(site.folder.path().join("rum/empty.db"), "").unwrap();
    std::fs::write(&ini, format!("{good}\n[pdo]\ndsn = sqlite:rum/empty.db\n")).unwrap();
    let why = refused(site.run(&["reload"]));
    assert!(why.contains("no template table"), "{why}");
    assert_eq!(std::fs::read(site.folder.path().join("rum/empty.db")).unwrap(), b"");
}

#[test]
fn a_template_in_use_stays_unless_it_is_gone_and_that_is_told() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[server]\ntable_size = 3\ntemplate_size = 4096");
    let database = rusqlite::Connection::open(site.folder.path().join("run/test.db")).unwrap();
    let table = "mega_wechat_template";
    let set = |text: &str| {
        let sql = format!("UPDATE {table} SET template = ?1 WHERE tmpl_key = ?2");
        database.execute(&sql, (text, KEY)).unwrap();
    };
    set(&format!("{TEMPLATE}{}", " ".repeat(4_096)));
    let why = refused(site.run(&["reload"]));
    assert!(why.contains(KEY) && why.contains("template_size"), "{why}");
    let checked = site.run(&["template", "check"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && told.contains(KEY), "{told}");
    set(TEMPLATE);
    // Keys that come before the one in use do not take its place.
    for key in ["0", "1", "2", "3", "4"] {
        site.put_template_in_database_only(key);
    }
    site.ok(&["reload"]);
    assert_eq!(site.count("templates"), 3);
    assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n");
    database.execute(&format!("DELETE FROM {table} WHERE tmpl_key = ?1"), [KEY]).unwrap();
    let output = site.run(&["reload"]);
    let told = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && told.contains("changed: 2"), "{told}");
    assert!(
        told.contains(&format!("template removed: {KEY}")) && told.contains("warning"),
        "{told}"
    );
    assert_eq!(site.run(&["push", "o", KEY, "first=1"]).status.code(), Some(1));
}

#[test]
fn a_start_without_the_database_says_so_to_whoever_starts_it() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    for words in ["restart", "start"] {
        let away = Away::take(&site);
        if words == "start" {
            site.ok(&["stop"]);
        }
        let output = site.run(&[words]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("warning: pdo.dsn") && told.contains("are used meanwhile"), "{told}");
        away.give_back();
    }
}

#[test]
fn a_kill_while_templates_are_kept_leaves_a_whole_file() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[server]\ntable_size = 3000");
    let database = rusqlite::Connection::open(site.folder.path().join("run/test.db")).unwrap();
    let text = format!("{}{}", TEMPLATE, " ".repeat(3_000));
    for n in 0..2_000 {
        let sql = "INSERT INTO mega_wechat_template (tmpl_key, template) VALUES (?1, ?2)";
        database.execute(sql, (format!("k{n}"), &text)).unwrap();
    }
    drop(database);
    site.start();
    for round in 0..8 {
        let pid = site.pid();
        let mut asking = site.command(&["reload"]);
        let asking = asking.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut asking = asking.spawn().unwrap();
        // From before the load to after the write.
        std::thread::sleep(Duration::from_millis(7 * round));
        site.kill_process(pid);
        let _ = asking.wait();
        wait_for("the killed daemon to be gone", || {
            String::from_utf8_lossy(&site.run(&["status"]).stdout).contains("is dead")
        });
        let away = Away::take(&site);
        site.start();
        let status: Value = site.status();
        assert_eq!(status["templates"], 2_001, "round {round}: {status}");
        away.give_back();
    }
}
