//! What a start would meet, found by trying it, and changing nothing: users and groups, limits, sockets,
//! folders, files, queue, ledger, database. For `check` and `doctor`, and for `start` and `restart`, which
//! are to fail before anything is stopped.
//!
//! `all` is what every command goes by that asks what is wrong: it tries it in a child process that becomes
//! the user the daemon is to run as, with a deadline: no thread may exist in the caller. What the running
//! daemon itself holds is no fault, so the caller says which process that is. `offline`, a part of it, needs
//! nothing but the configuration.
//!
//! A finding is `Wrong` where a start fails, and a `Warning` where it starts and is not what the operator
//! may have meant. Its subject is a key of the configuration, `section.name`, or several, separated by
//! commas; those of the template database begin with `pdo.`.

mod child;
mod configuration;
mod database;
mod files;
mod folders;
mod limits;
mod paths;
mod proc;
mod queue;
mod sockets;
mod users;

use crate::config::Config;
use crate::daemon::{Owner, survey};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use limits::{descriptors, memory, open_files};
pub use proc::{Held, held, memory as available, number};
pub use queue::{segment_size, segments};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Wrong,
}

/// In English and in Chinese.
pub type Text = [String; 2];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    pub subject: String,
    pub what: Text,
    /// Empty where there is nothing to do.
    pub todo: Text,
}

impl Finding {
    pub fn ok(subject: impl Into<String>, what: [impl Into<String>; 2]) -> Finding {
        Finding::new(Level::Ok, subject, what, ["", ""])
    }

    pub fn warning(
        subject: impl Into<String>,
        what: [impl Into<String>; 2],
        todo: [impl Into<String>; 2],
    ) -> Finding {
        Finding::new(Level::Warning, subject, what, todo)
    }

    pub fn wrong(
        subject: impl Into<String>,
        what: [impl Into<String>; 2],
        todo: [impl Into<String>; 2],
    ) -> Finding {
        Finding::new(Level::Wrong, subject, what, todo)
    }

    fn new(
        level: Level,
        subject: impl Into<String>,
        what: [impl Into<String>; 2],
        todo: [impl Into<String>; 2],
    ) -> Finding {
        Finding {
            level,
            subject: subject.into(),
            what: what.map(Into::into),
            todo: todo.map(Into::into),
        }
    }
}

impl Finding {
    /// One line, for a log.
    pub fn english(&self) -> String {
        self.line(|[english, _]| english)
    }

    /// One line in the language that `pick` picks.
    pub fn line(&self, pick: impl for<'a> Fn([&'a str; 2]) -> &'a str) -> String {
        let text = |text: &Text| pick([&text[0], &text[1]]).to_owned();
        let before = if self.subject.is_empty() { "" } else { pick([": ", "："]) };
        let said = format!("{}{before}{}", self.subject, text(&self.what));
        match text(&self.todo) {
            todo if todo.is_empty() => said,
            todo => format!("{said}{}{todo}", pick(["; ", "；"])),
        }
    }
}

/// The same words in both languages, as an error has them.
pub fn plain(text: impl ToString) -> Text {
    let text = text.to_string();
    [text.clone(), text]
}

/// The running daemon of the configuration.
#[derive(Clone)]
pub struct Running {
    pub pid: Pid,
    /// Where it listens, as far as it tells: what it holds is free once it has ended.
    pub listens: Vec<SocketAddr>,
}

/// What the steps of a trial know.
struct Trial<'a> {
    config: &'a Config,
    /// Whose files and ports may be in use.
    daemon: Option<&'a Running>,
    owner: Owner,
    /// What root would give to the owner before it becomes it, or create for it.
    given: Vec<PathBuf>,
}

/// One thing that is tried.
struct Step {
    /// Of what it finds.
    subject: &'static str,
    /// What is said where it finds nothing.
    good: [&'static str; 2],
    run: fn(&Trial) -> Vec<Finding>,
}

/// As whoever starts the daemon.
const BEFORE: &[Step] = &[
    Step {
        subject: "setting.max_conn, setting.memory_limit",
        good: ["the machine has the descriptors and the memory", "文件描述符与内存足够"],
        run: limits::machine,
    },
    Step {
        subject: "server.listen[]",
        good: ["every address can be listened on", "所有地址都可以监听"],
        run: sockets::listen,
    },
    Step {
        subject: "metrics.listen",
        good: ["off, or can be listened on", "已关闭，或可以监听"],
        run: sockets::metrics,
    },
];

/// As whom the daemon is to run as; what may hang comes last.
const AS_OWNER: &[Step] = &[
    Step {
        subject: "setting.admin_group, setting.monitor_group",
        good: ["none, or the daemon's user is a member", "没有，或守护进程的用户属于该组"],
        run: users::membership,
    },
    Step {
        subject: "setting.pid_file, log.log_file",
        good: [
            "every folder is there or can be created, and be written to",
            "所有目录均存在或可创建，并且可写",
        ],
        run: folders::folders,
    },
    Step {
        subject: "the paths",
        good: ["in no place stands anything else", "各路径上没有不相符的文件"],
        run: paths::others,
    },
    Step {
        subject: "wechat.ca_file",
        good: ["none, or holds certificates", "没有，或其中有证书"],
        run: files::files,
    },
    Step {
        subject: "server.queue_file_path",
        good: ["the queue can be opened, and has room", "队列可以打开，空间足够"],
        run: queue::queue,
    },
    Step {
        subject: "server.ledger_file",
        good: ["the ledger can be used", "台账可用"],
        run: queue::ledger,
    },
    Step {
        subject: "pdo.dsn",
        good: ["the templates can be loaded", "模板可以加载"],
        run: database::database,
    },
];

/// What the operator may not have meant, beside the warnings of the file's reader.
pub fn cautions(config: &Config) -> Vec<Finding> {
    let mut findings = configuration::cautions(config);
    findings.extend(limits::configured(config));
    findings
}

/// What the file alone says, its warnings included.
pub fn offline(config: &Config) -> Vec<Finding> {
    let mut findings = configuration::warnings(config);
    findings.extend(cautions(config));
    findings
}

/// All that a start would meet: what the file says and what is found by trying it. Ends within `patience`.
pub fn all(config: &Config, daemon: Option<&Running>, patience: Duration) -> Vec<Finding> {
    let mut findings = offline(config);
    findings.extend(run(config, daemon, patience));
    findings
}

/// What there is beside `offline`.
fn run(config: &Config, daemon: Option<&Running>, patience: Duration) -> Vec<Finding> {
    let mut findings = users::groups(config);
    let tried = child::run(patience, |report| {
        let owner = match Owner::of(config) {
            Ok(owner) => owner,
            Err(why) => {
                report.found(vec![users::unknown(&why)]);
                return;
            }
        };
        let mut trial = Trial { config, daemon, owner, given: Vec::new() };
        BEFORE.iter().for_each(|step| report.take(step, &trial));
        trial.given = survey::to_be_given(config, &trial.owner);
        if let Err(why) = trial.owner.become_it() {
            report.found(vec![users::unreachable(&why)]);
            return;
        }
        AS_OWNER.iter().for_each(|step| report.take(step, &trial));
    });
    findings.extend(tried);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Of an account and more.
    pub fn config(more: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.ini");
        std::fs::write(&file, format!("[wechat]\napp_id = a\napp_secret = s\n{more}")).unwrap();
        Config::load(&file, Path::new("/x")).unwrap()
    }
}
