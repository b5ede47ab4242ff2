//! What root does for the daemon before it stops being root: folders, owners, limits. On the main
//! thread, before any other exists.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};
use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Creates a folder and those above it, 0750.
pub fn make_folder(path: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|error| format!("cannot create the folder {}: {error}", path.display()))
}

/// Raises the limit of open files towards `wanted`; returns what it is then.
pub fn raise_open_files_limit(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    if soft >= wanted {
        return soft;
    }
    // Only root may raise the hard limit; everybody else takes what it allows.
    let tries = [(wanted, hard.max(wanted)), (wanted.min(hard), hard)];
    let raised =
        tries.iter().find(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard).is_ok());
    raised.map_or(soft, |(soft, _)| *soft)
}

fn find_user(name: &str) -> Result<User, String> {
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let found = found.map_err(|error| format!("cannot look up the user {name}: {error}"))?;
    found.ok_or_else(|| format!("there is no user {name} (setting.user)"))
}

/// The group named, else the user's own.
fn find_group(user: &User, name: Option<&str>) -> Result<Gid, String> {
    let Some(name) = name else { return Ok(user.gid) };
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }
    let found =
        Group::from_name(name).map_err(|error| format!("cannot look up {name}: {error}"))?;
    let group = found.ok_or_else(|| format!("there is no group {name} (setting.group)"))?;
    Ok(group.gid)
}

pub fn chown(path: &Path, user: &str, group: Option<&str>) -> Result<(), String> {
    let user = find_user(user)?;
    let group = find_group(&user, group)?;
    nix::unistd::chown(path, Some(user.uid), Some(group))
        .map_err(|error| format!("cannot give {} to {}: {error}", path.display(), user.name))
}

/// Becomes `user` for good.
pub fn drop_privileges(user: &str, group: Option<&str>) -> Result<(), String> {
    let user = find_user(user)?;
    let group = find_group(&user, group)?;
    if Uid::effective() == user.uid {
        return Ok(());
    }
    let name = &user.name;
    let failed = |what: &str, error: nix::Error| {
        format!("cannot become the user {name}: {what}: {error} (only root can, see setting.user)")
    };
    let login = CString::new(name.as_str()).map_err(|error| error.to_string())?;
    initgroups(&login, group).map_err(|error| failed("initgroups", error))?;
    setgid(group).map_err(|error| failed("setgid", error))?;
    setuid(user.uid).map_err(|error| failed("setuid", error))?;
    if setuid(Uid::from_raw(0)).is_ok() && !user.uid.is_root() {
        return Err(format!("the way back from {name} to root is still open"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_and_groups_are_named() {
        let error = chown(Path::new("/"), "no-such-user", None).unwrap_err();
        assert_eq!(error, "there is no user no-such-user (setting.user)");
        let error = drop_privileges("root", Some("no-such-group")).unwrap_err();
        assert_eq!(error, "there is no group no-such-group (setting.group)");
    }

    #[test]
    fn the_limit_of_open_files_never_falls() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files_limit(1), soft);
    }
}
