//! pause and resume: steers the running daemon. What it knows of an order stays with it: a command that is
//! interrupted takes nothing back.

use super::language::Language;
use super::state::cannot_ask;
use super::when;
use crate::client::Client;
use crate::config::Config;
use crate::exit;
use crate::traffic::steer::{Paused, Steered, Why};
use crate::wire::command::{self, Question};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long an order may take, which waits for the disk.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Pause {
    /// Why, for whoever wonders that nothing goes out
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

pub fn pause(config: &Config, Pause { why }: Pause) -> Result<u8, String> {
    let before: Steered = ask(config, Question::Pause, &Why { why })?;
    let (name, queued) = (&config.name, before.queued);
    let language = Language::of_environment();
    crate::say!(
        "{}",
        language.pick([
            format!(
                "mega {name} is paused: messages are taken in and kept, {queued} are queued; it goes on \
                 after: mega {name} resume"
            ),
            format!("mega {name} 已暂停发送：照常接收并保存消息，队列中有 {queued} 条；恢复发送：mega {name} resume"),
        ])
    );
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

pub fn resume(config: &Config) -> Result<u8, String> {
    let before: Steered = ask(config, Question::Resume, &())?;
    let (name, queued) = (&config.name, before.queued);
    let text = match before.paused {
        Some(_) => [
            format!("mega {name} sends again, {queued} messages are queued"),
            format!("mega {name} 已恢复发送，队列中有 {queued} 条消息"),
        ],
        None => [format!("mega {name} is not paused"), format!("mega {name} 没有暂停")],
    };
    crate::say!("{}", Language::of_environment().pick(text));
    Ok(exit::OK)
}

/// Gives the daemon an order, and returns its answer.
pub fn ask<T: DeserializeOwned>(
    config: &Config,
    question: Question,
    body: &impl Serialize,
) -> Result<T, String> {
    let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
    let asked = Client::admin(config, PATIENCE).and_then(|mut client| {
        client.ask(question, &body)?;
        client.read()
    });
    let answer = asked.map_err(|error| cannot_ask(config, &error))?;
    match answer.code {
        command::OK => serde_json::from_str(&answer.message)
            .map_err(|error| format!("its answer is garbled: {error}")),
        _ => Err(answer.message),
    }
}
