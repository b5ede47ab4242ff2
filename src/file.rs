//! Opening files of mega's own in folders that somebody else may write to: what was planted there is
//! refused, whoever asks. Decides nothing about who that somebody is.

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat};
use rustix::process::geteuid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a regular file that has this one name and is no link. Never waits, as a named pipe would
/// have it.
pub fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    open_at(rustix::fs::CWD, path, flags, mode)
}

/// The same in a folder that is open.
pub fn open_at(folder: impl AsFd, path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, path, flags | safe, Mode::from_raw_mode(mode));
    let file = opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => not_ours("it is a symbolic link, and is not followed"),
        rustix::io::Errno::NXIO => not_ours("it is not a regular file"),
        error => error.into(),
    })?;
    let stat = fstat(&file)?;
    match planted(&stat, FileType::RegularFile) {
        Some(why) => Err(not_ours(why)),
        None => Ok(File::from(file)),
    }
}

fn not_ours(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Opens a file as its owner: what root writes to belongs to root.
pub fn open_own(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let file = open(path, flags, mode)?;
    let owner = file.metadata()?.uid();
    match geteuid().is_root() && owner != 0 {
        true => Err(io::Error::other(format!(
            "it belongs to the user {owner} and root does not use it (name that user in \
             setting.user, or run: chown root:root {})",
            path.display()
        ))),
        false => Ok(file),
    }
}

/// A file that grows at its end, as logs do.
pub fn append(path: &Path) -> io::Result<File> {
    open_own(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, 0o640)
}

/// Puts a new file in the place of an old one. Whatever happens meanwhile, one of the two is there, and whole; after
/// this has returned without an error, it is the new one.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // What an earlier attempt left there is of no use.
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_own(new, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o640)?;
    let written =
        write(&mut file).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(new, path));
    if written.is_err() {
        // On a full disk it would hold what others need; if it cannot be removed, the next attempt does.
        let _ = std::fs::remove_file(new);
    }
    written.and_then(|()| sync_folder(path))
}

/// All of a short file: no more than `longest` bytes.
pub fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, OFlags::RDONLY, 0)?.take(longest + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > longest {
        true => Err(io::Error::other(format!("it has more than {longest} bytes"))),
        false => Ok(bytes),
    }
}

/// Removes a file durably, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(path),
    }
}

/// The name is as durable as the bytes.
fn sync_folder(path: &Path) -> io::Result<()> {
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// The names in a folder are on the disk.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Why a file in this place is not what mega puts there, if it is not.
pub fn planted(stat: &Stat, wanted: FileType) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Some("it is a symbolic link, and is not followed"),
        found if found != wanted && wanted == FileType::RegularFile => {
            Some("it is not a regular file")
        }
        found if found != wanted => Some("it is not a socket"),
        _ if stat.st_nlink != 1 => Some("it has more than one name (a hard link)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_cannot_be_written_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        replace(&path, |file| file.write_all(b"old")).unwrap();
        let full = |file: &mut File| {
            file.write_all(b"half of the n")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(replace(&path, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("victim"), "precious").unwrap();
        std::os::unix::fs::symlink(path("victim"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("dangling")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, mode, 0).unwrap();
        for name in ["link", "dangling", "folder", "pipe"] {
            assert!(append(&path(name)).is_err(), "{name}");
            assert!(name == "folder" || open(&path(name), OFlags::RDONLY, 0).is_err(), "{name}");
        }
        assert!(!path("nowhere").exists());
        append(&path("victim")).unwrap();
        std::fs::hard_link(path("victim"), path("second")).unwrap();
        assert!(append(&path("second")).is_err());
    }
}
