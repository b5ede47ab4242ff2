//! A place: how to reach a daemon, and whom to believe there. Comes from the facts of a running
//! daemon, else from a configuration, else from the name alone: commands need no more than this.

use super::facts::{self, Facts, Found};
use super::pidfile::{self, Locked, PidFile, Probe};
use super::privileges::Owner;
use super::process::Process;
use super::way::is_roots_alone;
use crate::config::Config;
use crate::user;
use nix::unistd::User;
use rustix::process::{Uid, geteuid};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest `stop_timeout` that can be configured: for a daemon of which nothing is known, and for
/// one that says more.
const LONGEST_STOP: Duration = Duration::from_secs(600);

/// How long the kernel may take to let go of a dead daemon's lock.
const DYING: Duration = Duration::from_secs(5);

pub struct Place {
    pub pid_file: PathBuf,
    pub socket: PathBuf,
    /// How long it tries to end in order.
    stop_timeout: Duration,
    /// Bytes of the longest frame it takes.
    pub package_max_length: usize,
    /// The folder that it holds locked as long as it runs.
    pub queue: PathBuf,
    /// Where more may be found.
    pub log: Option<PathBuf>,
    facts: PathBuf,
    /// What the daemon keeps locked as well, and its pid.
    found: Option<Found>,
    trusted: Vec<Uid>,
    /// Those, for people.
    pub whose: String,
}

impl Place {
    /// Where a daemon of this name may be, the best place first; and what was planted there.
    pub fn all(
        root: &Path,
        name: &str,
        file: &Path,
        config: Option<&Config>,
    ) -> (Vec<Place>, Option<String>) {
        let path = facts::path(root, name);
        let (found, doubt) = match facts::find(&path, file) {
            Ok(found) => (found, None),
            Err(why) => (None, Some(why)),
        };
        let named = found.map(|found| Place::found(path, found));
        let other = config.map_or_else(|| Place::usual(root, name), Place::of);
        (named.into_iter().chain([other]).collect(), doubt)
    }

    /// Where those are heard who may only look.
    pub fn monitor_socket(&self) -> PathBuf {
        self.socket.with_extension("monitor")
    }

    /// Where the configuration has it. Whom it is to run as is believed, and else root and the caller.
    /// Of root's processes root believes none in a folder of the service user, who could have moved
    /// another's socket there.
    pub fn of(config: &Config) -> Place {
        let setting = &config.setting;
        let mut trusted = Vec::new();
        if let Some(name) = &setting.user {
            let number = name.parse().ok();
            let found = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
            trusted.extend(number.or_else(found).map(Uid::from_raw));
        }
        let folder = setting.pid_file.parent().unwrap_or(Path::new("/"));
        if trusted.is_empty() || !geteuid().is_root() || is_roots_alone(folder) {
            trusted.extend([Uid::ROOT, geteuid()]);
        }
        Place {
            pid_file: setting.pid_file.clone(),
            socket: config.admin_socket(),
            stop_timeout: setting.stop_timeout,
            package_max_length: setting.package_max_length,
            queue: config.server.queue_file_path.clone(),
            log: config.log.log_file.path().map(Path::to_owned),
            facts: facts::path(&config.root, &config.name),
            found: None,
            trusted,
            whose: setting.user.clone().unwrap_or_else(|| "root's or the caller".into()),
        }
    }

    /// Where a running daemon says it is. Only processes of the facts' owner are believed, so that
    /// facts which somebody planted lead to nobody but the planter.
    fn found(path: PathBuf, found: Found) -> Place {
        let Facts { pid_file, socket, queue, log, .. } = &found.facts;
        Place {
            pid_file: pid_file.clone(),
            socket: socket.clone(),
            stop_timeout: Duration::from_secs(found.facts.stop_timeout_seconds),
            package_max_length: found.facts.package_max_length,
            queue: queue.clone(),
            log: log.clone(),
            facts: path,
            trusted: vec![found.owner],
            whose: user::name(found.owner),
            found: Some(found),
        }
    }

    /// Where it is unless the configuration says otherwise, which cannot be read. Who owns what stands
    /// there is believed, if nobody else could have put it there.
    fn usual(root: &Path, name: &str) -> Place {
        let folder = root.join("run");
        let [pid_file, socket] = ["pid", "sock"].map(|end| folder.join(format!("{name}.{end}")));
        let found = [&socket, &pid_file].into_iter().find_map(|file| file.symlink_metadata().ok());
        let owner = found.map(|stat| Uid::from_raw(stat.uid()));
        let owner = owner.filter(|owner| facts::answers(*owner, &folder).is_ok());
        Place {
            pid_file,
            socket,
            stop_timeout: LONGEST_STOP,
            package_max_length: usize::MAX,
            queue: folder.join(format!("{name}.queue")),
            log: None,
            facts: facts::path(root, name),
            found: None,
            trusted: owner.into_iter().collect(),
            whose: owner.map_or("anybody who is believed here".into(), user::name),
        }
    }

    /// What its daemon tells of itself, and who that is; none where only the configuration tells.
    pub fn facts(&self) -> Option<(&Facts, Uid)> {
        self.found.as_ref().map(|found| (&found.facts, found.owner))
    }

    pub fn trusts(&self, uid: Uid) -> bool {
        self.trusted.contains(&uid)
    }

    /// How long a stop may take at most, before the one who waits gives up.
    pub fn stop_limit(&self) -> Duration {
        self.stop_timeout.min(LONGEST_STOP) + Duration::from_secs(5)
    }

    /// Who holds the daemon's lock. A pidfile that was removed while it ran is none: then its facts
    /// tell.
    pub fn probe(&self) -> Probe {
        match pidfile::probe(&self.pid_file, &self.trusted) {
            Probe::Running(process) => Probe::Running(process),
            other => self.ready().map_or(other, Probe::Running),
        }
    }

    /// The daemon that stands behind the facts: it has been ready once.
    fn ready(&self) -> Option<Process> {
        let found = self.found.as_ref()?;
        pidfile::holder(&found.file, found.facts.pid, &self.trusted).ok()
    }

    /// Removes what a daemon that was killed has left, and names it: nothing as long as somebody holds
    /// the lock. As root only where nobody else can put another file in its place: elsewhere this
    /// process becomes the folder's owner for good.
    pub fn clear(&self) -> Result<Vec<PathBuf>, String> {
        let there = |path: &&PathBuf| path.symlink_metadata().is_ok();
        let monitor = self.monitor_socket();
        let files = [&self.pid_file, &self.socket, &monitor, &self.facts];
        let left: Vec<PathBuf> = files.into_iter().filter(there).cloned().collect();
        for file in &left {
            self.become_owner_of(file.parent().unwrap_or(Path::new("/")))?;
        }
        if left.is_empty() {
            return Ok(left);
        }
        let deadline = Instant::now() + DYING;
        let lock = loop {
            match PidFile::lock(&self.pid_file) {
                Ok(lock) => break Some(lock),
                // Without its folder there is nothing to hold.
                Err(Locked::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    break None;
                }
                Err(Locked::Running(_)) if Instant::now() < deadline => {}
                Err(locked) => return Err(locked.to_string()),
            }
        };
        let removed = |path: &Path, done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", path.display()))
            }
            _ => Ok(()),
        };
        removed(&self.facts, facts::clear(&self.facts).map(|_| ()))?;
        removed(&monitor, std::fs::remove_file(&monitor))?;
        removed(&self.socket, std::fs::remove_file(&self.socket))?;
        lock.map_or(Ok(()), |lock| removed(&self.pid_file, lock.release()))?;
        Ok(left.into_iter().filter(|path| path.symlink_metadata().is_err()).collect())
    }

    fn become_owner_of(&self, folder: &Path) -> Result<(), String> {
        if !geteuid().is_root() || is_roots_alone(folder) {
            return Ok(());
        }
        let shown = folder.display();
        let stat = std::fs::metadata(folder).map_err(|error| format!("{shown}: {error}"))?;
        let owner = Uid::from_raw(stat.uid());
        if owner.is_root() || !self.trusts(owner) {
            return Err(format!("root removes nothing in {shown}, where others can write"));
        }
        Owner::of_uid(owner)?.become_it()
    }
}
