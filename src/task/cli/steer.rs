//! pause, end and remove: a signal to the process that runs the task, or what becomes of one that does not run.

use crate::cli::language::Language;
use crate::task::exit::{self, Refused};
use crate::task::home::{Home, Name, Place};
use crate::task::journal::{Journal, Stage};
use crate::task::legacy;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Longer than a run waits for answers.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn pause(place: &Place, language: Language) -> Result<u8, Refused> {
    let name = &place.name;
    match stop(place, Signal::TERM)? {
        true => {
            crate::say!(
                "{}",
                language.pick([format!("{name}: paused"), format!("{name}：已暂停")])
            );
            Ok(exit::OK)
        }
        false => Err(Refused::nothing([
            format!("the task {name} does not run"),
            format!("任务 {name} 没有在运行"),
        ])),
    }
}

pub fn end(place: &Place, language: Language) -> Result<u8, Refused> {
    if !stop(place, Signal::USR1)? {
        legacy::not_a_rows(place)?;
    }
    let name = &place.name;
    // It may have been killed, or have ended by itself, meanwhile.
    let _lock = place.lock()?;
    let mut journal = Journal::open(&place.journal())?;
    let mut state = journal.state()?;
    match state.stage {
        Stage::Finished => {
            return Err(Refused::nothing([
                format!("the task {name} is finished already"),
                format!("任务 {name} 已经完成"),
            ]));
        }
        Stage::Ended => {}
        Stage::Ready | Stage::Running | Stage::Paused => {
            state.stage = Stage::Ended;
            journal.keep(&state, &[])?;
        }
    }
    crate::say!("{}", language.pick([format!("{name}: ended"), format!("{name}：已结束")]));
    Ok(exit::OK)
}

/// Frees the name and the copies of the list. Those of a retry stay with the task that they failed in as retried, unless
/// nobody of them can have been sent to.
pub fn remove(home: &Home, place: &Place, language: Language) -> Result<u8, Refused> {
    let (name, lock) = (&place.name, place.lock()?);
    let journal = Journal::open(&place.journal())?;
    let (plan, state) = (journal.plan()?, journal.state()?);
    match state.stage {
        Stage::Ready | Stage::Finished => {}
        // The row's next start goes on with it.
        Stage::Ended => legacy::not_a_rows(place)?,
        Stage::Running | Stage::Paused => {
            return Err(Refused::unfit([
                format!("the task {name} can still go on (mega-task end {name} ends it for good)"),
                format!("任务 {name} 还可以继续（mega-task end {name} 可将其结束）"),
            ]));
        }
    }
    if let Some(parent) = &plan.of
        && let Ok(parent) = Name::new(parent).and_then(|parent| home.task(&parent))
    {
        let _parents = parent.lock()?;
        let mut journal = Journal::open(&parent.journal())?;
        match state.stage {
            Stage::Ready => journal.give_back(name.as_str())?,
            _ => journal.retry_is_removed(name.as_str())?,
        }
    }
    drop(journal);
    home.remove(place, lock)?;
    let result = plan.result.display();
    crate::say!(
        "{}",
        language.pick([
            format!("{name}: removed (its results stay: {result})"),
            format!("{name}：已删除（结果文件保留：{result}）"),
        ])
    );
    Ok(exit::OK)
}

/// Returns when its process has ended; false if there is none.
fn stop(place: &Place, signal: Signal) -> Result<bool, Refused> {
    let Some(process) = place.runs() else { return Ok(false) };
    process
        .signal(signal)
        .map_err(|error| format!("cannot signal the process {}: {error}", process.pid))?;
    if process.ends_before(Instant::now() + PATIENCE) {
        return Ok(true);
    }
    let (name, seconds, pid) = (&place.name, PATIENCE.as_secs(), process.pid);
    Err(Refused::new(
        exit::FAILED,
        [
            format!(
                "the task {name} still waits for answers after {seconds} s: it is the process {pid} (a second signal \
                 ends it at once)"
            ),
            format!(
                "任务 {name} 在 {seconds} 秒后仍在等待应答：进程 {pid}（再次发送信号则立即结束）"
            ),
        ],
    ))
}
