//! What the tests share: a fake WeChat, an installation of mega in a temp folder, and a client that
//! sends bytes as they are.

pub mod desk;
pub mod device;

use mega::wire::command::{self, Command as Wire, Request};
use mega::wire::frame::{Split, split};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The key the recorded transcripts use.
pub const KEY: &str = "z_2hTmxOAJEzQ06eT12S6VUNYq0mLWh1";

pub const TEMPLATE: &str =
    r#"{"touser":"${OPENID}","template_id":"t","data":{"first":{"value":"${first}"}}}"#;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `ready` says so.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ready() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that is still free when a killed daemon comes back: below those that the kernel gives to others.
pub fn steady_address() -> String {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(|| fastrand::u16(10_000..20_000)).find(free);
    format!("127.0.0.1:{}", port.expect("some port is free"))
}

/// A running mega-sandbox.
pub struct Sandbox {
    child: Child,
    pub url: String,
}

impl Sandbox {
    pub fn start() -> Sandbox {
        Sandbox::with(&[])
    }

    pub fn with(options: &[&str]) -> Sandbox {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mega-sandbox"))
            .args(if options.contains(&"--listen") {
                &[][..]
            } else {
                &["--listen", "127.0.0.1:0"]
            })
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://"), "{line}");
        Sandbox { child, url }
    }

    pub fn post(&self, path: &str, body: &str) -> String {
        let mut answer = ureq::post(format!("{}{path}", self.url)).send(body).unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    pub fn get(&self, path: &str) -> String {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().unwrap();
        answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap()
    }

    pub fn faults(&self, faults: Value) {
        self.post("/sandbox/faults", &faults.to_string());
    }

    pub fn stats(&self) -> Value {
        serde_json::from_str(&self.get("/sandbox/stats")).unwrap()
    }

    pub fn delivered(&self) -> u64 {
        self.stats()["delivered"].as_u64().unwrap()
    }

    /// openid, client_msg_id and how often it was seen, for each message.
    pub fn ids(&self) -> Vec<(String, String, u64)> {
        let ids = self.get("/sandbox/ids");
        ids.lines()
            .map(|line| {
                let mut fields = line.split('\t').map(str::to_owned);
                let mut next = || fields.next().unwrap();
                (next(), next(), next().parse().unwrap())
            })
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An installation in a temp folder, with the daemon running or not.
pub struct Site {
    pub folder: tempfile::TempDir,
    ini: PathBuf,
    pub address: Option<SocketAddr>,
}

impl Site {
    /// Configured against the sandbox, with one template. `more` is put at the end: later settings
    /// win.
    pub fn new(sandbox: &Sandbox, more: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("conf");
        std::fs::create_dir(&conf).unwrap();
        let ini = conf.join("test.ini");
        let text = format!(
            "[server]\nlisten[] = 127.0.0.1:0\n[setting]\nstop_timeout = 5s\n[queue]\n\
             segment_size = 4M\n[wechat]\napp_id = wxtest\napp_secret = the-secret-of-the-test\n\
             api_hosts = {}\n[log]\nlog_file = logs/test.log\nlog_level = debug\n{more}\n",
            sandbox.url
        );
        std::fs::write(&ini, text).unwrap();
        let site = Site { folder, ini, address: None };
        site.put_template(KEY, TEMPLATE);
        site
    }

    pub fn started(sandbox: &Sandbox, more: &str) -> Site {
        let mut site = Site::new(sandbox, more);
        site.start();
        site
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mega"));
        command.arg("-c").arg(&self.ini).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            panic!("mega {arguments:?}: {}\n{text}{why}\n{}", output.status, self.log());
        }
        text
    }

    pub fn put_template(&self, key: &str, text: &str) {
        let file = self.folder.path().join("template.json");
        std::fs::write(&file, text).unwrap();
        self.ok(&["template", "put", key, file.to_str().unwrap()]);
    }

    /// As another program would: the daemon is not told.
    pub fn put_template_in_database_only(&self, key: &str) {
        let database = rusqlite::Connection::open(self.folder.path().join("run/test.db")).unwrap();
        let sql = "INSERT INTO mega_wechat_template (tmpl_key, template) VALUES (?1, ?2)";
        database.execute(sql, (key, TEMPLATE)).unwrap();
    }

    pub fn start(&mut self) {
        let line = self.ok(&["start"]);
        let address = line.trim().rsplit(' ').next().unwrap();
        self.address = Some(address.parse().unwrap_or_else(|_| panic!("no address in {line}")));
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    pub fn count(&self, counter: &str) -> u64 {
        self.status()[counter].as_u64().unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.status()["pid"].as_i64().unwrap() as i32
    }

    /// Returns when it is gone.
    pub fn kill(&self) {
        self.kill_process(self.pid());
        // Its lock goes with its last thread, a moment after its sockets.
        wait_for("the killed daemon to be gone", || {
            String::from_utf8_lossy(&self.run(&["status"]).stdout).contains("is dead")
        });
    }

    /// Returns at once; start waits for it by itself.
    pub fn kill_process(&self, pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address.expect("the daemon was started"))
    }

    /// Pushes to `o0`, `o1`, ... and waits until all are accepted.
    pub fn push_many(&self, count: u32) {
        let mut client = self.client();
        for n in 0..count {
            client.push(n, &format!("o{n}"), &format!(r#"{{"first":"{n}"}}"#));
        }
        for _ in 0..count {
            assert_eq!(client.read().code, 200);
        }
    }

    /// Everything in the log folder.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let folder = self.folder.path().join("logs");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            text += &std::fs::read_to_string(entry.path()).unwrap_or_default();
        }
        text
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("folder {:?}, the end of its log:", self.folder.path());
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        let _ = self.run(&["stop", "--now"]);
    }
}

/// A result as a client sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub opaque: u32,
    pub message: String,
}

pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn push(&mut self, opaque: u32, openid: &str, data: &str) {
        self.write(&push_frame(opaque, openid, KEY, data));
    }

    pub fn send(&mut self, opaque: u32, openid: &str, data: &str) {
        self.ask(command::encode_send, opaque, openid, None, data);
    }

    /// A send or a push under an id of its own.
    pub fn ask(
        &mut self,
        encode: fn(&mut Vec<u8>, Request),
        opaque: u32,
        openid: &str,
        id: Option<&str>,
        data: &str,
    ) {
        let mut frame = Vec::new();
        let (openid, key, data) = (openid.as_bytes(), KEY.as_bytes(), data.as_bytes());
        encode(&mut frame, Request { opaque, openid, key, id: id.map(str::as_bytes), data });
        self.write(&frame);
    }

    pub fn read(&mut self) -> Answer {
        self.try_read().expect("a result within the deadline")
    }

    pub fn try_read(&mut self) -> std::io::Result<Answer> {
        loop {
            if let Split::Frame { payload, size } = split(&self.received, usize::MAX) {
                let Ok(Wire::Result { code, opaque, message }) = command::decode(payload) else {
                    panic!("not a result: {payload:?}");
                };
                let code = std::str::from_utf8(code).unwrap().parse().unwrap();
                let message = String::from_utf8(message.to_vec()).unwrap();
                self.received.drain(..size);
                return Ok(Answer { code, opaque, message });
            }
            let mut chunk = [0; 65536];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// The connection ends, now or before the deadline.
    pub fn assert_closed(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("still open: {error}"),
            }
        }
    }
}

pub fn push_frame(opaque: u32, openid: &str, key: &str, data: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let (openid, key, data) = (openid.as_bytes(), key.as_bytes(), data.as_bytes());
    command::encode_push(&mut frame, Request { opaque, openid, key, id: None, data });
    frame
}
