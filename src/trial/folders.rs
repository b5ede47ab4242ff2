//! The folders and files that the daemon writes to: whether they are there, or can be made, and can be
//! written to by whom it runs as. As that user.

use super::{Finding, Text, Trial, plain};
use crate::config::{Config, Dsn};
use crate::daemon::survey::{self, Unusable};
use crate::day_file::dated;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

pub fn folders(trial: &Trial) -> Vec<Finding> {
    let found = survey::unusable(trial.config, &trial.owner, &trial.given);
    let finding = |(path, why): (std::path::PathBuf, Unusable)| {
        let (what, todo) = words(&path, why, trial);
        Finding::wrong(keys(trial.config, &path), what, todo)
    };
    found.into_iter().map(finding).collect()
}

fn words(path: &Path, why: Unusable, trial: &Trial) -> (Text, Text) {
    let (shown, owner, name) = (path.display(), trial.owner.shown(), trial.owner.name());
    let chown = |what: Text| {
        let todo = [
            format!(
                "chown -h {owner} {shown} (a folder that others use as well is better left to them: choose another)"
            ),
            format!("chown -h {owner} {shown}（与他人共用的目录不宜更改，请另选一个）"),
        ];
        (what, todo)
    };
    match why {
        Unusable::NotWritable if trial.owner.ids().0.is_root() => (
            [format!("not even root can write to {shown}"), format!("连 root 也无法写入 {shown}")],
            [
                "see lsattr (chattr -i ends it), and whether the disk is mounted read-only".into(),
                "用 lsattr 查看（chattr -i 可取消），并检查磁盘是否只读挂载".into(),
            ],
        ),
        Unusable::NotWritable => chown([
            format!("the user {name} cannot write to {shown}"),
            format!("用户 {name} 无法写入 {shown}"),
        ]),
        Unusable::Foreign => chown([
            format!("{shown} belongs to another user, and root does not use it"),
            format!("{shown} 属于其他用户，root 不会使用它"),
        ]),
        // Of what is no link and no second name somebody may have need.
        Unusable::Planted(why) if is_special(path) => {
            (plain(why), ["choose another path".into(), "换一个路径".into()])
        }
        Unusable::Planted(why) => {
            (plain(why), [format!("remove {shown}"), format!("删除 {shown}")])
        }
        Unusable::NoFolder(why) => (
            [
                format!("the folder {shown} cannot be created by the user {name}: {why}"),
                format!("用户 {name} 无法创建目录 {shown}：{why}"),
            ],
            ["create it, or choose another path".into(), "创建该目录，或换一个路径".into()],
        ),
    }
}

/// A device, or what is below the kernel's own folders.
fn is_special(path: &Path) -> bool {
    let kind = path.symlink_metadata().map(|found| found.file_type());
    kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
}

/// The keys whose file this is, or whose files are in this folder.
fn keys(config: &Config, path: &Path) -> String {
    let today = chrono::Local::now().date_naive();
    let mut files = vec![
        ("setting.pid_file", config.setting.pid_file.clone()),
        ("setting.pid_file", config.admin_socket()),
        ("server.ledger_file", config.server.ledger_file.clone()),
    ];
    if let Dsn::Sqlite(database) = &config.pdo.dsn {
        files.push(("pdo.dsn", database.clone()));
    }
    files.extend(config.log.log_file.path().map(|log| ("log.log_file", dated(log, today))));
    files.extend(config.log.message_log.iter().map(|log| ("log.message_log", dated(log, today))));
    files.extend(config.setting.log_file.iter().map(|log| ("setting.log_file", log.clone())));
    let queue = &config.server.queue_file_path;
    if path.starts_with(queue) || queue.parent() == Some(path) && !queue.exists() {
        return "server.queue_file_path".to_owned();
    }
    // SQLite's own files beside a database begin with its name.
    let named = |file: &Path| {
        path.as_os_str().as_encoded_bytes().starts_with(file.as_os_str().as_encoded_bytes())
    };
    let mut keys: Vec<&str> =
        files.iter().filter(|(_, file)| named(file)).map(|(key, _)| *key).collect();
    if keys.is_empty() {
        let in_it = files.iter().filter(|(_, file)| file.parent() == Some(path));
        keys = in_it.map(|(key, _)| *key).collect();
    }
    keys.dedup();
    keys.join(", ")
}
