//! A start that is only tried out, before anything is stopped for it: a process of its own, of this very
//! executable, becomes the user that the daemon is to run as and says what it would find. It opens
//! what a start opens, and changes nothing.

use super::which::Which;
use crate::config::{Config, Dsn};
use crate::daemon::{self, Owner};
use crate::exit;
use crate::server;
use crate::wechat::client::Network;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a database that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says what is wrong with a start of this configuration; the ports are the caller's to try.
pub fn rehearse(which: &Which) -> Result<(), String> {
    let failed = |error| format!("the start cannot be tried out: {error}");
    // Not by its name, under which another executable may stand by now.
    let mut command = Command::new("/proc/self/exe");
    command.args(which.words()).arg("rehearse").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take().expect("invariant: standard output is piped");
    let said = listen(output, Instant::now() + PATIENCE);
    let Some(said) = said else {
        end(&mut child);
        return Err(format!(
            "what a start would find is not known after {} s: a database or a disk hangs",
            PATIENCE.as_secs()
        ));
    };
    match child.wait().map_err(failed)? {
        status if status.success() => Ok(()),
        status if said.is_empty() => Err(format!("the start was tried out and failed: {status}")),
        _ => Err(said.trim_end().to_owned()),
    }
}

/// A process that hangs on a disk ends when the disk lets it.
fn end(child: &mut Child) {
    // One that has ended meanwhile needs no end.
    let _ = child.kill();
    let _ = child.try_wait();
}

/// All that it says until it ends; none if it has not by then.
fn listen(mut output: ChildStdout, deadline: Instant) -> Option<String> {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], left.as_ref());
        match ready {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match output.read(&mut chunk) {
            Ok(0) | Err(_) => return Some(String::from_utf8_lossy(&said).into_owned()),
            Ok(count) => said.extend_from_slice(&chunk[..count]),
        }
    }
}

/// The child's part: prints what is wrong.
pub fn play(config: &Config) -> u8 {
    match problem(config) {
        None => exit::OK,
        Some(why) => {
            crate::say!("{why}");
            exit::FAILED
        }
    }
}

fn problem(config: &Config) -> Option<String> {
    let owner = Owner::of(config);
    let usable = owner.and_then(|owner| daemon::foresee(config, &owner));
    usable.and_then(|()| Network::open(config).map(|_| ())).and_then(|()| templates(config)).err()
}

/// A database that is a file, and is not there or not yet this user's, is a matter of its folder.
fn templates(config: &Config) -> Result<(), String> {
    match &config.pdo.dsn {
        Dsn::Sqlite(path) if access(path, Access::READ_OK | Access::WRITE_OK).is_err() => Ok(()),
        _ => server::load_templates(config).map(|_| ()),
    }
}
