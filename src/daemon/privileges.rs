//! Whom the daemon runs as, and becoming that user; the limit of open files. On the main thread,
//! before any other exists.

use crate::config::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};
use std::ffi::CString;

/// Whom the daemon runs as: the user and group that are configured, else the one who starts it.
pub struct Owner {
    /// None: the one who starts it, who may have no name.
    user: Option<User>,
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// The user named and the group named, else the user's own.
    pub fn of(config: &Config) -> Result<Owner, String> {
        let setting = &config.setting;
        Owner::find(setting.user.as_deref(), setting.group.as_deref())
    }

    /// The user of this number, in its own group.
    pub fn of_uid(uid: rustix::process::Uid) -> Result<Owner, String> {
        Owner::find(Some(&uid.to_string()), None)
    }

    fn find(user: Option<&str>, group: Option<&str>) -> Result<Owner, String> {
        let user = user.map(find_user).transpose()?;
        let uid = user.as_ref().map_or_else(Uid::effective, |user| user.uid);
        let gid = match (group, &user) {
            (Some(group), _) => find_group(group)?,
            (None, Some(user)) => user.gid,
            (None, None) => Gid::effective(),
        };
        Ok(Owner { user, uid, gid })
    }

    pub fn name(&self) -> String {
        let own = || crate::user::name(self.ids().0);
        self.user.as_ref().map_or_else(own, |user| user.name.clone())
    }

    /// As chown takes it.
    pub fn shown(&self) -> String {
        let found = Group::from_gid(self.gid).ok().flatten();
        format!("{}:{}", self.name(), found.map_or(self.gid.to_string(), |group| group.name))
    }

    pub fn ids(&self) -> (rustix::process::Uid, rustix::process::Gid) {
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid))
    }

    /// The process could become this user, in this group, or is it.
    pub fn is_within_reach(&self) -> bool {
        let own = (Uid::effective(), Gid::effective());
        Uid::effective().is_root() || own == (self.uid, self.gid)
    }

    /// The process becomes this user, in this group, for good.
    pub fn become_it(&self) -> Result<(), String> {
        let (same_user, same_group) = (Uid::effective() == self.uid, Gid::effective() == self.gid);
        if same_user && same_group {
            return Ok(());
        }
        let (name, gid) = (self.name(), self.gid);
        let failed = |what: &str, error: nix::Error| {
            format!(
                "cannot become {}: {what}: {error} (only root can, see setting.user and \
                 setting.group)",
                self.shown()
            )
        };
        if let (Some(user), false) = (&self.user, same_user) {
            let login = CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
            initgroups(&login, gid).map_err(|error| failed("initgroups", error))?;
        }
        setgid(gid).map_err(|error| failed("setgid", error))?;
        setuid(self.uid).map_err(|error| failed("setuid", error))?;
        if setuid(Uid::from_raw(0)).is_ok() && !self.uid.is_root() {
            return Err(format!("the way back from {name} to root is still open"));
        }
        Ok(())
    }
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
    let found = group_id(name).map_err(|error| format!("cannot look up {name}: {error}"))?;
    found.ok_or_else(|| format!("there is no group {name} (setting.group)"))
}

/// The group of this name or number; a number needs no name.
pub fn group_id(name: &str) -> nix::Result<Option<Gid>> {
    match name.parse() {
        Ok(gid) => Ok(Some(Gid::from_raw(gid))),
        Err(_) => Ok(Group::from_name(name)?.map(|group| group.gid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_and_groups_are_named() {
        let error = Owner::find(Some("no-such-user"), None).err().unwrap();
        assert_eq!(error, "there is no user no-such-user (setting.user)");
        let error = Owner::find(Some("root"), Some("no-such-group")).err().unwrap();
        assert_eq!(error, "there is no group no-such-group (setting.group)");
    }

    #[test]
    fn the_limit_of_open_files_never_falls() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files_limit(1), soft);
    }
}
