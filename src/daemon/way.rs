//! The way to a folder: whether somebody but root could change where it leads. Walks it step by step; changes
//! nothing.

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::Uid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel itself follows.
const LINKS: usize = 40;

pub(super) fn is_roots(stat: &Stat) -> bool {
    Uid::from_raw(stat.st_uid).is_root()
}

pub(super) enum Found {
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
pub(super) fn controlled(path: &Path) -> io::Result<Found> {
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
}
