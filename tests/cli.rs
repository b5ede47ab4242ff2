//! The command line and the init script, as an operator uses them.

use crate::support::{KEY, Sandbox, Site, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn root() -> &'static str {
    env!("CARGO_MANIFEST_DIR")
}

#[test]
fn start_stop_status_and_their_exit_codes() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "");
    assert_eq!(site.run(&["status"]).status.code(), Some(3));
    site.start();
    let status = site.ok(&["status"]);
    assert!(status.starts_with("mega test is running: pid "), "{status}");
    for word in ["pid", "queue", "workers", "accepted", "delivered", "failed"] {
        assert!(status.contains(word), "no {word} in {status}");
    }
    let second = site.run(&["start"]);
    assert_eq!(second.status.code(), Some(1));
    let why = String::from_utf8_lossy(&second.stderr);
    assert!(why.contains("already running, pid"), "{why}");

    let socket = site.folder.path().join("run/test.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    site.kill();
    assert_eq!(site.run(&["status"]).status.code(), Some(1), "dead, with a pidfile");
    site.start();
    assert!(site.ok(&["restart"]).contains("stopped, 0 messages left"));
    site.ok(&["stop"]);
    assert_eq!(site.run(&["status"]).status.code(), Some(3));
    assert!(!socket.exists());
    site.ok(&["stop"]);
}

#[test]
fn a_start_that_fails_says_why_and_exits_1() {
    let sandbox = Sandbox::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (more, why) in [
        (format!("[server]\nlisten[] = {address}"), "is in use by "),
        ("[setting]\ntask_worker_num = 0".into(), "setting.task_worker_num = 0: must be 1 to 1024"),
        (
            "[pdo]\ndsn = \"mysql:host=127.0.0.1;port=1;dbname=mega\"\npassword = hush-hush-hush"
                .into(),
            "pdo.dsn",
        ),
        (
            "[server]\nqueue_file_path = /proc/mega".into(),
            "the folder /proc/mega cannot be created",
        ),
    ] {
        let site = Site::new(&sandbox, "");
        let ini = site.folder.path().join("conf/test.ini");
        let text = std::fs::read_to_string(&ini).unwrap();
        std::fs::write(&ini, text + &more).unwrap();
        let output = site.run(&["start"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("hush"), "{said}");
        assert_ne!(site.run(&["status"]).status.code(), Some(0));
    }
}

#[test]
fn templates_are_managed_and_the_running_daemon_follows() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let file = site.folder.path().join("t.json");
    std::fs::write(&file, r#"{"touser":"${OPENID}","template_id":"x","data":"${名字}"}"#).unwrap();
    let put = site.ok(&["template", "put", "新模板", file.to_str().unwrap(), "--title", "标题"]);
    assert!(put.contains("variables: 名字") && put.contains("from now on"), "{put}");
    assert_eq!(site.ok(&["send", "o", "新模板", "名字=甲"]), "200\n");
    assert!(sandbox.get("/sandbox/delivered").contains("甲"));
    let list = site.ok(&["template", "list"]);
    assert!(list.contains("新模板") && list.contains("标题") && list.contains(KEY), "{list}");
    assert!(site.ok(&["template", "show", "新模板"]).contains("${名字}"));
    std::fs::write(&file, r#"{"touser":"${OPENID}","#).unwrap();
    let broken = site.run(&["template", "put", "k", file.to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("not JSON"));
    site.ok(&["template", "rm", "新模板"]);
    assert_eq!(site.run(&["template", "show", "新模板"]).status.code(), Some(1));
    site.ok(&["reload"]);
    wait_for("the daemon to drop it", || site.count("templates") == 1);
}

#[test]
fn requests_from_a_shell() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    assert_eq!(site.ok(&["push", "o", KEY, "first=1"]), "200\n");
    assert_eq!(site.ok(&["tset", KEY]), "200\n");
    let missing = site.run(&["send", "o", "no-such-key"]);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&missing.stdout), "400 template key not exists\n");
    wait_for("the push", || sandbox.delivered() == 1);
}

#[test]
fn a_reader_that_has_gone_away_stops_no_command() {
    let sandbox = Sandbox::start();
    let site = Site::started(&sandbox, "");
    let file = site.folder.path().join("t.json");
    std::fs::write(&file, r#"{"touser":"${OPENID}","template_id":"x","data":"1"}"#).unwrap();
    let put = ["template", "put", "k", file.to_str().unwrap()];
    for words in [&["status"][..], &put, &["send", "o", "k"], &["template", "list"], &["restart"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = site.command(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{words:?}: {said}");
    }
    assert_eq!(sandbox.delivered(), 1);
    assert_eq!(site.run(&["status"]).status.code(), Some(0));
}

#[test]
fn the_originals_file_is_accepted_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let original = format!("{}/tests/data/wechat-original.ini", root());
    std::fs::copy(original, conf.join("wechat.ini")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mega"))
        .args(["--root", folder.path().to_str().unwrap(), "wechat", "check", "--offline"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("/Mega-Wechat/logs/queue"), "{shown}");
    assert!(!shown.contains("i201314") && !shown.contains("e01207cc"), "{shown}");
}

#[test]
fn the_init_script_starts_stops_and_tells_the_state() {
    let sandbox = Sandbox::start();
    let site = Site::new(&sandbox, "");
    let defaults = site.folder.path().join("defaults");
    let (mega, folder) = (env!("CARGO_BIN_EXE_mega"), site.folder.path().display());
    std::fs::write(&defaults, format!("MEGA={mega}\nROOT={folder}\nNAME=test\n")).unwrap();
    let call = |action: &str| {
        let output = Command::new("sh")
            .arg(format!("{}/scripts/mega.init", root()))
            .arg(action)
            .env("MEGA_DEFAULTS", &defaults)
            .output()
            .unwrap();
        output.status.code().unwrap()
    };
    assert_eq!(call("status"), 3);
    assert_eq!(call("start"), 0);
    assert_eq!(call("start"), 0, "running already is what was asked for");
    assert_eq!(call("status"), 0);
    assert_eq!(call("reload"), 0);
    assert_eq!(call("restart"), 0);
    assert_eq!(call("force-reload"), 0);
    assert_eq!(call("stop"), 0);
    assert_eq!(call("stop"), 0);
    assert_eq!(call("status"), 3);
    assert_eq!(call("reload"), 7);
    assert_eq!(call("try-restart"), 0);
    assert_eq!(call("dance"), 2);

    // Whatever becomes of the configuration, what runs can be told and stopped.
    let ini = site.folder.path().join("conf/test.ini");
    let good = std::fs::read_to_string(&ini).unwrap();
    for broken in [Some("[setting]\ntask_worker_num = none"), None] {
        assert_eq!(call("start"), 0);
        match broken {
            Some(text) => std::fs::write(&ini, text).unwrap(),
            None => std::fs::remove_file(&ini).unwrap(),
        }
        assert_eq!(call("status"), 0, "{broken:?}");
        assert_eq!(call("start"), 0, "{broken:?}");
        for action in ["restart", "force-reload", "try-restart", "reload"] {
            assert_eq!(call(action), 1, "{action}, {broken:?}");
        }
        assert_eq!(call("status"), 0, "{broken:?}");
        assert_eq!(call("stop"), 0, "{broken:?}");
        assert_eq!(call("status"), 3, "{broken:?}");
        assert_eq!(call("start"), if broken.is_some() { 1 } else { 6 }, "{broken:?}");
        std::fs::write(&ini, &good).unwrap();
    }
    call("start");
    let pid = site.pid();
    site.kill();
    assert_eq!(call("status"), 1);
    assert_eq!(call("try-restart"), 0);
    assert_eq!(call("stop"), 0);
    assert_eq!(call("status"), 3, "the pidfile of {pid} is gone");
    assert_eq!(call("restart"), 0, "one that is stopped is started");
    assert_eq!(call("stop"), 0);
    std::fs::write(&defaults, "MEGA=/nowhere/mega\n").unwrap();
    assert_eq!(["start", "restart", "reload", "status", "stop"].map(call), [5, 5, 5, 4, 0]);
}

#[test]
fn it_runs_as_the_user_it_is_told_to() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[setting]\nuser = nobody");
    if !rustix::process::geteuid().is_root() {
        let refused = site.run(&["start"]);
        assert_eq!(refused.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("nobody"));
        return;
    }
    // Nobody may look into the folder, but only mega's own folders are nobody's.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(site.folder.path(), open).unwrap();
    std::fs::remove_dir_all(site.folder.path().join("run")).unwrap();
    let others = site.folder.path().join("logs/others.log");
    std::fs::create_dir_all(others.parent().unwrap()).unwrap();
    std::os::unix::fs::chown(others.parent().unwrap(), Some(65534), None).unwrap();
    std::fs::write(&others, "").unwrap();
    site.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.split_whitespace().skip(1).all(|id| id != "0"), "{uid}");
    let owner =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
    assert_eq!(owner(&others), 0, "what is not mega's is left alone");
    site.ok(&["restart"]);
    site.ok(&["stop"]);
    assert_eq!(site.run(&["status"]).status.code(), Some(3));
}

#[test]
fn more_templates_than_fit_are_named_in_the_log() {
    let sandbox = Sandbox::start();
    let mut site = Site::new(&sandbox, "[server]\ntable_size = 1");
    site.put_template("a_second_one", crate::support::TEMPLATE);
    site.start();
    assert_eq!(site.count("templates"), 1);
    assert!(site.log().contains("left out: the table is full (table_size = 1)"), "{}", site.log());
}
