//! start, stop, reload and status: what the init scripts call.

use super::{DEAD_WITH_PIDFILE, NOT_RUNNING};
use crate::client::Client;
use crate::config::Config;
use crate::daemon::{self, Probe};
use crate::ledger::order::{Answer, Request};
use crate::server::{self, admin_path, exit};
use crate::wire::command;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked whether the daemon has ended.
const GLANCE: Duration = Duration::from_millis(10);

/// How long the daemon may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a step of an order may take, which waits for the disk several times.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);

pub fn probe(config: &Config) -> Probe {
    daemon::probe(&config.setting.pid_file)
}

pub fn start(config: Config) -> Result<u8, String> {
    let pid_file = config.setting.pid_file.clone();
    if let Some(pid) = running(&config) {
        return Err(format!("{} is already running, pid {pid}", config.name));
    }
    let owner = server::owner(&config)?;
    let folders = [pid_file.parent(), config.log.log_file.parent()];
    let stderr = config.setting.log_file.clone();
    for folder in folders.into_iter().chain([stderr.as_deref().and_then(Path::parent)]).flatten() {
        daemon::make_folder(folder, owner.as_ref())?;
    }
    let mut listeners = Vec::new();
    for address in &config.server.listen {
        let bound = bind(*address, config.setting.backlog as i32);
        listeners.push(bound.map_err(|error| cannot_bind(*address, &error, &pid_file))?);
    }
    match config.setting.daemonize {
        true => Ok(daemon::daemonize(stderr.as_deref(), |notifier| {
            server::run(config, listeners, notifier)
        })),
        false => Ok(daemon::foreground(|notifier| server::run(config, listeners, notifier))),
    }
}

/// A daemon that was killed holds its lock until the kernel has taken it apart: that one does not
/// answer, and is waited for.
fn running(config: &Config) -> Option<u32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Probe::Running(pid) = probe(config) else { return None };
        if ask_status(config).is_ok() || Instant::now() > deadline {
            return Some(pid);
        }
        std::thread::sleep(GLANCE);
    }
}

fn cannot_bind(address: SocketAddr, error: &io::Error, pid_file: &Path) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "cannot bind {address}: address in use (is another mega running? see {})",
            pid_file.display()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot bind {address}: {error} (ports below 1024 need root; see setting.user)")
        }
        _ => format!("cannot bind {address}: {error} (see server.listen[])"),
    }
}

/// As `TcpListener::bind`, with a backlog of one's own.
fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of the one before to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

pub fn stop(config: &Config, now: bool) -> Result<u8, String> {
    let name = &config.name;
    let Probe::Running(pid) = probe(config) else {
        crate::say!("mega {name} is not running");
        return Ok(exit::OK);
    };
    let limit = server::stop_limit(config);
    // Asked before the signal, answered at the end.
    let waiting = ask(config, "wait", limit);
    signal(pid, Signal::TERM)?;
    if now {
        // The second request to stop; two signals of one number could become one.
        signal(pid, Signal::INT)?;
    }
    let left = waiting.and_then(|mut client| client.read()).map(|answer| answer.message);
    let deadline = Instant::now() + limit;
    while matches!(probe(config), Probe::Running(running) if running == pid) {
        if Instant::now() > deadline {
            return Err(format!("{name} (pid {pid}) has not ended within {limit:?}; see its log"));
        }
        std::thread::sleep(GLANCE);
    }
    match left {
        Ok(left) => crate::say!("mega {name} stopped, {left} messages left in the queue"),
        Err(_) => crate::say!("mega {name} stopped"),
    }
    Ok(exit::OK)
}

pub fn reload(config: &Config) -> Result<u8, String> {
    let Probe::Running(pid) = probe(config) else {
        return Err(format!("{} is not running", config.name));
    };
    signal(pid, Signal::USR1)?;
    crate::say!("mega {} reloads templates, log.log_level and server.allow[]", config.name);
    Ok(exit::OK)
}

fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(known) = known else { return Err(format!("{pid} is not a process id")) };
    kill_process(known, signal).map_err(|error| format!("cannot signal process {pid}: {error}"))
}

/// Sends one question to the running daemon.
fn ask(config: &Config, question: &str, patience: Duration) -> io::Result<Client> {
    let mut client = Client::admin(&admin_path(config), patience)?;
    let mut frame = Vec::new();
    command::encode_admin(&mut frame, 1, question);
    client.write(&frame)?;
    Ok(client)
}

/// The running daemon's own account of itself.
pub fn ask_status(config: &Config) -> Result<Value, String> {
    let answer = ask(config, "status", PATIENCE).and_then(|mut client| client.read());
    let answer = answer.map_err(|error| {
        format!("the daemon does not answer on {}: {error}", admin_path(config).display())
    })?;
    serde_json::from_str(&answer.message).map_err(|error| format!("its status is garbled: {error}"))
}

/// A daemon answers on the administration socket.
pub fn is_running(config: &Config) -> bool {
    Client::admin(&admin_path(config), PATIENCE).is_ok()
}

/// Takes one step of an order to the ledger.
pub fn ask_ledger(config: &Config, order: &str, request: &Request) -> Result<Answer, String> {
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let mut frame = Vec::new();
    command::encode_ask(&mut frame, 1, order, &body);
    let asked = Client::admin(&admin_path(config), LEDGER_PATIENCE)
        .and_then(|mut client| client.call(&frame));
    let answer = asked.map_err(|error| {
        format!(
            "the daemon does not answer on {}: {error} (is mega {} running? the order can be given again)",
            admin_path(config).display(),
            config.name
        )
    })?;
    if answer.code != command::OK {
        return Err(answer.message);
    }
    serde_json::from_str(&answer.message).map_err(|error| format!("its answer is garbled: {error}"))
}

pub fn status(config: &Config, json: bool) -> Result<u8, String> {
    let name = &config.name;
    let pid = match probe(config) {
        Probe::Running(pid) => pid,
        Probe::Stale(pid) => {
            crate::say!("mega {name} is dead, but its pidfile is there (pid {pid})");
            return Ok(DEAD_WITH_PIDFILE);
        }
        Probe::Absent => {
            crate::say!("mega {name} is not running");
            return Ok(NOT_RUNNING);
        }
        Probe::Unreadable(why) => return Err(why),
    };
    let status = ask_status(config)?;
    if json {
        crate::say!("{status}");
        return Ok(exit::OK);
    }
    crate::say!("mega {name} is running");
    let uptime = status["uptime_seconds"].as_u64().unwrap_or_default();
    let line = |key: &str, value: &str| crate::say!("  {key:<14} {value}");
    line("pid", &pid.to_string());
    line("uptime", &uptime_text(uptime));
    let listen = status["listen"].as_array().cloned().unwrap_or_default();
    let listen: Vec<&str> = listen.iter().filter_map(Value::as_str).collect();
    line("listening on", &listen.join(", "));
    for key in [
        "templates",
        "queue_depth",
        "in_flight",
        "accepted",
        "delivered",
        "failed",
        "retried",
        "refused",
    ] {
        line(&key.replace('_', " "), &status[key].to_string());
    }
    for key in ["suspended", "ledger", "full"] {
        if let Some(why) = status[key].as_str() {
            line(key, why);
        }
    }
    Ok(exit::OK)
}

fn uptime_text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3_600, rest / 60 % 60, rest % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_readable() {
        assert_eq!(uptime_text(3_723), "01:02:03");
        assert_eq!(uptime_text(90_061), "1 d 01:01:01");
    }
}
