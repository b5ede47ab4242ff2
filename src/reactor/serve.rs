//! The desk: what the reactor does with a client's frames. Checks each request against the
//! template table and its JSON, answers what it can answer itself, and puts the rest into the
//! turn's batch or the store's channel.

use super::Links;
use super::conn::Conn;
use crate::config::SyncPolicy;
use crate::queue::New;
use crate::template::check_data;
use crate::traffic::batch::{Batch, ConnId, Kind, ReplyTo};
use crate::traffic::ledger::{Ask, What};
use crate::traffic::{BATCHES, Event, Order};
use crate::wire::command::{self, Command, Request};
use crate::wire::frame::{Split, split};
use crossbeam_channel::TrySendError;
use serde_json::json;
use std::time::{Duration, Instant};

/// Bytes of requests after which a batch is handed on within a turn.
const BATCH_BYTES: usize = 32 * 1024;

/// The same while the spool has nothing to do: it works on them while the rest is read. Not where
/// each batch costs a sync.
const FIRST_BYTES: usize = 8 * 1024;

/// How long the spool usually takes for a batch.
const LINGER: Duration = Duration::from_micros(20);

/// The same where it includes a sync to a fast disk, and a single client waits for it: nobody else's
/// request would be safe any sooner.
const LINGER_SYNC: Duration = Duration::from_micros(300);

/// What becomes of a connection after one of its frames.
enum Next {
    Frame,
    /// This frame cannot be handed on now; it is looked at again later.
    Pause,
    /// No frame behind this one is looked at.
    End,
}

pub(super) struct Desk {
    pub links: Links,
    /// Requests of this turn.
    batch: Batch,
    /// R1: as many batches as may still be handed on.
    spare: Vec<Batch>,
    first_bytes: usize,
    linger_alone: Duration,
    /// Whose request the last batch was, if it was a single one.
    client: Option<ConnId>,
    /// How long the results of the last batch are waited for without sleeping.
    pub linger: Duration,
    pub stopping: bool,
    /// Who wants to know when the daemon ends.
    pub waiting: Vec<ReplyTo>,
    started: Instant,
}

impl Desk {
    pub fn new(links: Links) -> Desk {
        let spare = (1..BATCHES).map(|_| Batch::default()).collect();
        let (first_bytes, linger_alone) = match links.config.queue.sync {
            SyncPolicy::Always => (BATCH_BYTES, LINGER_SYNC),
            _ => (FIRST_BYTES, LINGER),
        };
        Desk {
            links,
            batch: Batch::default(),
            spare,
            first_bytes,
            linger_alone,
            client: None,
            linger: LINGER,
            stopping: false,
            waiting: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Serves the whole frames at the head of `bytes` and returns how many bytes that were.
    pub fn frames(&mut self, conn: &mut Conn, id: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while conn.last_words.is_none() {
            match split(&bytes[used..], self.links.config.setting.package_max_length) {
                Split::Partial { .. } => return used,
                Split::TooLong => conn.last_words = Some(Vec::new()),
                Split::Frame { payload, size } => match self.frame(conn, id, payload) {
                    Next::Frame => used += size,
                    Next::End => {}
                    Next::Pause => {
                        conn.paused = true;
                        return used;
                    }
                },
            }
        }
        bytes.len()
    }

    fn frame(&mut self, conn: &mut Conn, id: ConnId, payload: &[u8]) -> Next {
        let decoded = match conn.is_admin() {
            true => command::decode_admin(payload),
            false => command::decode(payload),
        };
        match decoded {
            Ok(Command::Send(request)) => self.request(conn, id, Kind::Send, request),
            Ok(Command::Push(request)) => self.request(conn, id, Kind::Push, request),
            Ok(Command::Tset { opaque, key }) => self.tset(conn, id, opaque, key),
            Ok(Command::Result { .. }) => Next::Frame,
            Ok(Command::Status { opaque }) => {
                let status = self.status();
                command::encode_result(conn.outbox(), command::OK, opaque, status.as_bytes());
                Next::Frame
            }
            Ok(Command::Wait { opaque }) => {
                self.waiting.push(ReplyTo { conn: id, opaque });
                conn.unanswered += 1;
                Next::Frame
            }
            Ok(Command::Requeue { opaque, body }) => {
                self.ask(conn, id, opaque, What::Requeue, body)
            }
            Ok(Command::Dismiss { opaque, body }) => {
                self.ask(conn, id, opaque, What::Dismiss, body)
            }
            Err(bad) => {
                let mut words = Vec::new();
                command::encode_result(&mut words, command::FAILED, 0, bad.0.as_bytes());
                conn.last_words = Some(words);
                Next::End
            }
        }
    }

    /// `send {openid} {key}` and `push {openid} {key}`, the body a JSON object of variables.
    fn request(&mut self, conn: &mut Conn, id: ConnId, kind: Kind, request: Request) -> Next {
        let Request { opaque, openid, key, data } = request;
        let mut refuse = |code, message: &str| {
            command::encode_result(conn.outbox(), code, opaque, message.as_bytes());
            Next::Frame
        };
        if self.stopping {
            return refuse(command::UNAVAILABLE, "stopping");
        }
        if !self.links.table.contains(key) {
            return refuse(command::BAD_REQUEST, command::NO_TEMPLATE);
        }
        if let Err(error) = check_data(data) {
            return refuse(command::BAD_REQUEST, &format!("invalid data: {error}"));
        }
        if self.batch.bytes() >= BATCH_BYTES && !self.hand_on() {
            return Next::Pause;
        }
        let to = ReplyTo { conn: id, opaque };
        self.batch.add(to, kind, New { openid, key, data });
        conn.unanswered += 1;
        if self.is_idle() && self.batch.bytes() >= self.first_bytes {
            self.hand_on();
        }
        Next::Frame
    }

    /// `tset {key}`, no body.
    fn tset(&mut self, conn: &mut Conn, id: ConnId, opaque: u32, key: &[u8]) -> Next {
        let to = ReplyTo { conn: id, opaque };
        match self.links.store.try_send(Order::Tset { to, key: key.into() }) {
            Ok(()) => {
                conn.unanswered += 1;
                Next::Frame
            }
            Err(_) => Next::Pause,
        }
    }

    /// `requeue` and `dismiss`, the body a JSON object, see `ledger::order`.
    fn ask(&mut self, conn: &mut Conn, id: ConnId, opaque: u32, what: What, body: &[u8]) -> Next {
        let to = ReplyTo { conn: id, opaque };
        match self.links.ledger.try_send(Ask { to, what, body: body.into() }) {
            Ok(()) => {
                conn.unanswered += 1;
                Next::Frame
            }
            Err(_) => Next::Pause,
        }
    }

    /// Hands this turn's requests to the spool; false if they must wait for a batch to come back.
    pub fn hand_on(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        let Some(next) = self.spare.pop() else { return false };
        let mut batch = std::mem::replace(&mut self.batch, next);
        let client = batch.single();
        batch.alone = client.is_some() && client == self.client;
        self.linger = if batch.alone { self.linger_alone } else { LINGER };
        self.client = client;
        let handed = self.links.spool.try_send(Event::Batch(batch));
        let full = matches!(handed, Err(TrySendError::Full(_)));
        debug_assert!(!full, "invariant R1: the spool's channel has room");
        true
    }

    /// No batch is under way.
    pub fn is_idle(&self) -> bool {
        self.spare.len() == BATCHES - 1
    }

    /// A batch has been worked off.
    pub fn take_back(&mut self, mut batch: Batch) {
        batch.clear();
        self.spare.push(batch);
    }

    fn status(&self) -> String {
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "name": self.links.config.name,
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "listen": self.links.listen,
            "workers": self.links.config.setting.task_worker_num,
            "templates": self.links.table.len(),
            "stopping": self.stopping,
        });
        if let (Some(status), serde_json::Value::Object(stats)) =
            (status.as_object_mut(), self.links.stats.to_json())
        {
            status.extend(stats);
        }
        status.to_string()
    }
}
