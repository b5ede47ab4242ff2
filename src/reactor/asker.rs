//! Who is at the other end of the administration socket: the kernel's word, never the client's. Asks no name
//! service, which could hold up the reactor: users that /etc/passwd does not know are shown by their numbers.

use super::stream::Stream;
use rustix::net::sockopt;

pub fn name(stream: &Stream) -> String {
    let stream = match stream {
        Stream::Unix(stream) | Stream::Monitor(stream) => stream,
        Stream::Tcp(_) => return "nobody".into(),
    };
    let Ok(peer) = sockopt::socket_peercred(stream) else { return "unknown".into() };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let login = std::fs::read_to_string(format!("/proc/{}/loginuid", peer.pid));
    let login = login.ok().and_then(|text| text.trim().parse().ok());
    described(&users, peer.uid.as_raw(), login)
}

/// `login`: who had logged in, before sudo or the like, where the system keeps that.
fn described(users: &str, uid: u32, login: Option<u32>) -> String {
    let user = named(users, uid);
    match login.filter(|login| *login != u32::MAX && *login != uid) {
        Some(login) => format!("{} as {user}", named(users, login)),
        None => user,
    }
}

/// passwd(5)
fn named(users: &str, uid: u32) -> String {
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    });
    user.map_or_else(|| format!("user {uid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_that_the_system_knows() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbad line\nann:x:1000:1000::/home/ann:/bin/sh\n";
        for (uid, login, name) in [
            (0, None, "root"),
            (1000, Some(1000), "ann"),
            (0, Some(1000), "ann as root"),
            (0, Some(u32::MAX), "root"),
            (7, None, "user 7"),
        ] {
            assert_eq!(described(users, uid, login), name);
        }
    }
}
