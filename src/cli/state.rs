//! Whether the daemon runs, and which process it is: its administration socket is asked first, whose
//! peer the kernel names; the locks it holds only where nobody listens.

use crate::client::{Client, nobody_listens};
use crate::config::Config;
use crate::daemon::{Place, Probe, Process};
use crate::trial::{self, Held, held};
use crate::wire::question::Question;
use rustix::process::Pid;
use std::io;
use std::time::{Duration, Instant};

/// How long a daemon may take to put back what somebody removed of its files, which it looks for every other second.
const RETURN: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(50);

/// How long it may take to answer what needs no disk.
const AWAKE: Duration = Duration::from_secs(10);

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
    /// Nothing of it is there, and somebody holds the lock on its queue.
    Hidden(Option<i32>, &'a Place),
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

/// The same as `find`, once a daemon whose files were removed has had the time to put them back.
pub fn find_settled(target: &Target, patience: Duration) -> State<'_> {
    let deadline = Instant::now() + RETURN;
    loop {
        match find(target, patience) {
            State::Hidden(..) if Instant::now() < deadline => std::thread::sleep(GLANCE),
            found => return found,
        }
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
    let hides = |place: &Place| match held(&place.queue) {
        Held::By(who) => Some(who.map(|who| who.pid)),
        Held::Free => None,
    };
    match best {
        State::Absent => {
            let mut places = target.places.iter();
            let hidden = places.find_map(|place| Some(State::Hidden(hides(place)?, place)));
            hidden.unwrap_or(State::Absent)
        }
        found => found,
    }
}

/// Of a daemon of which nothing is there but a lock, for people.
pub fn hidden(target: &Target, pid: Option<i32>, place: &Place) -> String {
    let (name, queue) = (&target.name, place.queue.display());
    let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("the process {pid}"));
    let end = pid.map(|pid| format!("; kill {pid} stops it in order")).unwrap_or_default();
    format!(
        "{who} holds the queue {queue} of mega {name}, and its pidfile, its socket and {name}.facts are gone: it \
         puts them back within seconds; where it cannot, its log says why{end}"
    )
}

/// The running daemon as a trial has to know it.
pub fn running(pid: Pid, place: &Place) -> trial::Running {
    let listens =
        place.facts().map(|(facts, _)| facts.listen.iter().copied().chain(facts.metrics).collect());
    trial::Running { pid, listens: listens.unwrap_or_default() }
}

/// What to do about one that does not answer, or does not end.
pub fn next_step(target: &Target, pid: Pid, place: &Place) -> String {
    let log = place.log.as_ref().map(|log| format!(" ({})", log.display())).unwrap_or_default();
    let name = &target.name;
    format!(
        "see its log{log}; mega {name} stop --now waits for no call to WeChat; kill -9 {pid} ends it at once, and \
         loses nothing that was accepted"
    )
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

/// The running daemon; none where it does not run. It answers: what is asked of it next may take `patience`.
pub fn if_running(target: &Target, patience: Duration) -> Result<Option<Client>, String> {
    match find_settled(target, patience) {
        State::Stale(_) | State::Absent => Ok(None),
        State::Listens(mut client, place) => {
            awake(&mut client, patience).map_err(|why| {
                let (name, pid) = (&target.name, client.process.pid);
                format!("mega {name} (pid {pid}) {why}: {}", next_step(target, pid, place))
            })?;
            Ok(Some(client))
        }
        State::Hidden(pid, place) => Err(hidden(target, pid, place)),
        State::Locked(process, place) => Err(format!(
            "mega {} (pid {}) runs, but nobody listens on {}: try again in some seconds",
            target.name,
            process.pid,
            place.socket.display()
        )),
        State::Denied(why) | State::Doubtful(why) => Err(why),
    }
}

/// Whether it answers anything at all: a look needs no disk and no other thread.
fn awake(client: &mut Client, patience: Duration) -> Result<(), String> {
    client.patience = patience.min(AWAKE);
    let answer = client.ask(Question::Status, b"").and_then(|()| client.read());
    client.patience = patience;
    answer.map(|_| ()).map_err(|error| format!("runs and does not answer ({error})"))
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
