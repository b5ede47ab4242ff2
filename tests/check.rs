//! What `check` finds: a table of wrong configurations, each of which must be named by its key, and right
//! ones, of which nothing may be said. It changes nothing.

use crate::support::{Sandbox, Site};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An installation of which nothing may be said: mega runs as somebody, and keeps its secrets.
struct Place {
    folder: tempfile::TempDir,
    ini: PathBuf,
}

const USER: u32 = 65534;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Place {
    fn new(text: &str) -> Place {
        // On a disk, which the usual folder need not be.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let ini = folder.path().join("conf/test.ini");
        std::fs::create_dir(ini.parent().unwrap()).unwrap();
        let user = if root() { "user = nobody\n" } else { "" };
        let text = format!(
            "[setting]\n{user}[server]\nlisten[] = 127.0.0.1:0\n[wechat]\napp_id = wx0123456789abcdef\n\
             app_secret = 0123456789abcdef0123456789abcdef\n{}\n",
            text.replace("FOLDER", folder.path().to_str().unwrap())
        );
        std::fs::write(&ini, text).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&ini, PermissionsExt::from_mode(0o640)).unwrap();
        if root() {
            chown(&ini, None, Some(USER)).unwrap();
        }
        Place { folder, ini }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        if root() {
            chown(path.parent().unwrap(), Some(USER), Some(USER)).unwrap();
            chown(&path, Some(USER), Some(USER)).unwrap();
        }
    }

    fn check(&self, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mega"));
        command.arg("-c").arg(&self.ini).arg("check").args(options).env("LC_ALL", "C");
        command.output().unwrap()
    }

    /// Everything that is there, with its size.
    fn content(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.arg(self.folder.path()).args(["-printf", "%p %s %u %m\n"]);
        let found = find.output().unwrap();
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is wrong, and what `check` must say of it: its level, its key, and some words.
struct Case {
    text: &'static str,
    before: fn(&Place),
    level: &'static str,
    says: [&'static str; 2],
}

fn nothing(_: &Place) {}

fn case(level: &'static str, text: &'static str, says: [&'static str; 2]) -> Case {
    Case { text, before: nothing, level, says }
}

fn with(before: fn(&Place), case: Case) -> Case {
    Case { before, ..case }
}

/// Refused when the file is read: those are named in the plain message of every command.
const REFUSED: &str = "";

fn cases() -> Vec<Case> {
    vec![
        // The file itself.
        case(REFUSED, "[setting]\ntask_worker_num = 0", ["setting.task_worker_num", "1 to 1024"]),
        case(REFUSED, "[queue]\nretry_base = 5m", ["queue.retry_base", "retry_cap"]),
        case(REFUSED, "[queue]\nqueue_max_bytes = 1M", ["queue.queue_max_bytes", "two of"]),
        case(
            REFUSED,
            "[wechat]\napi_hosts = http://example.com",
            ["wechat.api_hosts", "clear text"],
        ),
        case(REFUSED, "[wechat]\napi_hosts = https://a:b:c", ["wechat.api_hosts", "must be"]),
        case(REFUSED, "[wechat]\nproxy = socks5://10.0.0.1:1080", ["wechat.proxy", "must be"]),
        case(REFUSED, "[errcode]\nforty = later", ["errcode.forty", "must be an errcode"]),
        case(REFUSED, "[errcode]\n43101 = never", ["errcode.43101", "must be"]),
        case(REFUSED, "[errcode]\n0 = permanent", ["errcode.0", "success"]),
        case(REFUSED, "[pdo]\ndsn = mysql:host=a;dbname=b", ["pdo.dsn", "in quotes"]),
        case(
            "warning",
            "[setting]\nmax_con = 5",
            ["setting.max_con ", "did you mean setting.max_conn"],
        ),
        case("warning", "[queue]\nsync = always\nsync = never", ["queue.sync", "overrides"]),
        // What does not fit together.
        case(
            "warning",
            "[setting]\nmemory_limit = 16M\nmax_conn = 9000",
            ["setting.memory_limit", "max_conn = 9000"],
        ),
        case(
            "warning",
            "[setting]\nmemory_limit = 16M\nmax_conn = 9\npackage_max_length = 8M",
            ["setting.package_max_length", "memory_limit"],
        ),
        case(
            "warning",
            "[queue]\nsegment_size = 1M\nqueue_max_bytes = 3M",
            ["queue.queue_max_bytes", "package_max_length"],
        ),
        case(
            "warning",
            "[wechat]\nconnect_timeout = 60s",
            ["wechat.connect_timeout", "wechat.timeout"],
        ),
        case("warning", "[setting]\nstop_timeout = 1s", ["setting.stop_timeout", "wechat.timeout"]),
        case("warning", "[wechat]\nsend_retry_for = 10m", ["wechat.send_retry_for", "gives up"]),
        case(
            "warning",
            "[queue]\nqueue_max_bytes = 1024G",
            ["queue.queue_max_bytes", "MiB are free"],
        ),
        case("warning", "[wechat]\napp_id = wx10c4", ["wechat.app_id", "16 hexadecimal"]),
        case("warning", "[wechat]\napp_secret = abc", ["wechat.app_secret", "32 hexadecimal"]),
        case(
            "wrong",
            "[server]\nledger_file = run/test.db",
            ["server.ledger_file, pdo.dsn", "both are"],
        ),
        case(
            "wrong",
            "[log]\nlog_file = l/x.log\nmessage_log = l/x.log",
            ["log.log_file, log.message_log", "both are"],
        ),
        case(
            "wrong",
            "[server]\nlisten[] = 127.0.0.1:19501\n[metrics]\nlisten = 127.0.0.1:19501",
            ["metrics.listen", "cannot be bound beside"],
        ),
        case(
            "wrong",
            "[server]\nlisten[] = 127.0.0.1:19501\nlisten[] = 0.0.0.0:19501\nallow[] = 127.0.0.1",
            ["server.listen[]", "cannot be bound beside"],
        ),
        case("warning", "[server]\nlisten[] = 0.0.0.0:0", ["server.listen[]", "may send messages"]),
        // Who it runs as.
        case("wrong", "[setting]\nuser = no-such-user", ["setting.user", "no-such-user"]),
        case("wrong", "[setting]\ngroup = no-such-group", ["setting.group", "no-such-group"]),
        case(
            "wrong",
            "[setting]\nadmin_group = no-such-group",
            ["setting.admin_group", "no-such-group"],
        ),
        case(
            "wrong",
            "[setting]\nmonitor_group = no-such-group",
            ["setting.monitor_group", "no-such-group"],
        ),
        with(
            |place| open(&place.ini, 0o644),
            case("warning", "", ["wechat.app_secret", "can read the secrets"]),
        ),
        with(|place| open(&place.ini, 0o646), case("warning", "", ["configuration", "can change"])),
        // Sockets.
        case(
            "wrong",
            "[server]\nlisten[] = 192.0.2.1:19501\nallow[] = 192.0.2.0/24",
            ["server.listen[]", "no such address"],
        ),
        case("wrong", "[metrics]\nlisten = 192.0.2.1:19502", ["metrics.listen", "no such address"]),
        // Folders.
        case(
            "wrong",
            "[server]\nqueue_file_path = /proc/mega",
            ["server.queue_file_path", "/proc/mega"],
        ),
        case(
            "wrong",
            "[log]\nlog_file = /dev/null/x/mega.log",
            ["log.log_file", "is not a folder"],
        ),
        case(
            "wrong",
            "[server]\nledger_file = /proc/x/ledger.db",
            ["server.ledger_file", "/proc/x"],
        ),
        with(
            |place| place.write("run/test.queue", ""),
            case("wrong", "", ["server.queue_file_path", "run/test.queue"]),
        ),
        with(
            |place| closed(&place.path("shut")),
            case("wrong", "[setting]\npid_file = shut/a/test.pid", ["setting.pid_file", "shut"]),
        ),
        with(
            |place| others(place, "run/test.ledger.db"),
            case("wrong", "", ["server.ledger_file", "cannot"]),
        ),
        with(
            |place| {
                place.write("run/other", "");
                symlink(place.path("run/other"), place.path("run/test.pid")).unwrap();
            },
            case("wrong", "", ["setting.pid_file", "symbolic link"]),
        ),
        case(
            "warning",
            "[setting]\npid_file = /tmp/mega-check-test.pid",
            ["setting.pid_file", "everybody may write to /tmp"],
        ),
        case(
            "warning",
            "[server]\nqueue_file_path = /dev/shm/mega-check-test",
            ["server.queue_file_path", "in memory (tmpfs)"],
        ),
        // Files.
        case("wrong", "[wechat]\nca_file = none.pem", ["wechat.ca_file", "cannot be read"]),
        with(
            |place| place.write("ca.pem", "no certificate"),
            case("wrong", "[wechat]\nca_file = ca.pem", ["wechat.ca_file", "holds no certificate"]),
        ),
        with(
            |place| {
                place.write(
                    "ca.pem",
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                )
            },
            case("wrong", "[wechat]\nca_file = ca.pem", ["wechat.ca_file", "is not one"]),
        ),
        // Queue and ledger.
        with(newer_segment, case("wrong", "", ["server.queue_file_path", "version"])),
        with(
            |place| place.write("run/test.ledger.db", "no database".repeat(100)),
            case("warning", "", ["server.ledger_file", "cannot be read as a database"]),
        ),
        with(
            |place| ledger(place, "PRAGMA user_version = 99"),
            case("warning", "", ["server.ledger_file", "newer mega"]),
        ),
        with(
            |place| ledger(place, "CREATE TABLE other (x)"),
            case("warning", "", ["server.ledger_file", "other tables"]),
        ),
        // Templates.
        with(
            |place| place.write("run/test.db", "no database".repeat(100)),
            case("wrong", "", ["pdo.dsn", "not a database"]),
        ),
        with(
            |place| templates(place, "CREATE TABLE mega_wechat_template (tmpl_key TEXT)"),
            case("wrong", "", ["pdo.dsn", "no such column"]),
        ),
        with(
            |place| templates(place, FULL),
            case("warning", "[server]\ntable_size = 1", ["server.table_size", "left out"]),
        ),
        case(
            "wrong",
            "[pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=m\"\npassword = hush",
            ["pdo.dsn", "cannot reach"],
        ),
    ]
}

const FULL: &str = "CREATE TABLE mega_wechat_template (tmpl_key TEXT, title TEXT, template TEXT, \
    created_at INTEGER, updated_at INTEGER); \
    INSERT INTO mega_wechat_template VALUES ('a', '', '{}', 0, 0), ('b', '', '{}', 0, 0)";

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A folder in which the daemon's user may do nothing, whoever that is.
fn closed(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    if root() {
        chown(folder, Some(1), None).unwrap();
    }
    open(folder, 0o500);
}

/// A file that the daemon's user may not write to.
fn others(place: &Place, name: &str) {
    place.write(name, "");
    if root() {
        chown(place.path(name), Some(1), None).unwrap();
    }
    open(&place.path(name), 0o400);
}

/// The header of a segment of a queue's version 99, see `queue::segment`.
fn newer_segment(place: &Place) {
    let mut header = vec![0; 4096];
    header[..8].copy_from_slice(b"MEGAQSEG");
    header[8] = 99;
    (header[16], header[24]) = (1, 7);
    let checksum = crc32fast::hash(&header[..48]);
    header[48..52].copy_from_slice(&checksum.to_le_bytes());
    place.write("run/test.queue/00000000000000000001.seg", header);
}

fn ledger(place: &Place, sql: &str) {
    database(place, "run/test.ledger.db", sql);
}

fn templates(place: &Place, sql: &str) {
    database(place, "run/test.db", sql);
}

fn database(place: &Place, name: &str, sql: &str) {
    place.write(name, "");
    rusqlite::Connection::open(place.path(name)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn every_wrong_configuration_is_found_and_its_key_named() {
    let (mut missed, mut table) = (Vec::new(), String::new());
    for Case { text, before, level, says } in cases() {
        let place = Place::new(text);
        before(&place);
        let content = place.content();
        let output = place.check(&[]);
        let said = said(&output);
        let line = said.lines().find(|line| {
            line.starts_with(&format!("mega: {level}"))
                && says.iter().all(|word| line.contains(word))
        });
        let refused = level != "warning";
        let fine = line.is_some() && output.status.success() != refused && !said.contains("hush");
        table += &format!("{says:?}: {}\n", line.unwrap_or("MISSED"));
        if !fine {
            missed.push(format!("{text:?} {says:?}: {}\n{said}", output.status));
        }
        assert_eq!(place.content(), content, "{text:?} changed something");
        if level == "warning" {
            let strict = place.check(&["--strict"]);
            assert_eq!(strict.status.code(), Some(1), "{text:?} with --strict");
        }
    }
    println!("{table}");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn of_a_right_configuration_nothing_is_said() {
    let place = Place::new("");
    let output = place.check(&["--strict"]);
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("no problem found"), "{shown}");
    assert!(!shown.contains("0123456789abcdef0123456789abcdef"), "{shown}");
    // The manual's own file, and the original's, where there is no database.
    let root = env!("CARGO_MANIFEST_DIR");
    for file in ["conf/wechat.ini", "tests/data/wechat-original.ini"] {
        let place = Place::new("");
        let text = std::fs::read_to_string(format!("{root}/{file}")).unwrap();
        let user = if self::root() { "[setting]\nuser = nobody\n" } else { "" };
        std::fs::write(&place.ini, format!("{text}\n{user}")).unwrap();
        let output = place.check(&["--offline", "--strict"]);
        assert!(output.status.success() && said(&output).is_empty(), "{file}: {}", said(&output));
    }
    let demo = Command::new(env!("CARGO_BIN_EXE_mega"))
        .args(["--root", place.folder.path().to_str().unwrap(), "demo", "check"])
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", said(&demo));
}

#[test]
fn the_manuals_file_with_a_database_of_its_own_passes() {
    let server = std::env::var("MEGA_TEST_MYSQL").ok().filter(|dsn| dsn != "skip");
    let Some(dsn) = server else {
        return println!("not run: needs scripts/with-mariadb");
    };
    let parts = dsn.trim_start_matches("mysql:");
    let part = |name: &str| parts.split(';').find_map(|part| part.strip_prefix(name)).unwrap();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let options = mysql::OptsBuilder::new()
        .ip_or_hostname(Some(part("host=")))
        .tcp_port(part("port=").parse().unwrap())
        .db_name(Some("mega"))
        .user(Some(variable("MEGA_TEST_MYSQL_USER")))
        .pass(Some(variable("MEGA_TEST_MYSQL_PASSWORD")));
    let mut connection = mysql::Conn::new(options).unwrap();
    let mut execute =
        |sql: &str| mysql::prelude::Queryable::query_drop(&mut connection, sql).unwrap();
    for (prefix, charset) in [("check_", "utf8mb4"), ("narrow_", "utf8mb3")] {
        execute(&format!("DROP TABLE IF EXISTS {prefix}wechat_template"));
        execute(&format!(
            "CREATE TABLE {prefix}wechat_template (tmpl_key char(32) NOT NULL, title varchar(100), \
             template text, created_at int, updated_at int, PRIMARY KEY (tmpl_key)) DEFAULT CHARSET = {charset}"
        ));
    }
    execute("DROP TABLE IF EXISTS bare_wechat_template");
    execute("CREATE TABLE bare_wechat_template (tmpl_key char(32))");
    let check = |dsn: &str, password: &str, prefix: &str| {
        let place = Place::new(&format!(
            "[pdo]\ndsn = \"{dsn}\"\nusername = {}\npassword = {password}\ntable_prefix = {prefix}",
            variable("MEGA_TEST_MYSQL_USER")
        ));
        let output = place.check(&[]);
        (output.status.code(), said(&output))
    };
    let password = variable("MEGA_TEST_MYSQL_PASSWORD");
    assert_eq!(check(&dsn, &password, "check_"), (Some(0), String::new()));
    let other = dsn.replace("dbname=mega", "dbname=elsewhere");
    for (dsn, password, prefix, code, word) in [
        (&dsn, password.as_str(), "narrow_", 0, "not utf8mb4: tmpl_key utf8"),
        (&dsn, password.as_str(), "bare_", 1, "Unknown column"),
        (&dsn, password.as_str(), "none_", 1, "no template table: no none_wechat_template"),
        (&dsn, "hush-hush", "check_", 1, "denies access"),
        (&other, password.as_str(), "check_", 1, "denies access"),
    ] {
        let (status, said) = check(dsn, password, prefix);
        assert_eq!(status, Some(code), "{prefix}: {said}");
        assert!(said.contains("pdo.dsn") && said.contains(word), "{prefix}: {said}");
        assert!(!said.contains("hush-hush"), "{said}");
    }
}

#[test]
fn a_port_of_another_program_is_named_with_it_and_the_running_daemons_own_is_fine() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new(&format!("[server]\nlisten[] = {address}"));
    let output = place.check(&[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1));
    let own = format!("pid {}", std::process::id());
    assert!(said.contains("server.listen[]") && said.contains("in use by"), "{said}");
    assert!(!root() || said.contains(&own), "{said}");
    assert!(taken.set_nonblocking(true).is_ok() && taken.accept().is_err(), "no client came");
    drop(taken);

    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, &format!("[server]\nlisten[] = {address}"));
    site.start();
    let output = site.run(&["check"]);
    let told = self::said(&output);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("server.listen[]") && !told.contains("holds the queue"), "{told}");
    // Another configuration meets the same queue and the same port.
    let ini = site.folder.path().join("conf/other.ini");
    let text = std::fs::read_to_string(site.folder.path().join("conf/test.ini")).unwrap();
    std::fs::write(&ini, format!("{text}\n[server]\nqueue_file_path = run/test.queue")).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_mega")).arg("-c").arg(&ini).arg("check").output().unwrap();
    let told = self::said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("{address} is in use by mega, pid {}", site.pid())), "{told}");
    assert!(told.contains("another process holds the queue"), "{told}");
    site.ok(&["push", "o", crate::support::KEY, "first=1"]);
}

#[test]
fn a_port_below_1024_needs_root_and_a_hidden_database_does_not_stop_the_rest() {
    // As somebody who is not root, and cannot become anybody else.
    if !root() {
        return println!("not run: needs root");
    }
    let place = Place::new("[server]\nlisten[] = 127.0.0.1:1023");
    let output = place.check(&[]);
    assert!(output.status.success(), "root may: {}", said(&output));
    // What is opened after root has become the user is another matter.
    let mut text = std::fs::read_to_string(&place.ini).unwrap();
    text.push_str("\n[metrics]\nlisten = 127.0.0.1:1022\n");
    std::fs::write(&place.ini, &text).unwrap();
    let output = place.check(&[]);
    let told = said(&output);
    assert!(!output.status.success() && told.contains("metrics.listen: 127.0.0.1:1022"), "{told}");
    let text = text.replace("user = nobody\n", "");
    std::fs::write(&place.ini, text).unwrap();
    chown(place.folder.path(), Some(USER), None).unwrap();
    let mega = env!("CARGO_BIN_EXE_mega");
    let copy = place.path("mega");
    std::fs::copy(mega, &copy).unwrap();
    open(&copy, 0o755);
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy)
        .arg("-c")
        .arg(&place.ini)
        .arg("check")
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for key in ["server.listen[]: 127.0.0.1:1023", "metrics.listen: 127.0.0.1:1022"] {
        assert!(said.contains(key) && said.contains("need root"), "{said}");
    }
}

#[test]
fn offline_looks_at_the_file_alone_and_speaks_the_readers_language() {
    let place = Place::new(
        "[setting]\nadmin_group = no-such-group\nstop_timeout = 1s\n[wechat]\nca_file = none.pem\n\
         [pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=m\"",
    );
    let offline = place.check(&["--offline"]);
    let told = said(&offline);
    assert!(offline.status.success() && told.lines().count() == 1, "{told}");
    assert!(told.starts_with("mega: warning: setting.stop_timeout"), "{told}");
    let chinese = Command::new(env!("CARGO_BIN_EXE_mega"))
        .arg("-c")
        .arg(&place.ini)
        .arg("check")
        .env("LC_ALL", "zh_CN.UTF-8")
        .output()
        .unwrap();
    let told = said(&chinese);
    assert!(told.contains("mega: 警告：setting.stop_timeout"), "{told}");
    assert!(told.contains("mega: 错误：setting.admin_group"), "{told}");
}
