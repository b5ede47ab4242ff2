//! The sandbox's own side: the /sandbox calls that steer it and list what it took, and the page at `/` for
//! people. Everything a client sent is escaped before it becomes HTML.

use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::faults::Faults;
use crate::http::Request;
use crate::wechat::WeChat;

const PAGE_MESSAGES: usize = 100;
const DELIVERED_LIMIT: usize = 100;

impl WeChat {
    /// `GET /`, `/sandbox/..`; anything else is 404.
    pub fn page(&mut self, request: &Request, now: Instant) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => text("text/html; charset=utf-8", self.html()),
            ("GET", "/sandbox/ids") => text("text/plain; charset=utf-8", self.deliveries.ids()),
            ("GET", "/sandbox/delivered") => self.delivered(request),
            ("GET", "/sandbox/stats") => Answer::json(&self.stats_json()),
            ("GET", "/sandbox/faults") => {
                Answer::json(&Value::Object(self.faults.source().clone()))
            }
            ("POST", "/sandbox/faults") => self.set_faults(request),
            ("POST", "/sandbox/expire") => {
                self.tokens.expire(now);
                Answer::json(&json!({"ok": true}))
            }
            ("POST", "/sandbox/reset") => {
                self.reset();
                Answer::json(&json!({"ok": true}))
            }
            (_, "/" | "/sandbox/ids" | "/sandbox/delivered" | "/sandbox/stats") => {
                Answer::status(405)
            }
            (_, "/sandbox/faults" | "/sandbox/expire" | "/sandbox/reset") => Answer::status(405),
            _ => Answer::status(404),
        }
    }

    /// `POST /sandbox/faults` with all faults there are from now on; the old ones stay if it is refused.
    fn set_faults(&mut self, request: &Request) -> Answer {
        match Faults::parse(&request.body) {
            Ok(faults) => {
                self.faults = faults;
                Answer::json(&Value::Object(self.faults.source().clone()))
            }
            Err(error) => refusal(&error),
        }
    }

    /// `GET /sandbox/delivered?limit=M`: the last M messages, one JSON object a line, oldest first.
    fn delivered(&self, request: &Request) -> Answer {
        let limit = match request.parameter("limit").map(|limit| limit.parse()) {
            None => DELIVERED_LIMIT,
            Some(Ok(limit)) => limit,
            Some(Err(_)) => return refusal("limit must be a whole number"),
        };
        let mut lines = String::new();
        for message in self.deliveries.last(limit) {
            writeln!(lines, "{message}").expect("writing to a String does not fail");
        }
        text("application/x-ndjson; charset=utf-8", lines)
    }

    fn stats_json(&self) -> Value {
        let stats = &self.stats;
        json!({
            "requests": stats.requests,
            "delivered": self.deliveries.delivered,
            "repeats": self.deliveries.repeats,
            "errors": stats.errors,
            "token_calls": {
                "classic": stats.classic_calls,
                "stable": stats.stable_calls,
                "forced": stats.forced_calls,
            },
            "connections": stats.connections,
            "max_connections": stats.max_connections,
            "in_flight": stats.in_flight,
            "max_in_flight": stats.max_in_flight,
        })
    }

    fn html(&self) -> String {
        let mut rows = String::new();
        let mut messages: Vec<Value> = self.deliveries.last(PAGE_MESSAGES).collect();
        messages.reverse();
        for message in &messages {
            writeln!(
                rows,
                "<tr><td>{}<td>{}<td>{}<td><code>{}</code>",
                message["n"],
                escape(message["openid"].as_str().unwrap_or("")),
                escape(message["client_msg_id"].as_str().unwrap_or("")),
                escape(&message["body"].to_string()),
            )
            .expect("writing to a String does not fail");
        }
        let stats = serde_json::to_string_pretty(&self.stats_json()).unwrap_or_default();
        let faults = Value::Object(self.faults.source().clone()).to_string();
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>mega-sandbox</title>\n\
             <style>body{{font:15px sans-serif;margin:2em}}td,th{{text-align:left;vertical-align:top;\
             padding:.2em 1em .2em 0}}code{{word-break:break-all}}</style>\n\
             <h1>mega-sandbox</h1><p>A fake WeChat: nothing here reaches anyone.\n\
             <h2>Stats</h2><pre>{}</pre>\n<h2>Faults</h2><pre>{}</pre>\n\
             <h2>Last {} messages</h2><table><tr><th>n<th>openid<th>client_msg_id<th>body\n{rows}</table></html>\n",
            escape(&stats),
            escape(&faults),
            messages.len(),
        )
    }
}

fn text(content_type: &'static str, body: String) -> Answer {
    Answer { status: 200, content_type, body: body.into_bytes() }
}

fn refusal(error: &str) -> Answer {
    Answer { status: 400, ..Answer::json(&json!({"error": error})) }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
