//! The running daemon as it says itself, the executable on the disk against it, the oldest message, and
//! today's failures with their remedies.

use super::{Premises, Running};
use crate::clock::now_ms;
use crate::ledger::failed::{State, count};
use crate::ledger::filter::Filter;
use crate::ledger::schema;
use crate::queue::disk::Folder;
use crate::queue::inspect;
use crate::sqlite;
use crate::stats::{Kind, TROUBLES};
use crate::trial::{Finding, plain};
use crate::wechat::meaning;
use chrono::{Local, NaiveTime, TimeZone};
use serde_json::Value;

/// A message that waits longer while nothing is suspended waits for no reason.
const OLD: u64 = 600_000;

/// So many kinds of failures are shown.
const SHOWN: usize = 5;

pub fn daemon(premises: &Premises) -> Vec<Finding> {
    let name = &premises.name;
    let Some(Running { pid, status }) = &premises.running else {
        let what = [format!("mega {name} does not run"), format!("mega {name} 没有运行")];
        return vec![Finding::ok("daemon", what)];
    };
    let pid = pid.as_raw_nonzero();
    let Some(status) = status else {
        let what = [
            format!("the process {pid} runs and does not answer"),
            format!("进程 {pid} 在运行，但没有应答"),
        ];
        let todo = ["see its log; it may be starting or ending", "查看日志；它可能正在启动或停止"];
        return vec![Finding::wrong("daemon", what, todo)];
    };
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let replaced = executable.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    let mut found = vec![version(status["version"].as_str().unwrap_or_default(), replaced)];
    found.extend(troubles(status));
    found
}

fn version(running: &str, replaced: bool) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match running == own && !replaced {
        true => {
            let what = [format!("runs, version {own}"), format!("正在运行，版本 {own}")];
            Finding::ok("daemon", what)
        }
        false => {
            let what = [
                format!(
                    "the running daemon has version {running}, this executable {own}, and is not the same file"
                ),
                format!("正在运行的版本为 {running}，本程序为 {own}，二者不是同一文件"),
            ];
            let todo = ["restart it: mega NAME restart", "重启：mega NAME restart"];
            Finding::warning("daemon", what, todo)
        }
    }
}

/// What the daemon itself calls a trouble.
fn troubles(status: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let text = |key: &str| status[key].as_str();
    if let Some(why) = text("suspended") {
        let since = text("suspended_since").unwrap_or("?");
        let probe = text("next_probe").unwrap_or("?");
        let what = [
            format!("nothing is sent since {since}: {why}; the next try is at {probe}"),
            format!("自 {since} 起暂停发送：{why}；下次尝试在 {probe}"),
        ];
        let todo = ["mend the cause; sending goes on by itself", "消除原因后会自动恢复发送"];
        found.push(Finding::wrong("suspended", what, todo));
    }
    // What may be lost comes first.
    for kind in [Kind::Unrecorded, Kind::Stops, Kind::TurnsAway, Kind::Ordered, Kind::Other] {
        for trouble in TROUBLES.iter().filter(|trouble| trouble.kind == kind) {
            let Some(why) = text(trouble.name) else { continue };
            let finding = match kind {
                Kind::Unrecorded | Kind::Stops | Kind::TurnsAway => Finding::wrong,
                Kind::Ordered | Kind::Other => Finding::warning,
            };
            found.push(finding(trouble.name, plain(why), trouble.todo));
        }
    }
    if let Some(damaged @ 1..) = status["damaged"].as_u64() {
        let what = [
            format!("{damaged} parts of the queue could not be read since the start"),
            format!("启动以来队列中有 {damaged} 处无法读取"),
        ];
        let todo = [
            "see the log and mega NAME queue check, and test the disk",
            "查看日志与 mega NAME queue check，并检测磁盘",
        ];
        found.push(Finding::warning("damaged", what, todo));
    }
    found
}

/// How long the oldest message has been waiting.
pub fn backlog(premises: &Premises) -> Vec<Finding> {
    let Ok(disk) = Folder::read_only(&premises.queue) else {
        return vec![Finding::ok("queue", ["there is none yet", "尚未建立"])];
    };
    let status = premises.running.as_ref().and_then(|running| running.status.as_ref());
    let depth = status.and_then(|status| status["queue_depth"].as_u64());
    let depth = depth.map_or_else(|| "?".to_owned(), |depth| depth.to_string());
    let Some(enqueued) = inspect::oldest(&disk) else {
        return vec![Finding::ok("queue", ["no message waits", "没有消息在等待"])];
    };
    let age = now_ms().saturating_sub(enqueued);
    let explained = status
        .is_none_or(|status| ["suspended", "paused"].iter().any(|why| status[*why].is_string()));
    vec![oldest(age, &depth, explained)]
}

/// `age` in ms; it is explained where nothing is sent anyway.
fn oldest(age: u64, depth: &str, explained: bool) -> Finding {
    let seconds = age / 1000;
    let what = [
        format!("{depth} messages wait, the oldest for {seconds} s"),
        format!("{depth} 条消息在等待，最早的已等 {seconds} 秒"),
    ];
    let todo = [
        "is it more than the workers can send? See mega NAME status, setting.task_worker_num and wechat.max_per_second",
        "是否超过发送能力？查看 mega NAME status、setting.task_worker_num 与 wechat.max_per_second",
    ];
    match age > OLD && !explained {
        true => Finding::warning("queue", what, todo),
        false => Finding::ok("queue", what),
    }
}

/// Those of today, by what WeChat said.
pub fn failures(premises: &Premises) -> Vec<Finding> {
    let unreadable = |why: String| {
        let todo = ["see server.ledger_file", "检查 server.ledger_file"];
        vec![Finding::warning("failures", plain(why), todo)]
    };
    let midnight = Local::now().date_naive().and_time(NaiveTime::MIN);
    let since = Local.from_local_datetime(&midnight).earliest();
    let since = since.map(|time| time.timestamp_millis().max(0) as u64);
    let filter = Filter { since, ..Filter::default() };
    let read = sqlite::look(&premises.ledger).and_then(|ledger| {
        let why = |error: rusqlite::Error| error.to_string();
        let Some(ledger) = ledger else { return Ok(Vec::new()) };
        if schema::version(&ledger).map_err(why)? == 0 {
            return Ok(Vec::new());
        }
        count(&ledger, &filter, &[State::Failed, State::Moving]).map_err(why)
    });
    let mut counts = match read {
        Ok(counts) => counts,
        Err(why) => return unreadable(why),
    };
    if counts.is_empty() {
        return vec![Finding::ok("failures", ["none today", "今天没有"])];
    }
    counts.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let shown = counts.iter().take(SHOWN);
    shown.map(|(errcode, class, count)| failure(*errcode, class, *count)).collect()
}

fn failure(errcode: Option<i64>, class: &str, count: u64) -> Finding {
    let name = errcode.map_or_else(|| class.to_owned(), |errcode| errcode.to_string());
    let what = [format!("{count} today: {name}"), format!("今天 {count} 条：{name}")];
    let see = ["see mega NAME failed", "查看 mega NAME failed"];
    Finding::warning("failures", what, meaning::of_end(errcode, class).unwrap_or(see))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Level::{Ok, Warning, Wrong};
    use serde_json::json;

    #[test]
    fn what_the_daemon_complains_of_is_told_and_nothing_else() {
        let fine = json!({"suspended": null, "ledger": null, "full": null, "damaged": 0});
        assert_eq!(troubles(&fine), []);
        let status = json!({"suspended": "config: 40013", "suspended_since": "10:00",
            "next_probe": "10:01", "ledger": "disk full", "full": "queue full", "damaged": 2});
        let found = troubles(&status);
        let told: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.level)).collect();
        assert_eq!(
            told,
            [("suspended", Wrong), ("ledger", Wrong), ("full", Wrong), ("damaged", Warning)]
        );
        assert!(found[0].what[0].contains("since 10:00: config: 40013"), "{found:?}");
    }

    #[test]
    fn another_executable_or_version_is_worth_a_restart() {
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(version(own, false).level, Ok);
        assert_eq!(version(own, true).level, Warning);
        assert_eq!(version("0.0.0", false).level, Warning);
    }

    #[test]
    fn an_old_message_is_worth_a_warning_where_nothing_explains_it() {
        assert_eq!(oldest(OLD, "7", false).level, Ok);
        assert_eq!(oldest(OLD + 1, "7", false).level, Warning);
        assert_eq!(oldest(OLD + 1, "7", true).level, Ok);
    }

    #[test]
    fn a_failure_is_told_with_its_remedy() {
        assert!(failure(Some(43004), "", 3).todo[0].contains("does not follow"));
        assert!(failure(None, "unknown", 1).what[0].contains("unknown"));
    }
}
