//! `doctor`: the trial of `check`, and what asks the world, the machine and the running daemon; a line each,
//! with what to do. Ends within half a minute, whatever hangs.

use super::check::running;
use super::control::status_of;
use super::findings::{self, Tally};
use super::language::Language;
use super::paths::Paths;
use super::state::{Target, reach};
use crate::config::Config;
use crate::daemon::step_down;
use crate::doctor::{self, Premises, Running};
use crate::exit;
use crate::trial::{self, Finding, Level, plain};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// For the daemon, twice; for the trial of a start; and for the rest, all at once. Together less than half a
/// minute.
const DAEMON: Duration = Duration::from_secs(2);
const TRIAL: Duration = Duration::from_secs(8);
const REST: Duration = Duration::from_secs(14);

#[derive(Args)]
pub struct Doctor {
    /// Print everything as one JSON object; `level` and `subject` are the same in every language
    #[arg(long)]
    json: bool,
}

pub fn doctor(config: &Config, options: &Doctor) -> Result<u8, String> {
    let mut found = Vec::new();
    let daemon = running(config, DAEMON, &mut found);
    // Asked before there are threads, and before root is anybody else.
    let running =
        daemon.as_ref().map(|it| Running { pid: it.pid, status: status(&Target::of(config)) });
    found.extend(trial::all(config, daemon.as_ref(), TRIAL));
    // Whoever cannot become the daemon's user was told so by the trial, and asks as who he is.
    let _ = step_down(config);
    found.extend(doctor::examine(config, running, REST));
    Ok(show(&found, &config.file.display().to_string(), options))
}

/// Where the configuration cannot be read: that, and what the running daemon's own files tell.
pub fn without_configuration(why: &str, target: &Target, options: &Doctor) -> Result<u8, String> {
    let todo = [
        "mend the file; until then the running daemon goes on",
        "改正该文件；运行中的守护进程不受影响",
    ];
    let mut found: Vec<Finding> =
        why.lines().map(|line| Finding::wrong("configuration", plain(line), todo)).collect();
    let client = reach(target, DAEMON).ok();
    let running = client.map(|client| Running { pid: client.process.pid, status: status(target) });
    let Paths { queue, ledger, .. } = Paths::find(Err(why.to_owned()), target)?;
    let premises = Premises { name: target.name.clone(), queue, ledger, running };
    found.extend(doctor::examine_premises(&premises, REST));
    Ok(show(&found, &target.name, options))
}

fn show(found: &[Finding], whose: &str, options: &Doctor) -> u8 {
    let tally = Tally::of(found);
    match options.json {
        true => crate::say!("{}", as_json(found)),
        false => {
            found.iter().for_each(|finding| crate::say!("{}", findings::line(finding)));
            crate::say!("{whose}: {}", tally.words());
        }
    }
    if tally.wrong > 0 { exit::FAILED } else { exit::OK }
}

fn status(target: &Target) -> Option<Value> {
    status_of(&mut reach(target, DAEMON).ok()?).ok()
}

fn as_json(found: &[Finding]) -> Value {
    let language = Language::of_environment();
    let tally = Tally::of(found);
    let worst = found.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let findings: Vec<Value> = (found.iter())
        .map(|Finding { level, subject, what, todo }| {
            let [what, todo] =
                [what, todo].map(|[english, chinese]| language.pick([english, chinese]));
            json!({"level": level, "subject": subject, "what": what, "todo": todo})
        })
        .collect();
    json!({"level": worst, "wrong": tally.wrong, "warnings": tally.warnings, "findings": findings})
}
