//! Whether the daemon runs, and which process it is: its administration socket is asked first, whose
//! peer the kernel names; its pidfile only where nobody listens.

use crate::client::{Client, nobody_listens};
use crate::config::Config;
use crate::daemon::{self, Probe, Process, admin};
use std::io;
use std::time::Duration;

pub enum State {
    /// It takes questions.
    Listens(Client),
    /// It holds its lock and takes no questions: it starts, or ends.
    Locked(Process),
    /// It is dead, and its pidfile is there.
    Stale(u32),
    Absent,
    /// Something is there that is not to be believed.
    Doubtful(String),
}

pub fn find(config: &Config, patience: Duration) -> State {
    match Client::admin(config, patience) {
        Ok(client) => State::Listens(client),
        Err(error) if nobody_listens(&error) => {
            match daemon::probe(&config.setting.pid_file, &admin::trusted(config)) {
                Probe::Running(process) => State::Locked(process),
                Probe::Stale(pid) => State::Stale(pid),
                Probe::Absent => State::Absent,
                Probe::Doubtful(why) => State::Doubtful(why),
            }
        }
        Err(error) => State::Doubtful(cannot_ask(config, &error)),
    }
}

/// What to tell an operator whose command did not reach the daemon.
pub fn cannot_ask(config: &Config, error: &io::Error) -> String {
    let (socket, name) = (config.admin_socket(), &config.name);
    let shown = socket.display();
    match error.kind() {
        _ if nobody_listens(error) => {
            format!("mega {name} does not run (nobody listens on {shown}; see mega {name} status)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{shown}: {error} (only root and the user mega {name} runs as may ask it)")
        }
        io::ErrorKind::TimedOut => format!("the daemon does not answer on {shown}: {error}"),
        _ => format!("{shown}: {error}"),
    }
}
