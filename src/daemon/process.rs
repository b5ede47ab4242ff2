//! One process that was found and is held on to: a number that the kernel gives to another process
//! meanwhile is not signalled.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, Uid, kill_process, pidfd_open, pidfd_send_signal, test_kill_process,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often it is looked whether a process has ended, where the kernel cannot tell.
const GLANCE: Duration = Duration::from_millis(10);

pub struct Process {
    pub pid: Pid,
    pub uid: Uid,
    /// None where the kernel is too old to hold on to a process.
    held: Option<OwnedFd>,
}

impl Process {
    /// Holds on to the process, which must be `uid`'s in every respect.
    pub fn of(pid: Pid, uid: Uid) -> io::Result<Process> {
        let held = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => Some(held),
            Err(Errno::NOSYS | Errno::PERM) => None,
            Err(error) => return Err(error.into()),
        };
        // Read after the process is held: should it be gone by now, what is read is another's, and a
        // signal reaches nobody.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let mut uids = line.split_whitespace().map(str::parse);
        match !line.is_empty() && uids.all(|found| found == Ok(uid.as_raw())) {
            true => Ok(Process { pid, uid, held }),
            false => Err(io::Error::other(format!(
                "the process {pid} does not run as the user {uid}, and is not believed"
            ))),
        }
    }

    /// `PermissionDenied`: it is another user's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let signalled = match &self.held {
            Some(held) => pidfd_send_signal(held, signal),
            None => kill_process(self.pid, signal),
        };
        match signalled {
            // It has ended by itself.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// True when it has ended before the deadline.
    pub fn ends_before(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = match &self.held {
                Some(held) => {
                    let left = Timespec::try_from(left).ok();
                    let ready = poll(&mut [PollFd::new(held, PollFlags::IN)], left.as_ref());
                    ready.is_ok_and(|count| count > 0)
                }
                None => {
                    std::thread::sleep(GLANCE.min(left));
                    test_kill_process(self.pid) == Err(Errno::SRCH)
                }
            };
            if ended || left.is_zero() {
                return ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, getuid};

    #[test]
    fn a_process_of_another_user_is_not_believed() {
        let uid = getuid();
        assert!(Process::of(getpid(), uid).is_ok());
        assert!(Process::of(getpid(), Uid::from_raw(uid.as_raw() + 1)).is_err());
    }

    #[test]
    fn its_end_is_seen_and_no_signal_goes_to_another() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let process = Process::of(pid, getuid()).unwrap();
        assert!(!process.ends_before(Instant::now() + GLANCE));
        process.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(process.ends_before(Instant::now() + Duration::from_secs(10)));
        process.signal(Signal::KILL).unwrap();
    }
}
