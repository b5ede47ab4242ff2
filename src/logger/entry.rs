//! One record of the log and how it looks: Monolog's line, the same with RFC 3339's time, or a JSON object.
//!
//! ```text
//! [2026-11-23 10:00:00] mega.WARNING: message {"k":"v"} []
//! [2026-11-23T10:00:00.123+08:00] mega.WARNING: message {"k":"v"} []
//! {"time":"2026-11-23T10:00:00.123+08:00","level":"warning","channel":"mega","message":"message","context":{"k":"v"}}
//! ```

use super::{CRITICAL, NOTICE, mask};
use crate::config::{Level, LogFormat, Named};
use crate::output::printable;
use chrono::{DateTime, Local, SecondsFormat};
use log::kv::{Error, Key, Value, VisitSource};
use serde_json::{Map, json};

pub struct Entry {
    pub time: DateTime<Local>,
    pub level: Level,
    /// Without secrets, and printable: one line.
    pub message: String,
    pub context: Map<String, serde_json::Value>,
}

/// How an entry looks in one place.
#[derive(Clone, Copy)]
pub enum Look {
    As(LogFormat),
    /// As Monolog's, without a time: whoever reads it writes one beside it.
    Untimed,
    /// The message and what belongs to it.
    Bare,
}

impl Entry {
    pub fn of(record: &log::Record, time: DateTime<Local>) -> Entry {
        let message = printable(&mask(record.args().to_string()));
        let mut context = Context(Map::new());
        // What cannot be visited is left out.
        let _ = record.key_values().visit(&mut context);
        Entry { time, level: severity(record.metadata()), message, context: context.0 }
    }

    /// What stands where so many lines are missing.
    pub fn missing(lines: u64, time: DateTime<Local>) -> Entry {
        let message = format!("{lines} lines before this one could not be written");
        Entry { time, level: Level::Warning, message, context: Map::new() }
    }

    /// Without an end of line.
    pub fn line(&self, look: Look, channel: &str) -> String {
        let level = self.level.name().to_uppercase();
        let time = match look {
            Look::As(LogFormat::Json) => return self.json(channel),
            Look::As(LogFormat::Monolog) => self.time.format("[%Y-%m-%d %H:%M:%S] ").to_string(),
            Look::As(LogFormat::Rfc3339) => format!("[{}] ", self.rfc3339()),
            Look::Untimed => String::new(),
            Look::Bare if self.context.is_empty() => return self.message.clone(),
            Look::Bare => return format!("{} {}", self.message, json!(self.context)),
        };
        let context = match self.context.is_empty() {
            true => "[]".to_owned(),
            false => json!(self.context).to_string(),
        };
        format!("{time}{channel}.{level}: {} {context} []", self.message)
    }

    fn json(&self, channel: &str) -> String {
        let object = json!({
            "time": self.rfc3339(),
            "level": self.level.name(),
            "channel": channel,
            "message": self.message,
            "context": self.context,
        });
        object.to_string()
    }

    fn rfc3339(&self) -> String {
        self.time.to_rfc3339_opts(SecondsFormat::Millis, false)
    }

    /// As RFC 5424 numbers them.
    pub fn severity(&self) -> u8 {
        match self.level {
            Level::Emergency => 0,
            Level::Alert => 1,
            Level::Critical => 2,
            Level::Error => 3,
            Level::Warning => 4,
            Level::Notice => 5,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

pub fn severity(metadata: &log::Metadata) -> Level {
    match (metadata.target(), metadata.level()) {
        (NOTICE, _) => Level::Notice,
        (CRITICAL, _) => Level::Critical,
        (_, log::Level::Error) => Level::Error,
        (_, log::Level::Warn) => Level::Warning,
        (_, log::Level::Info) => Level::Info,
        (_, log::Level::Debug | log::Level::Trace) => Level::Debug,
    }
}

struct Context(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Context {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.as_str().into(), mask(value.to_string()).into());
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::hide;
    use super::*;

    fn entry_with(message: &str, context: &[(&str, &str)]) -> Entry {
        let time = DateTime::parse_from_rfc3339("2026-11-23T10:00:00.123+08:00").unwrap();
        let mut builder = log::Record::builder();
        let builder = builder.level(log::Level::Warn).key_values(&context);
        Entry::of(&builder.args(format_args!("{message}")).build(), time.with_timezone(&Local))
    }

    pub fn entry(message: &str) -> Entry {
        entry_with(message, &[])
    }

    #[test]
    fn a_record_is_one_line_in_each_format() {
        let entry = entry_with("two\nlines \"中\"", &[("k", "7")]);
        let (monolog, rfc3339) = (
            entry.time.format("%Y-%m-%d %H:%M:%S"),
            entry.time.to_rfc3339_opts(SecondsFormat::Millis, false),
        );
        let rest = r#"mega.WARNING: two\nlines "中" {"k":"7"} []"#;
        let line = |look| entry.line(look, "mega");
        assert_eq!(line(Look::As(LogFormat::Monolog)), format!("[{monolog}] {rest}"));
        assert_eq!(line(Look::As(LogFormat::Rfc3339)), format!("[{rfc3339}] {rest}"));
        assert_eq!(line(Look::Untimed), rest);
        assert_eq!(line(Look::Bare), r#"two\nlines "中" {"k":"7"}"#);
        let json = format!(
            r#"{{"time":"{rfc3339}","level":"warning","channel":"mega","message":"two\\nlines \"中\"","context":{{"k":"7"}}}}"#
        );
        assert_eq!(line(Look::As(LogFormat::Json)), json);
    }

    #[test]
    fn what_has_no_context_says_so_as_monolog_does() {
        let entry = entry("a");
        assert_eq!(entry.line(Look::Untimed, "x"), "x.WARNING: a [] []");
        assert_eq!(entry.line(Look::Bare, "x"), "a");
        assert!(entry.line(Look::As(LogFormat::Json), "x").ends_with(r#""context":{}}"#));
    }

    #[test]
    fn no_secret_is_in_a_message_or_in_its_context() {
        hide("a-secret-\"quoted\"");
        hide("tiny");
        let entry = entry_with("tiny a-secret-\"quoted\"", &[("k", "is a-secret-\"quoted\"")]);
        assert_eq!(entry.line(Look::Bare, ""), r#"tiny *** {"k":"is ***"}"#);
    }

    #[test]
    fn notice_and_critical_have_their_own_levels() {
        let of =
            |target, level| severity(&log::Metadata::builder().target(target).level(level).build());
        assert_eq!(of(NOTICE, log::Level::Info), Level::Notice);
        assert_eq!(of(CRITICAL, log::Level::Error), Level::Critical);
        assert_eq!(of("mega::spool", log::Level::Info), Level::Info);
        assert!(Level::Notice > Level::Info && Level::Notice < Level::Warning);
    }

    #[test]
    fn levels_have_the_numbers_of_syslog() {
        for (severity, (_, level)) in Level::NAMES.iter().rev().enumerate() {
            let entry = Entry { level: *level, ..entry("") };
            assert_eq!(usize::from(entry.severity()), severity);
        }
    }
}
