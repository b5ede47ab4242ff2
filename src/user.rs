//! What users are called. Decides nothing about what they may do.

use nix::unistd::User;
use rustix::process::Uid;

/// The name of a user, or the number where the system knows none.
pub fn name(uid: Uid) -> String {
    let known = User::from_uid(nix::unistd::Uid::from_raw(uid.as_raw())).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}
