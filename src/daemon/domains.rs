//! Which files and folders are mega's own, as the configuration has them. Looks at no file but to see
//! whether it is there.

use super::facts;
use crate::config::{Config, Dsn};
use chrono::NaiveDate;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder and what of it is mega's own.
pub struct Domain {
    pub folder: PathBuf,
    /// It is the queue's.
    pub queue: bool,
    names: Vec<OsString>,
    /// The daemon can do without these, and without the folder if it has nothing else.
    spare: Vec<OsString>,
    /// What stands before the date in the names of files of a day.
    dated: Vec<String>,
    /// What begins so was set aside, and nothing is written to it any more.
    aside: Vec<OsString>,
}

impl Domain {
    pub fn owns(&self, name: &OsStr) -> bool {
        let named = self.names.iter().chain(&self.spare).any(|own| own == name);
        named
            || (self.queue && is_the_queues(name))
            || self.day(name).is_some()
            || self.is_aside(name)
    }

    fn is_aside(&self, name: &OsStr) -> bool {
        self.aside.iter().any(|start| name.as_bytes().starts_with(start.as_bytes()))
    }

    fn day(&self, name: &OsStr) -> Option<NaiveDate> {
        let name = name.to_str()?;
        self.dated.iter().find_map(|stem| {
            let rest = name.strip_prefix(stem.as_str())?.strip_prefix('-')?;
            rest.get(..10)?.parse().ok()
        })
    }

    /// Something that the daemon cannot do without stands in it.
    pub fn is_needed_itself(&self) -> bool {
        self.queue || !self.names.is_empty() || !self.dated.is_empty()
    }

    /// The daemon writes to it: not the logs of other days, nor a damaged segment that was kept.
    pub fn is_needed(&self, name: &OsStr, today: NaiveDate) -> bool {
        let kept = name.as_bytes().ends_with(b".bad") || self.is_aside(name);
        let spare = self.spare.iter().any(|spare| spare == name);
        self.owns(name) && !kept && !spare && self.day(name).is_none_or(|day| day == today)
    }
}

#[derive(Default)]
pub struct Domains(pub Vec<Domain>);

impl Domains {
    fn at(&mut self, folder: &Path) -> &mut Domain {
        let known = self.0.iter().position(|domain| domain.folder == folder);
        let index = known.unwrap_or_else(|| {
            let (names, spare, dated, aside) = Default::default();
            let folder = folder.to_owned();
            self.0.push(Domain { folder, queue: false, names, spare, dated, aside });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    fn file(&mut self, path: &Path, endings: &[&str]) {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            let names = endings.iter().map(|ending| {
                let mut name = name.to_owned();
                name.push(ending);
                name
            });
            self.at(folder).names.extend(names);
        }
    }

    fn dated(&mut self, path: &Path, mark: &str) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        self.at(path.parent().unwrap_or(Path::new("/"))).dated.push(format!("{stem}{mark}"));
    }

    /// The queue's folder before the one it stands in.
    pub fn of(config: &Config) -> Domains {
        const DATABASE: &[&str] = &["", "-wal", "-shm", "-journal"];
        let mut domains = Domains::default();
        let queue = &config.server.queue_file_path;
        domains.at(queue).queue = true;
        domains.file(&config.setting.pid_file, &[""]);
        domains.file(&config.admin_socket(), &[""]);
        domains.file(&config.monitor_socket(), &[""]);
        domains.file(&config.server.ledger_file, DATABASE);
        if let (Some(folder), Some(name)) =
            (config.server.ledger_file.parent(), config.server.ledger_file.file_name())
        {
            let mut aside = name.to_owned();
            aside.push(".bad");
            domains.at(folder).aside.push(aside);
        }
        domains.file(&config.templates_file(), &["", ".new"]);
        if let Dsn::Sqlite(database) = &config.pdo.dsn {
            domains.file(database, DATABASE);
        }
        if let Some(log) = config.log.log_file.path() {
            domains.dated(log, "");
            domains.dated(log, "-failed");
        }
        if let Some(messages) = &config.log.message_log {
            domains.dated(messages, "");
        }
        // Nothing else is created beside these once they are there.
        for path in [Some(queue), config.setting.log_file.as_ref()].into_iter().flatten() {
            let known = domains.0.iter().any(|domain| path.parent() == Some(&domain.folder));
            if known || !path.exists() {
                domains.file(path, &[""]);
            }
        }
        let facts = facts::path(&config.root, &config.name);
        if let (Some(folder), Some(name)) = (facts.parent(), facts.file_name()) {
            let mut fresh = name.to_owned();
            fresh.push(facts::FRESH);
            domains.at(folder).spare.extend([name.to_owned(), fresh]);
        }
        domains
    }

    /// Those that the daemon cannot do without.
    pub fn needed(self) -> impl Iterator<Item = Domain> {
        self.0.into_iter().filter(Domain::is_needed_itself)
    }
}

/// Segments, those that are being created or were kept as damaged, and what is kept beside them.
pub fn is_the_queues(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    const NAMES: [&str; 5] = ["sent-today", "verdicts", "paused", "cancels", "token-calls"];
    name.contains(".seg") || NAMES.iter().any(|own| name.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_was_set_aside_is_its_own_and_not_needed() {
        let config = Config::demo(Path::new("/x")).unwrap();
        let domains = Domains::of(&config);
        let ledger = config.server.ledger_file.file_name().unwrap().to_str().unwrap().to_owned();
        let folder = config.server.ledger_file.parent().unwrap();
        let domain = domains.0.iter().find(|domain| domain.folder == folder).unwrap();
        let today = chrono::Local::now().date_naive();
        for ending in [".bad", ".bad-wal", ".bad.1", ".bad.1-wal"] {
            let name = OsString::from(format!("{ledger}{ending}"));
            assert!(domain.owns(&name) && !domain.is_needed(&name, today), "{name:?}");
        }
        assert!(!domain.owns(OsStr::new(&format!("{ledger}.mine"))));
    }

    #[test]
    fn the_days_logs_and_their_kin_are_its_own_and_others_are_not() {
        let mut domains = Domains::default();
        domains.dated(Path::new("/x/mega.log"), "");
        domains.dated(Path::new("/x/mega.log"), "-failed");
        let domain = domains.at(Path::new("/x"));
        for own in ["mega-2026-11-23.log", "mega-failed-2026-11-23.jsonl.requeued"] {
            assert!(domain.owns(OsStr::new(own)), "{own}");
        }
        for other in ["mega.log", "mega-x.log", "omega-2026-11-23.log", "mega-2026-11-2"] {
            assert!(!domain.owns(OsStr::new(other)), "{other}");
        }
    }
}
