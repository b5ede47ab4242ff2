//! Where mega's own files are, for commands that look into them and need nothing else: as the configuration
//! says, or, where that cannot be read, as the running daemon tells.

use super::state::Target;
use crate::config::Config;
use crate::daemon::{self, Owner};
use rustix::process::{Uid, geteuid};
use std::path::PathBuf;

pub struct Paths {
    pub queue: PathBuf,
    pub ledger: PathBuf,
    pub message_log: Option<PathBuf>,
}

/// As whom root looks at what the service user can replace.
enum As<'a> {
    Configured(&'a Config),
    User(Uid),
}

impl Paths {
    /// This process is the daemon's user from now on, where it was root.
    pub fn find(config: Result<&Config, String>, target: &Target) -> Result<Paths, String> {
        let told = || target.places.iter().find_map(|place| place.facts());
        let (paths, user) = match (config, told()) {
            (Ok(config), _) => {
                let paths = Paths {
                    queue: config.server.queue_file_path.clone(),
                    ledger: config.server.ledger_file.clone(),
                    message_log: config.log.message_log.clone(),
                };
                (paths, As::Configured(config))
            }
            (Err(_), Some((facts, owner))) => {
                eprintln!("mega: warning: the paths are those that the running daemon tells");
                let paths = Paths {
                    queue: facts.queue.clone(),
                    ledger: facts.ledger.clone(),
                    message_log: facts.message_log.clone(),
                };
                (paths, As::User(owner))
            }
            (Err(why), None) => return Err(why),
        };
        match user {
            As::Configured(config) => daemon::step_down(config)?,
            As::User(owner) if geteuid().is_root() => Owner::of_uid(owner)?.become_it()?,
            As::User(_) => {}
        }
        Ok(paths)
    }
}
