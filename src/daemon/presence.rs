//! What a daemon shows of itself: its pidfile, its administration sockets and its facts. Main keeps an
//! eye on them, puts back what somebody removed or replaced, and takes them away at the end.

use super::admin;
use super::facts::{self, Facts, Published};
use super::groups::{self, Admitted};
use super::pidfile::{Locked, PidFile};
use crate::clock::Seldom;
use crate::config::Config;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is looked whether all of it is there.
pub const GLANCE: Duration = Duration::from_secs(2);

pub struct Presence {
    /// None once it is over.
    pid_file: Option<PidFile>,
    admin: Ear,
    /// Where those are heard who may only look, if there are any.
    monitor: Option<Ear>,
    facts: Facts,
    facts_path: PathBuf,
    published: Option<Published>,
    troubles: [Seldom; 2],
}

/// A socket that questions come in by.
struct Ear {
    path: PathBuf,
    admitted: Option<Admitted>,
    /// Device and inode of the socket that this daemon listens on.
    bound: Option<(u64, u64)>,
    trouble: Seldom,
}

/// The sockets that questions come in by, or those that stand in the place of removed ones.
#[derive(Default)]
pub struct Ears {
    pub admin: Option<UnixListener>,
    pub monitor: Option<UnixListener>,
}

impl Ear {
    fn new(path: PathBuf, admitted: Option<Admitted>) -> Ear {
        Ear { path, admitted, bound: None, trouble: Seldom::default() }
    }

    fn bind(&mut self) -> Result<UnixListener, String> {
        let shown = self.path.display();
        let failed = |error| format!("cannot create the administration socket {shown}: {error}");
        let listener = admin::bind(&self.path).map_err(failed)?;
        self.bound = identity(&self.path);
        Ok(listener)
    }

    /// Lets those use it who may beside the daemon's user.
    fn admit(&self) -> Result<(), String> {
        self.admitted.as_ref().map_or(Ok(()), |admitted| admitted.admit(&self.path))
    }

    fn open(&mut self) -> Result<UnixListener, String> {
        let listener = self.bind()?;
        self.admit().map(|()| listener)
    }

    /// A new one where the old one was removed.
    fn look(&mut self) -> Option<UnixListener> {
        if self.bound == identity(&self.path) {
            return None;
        }
        let listener = self.bind();
        let again = listener.as_ref().map(|_| ()).map_err(Clone::clone);
        tell(&self.path, again, &mut self.trouble);
        // Those who may always ask are heard all the same.
        if listener.is_ok()
            && let Err(why) = self.admit()
        {
            log::warn!("{why}; only root and the daemon's user can ask it there");
        }
        listener.ok()
    }

    fn remove(&self) {
        if self.bound.is_some() && self.bound == identity(&self.path) {
            // A socket that nobody listens on is no obstacle.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Presence {
    /// Takes the pidfile. To be called after the last fork, as the user the daemon runs as.
    pub fn begin(config: &Config) -> Result<Presence, Locked> {
        let pid_file = PidFile::lock(&config.setting.pid_file)?;
        let facts_path = facts::path(&config.root, &config.name);
        // Those of a daemon that was killed say nothing any more; where they cannot be removed, nobody
        // holds their lock, which says the same.
        let _ = facts::clear(&facts_path);
        let monitor =
            groups::monitors(config).map(|group| Ear::new(config.monitor_socket(), Some(group)));
        if monitor.is_none() {
            // One that was left by a run with other settings.
            let _ = std::fs::remove_file(config.monitor_socket());
        }
        Ok(Presence {
            pid_file: Some(pid_file),
            admin: Ear::new(config.admin_socket(), groups::admins(config)),
            monitor,
            facts: Facts::of(config),
            facts_path,
            published: None,
            troubles: Default::default(),
        })
    }

    /// Before there are threads.
    pub fn listen(&mut self) -> Result<(UnixListener, Option<UnixListener>), String> {
        Ok((self.admin.open()?, self.monitor.as_mut().map(Ear::open).transpose()?))
    }

    /// The daemon is ready. Where the facts cannot be written it goes on without.
    pub fn publish(&mut self) -> Result<(), String> {
        self.published = Some(self.facts.publish(&self.facts_path).map_err(|error| {
            let shown = self.facts_path.display();
            format!(
                "cannot write {shown}: {error}: commands find this daemon by its configuration only, as \
                 long as that is right"
            )
        })?);
        Ok(())
    }

    /// The daemon goes by another configuration from now on.
    pub fn configure(&mut self, config: &Config) {
        self.facts = Facts::of(config);
        if self.published.take().is_some()
            && let Err(warning) = self.publish()
        {
            log::warn!("{warning}");
        }
    }

    /// Puts back what is gone. Returns new administration sockets where old ones were removed.
    pub fn look(&mut self) -> Ears {
        if let Some(pid_file) = self.pid_file.as_mut().filter(|file| !file.is_there()) {
            let path = pid_file.path().to_owned();
            let again = lock_again(&path).map(|again| *pid_file = again);
            tell(&path, again, &mut self.troubles[0]);
        }
        if self.published.as_ref().is_some_and(|published| !published.is_there()) {
            let again = self.facts.publish(&self.facts_path);
            let again = again.map(|again| self.published = Some(again));
            tell(&self.facts_path, again.map_err(|error| error.to_string()), &mut self.troubles[1]);
        }
        Ears { admin: self.admin.look(), monitor: self.monitor.as_mut().and_then(Ear::look) }
    }
}

/// Who looks from now on sees less and less of the daemon; the lock goes last.
impl Drop for Presence {
    fn drop(&mut self) {
        self.published = None;
        self.monitor.iter().chain([&self.admin]).for_each(Ear::remove);
        if let Some(Err(error)) = self.pid_file.take().map(PidFile::release) {
            log::warn!("the pidfile cannot be removed and is empty now: {error}");
        }
    }
}

/// What stands there now is a file of nobody who could be asked: a link, a pipe, a copy.
fn lock_again(path: &Path) -> Result<PidFile, String> {
    PidFile::lock(path)
        .or_else(|locked| match locked {
            Locked::Running(_) => Err(locked),
            Locked::Io { .. } => {
                let removed = std::fs::remove_file(path);
                removed.map_err(|error| Locked::Io { path: path.to_owned(), error })?;
                PidFile::lock(path)
            }
        })
        .map_err(|locked| locked.to_string())
}

fn tell(path: &Path, again: Result<(), String>, trouble: &mut Seldom) {
    let shown = path.display();
    match again {
        Ok(()) => log::warn!("{shown} was removed or replaced, and is put back"),
        Err(why) if trouble.now() => {
            log::warn!("{shown} was removed or replaced and cannot be put back: {why}");
        }
        Err(_) => {}
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|stat| (stat.dev(), stat.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_put_back_is_heard_though_a_group_cannot_be_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::demo(folder.path()).unwrap();
        config.setting.admin_group = Some("there-is-no-such-group".into());
        let path = folder.path().join("admin.sock");
        let mut ear = Ear::new(path.clone(), groups::admins(&config));
        assert!(ear.open().is_err(), "at the start it is an error");
        let _first = ear.bind().unwrap();
        std::fs::remove_file(&path).unwrap();
        let listener = ear.look().expect("a new one");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(listener.accept().is_ok());
        assert!(ear.look().is_none(), "it is there");
    }
}
