//! pause, resume, drain and log-level: steers the running daemon. What it knows of an order stays with it: a command that is
//! interrupted takes nothing back.

use super::control::status_of;
use super::language::Language;
use super::state::{Target, reach};
use super::when;
use crate::exit;
use crate::traffic::steer::{LogLevel, Paused, Steered, Why};
use crate::wire::command;
use crate::wire::question::Question;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// How long an order may take, which waits for the disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a drained daemon is asked how much is left, and how long it may take to answer.
const GLANCE: Duration = Duration::from_millis(200);
const ANSWERS: Duration = Duration::from_secs(5);
const DRAINED: Duration = Duration::from_secs(365 * 86_400);

#[derive(Args)]
pub struct Drain {
    /// Take requests in again
    #[arg(long, conflicts_with = "no_wait")]
    cancel: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

#[derive(Args)]
pub struct Pause {
    /// Why, for whoever wonders that nothing goes out
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

pub fn pause(target: &Target, Pause { why }: Pause) -> Result<u8, String> {
    let before: Steered = ask(target, Question::Pause, &Why { why })?;
    let (name, queued) = (&target.name, before.queued);
    let language = Language::of_environment();
    let text = match (before.stopping, before.draining) {
        (true, _) => [
            format!(
                "mega {name} stops; the pause is kept: the next start sends nothing, and takes messages in, until: \
                 mega {name} resume"
            ),
            format!(
                "mega {name} 正在停止；暂停已保存：下次启动后接收消息但不发送，直到：mega {name} resume"
            ),
        ],
        (false, true) => [
            format!(
                "mega {name} is paused and drained: requests are refused, {queued} messages are left, and it \
                 neither sends them nor stops before: mega {name} resume"
            ),
            format!(
                "mega {name} 已暂停发送，并且正在排空：拒绝新请求，还剩 {queued} 条消息；既不发送也不停止，直到：mega {name} resume"
            ),
        ],
        (false, false) => [
            format!(
                "mega {name} is paused: messages are taken in and kept, {queued} are queued; it goes on \
                 after: mega {name} resume"
            ),
            format!(
                "mega {name} 已暂停发送：照常接收并保存消息，队列中有 {queued} 条；恢复发送：mega {name} resume"
            ),
        ],
    };
    crate::say!("{}", language.pick(text));
    if let Some(before) = before.paused {
        crate::say!("{}", it_was(&before, language));
    }
    Ok(exit::OK)
}

fn it_was(paused: &Paused, language: Language) -> String {
    let (text, since) = (paused.text(), when::shown(paused.since * 1_000));
    language.pick([
        format!("it was already, since {since}: {text}"),
        format!("此前已暂停，始于 {since}：{text}"),
    ])
}

pub fn resume(target: &Target) -> Result<u8, String> {
    let before: Steered = ask(target, Question::Resume, &())?;
    let (name, queued) = (&target.name, before.queued);
    let text = match before.paused {
        None if before.draining => [
            format!("mega {name} is not drained any more, and takes requests in again"),
            format!("mega {name} 不再排空，重新接收请求"),
        ],
        Some(_) if before.draining => [
            format!("mega {name} sends again; it is drained, {queued} messages are left"),
            format!("mega {name} 已恢复发送；仍在排空，还剩 {queued} 条消息"),
        ],
        Some(_) => [
            format!("mega {name} sends again, {queued} messages are queued"),
            format!("mega {name} 已恢复发送，队列中有 {queued} 条消息"),
        ],
        None => [format!("mega {name} is not paused"), format!("mega {name} 没有暂停")],
    };
    crate::say!("{}", Language::of_environment().pick(text));
    Ok(exit::OK)
}

pub fn drain(target: &Target, options: &Drain) -> Result<u8, String> {
    let (name, language) = (&target.name, Language::of_environment());
    if options.cancel {
        let before: Steered = ask(target, Question::EndDrain, &())?;
        let text = match before.draining {
            true => [
                format!("mega {name} is not drained any more, and takes requests in again"),
                format!("mega {name} 不再排空，重新接收请求"),
            ],
            false => [format!("mega {name} is not drained"), format!("mega {name} 没有在排空")],
        };
        crate::say!("{}", language.pick(text));
        return Ok(exit::OK);
    }
    // Asked before the order, answered at the daemon's end.
    let mut end = reach(target, PATIENCE)?;
    // However long it takes.
    end.patience = DRAINED;
    end.ask(Question::Wait, b"").map_err(|error| no_answer(&error))?;
    let before: Steered = ask(target, Question::Drain, &())?;
    let left = before.queued;
    crate::say!(
        "{}",
        language.pick([
            format!("mega {name} is drained: requests are refused, {left} messages are left; drain --cancel takes it back"),
            format!("mega {name} 正在排空：拒绝新请求，还剩 {left} 条消息；撤回：drain --cancel"),
        ])
    );
    if options.no_wait {
        return Ok(exit::OK);
    }
    let mut said = String::new();
    loop {
        std::thread::sleep(GLANCE);
        match remains(target) {
            Some(status) if status["draining"].is_null() && status["stopping"] != true => {
                let text = ["it is not drained any more", "已不再排空"];
                return Err(language.pick(text).into());
            }
            Some(status) => tell_left(&status, &mut said, language),
            None => break,
        }
    }
    if stderr().is_terminal() {
        eprintln!();
    }
    let left = end.read().map_err(|error| {
        let text = ["the daemon has ended early", "守护进程提前结束"];
        format!("{}: {error}", language.pick(text))
    })?;
    end.process.ends_before(Instant::now() + PATIENCE);
    let left = left.message;
    crate::say!(
        "{}",
        language.pick([
            format!("mega {name} stopped, {left} messages left in the queue"),
            format!("mega {name} 已停止，队列中还有 {left} 条消息"),
        ])
    );
    Ok(if left == "0" { exit::OK } else { exit::FAILED })
}

/// How a daemon is that has not ended yet.
fn remains(target: &Target) -> Option<Value> {
    status_of(&mut reach(target, ANSWERS).ok()?).ok()
}

/// How much is left, and once why it does not become less.
fn tell_left(status: &Value, said: &mut String, language: Language) {
    let held = ["paused", "suspended", "ledger"].iter().find_map(|name| status[*name].as_str());
    if let Some(why) = held.filter(|why| *why != said.as_str()) {
        *said = why.to_owned();
        crate::complain!(
            "{}",
            language.pick([format!("it waits: {why}"), format!("等待中：{why}")])
        );
    }
    if stderr().is_terminal() {
        let left = &status["queue_depth"];
        eprint!("\r{} ", language.pick([format!("{left} left"), format!("还剩 {left} 条")]));
    }
}

pub fn log_level(target: &Target, level: String) -> Result<u8, String> {
    let order = LogLevel { level };
    let before: LogLevel = ask(target, Question::LogLevel, &order)?;
    let (name, old, new) = (&target.name, before.level, order.level);
    crate::say!(
        "{}",
        Language::of_environment().pick([
            format!("mega {name} logs {new} and worse until a restart or reload; it was {old}"),
            format!("mega {name} 的日志级别为 {new}，直到重启或重新加载；此前为 {old}"),
        ])
    );
    Ok(exit::OK)
}

/// Gives the daemon an order, and returns its answer.
pub fn ask<T: DeserializeOwned>(
    target: &Target,
    question: Question,
    body: &impl Serialize,
) -> Result<T, String> {
    let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
    let mut client = reach(target, PATIENCE)?;
    let asked = client.ask(question, &body).and_then(|()| client.read());
    let answer = asked.map_err(|error| no_answer(&error))?;
    match answer.code {
        command::OK => serde_json::from_str(&answer.message)
            .map_err(|error| format!("its answer is garbled: {error}")),
        _ => Err(answer.message),
    }
}

fn no_answer(error: &std::io::Error) -> String {
    format!("the daemon does not answer: {error}")
}
