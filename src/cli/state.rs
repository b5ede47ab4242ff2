//! Whether the daemon runs, and which process it is: its administration socket is asked first, whose
//! peer the kernel names; the locks it holds only where nobody listens.

use crate::client::{Client, nobody_listens};
use crate::config::Config;
use crate::daemon::{Place, Probe, Process};
use std::io;
use std::time::Duration;

/// The daemon that the command line names.
pub struct Target {
    pub name: String,
    /// Where it may be found, the best place first: never empty.
    pub places: Vec<Place>,
}

pub enum State<'a> {
    /// It takes questions.
    Listens(Client, &'a Place),
    /// It holds its lock and takes no questions: it starts, or ends, or its socket was removed.
    Locked(Process, &'a Place),
    /// It is dead, and its pidfile is there.
    Stale(u32),
    Absent,
    /// Who asks may not.
    Denied(String),
    /// Something is there that is not to be believed.
    Doubtful(String),
}

impl Target {
    /// Of a configuration that was read.
    pub fn of(config: &Config) -> Target {
        let (places, _) = Place::all(&config.root, &config.name, &config.file, Some(config));
        Target { name: config.name.clone(), places }
    }

    /// Bytes that its frames may have, as far as that is known.
    pub fn longest_frame(&self) -> usize {
        self.places.first().map_or(usize::MAX, |place| place.package_max_length)
    }

    /// Who may ask, for who may not.
    fn who_may(&self) -> String {
        format!(
            "only root, the user that mega {} runs as and the members of setting.admin_group may ask it",
            self.name
        )
    }
}

/// Looks in one place after the other. Where it runs in none, the first that tells something does.
pub fn find(target: &Target, patience: Duration) -> State<'_> {
    let mut best = State::Absent;
    for place in &target.places {
        match look(target, place, patience) {
            found @ (State::Listens(..) | State::Locked(..)) => return found,
            found if matches!(best, State::Absent) => best = found,
            _ => {}
        }
    }
    best
}

fn look<'a>(target: &Target, place: &'a Place, patience: Duration) -> State<'a> {
    let shown = place.socket.display();
    match Client::admin(place, patience) {
        Ok(client) => State::Listens(client, place),
        Err(error) if nobody_listens(&error) => match place.probe() {
            Probe::Running(process) => State::Locked(process, place),
            Probe::Stale(pid) => State::Stale(pid),
            Probe::Absent => State::Absent,
            Probe::Doubtful(why) => State::Doubtful(why),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            State::Denied(format!("{shown}: {error} ({})", target.who_may()))
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            State::Doubtful(format!("the daemon does not answer on {shown}: {error}"))
        }
        Err(error) => State::Doubtful(format!("{shown}: {error}")),
    }
}

/// The running daemon; none where it does not run.
pub fn if_running(target: &Target, patience: Duration) -> Result<Option<Client>, String> {
    match find(target, patience) {
        State::Stale(_) | State::Absent => Ok(None),
        State::Listens(mut client, _) => {
            client.patience = patience;
            Ok(Some(client))
        }
        State::Locked(process, place) => Err(format!(
            "mega {} (pid {}) runs, but nobody listens on {}: try again in some seconds",
            target.name,
            process.pid,
            place.socket.display()
        )),
        State::Denied(why) | State::Doubtful(why) => Err(why),
    }
}

/// The running daemon, or what to tell an operator whose command does not reach it.
pub fn reach(target: &Target, patience: Duration) -> Result<Client, String> {
    if_running(target, patience)?.ok_or_else(|| {
        let name = &target.name;
        let socket = target.places.last().map(|place| place.socket.display().to_string());
        format!(
            "mega {name} does not run (nobody listens on {}; see mega {name} status)",
            socket.unwrap_or_default()
        )
    })
}
