//! stop and end: asks the process that runs a row, as its pid names it, and says in the row when that is gone.

use super::Which;
use super::table::{Counts, Row, Status};
use crate::cli::language::Language;
use crate::daemon::Process;
use crate::task::exit::{self, Refused};
use rustix::process::{Pid, Signal, Uid};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// What is waited for a process that was asked to end: longer than it waits for answers and for its database.
const STOP: Duration = Duration::from_secs(70);

/// Asks the process that runs the row, and waits until it has ended.
pub fn signal(which: &Which, signal: Signal, language: Language) -> Result<u8, Refused> {
    let id = which.id;
    let mut table = which.open()?;
    let row = table.find(id)?;
    if row.status != Status::Running {
        let status = row.status as u8;
        return Err(Refused::nothing([
            format!("task {id} does not run: its status is {status}"),
            format!("任务 {id} 没有在运行：状态为 {status}"),
        ]));
    }
    let Some(process) = runs(id, row.pid) else {
        let pid = row.pid;
        table.settle(id, &row, (Status::Interrupted, "进程已不存在"), row.counts.total)?;
        crate::say!(
            "{}",
            language.pick([
                format!("the process {pid} of task {id} is gone; its row is interrupted now: start goes on"),
                format!("任务 {id} 的进程 {pid} 已不存在；该行已标为中断：可用 start 继续"),
            ])
        );
        return Ok(exit::OK);
    };
    process
        .signal(signal)
        .map_err(|error| format!("cannot signal the process {}: {error}", process.pid))?;
    if !process.ends_before(Instant::now() + STOP) {
        let pid = row.pid;
        return Err(Refused::new(
            exit::FAILED,
            [
                format!("the process {pid} of task {id} was asked, and has not ended yet"),
                format!("已通知任务 {id} 的进程 {pid}，但它还没有结束"),
            ],
        ));
    }
    let Row { status, counts: Counts { total, success, fail, .. }, .. } = table.find(id)?;
    let status = status as u8;
    crate::say!(
        "{}",
        language.pick([
            format!("task {id}: {success} sent, {fail} failed of {total}, status {status}"),
            format!("任务 {id}：共 {total}，成功 {success}，失败 {fail}，状态 {status}"),
        ])
    );
    Ok(exit::OK)
}

/// The process, if it is still the one that the row means: its command line has the words `task` and the id.
fn runs(id: u32, pid: i32) -> Option<Process> {
    let pid = Pid::from_raw(pid).filter(|_| pid > 1)?;
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let process = Process::of(pid, Uid::from_raw(owner)).ok()?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    let is_task = words.clone().any(|word| word.ends_with("task") || word.starts_with("task"));
    (is_task && words.any(|word| word == id.to_string())).then_some(process)
}
