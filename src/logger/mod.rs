//! The log: fern behind the `log` macros. Written by whichever thread logs, under one lock; no record is
//! more than one line, and no secret is in any. `entry` is a record and how it looks, `outputs` is where it
//! goes: a file a day or stderr, and the system's log. Nobody waits for any of them: what one does not take
//! is counted, and said to it when it takes something again.

mod entry;
mod outputs;
mod stderr;
mod syslog;

use crate::config::{Level, LogFile, LogFormat, Named};
use chrono::Local;
use entry::{Entry, severity};
use outputs::Outputs;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;
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
static OUTPUTS: OnceLock<Mutex<Outputs>> = OnceLock::new();

pub struct Options {
    pub log_file: LogFile,
    pub format: LogFormat,
    pub level: Level,
    /// Monolog's channel.
    pub prefix: String,
    /// Files that are kept, 0 for all.
    pub max_files: usize,
    /// To stderr too.
    pub stderr: bool,
    /// To the system's log too, under this name.
    pub syslog: Option<String>,
    pub secrets: Vec<String>,
}

/// To be called once in the life of a process.
pub fn init(options: Options) -> io::Result<()> {
    options.secrets.iter().for_each(|secret| hide(secret));
    let level = options.level;
    let outputs = OUTPUTS.get_or_init(|| Mutex::new(Outputs::default()));
    *outputs.lock() = Outputs::open(options)?;
    let dispatch = fern::Dispatch::new()
        // Of the libraries only what they complain of.
        .level(log::LevelFilter::Warn)
        .level_for("mega", log::LevelFilter::Trace)
        .level_for(NOTICE, log::LevelFilter::Trace)
        .level_for(CRITICAL, log::LevelFilter::Trace)
        .filter(|metadata| severity(metadata) as u8 >= LEVEL.load(Ordering::Relaxed))
        .chain(fern::Output::call(|record| {
            let entry = Entry::of(record, Local::now());
            outputs.lock().write(&entry);
        }));
    dispatch.apply().map_err(io::Error::other)?;
    set_level(level);
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

/// Why lines are missing where they were to be written, after one more try to write there.
pub fn trouble() -> Option<String> {
    OUTPUTS.get().and_then(|outputs| outputs.lock().trouble())
}

/// Lines that could not be written, since the start, and where.
pub fn lost() -> Vec<(&'static str, u64)> {
    OUTPUTS.get().map_or_else(Vec::new, |outputs| outputs.lock().lost())
}

/// How much is logged now.
pub fn level() -> Level {
    let level = LEVEL.load(Ordering::Relaxed);
    let mut levels = <Level as Named>::NAMES.iter().map(|(_, level)| *level);
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

fn mask(mut text: String) -> String {
    for secret in HIDDEN.read().iter() {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "***");
        }
    }
    text
}

/// A panic on any thread becomes a line of the log.
pub fn panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        critical!("the thread {name} panicked: {panic}");
    }));
}
