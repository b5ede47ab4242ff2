//! What `hand_over` and `check` of own.rs would do and say, without doing it: for a trial, which changes
//! nothing. On the main thread, before any other exists.

use super::Owner;
use super::domains::{Domain, Domains};
use super::own::{is_foreign, names};
use super::way::{Found, controlled, is_roots};
use crate::config::Config;
use crate::file::planted;
use rustix::fs::{
    Access, FileType, FsWord, Mode, OFlags, StatFs, access, fstat, fstatfs, openat, statfs,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::read_dir;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Why a file or a folder of mega's own cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    NoFolder(String),
    NotWritable,
    /// It is another user's, and root uses no such file.
    Foreign,
    /// What only stands for a file, in words.
    Planted(String),
}

/// As root: the folders and files that would be given to the owner, and the folders that would be created
/// for it.
pub fn to_be_given(config: &Config, owner: &Owner) -> Vec<PathBuf> {
    if !geteuid().is_root() || owner.ids().0.is_root() {
        return Vec::new();
    }
    let mut given = Vec::new();
    for domain in Domains::of(config).needed() {
        match controlled(&domain.folder) {
            Ok(Found::Folder(folder)) => {
                // What hinders the look hinders the gift as well.
                let _ = gifts(&folder, &domain, &mut given);
            }
            Ok(Found::Missing { above, .. }) if takes_folders(fstatfs(&above)) => {
                given.push(domain.folder);
            }
            Ok(Found::Missing { .. }) => {}
            Ok(Found::NotRoots) | Err(_) => {}
        }
    }
    given
}

fn gifts(folder: &OwnedFd, domain: &Domain, given: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut only_own = true;
    for name in names(folder)? {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(entry) = openat(folder, &name, flags, Mode::empty()) else { continue };
        let stat = fstat(&entry)?;
        let plain = planted(&stat, FileType::RegularFile).is_none();
        match (domain.owns(&name), FileType::from_raw_mode(stat.st_mode)) {
            (true, FileType::RegularFile) if plain && is_roots(&stat) => {
                given.push(domain.folder.join(name));
            }
            (true, FileType::RegularFile | FileType::Directory | FileType::Socket) => {}
            _ => only_own = false,
        }
    }
    if only_own {
        given.push(domain.folder.clone());
    }
    Ok(())
}

/// As the owner: what it could not use, once it has what is given to it.
pub fn unusable(config: &Config, owner: &Owner, given: &[PathBuf]) -> Vec<(PathBuf, Unusable)> {
    let mut found = Vec::new();
    for domain in Domains::of(config).needed() {
        let folder = domain.folder.clone();
        let is_given = given.contains(&folder);
        match folder.is_dir() {
            false if is_given => {}
            false => found.extend(not_to_be_made(&folder).map(|why| (folder, why))),
            true if !takes_folders(statfs(&folder)) => {
                let why = "the kernel makes up what is in it".to_owned();
                found.push((folder, Unusable::NoFolder(why)));
            }
            true if !is_given && access(&folder, ALL).is_err() => {
                found.push((folder, Unusable::NotWritable));
            }
            true => found.extend(in_folder(&domain, owner.ids().0.is_root(), given)),
        }
    }
    found
}

const ALL: Access = Access::READ_OK.union(Access::WRITE_OK).union(Access::EXEC_OK);

/// The folder is missing: why it could not be created.
fn not_to_be_made(folder: &Path) -> Option<Unusable> {
    let above = folder.ancestors().find(|above| above.symlink_metadata().is_ok())?;
    let why = match above.is_dir() {
        false => format!("{} is not a folder", above.display()),
        true => match access(above, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) if takes_folders(statfs(above)) => return None,
            Ok(()) => format!("{} is not a place for folders", above.display()),
            Err(error) => format!("{}: {error}", above.display()),
        },
    };
    Some(Unusable::NoFolder(why))
}

/// Root may write to every folder, but in those that the kernel makes up nothing can be created.
fn takes_folders(fs: rustix::io::Result<StatFs>) -> bool {
    const PROC: FsWord = 0x9fa0;
    const SYSFS: FsWord = 0x6265_6572;
    fs.is_ok_and(|fs| ![PROC, SYSFS].contains(&fs.f_type))
}

fn in_folder(domain: &Domain, root: bool, given: &[PathBuf]) -> Vec<(PathBuf, Unusable)> {
    let today = chrono::Local::now().date_naive();
    // One that is given may be closed until then.
    let entries = read_dir(&domain.folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries.filter(|entry| domain.is_needed(&entry.file_name(), today)) {
        let path = entry.path();
        match is_foreign(&path) {
            Err(why) => found.push((path, Unusable::Planted(why))),
            Ok(true) if root => found.push((path, Unusable::Foreign)),
            Ok(_) if given.contains(&path) => {}
            Ok(_) => match access(&path, Access::READ_OK | Access::WRITE_OK) {
                // The last two concern root, too: it is made immutable, or the disk is mounted so.
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                    found.push((path, Unusable::NotWritable));
                }
                _ => {}
            },
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_be_made_where_its_nearest_one_above_is_real_and_open() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(not_to_be_made(&folder.path().join("a/b/c")), None);
        let below_a_file = not_to_be_made(&folder.path().join("file/a")).unwrap();
        assert!(matches!(below_a_file, Unusable::NoFolder(why) if why.contains("is not a folder")));
        assert!(not_to_be_made(Path::new("/proc/mega/queue")).is_some());
        assert!(not_to_be_made(Path::new("/sys/mega")).is_some());
    }
}
