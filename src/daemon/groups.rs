//! Who beside the daemon's user may use the administration sockets: the members of a group each. The second
//! socket answers questions that change nothing. Called as the user the daemon runs as, before any thread.

use super::admin;
use crate::config::Config;
use nix::unistd::{Gid, Group, chown};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Lets `setting.admin_group` use the administration socket.
pub fn admit_admins(config: &Config) -> Result<(), String> {
    match &config.setting.admin_group {
        Some(group) => admit(&config.admin_socket(), "setting.admin_group", group),
        None => Ok(()),
    }
}

/// The socket that answers how the daemon is, and nothing else, where there is somebody to ask it.
pub fn bind_monitor(config: &Config) -> Result<Option<UnixListener>, String> {
    let path = config.monitor_socket();
    let setting = &config.setting;
    let (key, group) = match (&setting.monitor_group, &setting.admin_group) {
        (Some(group), _) => ("setting.monitor_group", group),
        (None, Some(group)) => ("setting.admin_group", group),
        (None, None) => {
            // One that was left by a run with other settings.
            let _ = std::fs::remove_file(path);
            return Ok(None);
        }
    };
    let listener = admin::bind_at(&path)?;
    admit(&path, key, group)?;
    Ok(Some(listener))
}

fn admit(socket: &Path, key: &str, group: &str) -> Result<(), String> {
    let number = group.parse().ok().map(Gid::from_raw);
    let found = || Group::from_name(group).ok().flatten().map(|group| group.gid);
    let gid = number.or_else(found).ok_or_else(|| format!("{key}: there is no group {group}"))?;
    let cannot = |why: String| {
        format!(
            "cannot let the group {group} use {}: {why} ({key}; the user mega runs as must be a member of it)",
            socket.display()
        )
    };
    chown(socket, None, Some(gid)).map_err(|error| cannot(error.to_string()))?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(socket, mode).map_err(|error| cannot(error.to_string()))?;
    if let Some(folder) = socket.parent()
        && !lets_in(folder, gid)
    {
        log::warn!(
            "the group {group} may use {} and cannot reach it: chmod o+x {}",
            socket.display(),
            folder.display()
        );
    }
    Ok(())
}

/// Members of the group may pass through the folder.
fn lets_in(folder: &Path, gid: Gid) -> bool {
    let Ok(stat) = folder.metadata() else { return true };
    let needed = if stat.gid() == gid.as_raw() { 0o010 } else { 0o001 };
    stat.mode() & needed != 0
}
