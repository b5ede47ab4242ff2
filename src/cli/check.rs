//! `check`: says what is wrong with a configuration, by trying what a start would do, and shows what would
//! apply. Changes nothing.

use super::findings::{self, Tally};
use super::state::{self, State, Target, find_settled};
use crate::config::Config;
use crate::exit;
use crate::trial::{self, Finding, Level, Running, plain};
use clap::Args;
use std::time::Duration;

/// How long the running daemon may take to answer, and the trial to end.
const DAEMON_PATIENCE: Duration = Duration::from_secs(3);
const TRIAL_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub struct Check {
    /// Warnings count as wrong: exit code 1
    #[arg(long)]
    strict: bool,
    /// Look at the file alone: no users, ports, folders or database
    #[arg(long)]
    offline: bool,
}

pub fn check(config: &Config, options: &Check) -> Result<u8, String> {
    let mut found = Vec::new();
    match options.offline {
        true => found = trial::offline(config),
        false => {
            let daemon = running(config, DAEMON_PATIENCE, &mut found);
            found.extend(trial::all(config, daemon.as_ref(), TRIAL_PATIENCE));
        }
    }
    let bad = found.iter().filter(|finding| finding.level != Level::Ok);
    bad.for_each(|finding| crate::complain!("{}", findings::line(finding)));
    let tally = Tally::of(&found);
    if tally.wrong > 0 {
        return Ok(exit::FAILED);
    }
    crate::say!("{}", config.describe());
    crate::say!("; {}: {}", config.file.display(), tally.words());
    Ok(if options.strict && tally.warnings > 0 { exit::FAILED } else { exit::OK })
}

/// The running daemon; what keeps it from being asked is a finding.
pub fn running(config: &Config, patience: Duration, found: &mut Vec<Finding>) -> Option<Running> {
    match find_settled(&Target::of(config), patience) {
        State::Listens(client, place) => Some(state::running(client.process.pid, place)),
        State::Locked(process, place) => Some(state::running(process.pid, place)),
        // Whoever holds the queue is found by the trial.
        State::Stale(_) | State::Absent | State::Hidden(..) => None,
        State::Denied(why) | State::Doubtful(why) => {
            let todo =
                ["run this as root or as the daemon's user", "请以 root 或守护进程的用户执行"];
            found.push(Finding::warning("setting.pid_file", plain(why), todo));
            None
        }
    }
}
