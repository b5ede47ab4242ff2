//! The facts: what a running daemon leaves in ROOT/run/NAME.facts for commands, which find it there
//! whatever has become of its configuration. One JSON object without a secret, locked as long as the
//! daemon runs. What somebody planted there is believed for no more than its owner may do.

use super::pidfile::names;
use super::way::is_roots_alone;
use crate::config::Config;
use crate::file;
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::process::{Uid, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// More than any facts have.
const TEXT: u64 = 64 * 1024;

/// What it is written as before it takes its place.
pub const FRESH: &str = ".new";

/// Depends on nothing that the file says.
pub fn path(root: &Path, name: &str) -> PathBuf {
    root.join("run").join(format!("{name}.facts"))
}

#[derive(Serialize, Deserialize)]
pub struct Facts {
    pub version: String,
    pub name: String,
    pub pid: u32,
    /// The number of the user it runs as.
    pub user: u32,
    pub config: PathBuf,
    pub root: PathBuf,
    pub pid_file: PathBuf,
    pub socket: PathBuf,
    pub stop_timeout_seconds: u64,
    pub package_max_length: usize,
    pub queue: PathBuf,
    pub ledger: PathBuf,
    pub log: Option<PathBuf>,
    /// Not told by versions before this one.
    #[serde(default)]
    pub message_log: Option<PathBuf>,
    /// Where it listens, as configured.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
}

impl Facts {
    /// Of this process.
    pub fn of(config: &Config) -> Facts {
        let stop_timeout = config.setting.stop_timeout;
        Facts {
            version: env!("CARGO_PKG_VERSION").into(),
            name: config.name.clone(),
            pid: std::process::id(),
            user: geteuid().as_raw(),
            config: config.file.clone(),
            root: config.root.clone(),
            pid_file: config.setting.pid_file.clone(),
            socket: config.admin_socket(),
            stop_timeout_seconds: stop_timeout.as_secs()
                + u64::from(stop_timeout.subsec_nanos() > 0),
            package_max_length: config.setting.package_max_length,
            queue: config.server.queue_file_path.clone(),
            ledger: config.server.ledger_file.clone(),
            log: config.log.log_file.path().map(Path::to_owned),
            message_log: config.log.message_log.clone(),
            listen: config.server.listen.clone(),
            metrics: config.metrics.listen,
        }
    }

    /// Writes them for everybody who may look into the folder, and keeps them locked.
    pub fn publish(&self, path: &Path) -> io::Result<Published> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        if let Some(Ok(held)) = open(path).transpose()
            && is_locked(&held)
        {
            return Err(io::Error::other("those of another running daemon are there"));
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(FRESH);
        // Left over by one that was killed in the middle of this.
        let _ = std::fs::remove_file(&fresh);
        let published = self.write(Path::new(&fresh)).and_then(|file| {
            std::fs::rename(&fresh, path)?;
            Ok(Published { path: path.to_owned(), file })
        });
        if published.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        published
    }

    fn write(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mut file = file::open_own(path, flags, 0o644)?;
        fchmod(&file, Mode::from_raw_mode(0o644))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        writeln!(file)?;
        Ok(file)
    }
}

/// Facts of this process, which are true as long as this lives.
pub struct Published {
    path: PathBuf,
    file: File,
}

impl Published {
    pub fn is_there(&self) -> bool {
        names(&self.path, &self.file).unwrap_or(false)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.is_there() {
            // Without their lock they are known to be over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Facts that were found, and who answers for them.
pub struct Found {
    pub facts: Facts,
    pub owner: Uid,
    /// Locked as long as the daemon runs.
    pub file: File,
}

/// The facts of the daemon of this configuration file; an error says why those that are there are not
/// believed.
pub fn find(path: &Path, config: &Path) -> Result<Option<Found>, String> {
    let not_believed = |why: String| format!("{} is not believed: {why}", path.display());
    let file = match open(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(error) => return Err(not_believed(error.to_string())),
    };
    read(&file, path, config)
        .map_err(not_believed)
        .map(|found| found.map(|(facts, owner)| Found { facts, owner, file }))
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match file::open(path, OFlags::RDONLY, 0) {
        Ok(file) => Ok(Some(file)),
        // Who may not read them asks elsewhere.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(None),
            _ => Err(error),
        },
    }
}

fn read(mut file: &File, path: &Path, config: &Path) -> Result<Option<(Facts, Uid)>, String> {
    let owner = Uid::from_raw(file.metadata().map_err(|error| error.to_string())?.uid());
    answers(owner, path.parent().unwrap_or(Path::new("/")))?;
    let mut text = String::new();
    Read::take(&mut file, TEXT).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let facts: Facts = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if facts.user != owner.as_raw() {
        return Err(format!("it names the user {} and belongs to {owner}", facts.user));
    }
    Ok(is_same_file(&facts.config, config).then_some((facts, owner)))
}

/// Two configurations of one name under one root are two daemons.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let folder = std::fs::canonicalize(path.parent()?).ok()?;
        Some((folder, path.file_name()?.to_owned()))
    };
    one == other || place(one).is_some_and(|found| Some(found) == place(other))
}

/// Whether what belongs to `owner` and stands in this folder may speak for a daemon of that user. Where
/// somebody else can put files of root, or anybody files of his own, it may not.
pub fn answers(owner: Uid, folder: &Path) -> Result<(), String> {
    if owner.is_root() {
        return match !geteuid().is_root() || is_roots_alone(folder) {
            true => Ok(()),
            false => Err("it is root's, in a folder that others can write to".into()),
        };
    }
    let stat = std::fs::metadata(folder).map_err(|error| error.to_string())?;
    let anybody = stat.mode() & 0o002 != 0;
    match !anybody || owner == geteuid() || owner.as_raw() == stat.uid() {
        true => Ok(()),
        false => Err(format!("it is the user {owner}'s, in a folder that everybody can write to")),
    }
}

/// Removes facts that no daemon stands behind any more; true if there were some.
pub fn clear(path: &Path) -> io::Result<bool> {
    match open(path)? {
        Some(file) if !is_locked(&file) => std::fs::remove_file(path).map(|()| true),
        _ => Ok(false),
    }
}

fn is_locked(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(config: &Path) -> Facts {
        let ini = b"[wechat]\napp_id = a\napp_secret = s\n[setting]\nstop_timeout = 1500ms\n";
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        std::fs::write(config, ini).unwrap();
        Facts::of(&Config::load(config, config.parent().unwrap().parent().unwrap()).unwrap())
    }

    #[test]
    fn they_are_found_as_they_were_published_and_end_with_their_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("conf/w.ini");
        let path = path(folder.path(), "w");
        assert!(find(&path, &config).unwrap().is_none());
        let published = facts(&config).publish(&path).unwrap();
        let found = find(&path, &config).unwrap().unwrap();
        assert_eq!((found.facts.pid, found.owner), (std::process::id(), geteuid()));
        assert_eq!(found.facts.stop_timeout_seconds, 2);
        assert!(!clear(&path).unwrap(), "they are locked");
        assert!(facts(&config).publish(&path).is_err(), "they are another's");
        // By another way to the same file, and not for another file of that name.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("conf"), &link).unwrap();
        assert!(find(&path, &link.join("w.ini")).unwrap().is_some());
        assert!(find(&path, &folder.path().join("w.ini")).unwrap().is_none());
        drop(published);
        assert!(!path.exists());
    }

    #[test]
    fn those_that_were_replaced_are_not_removed_by_who_published_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "w");
        let published = facts(&folder.path().join("conf/w.ini")).publish(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!published.is_there());
        std::fs::write(&path, "another's").unwrap();
        drop(published);
        assert!(path.exists());
        assert!(clear(&path).unwrap() && !path.exists());
    }

    #[test]
    fn what_is_no_facts_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("conf/w.ini");
        let path = path(folder.path(), "w");
        let mut others = facts(&config);
        others.user += 1;
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let others = serde_json::to_string(&others).unwrap();
        for (text, why) in [("", "EOF"), ("{}", "missing field"), (&others, "names the user")] {
            std::fs::write(&path, text).unwrap();
            let error = find(&path, &config).err().unwrap();
            assert!(error.contains(why) && error.contains("w.facts is not believed"), "{error}");
        }
    }

    #[test]
    fn only_those_answer_for_a_file_who_alone_could_have_put_it_there() {
        if !geteuid().is_root() {
            eprintln!("not run: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let of = |uid: u32, mode: u32| {
            let set = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(folder.path(), set).unwrap();
            std::os::unix::fs::chown(folder.path(), Some(uid), None).unwrap();
            folder.path()
        };
        let [root, user, stranger] = [0, 1, 2].map(Uid::from_raw);
        assert!(answers(root, of(0, 0o755)).is_ok() && answers(user, of(0, 0o770)).is_ok());
        assert!(answers(root, of(0, 0o777)).is_err() && answers(root, of(1, 0o755)).is_err());
        assert!(answers(user, of(1, 0o777)).is_ok() && answers(user, of(1, 0o700)).is_ok());
        assert!(answers(stranger, of(1, 0o777)).is_err());
        assert!(answers(stranger, of(1, 0o1777)).is_err());
    }
}
