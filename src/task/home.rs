//! Where tasks are kept: a folder for each, by its name, that nobody but its owner may enter. Decides nothing about
//! what is in it.

use super::exit::{self, Refused};
use crate::daemon::{Locked, PidFile, Probe, Process};
use rustix::process::{Uid, geteuid};
use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes: what a file's name can have, less what is put behind it.
const NAME_MAX: usize = 200;

const LOCK: &str = "lock";

/// Lists and results are about people: no one else may read them, or hold a task's lock.
const OWN: u32 = 0o700;

/// A task's name: a folder's, a file's, and a word on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub fn new(text: &str) -> Result<Name, Refused> {
        let bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
        let good = (1..=NAME_MAX).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.trim() == text
            && !text.contains(bad);
        match good {
            true => Ok(Name(text.to_owned())),
            false => Err(Refused::wrong([
                format!(
                    "{text:?} cannot be a task's name: 1 to {NAME_MAX} bytes without slashes and control \
                     characters, that begin with neither a dot, a hyphen nor a space"
                ),
                format!(
                    "{text:?} 不能作任务名：应为 1 到 {NAME_MAX} 字节，不含斜杠和控制字符，不以点、连字符或空格开头"
                ),
            ])),
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
    pub fn find(given: Option<&Path>) -> Result<Home, Refused> {
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
            None => Err(Refused::wrong([
                "where are tasks kept? Give --home FOLDER, or set MEGA_TASK_HOME",
                "任务存放在哪里？请用 --home FOLDER 指定，或设置 MEGA_TASK_HOME",
            ])),
        }
    }

    pub fn place(&self, name: &Name) -> Place {
        Place { name: name.clone(), folder: self.0.join(name.as_str()) }
    }

    /// Others may look into the folder itself: who has what tasks, though nothing of them.
    pub fn is_open_to_others(&self) -> bool {
        std::fs::metadata(&self.0).is_ok_and(|folder| folder.mode() & !OWN & 0o777 != 0)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The folder of a task that is being made. What a maker that was killed left there is of no use.
    pub fn draft(&self, name: &Name) -> Result<Draft, Refused> {
        let failed = |path: &Path, error: io::Error| {
            let (path, folder) = (path.display(), "--home FOLDER");
            Refused::new(
                exit::FAILED,
                [
                    format!("cannot create {path}: {error} ({folder} names another)"),
                    format!("无法创建 {path}：{error}（可用 {folder} 另指定目录）"),
                ],
            )
        };
        self.is_free(name)?;
        let place = Place { name: name.clone(), folder: self.0.join(format!(".new-{name}")) };
        let folder = &place.folder;
        let made = DirBuilder::new().recursive(true).mode(OWN).create(folder);
        made.and_then(|()| make_own(folder)).map_err(|error| failed(folder, error))?;
        let lock = place.lock()?;
        for entry in std::fs::read_dir(&place.folder).into_iter().flatten().flatten() {
            if entry.file_name() != LOCK {
                std::fs::remove_file(entry.path()).map_err(|error| failed(&entry.path(), error))?;
            }
        }
        Ok(Draft { place, lock: Some(lock) })
    }

    fn is_free(&self, name: &Name) -> Result<(), Refused> {
        match self.place(name).folder.exists() {
            false => Ok(()),
            true => Err(Refused::unfit([
                format!(
                    "there is a task {name} already (mega-task show {name}; mega-task resume {name} goes on with \
                         it, remove {name} frees its name; --name gives this one another)"
                ),
                format!(
                    "任务 {name} 已存在（mega-task show {name} 查看，resume {name} 继续，remove {name} 删除；\
                         或用 --name 另取名称）"
                ),
            ])),
        }
    }

    /// The draft becomes a task, which this process has.
    pub fn settle(&self, mut draft: Draft) -> Result<(Place, PidFile), Refused> {
        let place = self.place(&draft.place.name);
        self.is_free(&place.name)?;
        std::fs::rename(&draft.place.folder, &place.folder)
            .and_then(|()| crate::file::sync(&self.0))
            .map_err(|error| format!("cannot create {}: {error}", place.folder.display()))?;
        let lock = draft.lock.take().expect("invariant: a draft holds its lock until it settles");
        Ok((place, lock))
    }

    /// Nothing is left of the task, which this process has; its name is free at once.
    pub fn remove(&self, place: &Place, _lock: PidFile) -> Result<(), String> {
        let name = &place.name;
        let gone = self.0.join(format!(".gone-{name}"));
        let failed = |error: io::Error| format!("cannot remove {}: {error}", gone.display());
        // Somebody who removed one of that name was killed.
        match std::fs::remove_dir_all(&gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::rename(&place.folder, &gone)
            .and_then(|()| crate::file::sync(&self.0))
            .map_err(|error| format!("cannot remove {}: {error}", place.folder.display()))?;
        std::fs::remove_dir_all(&gone).map_err(failed)
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
    pub fn task(&self, name: &Name) -> Result<Place, Refused> {
        let place = self.place(name);
        if !place.is_there() {
            let folder = self.0.display();
            return Err(Refused::wrong([
                format!(
                    "there is no task {name} in {folder} (mega-task list shows those there are)"
                ),
                format!("{folder} 中没有任务 {name}（mega-task list 列出全部任务）"),
            ]));
        }
        // One that an earlier version made; another user's is that user's affair.
        if let Err(error) = make_own(&place.folder)
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(format!("{}: {error}", place.folder.display()).into());
        }
        Ok(place)
    }
}

/// Nobody but its owner may enter the folder.
fn make_own(folder: &Path) -> io::Result<()> {
    match std::fs::metadata(folder)?.mode() & 0o777 {
        OWN => Ok(()),
        _ => std::fs::set_permissions(folder, Permissions::from_mode(OWN)),
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
    pub fn lock(&self) -> Result<PidFile, Refused> {
        let (name, path) = (&self.name, self.folder.join(LOCK));
        let why = |locked| match (locked, self.runs()) {
            (Locked::Io { path, error }, _) => {
                let path = path.display();
                [
                    format!(
                        "cannot lock the task {name}: {path}: {error} (check the disk and the folder's owner)"
                    ),
                    format!("无法锁定任务 {name}：{path}：{error}（请检查磁盘和目录属主）"),
                ]
            }
            (Locked::Running(_), Some(process)) => {
                let pid = process.pid;
                [
                    format!("the task {name} runs: it is the process {pid}"),
                    format!("任务 {name} 正在运行：进程 {pid}"),
                ]
            }
            // What the file says is of a process that had it before.
            (Locked::Running(_), None) => {
                let path = path.display();
                [
                    format!(
                        "somebody holds the lock of the task {name}: try again (fuser -v {path:?} shows who)"
                    ),
                    format!("任务 {name} 的锁被占用，请稍后再试（fuser -v {path:?} 可查看占用者）"),
                ]
            }
        };
        PidFile::lock(&path).map_err(|locked| Refused::new(exit::FAILED, why(locked)))
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
        let error = place.lock().err().unwrap();
        assert!(error.why[0].contains(&std::process::id().to_string()), "{error:?}");
        drop(lock);
        drop(place.lock().unwrap());
        std::fs::remove_file(place.folder.join(LOCK)).unwrap();
        std::fs::create_dir(place.folder.join(LOCK)).unwrap();
        let error = place.lock().err().unwrap();
        assert!(error.why[0].contains("cannot lock the task t"), "{error:?}");
    }

    fn mode(folder: &Path) -> u32 {
        std::fs::metadata(folder).unwrap().mode() & 0o777
    }

    #[test]
    fn nobody_else_may_enter_a_task_also_one_that_was_open_before() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(&folder.path().join("a/home"))).unwrap();
        let name = Name::new("t").unwrap();
        let draft = home.draft(&name).unwrap();
        assert_eq!((mode(home.folder()), mode(&draft.place.folder)), (0o700, 0o700));
        let (place, lock) = home.settle(draft).unwrap();
        assert!(!home.is_open_to_others());
        std::fs::write(place.journal(), "").unwrap();
        for folder in [home.folder(), &place.folder] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        assert!(home.is_open_to_others());
        home.task(&name).unwrap();
        assert_eq!(mode(&place.folder), 0o700);
        home.remove(&place, lock).unwrap();
        assert_eq!(std::fs::read_dir(home.folder()).unwrap().count(), 0);
        assert_eq!(home.task(&name).err().unwrap().code, exit::WRONG);
    }

    #[test]
    fn a_lock_that_a_stranger_holds_is_no_fault_of_who_had_it_before() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path())).unwrap();
        let draft = home.draft(&Name::new("t").unwrap()).unwrap();
        let (place, lock) = home.settle(draft).unwrap();
        drop(lock);
        let path = place.folder.join(LOCK);
        std::fs::write(&path, "999999999\n").unwrap();
        let held = std::fs::File::open(&path).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
        let error = place.lock().err().unwrap();
        assert!(error.why[0].contains("somebody holds the lock"), "{error:?}");
        assert!(error.why.iter().all(|why| !why.contains("999999999")), "{error:?}");
    }
}
