//! `template render`: the message that a request would make of the text in the database. Needs no daemon.

use super::{Desk, print};
use crate::cli::request::variables;
use crate::config::MissingVariables;
use crate::exit;
use crate::output::printable;
use crate::template::{Filling, Template, Unfit};
use clap::Args;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

#[derive(Args)]
pub struct Render {
    /// The template's key
    key: String,
    /// Whom it would go to
    openid: String,
    /// The variables: NAME=VALUE each, or one JSON object
    #[arg(value_name = "DATA")]
    data: Vec<String>,
}

impl Desk<'_> {
    pub(super) fn render(&mut self, request: &Render) -> Result<u8, String> {
        let Render { key, openid, data } = request;
        let text = self.find(key)?.template;
        let data = variables(data)?;
        let template = self.compiled(&text);
        let mut message = Vec::new();
        template
            .render(openid, data.as_bytes(), None, &mut message)
            .map_err(|unfit| self.refusal(&unfit))?;
        let strict =
            Filling { missing: MissingVariables::Refuse, ..Filling::of(&self.config.wechat) };
        if let Err(unfit) = Template::compile(&text, strict).check(data.as_bytes()) {
            self.warn(&self.refusal(&unfit));
        }
        let known = template.variables();
        // A list's members have no names to misspell.
        let given: Map<String, Value> = serde_json::from_str(&data).unwrap_or_default();
        let unknown: Vec<String> = given
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|n| printable(n))
            .collect();
        if !unknown.is_empty() {
            let unused =
                self.language.pick(["the template has no variables", "模板中没有这些变量"]);
            self.warn(&format!("{unused}: {}", unknown.join(", ")));
        }
        print(&String::from_utf8_lossy(&message));
        if let Err(why) = serde_json::from_slice::<IgnoredAny>(&message) {
            self.warn(&self.language.pick([
                format!("the message is not JSON, WeChat refuses it: {why}"),
                format!("消息不是 JSON，微信会拒绝：{why}"),
            ]));
            return Ok(exit::FAILED);
        }
        if template.takes_client_msg_id() {
            let added = self.language.pick([
                "mega: when it is posted, a client_msg_id of its own comes first in it",
                "mega：发送时消息的开头还会加入它自己的 client_msg_id",
            ]);
            eprintln!("{added}");
        }
        Ok(exit::OK)
    }

    /// As a client reads it, but for the language.
    fn refusal(&self, unfit: &Unfit) -> String {
        match unfit {
            Unfit::Missing(names) => {
                format!("{}: {names}", self.language.pick(["missing variables", "缺少变量"]))
            }
            unfit => unfit.to_string(),
        }
    }
}
