//! What `doctor` asks beside the trial of a start: the world, the machine, and the running daemon. Each
//! question has a thread of its own and one deadline is for all, so that whatever hangs is named and the
//! rest is told. In a command, as whom the daemon runs.

mod daemon;
mod machine;
mod world;

use crate::config::Config;
use crate::trial::Finding;
use rustix::process::Pid;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A call to WeChat is given up after this, whatever is configured.
const CALL: Duration = Duration::from_secs(10);

/// The running daemon, and what it says of itself if it does.
#[derive(Clone)]
pub struct Running {
    pub pid: Pid,
    pub status: Option<Value>,
}

/// What is known whatever the configuration is like, once a daemon runs.
#[derive(Clone)]
pub struct Premises {
    pub name: String,
    pub queue: PathBuf,
    pub ledger: PathBuf,
    pub running: Option<Running>,
}

/// What each question needs.
#[derive(Clone)]
struct Patient {
    config: Config,
    premises: Premises,
}

type Question<T> = Box<dyn FnOnce(&T) -> Vec<Finding> + Send>;

/// In the order in which they are shown. Ends within `patience`.
pub fn examine(config: &Config, running: Option<Running>, patience: Duration) -> Vec<Finding> {
    let mut config = config.clone();
    config.wechat.timeout = config.wechat.timeout.min(CALL);
    config.wechat.connect_timeout = config.wechat.connect_timeout.min(CALL / 2);
    let premises = Premises {
        name: config.name.clone(),
        queue: config.server.queue_file_path.clone(),
        ledger: config.server.ledger_file.clone(),
        running,
    };
    let patient = Patient { config, premises };
    let mut questions: Vec<(String, Question<Patient>)> = vec![
        ("daemon".into(), Box::new(|it| daemon::daemon(&it.premises))),
        ("queue".into(), Box::new(|it| daemon::backlog(&it.premises))),
        ("failures".into(), Box::new(|it| daemon::failures(&it.premises))),
        ("disk".into(), Box::new(machine::disks)),
        ("open files".into(), Box::new(machine::process)),
        ("kernel".into(), Box::new(machine::kernel)),
        ("time zone".into(), Box::new(machine::time_zone)),
    ];
    for host in patient.config.wechat.api_hosts.clone() {
        let name = host.clone();
        questions.push((format!("dns {host}"), Box::new(move |it| world::names(it, &name))));
        questions.push((host.clone(), Box::new(move |it| world::host(it, &host))));
    }
    questions.push(("token".into(), Box::new(world::token)));
    ask(questions, &patient, patience)
}

/// What can be said where the configuration cannot be read. Ends within `patience`.
pub fn examine_premises(premises: &Premises, patience: Duration) -> Vec<Finding> {
    let questions: Vec<(String, Question<Premises>)> = vec![
        ("daemon".into(), Box::new(daemon::daemon)),
        ("queue".into(), Box::new(daemon::backlog)),
        ("failures".into(), Box::new(daemon::failures)),
    ];
    ask(questions, premises, patience)
}

fn ask<T: Clone + Send + 'static>(
    questions: Vec<(String, Question<T>)>,
    patient: &T,
    patience: Duration,
) -> Vec<Finding> {
    let deadline = Instant::now() + patience;
    let (told, answers) = mpsc::channel();
    let subjects: Vec<String> = questions.iter().map(|(subject, _)| subject.clone()).collect();
    for (number, (_, question)) in questions.into_iter().enumerate() {
        let (told, patient) = (told.clone(), patient.clone());
        // Left behind when it hangs: the process ends soon.
        thread::spawn(move || {
            // Nobody listens any more after the deadline.
            let _ = told.send((number, question(&patient)));
        });
    }
    drop(told);
    let mut found: Vec<Option<Vec<Finding>>> = subjects.iter().map(|_| None).collect();
    while let Ok((number, findings)) =
        answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        found[number] = Some(findings);
    }
    let answered = |(findings, subject): (Option<Vec<Finding>>, String)| {
        findings.unwrap_or_else(|| vec![silent(subject, patience)])
    };
    found.into_iter().zip(subjects).flat_map(answered).collect()
}

fn silent(subject: String, patience: Duration) -> Finding {
    let what = [
        format!("no answer within {} s", patience.as_secs()),
        format!("{} 秒内没有答复", patience.as_secs()),
    ];
    let todo = [
        "see whether the network or the disk it needs answers at all",
        "检查所需的网络或磁盘是否有响应",
    ];
    Finding::wrong(subject, what, todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_or_panics_is_named_and_the_rest_is_told_in_order() {
        let fine = |subject: &'static str, after: u64| -> Question<()> {
            Box::new(move |_| {
                thread::sleep(Duration::from_millis(after));
                vec![Finding::ok(subject, ["fine", "好"])]
            })
        };
        let questions: Vec<(String, Question<()>)> = vec![
            ("slow".into(), fine("slow", 100)),
            ("hangs".into(), fine("hangs", 3_600_000)),
            ("panics".into(), Box::new(|_| panic!("on purpose"))),
            ("quick".into(), fine("quick", 0)),
        ];
        let patience = Duration::from_secs(2);
        let began = Instant::now();
        let found = ask(questions, &(), patience);
        assert!(began.elapsed() < patience * 5);
        let shown: Vec<&str> = found.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!(shown, ["slow", "hangs", "panics", "quick"]);
        assert!(found[1].what[0].contains("no answer within 2 s"), "{found:?}");
    }
}
