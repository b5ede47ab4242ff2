//! start, stop, restart, reload and status: what the init scripts call.

use super::state::{State, cannot_ask, find};
use super::status::Asked;
use crate::client::Client;
use crate::config::Config;
use crate::daemon::{self, InUse, Listeners, Owner, Process};
use crate::exit;
use crate::ledger::order::{Answer, Request};
use crate::server;
use crate::wire::command::{self, Question};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often it is looked whether a daemon that was killed is gone.
const GLANCE: Duration = Duration::from_millis(10);

/// How long the daemon may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a step of an order may take, which waits for the disk several times.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);

/// Whether a stop waits for calls to WeChat that are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    Wait,
    Now,
}

pub fn start(config: Config) -> Result<u8, String> {
    if let Some(pid) = running(&config) {
        return Err(format!("{} is already running, pid {pid}", config.name));
    }
    let owner = Owner::of(&config)?;
    let listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    launch(config, &owner, listeners)
}

/// Binds what is not bound yet, and becomes the daemon.
fn launch(mut config: Config, owner: &Owner, mut listeners: Listeners) -> Result<u8, String> {
    listeners.bind(InUse::Refuse, &config.setting.pid_file)?;
    let cautions = config.cautions();
    config.warnings.extend(cautions);
    let stderr = config.setting.log_file.clone();
    let (background, listeners) = (config.setting.daemonize, listeners.into_vec());
    let run = |notifier| server::run(config, owner, listeners, notifier);
    Ok(match background {
        true => daemon::daemonize(stderr.as_deref(), run),
        false => daemon::foreground(run),
    })
}

/// A daemon that was killed holds its lock until the kernel has taken it apart: that one does not
/// answer, and is waited for. What is not to be believed is no obstacle: the lock decides.
fn running(config: &Config) -> Option<Pid> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (answers, pid) = match find(config, PATIENCE) {
            State::Listens(mut client) => (status_of(&mut client).is_ok(), client.process.pid),
            State::Locked(process) => (false, process.pid),
            State::Stale(_) | State::Absent | State::Doubtful(_) => return None,
        };
        if answers || Instant::now() > deadline {
            return Some(pid);
        }
        std::thread::sleep(GLANCE);
    }
}

/// Everything that can be refused is refused before anything is stopped.
pub fn restart(config: Config) -> Result<u8, String> {
    let owner = Owner::of(&config)?;
    let mut listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    match find(&config, PATIENCE) {
        State::Listens(mut client) => {
            match client.listeners() {
                Ok(sockets) => listeners.inherit(sockets),
                Err(error) => eprintln!(
                    "mega: the running daemon keeps its listening sockets ({error}): connections are \
                     refused until the new one listens"
                ),
            }
            listeners.bind(InUse::Later, &config.setting.pid_file)?;
            end_asked(&config, client, Haste::Wait)?;
        }
        State::Locked(process) => end(&config, &process, Haste::Wait)?,
        State::Stale(_) | State::Absent => {}
        State::Doubtful(why) => return Err(why),
    }
    launch(config, &owner, listeners)
}

pub fn stop(config: &Config, haste: Haste) -> Result<u8, String> {
    match find(config, PATIENCE) {
        State::Listens(client) => end_asked(config, client, haste)?,
        State::Locked(process) => end(config, &process, haste)?,
        State::Stale(_) | State::Absent => crate::say!("mega {} is not running", config.name),
        State::Doubtful(why) => return Err(why),
    }
    Ok(exit::OK)
}

/// Stops a daemon that answers, and tells how many messages it leaves.
fn end_asked(config: &Config, mut client: Client, haste: Haste) -> Result<(), String> {
    client.patience = server::stop_limit(config);
    // Asked before the signal, answered at the end.
    let asked = client.ask(Question::Wait, b"");
    signal_end(&client.process, haste)?;
    let left = asked.and_then(|()| client.read()).map(|answer| answer.message);
    await_end(config, &client.process)?;
    match left {
        Ok(left) => crate::say!("mega {} stopped, {left} messages left in the queue", config.name),
        Err(_) => crate::say!("mega {} stopped", config.name),
    }
    Ok(())
}

/// Stops one that does not.
fn end(config: &Config, process: &Process, haste: Haste) -> Result<(), String> {
    signal_end(process, haste)?;
    await_end(config, process)?;
    crate::say!("mega {} stopped", config.name);
    Ok(())
}

fn signal_end(process: &Process, haste: Haste) -> Result<(), String> {
    process.signal(Signal::TERM)?;
    match haste {
        // The second request to stop; two signals of one number could become one.
        Haste::Now => process.signal(Signal::INT),
        Haste::Wait => Ok(()),
    }
}

fn await_end(config: &Config, process: &Process) -> Result<(), String> {
    let limit = server::stop_limit(config);
    match process.ends_before(Instant::now() + limit) {
        true => Ok(()),
        false => {
            let (name, pid) = (&config.name, process.pid);
            Err(format!("{name} (pid {pid}) has not ended within {limit:?}; see its log"))
        }
    }
}

pub fn reload(config: &Config) -> Result<u8, String> {
    match find(config, PATIENCE) {
        State::Listens(mut client) => {
            // Before it answers, the signal would end it.
            status_of(&mut client)?;
            client.process.signal(Signal::USR1)?;
        }
        State::Locked(_) => {
            return Err(format!("{} is starting or ending; try again", config.name));
        }
        State::Stale(_) | State::Absent => return Err(format!("{} is not running", config.name)),
        State::Doubtful(why) => return Err(why),
    }
    crate::say!("mega {} reloads templates, log.log_level and server.allow[]", config.name);
    Ok(exit::OK)
}

/// The running daemon's own account of itself.
fn status_of(client: &mut Client) -> Result<Value, String> {
    let answer = client.ask(Question::Status, b"").and_then(|()| client.read());
    let answer = answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
    serde_json::from_str(&answer.message).map_err(|error| format!("its status is garbled: {error}"))
}

/// A daemon answers on the administration socket.
pub fn is_running(config: &Config) -> bool {
    matches!(find(config, PATIENCE), State::Listens(_))
}

/// Takes one step of an order to the ledger.
pub fn ask_ledger(config: &Config, order: Question, request: &Request) -> Result<Answer, String> {
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let asked = Client::admin(config, LEDGER_PATIENCE).and_then(|mut client| {
        client.ask(order, &body)?;
        client.read()
    });
    let answer = asked.map_err(|error| {
        format!("{} (the order can be given again)", cannot_ask(config, &error))
    })?;
    if answer.code != command::OK {
        return Err(answer.message);
    }
    serde_json::from_str(&answer.message).map_err(|error| format!("its answer is garbled: {error}"))
}

/// Asks the running daemon how it is.
pub fn status(config: &Config) -> Asked {
    let name = &config.name;
    let not = |code, why| Asked::Not { code, why };
    let mut client = match find(config, PATIENCE) {
        State::Listens(client) => client,
        State::Stale(pid) => {
            let why = format!("mega {name} is dead, but its pidfile is there (pid {pid})");
            return not(exit::DEAD_WITH_PIDFILE, why);
        }
        State::Absent => return not(exit::NOT_RUNNING, format!("mega {name} is not running")),
        State::Locked(process) => {
            let pid = process.pid;
            let why =
                format!("mega {name} (pid {pid}) is starting or ending, or its socket was removed");
            return not(exit::UNKNOWN, why);
        }
        State::Doubtful(why) => return not(exit::UNKNOWN, why),
    };
    let pid = client.process.pid;
    match status_of(&mut client) {
        Ok(status) => Asked::Runs(status),
        Err(why) => not(exit::UNKNOWN, format!("{name} (pid {pid}): {why}")),
    }
}
