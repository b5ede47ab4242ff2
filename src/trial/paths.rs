//! All paths that a configuration names or leads to, in one table: what each is to be, where two of them are
//! one, and what stands there that is something else. Opens nothing; the second half looks, as whom the
//! daemon is to run.

use super::{Finding, Level, Trial};
use crate::config::{Config, Dsn};
use crate::daemon::{facts_path, has_monitors, is_the_queues};
use crate::day_file;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Bytes of a socket's name, without the zero at its end (unix(7)).
const SOCKET_NAME: usize = 107;

/// What is to stand in a place, once something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Written by mega, and no link.
    File,
    /// Read by mega, and nothing else.
    Read,
    Folder,
    /// Bound anew at each start.
    Socket,
}

pub struct Place {
    pub key: &'static str,
    pub path: PathBuf,
    pub kind: Kind,
}

/// Files, each known by this one path.
pub fn single(config: &Config) -> Vec<Place> {
    use Kind::{File, Folder, Read, Socket};
    let mut places = Vec::new();
    let mut add = |key, path: &Path, kind| places.push(Place { key, path: path.to_owned(), kind });
    add("configuration", &config.file, Read);
    add("setting.pid_file", &config.setting.pid_file, File);
    add("setting.pid_file", &config.admin_socket(), Socket);
    if has_monitors(config) {
        add("setting.pid_file", &config.monitor_socket(), Socket);
    }
    add("server.queue_file_path", &config.server.queue_file_path, Folder);
    add("server.ledger_file", &config.server.ledger_file, File);
    add("server.ledger_file", &config.templates_file(), File);
    add("the name of the configuration", &facts_path(&config.root, &config.name), File);
    if let Dsn::Sqlite(path) = &config.pdo.dsn {
        add("pdo.dsn", path, File);
    }
    config.wechat.ca_file.iter().for_each(|path| add("wechat.ca_file", path, Read));
    config.setting.log_file.iter().for_each(|path| add("setting.log_file", path, File));
    places
}

/// Files of a day, which have the date in their names.
fn dated(config: &Config) -> Vec<Place> {
    let log = config.log.log_file.path().map(|path| ("log.log_file", path));
    let messages = config.log.message_log.as_deref().map(|path| ("log.message_log", path));
    let both = [log, messages].into_iter().flatten();
    both.map(|(key, path)| Place { key, path: path.to_owned(), kind: Kind::File }).collect()
}

/// Two keys that name one file.
pub fn shared(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for places in [single(config), dated(config)] {
        for (number, Place { key, path, .. }) in places.iter().enumerate() {
            let earlier = places[..number].iter().find(|other| clean(path) == clean(&other.path));
            findings.extend(earlier.map(|other| same_file(other.key, key, path)));
        }
    }
    // One that has the name of a file of the queue's, in its folder.
    let queue = clean(&config.server.queue_file_path);
    let takes =
        |path: &Path| path.parent() == Some(&*queue) && path.file_name().is_some_and(is_the_queues);
    let mut within = single(config).into_iter().filter(|place| takes(&clean(&place.path)));
    findings.extend(
        within.next().map(|place| same_file("server.queue_file_path", place.key, &place.path)),
    );
    findings
}

/// Sockets whose names are longer than every program can give them.
pub fn too_long(config: &Config) -> Vec<Finding> {
    let sockets = single(config).into_iter().filter(|place| place.kind == Kind::Socket);
    let long = sockets.filter(|place| place.path.as_os_str().len() > SOCKET_NAME);
    let finding = |Place { key, path, .. }: Place| {
        let (shown, bytes) = (path.display(), path.as_os_str().len());
        let what = [
            format!(
                "the socket beside it, {shown}, has {bytes} bytes in its name, and the kernel takes 107"
            ),
            format!("旁边的套接字 {shown} 的路径有 {bytes} 字节，而内核最多允许 107 字节"),
        ];
        Finding::wrong(key, what, ["choose a shorter path", "换一个更短的路径"])
    };
    long.map(finding).collect()
}

/// What stands in a place and is something else than it is to be.
pub fn others(trial: &Trial) -> Vec<Finding> {
    let today = chrono::Local::now().date_naive();
    let days = dated(trial.config)
        .into_iter()
        .map(|place| Place { path: day_file::dated(&place.path, today), ..place });
    single(trial.config).into_iter().chain(days).filter_map(|place| other(&place)).collect()
}

fn other(place: &Place) -> Option<Finding> {
    let Place { key, path, kind } = place;
    // What cannot be looked at is another step's to tell.
    let found = match kind {
        Kind::Read | Kind::Folder => path.metadata(),
        Kind::File | Kind::Socket => path.symlink_metadata(),
    };
    let found = found.ok()?;
    let [is, chinese] = named(&found);
    let wanted = match kind {
        Kind::File if !found.is_dir() && !is_special(&found) => return None,
        Kind::Read if found.is_file() => return None,
        Kind::Folder if found.is_dir() => return None,
        // Whatever else was left there is taken away.
        Kind::Socket if !found.is_dir() => return None,
        Kind::File | Kind::Read => ["a file", "文件"],
        Kind::Folder => ["a folder", "目录"],
        Kind::Socket => ["a socket", "套接字"],
    };
    let shown = path.display();
    let what = [
        format!("{shown} is {is}, and {} has to stand there", wanted[0]),
        format!("{shown} 是{chinese}，而此处应为{}", wanted[1]),
    ];
    Some(Finding::wrong(*key, what, ["choose another path", "换一个路径"]))
}

/// No file that could be written and kept; links and pipes are told of where files are opened.
fn is_special(found: &Metadata) -> bool {
    let kind = found.file_type();
    kind.is_char_device() || kind.is_block_device() || kind.is_socket()
}

fn named(found: &Metadata) -> [&'static str; 2] {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => ["a folder", "目录"],
        () if kind.is_file() => ["a file", "文件"],
        () if kind.is_symlink() => ["a symbolic link", "符号链接"],
        () if kind.is_socket() => ["a socket", "套接字"],
        () if kind.is_fifo() => ["a named pipe", "命名管道"],
        () => ["a device", "设备"],
    }
}

/// Two names of one file that is there.
pub fn linked(config: &Config) -> Vec<Finding> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|at| (at.dev(), at.ino()));
    let places = single(config);
    let mut findings = Vec::new();
    for (number, Place { key, path, .. }) in places.iter().enumerate() {
        let Some(found) = identity(path) else { continue };
        let earlier = places[..number].iter().filter(|other| clean(&other.path) != clean(path));
        let same = earlier.filter(|other| identity(&other.path) == Some(found));
        findings.extend(same.map(|other| same_file(other.key, key, path)));
    }
    findings
}

fn same_file(one: &str, other: &str, path: &Path) -> Finding {
    let path = path.display();
    let what = [format!("both are {path}"), format!("二者都是 {path}")];
    let todo = ["give each a file of its own", "各用各的文件"];
    Finding::new(Level::Wrong, format!("{one}, {other}"), what, todo)
}

/// Without `.` and `..`, as far as that can be told without looking.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::config;

    fn subjects(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn one_file_for_two_keys_is_found_however_it_is_written() {
        let shared = |more: &str| subjects(shared(&config(more)));
        assert!(shared("").is_empty());
        let found = shared("[server]\nledger_file = run/./a/../x.db\n[pdo]\ndsn = sqlite:run/x.db");
        assert_eq!(found, ["server.ledger_file, pdo.dsn"]);
        let logs = "[log]\nlog_file = l/m.log\nmessage_log = l/m.log";
        assert_eq!(shared(logs), ["log.log_file, log.message_log"]);
        // One has a date in its name, the other none.
        assert!(shared("[log]\nlog_file = x\n[setting]\nlog_file = x").is_empty());
        for (more, subject) in [
            ("[setting]\npid_file = run/w.templates", "setting.pid_file, server.ledger_file"),
            (
                "[setting]\npid_file = run/w.queue/verdicts",
                "server.queue_file_path, setting.pid_file",
            ),
            ("[pdo]\ndsn = sqlite:run/w.sock", "setting.pid_file, pdo.dsn"),
            (
                "[setting]\nadmin_group = g\nlog_file = run/w.monitor",
                "setting.pid_file, setting.log_file",
            ),
            (
                "[server]\nledger_file = run/w.facts",
                "server.ledger_file, the name of the configuration",
            ),
        ] {
            assert_eq!(shared(more), [subject], "{more}");
        }
    }

    #[test]
    fn a_socket_has_to_have_a_name_that_the_kernel_takes() {
        let long = |bytes: usize, more: &str| {
            // As many bytes as the socket then has.
            let path = format!("/{}/w.pid", "a".repeat(bytes - "//w.sock".len()));
            too_long(&config(&format!("[setting]\npid_file = {path}\n{more}"))).len()
        };
        assert_eq!([long(107, ""), long(108, "")], [0, 1]);
        // The monitors' is longer.
        assert_eq!([long(104, "monitor_group = g"), long(105, "monitor_group = g")], [0, 1]);
    }

    #[test]
    fn what_stands_in_a_place_is_what_it_is_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let fits = |name: &str, kind| other(&Place { key: "k", path: path(name), kind }).is_none();
        use Kind::{File, Folder, Read, Socket};
        for (name, kinds) in [
            ("folder", &[Folder][..]),
            ("file", &[File, Read, Socket]),
            ("socket", &[Socket]),
            ("none", &[File, Read, Folder, Socket]),
        ] {
            for kind in [File, Read, Folder, Socket] {
                assert_eq!(fits(name, kind), kinds.contains(&kind), "{name} for {kind:?}");
            }
        }
        let null = Place { key: "k", path: "/dev/null".into(), kind: File };
        assert!(other(&null).is_some_and(|it| it.what[0].contains("a device")));
    }
}
