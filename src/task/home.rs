//! Where tasks are kept: a folder for each, by its name. Decides nothing about what is in it.

use crate::daemon::{Locked, PidFile, Probe, Process};
use rustix::process::{Uid, geteuid};
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes: what a file's name can have, less what is put behind it.
const NAME_MAX: usize = 200;

const LOCK: &str = "lock";

/// A task's name: a folder's, a file's, and a word on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub fn new(text: &str) -> Result<Name, String> {
        let bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
        let good = (1..=NAME_MAX).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.trim() == text
            && !text.contains(bad);
        match good {
            true => Ok(Name(text.to_owned())),
            false => Err(format!(
                "{text:?} cannot be a task's name: 1 to {NAME_MAX} bytes without slashes and control \
                 characters, that begin with neither a dot, a hyphen nor a space"
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub struct Home(PathBuf);

impl Home {
    /// The folder that is given, or MEGA_TASK_HOME, or the customary one.
    pub fn find(given: Option<&Path>) -> Result<Home, String> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(folder) = given {
            return Ok(Home(folder.to_owned()));
        }
        if let Some(folder) = variable("MEGA_TASK_HOME") {
            return Ok(Home(folder.into()));
        }
        if geteuid().is_root() {
            return Ok(Home("/var/lib/mega-task".into()));
        }
        match variable("HOME") {
            Some(home) => Ok(Home(Path::new(&home).join(".local/state/mega-task"))),
            None => Err("where are tasks kept? Give --home FOLDER, or set MEGA_TASK_HOME".into()),
        }
    }

    pub fn place(&self, name: &Name) -> Place {
        Place { name: name.clone(), folder: self.0.join(name.as_str()) }
    }

    /// The folder of a task that is being made. What a maker that was killed left there is of no use.
    pub fn draft(&self, name: &Name) -> Result<Draft, String> {
        let failed = |path: &Path, error: io::Error| {
            format!("cannot create {}: {error} (--home FOLDER names another)", path.display())
        };
        self.is_free(name)?;
        let place = Place { name: name.clone(), folder: self.0.join(format!(".new-{name}")) };
        std::fs::create_dir_all(&place.folder).map_err(|error| failed(&place.folder, error))?;
        let lock = place.lock()?;
        for entry in std::fs::read_dir(&place.folder).into_iter().flatten().flatten() {
            if entry.file_name() != LOCK {
                std::fs::remove_file(entry.path()).map_err(|error| failed(&entry.path(), error))?;
            }
        }
        Ok(Draft { place, lock: Some(lock) })
    }

    fn is_free(&self, name: &Name) -> Result<(), String> {
        match self.place(name).folder.exists() {
            false => Ok(()),
            true => Err(format!(
                "there is a task {name} already (mega-task show {name}; mega-task resume {name} goes on with it; \
                 --name gives this one another name)"
            )),
        }
    }

    /// The draft becomes a task, which this process has.
    pub fn settle(&self, mut draft: Draft) -> Result<(Place, PidFile), String> {
        let place = self.place(&draft.place.name);
        self.is_free(&place.name)?;
        std::fs::rename(&draft.place.folder, &place.folder)
            .and_then(|()| crate::file::sync(&self.0))
            .map_err(|error| format!("cannot create {}: {error}", place.folder.display()))?;
        let lock = draft.lock.take().expect("invariant: a draft holds its lock until it settles");
        Ok((place, lock))
    }

    /// All tasks, by name.
    pub fn tasks(&self) -> Result<Vec<Place>, String> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => {
                entries.map_err(|error| format!("cannot read {}: {error}", self.0.display()))
            }
        }?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<Name> = names.filter_map(|name| Name::new(&name).ok()).collect();
        names.sort();
        Ok(names.iter().map(|name| self.place(name)).filter(Place::is_there).collect())
    }

    /// A task that there is.
    pub fn task(&self, name: &Name) -> Result<Place, String> {
        let place = self.place(name);
        match place.is_there() {
            true => Ok(place),
            false => Err(format!(
                "there is no task {name} in {} (mega-task list shows those there are)",
                self.0.display()
            )),
        }
    }
}

/// A task that is being made: gone again unless it is settled.
pub struct Draft {
    pub place: Place,
    lock: Option<PidFile>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed is used again by the next of that name.
            let _ = std::fs::remove_dir_all(&self.place.folder);
        }
    }
}

/// One task's folder.
#[derive(Clone)]
pub struct Place {
    pub name: Name,
    pub folder: PathBuf,
}

impl Place {
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("task.log")
    }

    fn is_there(&self) -> bool {
        self.journal().exists()
    }

    /// Nobody else runs or changes it as long as this is held.
    pub fn lock(&self) -> Result<PidFile, String> {
        PidFile::lock(&self.folder.join(LOCK)).map_err(|locked| match (locked, self.runs()) {
            (Locked::Io { path, error }, _) => format!(
                "cannot lock the task {}: {}: {error} (check the disk and the folder's owner)",
                self.name,
                path.display()
            ),
            (Locked::Running(_), Some(process)) => {
                format!("the task {} runs: it is the process {}", self.name, process.pid)
            }
            (Locked::Running(_), None) => {
                format!("another mega-task has the task {} in hand: try again", self.name)
            }
        })
    }

    /// The process that runs it.
    pub fn runs(&self) -> Option<Process> {
        match self.probe()? {
            Probe::Running(process) => Some(process),
            _ => None,
        }
    }

    /// The last process that had it, if that is gone and nobody has it now.
    pub fn left_by(&self) -> Option<u32> {
        match self.probe()? {
            Probe::Stale(pid) => Some(pid),
            _ => None,
        }
    }

    fn probe(&self) -> Option<Probe> {
        let owner =
            std::fs::metadata(&self.folder).map(|folder| Uid::from_raw(folder.uid())).ok()?;
        Some(crate::daemon::probe(&self.folder.join(LOCK), &[geteuid(), owner]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_and_never_a_way_to_another_folder() {
        for good in ["双十一提醒", "a b", "list.csv-20261111", &"x".repeat(NAME_MAX)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", ".x", "a/b", "a\\b", "a\nb", "-x", " a", &"x".repeat(NAME_MAX + 1)]
        {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_process_has_a_task_and_two_tasks_never_share_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path())).unwrap();
        let name = Name::new("t").unwrap();
        drop(home.draft(&name).unwrap());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left of a draft"
        );
        let draft = home.draft(&name).unwrap();
        assert!(home.draft(&name).is_err(), "two make it");
        let (place, lock) = home.settle(draft).unwrap();
        assert!(home.draft(&name).is_err());
        assert!(home.task(&name).is_err(), "it has no journal yet");
        assert!(home.tasks().unwrap().is_empty());
        assert!(place.lock().is_err(), "who made it has it");
        drop(lock);
        let lock = place.lock().unwrap();
        assert!(place.lock().err().unwrap().contains(&std::process::id().to_string()));
        drop(lock);
        drop(place.lock().unwrap());
        std::fs::remove_file(place.folder.join(LOCK)).unwrap();
        std::fs::create_dir(place.folder.join(LOCK)).unwrap();
        let error = place.lock().err().unwrap();
        assert!(error.contains("cannot lock the task t"), "{error}");
    }
}
