//! Whole files through the whole folder: defaults, the original's file, the two files in conf/, every message, noise.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const ORIGINAL: &[u8] = include_bytes!("../../tests/data/wechat-original.ini");
const MANUAL: &[u8] = include_bytes!("../../conf/wechat.ini");
const ACCOUNT: &str = "[wechat]\napp_id = a\napp_secret = hunter2\n";

fn read(bytes: &[u8]) -> Result<Config, ConfigError> {
    let file = Path::new("conf/wechat.ini");
    read::config(bytes, file, Path::new("/srv/mega"))
}

/// With the account's keys in lines 1 to 3, so that `text` begins in line 4.
fn with_account(text: &str) -> Result<Config, ConfigError> {
    read(format!("{ACCOUNT}{text}").as_bytes())
}

fn refusal(text: &str) -> String {
    with_account(text).unwrap_err().to_string()
}

fn warnings(text: &str) -> Vec<String> {
    with_account(text).unwrap().warnings
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("none.ini");
    assert_eq!(
        Config::load(&file, root.path()).unwrap_err().to_string(),
        format!(
            "cannot read {}: No such file or directory (os error 2) \
             (conf/wechat.ini is a commented example)",
            file.display()
        )
    );
}

#[test]
fn debug_output_shows_no_secret() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.ini");
    let text = "[pdo]\npassword = hunter2\n[wechat]\napp_id = a\napp_secret = hunter2\n";
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file, root.path()).unwrap();
    assert_eq!(config.name, "a");
    assert_eq!(config.pdo.password, "hunter2");
    assert_eq!(config.wechat.app_secret.expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.wechat.app_secret.to_string(), "***");
}

#[test]
fn an_almost_empty_file_gives_the_defaults() {
    let config = with_account("").unwrap();
    let below = |path: &str| PathBuf::from("/srv/mega").join(path);
    let seconds = Duration::from_secs;
    assert_eq!(
        config,
        Config {
            file: "conf/wechat.ini".into(),
            root: "/srv/mega".into(),
            name: "wechat".to_owned(),
            server: Server {
                listen: vec![SocketAddr::from(([127, 0, 0, 1], 9501))],
                allow: Vec::new(),
                table_size: 100,
                template_size: 4048,
                queue_file_path: below("run/wechat.queue"),
                ledger_file: below("run/wechat.ledger.db"),
                failed_keep: 90,
            },
            setting: Setting {
                task_worker_num: 8,
                package_max_length: 2_465_792,
                daemonize: true,
                pid_file: below("run/wechat.pid"),
                user: None,
                group: None,
                admin_group: None,
                monitor_group: None,
                max_conn: 10_000,
                heartbeat_idle_time: seconds(60),
                backlog: 512,
                buffer_output_size: 8_388_608,
                memory_limit: 256 << 20,
                unavailable_code: 500,
                stop_timeout: seconds(10),
                log_file: None,
            },
            queue: Queue {
                sync: SyncPolicy::Every(Duration::from_millis(50)),
                segment_size: 64 << 20,
                queue_max_bytes: 0,
                ids_max: 1_000_000,
                send_first: true,
                retry_max: 8,
                retry_base: seconds(1),
                retry_cap: seconds(60),
            },
            pdo: Pdo {
                dsn: Dsn::Sqlite(below("run/wechat.db")),
                username: String::new(),
                password: String::new(),
                table_prefix: String::new(),
            },
            wechat: Wechat {
                app_id: "a".to_owned(),
                app_secret: Secret("hunter2".to_owned()),
                api_hosts: vec![
                    "https://api.weixin.qq.com".to_owned(),
                    "https://api2.weixin.qq.com".to_owned(),
                ],
                token_source: TokenSource::Stable,
                connect_timeout: seconds(5),
                timeout: seconds(15),
                send_retry_for: seconds(10),
                max_per_second: 0,
                daily_limit: 0,
                template_escape: Escape::Json,
                missing_variables: MissingVariables::Keep,
                proxy: None,
                ca_file: None,
            },
            errcode: Vec::new(),
            metrics: Metrics { listen: None },
            log: Log {
                log_file: LogFile::Usual(below("logs/wechat.log")),
                log_level: Level::Warning,
                log_prefix: "wechat".to_owned(),
                log_max_files: 0,
                message_log: Some(below("logs/wechat-messages.log")),
                log_format: LogFormat::Monolog,
                syslog: false,
            },
            warnings: Vec::new(),
        }
    );
}

#[test]
fn the_originals_file_works_unchanged() {
    let original = read(ORIGINAL).unwrap();
    let mut expected = with_account("").unwrap();
    expected.server.queue_file_path = "/Mega-Wechat/logs/queue".into();
    expected.pdo = Pdo {
        dsn: Dsn::Mysql {
            host: "127.0.0.1".to_owned(),
            port: 3306,
            dbname: "mega".to_owned(),
            unix_socket: None,
            charset: "utf8mb4".to_owned(),
        },
        username: "root".to_owned(),
        password: "i201314".to_owned(),
        table_prefix: "mega_".to_owned(),
    };
    expected.wechat.app_id = "wx10c4b54cf0aae125".to_owned();
    expected.wechat.app_secret = Secret("e01207cc547f62d73f5099aae83a9f15".to_owned());
    expected.log.log_file = LogFile::Days("/Mega-Wechat/logs/mega.log".into());
    expected.log.message_log = Some("/Mega-Wechat/logs/mega-messages.log".into());
    expected.log.log_prefix = "mega".to_owned();
    assert_eq!(original, expected);
}

#[test]
fn the_manual_sets_what_the_original_sets() {
    assert_eq!(read(MANUAL), read(ORIGINAL));
}

#[test]
fn the_demo_runs_against_the_sandbox() {
    let file = Path::new("conf/demo.ini");
    let demo = read::config(DEMO.as_bytes(), file, Path::new("/srv/mega")).unwrap();
    assert_eq!(demo.warnings, Vec::<String>::new());
    assert_eq!(demo.wechat.api_hosts, ["http://127.0.0.1:9580"]);
    assert_eq!(demo.wechat.app_id, "demo");
    assert_eq!(demo.pdo.dsn, Dsn::Sqlite("/srv/mega/run/demo.db".into()));
    assert_eq!(demo.log.log_level, Level::Info);
}

#[test]
fn every_kind_of_problem_says_where_what_and_what_is_allowed() {
    // A setting behind its section, then what is said of it.
    let transcript = r#"
server: table_size = 0;
server.table_size = 0: must be 1 to 1000000
server: table_size =
server.table_size = "": must be 1 to 1000000
server: table_size[] = 1
server.table_size[] = 1: must be written table_size = ...
server: template_size = 17M
server.template_size = 17M: must be 1 to 16M bytes
server: listen[] = 80
server.listen[] = 80: must be ADDRESS:PORT, IPv6 as [::1]:9501
server: listen[] = wx.example.com:80
server.listen[] = wx.example.com:80: host names other than localhost are not looked up; must be ADDRESS:PORT, IPv6 as [::1]:9501
server: allow[] = lan
server.allow[] = lan: must be an address or a network such as 10.0.0.0/8
server: allow = ::1
server.allow = ::1: must be written allow[] = ...
setting: package_length_type = n
setting.package_length_type = n: must be N
setting: package_length_offset = 4
setting.package_length_offset = 4: must be 0
setting: package_body_offset = 0
setting.package_body_offset = 0: must be 4
setting: pid_file = ""
setting.pid_file = "": must be a path
queue: segment_size = 3M
queue.segment_size = 3M: must be a power of two, 1M to 1G bytes
queue: sync = 0
queue.sync = 0: must be always, never, or 1ms to 1m
queue: send_first = 2
queue.send_first = 2: must be on or off
queue: retry_cap = 0
queue.retry_cap = 0: must be 1ms to 1440m
queue: retry_cap = 9ms
queue.retry_cap = 9ms: retry_base must not be longer than retry_cap
queue: retry_base = 2m
queue.retry_base = 2m: retry_base must not be longer than retry_cap
queue: queue_max_bytes = 127M
queue.queue_max_bytes = 127M: queue_max_bytes must be 0 or have room for two of segment_size
pdo: table_prefix = a-b
pdo.table_prefix = a-b: must be at most 40 letters, digits and _
pdo: dsn = mysql:host=db;dbname=mega
pdo.dsn = mysql:host=db: dbname is missing (is the dsn in quotes?); must be "mysql:host=..;port=..;dbname=..;unix_socket=..;charset=.." or "sqlite:PATH"
wechat: token_source = x
wechat.token_source = x: must be stable or classic
wechat: api_hosts = http://a
wechat.api_hosts = http://a: the access token would travel in clear text; must be host names or https URLs; http to loopback only
errcode: 43101 = soon
errcode.43101 = soon: must be ok, token, later, once, rate, openid_rate, permanent or config
errcode: x = ok
errcode.x = ok: the key must be an errcode, such as 43101
log: log_level = warn
log.log_level = warn: must be debug, info, notice, warning, error, critical, alert or emergency
log: log_level
syntax error: this is neither a [section], a comment nor `key = value`
"#;
    let lines: Vec<&str> = transcript.trim().lines().collect();
    for pair in lines.chunks_exact(2) {
        let (section, line) = pair[0].split_once(": ").unwrap();
        let text = format!("[{section}]\n{line}\n");
        assert_eq!(refusal(&text), format!("conf/wechat.ini:5: {}", pair[1]));
    }
}

#[test]
fn a_missing_account_says_where_to_find_it() {
    assert_eq!(
        read(b"[wechat]\napp_id =\n").unwrap_err().to_string(),
        "conf/wechat.ini:2: wechat.app_id is missing: write app_id as shown on \
         mp.weixin.qq.com, 设置与开发 > 基本配置 (Settings > Basic configuration)\n\
         conf/wechat.ini: wechat.app_secret is missing: write app_secret as shown on \
         mp.weixin.qq.com, 设置与开发 > 基本配置 (Settings > Basic configuration)"
    );
}

#[test]
fn all_problems_are_named_in_the_order_of_their_lines() {
    assert_eq!(
        refusal("[log]\nlog_max_files = x\n[server]\ntable_size = x\nallow = ::1\n"),
        "conf/wechat.ini:5: log.log_max_files = x: must be 0 to 100000\n\
         conf/wechat.ini:7: server.table_size = x: must be 1 to 1000000\n\
         conf/wechat.ini:8: server.allow = ::1: must be written allow[] = ..."
    );
}

#[test]
fn no_problem_shows_a_secret() {
    for text in [
        "app_secret[] = hunter2",
        "[pdo]\npassword[] = hunter2",
        "[pdo]\npassword = hunter2\"",
        "[pdo]\ndsn = \"mysql:dbname=a;password=hunter2\"",
        "api_hosts = https://user:hunter2@proxy",
    ] {
        assert!(!refusal(text).contains("hunter2"), "{text}");
    }
}

#[test]
fn lists_keep_their_order_and_replace_the_default() {
    let text = "[server]\nlisten[] = [::1]:2\nlisten[] = localhost:1\n\
                allow[] = 10.0.0.0/8\nallow[] = ::1\n";
    let server = with_account(text).unwrap().server;
    let listen: Vec<String> = server.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["[::1]:2", "127.0.0.1:1"]);
    let allow: Vec<String> = server.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["10.0.0.0/8", "::1/128"]);
}

#[test]
fn errcodes_are_reclassified_and_the_last_word_counts() {
    let text = "[errcode]\n43101 = later\n-1 = rate\n43101 = permanent\n";
    let config = with_account(text).unwrap();
    assert_eq!(config.errcode, [(-1, Class::Rate), (43101, Class::Permanent)]);
    assert_eq!(config.warnings, ["conf/wechat.ini:7: errcode.43101 overrides the one in line 5"]);
}

#[test]
fn a_repeated_key_counts_as_written_last_with_a_warning() {
    let config = with_account("[server]\ntable_size = 1\ntable_size = 2\n").unwrap();
    assert_eq!(config.server.table_size, 2);
    assert_eq!(
        config.warnings,
        ["conf/wechat.ini:6: server.table_size overrides the one in line 5"]
    );
}

#[test]
fn an_unknown_key_is_a_warning_that_names_its_neighbour() {
    assert_eq!(
        warnings("[server]\nTable_Size = 1\n[loog]\nlog_levl = info\n"),
        [
            "conf/wechat.ini:5: server.Table_Size is unknown and ignored; did you mean server.table_size?",
            "conf/wechat.ini:7: loog.log_levl is unknown and ignored; did you mean log.log_level?",
        ]
    );
    let early = [b"table_size = 1\n", ACCOUNT.as_bytes()].concat();
    assert_eq!(
        read(&early).unwrap().warnings,
        ["conf/wechat.ini:1: table_size is unknown and ignored; did you mean server.table_size?"]
    );
}

#[test]
fn what_the_original_had_and_we_do_not_need_is_accepted_in_silence() {
    let text = "token = a\ntoken = b\n[server]\nclass = \"A\\B\"\nprotocol = x\n[setting]\n\
                dispatch_mode = 3\nworker_num = none\nopen_eof_check = maybe\nopen_length_check = 1\n\
                reactor_num = 2\nmax_request = 0\nmax_request = 1\ntask_ipc_mode = 3\nlog_level = 5\n";
    assert_eq!(warnings(text), Vec::<String>::new());
}

/// Xorshift: the same bytes in each run, so that a failure can be repeated.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let alphabet = b"[]=;#:\"'\\\n\r\t ab1-\0\xef\xbb\xbf\xce.,/@";
    for _ in 0..5_000 {
        let length = random(&mut state) % 64;
        let pick = |_| alphabet[random(&mut state) % alphabet.len()];
        let noise: Vec<u8> = (0..length).map(pick).collect();
        let _ = read(&noise);
        let mut bent = ORIGINAL.to_vec();
        for byte in noise {
            let at = random(&mut state) % bent.len();
            bent[at] = byte;
        }
        let _ = read(&bent);
    }
}

#[test]
fn no_value_makes_a_key_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    let alphabet = "0129kmgs.:/,=[]@-x'#\\ 魔\u{2028}";
    let alphabet: Vec<char> = alphabet.chars().collect();
    for _ in 0..300 {
        for key in keys::ALL {
            let length = random(&mut state) % 12;
            let pick = |_| alphabet[random(&mut state) % alphabet.len()];
            let value: String = (0..length).map(pick).collect();
            let prefix = match key.name {
                "dsn" => "mysql:dbname=",
                "api_hosts" => "http://",
                _ => "",
            };
            let line = format!("[{}]\n{} = \"{prefix}{value}\"\n", key.section, key.name);
            let _ = with_account(&line);
        }
    }
}

#[test]
fn a_memory_limit_that_one_frame_exceeds_is_warned_of() {
    let warned = |limit: &str, longest: &str| {
        let sizes = format!("memory_limit = {limit}\npackage_max_length = {longest}");
        warnings(&format!("[setting]\nmax_conn = 10\n{sizes}")).join("\n")
    };
    assert_eq!(warned("16M", "2465792") + &warned("24M", "4M"), "");
    let text = warned("24M", "5M");
    assert!(text.contains("setting.package_max_length = 5242880"), "{text}");
    assert!(text.contains("set memory_limit to 31457280 or more"), "{text}");
}
