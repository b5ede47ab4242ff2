//! What mega's answer to one message comes to. Pure.

use crate::class::Gate;
use crate::wechat::errcode::Errcodes;
use crate::wire::command::{BAD_REQUEST, NO_TEMPLATE, OK};
use crate::wire::not_now::is_not_now;
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Sent,
    Failed {
        errcode: Option<i64>,
        errmsg: String,
    },
    /// It was not taken in, and is to come again.
    NotNow(String),
    /// WeChat refused it for a reason that concerns everybody: it is to come again, as a new message.
    Limit(i64),
    /// Nobody knows whether WeChat has it.
    Unclear(String),
    /// Nobody's message would fare better.
    Halt(String),
}

pub struct Judge(Errcodes);

impl Judge {
    pub fn new() -> Judge {
        Judge(Errcodes::new(&[]))
    }

    pub fn judge(&self, code: u16, message: &[u8]) -> Verdict {
        if code == OK {
            return Verdict::Sent;
        }
        let text = String::from_utf8_lossy(message);
        if is_not_now(code, &text) {
            return Verdict::NotNow(text.into_owned());
        }
        if code != BAD_REQUEST {
            return Verdict::Unclear(format!("{code} {text}"));
        }
        if text == NO_TEMPLATE {
            return Verdict::Halt(text.into_owned());
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(answer) => self.answered(&answer, &text),
            Err(_) => Verdict::Failed { errcode: None, errmsg: text.into_owned() },
        }
    }

    /// WeChat's own answer.
    fn answered(&self, answer: &Value, text: &str) -> Verdict {
        let errcode = answer["errcode"].as_i64();
        if let Some(errcode) = errcode
            && let Gate::Closes(_) = self.0.class(errcode).row().gate
        {
            return Verdict::Limit(errcode);
        }
        let errmsg = answer["errmsg"].as_str().unwrap_or(text).to_owned();
        Verdict::Failed { errcode, errmsg }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_is_told_from_the_others() {
        let judge = Judge::new();
        let judged = |code, message: &str| judge.judge(code, message.as_bytes());
        assert_eq!(judged(200, ""), Verdict::Sent);
        let refused = r#"{"errcode":43004,"errmsg":"require subscribe \u7528","openid":"o"}"#;
        let errmsg = "require subscribe 用".to_owned();
        assert_eq!(judged(400, refused), Verdict::Failed { errcode: Some(43004), errmsg });
        assert_eq!(judged(400, r#"{"errcode":45009,"errmsg":"x"}"#), Verdict::Limit(45009));
        assert_eq!(judged(400, r#"{"errcode":40001,"errmsg":"x"}"#), {
            Verdict::Failed { errcode: Some(40001), errmsg: "x".into() }
        });
        let invalid = "invalid data: not JSON".to_owned();
        assert_eq!(judged(400, &invalid), Verdict::Failed { errcode: None, errmsg: invalid });
        assert_eq!(judged(400, NO_TEMPLATE), Verdict::Halt(NO_TEMPLATE.into()));
        for code in [500, 503] {
            let why = "sending suspended: paused by ann";
            assert_eq!(judged(code, why), Verdict::NotNow(why.into()));
        }
        assert_eq!(judged(500, "HTTP 502"), Verdict::Unclear("500 HTTP 502".into()));
    }
}
