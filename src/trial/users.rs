//! The users and groups that are named. On whatever thread asks; looks them up and no more.

use super::{Finding, Trial, plain};
use crate::config::Config;
use nix::unistd::{Gid, Group, getegid, getgroups};

/// The groups of the administration socket; the daemon's own are found with its owner.
pub fn groups(config: &Config) -> Vec<Finding> {
    let setting = &config.setting;
    let named = [
        ("setting.admin_group", &setting.admin_group),
        ("setting.monitor_group", &setting.monitor_group),
    ];
    let named = named.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)));
    named.filter_map(|(key, name)| group(key, name)).collect()
}

/// The daemon lets these groups in as its own user, who must be a member. As whom the daemon is to run.
pub fn membership(trial: &Trial) -> Vec<Finding> {
    let setting = &trial.config.setting;
    if trial.owner.ids().0.is_root() {
        return Vec::new();
    }
    let own = getgroups().unwrap_or_default();
    let named = [
        ("setting.admin_group", &setting.admin_group),
        ("setting.monitor_group", &setting.monitor_group),
    ];
    let named = named.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)));
    let strange = named.filter(|(_, name)| {
        let found = || Group::from_name(name).ok().flatten().map(|group| group.gid);
        let gid = name.parse().ok().map(Gid::from_raw).or_else(found);
        gid.is_some_and(|gid| gid != getegid() && !own.contains(&gid))
    });
    strange
        .map(|(key, name)| {
            let user = trial.owner.name();
            let what = [
                format!("the user {user} is no member of the group {name}"),
                format!("用户 {user} 不属于 {name} 组"),
            ];
            let todo = format!("usermod -aG {name} {user}");
            Finding::wrong(key, what, [format!("run: {todo}"), format!("执行：{todo}")])
        })
        .collect()
}

fn group(key: &str, name: &str) -> Option<Finding> {
    let todo = [
        format!("create it: groupadd --system {name}, or correct {key}"),
        format!("创建该组：groupadd --system {name}，或改正 {key}"),
    ];
    match Group::from_name(name) {
        Ok(Some(_)) => None,
        Ok(None) if name.parse::<u32>().is_ok() => None,
        Ok(None) => {
            let what = [format!("there is no group {name}"), format!("没有 {name} 这个组")];
            Some(Finding::wrong(key, what, todo))
        }
        Err(error) => Some(Finding::wrong(key, plain(format!("{name}: {error}")), todo)),
    }
}

/// The owner cannot be found; the error names the key.
pub fn unknown(why: &str) -> Finding {
    let todo = [
        "create it (useradd --system, groupadd --system) or correct the name; what needs this user was not tried",
        "创建它（useradd --system、groupadd --system）或改正名称；需要该用户的各项未能检查",
    ];
    Finding::wrong("setting.user, setting.group", plain(why), todo)
}

/// Whoever asks cannot become the owner, and could not start the daemon either.
pub fn unreachable(why: &str) -> Finding {
    let todo = [
        "run this as root; what that user may do was not tried",
        "请以 root 执行；该用户的权限未能检查",
    ];
    Finding::wrong("setting.user, setting.group", plain(why), todo)
}
