//! Limits against each other, and against those of the machine. The first needs nothing but the
//! configuration; the second tries to raise the limit of open files, in the trial's own process.

use super::{Finding, Trial, proc};
use crate::client::PATIENCE;
use crate::config::{Config, Setting};
use crate::{daemon, queue};

/// Descriptors that are neither clients nor workers: the files of the queue, logs, the database.
const OWN: usize = 256;

/// What the daemon takes beside `memory_limit`, roughly.
const OWN_MEMORY: u64 = 64 << 20;

/// Descriptors that clients must leave to the rest.
pub fn descriptors(setting: &Setting) -> usize {
    2 * setting.task_worker_num + OWN
}

/// Values of the configuration that do not fit together.
pub fn configured(config: &Config) -> Vec<Finding> {
    let (setting, wechat) = (&config.setting, &config.wechat);
    let mut findings = Vec::new();
    let share = setting.memory_limit / 4;
    for (key, bytes) in [
        ("setting.package_max_length", setting.package_max_length),
        ("setting.buffer_output_size", setting.buffer_output_size),
    ] {
        if bytes > share {
            let what = [
                format!(
                    "one client alone can take more than setting.memory_limit has for all ({share} bytes)"
                ),
                format!(
                    "一个客户端即可超过 setting.memory_limit 留给全部客户端的份额（{share} 字节）"
                ),
            ];
            let todo = [
                format!("lower {key}, or raise setting.memory_limit to four times as much"),
                format!("减小 {key}，或把 setting.memory_limit 增至其四倍"),
            ];
            findings.push(Finding::warning(format!("{key}, setting.memory_limit"), what, todo));
        }
    }
    if wechat.connect_timeout > wechat.timeout {
        findings.push(Finding::warning(
            "wechat.connect_timeout, wechat.timeout",
            [
                "the whole call ends before its connection may take that long",
                "整个调用的时限短于连接的时限",
            ],
            ["give wechat.timeout the longer one", "wechat.timeout 应更长"],
        ));
    }
    if setting.stop_timeout < wechat.timeout / 3 {
        findings.push(Finding::warning(
            "setting.stop_timeout, wechat.timeout",
            [
                "a stop gives up on calls that WeChat would still answer: their messages go out again after the next start",
                "停止时会放弃微信尚未应答的调用：这些消息在下次启动后会再次发出",
            ],
            ["give setting.stop_timeout at least a third of wechat.timeout", "setting.stop_timeout 至少为 wechat.timeout 的三分之一"],
        ));
    }
    let longest = wechat.send_retry_for + wechat.timeout;
    if longest > PATIENCE {
        findings.push(Finding::warning(
            "wechat.send_retry_for, wechat.timeout",
            [
                format!("the client of a send may wait {longest:?} for its result; mega's own gives up after {PATIENCE:?}"),
                format!("send 的客户端可能要等 {longest:?}；mega 自己的客户端等 {PATIENCE:?} 就放弃"),
            ],
            ["shorten one of them", "缩短其中之一"],
        ));
    }
    findings.extend(segments(config));
    findings
}

/// The longest frame decides how small a segment can be.
fn segments(config: &Config) -> Option<Finding> {
    let queue = &config.queue;
    let least = queue::segment_size_for(config.setting.package_max_length).next_power_of_two();
    let limit = queue.queue_max_bytes;
    (limit > 0 && limit < 2 * least).then(|| {
        let what = [
            format!("the queue has no room for two segments, which have at least {least} bytes because of setting.package_max_length"),
            format!("放不下两个队列文件：由于 setting.package_max_length，每个至少 {least} 字节"),
        ];
        let todo = [
            format!("raise queue.queue_max_bytes to {} at least, or lower setting.package_max_length", 2 * least),
            format!("queue.queue_max_bytes 至少为 {}，或减小 setting.package_max_length", 2 * least),
        ];
        Finding::warning("queue.queue_max_bytes, setting.package_max_length", what, todo)
    })
}

/// What the machine allows.
pub fn machine(trial: &Trial) -> Vec<Finding> {
    let setting = &trial.config.setting;
    let wanted = setting.max_conn + descriptors(setting);
    let limit = daemon::raise_open_files_limit(wanted as u64);
    let mut findings: Vec<Finding> = open_files(limit, setting).into_iter().collect();
    findings.extend(proc::memory("self").and_then(|bytes| memory(bytes, setting)));
    findings
}

/// `limit`: of open files.
pub fn open_files(limit: u64, setting: &Setting) -> Option<Finding> {
    let reserve = descriptors(setting);
    let clients = (limit as usize).saturating_sub(reserve).max(1);
    (clients < setting.max_conn).then(|| {
        let wanted = setting.max_conn + reserve;
        let what = [
            format!("{clients} clients may connect instead of {}: the limit of open files is {limit}", setting.max_conn),
            format!("只能连接 {clients} 个客户端而不是 {} 个：打开文件数的上限为 {limit}", setting.max_conn),
        ];
        let todo = [
            format!("raise it to {wanted} (ulimit -n, or LimitNOFILE in the systemd unit), or lower setting.max_conn"),
            format!("把上限提高到 {wanted}（ulimit -n，或 systemd 的 LimitNOFILE），或减小 setting.max_conn"),
        ];
        Finding::warning("setting.max_conn", what, todo)
    })
}

/// `bytes`: what the process may use.
pub fn memory(bytes: u64, setting: &Setting) -> Option<Finding> {
    let wanted = setting.memory_limit as u64 + OWN_MEMORY;
    (bytes < wanted).then(|| {
        let have = bytes >> 20;
        let what = [
            format!("clients may make the daemon hold more memory than there is ({have} MiB): the kernel would end it"),
            format!("客户端可使守护进程占用的内存多于实有的内存（{have} MiB）：内核会终止它"),
        ];
        let todo = [
            format!("lower setting.memory_limit below {} MiB, or give it {} MiB", bytes.saturating_sub(OWN_MEMORY) >> 20, wanted >> 20),
            format!("把 setting.memory_limit 降到 {} MiB 以下，或提供 {} MiB 内存", bytes.saturating_sub(OWN_MEMORY) >> 20, wanted >> 20),
        ];
        Finding::warning("setting.memory_limit", what, todo)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Level;
    use crate::trial::tests::config;

    #[test]
    fn only_values_that_do_not_fit_are_named() {
        let found = |more: &str| {
            let findings = configured(&config(more));
            assert!(findings.iter().all(|finding| finding.level == Level::Warning));
            findings.into_iter().map(|finding| finding.subject).collect::<Vec<_>>()
        };
        assert!(found("").is_empty());
        let small = "[setting]\nmemory_limit = 16M\nmax_conn = 9\n";
        assert_eq!(found(small), ["setting.buffer_output_size, setting.memory_limit"]);
        assert!(found(&format!("{small}buffer_output_size = 4M")).is_empty());
        let long = format!("{small}buffer_output_size = 4M\npackage_max_length = 4194305");
        assert_eq!(found(&long), ["setting.package_max_length, setting.memory_limit"]);
        assert_eq!(found("connect_timeout = 16s"), ["wechat.connect_timeout, wechat.timeout"]);
        assert!(found("connect_timeout = 15s").is_empty());
        assert_eq!(found("[setting]\nstop_timeout = 4s"), ["setting.stop_timeout, wechat.timeout"]);
        assert!(found("[setting]\nstop_timeout = 5s").is_empty());
        assert_eq!(found("send_retry_for = 46s"), ["wechat.send_retry_for, wechat.timeout"]);
        assert!(found("send_retry_for = 45s").is_empty());
        let queue = "[queue]\nsegment_size = 1M\nqueue_max_bytes = ";
        assert_eq!(
            found(&format!("{queue}7M")),
            ["queue.queue_max_bytes, setting.package_max_length"]
        );
        assert!(found(&format!("{queue}8M")).is_empty() && found(&format!("{queue}0")).is_empty());
    }

    #[test]
    fn a_limit_of_the_machine_is_named_exactly_where_it_is_too_small() {
        let setting = config("[setting]\nmax_conn = 1000\ntask_worker_num = 8").setting;
        assert_eq!(open_files(1000 + 16 + 256, &setting), None);
        let found = open_files(1000 + 16 + 255, &setting).unwrap();
        assert!(found.what[0].starts_with("999 clients") && found.todo[0].contains("1272"));
        assert!(open_files(0, &setting).unwrap().what[0].starts_with("1 clients"));
        assert_eq!(memory((256 + 64) << 20, &setting), None);
        assert!(memory(((256 + 64) << 20) - 1, &setting).is_some());
    }
}
