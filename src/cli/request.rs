//! push, send and tset from the command line: what a PHP client does, for a human or a script.

use super::control::ask_status;
use crate::client::Client;
use crate::config::Config;
use crate::server::exit;
use crate::wire::command::{self, Request};
use clap::Args;
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Args)]
pub struct Message {
    /// Whom it goes to
    openid: String,
    /// The template's key
    key: String,
    /// The variables: NAME=VALUE each, or one JSON object
    #[arg(value_name = "DATA")]
    data: Vec<String>,
}

impl Message {
    fn data(&self) -> Result<String, String> {
        match self.data.as_slice() {
            [] => return Ok("null".into()),
            [json] if json.trim_start().starts_with(['{', '[']) => return Ok(json.clone()),
            _ => {}
        }
        let mut object = Map::new();
        for pair in &self.data {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!("{pair} is neither NAME=VALUE nor a JSON object"));
            };
            object.insert(name.into(), value.into());
        }
        Ok(Value::Object(object).to_string())
    }
}

pub fn push(config: &Config, message: &Message) -> Result<u8, String> {
    request(config, message, command::encode_push)
}

pub fn send(config: &Config, message: &Message) -> Result<u8, String> {
    request(config, message, command::encode_send)
}

fn request(
    config: &Config,
    message: &Message,
    encode: impl FnOnce(&mut Vec<u8>, Request),
) -> Result<u8, String> {
    for (what, word) in [("an openid", &message.openid), ("a key", &message.key)] {
        if word.contains(' ') {
            return Err(format!("{what} cannot hold spaces: {word:?}"));
        }
    }
    let data = message.data()?;
    let mut frame = Vec::new();
    let (openid, key) = (message.openid.as_bytes(), message.key.as_bytes());
    encode(&mut frame, Request { opaque: 1, openid, key, data: data.as_bytes() });
    call(config, &frame)
}

pub fn tset(config: &Config, key: &str) -> Result<u8, String> {
    let mut frame = Vec::new();
    command::encode_tset(&mut frame, 1, key.as_bytes());
    call(config, &frame)
}

/// Prints the result's code and message; anything but 200 is a failure.
fn call(config: &Config, frame: &[u8]) -> Result<u8, String> {
    let address = address(config)?;
    let answer = Client::tcp(address).and_then(|mut client| client.call(frame));
    let answer = answer.map_err(|error| {
        format!("{address}: {error} (is mega {0} running? see mega {0} status)", config.name)
    })?;
    crate::say!("{}", format!("{} {}", answer.code, answer.message).trim_end());
    Ok(if answer.code == command::OK { exit::OK } else { exit::FAILED })
}

/// Where clients on this machine reach the daemon.
pub(super) fn address(config: &Config) -> Result<SocketAddr, String> {
    let mut address = *config.server.listen.first().ok_or("server.listen[] is empty")?;
    if address.port() == 0 {
        // Only the daemon knows which port it was given.
        let status = ask_status(config)?;
        let bound = status["listen"][0].as_str().and_then(|bound| bound.parse().ok());
        address = bound.ok_or("the daemon's status names no address")?;
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    Ok(address)
}
