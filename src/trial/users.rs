//! The users and groups that are named. On whatever thread asks; looks them up and no more.

use super::{Finding, Trial, plain};
use crate::config::Config;
use crate::daemon::group_id;
use nix::unistd::{getegid, getgroups};

/// The groups of the administration sockets, by their keys.
fn named(config: &Config) -> impl Iterator<Item = (&'static str, &str)> {
    let setting = &config.setting;
    let named = [
        ("setting.admin_group", &setting.admin_group),
        ("setting.monitor_group", &setting.monitor_group),
    ];
    named.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)))
}

/// Whether those groups are there; the daemon's own are found with its owner.
pub fn groups(config: &Config) -> Vec<Finding> {
    named(config).filter_map(|(key, name)| group(key, name)).collect()
}

fn group(key: &str, name: &str) -> Option<Finding> {
    let todo = [
        format!("create it: groupadd --system {name}, or correct {key}"),
        format!("创建该组：groupadd --system {name}，或改正 {key}"),
    ];
    match group_id(name) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let what = [format!("there is no group {name}"), format!("没有 {name} 这个组")];
            Some(Finding::wrong(key, what, todo))
        }
        Err(error) => Some(Finding::wrong(key, plain(format!("{name}: {error}")), todo)),
    }
}

/// The daemon lets these groups in as its own user, who must be a member. As whom the daemon is to run.
pub fn membership(trial: &Trial) -> Vec<Finding> {
    if trial.owner.ids().0.is_root() {
        return Vec::new();
    }
    let own = getgroups().unwrap_or_default();
    // One that is not there is found by `groups`.
    let strange = |name: &str| {
        let gid = group_id(name).ok().flatten();
        gid.is_some_and(|gid| gid != getegid() && !own.contains(&gid))
    };
    let user = trial.owner.name();
    let foreign = named(trial.config).filter(|(_, name)| strange(name));
    foreign.map(|(key, name)| no_member(key, name, &user)).collect()
}

fn no_member(key: &str, group: &str, user: &str) -> Finding {
    let what = [
        format!("the user {user} is no member of the group {group}"),
        format!("用户 {user} 不属于 {group} 组"),
    ];
    let todo = format!("usermod -aG {group} {user}");
    Finding::wrong(key, what, [format!("run: {todo}"), format!("执行：{todo}")])
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
