//! Files that are only read, and files that two keys have in common by way of links. As whom the daemon is
//! to run.

use super::{Finding, Trial, paths, plain};
use crate::config::Config;
use crate::daemon::Owner;
use crate::wechat::client::Network;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

pub fn files(trial: &Trial) -> Vec<Finding> {
    let config = trial.config;
    let mut findings = paths::linked(config);
    if let Err(why) = Network::open(config) {
        // The text names the key that it is about.
        let key = if why.contains("wechat.proxy") { "wechat.proxy" } else { "wechat.ca_file" };
        let todo = [
            "correct the path, or its permissions, or remove the line",
            "改正路径或权限，或删除该行",
        ];
        let why = why.strip_prefix(key).unwrap_or(&why).trim_start();
        findings.push(Finding::wrong(key, plain(why), todo));
    }
    findings.extend(unreadable(config, &trial.owner));
    findings.extend(shared_folder(&config.setting.pid_file));
    if config.log.syslog {
        let socket = std::fs::metadata("/dev/log").is_ok_and(|log| log.file_type().is_socket());
        findings.extend((!socket).then(|| {
            let what =
                ["there is no /dev/log: nothing takes the lines", "没有 /dev/log：无处接收日志"];
            let todo = [
                "start a syslog daemon, or set log.syslog = off",
                "启动 syslog 服务，或设 log.syslog = off",
            ];
            Finding::warning("log.syslog", what, todo)
        }));
    }
    findings
}

/// A reload reads the configuration as the daemon's user.
fn unreadable(config: &Config, owner: &Owner) -> Option<Finding> {
    let error = std::fs::File::open(&config.file).err()?;
    (error.kind() == ErrorKind::PermissionDenied).then(|| {
        let (file, name) = (config.file.display(), owner.name());
        let what = [
            format!("{name} cannot read {file}: a reload will not see changes of it"),
            format!("{name} 无法读取 {file}：重新加载时看不到其中的修改"),
        ];
        let shown = owner.shown();
        let group = shown.split(':').next_back().unwrap_or(&shown);
        let todo = plain(format!("chgrp {group} {file}; chmod 640 {file}"));
        Finding::warning("setting.user", what, todo)
    })
}

/// Whoever may write to the pidfile's folder can put something in its place.
fn shared_folder(pid_file: &Path) -> Option<Finding> {
    let folder = pid_file.parent()?;
    let mode = std::fs::metadata(folder).ok()?.permissions().mode();
    (mode & 0o002 != 0).then(|| {
        let folder = folder.display();
        let what = [
            format!("everybody may write to {folder}, and keep mega from starting there"),
            format!("任何用户都能写入 {folder}，从而使 mega 无法启动"),
        ];
        let todo = [
            "choose a folder that only mega's user may write to",
            "换一个只有 mega 的用户可写的目录",
        ];
        Finding::warning("setting.pid_file", what, todo)
    })
}
