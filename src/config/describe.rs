//! `Config` → INI text for `mega NAME check`: what is in effect, defaults and resolved paths included,
//! secrets masked. The order and the comments come from the table of keys.

use std::fmt;
use std::time::Duration;

use super::key::{Allowed, Key, TakenOver};
use super::keys;
use super::units::{BYTES, TIME, show};
use super::value::Named;
use super::{Config, Dsn, SyncPolicy};
use crate::class;

impl Config {
    /// The effective configuration, which reads back as the same but for its secrets.
    pub fn describe(&self) -> String {
        let mut text = format!("; {}\n", self.file.display());
        let mut section = "";
        let known = keys::ALL.iter();
        for key in known.filter(|key| !matches!(key.allowed, Allowed::Ignored)) {
            if key.section != section {
                section = key.section;
                text.push_str(&format!("\n[{section}]\n"));
                if section == "errcode" {
                    let given = class::TABLE.iter().filter(|row| row.given);
                    given.for_each(|row| text.push_str(&classes(row)));
                }
            }
            for (name, value) in self.settings(key) {
                let setting = format!("{name} = {}", quote(&value));
                let reload = match key.taken_over {
                    TakenOver::ByReload => " (reload)",
                    TakenOver::ByRestart => "",
                };
                text.push_str(&format!("{setting:<40} ; {}{reload}\n", key.meaning));
            }
        }
        text
    }

    /// A key's names and values: one of each, but for lists and errcodes.
    pub(super) fn settings(&self, key: &Key) -> Vec<(String, String)> {
        let named = |value: String| (key.name.to_owned(), value);
        let server = &self.server;
        match (key.section, key.name) {
            ("server", "listen[]") => {
                let listen = server.listen.iter().map(ToString::to_string);
                listen.map(named).collect()
            }
            ("server", "allow[]") => {
                let allow = server.allow.iter().map(ToString::to_string);
                allow.map(named).collect()
            }
            ("errcode", _) => {
                let classes = self.errcode.iter();
                classes.map(|(code, class)| (code.to_string(), class.name().to_owned())).collect()
            }
            _ => vec![named(self.scalar(key))],
        }
    }

    fn scalar(&self, key: &Key) -> String {
        let (server, setting, queue) = (&self.server, &self.setting, &self.queue);
        let (pdo, wechat, log) = (&self.pdo, &self.wechat, &self.log);
        match (key.section, key.name) {
            ("server", "table_size") => server.table_size.to_string(),
            ("server", "template_size") => server.template_size.to_string(),
            ("server", "queue_file_path") => server.queue_file_path.display().to_string(),
            ("server", "ledger_file") => server.ledger_file.display().to_string(),
            ("server", "failed_keep") => server.failed_keep.to_string(),
            ("setting", "task_worker_num") => setting.task_worker_num.to_string(),
            ("setting", "package_max_length") => setting.package_max_length.to_string(),
            ("setting", "daemonize") => flag(setting.daemonize),
            ("setting", "pid_file") => setting.pid_file.display().to_string(),
            ("setting", "user") => setting.user.clone().unwrap_or_default(),
            ("setting", "group") => setting.group.clone().unwrap_or_default(),
            ("setting", "admin_group") => setting.admin_group.clone().unwrap_or_default(),
            ("setting", "monitor_group") => setting.monitor_group.clone().unwrap_or_default(),
            ("setting", "max_conn") => setting.max_conn.to_string(),
            ("setting", "heartbeat_idle_time") => time(setting.heartbeat_idle_time),
            ("setting", "backlog") => setting.backlog.to_string(),
            ("setting", "buffer_output_size") => setting.buffer_output_size.to_string(),
            ("setting", "memory_limit") => show(setting.memory_limit as u64, BYTES),
            ("setting", "unavailable_code") => setting.unavailable_code.to_string(),
            ("setting", "stop_timeout") => time(setting.stop_timeout),
            ("setting", "log_file") => match &setting.log_file {
                Some(path) => path.display().to_string(),
                None => String::new(),
            },
            ("queue", "sync") => match queue.sync {
                SyncPolicy::Always => "always".to_owned(),
                SyncPolicy::Never => "never".to_owned(),
                SyncPolicy::Every(interval) => time(interval),
            },
            ("queue", "segment_size") => show(queue.segment_size, BYTES),
            ("queue", "queue_max_bytes") => show(queue.queue_max_bytes, BYTES),
            ("queue", "ids_max") => queue.ids_max.to_string(),
            ("queue", "send_first") => flag(queue.send_first),
            ("queue", "retry_max") => queue.retry_max.to_string(),
            ("queue", "retry_base") => time(queue.retry_base),
            ("queue", "retry_cap") => time(queue.retry_cap),
            ("pdo", "dsn") => pdo.dsn.to_string(),
            ("pdo", "username") => pdo.username.clone(),
            ("pdo", "password") if pdo.password.is_empty() => String::new(),
            ("pdo", "password") => "***".to_owned(),
            ("pdo", "table_prefix") => pdo.table_prefix.clone(),
            ("wechat", "app_id") => wechat.app_id.clone(),
            ("wechat", "app_secret") => wechat.app_secret.to_string(),
            ("wechat", "api_hosts") => wechat.api_hosts.join(", "),
            ("wechat", "token_source") => wechat.token_source.name().to_owned(),
            ("wechat", "connect_timeout") => time(wechat.connect_timeout),
            ("wechat", "timeout") => time(wechat.timeout),
            ("wechat", "send_retry_for") => time(wechat.send_retry_for),
            ("wechat", "max_per_second") => wechat.max_per_second.to_string(),
            ("wechat", "daily_limit") => wechat.daily_limit.to_string(),
            ("wechat", "template_escape") => wechat.template_escape.name().to_owned(),
            ("wechat", "missing_variables") => wechat.missing_variables.name().to_owned(),
            ("wechat", "proxy") => match &wechat.proxy {
                // It may carry a password.
                Some(url) if url.contains('@') => "***".to_owned(),
                Some(url) => url.clone(),
                None => "none".to_owned(),
            },
            ("wechat", "ca_file") => match &wechat.ca_file {
                Some(path) => path.display().to_string(),
                None => String::new(),
            },
            ("metrics", "listen") => match self.metrics.listen {
                Some(address) => address.to_string(),
                None => "off".to_owned(),
            },
            ("log", "log_format") => log.log_format.name().to_owned(),
            ("log", "syslog") => flag(log.syslog),
            ("log", "log_file") => match log.log_file.path() {
                Some(path) => path.display().to_string(),
                None => "-".to_owned(),
            },
            ("log", "log_level") => log.log_level.name().to_owned(),
            ("log", "log_prefix") => log.log_prefix.clone(),
            ("log", "log_max_files") => log.log_max_files.to_string(),
            ("log", "message_log") => match &log.message_log {
                Some(path) => path.display().to_string(),
                None => "off".to_owned(),
            },
            // What is left are the protocol's own values, which no file can change.
            _ => key.default.to_owned(),
        }
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port, dbname, unix_socket, charset) = match self {
            Dsn::Sqlite(path) => return write!(f, "sqlite:{}", path.display()),
            Dsn::Mysql { host, port, dbname, unix_socket, charset } => {
                (host, port, dbname, unix_socket, charset)
            }
        };
        write!(f, "mysql:host={host};port={port};dbname={dbname}")?;
        if let Some(socket) = unix_socket {
            write!(f, ";unix_socket={}", socket.display())?;
        }
        write!(f, ";charset={charset}")
    }
}

/// What one class means, in both languages.
fn classes(row: &class::Row) -> String {
    let line = |n: usize| format!("; {} ({}): {}\n", row.name, row.example[n], row.fate[n]);
    line(0) + &line(1)
}

fn flag(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn time(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis());
    show(millis.unwrap_or(u64::MAX), TIME)
}

/// In quotes where the text would not read back as it is.
fn quote(value: &str) -> String {
    let plain = value.trim() == value && !value.contains([';', '"']) && !value.starts_with('\'');
    match value {
        _ if plain => value.to_owned(),
        _ if value.contains('"') => format!("'{value}'"),
        _ => format!("\"{value}\""),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::super::{LogFile, Secret, read};
    use super::*;

    /// Differs from the default in every key that can differ.
    pub const ALL_SET: &str = "[server]\nlisten[] = [::1]:0\nlisten[] = localhost:1\nallow[] = 10.0.0.0/8\n\
        table_size = 7\ntemplate_size = 8K\nqueue_file_path = \"a;b\"\nledger_file = l\nfailed_keep = 7\n[setting]\ntask_worker_num = 3\n\
        package_max_length = 1M\ndaemonize = off\npid_file = 'a\"b'\nuser = u\ngroup = g\nadmin_group = a\nmonitor_group = m\nmax_conn = 9\n\
        heartbeat_idle_time = 0\nbacklog = 5\nbuffer_output_size = 64K\nmemory_limit = 32M\nunavailable_code = 503\nstop_timeout = 1500ms\nlog_file = e\n\
        [queue]\nsync = always\nsegment_size = 1M\nqueue_max_bytes = 3G\nsend_first = off\nretry_max = 2\n\
        retry_base = 2\nretry_cap = 3m\n[pdo]\n\
        dsn = \"mysql:host=h;port=1;dbname=d;unix_socket=/s;charset=utf8\"\nusername = it's\n\
        password = hunter2\ntable_prefix = p_\n[wechat]\napp_id = i\napp_secret = hunter2\n\
        api_hosts = a, http://localhost:1\ntoken_source = classic\nconnect_timeout = 1\ntimeout = 2\n\
        send_retry_for = 0\nmax_per_second = 5\ndaily_limit = 6\ntemplate_escape = raw\nmissing_variables = refuse\nproxy = http://p:1\nca_file = c\n[errcode]\n-1 = rate\n43101 = ok\n[metrics]\nlisten = [::1]:9\n[log]\n\
        log_file = ' x'\nlog_level = debug\nlog_prefix = \"#\"\nlog_max_files = 4\nmessage_log = off\nlog_format = json\nsyslog = on\n";

    pub fn read(text: &str) -> Config {
        let file = Path::new("conf/wechat.ini");
        read::config(text.as_bytes(), file, Path::new("/srv/mega")).unwrap()
    }

    #[test]
    fn the_description_reads_back_as_the_same_configuration() {
        let least = "[wechat]\napp_id = i\napp_secret = hunter2\n";
        for text in [least, ALL_SET] {
            let mut config = read(text);
            let described = config.describe();
            assert!(!described.contains("hunter2"), "{described}");
            if !config.pdo.password.is_empty() {
                config.pdo.password = "***".to_owned();
            }
            config.wechat.app_secret = Secret("***".to_owned());
            // What was not configured is so when it is described.
            if let LogFile::Usual(path) = &config.log.log_file {
                config.log.log_file = LogFile::Days(path.clone());
            }
            assert_eq!(read(&described), config, "{described}");
        }
    }

    #[test]
    fn no_key_is_described_by_its_default_alone() {
        let config = read(ALL_SET);
        let changeable = |key: &&Key| !matches!(key.allowed, Allowed::Ignored | Allowed::Only(_));
        for key in keys::ALL.iter().filter(changeable) {
            for (_, value) in config.settings(key) {
                assert_ne!(value, key.default_for("wechat"), "{key}");
            }
        }
    }
}
