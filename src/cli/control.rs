//! start, stop, restart, reload and status: what the init scripts call.

use super::findings;
use super::state::{State, Target, find, reach};
use super::status::Asked;
use super::which::Which;
use crate::client::Client;
use crate::config::Config;
use crate::daemon::{self, InUse, Listeners, Owner, Place, Process};
use crate::exit;
use crate::ledger::order::{Answer, Request};
use crate::server;
use crate::trial::{self, Finding, Level};
use crate::wire::command;
use crate::wire::question::Question;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// How often it is looked whether a daemon that was killed is gone.
const GLANCE: Duration = Duration::from_millis(10);

/// How long the daemon may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after it has bound its ports a start holds its lock.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a database or a disk that hangs holds up a start.
const TRIAL: Duration = Duration::from_secs(20);

/// What somebody else may have: the ports and the queue, as findings name them.
const TAKEN: [&str; 2] = ["server.listen[]", "server.queue_file_path"];

/// How long a step of an order may take, which waits for the disk several times.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);

/// Whether a stop waits for calls to WeChat that are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    Wait,
    Now,
}

pub fn start(which: &Which, config: Config) -> Result<u8, String> {
    config.log_is_lost().map_or(Ok(()), Err)?;
    let target = which.target(Some(&config));
    if let Some(why) = running(&target) {
        return Err(why);
    }
    let owner = Owner::of(&config)?;
    try_out(&target, &config, &owner, None)?;
    let listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    launch(&target, config, &owner, listeners)
}

/// Everything that a start would meet is met before anything is stopped or begun, by a process that becomes
/// the daemon's user.
fn try_out(
    target: &Target,
    config: &Config,
    owner: &Owner,
    daemon: Option<Pid>,
) -> Result<(), String> {
    let wrong = || -> Vec<Finding> {
        let found = trial::run(config, daemon, TRIAL).into_iter();
        found.filter(|finding| finding.level == Level::Wrong).collect()
    };
    let mut found = wrong();
    if found.iter().any(|finding| TAKEN.contains(&finding.subject.as_str())) {
        let other = match daemon {
            None => came_first(target),
            Some(old) => another_restart(target, old),
        };
        if let Some(why) = other {
            return Err(why);
        }
        // By a daemon that was killed, maybe, and is gone by now.
        found = wrong();
    }
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.iter().map(findings::line).collect();
    let hands = daemon::change_hands(config, owner)
        .map(|command| format!("\nto give {} all that is mega's, run: {command}", owner.name()));
    Err(lines.join("\n") + &hands.unwrap_or_default())
}

/// The daemon that was to be restarted is not what runs any more.
fn another_restart(target: &Target, old: Pid) -> Option<String> {
    (process_of(target) != Some(old)).then(|| {
        let name = &target.name;
        format!("another stop or restart of {name} is under way: the process {old} has ended")
    })
}

/// Binds what is not bound yet.
fn bind(target: &Target, config: &Config, listeners: &mut Listeners) -> Result<(), String> {
    let bound = listeners.bind(InUse::Refuse, &config.setting.pid_file);
    bound.map_err(|why| came_first(target).unwrap_or(why))
}

/// Another start may have the ports, and shows itself a moment later.
fn came_first(target: &Target) -> Option<String> {
    let deadline = Instant::now() + MOMENT;
    loop {
        match running(target) {
            None if Instant::now() < deadline => std::thread::sleep(GLANCE),
            found => return found,
        }
    }
}

/// Becomes the daemon.
fn launch(
    target: &Target,
    mut config: Config,
    owner: &Owner,
    mut listeners: Listeners,
) -> Result<u8, String> {
    bind(target, &config, &mut listeners)?;
    let cautions = trial::cautions(&config);
    config.warnings.extend(cautions.iter().map(Finding::english));
    let stderr = config.setting.log_file.clone();
    let (background, listeners) = (config.setting.daemonize, listeners.into_vec());
    let place = Place::of(&config);
    let run = |notifier| server::run(config, owner, listeners, notifier);
    Ok(match background {
        // One that was killed had no time to take away what it showed of itself.
        true => daemon::daemonize(stderr.as_deref(), run, || clear(&[place])),
        false => daemon::foreground(run),
    })
}

/// Why nothing can be started now: it runs, or starts. A daemon that was killed holds its lock until
/// the kernel has taken it apart: that one does not answer, and is waited for. What is not to be
/// believed is no obstacle: the lock decides.
fn running(target: &Target) -> Option<String> {
    let name = &target.name;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (pid, why) = match find(target, PATIENCE) {
            State::Listens(mut client, _) => match status_of(&mut client) {
                Ok(_) => {
                    return Some(format!("{name} is already running, pid {}", client.process.pid));
                }
                Err(why) => (client.process.pid, why),
            },
            State::Locked(process, _) => (process.pid, "nobody listens yet".into()),
            State::Stale(_) | State::Absent | State::Denied(_) | State::Doubtful(_) => return None,
        };
        if Instant::now() > deadline {
            return Some(format!(
                "another start or stop of {name} is under way, or it hangs: the process {pid} holds \
                 its lock, and {why}"
            ));
        }
        std::thread::sleep(GLANCE);
    }
}

/// Everything that can be refused is refused before anything is stopped.
pub fn restart(which: &Which, config: Config) -> Result<u8, String> {
    config.log_is_lost().map_or(Ok(()), Err)?;
    let target = which.target(Some(&config));
    let owner = Owner::of(&config).map_err(|why| goes_on(&target, why))?;
    let tried = try_out(&target, &config, &owner, process_of(&target));
    tried.map_err(|why| goes_on(&target, format!("{why}{}", other_user(&target, &owner))))?;
    let mut listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    match find(&target, PATIENCE) {
        State::Listens(mut client, place) => {
            inherit(&mut client, &mut listeners)
                .and_then(|()| listeners.bind(InUse::Later, &config.setting.pid_file))
                .map_err(|why| goes_on(&target, why))?;
            end_asked(&target, client, place, Haste::Wait)?;
        }
        State::Locked(process, place) => end(&target, &process, place, Haste::Wait)?,
        State::Stale(_) | State::Absent => {}
        State::Denied(why) => return denied(&why),
        State::Doubtful(why) => return Err(why),
    }
    launch(&target, config, &owner, listeners)
}

fn process_of(target: &Target) -> Option<Pid> {
    match find(target, PATIENCE) {
        State::Listens(client, _) => Some(client.process.pid),
        State::Locked(process, _) => Some(process.pid),
        _ => None,
    }
}

fn inherit(client: &mut Client, listeners: &mut Listeners) -> Result<(), String> {
    match client.listeners() {
        Ok(sockets) => listeners.inherit(sockets),
        // Of two restarts one has them, and ends it.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            return Err(format!(
                "another stop or restart is under way: the process {} says that {error}",
                client.process.pid
            ));
        }
        Err(error) => eprintln!(
            "mega: the running daemon keeps its listening sockets ({error}): connections are \
             refused until the new one listens"
        ),
    }
    Ok(())
}

/// What a restart that was refused has left as it was.
pub fn goes_on(target: &Target, why: String) -> String {
    match find(target, PATIENCE) {
        State::Listens(client, _) => {
            let pid = client.process.pid;
            format!("{why}\nnothing was stopped: the running daemon goes on, pid {pid}")
        }
        _ => why,
    }
}

/// What the daemon of another user has has to change hands first.
fn other_user(target: &Target, owner: &Owner) -> String {
    match find(target, PATIENCE) {
        State::Listens(client, place) if client.process.uid != owner.ids().0 => format!(
            "\nthe running daemon is the user {}'s and the new one would be {}'s: mega {name} stop, \
             then give it what is named here, then mega {name} start",
            place.whose,
            owner.name(),
            name = target.name
        ),
        _ => String::new(),
    }
}

pub fn stop(target: &Target, haste: Haste) -> Result<u8, String> {
    match find(target, PATIENCE) {
        State::Listens(client, place) => end_asked(target, client, place, haste)?,
        State::Locked(process, place) => end(target, &process, place, haste)?,
        State::Stale(_) | State::Absent => crate::say!("mega {} is not running", target.name),
        State::Denied(why) => return denied(&why),
        State::Doubtful(why) => return Err(why),
    }
    // Nothing, unless it was killed, now or before.
    clear(&target.places);
    Ok(exit::OK)
}

/// Takes away what a daemon that was killed has left, which is no obstacle to anything else. This
/// process may not be root's any more then.
fn clear(places: &[Place]) {
    for place in places {
        match place.clear() {
            Ok(removed) => removed
                .iter()
                .for_each(|path| crate::say!("{} was left over and is removed", path.display())),
            Err(why) => eprintln!("mega: warning: what is left over stays: {why}"),
        }
    }
}

fn denied(why: &str) -> Result<u8, String> {
    eprintln!("mega: {why}");
    Ok(exit::UNKNOWN)
}

/// Stops a daemon that answers, and tells how many messages it leaves.
fn end_asked(
    target: &Target,
    mut client: Client,
    place: &Place,
    haste: Haste,
) -> Result<(), String> {
    client.patience = place.stop_limit();
    // Asked before the signal, answered at the end.
    let asked = client.ask(Question::Wait, b"");
    signal_end(&client.process, haste)?;
    let left = asked.and_then(|()| client.read()).map(|answer| answer.message);
    await_end(target, &client.process, place)?;
    match left {
        Ok(left) => crate::say!("mega {} stopped, {left} messages left in the queue", target.name),
        Err(_) => crate::say!("mega {} stopped", target.name),
    }
    Ok(())
}

/// Stops one that does not.
fn end(target: &Target, process: &Process, place: &Place, haste: Haste) -> Result<(), String> {
    signal_end(process, haste)?;
    await_end(target, process, place)?;
    crate::say!("mega {} stopped", target.name);
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

fn await_end(target: &Target, process: &Process, place: &Place) -> Result<(), String> {
    let limit = place.stop_limit();
    match process.ends_before(Instant::now() + limit) {
        true => Ok(()),
        false => {
            let (name, pid) = (&target.name, process.pid);
            Err(format!("{name} (pid {pid}) has not ended within {limit:?}; see its log"))
        }
    }
}

pub fn reload(target: &Target) -> Result<u8, String> {
    let name = &target.name;
    match find(target, PATIENCE) {
        State::Listens(mut client, _) => super::reload::reload(&mut client, name),
        State::Locked(..) => Err(format!("{name} is starting or ending; try again")),
        State::Stale(_) | State::Absent => Err(format!("{name} is not running")),
        State::Denied(why) => denied(&why),
        State::Doubtful(why) => Err(why),
    }
}

/// The running daemon's own account of itself.
pub fn status_of(client: &mut Client) -> Result<Value, String> {
    let answer = client.ask(Question::Status, b"").and_then(|()| client.read());
    let answer = answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
    serde_json::from_str(&answer.message).map_err(|error| format!("its status is garbled: {error}"))
}

/// A daemon answers on the administration socket.
pub fn is_running(target: &Target) -> bool {
    matches!(find(target, PATIENCE), State::Listens(..))
}

/// Takes one step of an order to the ledger.
pub fn ask_ledger(target: &Target, order: Question, request: &Request) -> Result<Answer, String> {
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let again = |why: String| format!("{why} (the order can be given again)");
    let mut client = reach(target, LEDGER_PATIENCE).map_err(again)?;
    let answer = client.ask(order, &body).and_then(|()| client.read());
    let answer = answer.map_err(|error| again(format!("the daemon does not answer: {error}")))?;
    if answer.code != command::OK {
        return Err(answer.message);
    }
    serde_json::from_str(&answer.message).map_err(|error| format!("its answer is garbled: {error}"))
}

/// Asks the running daemon how it is.
pub fn status(target: &Target) -> Asked {
    let name = &target.name;
    let not = |code, why| Asked::Not { code, why };
    let mut client = match find(target, PATIENCE) {
        State::Listens(client, _) => client,
        State::Stale(pid) => {
            let why = format!("mega {name} is dead, but its pidfile is there (pid {pid})");
            return not(exit::DEAD_WITH_PIDFILE, why);
        }
        State::Absent => return not(exit::NOT_RUNNING, format!("mega {name} is not running")),
        State::Locked(process, place) => return unheard(target, &process, place),
        State::Denied(why) => return not(exit::UNKNOWN, why),
        State::Doubtful(why) => return not(exit::UNKNOWN, why),
    };
    let pid = client.process.pid;
    match status_of(&mut client) {
        Ok(status) => Asked::Runs(status),
        Err(why) => not(exit::UNKNOWN, format!("{name} (pid {pid}): {why}")),
    }
}

/// It holds its lock, so it runs, and there is nobody to ask.
fn unheard(target: &Target, process: &Process, place: &Place) -> Asked {
    let socket = place.socket.display();
    let note = format!(
        "nobody listens on {socket}: it is starting or ending, or the socket was removed and is back \
         within seconds"
    );
    Asked::Unheard { name: target.name.clone(), pid: process.pid.as_raw_nonzero().get(), note }
}
