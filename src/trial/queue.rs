//! Whether the queue could be opened and the ledger written, by reading what is there. As whom the daemon
//! is to run; holds a shared lock on the queue's folder for an instant.

use super::proc::{self, Held, Who};
use super::{Finding, Trial, plain};
use crate::ledger::schema;
use crate::queue::disk::Folder;
use crate::queue::{self, inspect};
use crate::sqlite;
use rustix::fs::{FsWord, statfs, statvfs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// File systems that promise less than a local disk: their number in statfs(2), and what they are.
const UNSAFE: &[(FsWord, [&str; 2])] = &[
    (0x0102_1994, ["in memory (tmpfs)", "内存（tmpfs）"]),
    (0x8584_58f6, ["in memory (ramfs)", "内存（ramfs）"]),
    (0x6969, ["on another machine (NFS)", "其他机器（NFS）"]),
    (0xff53_4d42, ["on another machine (CIFS)", "其他机器（CIFS）"]),
    (0xfe53_4d42, ["on another machine (SMB)", "其他机器（SMB）"]),
    (0x517b, ["on another machine (SMB)", "其他机器（SMB）"]),
    (0x0102_1997, ["on another machine (9P)", "其他机器（9P）"]),
    (0x00c3_6400, ["on other machines (Ceph)", "其他机器（Ceph）"]),
    (0x6573_5546, ["behind FUSE", "FUSE 文件系统"]),
];

pub fn queue(trial: &Trial) -> Vec<Finding> {
    let folder = &trial.config.server.queue_file_path;
    let there = folder.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    let mut findings: Vec<Finding> = kept_on(folder, there).into_iter().collect();
    let mut bytes = 0;
    if folder.is_dir() {
        findings.extend(locked(folder, trial));
        if let Ok(disk) = Folder::read_only(folder)
            && let Err(error) = inspect::openable(&disk)
        {
            findings.push(Finding::wrong(
                "server.queue_file_path",
                plain(format!("{}: {error}", folder.display())),
                [
                    "use the mega that wrote this queue, or another folder",
                    "使用写入该队列的 mega 版本，或换一个目录",
                ],
            ));
        }
        bytes = segments(folder);
    }
    findings.extend(room(there, bytes, trial));
    findings
}

fn kept_on(folder: &Path, there: &Path) -> Option<Finding> {
    let kind = statfs(there).ok()?.f_type;
    let (_, [english, chinese]) = UNSAFE.iter().find(|(number, _)| *number == kind)?;
    let shown = folder.display();
    let what = [
        format!("{shown} is {english}: what was accepted may be lost with it"),
        format!("{shown} 位于{chinese}：已接受的消息可能随之丢失"),
    ];
    let todo = ["choose a folder on a local disk", "换一个本地磁盘上的目录"];
    Some(Finding::warning("server.queue_file_path", what, todo))
}

/// By another process than the running daemon.
fn locked(folder: &Path, trial: &Trial) -> Option<Finding> {
    let Held::By(holder) = proc::held(folder) else { return None };
    let pid = trial.daemon.map(|daemon| daemon.pid.as_raw_nonzero().get());
    // Where the kernel does not tell, the daemon that runs is the likeliest.
    if pid.is_some() && holder.as_ref().is_none_or(|who| Some(who.pid) == pid) {
        return None;
    }
    let by = holder.as_ref().map_or_else(String::new, Who::to_string);
    let shown = folder.display();
    let what = [
        format!("another process holds the queue {shown}: {by}"),
        format!("队列 {shown} 被其他进程占用：{by}"),
    ];
    let todo = [
        "is another configuration using the same folder? Give each its own",
        "是否有其他配置使用同一目录？请各用各的目录",
    ];
    Some(Finding::wrong("server.queue_file_path", what, todo))
}

/// Bytes of its segments, those kept as damaged included.
pub fn segments(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.file_name().to_string_lossy().contains(".seg"));
    own.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

/// Whether the disk has the space that the queue may take.
fn room(there: &Path, held: u64, trial: &Trial) -> Option<Finding> {
    let disk = statvfs(there).ok()?;
    let free = disk.f_bavail * disk.f_frsize;
    let config = trial.config;
    let segment = segment_size(config);
    let (shown, mib) = (there.display(), free >> 20);
    let what = [format!("{mib} MiB are free at {shown}"), format!("{shown} 只剩 {mib} MiB")];
    let free_up = |bytes: u64| {
        let mib = bytes.div_ceil(1 << 20);
        [format!("free {mib} MiB, or choose another disk"), format!("腾出 {mib} MiB，或换一个磁盘")]
    };
    if held == 0 && free < segment {
        let subject = "server.queue_file_path, queue.segment_size";
        return Some(Finding::wrong(subject, what, free_up(segment)));
    }
    if free < segment {
        let subject = "server.queue_file_path, queue.segment_size";
        return Some(Finding::warning(subject, what, free_up(segment)));
    }
    let wanted = config.queue.queue_max_bytes.saturating_sub(held);
    (free < wanted).then(|| {
        let what = [
            format!(
                "the queue may grow by {} MiB, and {mib} MiB are free at {shown}",
                wanted >> 20
            ),
            format!("队列还可能增长 {} MiB，而 {shown} 只剩 {mib} MiB", wanted >> 20),
        ];
        let todo = [
            "lower queue.queue_max_bytes, or choose a larger disk",
            "减小 queue.queue_max_bytes，或换一个更大的磁盘",
        ];
        Finding::warning("queue.queue_max_bytes", what, todo)
    })
}

/// As it is in effect: the longest frame must fit.
pub fn segment_size(config: &crate::config::Config) -> u64 {
    let least = queue::segment_size_for(config.setting.package_max_length);
    config.queue.segment_size.max(least.next_power_of_two())
}

/// The daemon starts without a ledger, and keeps in the queue what fails.
pub fn ledger(trial: &Trial) -> Vec<Finding> {
    let path = &trial.config.server.ledger_file;
    let shown = path.display();
    let found = sqlite::look(path).and_then(|connection| match connection {
        None => Ok(None),
        Some(connection) => schema::look(&connection).map(Some).map_err(|error| error.to_string()),
    });
    let todo = [
        "name a file of its own in server.ledger_file, or use the mega that wrote it",
        "在 server.ledger_file 中指定单独的文件，或使用写入它的 mega 版本",
    ];
    let what = match found {
        Ok(None | Some(schema::Prepared::Ready)) => return Vec::new(),
        Ok(Some(schema::Prepared::Newer(version))) => [
            format!(
                "{shown} has version {version}, made by a newer mega: failures could not be recorded"
            ),
            format!("{shown} 的版本为 {version}，由更新的 mega 写入：无法记录失败的消息"),
        ],
        Ok(Some(schema::Prepared::Foreign)) => [
            format!("{shown} holds other tables: failures could not be recorded"),
            format!("{shown} 中是其他的表：无法记录失败的消息"),
        ],
        Err(why) => [
            format!(
                "{shown} cannot be read as a database ({why}): it would be put aside as .bad, if it can be, and a new one begun"
            ),
            format!("{shown} 无法作为数据库读取（{why}）：会尽可能改名为 .bad，并重新建立"),
        ],
    };
    vec![Finding::warning("server.ledger_file", what, todo)]
}
