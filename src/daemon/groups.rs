//! Who beside the daemon's user may use the administration sockets: the members of a group each. The second
//! socket answers questions that change nothing. Called as the user the daemon runs as, before any thread.

use super::group_id;
use crate::config::Config;
use nix::unistd::{Gid, chown};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The group that may use a socket.
pub struct Admitted {
    key: &'static str,
    group: String,
}

/// Who may use the administration socket.
pub fn admins(config: &Config) -> Option<Admitted> {
    let group = config.setting.admin_group.clone();
    group.map(|group| Admitted { key: "setting.admin_group", group })
}

/// Who may ask how the daemon is, and nothing else.
pub fn monitors(config: &Config) -> Option<Admitted> {
    let group = config.setting.monitor_group.clone();
    group.map(|group| Admitted { key: "setting.monitor_group", group }).or_else(|| admins(config))
}

impl Admitted {
    /// Lets the group's members use the socket.
    pub fn admit(&self, socket: &Path) -> Result<(), String> {
        admit(socket, self.key, &self.group)
    }
}

fn admit(socket: &Path, key: &str, group: &str) -> Result<(), String> {
    let found = group_id(group).ok().flatten();
    let gid = found.ok_or_else(|| format!("{key}: there is no group {group}"))?;
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
