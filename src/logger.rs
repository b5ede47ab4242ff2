//! The log: fern behind the `log` macros, Monolog's line format, a file a day. Written by whichever
//! thread logs, under one lock; no record is more than one line, and no secret is in any.
//!
//! ```text
//! [2026-11-23 10:00:00] mega.WARNING: message {"k":"v"} []
//! ```

use crate::config::{Level, Named};
use crate::day_file::DayFile;
use chrono::Local;
use log::kv::{Error, Key, Value, VisitSource};
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

/// Targets that stand for the levels which `log` has no name for.
pub const NOTICE: &str = "mega:notice";
pub const CRITICAL: &str = "mega:critical";

/// What an operator should see in normal operation.
#[macro_export]
macro_rules! notice {
    ($($arg:tt)+) => { log::info!(target: $crate::logger::NOTICE, $($arg)+) };
}

/// The daemon cannot go on.
#[macro_export]
macro_rules! critical {
    ($($arg:tt)+) => { log::error!(target: $crate::logger::CRITICAL, $($arg)+) };
}

/// Shorter texts would blank out innocent words.
const SECRET_LENGTH: usize = 6;

/// Access tokens come and go; the latest are enough.
const SECRETS: usize = 32;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Warning as u8);
static HIDDEN: RwLock<VecDeque<String>> = RwLock::new(VecDeque::new());

pub struct Options {
    /// As configured: the day's date is put before its extension.
    pub log_file: PathBuf,
    pub level: Level,
    /// Monolog's channel.
    pub prefix: String,
    /// Files that are kept, 0 for all.
    pub max_files: usize,
    /// To stderr too.
    pub stderr: bool,
    pub secrets: Vec<String>,
}

/// To be called once in the life of a process.
pub fn init(options: Options) -> io::Result<()> {
    options.secrets.iter().for_each(|secret| hide(secret));
    let file = DayFile::open(options.log_file, options.max_files, Local::now().date_naive())?;
    let prefix = options.prefix;
    let mut dispatch = fern::Dispatch::new()
        // Of the libraries only what they complain of.
        .level(log::LevelFilter::Warn)
        .level_for("mega", log::LevelFilter::Trace)
        .level_for(NOTICE, log::LevelFilter::Trace)
        .level_for(CRITICAL, log::LevelFilter::Trace)
        .filter(|metadata| severity(metadata) as u8 >= LEVEL.load(Ordering::Relaxed))
        .format(move |out, message, record| {
            let time = Local::now().format("%Y-%m-%d %H:%M:%S");
            out.finish(format_args!(
                "{}",
                line(&time.to_string(), &prefix, &message.to_string(), record)
            ));
        })
        .chain(fern::Output::writer(Box::new(Lines(file)), "\n"));
    if options.stderr {
        dispatch = dispatch.chain(io::stderr());
    }
    dispatch.apply().map_err(io::Error::other)?;
    set_level(options.level);
    Ok(())
}

pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    // Of what nobody will see, libraries do not even put the words together.
    log::set_max_level(match level {
        Level::Debug => log::LevelFilter::Debug,
        // NOTICE is a target of `info`.
        Level::Info | Level::Notice => log::LevelFilter::Info,
        Level::Warning => log::LevelFilter::Warn,
        _ => log::LevelFilter::Error,
    });
}

/// How much is logged now.
pub fn level() -> Level {
    let level = LEVEL.load(Ordering::Relaxed);
    let mut levels = Level::NAMES.iter().map(|(_, level)| *level);
    levels.find(|known| *known as u8 == level).unwrap_or(Level::Warning)
}

/// From now on this text is shown as `***`.
pub fn hide(secret: &str) {
    if secret.len() < SECRET_LENGTH {
        return;
    }
    let mut hidden = HIDDEN.write();
    if !hidden.iter().any(|known| known == secret) {
        hidden.push_back(secret.to_owned());
        if hidden.len() > SECRETS {
            // The first ones are the configuration's and stay.
            hidden.remove(SECRETS / 2);
        }
    }
}

/// A panic on any thread becomes a line of the log.
pub fn panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        critical!("the thread {name} panicked: {panic}");
    }));
}

fn severity(metadata: &log::Metadata) -> Level {
    match (metadata.target(), metadata.level()) {
        (NOTICE, _) => Level::Notice,
        (CRITICAL, _) => Level::Critical,
        (_, log::Level::Error) => Level::Error,
        (_, log::Level::Warn) => Level::Warning,
        (_, log::Level::Info) => Level::Info,
        (_, log::Level::Debug | log::Level::Trace) => Level::Debug,
    }
}

/// One record as Monolog's line formatter writes it.
fn line(time: &str, prefix: &str, message: &str, record: &log::Record) -> String {
    let level = severity(record.metadata()).name().to_uppercase();
    let mut line = format!("[{time}] {prefix}.{level}: ");
    for character in message.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    let mut context = Context(serde_json::Map::new());
    let visited = record.key_values().visit(&mut context);
    match visited.is_ok() && !context.0.is_empty() {
        true => {
            let _ = write!(line, " {} []", serde_json::Value::Object(context.0));
        }
        false => line.push_str(" [] []"),
    }
    mask(line)
}

fn mask(mut line: String) -> String {
    for secret in HIDDEN.read().iter() {
        if line.contains(secret.as_str()) {
            line = line.replace(secret.as_str(), "***");
        }
    }
    line
}

struct Context(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Context {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.as_str().into(), value.to_string().into());
        Ok(())
    }
}

/// The file of the day, as fern writes to it.
struct Lines(DayFile);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(Local::now().date_naive(), bytes, 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_in_monologs_format() {
        let source = [("k", 7)];
        let record = log::Record::builder()
            .level(log::Level::Warn)
            .key_values(&source)
            .args(format_args!("x"))
            .build();
        assert_eq!(
            line("2026-11-23 10:00:00", "mega", "two\nlines", &record),
            r#"[2026-11-23 10:00:00] mega.WARNING: two\nlines {"k":"7"} []"#
        );
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
    fn secrets_are_masked_and_short_ones_are_not() {
        hide("e01207cc547f62d7");
        hide("root");
        assert_eq!(mask("a e01207cc547f62d7 root".into()), "a *** root");
    }
}
