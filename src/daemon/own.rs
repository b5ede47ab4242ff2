//! Which files and folders are mega's own, and whose they are to be. Root gives them away only where
//! nobody but root can put anything in their place; everywhere else it touches nothing, and what the
//! daemon cannot use then is named with the command that mends it. On the main thread, before any
//! other exists.

use super::Owner;
use crate::config::{Config, Dsn};
use crate::file::planted;
use chrono::NaiveDate;
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, access, chownat, fstat, mkdirat,
    openat, readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::Uid;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel itself follows.
const LINKS: usize = 40;

/// A folder and what of it is mega's own.
struct Place {
    folder: PathBuf,
    /// It is the queue's.
    queue: bool,
    names: Vec<OsString>,
    /// What stands before the date in the names of files of a day.
    dated: Vec<String>,
}

impl Place {
    fn owns(&self, name: &OsStr) -> bool {
        let named = self.names.iter().any(|own| own == name);
        named || (self.queue && is_the_queues(name)) || self.day(name).is_some()
    }

    fn day(&self, name: &OsStr) -> Option<NaiveDate> {
        let name = name.to_str()?;
        self.dated.iter().find_map(|stem| {
            let rest = name.strip_prefix(stem.as_str())?.strip_prefix('-')?;
            rest.get(..10)?.parse().ok()
        })
    }

    /// The daemon writes to it: not the logs of other days, nor a damaged segment that was kept.
    fn is_needed(&self, name: &OsStr, today: NaiveDate) -> bool {
        let kept = name.as_bytes().ends_with(b".bad");
        self.owns(name) && !kept && self.day(name).is_none_or(|day| day == today)
    }
}

#[derive(Default)]
struct Places(Vec<Place>);

impl Places {
    fn at(&mut self, folder: &Path) -> &mut Place {
        let known = self.0.iter().position(|place| place.folder == folder);
        let index = known.unwrap_or_else(|| {
            let folder = folder.to_owned();
            self.0.push(Place { folder, queue: false, names: Vec::new(), dated: Vec::new() });
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
    fn of(config: &Config) -> Places {
        const DATABASE: &[&str] = &["", "-wal", "-shm", "-journal"];
        let mut places = Places::default();
        let queue = &config.server.queue_file_path;
        places.at(queue).queue = true;
        places.file(&config.setting.pid_file, &[""]);
        places.file(&config.admin_socket(), &[""]);
        places.file(&config.server.ledger_file, DATABASE);
        places.file(&config.templates_file(), &["", ".new"]);
        if let Dsn::Sqlite(database) = &config.pdo.dsn {
            places.file(database, DATABASE);
        }
        places.dated(&config.log.log_file, "");
        places.dated(&config.log.log_file, "-failed");
        if let Some(messages) = &config.log.message_log {
            places.dated(messages, "");
        }
        // Nothing else is created beside these once they are there.
        for path in [Some(queue), config.setting.log_file.as_ref()].into_iter().flatten() {
            let known = places.0.iter().any(|place| path.parent() == Some(&place.folder));
            if known || !path.exists() {
                places.file(path, &[""]);
            }
        }
        places
    }
}

/// Segments, those that are being created or were kept as damaged, the count of the day, and verdicts.
fn is_the_queues(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.contains(".seg") || name.starts_with("sent-today") || name == "verdicts"
}

/// As root: gives what is mega's own to whom the daemon will run as, and creates the folders that are
/// missing, where only root can write.
pub fn hand_over(config: &Config, owner: &Owner) -> Result<(), String> {
    for place in Places::of(config).0 {
        let cannot = |error: io::Error| {
            format!("cannot give {} to {}: {error}", place.folder.display(), owner.name())
        };
        match controlled(&place.folder).map_err(cannot)? {
            Found::Folder(folder) => give_place(&folder, &place, owner).map_err(cannot)?,
            Found::Missing { above, name } => {
                mkdirat(&above, &name, Mode::from_raw_mode(0o750)).map_err(|error| {
                    format!("cannot create the folder {}: {error}", place.folder.display())
                })?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let made = openat(&above, &name, flags, Mode::empty());
                made.map_err(io::Error::from)
                    .and_then(|made| give(&made, owner))
                    .map_err(cannot)?;
            }
            Found::NotRoots => {}
        }
    }
    Ok(())
}

/// The files first: with the folder the new owner gets the power to replace them.
fn give_place(folder: &OwnedFd, place: &Place, owner: &Owner) -> io::Result<()> {
    let mut only_own = true;
    for name in names(folder)? {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match openat(folder, &name, flags, Mode::empty()) {
            Ok(entry) => entry,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&entry)?;
        let plain = planted(&stat, FileType::RegularFile).is_none();
        match (place.owns(&name), FileType::from_raw_mode(stat.st_mode)) {
            (true, FileType::RegularFile) if plain && is_roots(&stat) => give(&entry, owner)?,
            // A socket is bound anew, and the queue's folder is a place of its own.
            (true, FileType::RegularFile | FileType::Directory | FileType::Socket) => {}
            _ => only_own = false,
        }
    }
    match only_own {
        true => give(folder, owner),
        false => Ok(()),
    }
}

fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = openat(folder, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&readable)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn give(file: &OwnedFd, owner: &Owner) -> io::Result<()> {
    let (user, group) = owner.ids();
    Ok(chownat(file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

fn is_roots(stat: &Stat) -> bool {
    Uid::from_raw(stat.st_uid).is_root()
}

enum Found {
    /// On the way to it and in it only root can change anything.
    Folder(OwnedFd),
    /// The same, but it is not there; nor may be what is above it.
    Missing {
        above: OwnedFd,
        name: OsString,
    },
    NotRoots,
}

/// Walks to a folder step by step, and follows those links that are root's. A way on which somebody
/// else may write to a folder is not gone.
fn controlled(path: &Path) -> io::Result<Found> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || openat(CWD, "/", flags, Mode::empty());
    let mut steps: VecDeque<OsString> = steps(path);
    let (mut here, mut links) = (root()?, 0);
    loop {
        let stat = fstat(&here)?;
        let shared = stat.st_mode & 0o022 != 0;
        let sticky = stat.st_mode & 0o1000 != 0;
        let Some(name) = steps.pop_front() else {
            return Ok(if is_roots(&stat) && !shared {
                Found::Folder(here)
            } else {
                Found::NotRoots
            });
        };
        if !is_roots(&stat) || (shared && !sticky) {
            return Ok(Found::NotRoots);
        }
        let next = match openat(&here, &name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) if shared => return Ok(Found::NotRoots),
            Err(Errno::NOENT) => return Ok(Found::Missing { above: here, name }),
            Err(error) => return Err(error.into()),
        };
        // In a folder like /tmp only what is root's stays where it is.
        let stat = fstat(&next)?;
        if shared && !is_roots(&stat) {
            return Ok(Found::NotRoots);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink if links == LINKS || !is_roots(&stat) => return Ok(Found::NotRoots),
            FileType::Symlink => {
                links += 1;
                let target = PathBuf::from(OsString::from_vec(
                    readlinkat(&next, "", Vec::new())?.into_bytes(),
                ));
                if target.is_absolute() {
                    here = root()?;
                }
                for step in self::steps(&target).into_iter().rev() {
                    steps.push_front(step);
                }
            }
            _ => here = next,
        }
    }
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    });
    named.collect()
}

/// As whom the daemon runs: creates the folders that are still missing, and says what in them it
/// could not use, before it is found out one by one.
pub fn check(config: &Config, owner: &Owner) -> Result<(), String> {
    let today = chrono::Local::now().date_naive();
    let root = owner.ids().0.is_root();
    let (mut unusable, mut foreign) = (Vec::new(), Vec::new());
    for place in Places::of(config).0 {
        let folder = &place.folder;
        if let Err(error) = make(folder) {
            return Err(format!("cannot create the folder {}: {error}", folder.display()));
        }
        if access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
            unusable.push(folder.clone());
            continue;
        }
        let entries = std::fs::read_dir(folder);
        let entries =
            entries.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        for entry in entries.flatten().filter(|e| place.is_needed(&e.file_name(), today)) {
            let path = entry.path();
            // What was planted is no file to give away: that is said before anything else.
            let is_foreign = is_foreign(&path)?;
            if root {
                if is_foreign {
                    foreign.push(path);
                }
            } else if access(&path, Access::READ_OK | Access::WRITE_OK) == Err(Errno::ACCESS) {
                unusable.push(path);
            }
        }
    }
    if !foreign.is_empty() {
        let paths = shown(&foreign);
        return Err(format!(
            "root does not use files of other users: name their user in setting.user, or run: chown \
             root:root {paths}"
        ));
    }
    if unusable.is_empty() {
        return Ok(());
    }
    let paths = shown(&unusable);
    Err(format!(
        "the user {} cannot write to {paths}; run: chown {} {paths} (a folder that others use as well \
         is better left to them: choose another for mega)",
        owner.name(),
        owner.shown()
    ))
}

fn make(folder: &Path) -> io::Result<()> {
    match folder.is_dir() {
        true => Ok(()),
        false => DirBuilder::new().recursive(true).mode(0o750).create(folder),
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(" ")
}

/// It is another user's; what only stands for a file is an error.
fn is_foreign(path: &Path) -> Result<bool, String> {
    let Ok(stat) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::Socket => return Ok(false),
        _ => {}
    }
    match planted(&stat, FileType::RegularFile) {
        Some(why) => Err(format!("cannot use {}: {why}", path.display())),
        None => Ok(!is_roots(&stat)),
    }
}

/// Nobody but root can put anything into this folder, or another folder in its place.
pub fn is_roots_alone(folder: &Path) -> bool {
    matches!(controlled(folder), Ok(Found::Folder(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_somebody_else_could_change_is_not_gone() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("own/run")).unwrap();
        std::fs::create_dir_all(path("theirs/run")).unwrap();
        std::os::unix::fs::chown(path("theirs"), Some(65534), None).unwrap();
        std::os::unix::fs::symlink(path("own"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("own"), path("their-link")).unwrap();
        std::os::unix::fs::lchown(path("their-link"), Some(65534), None).unwrap();
        assert!(is_roots_alone(&path("own/run")) && is_roots_alone(&path("link/run")));
        assert!(!is_roots_alone(&path("theirs/run")) && !is_roots_alone(&path("their-link/run")));
        assert!(!is_roots_alone(Path::new("/tmp")));
        assert!(matches!(controlled(&path("own/new/run")), Ok(Found::Missing { .. })));
        assert!(matches!(controlled(&path("theirs/new")), Ok(Found::NotRoots)));
    }

    #[test]
    fn the_days_logs_and_their_kin_are_its_own_and_others_are_not() {
        let mut places = Places::default();
        places.dated(Path::new("/x/mega.log"), "");
        places.dated(Path::new("/x/mega.log"), "-failed");
        let place = places.at(Path::new("/x"));
        for own in ["mega-2026-11-23.log", "mega-failed-2026-11-23.jsonl.requeued"] {
            assert!(place.owns(OsStr::new(own)), "{own}");
        }
        for other in ["mega.log", "mega-x.log", "omega-2026-11-23.log", "mega-2026-11-2"] {
            assert!(!place.owns(OsStr::new(other)), "{other}");
        }
    }
}
