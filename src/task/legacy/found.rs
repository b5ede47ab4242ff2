//! What a row is as it is found: whether it may be started, whether its file may be read, and how it was left by others.
//! Asks nobody.

use super::Start;
use super::people::Left;
use super::table::{Counts, Row, Status, To};
use crate::task::exit::{self, Refused};
use crate::task::home::Place;
use std::path::{Path, PathBuf};

pub fn may_start(id: u32, row: &Row, place: Option<Place>) -> Result<(), Refused> {
    if row.is_deleted {
        return Err(Refused::unfit([format!("task {id} is deleted"), format!("任务 {id} 已删除")]));
    }
    // Who had the row had the folder, too: its lock tells a process that was killed from one that is elsewhere.
    let killed = place.and_then(|place| place.left_by()).is_some_and(|pid| pid as i32 == row.pid);
    let pid = row.pid;
    match row.status {
        Status::Running if !killed => Err(Refused::new(
            exit::FAILED,
            [
                format!(
                    "task {id} runs already: process {pid} (if that is gone, legacy stop {id} on its machine says so in \
                     the row)"
                ),
                format!(
                    "任务 {id} 已在运行：进程 {pid}（若已不存在，请在其所在机器上执行 legacy stop {id}）"
                ),
            ],
        )),
        Status::Finished => Err(Refused::nothing([
            format!("task {id} is finished: nobody is left"),
            format!("任务 {id} 已完成：没有剩余的人"),
        ])),
        _ => Ok(()),
    }
}

/// The row's file, which whoever may write to the table has named: it must be the installation's.
pub fn file_of(id: u32, row: &Row, options: &Start) -> Result<PathBuf, Refused> {
    let file = options.root.join(&row.file);
    let shown = file.display();
    if row.to == To::Everybody {
        return Ok(file);
    }
    if !file.is_file() {
        return Err(Refused::unfit([
            format!("the file of task {id} is missing: {shown} (--root?)"),
            format!("任务 {id} 的文件不存在：{shown}（--root 对吗？）"),
        ]));
    }
    let really = |path: &Path| {
        path.canonicalize().map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let (real, root) = (really(&file)?, really(&options.root)?);
    if options.any_file || real.starts_with(&root) {
        return Ok(real);
    }
    let (real, root) = (real.display(), root.display());
    Err(Refused::unfit([
        format!(
            "the file of task {id} is {real}, outside the installation's folder {root}: it is not read (--any-file \
             reads it all the same; --root names another folder)"
        ),
        format!(
            "任务 {id} 的文件是 {real}，不在安装目录 {root} 之内：不予读取（--any-file 仍然读取；--root 另指定目录）"
        ),
    ]))
}

/// How a row was left that no task of this home knows.
pub fn left(id: u32, row: &Row, options: &Start) -> Result<Left, Refused> {
    let Counts { success, fail, file_index: done, .. } = row.counts;
    let answered = success + fail;
    match (done, options.resume_demo, options.resume_forward) {
        (0, ..) if answered == 0 || row.status == Status::Waiting => Ok(Left::Fresh),
        (0, ..) => Err(Refused::unfit([
            format!(
                "somebody else has sent to {answered} people of task {id}, and the row does not say to whom: it goes on \
                 with the --home of the mega-task that had it; with status 0 it begins anew, and they get it twice"
            ),
            format!(
                "任务 {id} 已由他处发送 {answered} 人，但该行没有记录是哪些人：请用当时 mega-task 的 --home 继续；\
                 把 status 改为 0 则从头发送，这些人会重复收到"
            ),
        ])),
        (_, true, _) if row.is_ours() => Err(Refused::unfit([
            format!(
                "mega-task left task {id}: the first {done} lines of its file are done, and --resume-demo would send to \
                 them again: --resume-forward goes on behind them"
            ),
            format!(
                "任务 {id} 是 mega-task 留下的：文件的前 {done} 行已完成，--resume-demo 会重复发送；请用 --resume-forward"
            ),
        ])),
        (_, true, _) => Ok(Left::LastDone(done)),
        (_, _, true) => Ok(Left::FirstDone(done)),
        (_, false, false) => Err(Refused::unfit(choice(id, done, row.is_ours()))),
    }
}

/// What there is to choose from where somebody else has sent a part.
fn choice(id: u32, done: u64, ours: bool) -> [String; 2] {
    let whose = match ours {
        true => [
            "mega-task left it so, with another --home: with that it goes on and nobody gets it twice; without it",
            "由 mega-task（另一个 --home）留下：用原来的 --home 继续不会重复；否则",
        ],
        false => [
            "the row does not say who did. If it was mega-task,",
            "该行没有记录由谁发送。若由 mega-task 发送，",
        ],
    };
    let demo = match ours {
        true => [String::new(), String::new()],
        false => [
            format!("; if it was the demo, --resume-demo takes the last {done} lines as done"),
            format!("；若由示例程序（yii task）发送，--resume-demo 把最后 {done} 行视为已完成"),
        ],
    };
    [
        format!(
            "somebody else has sent a part of task {id} ({done} lines), and {} --resume-forward takes the first {done} \
             lines as done (if its process was killed, some behind them may get it twice){}. With status and \
             file_index 0 it begins anew",
            whose[0], demo[0]
        ),
        format!(
            "任务 {id} 已由他处发送一部分（{done} 行），{} --resume-forward 把前 {done} 行视为已完成（若其进程被强行终止，\
             之后可能有少数人重复收到）{}。把 status 和 file_index 改为 0 则从头发送",
            whose[1], demo[1]
        ),
    ]
}
