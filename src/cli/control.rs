//! start, stop, restart, reload and status: what the init scripts call.

use super::findings;
use super::state::{self, State, Target, find, find_settled, hidden, next_step, reach};
use super::status::Asked;
use super::which::Which;
use crate::client::Client;
use crate::config::Config;
use crate::daemon::{self, InUse, Listeners, Owner, Place, Process};
use crate::exit;
use crate::ledger::order::{Answer, Request};
use crate::server;
use crate::traffic::steer::Halt;
use crate::trial::{self, Finding, Level, Running};
use crate::wire::command;
use crate::wire::question::Question;
use rustix::process::{Pid, Signal, geteuid};
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

/// A database that hangs is given up long before.
const RELOAD: Duration = Duration::from_secs(60);

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
    if let Some(why) = not_permitted(&target, &owner) {
        return denied(&why);
    }
    try_out(&target, &config, &owner, None)?;
    let listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    launch(&target, config, &owner, listeners, None)
}

/// Why who asks cannot start it, whatever the configuration is like otherwise.
fn not_permitted(target: &Target, owner: &Owner) -> Option<String> {
    (!owner.is_within_reach()).then(|| {
        let (name, shown) = (&target.name, owner.shown());
        format!("mega {name} is to run as {shown}: only root and that user may start it")
    })
}

/// Everything that a start would meet is met before anything is stopped or begun, by a process that becomes
/// the daemon's user.
fn try_out(
    target: &Target,
    config: &Config,
    owner: &Owner,
    daemon: Option<&Running>,
) -> Result<(), String> {
    let wrong = |found: &[Finding]| -> Vec<Finding> {
        found.iter().filter(|finding| finding.level == Level::Wrong).cloned().collect()
    };
    let mut found = trial::all(config, daemon, TRIAL);
    if wrong(&found).iter().any(|finding| TAKEN.contains(&finding.subject.as_str())) {
        let other = match daemon {
            None => came_first(target),
            Some(old) => another_restart(target, old.pid),
        };
        if let Some(why) = other {
            return Err(why);
        }
        // By a daemon that was killed, maybe, and is gone by now.
        found = trial::all(config, daemon, TRIAL);
    }
    // A start that has to do without the database says so to whoever starts it.
    let database = found.iter().filter(|finding| finding.subject == "pdo.dsn");
    let doubts = database.filter(|finding| finding.level == Level::Warning);
    doubts.for_each(|finding| eprintln!("mega: {}", findings::line(finding)));
    let wrong = wrong(&found);
    if wrong.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = wrong.iter().map(findings::line).collect();
    let hands = daemon::change_hands(config, owner)
        .map(|command| format!("\nto give {} all that is mega's, run: {command}", owner.name()));
    Err(lines.join("\n") + &hands.unwrap_or_default())
}

/// The daemon that was to be restarted is not what runs any more.
fn another_restart(target: &Target, old: Pid) -> Option<String> {
    (process_of(target).is_none_or(|now| now.pid != old)).then(|| {
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

/// Becomes the daemon; `regret` is added to why it does not.
fn launch(
    target: &Target,
    mut config: Config,
    owner: &Owner,
    mut listeners: Listeners,
    regret: Option<String>,
) -> Result<u8, String> {
    bind(target, &config, &mut listeners).map_err(|why| match &regret {
        Some(regret) => format!("{why}\n{regret}"),
        None => why,
    })?;
    let cautions = trial::cautions(&config);
    config.warnings.extend(cautions.iter().map(Finding::english));
    let stderr = config.setting.log_file.clone();
    let (background, listeners) = (config.setting.daemonize, listeners.into_vec());
    let place = Place::of(&config);
    let run = |notifier| server::run(config, owner, listeners, notifier);
    Ok(match background {
        // One that was killed had no time to take away what it showed of itself.
        true => daemon::daemonize(stderr.as_deref(), regret, run, || clear(&[place])),
        false => daemon::foreground(regret, run),
    })
}

/// Why nothing can be started now: it runs, or starts. A daemon that was killed holds its lock until
/// the kernel has taken it apart: that one does not answer, and is waited for. What is not to be
/// believed is no obstacle: the lock decides.
fn running(target: &Target) -> Option<String> {
    let name = &target.name;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (pid, why, place) = match find(target, PATIENCE) {
            State::Listens(mut client, place) => match status_of(&mut client) {
                Ok(_) => {
                    return Some(format!("{name} is already running, pid {}", client.process.pid));
                }
                Err(why) => (client.process.pid, why, place),
            },
            State::Locked(process, place) => (process.pid, "nobody listens yet".into(), place),
            // Who holds the queue is found by the trial.
            State::Stale(_)
            | State::Absent
            | State::Hidden(..)
            | State::Denied(_)
            | State::Doubtful(_) => return None,
        };
        if Instant::now() > deadline {
            return Some(format!(
                "another start or stop of {name} is under way, or it hangs: the process {pid} holds \
                 its lock, and {why}: {}",
                next_step(target, pid, place)
            ));
        }
        std::thread::sleep(GLANCE);
    }
}

/// Everything that can be refused is refused before anything is stopped.
pub fn restart(which: &Which, config: Config) -> Result<u8, String> {
    config.log_is_lost().map_or(Ok(()), Err)?;
    let target = which.target(Some(&config));
    let old = process_of(&target);
    let owner = Owner::of(&config).map_err(|why| goes_on(&target, why))?;
    if let Some(why) = not_permitted(&target, &owner).or_else(|| anothers(&target)) {
        return denied(&goes_on(&target, why));
    }
    let tried = try_out(&target, &config, &owner, old.as_ref());
    tried.map_err(|why| goes_on(&target, format!("{why}{}", other_user(&target, &owner))))?;
    let mut listeners = Listeners::new(&config.server.listen, config.setting.backlog);
    let regret = format!(
        "mega {name} was stopped, and nothing runs now; what was accepted is kept: mend what is named here, then \
         mega {name} start",
        name = target.name
    );
    match find(&target, PATIENCE) {
        State::Listens(mut client, place) => {
            inherit(&mut client, place, &mut listeners)
                .and_then(|()| listeners.bind(InUse::Later, &config.setting.pid_file))
                .map_err(|why| goes_on(&target, why))?;
            if let Some(code) = end_asked(&target, client, place, Haste::Wait)? {
                return Ok(code);
            }
        }
        State::Locked(process, place) => {
            if let Some(code) = end(&target, &process, place, Haste::Wait)? {
                return Ok(code);
            }
        }
        State::Stale(_) | State::Absent => {
            return launch(&target, config, &owner, listeners, None);
        }
        State::Hidden(pid, place) => return denied(&hidden(&target, pid, place)),
        State::Denied(why) => return denied(&why),
        State::Doubtful(why) => return Err(why),
    }
    launch(&target, config, &owner, listeners, Some(regret))
}

fn process_of(target: &Target) -> Option<Running> {
    match find_settled(target, PATIENCE) {
        State::Listens(client, place) => Some(state::running(client.process.pid, place)),
        State::Locked(process, place) => Some(state::running(process.pid, place)),
        _ => None,
    }
}

/// The running daemon is one that who asks could stop, and not start again as it was.
fn anothers(target: &Target) -> Option<String> {
    let uid = match find(target, PATIENCE) {
        State::Listens(client, _) => client.process.uid,
        State::Locked(process, _) => process.uid,
        _ => return None,
    };
    (!geteuid().is_root() && geteuid() != uid).then(|| {
        let name = &target.name;
        format!("mega {name} runs as the user {uid}: only root and that user may restart it")
    })
}

fn inherit(client: &mut Client, place: &Place, listeners: &mut Listeners) -> Result<(), String> {
    let metrics = place.facts().and_then(|(facts, _)| facts.metrics);
    match client.listeners() {
        Ok(sockets) => listeners.inherit(sockets, metrics.as_slice()),
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
    let not = match find_settled(target, PATIENCE) {
        State::Listens(client, place) => end_asked(target, client, place, haste)?,
        State::Locked(process, place) => end(target, &process, place, haste)?,
        State::Stale(_) | State::Absent => {
            crate::say!("mega {} is not running", target.name);
            None
        }
        State::Hidden(pid, place) => return denied(&hidden(target, pid, place)),
        State::Denied(why) => return denied(&why),
        State::Doubtful(why) => return Err(why),
    };
    if let Some(code) = not {
        return Ok(code);
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

pub fn denied(why: &str) -> Result<u8, String> {
    eprintln!("mega: {why}");
    Ok(exit::NOT_PERMITTED)
}

/// Stops a daemon that answers, and tells how many messages it leaves; a code is that of one who may not.
fn end_asked(
    target: &Target,
    mut client: Client,
    place: &Place,
    haste: Haste,
) -> Result<Option<u8>, String> {
    client.patience = place.stop_limit();
    // Asked before the end, answered at the end.
    let asked = client.ask(Question::Wait, b"");
    match signal_end(&client.process, haste) {
        Ok(()) => {}
        // Who may use the socket may stop it all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if let Err(why) = order_end(&mut client, haste) {
                return denied(&format!("{}: {why}", may_not_stop(target, &client.process)))
                    .map(Some);
            }
        }
        Err(error) => return Err(cannot_signal(&client.process, &error)),
    }
    let left = asked.and_then(|()| client.read()).map(|answer| answer.message);
    await_end(target, &client.process, place)?;
    match left {
        Ok(left) => crate::say!("mega {} stopped, {left} messages left in the queue", target.name),
        Err(_) => crate::say!("mega {} stopped", target.name),
    }
    Ok(None)
}

/// Stops one that does not.
fn end(
    target: &Target,
    process: &Process,
    place: &Place,
    haste: Haste,
) -> Result<Option<u8>, String> {
    match signal_end(process, haste) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return denied(&may_not_stop(target, process)).map(Some);
        }
        Err(error) => return Err(cannot_signal(process, &error)),
    }
    await_end(target, process, place)?;
    crate::say!("mega {} stopped", target.name);
    Ok(None)
}

fn signal_end(process: &Process, haste: Haste) -> io::Result<()> {
    process.signal(Signal::TERM)?;
    match haste {
        // The second request to stop; two signals of one number could become one.
        Haste::Now => process.signal(Signal::INT),
        Haste::Wait => Ok(()),
    }
}

/// The same over the socket. Its answer comes before that of whoever waits for the end.
fn order_end(client: &mut Client, haste: Haste) -> Result<(), String> {
    let order = Halt { now: haste == Haste::Now };
    let body = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
    let answer = client.ask(Question::Stop, &body).and_then(|()| client.read());
    let answer = answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
    match answer.code {
        command::OK => Ok(()),
        _ => Err(answer.message),
    }
}

fn may_not_stop(target: &Target, process: &Process) -> String {
    format!(
        "only root, the user {} and the members of setting.admin_group may stop mega {}",
        process.uid, target.name
    )
}

fn cannot_signal(process: &Process, error: &io::Error) -> String {
    format!("cannot signal the process {}: {error}", process.pid)
}

fn await_end(target: &Target, process: &Process, place: &Place) -> Result<(), String> {
    let limit = place.stop_limit();
    match process.ends_before(Instant::now() + limit) {
        true => Ok(()),
        false => {
            let (name, pid) = (&target.name, process.pid);
            let todo = next_step(target, pid, place);
            Err(format!("mega {name} (pid {pid}) has not ended within {limit:?}: {todo}"))
        }
    }
}

pub fn reload(target: &Target) -> Result<u8, String> {
    match find_settled(target, PATIENCE) {
        State::Denied(why) => denied(&why),
        _ => super::reload::reload(&mut reach(target, RELOAD)?, &target.name),
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
    matches!(find_settled(target, PATIENCE), State::Listens(..))
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
    let (mut client, place) = match find(target, PATIENCE) {
        State::Listens(client, place) => (client, place),
        State::Stale(pid) => {
            let why = format!("mega {name} is dead, but its pidfile is there (pid {pid})");
            return not(exit::DEAD_WITH_PIDFILE, why);
        }
        State::Absent => return not(exit::NOT_RUNNING, format!("mega {name} is not running")),
        State::Locked(process, place) => return unheard(target, &process, place),
        State::Hidden(pid, place) => return not(exit::UNKNOWN, hidden(target, pid, place)),
        State::Denied(why) => return not(exit::UNKNOWN, why),
        State::Doubtful(why) => return not(exit::UNKNOWN, why),
    };
    let pid = client.process.pid;
    match status_of(&mut client) {
        Ok(status) => Asked::Runs(status),
        Err(why) => {
            let todo = next_step(target, pid, place);
            not(exit::UNKNOWN, format!("mega {name} (pid {pid}) runs, and {why}: {todo}"))
        }
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
