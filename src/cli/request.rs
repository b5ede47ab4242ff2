//! push, send and tset from the command line: what a PHP client does, for a human or a script.

use super::state::{Target, reach};
use crate::client::PATIENCE;
use crate::exit;
use crate::wire::command::{self, Request};
use clap::Args;
use serde_json::{Map, Value};

#[derive(Args)]
pub struct Message {
    /// Whom it goes to
    openid: String,
    /// The template's key
    key: String,
    /// The variables: NAME=VALUE each, or one JSON object
    #[arg(value_name = "DATA")]
    data: Vec<String>,
    /// An id of your own, 1 to 32 of A-Z a-z 0-9 _ -: what is asked for again under it goes out once
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// The variables that such words give, as JSON.
pub fn variables(words: &[String]) -> Result<String, String> {
    match words {
        [] => return Ok("null".into()),
        [json] if json.trim_start().starts_with(['{', '[']) => return Ok(json.clone()),
        _ => {}
    }
    let mut object = Map::new();
    for pair in words {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(format!("{pair} is neither NAME=VALUE nor a JSON object"));
        };
        object.insert(name.into(), value.into());
    }
    Ok(Value::Object(object).to_string())
}

pub fn push(target: &Target, message: &Message) -> Result<u8, String> {
    request(target, message, command::encode_push)
}

pub fn send(target: &Target, message: &Message) -> Result<u8, String> {
    request(target, message, command::encode_send)
}

fn request(
    target: &Target,
    message: &Message,
    encode: impl FnOnce(&mut Vec<u8>, Request),
) -> Result<u8, String> {
    let id = message.id.iter().map(|id| ("an id", id));
    for (what, word) in
        [("an openid", &message.openid), ("a key", &message.key)].into_iter().chain(id)
    {
        if word.contains(' ') {
            return Err(format!("{what} cannot hold spaces: {word:?}"));
        }
    }
    let data = variables(&message.data)?;
    let mut frame = Vec::new();
    let (openid, key) = (message.openid.as_bytes(), message.key.as_bytes());
    let id = message.id.as_ref().map(String::as_bytes);
    encode(&mut frame, Request { opaque: 1, openid, key, id, data: data.as_bytes() });
    call(target, &frame)
}

pub fn tset(target: &Target, key: &str) -> Result<u8, String> {
    let mut frame = Vec::new();
    command::encode_tset(&mut frame, 1, key.as_bytes());
    call(target, &frame)
}

/// Prints the result's code and message; anything but 200 is a failure. Goes over the administration
/// socket, whoever may connect to the port.
fn call(target: &Target, frame: &[u8]) -> Result<u8, String> {
    let answer = reach(target, PATIENCE)?.call(frame);
    let answer = answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
    crate::say!("{}", format!("{} {}", answer.code, answer.message).trim_end());
    Ok(if answer.code == command::OK { exit::OK } else { exit::FAILED })
}
