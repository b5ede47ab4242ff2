//! Entries of a file → `Config`: looks each key up, falls back to its default, and gathers problems and warnings.
//! Runs on main. A problem never stops the reading, so that the operator sees all of them at once.

use std::fmt;
use std::path::Path;

use super::address;
use super::ini::{self, Entry, Problem};
use super::key::{Allowed, Key};
use super::keys;
use super::value::{self, Parsed};
use super::{
    Config, ConfigError, Log, LogFile, Metrics, Pdo, Queue, Secret, Server, Setting, Wechat,
};
use crate::class::Class;

/// The configuration in `bytes`, which came from `file`.
pub fn config(bytes: &[u8], file: &Path, root: &Path) -> Result<Config, ConfigError> {
    // Where the lines themselves are broken, sections cannot be told, so values are not judged.
    let entries = ini::parse(bytes).map_err(|problems| ConfigError(located(problems, file)))?;
    let stem = file.file_stem().unwrap_or_default();
    let mut reader = Reader {
        entries: &entries,
        name: stem.to_string_lossy().into_owned(),
        root,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    reader.check_names();
    let config = build(&mut reader, file);
    match reader.problems.is_empty() {
        true => Ok(Config { warnings: located(reader.warnings, file), ..config }),
        false => Err(ConfigError(located(reader.problems, file))),
    }
}

/// `file:line: text`, in the order of the lines, those without a line last.
fn located(mut problems: Vec<Problem>, file: &Path) -> Vec<String> {
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    let file = file.display();
    let show = |problem: Problem| match problem.line {
        Some(line) => format!("{file}:{line}: {}", problem.text),
        None => format!("{file}: {}", problem.text),
    };
    problems.into_iter().map(show).collect()
}

fn build(r: &mut Reader, file: &Path) -> Config {
    let root = r.root;
    let log_file = r.one("log", "log_file", value::path_or_stderr(root));
    let usual = root.join(known("log", "log_file").default_for(&r.name));
    let beside = Log::messages_beside(log_file.path().unwrap_or(&usual));
    let message_log = value::path_or_flag(root, beside);
    let log_file = match log_file {
        LogFile::Days(path) if r.find("log", "log_file").is_none() => LogFile::Usual(path),
        stated => stated,
    };
    let config = Config {
        file: file.to_owned(),
        root: root.to_owned(),
        name: r.name.clone(),
        server: Server {
            listen: r.list("server", "listen[]", address::address),
            allow: r.list("server", "allow[]", address::network),
            table_size: r.one("server", "table_size", value::number),
            template_size: r.one("server", "template_size", value::number),
            queue_file_path: r.one("server", "queue_file_path", value::path(root)),
            ledger_file: r.one("server", "ledger_file", value::path(root)),
            failed_keep: r.one("server", "failed_keep", value::number),
        },
        setting: Setting {
            task_worker_num: r.one("setting", "task_worker_num", value::number),
            package_max_length: r.one("setting", "package_max_length", value::number),
            daemonize: r.one("setting", "daemonize", value::flag),
            pid_file: r.one("setting", "pid_file", value::path(root)),
            user: r.one("setting", "user", value::optional_text),
            group: r.one("setting", "group", value::optional_text),
            admin_group: r.one("setting", "admin_group", value::optional_text),
            monitor_group: r.one("setting", "monitor_group", value::optional_text),
            max_conn: r.one("setting", "max_conn", value::number),
            heartbeat_idle_time: r.one("setting", "heartbeat_idle_time", value::time),
            backlog: r.one("setting", "backlog", value::number),
            buffer_output_size: r.one("setting", "buffer_output_size", value::number),
            memory_limit: r.one("setting", "memory_limit", value::number),
            unavailable_code: r.one("setting", "unavailable_code", value::one_of),
            stop_timeout: r.one("setting", "stop_timeout", value::time),
            log_file: r.one("setting", "log_file", value::optional_path(root)),
        },
        queue: Queue {
            sync: r.one("queue", "sync", value::sync),
            segment_size: r.one("queue", "segment_size", value::number),
            queue_max_bytes: r.one("queue", "queue_max_bytes", value::number),
            ids_max: r.one("queue", "ids_max", value::number),
            send_first: r.one("queue", "send_first", value::flag),
            retry_max: r.one("queue", "retry_max", value::number),
            retry_base: r.one("queue", "retry_base", value::time),
            retry_cap: r.one("queue", "retry_cap", value::time),
        },
        pdo: Pdo {
            dsn: r.one("pdo", "dsn", address::dsn(root)),
            username: r.one("pdo", "username", value::text),
            password: r.one("pdo", "password", value::text),
            table_prefix: r.one("pdo", "table_prefix", value::identifier),
        },
        wechat: Wechat {
            app_id: r.required("wechat", "app_id"),
            app_secret: Secret(r.required("wechat", "app_secret")),
            api_hosts: r.one("wechat", "api_hosts", address::hosts),
            token_source: r.one("wechat", "token_source", value::word),
            connect_timeout: r.one("wechat", "connect_timeout", value::time),
            timeout: r.one("wechat", "timeout", value::time),
            send_retry_for: r.one("wechat", "send_retry_for", value::time),
            max_per_second: r.one("wechat", "max_per_second", value::number),
            daily_limit: r.one("wechat", "daily_limit", value::number),
            template_escape: r.one("wechat", "template_escape", value::word),
            missing_variables: r.one("wechat", "missing_variables", value::word),
            proxy: r.one("wechat", "proxy", address::proxy),
            ca_file: r.one("wechat", "ca_file", value::optional_path(root)),
        },
        errcode: r.errcodes(),
        metrics: Metrics { listen: r.one("metrics", "listen", address::address_or_off) },
        log: Log {
            log_file,
            log_level: r.one("log", "log_level", value::word),
            log_prefix: r.one("log", "log_prefix", value::text),
            log_max_files: r.one("log", "log_max_files", value::number),
            message_log: r.one("log", "message_log", message_log),
            log_format: r.one("log", "log_format", value::word),
            syslog: r.one("log", "syslog", value::flag),
        },
        warnings: Vec::new(),
    };
    let room = config.setting.memory_limit / 8 / 1024;
    if config.setting.max_conn > room {
        let text = format!(
            "setting.memory_limit has room for {room} clients, fewer than setting.max_conn = {}",
            config.setting.max_conn
        );
        r.warnings.push(Problem { line: None, text });
    }
    // A frame's buffer is half as long again at most, and frames have a quarter.
    let (longest, limit) = (config.setting.package_max_length, config.setting.memory_limit);
    if limit < 6 * longest {
        let text = format!(
            "setting.memory_limit = {limit} cannot be kept where one frame may have \
             setting.package_max_length = {longest}: set memory_limit to {} or more, or \
             package_max_length to {} or less",
            6 * longest,
            limit / 6
        );
        r.warnings.push(Problem { line: None, text });
    }
    if config.queue.retry_cap < config.queue.retry_base {
        let base = r.find("queue", "retry_base");
        if let Some(entry) = base.or_else(|| r.find("queue", "retry_cap")) {
            r.reject(entry, "retry_base must not be longer than retry_cap");
        }
    }
    let (limit, segment) = (config.queue.queue_max_bytes, config.queue.segment_size);
    if (1..2 * segment).contains(&limit) {
        let entry = r.find("queue", "queue_max_bytes");
        if let Some(entry) = entry.or_else(|| r.find("queue", "segment_size")) {
            r.reject(entry, "queue_max_bytes must be 0 or have room for two of segment_size");
        }
    }
    config
}

struct Reader<'a> {
    entries: &'a [Entry],
    name: String,
    root: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Whatever can be said of an entry without reading its value.
    fn check_names(&mut self) {
        let entries = self.entries;
        for (i, entry) in entries.iter().enumerate() {
            let name = full_name(entry);
            let Some(key) = keys::find(&entry.section, &entry.key) else {
                self.check_unknown(entry, &name);
                continue;
            };
            if matches!(key.allowed, Allowed::Only(value) if value != entry.value) {
                self.reject(entry, format!("must be {}", key.allowed));
            }
            let same = |e: &&Entry| e.section == entry.section && e.key == entry.key;
            let earlier = entries[..i].iter().rev().find(same);
            match earlier {
                Some(earlier) if !key.is_list() && !matches!(key.allowed, Allowed::Ignored) => {
                    let text = format!("{name} overrides the one in line {}", earlier.line);
                    self.warn(entry, text);
                }
                _ => {}
            }
        }
    }

    /// A list written as a scalar, or the reverse, is an error: a lost `allow[]` would open the port to everyone.
    fn check_unknown(&mut self, entry: &Entry, name: &str) {
        let bare = entry.key.trim_end_matches("[]");
        let list = format!("{bare}[]");
        let twin = [bare, &list].into_iter().find_map(|other| keys::find(&entry.section, other));
        match twin {
            Some(key) => self.reject(entry, format!("must be written {} = ...", key.name)),
            None => {
                let nearest = keys::nearest(&entry.section, &entry.key);
                let text = format!("{name} is unknown and ignored; did you mean {nearest}?");
                self.warn(entry, text);
            }
        }
    }

    /// A key's value, the last one where there are several. Where it is refused the default stands in for it,
    /// only so that reading can go on: a configuration with a problem is never returned.
    fn one<T>(&mut self, section: &str, name: &str, parse: impl Fn(&Key, &str) -> Parsed<T>) -> T {
        let key = known(section, name);
        if let Some(entry) = self.find(section, name) {
            match parse(key, &entry.value) {
                Ok(value) => return value,
                Err(why) => self.reject(entry, why),
            }
        }
        parse(key, &key.default_for(&self.name))
            .expect("invariant: a default is allowed, which the tests see for each")
    }

    fn required(&mut self, section: &str, name: &str) -> String {
        let found = self.find(section, name);
        let value = found.map_or("", |entry| &entry.value).to_owned();
        if value.is_empty() {
            let key = known(section, name);
            let line = found.map(|entry| entry.line);
            let text = format!("{key} is missing: write {} {}", key.name, key.allowed);
            self.problems.push(Problem { line, text });
        }
        value
    }

    /// The values of a repeated key in their order; an empty default is no value.
    fn list<T>(&mut self, section: &str, name: &str, parse: fn(&Key, &str) -> Parsed<T>) -> Vec<T> {
        let key = known(section, name);
        if self.find(section, name).is_none() {
            return parse(key, key.default).into_iter().collect();
        }
        let mut values = Vec::new();
        for entry in self.entries {
            if entry.section == section && entry.key == name {
                match parse(key, &entry.value) {
                    Ok(value) => values.push(value),
                    Err(why) => self.reject(entry, why),
                }
            }
        }
        values
    }

    /// Each code once, with the class that was given last.
    fn errcodes(&mut self) -> Vec<(i64, Class)> {
        let mut classes: Vec<(i64, Class)> = Vec::new();
        for entry in self.entries.iter().filter(|e| e.section == "errcode") {
            let key = known("errcode", &entry.key);
            let Ok(code) = entry.key.parse() else {
                self.reject(entry, "the key must be an errcode, such as 43101");
                continue;
            };
            if code == 0 {
                self.reject(entry, "0 is WeChat's word for success, and means nothing else");
                continue;
            }
            match value::word(key, &entry.value) {
                Ok(class) => {
                    classes.retain(|(earlier, _)| *earlier != code);
                    classes.push((code, class));
                }
                Err(why) => self.reject(entry, why),
            }
        }
        classes
    }

    fn find(&self, section: &str, name: &str) -> Option<&'a Entry> {
        let mut entries = self.entries.iter().rev();
        entries.find(|e| e.section == section && e.key == name)
    }

    fn reject(&mut self, entry: &Entry, why: impl fmt::Display) {
        let text = format!("{} = {}: {why}", full_name(entry), shown(entry));
        let line = Some(entry.line);
        self.problems.push(Problem { line, text });
    }

    fn warn(&mut self, entry: &Entry, text: String) {
        let line = Some(entry.line);
        self.warnings.push(Problem { line, text });
    }
}

fn known(section: &str, name: &str) -> &'static Key {
    keys::find(section, name).expect("invariant: every key that is read is in the table")
}

fn full_name(entry: &Entry) -> String {
    match entry.section.as_str() {
        "" => entry.key.clone(),
        section => format!("{section}.{}", entry.key),
    }
}

/// The value, unless it is a secret or a dsn or URL that may carry one.
fn shown(entry: &Entry) -> &str {
    let value = entry.value.as_str();
    let carries = value.contains('@') || value.to_ascii_lowercase().contains("password");
    match value {
        _ if keys::is_secret(&entry.key) || carries => "***",
        "" => "\"\"",
        _ => value,
    }
}
