//! What a request comes to: an answer, or one of the ways to leave it without one, and how long it is held
//! back. Pure data, made by wechat.rs and page.rs, carried out by server.rs.

use std::time::Duration;

use serde_json::Value;

use crate::http::reason;

/// The Content-Type WeChat sends.
const JSON: &str = "application/json; encoding=utf-8";

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(value: &Value) -> Answer {
        Answer::as_json(value.to_string().into_bytes())
    }

    /// JSON as a whole, even where a part of it is not.
    pub fn as_json(body: Vec<u8>) -> Answer {
        Answer { status: 200, content_type: JSON, body }
    }

    /// A status without more to say, as a proxy in front of WeChat would answer.
    pub fn status(status: u16) -> Answer {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{status} {}\n", reason(status)).into_bytes(),
        }
    }

    /// What a broken proxy might send with status 200.
    pub fn garbage() -> Answer {
        Answer {
            status: 200,
            content_type: "text/html; charset=utf-8",
            body: b"<html>\xff\xfe this is not what WeChat answers {\"errcode\":0,".to_vec(),
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Answer(Answer),
    /// Never answered; the connection stays open.
    Hang,
    /// The connection is closed instead of an answer.
    Close,
    /// An answer of 100 MiB.
    Huge,
}

#[derive(Debug, PartialEq)]
pub struct Reply {
    pub delay: Duration,
    pub outcome: Outcome,
}

impl Reply {
    pub fn now(answer: Answer) -> Reply {
        Reply { delay: Duration::ZERO, outcome: Outcome::Answer(answer) }
    }
}

/// WeChat's own words for the codes the sandbox is most asked for.
pub fn default_errmsg(errcode: i64) -> &'static str {
    match errcode {
        -1 => "system error",
        40001 => "invalid credential, access_token is invalid or not latest",
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40037 => "invalid template_id",
        40125 => "invalid appsecret",
        41001 => "access_token missing",
        42001 => "access_token expired",
        43004 => "require subscribe",
        43101 => "user refuse to accept the msg",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        _ => "sandbox fault",
    }
}
