//! The one table of keys: section, key, default, what is allowed (range and unit) and what it means.
//! conf/wechat.ini explains the same keys to the operator; the tests below tie the two together.
//! Nothing here reads a file: value.rs judges values by this table, mod.rs reads them.

use super::key::{Allowed, Key, TakenOver};
use super::value;
use super::{Escape, Level, LogFormat, MissingVariables, TokenSource};
use crate::class::Class;

use Allowed::*;

const ACCOUNT: &str =
    "as shown on mp.weixin.qq.com, 设置与开发 > 基本配置 (Settings > Basic configuration)";
const DAY: u64 = 24 * 60 * MINUTE;
const MINUTE: u64 = 60 * SECOND;
const SECOND: u64 = 1000;
const G: u64 = 1024 * M;
const M: u64 = 1024 * K;
const K: u64 = 1024;

// A row is `/// meaning` and `"key" = "default", what is allowed;`, with `, reload` at its end where a reload takes
// the value over.
macro_rules! table {
    ($([$section:ident]
        $(#[doc = $meaning:literal] $name:literal = $default:literal, $allowed:expr $(, $reload:ident)?;)*)*
    ) => {
        &[$($(Key {
            section: stringify!($section),
            name: $name,
            default: $default,
            allowed: $allowed,
            taken_over: taken_over!($($reload)?),
            meaning: $meaning.trim_ascii_start(),
        },)*)*]
    };
}

macro_rules! taken_over {
    () => {
        TakenOver::ByRestart
    };
    (reload) => {
        TakenOver::ByReload
    };
}

pub const ALL: &[Key] = table! {
    [server]
    /// The original's server class
    "class" = "", Ignored;
    /// The original's protocol class
    "protocol" = "", Ignored;
    /// Where clients connect, repeated for several addresses; port 0 is any free port
    "listen[]" = "127.0.0.1:9501", Address;
    /// Networks clients may connect from, repeated for several; none given: from anywhere
    "allow[]" = "", Network, reload;
    /// Templates kept in memory
    "table_size" = "100", Count(1, 1_000_000), reload;
    /// Longest template
    "template_size" = "4048", Bytes(1, 16 * M), reload;
    /// The queue's folder
    "queue_file_path" = "run/NAME.queue", Path;
    /// The ledger: an SQLite database of the messages that failed, and why
    "ledger_file" = "run/NAME.ledger.db", Path;
    /// Days that a failed message is kept in the ledger; 0 keeps all
    "failed_keep" = "90", Count(0, 100_000);

    [setting]
    /// Swoole's way of sharing out connections
    "dispatch_mode" = "", Ignored;
    /// Swoole's processes that read connections
    "worker_num" = "", Ignored;
    /// Workers, that is messages on their way to WeChat at the same time
    "task_worker_num" = "8", Count(1, 1024), reload;
    /// Swoole's frame ends
    "open_eof_check" = "", Ignored;
    /// How a frame states its length: 32 bits, big-endian
    "package_length_type" = "N", Only("N");
    /// Where the length stands in a frame
    "package_length_offset" = "0", Only("0");
    /// Where the bytes that the length counts begin
    "package_body_offset" = "4", Only("4");
    /// Longest frame
    "package_max_length" = "2465792", Bytes(64, 64 * M);
    /// Run in the background
    "daemonize" = "on", Flag;
    /// The process id, locked while the daemon runs
    "pid_file" = "run/NAME.pid", Path;
    /// User to run as after start-up; empty: unchanged
    "user" = "", Text;
    /// Group to run as after start-up; empty: the user's own
    "group" = "", Text;
    /// Group whose members may use the administration socket; empty: only root and the daemon's user
    "admin_group" = "", Text;
    /// Group whose members may ask how the daemon is, and nothing else; empty: as admin_group
    "monitor_group" = "", Text;
    /// Clients connected at the same time
    "max_conn" = "10000", Count(1, 1_000_000), reload;
    /// Longest time from a frame's first byte to its last, and without a byte of the replies being taken; then the client is closed; 0 is never
    "heartbeat_idle_time" = "60s", Time(0, DAY), reload;
    /// Connections the kernel holds until they are accepted
    "backlog" = "512", Count(1, 65_535);
    /// Replies kept for a client that does not read them; it is not read itself until it does
    "buffer_output_size" = "8M", Bytes(64 * K, G), reload;
    /// Memory that clients can make the daemon hold, all of them together
    "memory_limit" = "256M", Bytes(16 * M, 64 * G), reload;
    /// The code of "not now" (queue full, suspended, stopping): the original's clients know 500 only, 503 tells it from other failures
    "unavailable_code" = "500", OneOf(&["500", "503"]), reload;
    /// How long stopping waits for messages that are on their way
    "stop_timeout" = "10s", Time(0, 10 * MINUTE), reload;
    /// Where the daemon's stderr goes; empty: nowhere
    "log_file" = "", OptionalPath;

    [queue]
    /// How often the queue is forced to disk; always: before a push is answered; never: when the kernel likes
    "sync" = "50ms", Sync(1, MINUTE);
    /// Size of one file of the queue
    "segment_size" = "64M", PowerOfTwo(M, G);
    /// Largest size of the queue on disk; 0 is no limit
    "queue_max_bytes" = "0", Bytes(0, 1024 * G);
    /// Ids of clients' own (id=) that are remembered until ten minutes after the end, of at most 96 bytes each; those that ended first are forgotten for new ones, and when as many wait, more are refused
    "ids_max" = "1000000", Count(1000, 100_000_000), reload;
    /// A send, whose client is waiting, goes before queued messages
    "send_first" = "on", Flag, reload;
    /// Attempts before a message counts as failed
    "retry_max" = "8", Count(1, 100), reload;
    /// Wait before the first retry; each further wait is twice as long
    "retry_base" = "1s", Time(1, 60 * MINUTE), reload;
    /// Longest wait between two attempts
    "retry_cap" = "60s", Time(1, DAY), reload;

    [pdo]
    /// The database that holds the templates
    "dsn" = "sqlite:run/NAME.db", Dsn, reload;
    /// Database user
    "username" = "", Text, reload;
    /// Database password
    "password" = "", Text, reload;
    /// Prefix of the template table's name
    "table_prefix" = "", Identifier, reload;

    [wechat]
    /// AppID of the account
    "app_id" = "", Required(ACCOUNT);
    /// AppSecret of the account
    "app_secret" = "", Required(ACCOUNT), reload;
    /// The original's callback token
    "token" = "", Ignored;
    /// WeChat's API, comma-separated, the preferred one first
    "api_hosts" = "https://api.weixin.qq.com, https://api2.weixin.qq.com", Hosts, reload;
    /// How the access token is fetched: stable can be shared by several machines, classic ends every earlier token
    "token_source" = "stable", Word(value::names::<TokenSource>);
    /// Longest wait for a connection to WeChat
    "connect_timeout" = "5s", Time(100, MINUTE), reload;
    /// Longest wait for WeChat's answer
    "timeout" = "15s", Time(100, 10 * MINUTE), reload;
    /// How long a send is retried while its client waits
    "send_retry_for" = "10s", Time(0, 10 * MINUTE), reload;
    /// Messages that go out in a second at most; 0 is no limit
    "max_per_second" = "0", Count(0, 100_000), reload;
    /// Messages that go out in a day of WeChat's (UTC+8) at most; 0 is no limit
    "daily_limit" = "0", Count(0, 1_000_000_000), reload;
    /// How a value enters a template: json escapes it, raw leaves it as it is
    "template_escape" = "json", Word(value::names::<Escape>), reload;
    /// What a template's variable becomes that a request does not set: keep leaves ${name} as it is, empty removes it, refuse answers 400
    "missing_variables" = "keep", Word(value::names::<MissingVariables>), reload;
    /// HTTP proxy to WeChat; the environment's is not used
    "proxy" = "none", Proxy, reload;
    /// Certificates (PEM) to trust beside the usual authorities; empty: none
    "ca_file" = "", OptionalPath, reload;

    [errcode]
    /// What a WeChat errcode means, where the built-in answer does not suit you
    "CODE" = "", Word(value::names::<Class>), reload;

    [metrics]
    /// Where Prometheus fetches /metrics, and a load balancer /healthz
    "listen" = "off", AddressOrOff;

    [log]
    /// The log; a file a day, with the date put before the extension; without this line "start -f" logs to stderr
    "log_file" = "logs/NAME.log", PathOrStderr;
    /// Least severe level that is logged
    "log_level" = "warning", Word(value::names::<Level>), reload;
    /// Channel name in each log line
    "log_prefix" = "NAME", Text;
    /// Days of logs to keep; 0 keeps all
    "log_max_files" = "0", Count(0, 100_000);
    /// A line for every message that ended, a file a day like the log
    "message_log" = "on", PathOrFlag;
    /// How a line of the log looks: monolog as the original's, rfc3339 the same with RFC 3339's time, json one object a line
    "log_format" = "monolog", Word(value::names::<LogFormat>);
    /// The log goes to the system's log, too
    "syslog" = "off", Flag;
};

/// Swoole's other settings, which a file for the original may carry in `[setting]`. What would change who can reach
/// whom (`chroot`) is not among them: that it has no effect is worth a warning.
const SWOOLE: &[&str] = &[
    "buffer_high_watermark",
    "buffer_input_size",
    "buffer_low_watermark",
    "cpu_affinity_ignore",
    "discard_timeout_request",
    "enable_coroutine",
    "enable_deadlock_check",
    "enable_delay_receive",
    "enable_port_reuse",
    "enable_reuse_port",
    "enable_unsafe_event",
    "heartbeat_check_interval",
    "hook_flags",
    "input_buffer_size",
    "kernel_socket_recv_buffer_size",
    "kernel_socket_send_buffer_size",
    "log_date_format",
    "log_date_with_microseconds",
    "log_level",
    "log_rotation",
    "max_connection",
    "max_coroutine",
    "max_queued_bytes",
    "max_request",
    "max_request_grace",
    "max_wait_time",
    "message_queue_key",
    "open_cpu_affinity",
    "open_eof_split",
    "open_http2_protocol",
    "open_http_protocol",
    "open_length_check",
    "open_mqtt_protocol",
    "open_redis_protocol",
    "open_tcp_keepalive",
    "open_tcp_nodelay",
    "open_websocket_protocol",
    "output_buffer_size",
    "package_eof",
    "pipe_buffer_size",
    "poll_thread_num",
    "reactor_num",
    "reload_async",
    "request_slowlog_file",
    "request_slowlog_timeout",
    "send_timeout",
    "send_yield",
    "single_thread",
    "socket_buffer_size",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_ciphers",
    "ssl_client_cert_file",
    "ssl_key_file",
    "ssl_method",
    "ssl_protocols",
    "ssl_verify_depth",
    "ssl_verify_peer",
    "stats_file",
    "task_enable_coroutine",
    "task_ipc_mode",
    "task_max_request",
    "task_max_request_grace",
    "task_tmpdir",
    "task_use_object",
    "tcp_defer_accept",
    "tcp_fastopen",
    "tcp_keepcount",
    "tcp_keepidle",
    "tcp_keepinterval",
    "tcp_user_timeout",
    "trace_event_worker",
    "upload_tmp_dir",
    "worker_max_concurrency",
];

/// What stands for each of them.
static OF_SWOOLE: Key = Key {
    section: "setting",
    name: "of Swoole",
    default: "",
    allowed: Ignored,
    taken_over: TakenOver::ByRestart,
    meaning: "Another setting of Swoole's",
};

/// Whether the value of a key with this name must never be shown, be the key known or not.
pub fn is_secret(name: &str) -> bool {
    let name = name.trim_end_matches("[]");
    matches!(name, "password" | "app_secret" | "token")
}

/// The key of an entry; every name in `[errcode]` is one.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    let key =
        ALL.iter().find(|key| key.section == section && (key.name == name || section == "errcode"));
    key.or_else(|| (section == OF_SWOOLE.section && SWOOLE.contains(&name)).then_some(&OF_SWOOLE))
}

/// The known key that `section.name` was most likely meant to be.
pub fn nearest(section: &str, name: &str) -> &'static Key {
    let distance = |key: &&Key| {
        // The right key in the wrong section is nearer than any misspelling.
        let names =
            strsim::osa_distance(key.name.trim_end_matches("[]"), name.trim_end_matches("[]"));
        let nearness = 2 * names + usize::from(key.section != section);
        (nearness, strsim::osa_distance(key.section, section))
    };
    let known = ALL.iter().filter(|key| !matches!(key.allowed, Ignored));
    known.min_by_key(distance).expect("invariant: the table is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini;

    const MANUAL: &str = include_str!("../../conf/wechat.ini");

    /// Settings of the manual, also those commented out: `;key = value` without a space after `;`.
    fn settings() -> Vec<ini::Entry> {
        let uncomment = |line: &'static str| match line.strip_prefix(';') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphanumeric()) => rest,
            _ => line,
        };
        let lines: Vec<&str> = MANUAL.lines().map(uncomment).collect();
        ini::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn every_key_is_in_the_manual_with_its_default() {
        let settings = settings();
        for key in ALL.iter().filter(|key| key.section != "errcode") {
            let stated = settings.iter().filter(|e| e.section == key.section && e.key == key.name);
            let mut values = stated.map(|e| e.value.as_str());
            let default = key.default_for("wechat");
            let found = match key.allowed {
                Required(_) | Ignored => values.next().is_some(),
                _ => values.any(|value| value == default),
            };
            assert!(found, "{key} = {default} is not in conf/wechat.ini");
        }
    }

    #[test]
    fn every_setting_in_the_manual_is_a_key() {
        for entry in settings() {
            let known = find(&entry.section, &entry.key);
            assert!(known.is_some(), "{}.{}", entry.section, entry.key);
        }
    }

    #[test]
    fn the_manual_says_what_each_key_means_and_allows() {
        for section in MANUAL.split("\n[").skip(1) {
            let name = section.split(']').next().unwrap();
            for key in ALL.iter().filter(|key| key.section == name) {
                let comment = match key.allowed {
                    Ignored => format!("; {} (ignored)", key.meaning),
                    Only(_) => format!("; {} (always {})", key.meaning, key.allowed),
                    _ if key.taken_over == TakenOver::ByReload => {
                        format!("; {} ({}; reload)", key.meaning, key.allowed)
                    }
                    _ => format!("; {} ({})", key.meaning, key.allowed),
                };
                let line = section
                    .lines()
                    .position(|line| line == comment)
                    .unwrap_or_else(|| panic!("{key}: {comment:?} is not in conf/wechat.ini"));
                let setting = section.lines().nth(line + 1).unwrap_or_default();
                let setting = setting.trim_start_matches(';');
                assert!(
                    setting.starts_with(&format!("{} = ", key.name))
                        || setting == format!("{} =", key.name)
                        || name == "errcode",
                    "{key} does not follow its comment, {setting:?} does"
                );
            }
        }
    }

    #[test]
    fn swooles_other_settings_are_in_no_table_twice_and_in_the_manual_together() {
        assert!(SWOOLE.is_sorted_by(|a, b| a < b));
        for name in SWOOLE {
            let ours = ALL.iter().find(|key| key.section == "setting" && key.name == *name);
            assert!(ours.is_none(), "{name}");
        }
        let sentence = MANUAL.lines().find(|line| line.starts_with("; Swoole's other settings"));
        let named = sentence.unwrap().split_once('(').unwrap().1.split(')').next().unwrap();
        for name in named.trim_start_matches("such as ").split(", ") {
            assert!(SWOOLE.contains(&name), "{name}");
        }
    }

    #[test]
    fn no_key_is_in_the_table_twice() {
        for (i, key) in ALL.iter().enumerate() {
            let first = ALL.iter().position(|k| k.section == key.section && k.name == key.name);
            assert_eq!(first, Some(i), "{key}");
        }
    }

    #[test]
    fn a_misspelt_or_misplaced_key_has_a_neighbour() {
        for (section, name, meant) in [
            ("server", "tabel_size", "server.table_size"),
            ("setting", "table_size", "server.table_size"),
            ("wechat", "dsn", "pdo.dsn"),
            ("log", "Log_Level", "log.log_level"),
            ("sever", "listen", "server.listen[]"),
        ] {
            assert_eq!(nearest(section, name).to_string(), meant);
        }
    }
}
