//! What root does for the daemon before it stops being root: folders, owners, limits. On the main
//! thread, before any other exists.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};
use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;

/// Whom the daemon's files belong to, when it does not run as the user who starts it.
pub struct Owner {
    user: User,
    group: Gid,
}

impl Owner {
    /// The user named and the group named, else the user's own.
    pub fn find(user: &str, group: Option<&str>) -> Result<Owner, String> {
        let user = find_user(user)?;
        let group = group.map_or(Ok(user.gid), find_group)?;
        Ok(Owner { user, group })
    }

    /// Gives one file away; a link itself, not what it points to.
    pub fn give(&self, path: &Path) -> Result<(), String> {
        lchown(path, Some(self.user.uid.as_raw()), Some(self.group.as_raw())).map_err(|error| {
            format!("cannot give {} to {}: {error}", path.display(), self.user.name)
        })
    }

    /// The process becomes this user for good.
    pub fn become_it(&self) -> Result<(), String> {
        let Owner { user, group } = self;
        if Uid::effective() == user.uid {
            return Ok(());
        }
        let name = &user.name;
        let failed = |what: &str, error: nix::Error| {
            format!(
                "cannot become the user {name}: {what}: {error} (only root can, see setting.user)"
            )
        };
        let login = CString::new(name.as_str()).map_err(|error| error.to_string())?;
        initgroups(&login, *group).map_err(|error| failed("initgroups", error))?;
        setgid(*group).map_err(|error| failed("setgid", error))?;
        setuid(user.uid).map_err(|error| failed("setuid", error))?;
        if setuid(Uid::from_raw(0)).is_ok() && !user.uid.is_root() {
            return Err(format!("the way back from {name} to root is still open"));
        }
        Ok(())
    }
}

/// Creates a folder and those above it that are missing, 0750, for `owner` if there is one.
pub fn make_folder(path: &Path, owner: Option<&Owner>) -> Result<(), String> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
        made.map_err(|error| format!("cannot create the folder {}: {error}", path.display()))?;
        owner.map_or(Ok(()), |owner| owner.give(folder))?;
    }
    Ok(())
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

fn find_group(name: &str) -> Result<Gid, String> {
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }
    let found =
        Group::from_name(name).map_err(|error| format!("cannot look up {name}: {error}"))?;
    let group = found.ok_or_else(|| format!("there is no group {name} (setting.group)"))?;
    Ok(group.gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_and_groups_are_named() {
        let error = Owner::find("no-such-user", None).err().unwrap();
        assert_eq!(error, "there is no user no-such-user (setting.user)");
        let error = Owner::find("root", Some("no-such-group")).err().unwrap();
        assert_eq!(error, "there is no group no-such-group (setting.group)");
    }

    #[test]
    fn the_limit_of_open_files_never_falls() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files_limit(1), soft);
    }
}
