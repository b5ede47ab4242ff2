//! conf/NAME.ini → a typed `Config`. Every key, default, range and unit lives in this folder and nowhere else:
//! ini.rs reads lines, keys.rs is the table of keys, value.rs and address.rs read one value, read.rs puts them together,
//! describe.rs prints the result, reload.rs compares two. Used by main at start-up and on reload; nothing here keeps state.
//! It refuses a file with any problem in it, and names all of them at once.

mod address;
mod describe;
mod ini;
mod key;
mod keys;
mod read;
mod reload;
#[cfg(test)]
mod tests;
mod units;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::class::{self, Class};
use ipnet::IpNet;

pub use reload::Difference;
pub use value::Named;

/// A data source name that stands outside a file; the error says what it must be.
pub fn dsn(text: &str) -> Result<Dsn, String> {
    let key = keys::find("pdo", "dsn").expect("invariant: the table has this key");
    address::dsn(Path::new(""))(key, text)
}

/// A complete configuration that runs against the sandbox, for trying things out.
pub const DEMO: &str = include_str!("../../conf/demo.ini");

/// Paths are below `root` where the file has them relative, and absolute if `root` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub file: PathBuf,
    /// The folder that holds conf/.
    pub root: PathBuf,
    /// The file's name without `.ini`.
    pub name: String,
    pub server: Server,
    pub setting: Setting,
    pub queue: Queue,
    pub pdo: Pdo,
    pub wechat: Wechat,
    /// The operator's corrections to the errcode table, each code once.
    pub errcode: Vec<(i64, Class)>,
    pub metrics: Metrics,
    pub log: Log,
    /// One line each: what the file says that has no effect.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    /// Empty: every client may connect.
    pub allow: Vec<IpNet>,
    pub table_size: usize,
    /// Bytes.
    pub template_size: usize,
    /// A folder.
    pub queue_file_path: PathBuf,
    pub ledger_file: PathBuf,
    /// Days that a failed message is kept in the ledger; zero: for ever.
    pub failed_keep: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub task_worker_num: usize,
    /// Bytes, the length field included.
    pub package_max_length: usize,
    pub daemonize: bool,
    pub pid_file: PathBuf,
    pub user: Option<String>,
    pub group: Option<String>,
    pub admin_group: Option<String>,
    pub monitor_group: Option<String>,
    pub max_conn: usize,
    /// How long half a frame may stay half, and a reply be not taken; zero: for ever.
    pub heartbeat_idle_time: Duration,
    pub backlog: u32,
    /// Bytes for each connection.
    pub buffer_output_size: usize,
    /// Bytes that clients may make the daemon hold, all together.
    pub memory_limit: usize,
    /// What "not now" is answered with: 500 or 503.
    pub unavailable_code: u16,
    pub stop_timeout: Duration,
    /// Where the daemon's stderr goes.
    pub log_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub sync: SyncPolicy,
    /// Bytes, a power of two.
    pub segment_size: u64,
    /// Zero: no limit.
    pub queue_max_bytes: u64,
    pub ids_max: usize,
    pub send_first: bool,
    pub retry_max: u8,
    pub retry_base: Duration,
    /// Not shorter than `retry_base`.
    pub retry_cap: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    Always,
    Every(Duration),
    Never,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Pdo {
    pub dsn: Dsn,
    pub username: String,
    pub password: String,
    /// Letters, digits and `_` only.
    pub table_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dsn {
    Mysql {
        host: String,
        port: u16,
        dbname: String,
        unix_socket: Option<PathBuf>,
        /// Letters and digits only.
        charset: String,
    },
    Sqlite(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wechat {
    pub app_id: String,
    pub app_secret: Secret,
    /// Base URLs without a slash at the end, at least one.
    pub api_hosts: Vec<String>,
    pub token_source: TokenSource,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub send_retry_for: Duration,
    /// 0 for no limit, like `daily_limit`.
    pub max_per_second: u32,
    pub daily_limit: u64,
    pub template_escape: Escape,
    pub missing_variables: MissingVariables,
    /// A URL; the environment's is not looked at.
    pub proxy: Option<String>,
    /// PEM certificates that are trusted beside the usual authorities.
    pub ca_file: Option<PathBuf>,
}

/// Text that no log, error or status may show: printing it prints a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    Stable,
    Classic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    Json,
    Raw,
}

/// What becomes of a template's variable that a request does not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingVariables {
    Keep,
    Empty,
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// None: they are off.
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Monolog,
    Rfc3339,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub log_file: LogFile,
    pub log_level: Level,
    pub log_prefix: String,
    /// Zero: all are kept.
    pub log_max_files: usize,
    /// One line for every message that ended; None: it is off.
    pub message_log: Option<PathBuf>,
    pub log_format: LogFormat,
    /// To the system's log, too.
    pub syslog: bool,
}

/// Where the log goes. Of a path the day's date is put before its extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFile {
    Days(PathBuf),
    Stderr,
    /// It is not configured: a file a day, but stderr in the foreground.
    Usual(PathBuf),
}

impl LogFile {
    pub fn path(&self) -> Option<&Path> {
        match self {
            LogFile::Days(path) | LogFile::Usual(path) => Some(path),
            LogFile::Stderr => None,
        }
    }
}

impl Log {
    /// `/x/mega.log` has the message log `/x/mega-messages.log`, whose days stand before the extension, too.
    fn messages_beside(log_file: &Path) -> PathBuf {
        let mut name = log_file.file_stem().unwrap_or_default().to_owned();
        name.push("-messages.log");
        log_file.with_file_name(name)
    }
}

/// Monolog's levels, the least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Named for TokenSource {
    const NAMES: &'static [(&'static str, Self)] =
        &[("stable", Self::Stable), ("classic", Self::Classic)];
}

impl Named for Escape {
    const NAMES: &'static [(&'static str, Self)] = &[("json", Self::Json), ("raw", Self::Raw)];
}

impl Named for MissingVariables {
    const NAMES: &'static [(&'static str, Self)] =
        &[("keep", Self::Keep), ("empty", Self::Empty), ("refuse", Self::Refuse)];
}

impl Named for LogFormat {
    const NAMES: &'static [(&'static str, Self)] =
        &[("monolog", Self::Monolog), ("rfc3339", Self::Rfc3339), ("json", Self::Json)];
}

impl Named for Class {
    const NAMES: &'static [(&'static str, Self)] = &class::GIVEN;
}

impl Named for Level {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("alert", Self::Alert),
        ("emergency", Self::Emergency),
    ];
}

impl Secret {
    /// The text itself, for the one request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Pdo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdo")
            .field("dsn", &self.dsn)
            .field("username", &self.username)
            .field("table_prefix", &self.table_prefix)
            .finish_non_exhaustive()
    }
}

/// Every problem of a file, one a line: file, line, key, value and what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// What lets whoever asks read the file.
fn may_read(file: &Path) -> String {
    let group = nix::unistd::getegid();
    let named = nix::unistd::Group::from_gid(group).ok().flatten();
    let group = named.map_or_else(|| group.to_string(), |group| group.name);
    let user = crate::user::name(rustix::process::geteuid());
    let file = file.display();
    format!("the user {user} may read it after: chgrp {group} {file}; chmod 640 {file}")
}

impl Config {
    /// The administration socket stands beside the pidfile.
    pub fn admin_socket(&self) -> PathBuf {
        self.setting.pid_file.with_extension("sock")
    }

    /// For this run alone.
    pub fn stay_in_foreground(&mut self) {
        self.setting.daemonize = false;
        if let LogFile::Usual(_) = self.log.log_file {
            self.log.log_file = LogFile::Stderr;
        }
    }

    /// Why the log would go nowhere, if it would.
    pub fn log_is_lost(&self) -> Option<String> {
        let lost = self.setting.daemonize
            && self.setting.log_file.is_none()
            && self.log.log_file == LogFile::Stderr;
        lost.then(|| {
            format!(
                "{}: log.log_file = - is stderr, and in the background nobody reads it: start it with -f, or \
                 say in setting.log_file where stderr goes",
                self.file.display()
            )
        })
    }

    /// The templates as they were last loaded, beside the ledger.
    pub fn templates_file(&self) -> PathBuf {
        self.server.ledger_file.with_file_name(format!("{}.templates", self.name))
    }

    /// The one that only tells how the daemon is stands beside it.
    pub fn monitor_socket(&self) -> PathBuf {
        self.setting.pid_file.with_extension("monitor")
    }

    /// Reads `file`; `root` is the folder that relative paths in it start from.
    pub fn load(file: &Path, root: &Path) -> Result<Config, ConfigError> {
        let bytes = std::fs::read(file).map_err(|e| {
            let todo = match e.kind() {
                std::io::ErrorKind::NotFound => "conf/wechat.ini is a commented example".to_owned(),
                std::io::ErrorKind::PermissionDenied => may_read(file),
                _ => "it has to be a file".to_owned(),
            };
            ConfigError(vec![format!("cannot read {}: {e} ({todo})", file.display())])
        })?;
        read::config(&bytes, file, root)
    }

    /// Reads the same file as before.
    pub fn read_again(&self) -> Result<Config, ConfigError> {
        let mut fresh = match self.name == "demo" && !self.file.exists() {
            true => Config::demo(&self.root)?,
            false => Config::load(&self.file, &self.root)?,
        };
        // `start -f` said so, whatever the file says.
        fresh.setting.daemonize &= self.setting.daemonize;
        Ok(fresh)
    }

    /// The embedded default, as if it stood in conf/demo.ini.
    pub fn demo(root: &Path) -> Result<Config, ConfigError> {
        read::config(DEMO.as_bytes(), &root.join("conf/demo.ini"), root)
    }
}
