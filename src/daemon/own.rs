//! Whose mega's own files and folders are to be. Root gives them away only where nobody but root can put anything in their place; everywhere else it touches nothing, and what the
//! daemon cannot use then is named with the command that mends it. On the main thread, before any
//! other exists.

use super::Owner;
use super::domains::{Domain, Domains};
use super::way::{Found, controlled, is_roots};
use crate::config::Config;
use crate::file::planted;
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, access, chownat, fstat, mkdirat, openat,
    statat,
};
use rustix::io::Errno;
use rustix::process::Uid;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// As root: gives what is mega's own to whom the daemon will run as, and creates the folders that are
/// missing, where only root can write.
pub fn hand_over(config: &Config, owner: &Owner) -> Result<(), String> {
    for domain in Domains::of(config).0 {
        let given = give_domain(&domain, owner);
        if domain.is_needed_itself() {
            given?;
        }
    }
    Ok(())
}

fn give_domain(domain: &Domain, owner: &Owner) -> Result<(), String> {
    let shown = domain.folder.display();
    let cannot = |error: io::Error| format!("cannot give {shown} to {}: {error}", owner.name());
    match controlled(&domain.folder).map_err(cannot)? {
        Found::Folder(folder) => give_folder(&folder, domain, owner).map_err(cannot),
        Found::Missing { above, name } => {
            mkdirat(&above, &name, Mode::from_raw_mode(0o750))
                .map_err(|error| format!("cannot create the folder {shown}: {error}"))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let made = openat(&above, &name, flags, Mode::empty()).map_err(io::Error::from);
            made.and_then(|made| give(&made, owner)).map_err(cannot)
        }
        Found::NotRoots => Ok(()),
    }
}

/// The files first: with the folder the new owner gets the power to replace them.
fn give_folder(folder: &OwnedFd, domain: &Domain, owner: &Owner) -> io::Result<()> {
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
        match (domain.owns(&name), FileType::from_raw_mode(stat.st_mode)) {
            (true, FileType::RegularFile) if plain && is_roots(&stat) => give(&entry, owner)?,
            // A socket is bound anew, and the queue's folder is a domain of its own.
            (true, FileType::RegularFile | FileType::Directory | FileType::Socket) => {}
            _ => only_own = false,
        }
    }
    match only_own {
        true => give(folder, owner),
        false => Ok(()),
    }
}

pub(super) fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
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

/// As whom the daemon runs: creates the folders that are still missing, and says what in them it
/// could not use, before it is found out one by one.
pub fn check(config: &Config, owner: &Owner) -> Result<(), String> {
    let today = chrono::Local::now().date_naive();
    let root = owner.ids().0.is_root();
    let (mut unusable, mut foreign) = (Vec::new(), Vec::new());
    for domain in Domains::of(config).needed() {
        let folder = &domain.folder;
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
        for entry in entries.flatten().filter(|e| domain.is_needed(&e.file_name(), today)) {
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
            "root does not use files of other users: name their user in setting.user, or run: chown -h \
             root:root {paths}"
        ));
    }
    if unusable.is_empty() {
        return Ok(());
    }
    let paths = shown(&unusable);
    Err(format!(
        "the user {} cannot write to {paths}; run: chown -h {} {paths} (a folder that others use as well \
         is better left to them: choose another for mega)",
        owner.name(),
        owner.shown()
    ))
}

/// As root: the command that gives the owner what is mega's own and is not the owner's yet, where root does
/// not give it away by itself. No link is followed: what stands there is not root's to look after.
pub fn change_hands(config: &Config, owner: &Owner) -> Option<String> {
    let (user, today) = (owner.ids().0, chrono::Local::now().date_naive());
    let others = |path: &PathBuf| {
        path.symlink_metadata().is_ok_and(|stat| Uid::from_raw(stat.uid()) != user)
    };
    let (mut single, mut whole) = (Vec::new(), Vec::new());
    for domain in Domains::of(config).needed() {
        if !matches!(controlled(&domain.folder), Ok(Found::NotRoots)) {
            continue;
        }
        // Root needs no folder of its own.
        let folder = (!user.is_root()).then(|| domain.folder.clone()).filter(others);
        let entries = std::fs::read_dir(&domain.folder).into_iter().flatten().flatten();
        let needed = entries.filter(|entry| domain.is_needed(&entry.file_name(), today));
        let files: Vec<PathBuf> = needed.map(|entry| entry.path()).filter(others).collect();
        match domain.queue && folder.is_some() {
            // Nothing but mega's own stands in it.
            true => whole.extend(folder),
            false => single.extend(files.into_iter().filter(|path| !path.is_dir()).chain(folder)),
        }
    }
    let command = |options: &str, paths: &[PathBuf]| {
        let paths = (!paths.is_empty()).then(|| shown(paths));
        paths.map(|paths| format!("chown {options} {} {paths}", owner.shown()))
    };
    let commands: Vec<String> =
        [command("-hRf", &whole), command("-hf", &single)].into_iter().flatten().collect();
    // Some of it goes with the daemon, and is not there any more when this is run.
    (!commands.is_empty()).then(|| commands.join("; "))
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
pub(super) fn is_foreign(path: &Path) -> Result<bool, String> {
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
