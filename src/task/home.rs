//! Where tasks are kept: a folder for each, by its name. Decides nothing about what is in it.

use crate::daemon::{PidFile, Probe, Process};
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

    /// A new task's folder, which nobody else has.
    pub fn create(&self, name: &Name) -> Result<Place, String> {
        let place = self.place(name);
        let failed = |path: &Path, error: io::Error| {
            format!("cannot create {}: {error} (--home FOLDER names another)", path.display())
        };
        std::fs::create_dir_all(&self.0).map_err(|error| failed(&self.0, error))?;
        std::fs::create_dir(&place.folder).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "there is a task {name} already (mega-task show {name}; resume {name} goes on with it; \
                 --name gives this one another name)"
            ),
            _ => failed(&place.folder, error),
        })?;
        Ok(place)
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
        PidFile::lock(&self.folder.join(LOCK)).map_err(|locked| match self.runs() {
            Some(process) => {
                format!("the task {} runs: it is the process {}", self.name, process.pid)
            }
            None => format!("the task {} is being looked at: {locked}; try again", self.name),
        })
    }

    /// The process that runs it.
    pub fn runs(&self) -> Option<Process> {
        let owner =
            std::fs::metadata(&self.folder).map(|folder| Uid::from_raw(folder.uid())).ok()?;
        match crate::daemon::probe(&self.folder.join(LOCK), &[geteuid(), owner]) {
            Probe::Running(process) => Some(process),
            _ => None,
        }
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
        let place = home.create(&name).unwrap();
        assert!(home.create(&name).is_err());
        assert!(home.task(&name).is_err(), "it has no journal yet");
        assert!(home.tasks().unwrap().is_empty());
        let lock = place.lock().unwrap();
        assert!(place.lock().err().unwrap().contains(&std::process::id().to_string()));
        drop(lock);
        place.lock().unwrap();
    }
}
