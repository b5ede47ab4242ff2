//! A JSON object a line for scripts: what happens, and how far it is every some seconds.

use crate::cli::language::Language;
use crate::task::event::{End, Event, Progress, Watch, Why};
use crate::task::words;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub struct Json {
    name: String,
    every: Duration,
    said: Instant,
    waits: Option<String>,
}

impl Json {
    pub fn new(name: &str, every: Duration) -> Json {
        Json { name: name.into(), every, said: Instant::now(), waits: None }
    }

    fn say(&self, event: &str, more: Value) {
        let mut object = json!({ "event": event, "time": words::now(), "task": self.name });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        crate::say!("{object}");
    }
}

/// The counts as `--json` has them.
pub fn counts(progress: &Progress) -> Value {
    let code = |(code, count): (&Option<i64>, &u64)| json!({ "errcode": code, "count": count });
    json!({
        "total": progress.total,
        "sent": progress.sent,
        "failed": progress.failed,
        "unknown": progress.unknown,
        "errcodes": progress.errcodes.iter().map(code).collect::<Vec<_>>(),
    })
}

fn reason(why: &Why) -> &'static str {
    match why {
        Why::Appointed(_) => "appointed",
        Why::Unreachable(_) => "unreachable",
        Why::Refused(_) => "refused",
        Why::Limit(_) => "limit",
        Why::Unclear(_) => "unclear",
    }
}

impl Watch for Json {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Started(progress) => self.say("started", counts(progress)),
            Event::Answered { .. } => {}
            Event::Waits(why) => {
                let text = words::why(why, Language::English);
                self.say("waits", json!({ "reason": reason(why), "why": text }));
                self.waits = Some(text);
            }
            Event::GoesOn => {
                self.waits = None;
                self.say("goes_on", json!({}));
            }
            Event::Unclear(why) => self.say("unclear", json!({ "why": why })),
            Event::Remade(remade) => {
                let [old, new] = [&remade.old, &remade.new].map(|path| path.display().to_string());
                let why = words::remade(remade, Language::English);
                self.say(
                    "result_lost",
                    json!({ "old": old, "new": new, "rows": remade.rows, "why": why }),
                );
            }
            Event::Drains(out) => self.say("drains", json!({ "out": out })),
            Event::Ended(end, progress) => {
                let (how, why) = match end {
                    End::Finished => ("finished", None),
                    End::Paused => ("paused", None),
                    End::Ended => ("ended", None),
                    End::Broken(why) => ("stopped", Some(why)),
                };
                let mut more = counts(progress);
                more["how"] = how.into();
                more["why"] = json!(why);
                self.say("ended", more);
            }
        }
    }

    fn tick(&mut self, progress: &Progress) {
        if self.said.elapsed() >= self.every {
            self.said = Instant::now();
            let mut more = counts(progress);
            more["waits"] = json!(self.waits);
            self.say("progress", more);
        }
    }
}
