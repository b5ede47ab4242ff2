//! What root does for a daemon that runs as somebody else: an enemy who is that user plants links,
//! pipes and false pids, and nothing that belongs to root is touched. Needs root; says so elsewhere.

use crate::support::{Sandbox, Site, wait_for};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The service user, who must be able to do nothing else.
const USER: &str = "nobody";
const UID: u32 = 65534;

/// The helper below is told by this variable what to listen on.
const LISTEN_ON: &str = "MEGA_TEST_LISTEN_ON";

fn not_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: needs root");
    }
    !root
}

/// An installation that the service user can reach, its run/ and logs/ the service user's own.
fn site(sandbox: &Sandbox, more: &str) -> Site {
    let site = Site::new(sandbox, more);
    let open = |mode| PermissionsExt::from_mode(mode);
    std::fs::set_permissions(site.folder.path(), open(0o755)).unwrap();
    for folder in ["run", "logs"] {
        let folder = site.folder.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        give(&folder);
        std::fs::read_dir(&folder).unwrap().flatten().for_each(|entry| give(&entry.path()));
    }
    site
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(UID), Some(UID)).unwrap();
}

fn run_as(site: &Site, user: &str) {
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text + &format!("\n[setting]\nuser = {user}\n")).unwrap();
}

/// Runs a command that must end by itself, whatever an enemy does.
fn within(limit: Duration, mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Ends with the test, whatever becomes of it.
struct Other(Child);

impl Other {
    fn spawn(command: &mut Command) -> Other {
        Other(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bystander() -> Other {
    Other::spawn(Command::new("sleep").arg("1000"))
}

/// What can stand in the place of a file.
#[derive(Debug, Clone, Copy)]
enum Planted {
    Link,
    SecondName,
    Pipe,
    Folder,
}

impl Planted {
    fn plant(self, path: &Path, victim: &Path) {
        let _ = std::fs::remove_file(path);
        match self {
            Planted::Link => symlink(victim, path).unwrap(),
            Planted::SecondName => return std::fs::hard_link(victim, path).unwrap(),
            Planted::Pipe => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Planted::Folder => std::fs::create_dir(path).unwrap(),
        }
        give(path);
    }
}

#[test]
fn nothing_planted_in_the_place_of_a_file_reaches_what_is_roots() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let today = chrono::Local::now().format("logs/test-%Y-%m-%d.log").to_string();
    let places =
        ["run/test.pid", "run/test.sock", "run/test.facts", "run/err.log", &today, "run/test.db"];
    for place in places {
        for planted in [Planted::Link, Planted::SecondName, Planted::Pipe, Planted::Folder] {
            for user in [USER, ""] {
                let site = site(&sandbox, "[setting]\nlog_file = run/err.log");
                run_as(&site, user);
                let victim = site.folder.path().join("victim");
                std::fs::write(&victim, "precious").unwrap();
                std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
                planted.plant(&site.folder.path().join(place), &victim);
                for words in ["status", "start", "status", "reload", "stop"] {
                    within(Duration::from_secs(20), site.command(&[words]));
                }
                let what = format!("{planted:?} in place of {place}, user = {user}");
                assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "{what}");
                let held = victim.metadata().unwrap();
                assert_eq!((held.uid(), held.mode() & 0o777), (0, 0o600), "{what}");
            }
        }
    }
}

#[test]
fn no_process_is_signalled_because_a_pidfile_names_it() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = site(&sandbox, "");
    run_as(&site, USER);
    let mut root = bystander();
    let pidfile = site.folder.path().join("run/test.pid");
    std::fs::write(&pidfile, format!("{}\n", root.0.id())).unwrap();
    give(&pidfile);
    let _locked = Other::spawn(
        Command::new("flock").arg("-F").arg(&pidfile).args(["sleep", "1000"]).uid(UID).gid(UID),
    );
    wait_for("the enemy to hold the lock", || {
        !Command::new("flock").arg("-n").arg(&pidfile).arg("true").status().unwrap().success()
    });
    for words in [&["stop", "--now"][..], &["reload"], &["restart"], &["status"]] {
        let output = within(Duration::from_secs(20), site.command(words));
        assert!(!output.status.success(), "{words:?}: {}", said(&output));
        assert!(root.lives(), "{words:?} ended a process of root");
    }
    assert_eq!(site.run(&["status"]).status.code(), Some(4));
}

/// No test by itself: run by the tests below, as the service user.
#[test]
fn helper_that_listens_and_never_answers() {
    let Some(path) = std::env::var_os(LISTEN_ON) else { return };
    let _listener = UnixListener::bind(path).unwrap();
    std::thread::sleep(Duration::from_secs(1000));
}

fn listens_as(uid: u32, folder: &Path, socket: &Path) -> Other {
    // The service user can read only what stands here.
    let program = folder.join("helper");
    // By a process of its own, so that no child of another test holds the file open for writing.
    let copy = || Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status();
    assert!(program.exists() || copy().unwrap().success());
    let mut command = Command::new(program);
    command.args(["--exact", "root::helper_that_listens_and_never_answers"]);
    let other = Other::spawn(command.env(LISTEN_ON, socket).uid(uid).gid(uid));
    wait_for("the helper to listen", || socket.exists());
    other
}

#[test]
fn a_false_socket_is_not_believed_and_holds_nobody_up() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = site(&sandbox, "");
    run_as(&site, USER);
    let socket = site.folder.path().join("run/test.sock");

    // One of root's, reached by a link of the service user.
    let others = site.folder.path().join("others.sock");
    let mut root = listens_as(0, site.folder.path(), &others);
    symlink(&others, &socket).unwrap();
    for words in [&["stop", "--now"][..], &["status"], &["push", "o", "k"]] {
        let output = within(Duration::from_secs(20), site.command(words));
        assert!(said(&output).contains("symbolic link"), "{words:?}: {}", said(&output));
        assert!(root.lives(), "{words:?} ended a process of root");
    }
    std::fs::remove_file(&socket).unwrap();
    std::fs::hard_link(&others, &socket).unwrap();
    let output = within(Duration::from_secs(20), site.command(&["stop", "--now"]));
    assert!(said(&output).contains("more than one name"), "{}", said(&output));
    assert!(root.lives());

    // The same, moved there.
    std::fs::remove_file(&socket).unwrap();
    std::fs::remove_file(&others).unwrap();
    drop(root);
    let mut root = listens_as(0, site.folder.path(), &others);
    std::fs::rename(&others, &socket).unwrap();
    let output = within(Duration::from_secs(20), site.command(&["stop", "--now"]));
    assert!(said(&output).contains("it is not nobody's"), "{}", said(&output));
    assert!(root.lives());

    // A stranger's.
    std::fs::remove_file(&socket).unwrap();
    std::fs::set_permissions(socket.parent().unwrap(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut stranger = listens_as(1, site.folder.path(), &socket);
    let output = within(Duration::from_secs(20), site.command(&["stop", "--now"]));
    assert!(said(&output).contains("it is not nobody's"), "{}", said(&output));
    assert!(stranger.lives());
    drop(stranger);

    // The service user's own, which never answers.
    std::fs::remove_file(&socket).unwrap();
    let _silent = listens_as(UID, site.folder.path(), &socket);
    let output = within(Duration::from_secs(20), site.command(&["status"]));
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("does not answer"), "{}", said(&output));
}

#[test]
fn what_an_earlier_run_of_root_left_is_put_right() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[wechat]\ndaily_limit = 3");
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    site.start();
    site.push_many(2);
    wait_for("two of the day's three", || sandbox.delivered() == 2);
    site.ok(&["stop"]);
    run_as(&site, USER);
    for ledger in ["run/test.ledger.db", "run/test.ledger.db-wal", "run/test.ledger.db-shm"] {
        std::fs::write(site.folder.path().join(ledger), "").unwrap();
    }
    site.start();
    site.push_many(3);
    wait_for("the day's limit", || site.status()["suspended"].is_string());
    wait_for("the third, and no more: the day's count goes on", || sandbox.delivered() >= 3);
    assert_eq!(sandbox.delivered(), 3);
    let mut folders = vec![site.folder.path().join("run"), site.folder.path().join("logs")];
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().uid(), UID, "{folder:?}");
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().uid(), UID, "{:?}", entry.path());
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    site.ok(&["template", "list"]);
    site.ok(&["queue", "check"]);
    site.ok(&["restart"]);
    site.ok(&["stop"]);
}

#[test]
fn what_cannot_be_put_right_is_named_with_the_command_that_does() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    for file in ["run/test.queue/sent-today", "run/test.db", "run/test.pid"] {
        let site = site(&sandbox, "[wechat]\ndaily_limit = 3");
        let queue = site.folder.path().join("run/test.queue");
        std::fs::create_dir_all(&queue).unwrap();
        give(&queue);
        run_as(&site, USER);
        // In a folder of the service user, root gives nothing away.
        let path = site.folder.path().join(file);
        std::fs::write(&path, "").unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let output = site.run(&["start"]);
        assert_eq!(output.status.code(), Some(1), "{file}: {}", said(&output));
        let command = format!("chown -h nobody:nogroup {}", path.display());
        assert!(said(&output).contains(&command), "{file}: {}", said(&output));
        assert_eq!(path.metadata().unwrap().uid(), 0, "{file}");
    }
}

#[test]
fn a_folder_with_what_is_others_is_given_to_nobody() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, &format!("[setting]\nuser = {USER}"));
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let logs = site.folder.path().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    chown(&logs, Some(0), Some(0)).unwrap();
    std::fs::write(logs.join("others.log"), "").unwrap();
    let output = site.run(&["start"]);
    assert_eq!(output.status.code(), Some(1));
    let command = format!("chown -h nobody:nogroup {}", logs.display());
    assert!(said(&output).contains(&command), "{}", said(&output));
    assert_eq!(logs.metadata().unwrap().uid(), 0);
}

#[test]
fn a_group_without_a_user_takes_effect() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "[setting]\ngroup = daemon");
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("Gid:")).unwrap();
    assert!(line.split_whitespace().skip(1).all(|gid| gid == "1"), "{line}");
}

#[test]
fn a_daemon_that_runs_as_root_is_stopped_by_root_after_user_was_set() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    run_as(&site, USER);
    site.ok(&["restart"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    assert!(status.contains(&format!("Uid:\t{UID}\t{UID}")), "{status}");
}

#[test]
fn commands_of_root_open_the_database_as_the_service_user() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = site(&sandbox, "");
    run_as(&site, USER);
    let database: PathBuf = site.folder.path().join("run/test.db");
    std::fs::remove_file(&database).unwrap();
    let victim = site.folder.path().join("victim");
    std::fs::write(&victim, "").unwrap();
    symlink(&victim, &database).unwrap();
    assert!(!site.run(&["template", "list"]).status.success());
    assert_eq!(victim.metadata().unwrap().len(), 0);
    std::fs::remove_file(&database).unwrap();
    site.put_template("k", crate::support::TEMPLATE);
    assert_eq!(database.metadata().unwrap().uid(), UID);
}

#[test]
fn without_its_socket_a_daemon_is_found_by_the_lock_it_holds() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    std::fs::remove_file(site.folder.path().join("run/test.sock")).unwrap();
    assert_eq!(site.run(&["status"]).status.code(), Some(0));
    site.ok(&["stop"]);
    assert_eq!(site.run(&["status"]).status.code(), Some(3));
}

#[test]
fn what_the_caller_had_open_is_not_open_in_the_daemon() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "");
    let held = site.folder.path().join("held");
    std::fs::write(&held, "").unwrap();
    let start = site.command(&["start"]);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("exec 9<held; exec \"$@\"").arg("sh").arg(start.get_program());
    shell.args(start.get_args()).current_dir(site.folder.path());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for entry in std::fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().flatten() {
        let file = std::fs::read_link(entry.path()).unwrap_or_default();
        assert_ne!(file, held.canonicalize().unwrap());
    }
}

#[test]
fn a_dangerous_configuration_is_warned_of_in_check_and_log() {
    let sandbox = Sandbox::start();
    let more = "[server]\nlisten[] = 0.0.0.0:0\n[pdo]\npassword = hush-hush-hush";
    let site = Site::new(&sandbox, more);
    let ini = site.folder.path().join("conf/test.ini");
    std::fs::set_permissions(&ini, PermissionsExt::from_mode(0o644)).unwrap();
    let check = said(&site.run(&["check"]));
    site.ok(&["start"]);
    let log = site.log();
    for warning in ["chmod 640", "server.allow[]", "setting.user"] {
        if warning == "setting.user" && not_root() {
            continue;
        }
        let has = |text: &str| text.lines().any(|l| l.contains("arning") && l.contains(warning));
        assert!(has(&check), "{warning}: {check}");
        assert!(log.lines().any(|l| l.contains("WARNING") && l.contains(warning)), "{log}");
    }
    site.ok(&["stop"]);
    std::fs::set_permissions(&ini, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(!said(&site.run(&["check"])).contains("chmod"));
    sandbox.faults(json!({}));
}

/// Facts that the service user wrote itself, with what is said of them.
fn plant_facts(site: &Site, change: impl FnOnce(&mut serde_json::Value)) {
    let path = |name: &str| site.folder.path().join(name).to_str().unwrap().to_owned();
    let mut facts = json!({
        "version": "0", "name": "test", "pid": 1, "user": UID, "config": path("conf/test.ini"),
        "root": path(""), "pid_file": path("run/test.pid"), "socket": path("run/test.sock"),
        "stop_timeout_seconds": u64::MAX, "package_max_length": 1, "queue": path("run/test.queue"),
        "ledger": path("run/test.ledger.db"), "log": path("logs/test.log"),
    });
    change(&mut facts);
    let file = site.folder.path().join("run/test.facts");
    std::fs::write(&file, facts.to_string()).unwrap();
    give(&file);
}

#[test]
fn facts_that_were_planted_lead_root_to_nobody_but_the_planter() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = site(&sandbox, "");
    run_as(&site, USER);
    std::fs::write(site.folder.path().join("conf/test.ini"), "broken").unwrap();
    let mut root = bystander();
    let socket = site.folder.path().join("root.sock");
    let mut listener = listens_as(0, site.folder.path(), &socket);
    let locked = site.folder.path().join("locked");
    std::fs::write(&locked, format!("{}\n", root.0.id())).unwrap();
    let holder = Other::spawn(Command::new("flock").arg("-F").arg(&locked).args(["sleep", "1000"]));
    std::fs::write(&locked, format!("{}\n", holder.0.id())).unwrap();
    let facts = site.folder.path().join("run/test.facts");
    for case in 0..6 {
        plant_facts(&site, |facts| match case {
            0 => facts["pid"] = json!(root.0.id()),
            1 => facts["socket"] = json!(socket.to_str()),
            2 => facts["pid_file"] = json!(locked.to_str()),
            3 => facts["pid_file"] = json!("/etc/passwd"),
            4 => {
                facts["user"] = json!(0);
                facts["socket"] = json!(socket.to_str());
            }
            _ => {}
        });
        if case == 5 {
            // Of root's, moved there.
            chown(&facts, Some(0), Some(0)).unwrap();
        }
        let _held = Other::spawn(
            Command::new("flock").arg("-F").arg(&facts).args(["sleep", "1000"]).uid(UID).gid(UID),
        );
        for words in [&["stop", "--now"][..], &["stop"], &["status"], &["restart"], &["reload"]] {
            let output = within(Duration::from_secs(30), site.command(words));
            assert!(root.lives() && listener.lives(), "{case}, {words:?}: {}", said(&output));
        }
        assert!(Path::new("/etc/passwd").exists() && locked.exists() && socket.exists(), "{case}");
    }
}

#[test]
fn a_strangers_facts_hide_no_daemon() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let site = site(&sandbox, "");
    run_as(&site, USER);
    site.ok(&["start"]);
    let run = site.folder.path().join("run");
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o777)).unwrap();
    let nowhere = run.join("nowhere").to_str().unwrap().to_owned();
    let facts = run.join("test.facts");
    for uid in [1, UID] {
        std::fs::remove_file(&facts).unwrap();
        plant_facts(&site, |facts| {
            facts["user"] = json!(uid);
            (facts["socket"], facts["pid_file"]) = (json!(nowhere), json!(nowhere));
        });
        chown(&facts, Some(uid), None).unwrap();
        let output = site.run(&["status"]);
        assert!(said(&output).contains("is running"), "{}", said(&output));
        assert_eq!(said(&output).contains("is not believed"), uid == 1, "{}", said(&output));
    }
    wait_for("the facts to come back", || {
        facts.metadata().is_ok_and(|file| file.uid() == UID)
            && std::fs::read_to_string(&facts).is_ok_and(|text| !text.contains("nowhere"))
    });
    site.ok(&["stop"]);
}

#[test]
fn another_user_is_told_completely_what_to_run_and_nothing_is_stopped() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let mut site = site(&sandbox, "");
    run_as(&site, USER);
    site.start();
    site.push_many(2);
    let pid = site.pid();
    let ini = site.folder.path().join("conf/test.ini");
    let text = std::fs::read_to_string(&ini).unwrap();
    std::fs::write(&ini, text.replace("user = nobody", "user = daemon")).unwrap();
    let output = site.run(&["restart"]);
    let why = said(&output);
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.contains("goes on") && why.contains("mega test stop"), "{why}");
    assert_eq!(site.pid(), pid, "{why}");
    site.ok(&["stop"]);
    let commands = why.split("mega's, run: ").nth(1).unwrap().lines().next().unwrap();
    // Some of it went with the daemon: whether this was enough is seen by the start.
    Command::new("sh").arg("-c").arg(commands).status().unwrap();
    site.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    assert!(status.contains("Uid:\t1\t1"), "{status}");
    wait_for("both messages", || sandbox.delivered() == 2);
    site.ok(&["restart"]);
    site.ok(&["stop"]);
}

#[test]
fn what_a_killed_daemon_of_the_service_user_left_is_removed_as_that_user() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    for broken in [false, true] {
        let mut site = site(&sandbox, "");
        run_as(&site, USER);
        site.start();
        site.kill();
        if broken {
            std::fs::write(site.folder.path().join("conf/test.ini"), "broken").unwrap();
        }
        let text = site.ok(&["stop"]);
        for name in ["run/test.pid", "run/test.sock", "run/test.facts"] {
            assert!(text.contains(name), "{name}: {text}");
            assert!(!site.folder.path().join(name).exists());
        }
        assert_eq!(site.run(&["status"]).status.code(), Some(3));
    }
}

#[test]
fn a_folder_for_the_facts_that_cannot_be_written_is_a_warning() {
    if not_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let mut site = Site::new(
        &sandbox,
        "[server]\nqueue_file_path = own/queue\nledger_file = own/ledger.db\n[pdo]\n\
         dsn = sqlite:own/test.db\n[setting]\npid_file = own/test.pid",
    );
    let path = |name: &str| site.folder.path().join(name);
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(path("run")).unwrap();
    std::fs::write(path("run/others"), "").unwrap();
    chown(path("run"), Some(0), Some(0)).unwrap();
    run_as(&site, USER);
    site.start();
    assert!(site.log().contains("run/test.facts: Permission denied"), "{}", site.log());
    site.ok(&["status"]);
    site.ok(&["restart"]);
    site.ok(&["stop"]);
}
