//! The machine: disks against what the queue may need, the running process's limits, the kernel's settings
//! that mega meets, the time zone. Reads only.

use super::Patient;
use crate::config::{Config, Dsn};
use crate::trial::{self, Finding, plain};
use rustix::fs::statvfs;
use std::fs::read_to_string;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Of a disk's space and inodes: less than so many of a hundred is worth a warning, where it is also less
/// than so much.
const SHARE: u64 = 5;
const PLENTY: u64 = 1 << 30;
const PLENTY_OF_INODES: u64 = 10_000;

const FREE: [&str; 2] = [
    "remove what is not needed (old logs: log.log_max_files), or move to a larger disk",
    "清理不需要的文件（旧日志见 log.log_max_files），或换更大的磁盘",
];

/// Each file system that mega writes to.
pub fn disks(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let mut seen = Vec::new();
    let mut found = Vec::new();
    // The queue's comes first: what is said of it says most.
    for (place, folder) in folders(config).into_iter().enumerate() {
        let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
        let (Ok(disk), Ok(at)) = (statvfs(there), there.metadata()) else { continue };
        if seen.contains(&at.dev()) {
            continue;
        }
        seen.push(at.dev());
        let space = Space {
            free: disk.f_bavail * disk.f_frsize,
            size: disk.f_blocks * disk.f_frsize,
            inodes_free: disk.f_favail,
            inodes: disk.f_files,
        };
        let needs = match place {
            0 => Needs {
                segment: trial::segment_size(config),
                backlog: trial::segments(&config.server.queue_file_path),
            },
            _ => Needs { segment: 1 << 20, backlog: 0 },
        };
        found.push(judge(there, &space, &needs));
    }
    found
}

fn folders(config: &Config) -> Vec<PathBuf> {
    let above = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut folders = vec![config.server.queue_file_path.clone()];
    folders.push(above(&config.server.ledger_file));
    folders.extend(config.log.log_file.path().map(above));
    folders.extend(config.log.message_log.iter().map(|path| above(path)));
    if let Dsn::Sqlite(path) = &config.pdo.dsn {
        folders.push(above(path));
    }
    folders
}

struct Space {
    free: u64,
    size: u64,
    inodes_free: u64,
    inodes: u64,
}

/// Bytes.
struct Needs {
    segment: u64,
    /// What the queue holds now: were all of it to be retried, it would be written once more.
    backlog: u64,
}

fn judge(at: &Path, space: &Space, needs: &Needs) -> Finding {
    let subject = format!("disk {}", at.display());
    let (free, backlog) = (space.free >> 20, needs.backlog >> 20);
    let percent = (space.free * 100).checked_div(space.size).unwrap_or(0);
    let what = [
        format!("{free} MiB free ({percent} %), the queue holds {backlog} MiB"),
        format!("剩余 {free} MiB（{percent}%），队列占用 {backlog} MiB"),
    ];
    if space.free < needs.segment {
        return Finding::wrong(subject, what, FREE);
    }
    if space.inodes > 0 && space.inodes_free == 0 {
        return Finding::wrong(subject, ["no inode is free", "没有剩余的 inode"], FREE);
    }
    let few =
        space.inodes_free < PLENTY_OF_INODES && space.inodes_free * 100 < space.inodes * SHARE;
    if few {
        let left = space.inodes_free;
        let what = [format!("{left} inodes are free"), format!("剩余 {left} 个 inode")];
        return Finding::warning(subject, what, FREE);
    }
    let small = percent < SHARE && space.free < PLENTY;
    match small || space.free < needs.segment + needs.backlog {
        true => Finding::warning(subject, what, FREE),
        false => Finding::ok(subject, what),
    }
}

/// The running daemon's limits, which may be other than this command's.
pub fn process(patient: &Patient) -> Vec<Finding> {
    let Some(running) = &patient.premises.running else { return Vec::new() };
    let pid = running.pid.as_raw_nonzero();
    let setting = &patient.config.setting;
    let mut found = Vec::new();
    let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    if let Some(limit) = open_files(&limits) {
        let used = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
        found.push(descriptors(used, limit));
        found.extend(trial::open_files(limit, setting));
    }
    found
        .extend(trial::available(&pid.to_string()).and_then(|bytes| trial::memory(bytes, setting)));
    found
}

/// The soft one, of /proc/PID/limits.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn descriptors(used: u64, limit: u64) -> Finding {
    let what = [
        format!("{used} of {limit} are in use by the daemon"),
        format!("守护进程已用 {used} 个，上限 {limit} 个"),
    ];
    let todo = [
        "raise the limit (LimitNOFILE in the systemd unit), or find out who keeps so many connections",
        "提高上限（systemd 的 LimitNOFILE），或查明谁占用了这么多连接",
    ];
    match used * 5 > limit * 4 {
        true => Finding::warning("open files", what, todo),
        false => Finding::ok("open files", what),
    }
}

/// What the kernel would silently cut short.
pub fn kernel(patient: &Patient) -> Vec<Finding> {
    let setting = &patient.config.setting;
    let mut found = Vec::new();
    if let Some(most) = trial::number("/proc/sys/net/core/somaxconn") {
        found.push(backlog(most, u64::from(setting.backlog)));
    }
    let range = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    found.extend(ports(&range, setting.task_worker_num as u64));
    found
}

fn backlog(most: u64, wanted: u64) -> Finding {
    let subject = "kernel net.core.somaxconn";
    let what = [
        format!("{most}, and setting.backlog is {wanted}"),
        format!("{most}，而 setting.backlog 为 {wanted}"),
    ];
    let todo = [
        format!(
            "the kernel holds {most} connections at most: sysctl -w net.core.somaxconn={wanted}"
        ),
        format!("内核最多保留 {most} 个连接：sysctl -w net.core.somaxconn={wanted}"),
    ];
    match most < wanted {
        true => Finding::warning(subject, what, todo),
        false => Finding::ok(subject, what),
    }
}

/// A worker has one connection to WeChat, and those that it closed keep their ports for a minute.
fn ports(range: &str, workers: u64) -> Option<Finding> {
    let mut bounds = range.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(low)), Some(Ok(high))) = (bounds.next(), bounds.next()) else { return None };
    let (there, wanted) = (high.saturating_sub(low) + 1, workers * 8);
    let subject = "kernel net.ipv4.ip_local_port_range";
    let what = [
        format!("{there} ports for {workers} workers"),
        format!("{workers} 个发送线程共有 {there} 个端口"),
    ];
    let todo = plain("sysctl -w net.ipv4.ip_local_port_range='32768 60999'");
    Some(match there < wanted {
        true => Finding::warning(subject, what, todo),
        false => Finding::ok(subject, what),
    })
}

/// Nothing is wrong with any zone; whoever reads the logs should know which it is.
pub fn time_zone(_: &Patient) -> Vec<Finding> {
    let now = chrono::Local::now();
    let offset = now.format("%:z");
    // Midnight at UTC+8, on a day that has today's rules.
    let midnight = now.to_utc().date_naive().and_hms_opt(16, 0, 0).unwrap_or_default().and_utc();
    let local = midnight.with_timezone(&chrono::Local).format("%H:%M");
    let what = [
        format!("{offset}; WeChat's day, and its quotas, begin at {local} here"),
        format!("{offset}；微信的一天（及其限额）从本地 {local} 开始"),
    ];
    vec![Finding::ok("time zone", what)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Level::{self, Ok, Warning, Wrong};

    fn level(free: u64, size: u64, inodes_free: u64, backlog: u64) -> Level {
        let space = Space { free, size, inodes_free, inodes: 1_000_000 };
        judge(Path::new("/"), &space, &Needs { segment: 4 << 20, backlog }).level
    }

    #[test]
    fn a_disk_is_judged_by_what_the_queue_needs_next() {
        const M: u64 = 1 << 20;
        assert_eq!(level(4 * M - 1, 50 * M, 500_000, 0), Wrong);
        assert_eq!(level(4 * M, 50 * M, 500_000, 0), Ok);
        assert_eq!(level(4 * M, 81 * M, 500_000, 0), Warning, "less than 5 %");
        assert_eq!(level(1 << 30, 1 << 40, 500_000, 0), Ok, "it is plenty all the same");
        assert_eq!(level(10 * M, 50 * M, 500_000, 6 * M), Ok);
        assert_eq!(level(10 * M, 50 * M, 500_000, 6 * M + 1), Warning, "all may be retried");
        assert_eq!(level(10 * M, 50 * M, 0, 0), Wrong);
        assert_eq!(level(10 * M, 50 * M, 9_999, 0), Warning);
        assert_eq!(level(10 * M, 50 * M, 10_000, 0), Ok);
        let none = Space { free: 10 * M, size: 50 * M, inodes_free: 0, inodes: 0 };
        assert_eq!(judge(Path::new("/"), &none, &Needs { segment: 1, backlog: 0 }).level, Ok);
    }

    #[test]
    fn limits_and_settings_are_read_and_compared() {
        let limits = "Limit   Soft  Hard  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files   unlimited unlimited files"), None);
        assert_eq!([descriptors(80, 100).level, descriptors(81, 100).level], [Ok, Warning]);
        assert_eq!([backlog(512, 512).level, backlog(511, 512).level], [Ok, Warning]);
        let level = |range, workers| ports(range, workers).map(|finding| finding.level);
        assert_eq!(level("32768\t60999\n", 1024), Some(Ok));
        assert_eq!(level("100 163", 8), Some(Ok));
        assert_eq!(level("100 162", 8), Some(Warning));
        assert_eq!(level("", 8), None);
    }
}
