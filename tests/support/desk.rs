//! Tasks beside an installation: `mega-task` as people and scripts run it.

use super::{KEY, Sandbox, Site, wait_for};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

pub struct Desk {
    pub folder: tempfile::TempDir,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { folder: tempfile::tempdir().unwrap() }
    }

    /// A list of `count` people, `o0` and so on.
    pub fn list(&self, count: usize) -> String {
        let path = self.folder.path().join("people.csv");
        let rows = (0..count).map(|n| format!("o{n},value {n}\r\n")).collect::<String>();
        std::fs::write(&path, format!("openid,first\r\n{rows}")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mega-task"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("MEGA_TASK_HOME", self.folder.path().join("home")).env("LC_ALL", "C");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must end with this code; returns what it said on both.
    pub fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "mega-task {arguments:?}: {said}");
        said
    }

    /// A task of 100 people, four of whom are out.
    pub fn with_four_out(&self, sandbox: &Sandbox, to: &str) -> Running {
        let child = self.start(&self.task(to, &self.list(100), &["--window", "4"]));
        wait_for("them to be out", || sandbox.stats()["in_flight"] == 4);
        child
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Events as they come.
    pub fn events(&self, arguments: &[&str]) -> Events {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Events { child: Running(child), lines: stdout.lines() }
    }

    /// `run` of the task t with these people, and more arguments.
    pub fn task<'b>(&self, to: &'b str, list: &'b str, more: &[&'b str]) -> Vec<&'b str> {
        let fixed = ["run", "--to", to, "--key", KEY, "--file", list, "--name", "t"];
        [&fixed[..], more].concat()
    }

    pub fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.ends(0, &["show", name, "--json"])).unwrap()
    }

    pub fn done(&self) -> u64 {
        let output = self.run(&["show", "t", "--json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        ["sent", "failed", "unknown"].iter().filter_map(|name| shown[name].as_u64()).sum()
    }

    pub fn results(&self, name: &str) -> Vec<String> {
        let path: PathBuf = self.folder.path().join(format!("{name}.result.csv"));
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.strip_prefix('\u{feff}').expect("Excel wants the mark");
        let mut lines = text.split_terminator("\r\n").map(str::to_owned);
        assert_eq!(lines.next().unwrap(), "line,openid,status,errcode,errmsg,meaning,msgid,time");
        lines.collect()
    }

    /// One line for each of `count` people, and one message of each at WeChat's.
    pub fn assert_each_once(&self, sandbox: &Sandbox, count: usize) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for line in self.results("t") {
            *seen.entry(line.split(',').nth(1).unwrap().to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "lines of {twice:?}");
        assert_eq!(seen.len(), count);
        let ids = sandbox.ids();
        let mut openids: Vec<&str> = ids.iter().map(|(openid, ..)| &**openid).collect();
        openids.sort();
        openids.dedup();
        assert_eq!((ids.len(), openids.len()), (count, count), "messages, and openids");
    }
}

/// Waits for its end: the exit code, or None if a signal ended it.
pub fn end_of(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_for("mega-task to end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// A process that does not outlive its test.
pub struct Running(Child);

impl Running {
    pub fn new(child: Child) -> Running {
        Running(child)
    }

    /// As kill -9 does.
    pub fn end_at_once(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A task that runs with --json.
pub struct Events {
    pub child: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Iterator for Events {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.unwrap();
        let event: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["time"].is_string() && event["task"].is_string(), "{line}");
        Some(event)
    }
}

impl Events {
    /// The next that does not only say how far it is.
    pub fn news(&mut self) -> Value {
        self.find(|event| event["event"] != "progress").expect("an event before the end")
    }
}

pub fn address(site: &Site) -> String {
    site.address.unwrap().to_string()
}
