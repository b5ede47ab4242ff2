//! stop, and what a restart has of it: the daemon is signalled, or told over its socket by whoever may use that and
//! not signal it; its end is waited for, and what one that was killed has left is removed.

use super::state::{State, Target, find_settled, hidden, next_step};
use crate::client::Client;
use crate::daemon::{Place, Process};
use crate::exit;
use crate::traffic::steer::Halt;
use crate::wire::command;
use crate::wire::question::Question;
use rustix::process::Signal;
use std::io;
use std::time::{Duration, Instant};

/// How long the daemon may take to be reached.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a stop waits for calls to WeChat that are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    Wait,
    Now,
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
pub fn clear(places: &[Place]) {
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
pub fn end_asked(
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
pub fn end(
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
