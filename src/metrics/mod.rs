//! The metrics thread: `GET /metrics` for Prometheus and `GET /healthz` for a load balancer, at
//! `metrics.listen`. Reads what the other threads publish in `stats`; asks nobody, and nobody waits
//! for it. Whatever comes in over its port costs this one thread, a fixed number of descriptors and a
//! fixed number of bytes: see `server`.

mod health;
mod page;
mod process;
mod request;
mod server;
mod text;

use crate::config::Config;
use crate::stats::Stats;
use crate::template::Table;
use crate::wechat::token::Tokens;
use request::Refused;
use server::Server;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long the thread rests after a panic, or when its poll fails.
const PAUSE: Duration = Duration::from_secs(1);

/// What is shown comes from these.
#[derive(Clone)]
pub struct Links {
    pub config: Arc<Config>,
    pub stats: Arc<Stats>,
    pub table: Arc<Table>,
    pub tokens: Arc<Tokens>,
}

/// The endpoint, as long as this is held.
pub struct Metrics {
    closed: Arc<AtomicBool>,
    waker: mio::Waker,
    thread: Option<thread::JoinHandle<()>>,
}

impl Metrics {
    /// Listens and begins to answer.
    pub fn open(listen: SocketAddr, links: Links) -> Result<Metrics, String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "cannot bind {listen}: address in use (metrics.listen; each mega needs one of its own)"
            ),
            _ => format!("cannot bind {listen}: {error} (see metrics.listen)"),
        };
        let (mut server, waker) = Server::bind(listen).map_err(failed)?;
        let address = server.address().map_err(failed)?;
        let closed = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&closed);
        let thread = thread::Builder::new().name("metrics".into()).spawn(move || {
            let answer = |path: &str| answer(path, &links);
            while !over.load(Ordering::Acquire) {
                // Of all threads this is the one that the daemon can do without for a moment.
                match catch_unwind(AssertUnwindSafe(|| server.turn(&answer))) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        log::error!("the metrics' sockets cannot be waited for: {error}");
                        thread::sleep(PAUSE);
                    }
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        });
        let thread = Some(thread.map_err(failed)?);
        crate::notice!("metrics at http://{address}/metrics, health at http://{address}/healthz");
        Ok(Metrics { closed, waker, thread })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // One that cannot be woken is not waited for.
        if let (Ok(()), Some(thread)) = (self.waker.wake(), self.thread.take()) {
            // A panic of its is in the log already.
            let _ = thread.join();
        }
    }
}

/// What a request is told.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    fn text(status: &'static str, line: &str) -> Answer {
        Answer { status, kind: TEXT, body: format!("{line}\n") }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Answer {
        match refused {
            Refused::NotHttp => Answer::text("400 Bad Request", "not HTTP/1.1"),
            Refused::TooLong => {
                Answer::text("431 Request Header Fields Too Large", "the head is too long")
            }
            Refused::Method => Answer::text("405 Method Not Allowed", "GET or HEAD"),
        }
    }
}

fn answer(path: &str, links: &Links) -> Answer {
    match path {
        "/metrics" => Answer { status: "200 OK", kind: text::KIND, body: page::page(links) },
        "/healthz" => match health::of(&links.stats) {
            Ok(line) => Answer::text("200 OK", &line),
            Err(why) => Answer::text("503 Service Unavailable", &why),
        },
        _ => Answer::text("404 Not Found", "there are /metrics and /healthz"),
    }
}
