//! What a daemon shows of itself: its pidfile, its administration socket and its facts. Main keeps an
//! eye on them, puts back what somebody removed or replaced, and takes them away at the end.

use super::admin;
use super::facts::{self, Facts, Published};
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
    socket: PathBuf,
    /// Device and inode of the socket that this daemon listens on.
    bound: Option<(u64, u64)>,
    facts: Facts,
    facts_path: PathBuf,
    published: Option<Published>,
    troubles: [Seldom; 3],
}

impl Presence {
    /// Takes the pidfile. To be called after the last fork, as the user the daemon runs as.
    pub fn begin(config: &Config) -> Result<Presence, Locked> {
        let pid_file = PidFile::lock(&config.setting.pid_file)?;
        let facts_path = facts::path(&config.root, &config.name);
        // Those of a daemon that was killed say nothing any more; where they cannot be removed, nobody
        // holds their lock, which says the same.
        let _ = facts::clear(&facts_path);
        Ok(Presence {
            pid_file: Some(pid_file),
            socket: config.admin_socket(),
            bound: None,
            facts: Facts::of(config),
            facts_path,
            published: None,
            troubles: Default::default(),
        })
    }

    /// Before there are threads.
    pub fn listen(&mut self) -> Result<UnixListener, String> {
        let shown = self.socket.display();
        let failed = |error| format!("cannot create the administration socket {shown}: {error}");
        let listener = admin::bind(&self.socket).map_err(failed)?;
        self.bound = identity(&self.socket);
        Ok(listener)
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

    /// Puts back what is gone. Returns a new administration socket where the old one was removed.
    pub fn look(&mut self) -> Option<UnixListener> {
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
        if self.bound == identity(&self.socket) {
            return None;
        }
        let listener = admin::bind(&self.socket).map_err(|error| error.to_string());
        self.bound = listener.as_ref().ok().and(identity(&self.socket)).or(self.bound);
        let again = listener.as_ref().map(|_| ()).map_err(Clone::clone);
        tell(&self.socket, again, &mut self.troubles[2]);
        listener.ok()
    }
}

/// Who looks from now on sees less and less of the daemon; the lock goes last.
impl Drop for Presence {
    fn drop(&mut self) {
        self.published = None;
        if self.bound.is_some() && self.bound == identity(&self.socket) {
            // A socket that nobody listens on is no obstacle.
            let _ = std::fs::remove_file(&self.socket);
        }
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
