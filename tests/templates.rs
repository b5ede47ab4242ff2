//! Templates as an operator lives with them: variables that are missing, texts that are doubtful, what a message will
//! be, and what a text was before.

use crate::support::{KEY, Sandbox, Site, TEMPLATE, wait_for};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

const REFUSE: &str = "[wechat]\nmissing_variables = refuse";

/// A text without fault.
fn text(value: &str) -> String {
    json!({"touser": "${OPENID}", "template_id": "t", "data": {"thing1": {"value": value}}})
        .to_string()
}

fn put(site: &Site, key: &str, text: &str) -> Output {
    let file = site.folder.path().join("put.json");
    std::fs::write(&file, text).unwrap();
    site.run(&["template", "put", key, file.to_str().unwrap()])
}

fn put_ok(site: &Site, key: &str, text: &str) {
    let output = put(site, key, text);
    assert!(output.status.success(), "{output:?}");
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// As another program would: nobody is told.
fn in_database(site: &Site, sql: &str, values: impl rusqlite::Params) {
    let path = site.folder.path().join("run/test.db");
    rusqlite::Connection::open(path).unwrap().execute(sql, values).unwrap();
}

fn change_ini(site: &Site, more: &str) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, format!("{text}{more}\n")).unwrap();
}

/// The lines of a history without its times.
fn history(site: &Site, key: &str) -> Vec<String> {
    let all = site.ok(&["template", "history", key]);
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mark = if line.starts_with('*') { "*" } else { "" };
        // Where it was removed, there is a dash instead.
        let size = words.iter().rposition(|word| ["bytes", "-"].contains(word)).unwrap();
        format!("{mark}{}", words[size + 1..].join(" "))
    };
    all.lines().map(line).collect()
}

#[test]
fn a_variable_that_is_missing_is_refused_at_the_door_by_its_name() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, REFUSE);
    put_ok(&site, "two", &text("${name} ${数量} ${name}"));
    for request in ["push", "send"] {
        let ask = |data: &str| printed(&site.run(&[request, "o", "two", data]));
        assert_eq!(ask(r#"{"nmae":"x"}"#), "400 missing variables: ${name}, ${数量}\n");
        assert_eq!(ask(r#"{"name":"x"}"#), "400 missing variables: ${数量}\n");
        assert_eq!(ask("[]"), "400 missing variables: ${name}, ${数量}\n");
        assert_eq!(ask(r#"{"name":null,"数量":""}"#), "200\n");
    }
    let mut client = site.client();
    client.push(7, "o", "null");
    let answer = client.read();
    assert_eq!((answer.code, &*answer.message), (400, "missing variables: ${first}"));
    client.push(8, "o", r#"{"first":0}"#);
    assert_eq!(client.read().code, 200, "the connection stays");
    wait_for("what was whole", || sandbox.delivered() == 3);
    assert!(!sandbox.get("/sandbox/delivered").contains("${"));
}

#[test]
fn what_was_queued_before_is_not_delivered_with_a_hole() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    for (mode, delivered, failed) in [("keep", 1, 0), ("empty", 2, 0), ("refuse", 2, 1)] {
        change_ini(&site, "[wechat]\nmissing_variables = keep");
        site.start();
        sandbox.faults(json!({"answer": {"errcode": 40164}}));
        let mut client = site.client();
        client.push(1, mode, r#"{"frist":"x"}"#);
        assert_eq!(client.read().code, 200);
        site.ok(&["stop"]);
        sandbox.faults(json!({}));
        change_ini(&site, &format!("[wechat]\nmissing_variables = {mode}"));
        site.start();
        wait_for("the queue to be empty", || site.count("queue_depth") == 0);
        assert_eq!(sandbox.delivered(), delivered, "{mode}");
        let rows = site.ok(&["failed"]);
        assert_eq!(rows.lines().count(), failed, "{mode}: {rows}");
        site.ok(&["stop"]);
    }
    let row: Value = serde_json::from_str(&site.ok(&["failed"])).unwrap();
    assert_eq!((&row["class"], &row["openid"]), (&json!("data"), &json!("refuse")));
    assert_eq!(row["errmsg"], "missing variables: ${first}");
    let messages = sandbox.get("/sandbox/delivered");
    assert_eq!(messages.matches("${first}").count(), 1, "{messages}");
    assert_eq!(messages.matches(r#"{"value":""}"#).count(), 1, "{messages}");
}

#[test]
fn put_says_what_is_doubtful_and_refuses_what_is_no_json() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "");
    let sound = put(&site, "k", &text("${a}"));
    assert!(said(&sound).is_empty(), "{sound:?}");
    let doubtful = r#"{"touser":"o1","client_msg_id":"1","n":${n},"data":{"first":{}}}"#;
    let output = put(&site, "k", doubtful);
    assert!(output.status.success(), "{output:?}");
    let warnings = said(&output);
    for warning in [
        "placeholders outside JSON strings: a value can add members to the message (${n})",
        "a fixed touser: everybody's message goes to one user (\"o1\")",
        "no template_id",
        "a client_msg_id without a variable",
        "first or remark in data: WeChat shows them no more since 2023 (first)",
    ] {
        assert!(warnings.contains(&format!("mega: warning: {warning}")), "{warnings}");
    }
    assert_eq!(warnings.lines().count(), 5, "{warnings}");

    let whole_object = r#"{"touser":"${OPENID}","template_id":"t","data":{${fields}}}"#;
    let refused = put(&site, "k", whole_object);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("not JSON once its variables are filled: "), "{refused:?}");
    assert!(said(&refused).contains("--force"), "{refused:?}");
    assert!(site.ok(&["template", "show", "k"]).contains("o1"), "the old text stays");
    let file = site.folder.path().join("put.json");
    let file = file.to_str().unwrap();
    site.ok(&["template", "put", "k", file, "--force"]);
    let rendered = site.ok(&["template", "render", "k", "o", r#"fields="thing1":{"value":"1"}"#]);
    assert!(rendered.contains(r#""data":{"thing1":{"value":"1"}}"#), "{rendered}");
    let fits = text(&"x".repeat(4_048 - text("").len()));
    std::fs::write(file, &fits).unwrap();
    site.ok(&["template", "put", "fits", file]);
    std::fs::write(file, fits.replace("xx", "xxx")).unwrap();
    let long = site.run(&["template", "put", "k", file, "--force"]);
    assert!(said(&long).contains("server.template_size allows 4048"), "{long:?}");

    let chinese = site.command(&["template", "check"]).env("LC_ALL", "zh_CN.UTF-8").output();
    let chinese = printed(&chinese.unwrap());
    assert!(chinese.contains("k: 占位符不在 JSON 字符串内"), "{chinese}");
    assert!(chinese.contains(&format!("{KEY}: data 中有 first 或 remark")), "{chinese}");
    let english = site.run(&["template", "check", "k"]);
    assert_eq!(english.status.code(), Some(1));
    assert!(!printed(&english).contains(KEY), "{english:?}");
    put_ok(&site, "k", &text("${a}"));
    assert_eq!(site.ok(&["template", "check", "k"]), "1 templates, nothing doubtful\n");
}

#[test]
fn a_load_of_many_doubtful_templates_writes_few_lines() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[server]\ntable_size = 1000");
    let insert = "INSERT INTO mega_wechat_template (tmpl_key, template) VALUES (?1, ?2)";
    for n in 0..300 {
        in_database(&site, insert, (format!("fixed{n:03}"), r#"{"touser":"o1"}"#));
        in_database(&site, insert, (format!("broken{n:03}"), "{"));
        in_database(&site, insert, (format!("long{n:03}"), "x".repeat(5_000)));
    }
    let unreadable = "INSERT INTO mega_wechat_template (tmpl_key, template) VALUES (?1, x'ff')";
    for n in 0..30 {
        in_database(&site, unreadable, [format!("bytes{n:02}")]);
    }
    in_database(&site, insert, ("\u{1b}[31mred\n\"'", r#"{"touser":"o1"}"#));
    let lines = |log: &str| log.lines().filter(|line| line.contains("WARNING")).count();
    site.start();
    let log = site.log();
    assert_eq!(site.count("templates"), 602);
    assert!(lines(&log) <= 28, "{log}");
    assert!(log.contains("20 rows more of mega_wechat_template left out"), "{log}");
    assert!(
        log.contains("and 298 more (see template check): a fixed touser: everybody's message"),
        "{log}"
    );
    assert!(log.contains("290 templates more left out"), "{log}");
    site.ok(&["reload"]);
    wait_for("the reload", || site.log().matches("templates loaded").count() == 2);
    assert!(lines(&site.log()) <= 2 * 28, "{}", site.log());
    assert!(!site.log().contains('\u{1b}'));
    // A client that asks for the same template time after time fills no log.
    let before = lines(&site.log());
    for _ in 0..20 {
        assert_eq!(site.ok(&["tset", "fixed000"]), "200\n");
    }
    assert_eq!(lines(&site.log()), before);
    for words in [&["list"][..], &["check"], &["render", "\u{1b}[31mred\n\"'", "o"]] {
        let output = site.run(&[&["template"], words].concat());
        let all = printed(&output) + &said(&output);
        assert!(!all.contains('\u{1b}'), "{all}");
    }
    assert!(site.ok(&["template", "list"]).contains("\\u001b[31mred\\n\"'"));
}

#[test]
fn a_message_is_shown_as_it_would_be_posted_without_a_daemon() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    put_ok(&site, "k", &text("${OPENID}: ${a} ${b}"));
    let render = |data: &[&str]| site.run(&[&["template", "render", "k", "o\"1"], data].concat());
    let whole = render(&["a=\"引\"", r"b=\n"]);
    assert!(whole.status.success());
    let expected =
        r#"{"touser":"o\"1","template_id":"t","data":{"thing1":{"value":"o\"1: \"引\" \\n"}}}"#;
    assert_eq!(printed(&whole), format!("{expected}\n"));
    assert!(said(&whole).starts_with("mega: when it is posted, a client_msg_id"), "{whole:?}");

    let holes = render(&["a=1", "B=2"]);
    assert!(holes.status.success());
    assert!(printed(&holes).contains(r#"o\"1: 1 ${b}""#), "{holes:?}");
    let warnings = said(&holes);
    assert!(warnings.contains("warning: missing variables: ${b}"), "{warnings}");
    assert!(warnings.contains("warning: the template has no variables: B"), "{warnings}");
    change_ini(&site, "[wechat]\nmissing_variables = empty");
    let empty = site.run(&["template", "render", "k", "o", "a=1"]);
    assert!(printed(&empty).contains(r#""o: 1 ""#) && said(&empty).contains("${b}"), "{empty:?}");
    change_ini(&site, REFUSE);
    let refused = site.run(&["template", "render", "k", "o", "a=1"]);
    assert_eq!((refused.status.code(), printed(&refused)), (Some(1), String::new()));
    assert!(said(&refused).contains("missing variables: ${b}"), "{refused:?}");
    let invalid = site.run(&["template", "render", "k", "o", r#"{"a":[]}"#]);
    assert!(said(&invalid).contains("invalid data: the value of \"a\" is an array"), "{invalid:?}");
    let unknown = site.run(&["template", "render", "l", "o"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("there is no template l"), "{unknown:?}");

    // What a value makes of a text outside of strings.
    put_ok(&site, "n", r#"{"touser":"${OPENID}","template_id":"t","n":${n}}"#);
    let broken = site.run(&["template", "render", "n", "o", "n=x"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(said(&broken).contains("the message is not JSON"), "{broken:?}");

    // And it is what is posted.
    site.start();
    assert_eq!(site.ok(&["send", "o\"1", "k", "a=\"引\"", r"b=\n"]), "200\n");
    let delivered = sandbox.get("/sandbox/delivered");
    let body = expected.strip_prefix('{').unwrap();
    let inside = json!(body).to_string();
    assert!(
        delivered.contains(inside.trim_matches('"')) || delivered.contains(body),
        "{delivered}"
    );
}

#[test]
fn every_change_of_a_text_is_in_its_history_and_can_be_undone() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    put_ok(&site, "k", &text("one"));
    site.start();
    let posted = |site: &Site| {
        assert_eq!(site.ok(&["send", "o", "k"]), "200\n");
        let all = sandbox.get("/sandbox/delivered");
        ["one", "two", "three", "four", "five"]
            .into_iter()
            .max_by_key(|word| all.rfind(&format!("\"{word}\"")))
            .unwrap()
    };
    put_ok(&site, "k", &text("two"));
    assert_eq!(posted(&site), "two");
    assert!(site.ok(&["template", "undo", "k"]).contains("from now on"));
    assert_eq!(posted(&site), "one");
    site.ok(&["template", "undo", "k"]);
    assert_eq!(posted(&site), "two", "an undo is undone");
    let who = history(&site, "k");
    assert_eq!(who, ["*undone", "undone", "put", "put"]);
    assert_eq!(site.ok(&["template", "history", "k", "2"]), text("one") + "\n");

    // Another program's change is met by tset, by a reload, and at the start.
    let update = "UPDATE mega_wechat_template SET template = ?1 WHERE tmpl_key = 'k'";
    in_database(&site, update, [text("three")]);
    assert_eq!(site.ok(&["tset", "k"]), "200\n");
    wait_for("the tset's change", || history(&site, "k").len() == 5);
    in_database(&site, update, [text("four")]);
    site.ok(&["reload"]);
    wait_for("the reload's change", || history(&site, "k").len() == 6);
    site.ok(&["stop"]);
    in_database(&site, update, [text("five")]);
    site.start();
    let told = history(&site, "k");
    let by_others = "changed in the database";
    assert_eq!(told[..4], ["*changed in the database", by_others, by_others, "undone"]);
    let all = site.ok(&["template", "history", "k"]);
    assert!(all.lines().take(3).all(|line| line.contains("  database  ")), "{all}");
    // A key that was never put: what it was before its first change is there.
    site.put_template_in_database_only("found");
    site.ok(&["reload"]);
    wait_for("the reload", || site.count("templates") == 3);
    assert!(site.ok(&["template", "history", "found"]).contains("  database  "));
    put_ok(&site, "found", &text("x"));
    site.ok(&["template", "undo", "found"]);
    assert_eq!(site.ok(&["template", "show", "found"]), format!("{TEMPLATE}\n"));

    in_database(&site, "UPDATE mega_wechat_template SET title = '标题' WHERE tmpl_key = ?1", ["k"]);
    site.ok(&["template", "rm", "k"]);
    assert_eq!(history(&site, "k")[0], "*removed 标题");
    site.ok(&["reload"]);
    wait_for("the daemon to drop it", || site.count("templates") == 2);
    assert_eq!(history(&site, "k").iter().filter(|line| line.contains("removed")).count(), 1);
    site.ok(&["template", "undo", "k"]);
    assert_eq!(posted(&site), "five");
    assert!(site.ok(&["template", "list"]).contains("标题"));
    let refused = site.run(&["template", "undo", "k", "99"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("the history of k has no number 99"), "{refused:?}");
    site.ok(&["template", "undo", "k", "6"]);
    assert_eq!(posted(&site), "two");
    for n in 0..12 {
        put_ok(&site, "k", &text(&format!("{n}")));
    }
    assert_eq!(history(&site, "k").len(), 10);
    let never = site.run(&["template", "history", "never"]);
    assert!(said(&never).contains("there is no template never"), "{never:?}");
}

#[test]
fn a_difference_is_shown_member_by_member() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    put_ok(&site, "k", &text("one"));
    put_ok(&site, "k", &text("two\u{1b}[31m"));
    let members = "-      \"value\": \"one\"\n+      \"value\": \"two\\u001b[31m\"\n";
    let diff = site.ok(&["template", "diff", "k"]);
    assert!(diff.starts_with("--- number 2, ") && diff.contains("\n+++ the database\n"), "{diff}");
    assert!(diff.contains(members), "{diff}");
    assert_eq!(diff, site.ok(&["template", "diff", "k", "2"]));
    assert!(site.ok(&["template", "diff", "k", "1"]).contains("have the same text"));
    site.start();
    let same = "the running daemon and the database have the same text\n";
    assert_eq!(site.ok(&["template", "diff", "k"]), same);
    let update = "UPDATE mega_wechat_template SET template = ?1 WHERE tmpl_key = 'k'";
    in_database(&site, update, [text("three\u{1b}[2J").replace("\\u001b", "\u{1b}")]);
    let diff = site.ok(&["template", "diff", "k"]);
    assert!(diff.starts_with("--- the running daemon\n+++ the database\n"), "{diff}");
    assert!(diff.contains("+      \"value\": \"three\\u001b[2J\"\n"), "{diff}");
    in_database(&site, update, [text("two\u{1b}[31m").replace(":", " : ")]);
    assert!(site.ok(&["template", "diff", "k"]).contains("differ in white space only"));
    site.ok(&["template", "rm", "k"]);
    assert!(site.ok(&["template", "diff", "k"]).contains("\n-{\n"));
    // One that the daemon has not read yet.
    site.put_template_in_database_only("new");
    assert!(site.ok(&["template", "diff", "new"]).contains("\n+{\n"));
    let mut chinese = site.command(&["template", "diff", KEY]);
    chinese.env("LC_ALL", "").env("LC_MESSAGES", "").env("LANG", "zh_CN.UTF-8");
    let chinese = chinese.output().unwrap();
    assert_eq!(printed(&chinese), "运行中的守护进程与数据库的文本相同\n");
}

#[test]
fn commands_and_the_daemon_write_the_history_at_the_same_time() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"answer": {"errcode": 43004}}));
    let site = Site::started(&sandbox, "");
    let file = |n: usize| {
        let file = site.folder.path().join(format!("{n}.json"));
        std::fs::write(&file, text(&format!("text {n}"))).unwrap();
        file
    };
    let put = |n: usize| {
        let mut command: Command = site.command(&["template", "put", &format!("k{n}")]);
        command.arg(file(n)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let puts: Vec<_> = (0..6).map(put).collect();
    // Meanwhile the daemon records failures, and what it finds changed.
    site.ok(&["reload"]);
    site.push_many(500);
    site.ok(&["reload"]);
    for put in puts {
        let output = put.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    for n in 0..6 {
        assert_eq!(history(&site, &format!("k{n}")), ["*put"], "whoever came first");
    }
    wait_for("the failures", || site.ok(&["failed"]).lines().count() == 500);
}

#[test]
fn a_ledger_that_cannot_be_written_keeps_no_template_from_being_put() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "[server]\nledger_file = /proc/nowhere/ledger.db");
    let output = put(&site, "k", &text("one"));
    assert!(output.status.success(), "{output:?}");
    assert!(said(&output).contains("warning: this change is not kept in the history: "));
    assert_eq!(site.ok(&["template", "show", "k"]), text("one") + "\n");
}
