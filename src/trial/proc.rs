//! What the kernel tells under /proc: who listens on a port, who holds a file's lock, numbers. Pure
//! reading; whatever cannot be read is as if it were not there.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, read_dir, read_link, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process as far as it shows itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    pub pid: i32,
    pub name: String,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, pid {}", self.name, self.pid)
    }
}

impl Who {
    fn of(pid: i32) -> Who {
        let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Who { pid, name: name.trim().to_owned() }
    }
}

/// The processes that listen on a TCP port, whatever the address.
pub fn listeners(port: u16) -> Vec<Who> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines().filter_map(|line| listening(line, port)))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let has = |pid: &i32| {
        let open = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|entry| read_link(entry.path()).ok());
        targets.any(|target| sockets.iter().any(|socket| Path::new(socket) == target))
    };
    processes().into_iter().filter(has).map(Who::of).collect()
}

fn processes() -> Vec<i32> {
    let entries = read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The inode of a line of /proc/net/tcp, see proc(5), if it is of a socket that listens on this port.
fn listening(line: &str, port: u16) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, "0A", _, _, _, _, _, inode, ..] = words.as_slice() else { return None };
    let found = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (found == port).then(|| inode.parse().ok())?
}

/// Whether somebody holds the lock on a folder.
pub enum Held {
    /// Nobody, or that does not show.
    Free,
    By(Option<Who>),
}

/// Tries a shared lock, and lets it go at once.
pub fn held(folder: &Path) -> Held {
    let Ok(handle) = File::open(folder) else { return Held::Free };
    match flock(&handle, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Held::By(handle.metadata().ok().and_then(|at| locker(at.ino())))
        }
        _ => Held::Free,
    }
}

/// Who holds the lock (flock) on a file; None where that does not show.
fn locker(inode: u64) -> Option<Who> {
    let locks = read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| locks_for_writing(line, inode)).map(Who::of)
}

/// `1: FLOCK  ADVISORY  WRITE 24616 fe:00:5694152 0 EOF` (proc_locks(5)).
fn locks_for_writing(line: &str, inode: u64) -> Option<i32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, file, ..] = words.as_slice() else { return None };
    let held = file.rsplit(':').next()?.parse() == Ok(inode);
    held.then(|| holder.parse().ok())?
}

/// A file's first number.
pub fn number(path: &str) -> Option<u64> {
    read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// The memory a process may use, in bytes: the machine's, or less where its control group has a limit.
pub fn memory(pid: &str) -> Option<u64> {
    let table = read_to_string("/proc/meminfo").ok()?;
    let total = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.split_whitespace().next()?.parse().ok()?;
    let groups = read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A limit of a group above counts as well.
    let folder = Path::new("/sys/fs/cgroup").join(group);
    let limits = folder.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    let limits = limits.filter_map(|folder| number(folder.join("memory.max").to_str()?));
    Some(limits.fold(total * 1024, u64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_and_who_locks_is_this_process() {
        let own = std::process::id() as i32;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listeners(port).iter().any(|who| who.pid == own && !who.name.is_empty()));
        drop(listener);
        assert_eq!(listeners(port), []);
        let file = tempfile::tempfile().unwrap();
        let inode = file.metadata().unwrap().ino();
        assert_eq!(locker(inode), None);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert_eq!(locker(inode).map(|who| who.pid), Some(own));
    }

    #[test]
    fn lines_of_other_sockets_and_other_locks_do_not_count() {
        let line = "   0: 0100007F:251D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(listening(line, 9501), Some(4711));
        assert_eq!(listening(line, 9502), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 9501), None);
        let line = "1: FLOCK  ADVISORY  WRITE 24616 fe:00:5694152 0 EOF";
        assert_eq!(locks_for_writing(line, 5_694_152), Some(24_616));
        assert_eq!(locks_for_writing(line, 5_694_153), None);
        assert_eq!(locks_for_writing(&line.replace("WRITE", "READ"), 5_694_152), None);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(memory("self").is_some_and(|bytes| bytes > 1 << 20));
    }
}
