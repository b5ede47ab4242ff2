//! Hostile clients of six kinds, all at once and for as long as they like: the daemon's memory stays
//! below its limit, and who behaves is served. `scripts/torture --clients` has ten thousand of them.

use crate::support::{Client, KEY, Sandbox, Site, push_frame};
use mega::wire::command::{self, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the daemon may take beyond `memory_limit`, its own memory included.
const ALLOWANCE: usize = 32 << 20;

/// How long a client that behaves may wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a hostile client does with its connection.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Part of a frame, and then nothing.
    Half,
    /// A byte a second.
    Drip,
    /// Pushes, and reads no reply.
    Deaf,
    /// Sends, as many as are taken.
    Sends,
    /// The longest frames there may be, wrong at their very end.
    Long,
    /// Part of a frame, a reset, and the next connection.
    Churn,
}

const KINDS: [Kind; 6] = [Kind::Half, Kind::Drip, Kind::Deaf, Kind::Sends, Kind::Long, Kind::Churn];

/// Bytes that each kind repeats.
fn material(kind: Kind) -> Vec<u8> {
    let long = format!("{{\"first\":\"{}\"]", "x".repeat(2_465_700));
    let mut send = Vec::new();
    let request =
        Request { opaque: 1, openid: b"flood", key: KEY.as_bytes(), id: None, data: b"null" };
    command::encode_send(&mut send, request);
    match kind {
        Kind::Sends => send.repeat(1000),
        Kind::Deaf => {
            [push_frame(1, "flood", KEY, "null"), push_frame(2, "flood", "no", "").repeat(9)]
                .concat()
                .repeat(100)
        }
        _ => push_frame(1, "flood", KEY, &long),
    }
}

/// One connection of a hostile client.
struct Hostile {
    stream: Option<TcpStream>,
    /// Bytes written so far, and how many it will write.
    written: usize,
    most: usize,
    next: Instant,
}

impl Hostile {
    fn new() -> Hostile {
        Hostile { stream: None, written: 0, most: 0, next: Instant::now() }
    }

    /// True if it has done something.
    fn step(&mut self, kind: Kind, address: SocketAddr, material: &[u8]) -> bool {
        let Some(stream) = &mut self.stream else {
            self.stream = TcpStream::connect(address).ok();
            if let Some(stream) = &self.stream {
                stream.set_nonblocking(true).unwrap();
            }
            self.written = 0;
            self.most = match kind {
                Kind::Half => fastrand::usize(5..400_000),
                Kind::Churn => fastrand::usize(5..20_000),
                _ => usize::MAX,
            };
            return true;
        };
        if self.written >= self.most {
            if matches!(kind, Kind::Churn) {
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
                self.stream = None;
            } else if matches!(stream.read(&mut [0; 1]), Ok(0)) {
                // It was closed, and comes back.
                self.stream = None;
            }
            return false;
        }
        let mut count = material.len() - self.written % material.len();
        if matches!(kind, Kind::Drip) {
            if self.next > Instant::now() {
                return false;
            }
            self.next = Instant::now() + Duration::from_secs(1);
            count = 1;
        }
        let from = self.written % material.len();
        let until = from + count.min(self.most - self.written);
        match stream.write(&material[from..until]) {
            Ok(count) => {
                self.written += count;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.stream = None;
                false
            }
        }
    }
}

fn attack(kind: Kind, count: usize, address: SocketAddr, over: &AtomicBool) {
    let material = material(kind);
    let mut clients: Vec<Hostile> = (0..count).map(|_| Hostile::new()).collect();
    while !over.load(Ordering::Relaxed) {
        let mut busy = 0;
        for client in &mut clients {
            busy += usize::from(client.step(kind, address, &material));
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
        if busy < count / 8 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Pushes over one connection that stays and over a new one each time; returns the longest wait.
fn behave(address: SocketAddr, over: &AtomicBool) -> (Duration, usize) {
    let (mut longest, mut served) = (Duration::ZERO, 0);
    let mut stays = Client::connect(address);
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let mut fresh = Client::connect(address);
        for client in [&mut stays, &mut fresh] {
            client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
            client.push(7, "behaves", "null");
            let answer = client.read();
            assert_eq!((answer.code, answer.opaque), (200, 7), "{answer:?}");
            served += 1;
        }
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    (longest, served)
}

/// Anonymous memory, and all that is resident: with the pages of the queue's mapped files, which are
/// the kernel's to drop.
fn memory(pid: i32) -> [usize; 2] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["RssAnon", "VmRSS"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    })
}

#[test]
fn hostile_clients_cost_the_memory_limit_and_keep_nobody_waiting() {
    let count = std::env::var("MEGA_TORTURE_CLIENTS").map_or(300, |text| text.parse().unwrap());
    let (limit, seconds) = if count > 2000 { (128 << 20, 40) } else { (16 << 20, 6) };
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let sandbox = Sandbox::start();
    sandbox.faults(json!({"latency_ms": 20}));
    let more = format!(
        "[setting]\nmemory_limit = {limit}\nmax_conn = {}\nbacklog = 4096\nstop_timeout = 0\n\
         heartbeat_idle_time = 5s\n[log]\nlog_level = warning",
        (count * 4).min(limit / 8 / 1024)
    );
    let site = Site::started(&sandbox, &more);
    let (address, pid, over) = (site.address.unwrap(), site.pid(), AtomicBool::new(false));
    let began = Instant::now();
    println!("{count} hostile clients of {} kinds, memory_limit {} MiB", KINDS.len(), limit >> 20);
    println!("second | RssAnon MiB | RSS MiB | memory_held MiB");
    let mut peak = 0;
    let (longest, served) = std::thread::scope(|scope| {
        let behaving = scope.spawn(|| behave(address, &over));
        for kind in KINDS {
            let over = &over;
            scope.spawn(move || attack(kind, count / KINDS.len(), address, over));
        }
        for second in 1..=seconds {
            let mut most = [0; 2];
            while began.elapsed() < Duration::from_secs(second) {
                let now = memory(pid);
                most = [most[0].max(now[0]), most[1].max(now[1])];
                std::thread::sleep(Duration::from_millis(20));
            }
            peak = peak.max(most[0]);
            let held = site.count("memory_held") >> 20;
            println!("{second} | {} | {} | {held}", most[0] >> 20, most[1] >> 20);
            if behaving.is_finished() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        behaving.join().unwrap()
    });
    println!(
        "peak {} MiB; {served} pushes served, the longest pair waited {longest:?}",
        peak >> 20
    );
    assert!(peak <= limit + ALLOWANCE, "{peak} bytes with a limit of {limit}");
    assert!(longest < PATIENCE, "{longest:?}");
    assert!(served > 20, "{served}");
}
