//! `mega-task legacy` on a real MariaDB: the row as an installation's pages read it.

use crate::support::{DEADLINE, KEY, Sandbox, Site, wait_for};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

fn variable(name: &str) -> String {
    let name = format!("MEGA_TEST_MYSQL{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// A table of tasks of its own, beside a daemon.
struct Pages<'a> {
    site: &'a Site,
    prefix: &'static str,
}

impl Pages<'_> {
    fn new<'a>(site: &'a Site, prefix: &'static str) -> Pages<'a> {
        let pages = Pages { site, prefix };
        let schema = include_str!("data/mega_task.sql");
        let schema = schema.replace("mega_task", &format!("{prefix}mega_task"));
        pages.sql(&schema.replace("mega_user", &format!("{prefix}mega_user")));
        pages
    }

    fn sql(&self, sql: &str) {
        let dsn = variable("");
        let part = |name: &str| dsn.split([':', ';']).find_map(|part| part.strip_prefix(name));
        let made = Command::new("mariadb")
            .args(["--no-defaults", "--protocol=tcp", "--skip-ssl"])
            .args(["--host", part("host=").unwrap(), "--port", part("port=").unwrap()])
            .args(["--user", &variable("_USER"), &format!("--password={}", variable("_PASSWORD"))])
            .args(["--execute", sql, part("dbname=").unwrap()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{sql}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// A task whose people are `PREFIX1` to `PREFIXn`.
    fn task(&self, id: u32, people: u32, more: &str) {
        let list: String = (1..=people).map(|n| format!("{}{n}\n", self.prefix)).collect();
        std::fs::write(self.site.folder.path().join(format!("people-{id}.txt")), list).unwrap();
        self.sql(&format!(
            "INSERT INTO {}mega_task SET task_id = {id}, tmpl_key = '{KEY}', total = {people}, \
             file = 'people-{id}.txt' {more}",
            self.prefix
        ));
    }

    fn command(&self, word: &str, id: u32, more: &[&str]) -> Command {
        let root = self.site.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mega-task"));
        command
            .args(["legacy", word, &id.to_string(), "--mysql", &variable("")])
            .args(["--user", &variable("_USER"), "--table-prefix", self.prefix])
            .env("MEGA_TASK_MYSQL_PASSWORD", variable("_PASSWORD"))
            .env("MEGA_TASK_HOME", root.join("tasks"))
            .stdin(Stdio::null());
        if word == "start" {
            let to = self.site.address.unwrap().to_string();
            command.args(["--to", &to, "--root", root.to_str().unwrap()]);
        }
        command.args(more);
        command
    }

    /// `mega-task pause` and its like, of the task of row 5.
    fn steer(&self, word: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mega-task"))
            .args([word, &format!("legacy-{}5", self.prefix)])
            .env("LC_ALL", "C")
            .env("MEGA_TASK_HOME", self.site.folder.path().join("tasks"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn run(&self, word: &str, id: u32, more: &[&str]) -> Output {
        self.command(word, id, more).output().unwrap()
    }

    fn ok(&self, word: &str, id: u32, more: &[&str]) {
        let output = self.run(word, id, more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}\n{}", self.shown(id));
    }

    fn refused(&self, code: i32, word: &str, id: u32, why: &str) {
        self.refused_with(code, (word, id, &[]), why);
    }

    fn refused_with(&self, code: i32, (word, id, more): (&str, u32, &[&str]), why: &str) {
        let output = self.command(word, id, more).env("LC_ALL", "C").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(why), "{said}");
    }

    fn begin(&self, id: u32, more: &[&str]) -> Running {
        Running(self.command("start", id, more).spawn().unwrap())
    }

    /// It runs, and its row shows progress.
    fn begun(&self, id: u32) -> Running {
        let running = self.begin(id, &[]);
        wait_for("the row to show progress", || {
            let shown = self.shown(id);
            shown.starts_with("运行中") && !shown.contains(" 0+0/")
        });
        running
    }

    /// As a page shows it.
    fn shown(&self, id: u32) -> String {
        let output = Command::new("php")
            .arg(format!("{}/tests/php/task_page.php", env!("CARGO_MANIFEST_DIR")))
            .args([variable(""), variable("_USER"), variable("_PASSWORD")])
            .args([format!("{}mega_task", self.prefix), id.to_string()])
            .output()
            .expect("php is installed (scripts/test installs it)");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// How often each of the task's people got it.
    fn got(&self, sandbox: &Sandbox) -> BTreeMap<u32, usize> {
        let mut got = BTreeMap::new();
        for (openid, _, _) in sandbox.ids() {
            if let Some(number) = openid.strip_prefix(self.prefix) {
                *got.entry(number.parse().unwrap()).or_default() += 1;
            }
        }
        got
    }
}

/// A started task.
struct Running(Child);

impl Running {
    fn ends(mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "mega-task does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn once(people: std::ops::RangeInclusive<u32>) -> BTreeMap<u32, usize> {
    people.map(|person| (person, 1)).collect()
}

#[test]
fn a_page_sees_a_task_from_its_beginning_to_its_end() {
    let sandbox = Sandbox::start();
    sandbox
        .faults(json!({"openids": {"seen_3": {"errcode": 43004, "errmsg": "require subscribe"}}}));
    let site = Site::started(&sandbox, "");
    let pages = Pages::new(&site, "seen_");
    pages.task(5, 10, "");
    assert_eq!(pages.shown(5), "等待 0+0/10 0% 剩余10 行0");
    let ended = pages.run("start", 5, &[]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert_eq!(pages.shown(5), "完成 9+1/10 100% 剩余0 行10");
    let log = site.folder.path().join("runtime/logs/task-5.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("line 3: failed seen_3: 43004 require subscribe"), "{log}");
    pages.refused(7, "start", 5, "is finished");
    pages.refused(7, "stop", 5, "does not run: its status is 2");
    pages.task(6, 4, ", send_to_type = 0");
    pages.sql("INSERT INTO seen_mega_user VALUES (1, 'seen_101'), (2, 'seen_102')");
    pages.ok("start", 6, &[]);
    assert_eq!(pages.shown(6), "完成 2+0/2 100% 剩余0 行2");
}

#[test]
fn a_task_is_paused_taken_up_and_ended_and_nobody_gets_it_twice() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 50}));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    let pages = Pages::new(&site, "pause_");
    pages.task(5, 300, "");
    let running = pages.begun(5);
    pages.refused(1, "start", 5, "runs already");
    pages.ok("stop", 5, &[]);
    assert_eq!(running.ends(), Some(4));
    let shown = pages.shown(5);
    let done = pages.got(&sandbox);
    assert!(done.len() < 300, "{shown}");
    assert!(shown.starts_with(&format!("暂停 {}+0/300", done.len())), "{shown}");
    let running = pages.begin(5, &[]);
    wait_for("it to go on", || pages.got(&sandbox).len() > done.len());
    pages.ok("end", 5, &[]);
    assert_eq!(running.ends(), Some(5));
    assert!(pages.shown(5).starts_with("结束"), "{}", pages.shown(5));
    sandbox.faults(json!({}));
    pages.ok("start", 5, &[]);
    assert_eq!(pages.shown(5), "完成 300+0/300 100% 剩余0 行300");
    assert_eq!(pages.got(&sandbox), once(1..=300));
}

#[test]
fn a_row_whose_process_was_killed_is_taken_up_by_the_next_start() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 50}));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    let pages = Pages::new(&site, "killed_");
    pages.task(5, 300, "");
    let running = pages.begun(5);
    // As with kill -9.
    drop(running);
    assert!(pages.shown(5).starts_with("运行中"), "{}", pages.shown(5));
    sandbox.faults(json!({}));
    pages.ok("start", 5, &[]);
    assert_eq!(pages.shown(5), "完成 300+0/300 100% 剩余0 行300");
    assert_eq!(pages.got(&sandbox), once(1..=300));
}

#[test]
fn two_rows_never_share_a_folder() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let (first, second) = (Pages::new(&site, "same_"), Pages::new(&site, "same_1"));
    first.task(15, 3, "");
    first.ok("start", 15, &[]);
    second.task(5, 4, "");
    second.refused(
        6,
        "start",
        5,
        "has the task of row 15 of same_mega_task in MySQL database mega",
    );
    assert!(second.shown(5).starts_with("等待 0+0/4"), "{}", second.shown(5));
    let home = site.folder.path().join("other");
    second.ok("start", 5, &["--home", home.to_str().unwrap()]);
    assert_eq!(second.shown(5), "完成 4+0/4 100% 剩余0 行4");
    assert_eq!(first.shown(15), "完成 3+0/3 100% 剩余0 行3");
}

#[test]
fn a_rows_task_is_steered_by_its_name_too_but_begun_by_its_row_alone() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 50}));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    let pages = Pages::new(&site, "name_");
    pages.task(5, 300, "");
    for (word, code, shown) in [("pause", 4, "暂停"), ("end", 5, "结束")] {
        let running = pages.begin(5, &[]);
        wait_for("the task to run", || pages.shown(5).starts_with("运行中"));
        let output = pages.steer(word);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{word}: {said}");
        assert_eq!(running.ends(), Some(code), "{word}");
        assert!(pages.shown(5).starts_with(shown), "{word}: {}", pages.shown(5));
        // The pages would not see it.
        for word in ["resume", "end"] {
            let output = pages.steer(word);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(6) && said.contains("legacy start"), "{said}");
        }
    }
    sandbox.faults(json!({}));
    pages.ok("start", 5, &[]);
    assert_eq!(pages.shown(5), "完成 300+0/300 100% 剩余0 行300");
    assert_eq!(pages.got(&sandbox), once(1..=300));
}

#[test]
fn a_mega_that_is_away_is_ridden_out_or_interrupts_the_task() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 50}));
    let mut site = Site::started(&sandbox, "");
    let address = site.address.unwrap();
    Pages::new(&site, "away2_").task(5, 2_000, "");
    let running = Pages { site: &site, prefix: "away2_" }.begin(5, &["--patience", "1"]);
    wait_for("some to be sent", || sandbox.delivered() > 20);
    site.ok(&["stop"]);
    assert_eq!(running.ends(), Some(4));
    let pages = Pages { site: &site, prefix: "away2_" };
    let shown = pages.shown(5);
    assert!(shown.starts_with("中断") && shown.ends_with("连接服务器失败"), "{shown}");
    pages.refused(1, "start", 5, &format!("cannot reach mega at {address}"));
    let shown = pages.shown(5);
    assert!(shown.starts_with("失败") && shown.ends_with("连接服务器失败"), "{shown}");
    sandbox.faults(json!({}));
    site.start();
    let pages = Pages { site: &site, prefix: "away2_" };
    pages.ok("start", 5, &[]);
    assert_eq!(pages.shown(5), "完成 2000+0/2000 100% 剩余0 行2000");
    assert_eq!(pages.got(&sandbox), once(1..=2_000));
}

#[test]
fn where_the_demo_stopped_the_rest_is_sent_once() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pages = Pages::new(&site, "demo_");
    pages.task(5, 10, ", status = 5, file_index = 4, success = 3, fail = 1");
    let said = "--resume-demo takes the last 4 lines as done";
    pages.refused(6, "start", 5, said);
    pages.refused(6, "start", 5, "--resume-forward takes the first 4");
    pages.ok("start", 5, &["--resume-demo"]);
    assert_eq!(pages.shown(5), "完成 9+1/10 100% 剩余0 行6");
    assert_eq!(pages.got(&sandbox), once(1..=6));
}

#[test]
fn a_row_that_mega_task_left_elsewhere_goes_on_forward_and_never_as_the_demos() {
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 50}));
    let site = Site::started(&sandbox, "[setting]\ntask_worker_num = 4");
    let pages = Pages::new(&site, "ours_");
    pages.task(5, 300, "");
    // Somebody who comes again behind those that are done has it already.
    let path = site.folder.path().join("people-5.txt");
    let list = std::fs::read_to_string(&path).unwrap() + "ours_1\n";
    std::fs::write(&path, list).unwrap();
    let running = pages.begun(5);
    pages.ok("stop", 5, &[]);
    assert_eq!(running.ends(), Some(4));
    sandbox.faults(json!({}));
    let home = site.folder.path().join("other");
    let elsewhere = ["--home", home.to_str().unwrap()];
    pages.refused_with(6, ("start", 5, &elsewhere), "mega-task left it so, with another --home");
    let demo = [&elsewhere[..], &["--resume-demo"]].concat();
    pages.refused_with(6, ("start", 5, &demo), "would send to them again");
    pages.ok("start", 5, &[&elsewhere[..], &["--resume-forward"]].concat());
    assert_eq!(pages.shown(5), "完成 300+0/300 100% 剩余0 行300");
    assert_eq!(pages.got(&sandbox), once(1..=300));
    assert_eq!(sandbox.delivered(), 300);
}

#[test]
fn only_files_of_the_installation_are_read() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pages = Pages::new(&site, "outside_");
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("people.txt");
    std::fs::write(&secret, "outside_1\n").unwrap();
    pages.task(5, 1, "");
    pages.sql(&format!("UPDATE outside_mega_task SET file = '{}'", secret.display()));
    pages.refused(6, "start", 5, "outside the installation's folder");
    let link = site.folder.path().join("link.txt");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    pages.sql("UPDATE outside_mega_task SET file = 'link.txt'");
    pages.refused(6, "start", 5, "outside the installation's folder");
    assert_eq!(sandbox.delivered(), 0);
    pages.ok("start", 5, &["--any-file"]);
    assert_eq!(sandbox.delivered(), 1);
}

#[test]
fn a_total_is_never_zero_also_while_mega_is_away() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    site.ok(&["stop"]);
    let pages = Pages::new(&site, "zero_");
    pages.task(5, 7, ", created_at = 0");
    pages.sql("UPDATE zero_mega_task SET total = 0");
    pages.refused(1, "start", 5, "cannot reach mega");
    assert!(pages.shown(5).starts_with("失败 0+0/7"), "{}", pages.shown(5));
}

#[test]
fn rows_that_cannot_be_started_are_left_as_they_are() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let pages = Pages::new(&site, "left_");
    pages.task(5, 1, ", is_delete = 1");
    pages.refused(6, "start", 5, "is deleted");
    pages.task(6, 1, "");
    std::fs::remove_file(site.folder.path().join("people-6.txt")).unwrap();
    pages.refused(6, "start", 6, "is missing");
    assert!(pages.shown(6).starts_with("等待"));
    pages.refused(1, "start", 7, "has no task 7");
    pages.task(8, 1, ", status = 1, pid = 999999999");
    pages.refused(1, "start", 8, "runs already");
    pages.ok("stop", 8, &[]);
    assert!(pages.shown(8).starts_with("中断 0+0/1"), "{}", pages.shown(8));
    pages.ok("start", 8, &[]);
    pages.task(9, 3, "");
    std::fs::write(site.folder.path().join("people-9.txt"), "\n").unwrap();
    pages.refused(6, "start", 9, "there is nobody to send to");
    assert!(pages.shown(9).starts_with("失败 0+0/3"), "{}", pages.shown(9));
}
