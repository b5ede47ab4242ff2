//! The desk: what the reactor does with a client's frames. Checks each request against the
//! template table and its JSON, answers what it can answer itself, and puts the rest into the
//! turn's batch or the store's channel. Keeps the account of what clients hold.

use super::Links;
use super::account::{Account, Part, REQUEST_COST};
use super::conn::{Conn, Course, Hold};
use crate::config::SyncPolicy;
use crate::queue::{ClientMsgId, New};
use crate::stats::Refusal;
use crate::template::Unfit;
use crate::traffic::batch::{self, Batch, ConnId, Kind, ReplyTo, UNANSWERED};
use crate::traffic::{BATCHES, Event, Tset};
use crate::wire::command::{self, Command, Request};
use crate::wire::frame::{Split, split};
use crate::wire::not_now;
use crossbeam_channel::TrySendError;
use std::time::{Duration, Instant};

/// Bytes of requests after which a batch is handed on within a turn.
const BATCH_BYTES: usize = 32 * 1024;

/// The same while the spool has nothing to do: it works on them while the rest is read. Not where
/// each batch costs a sync.
const FIRST_BYTES: usize = 8 * 1024;

/// How long the spool usually takes for a batch.
const SOON: Duration = Duration::from_micros(20);

/// The same where it includes a sync to a fast disk, and a single client waits for it: nobody else's
/// request would be safe any sooner.
const SOON_SYNCED: Duration = Duration::from_micros(300);

/// What whoever may only look is told of everything else.
const ONLY_STATUS: &str = "this socket answers status and nothing else (see setting.admin_group and setting.monitor_group)";

/// What a client is told whose message's id WeChat would not take.
const BAD_ID: &str = "invalid id: 1 to 32 of the characters A-Z a-z 0-9 _ - are wanted after id=";

/// What becomes of a connection after one of its frames.
pub(super) enum Next {
    Frame,
    /// This frame cannot be handed on now; it is looked at again later.
    Hold(Hold),
    /// No frame behind this one is looked at.
    End,
}

pub(super) struct Desk {
    pub links: Links,
    pub account: Account,
    /// Requests of this turn.
    batch: Batch,
    /// R1: as many batches as may still be handed on.
    spare: Vec<Batch>,
    first_bytes: usize,
    soon_alone: Duration,
    /// Whose request the last batch was, if it was a single one.
    client: Option<ConnId>,
    /// How long the results of the last batch are waited for without sleeping.
    pub soon: Duration,
    pub stopping: bool,
    /// Who wants to know when the daemon ends.
    pub waiting: Vec<ReplyTo>,
    /// The connection that is being read asks for the listening sockets, under this opaque.
    pub heir: Option<u32>,
    pub started: Instant,
    /// Orders to the spool that are not answered yet.
    pub steering: usize,
}

impl Desk {
    pub fn new(links: Links) -> Desk {
        let spare = (1..BATCHES).map(|_| Batch::default()).collect();
        let (first_bytes, soon_alone) = match links.config.queue.sync {
            SyncPolicy::Always => (BATCH_BYTES, SOON_SYNCED),
            _ => (FIRST_BYTES, SOON),
        };
        let setting = &links.config.setting;
        Desk {
            account: Account::new(setting.memory_limit, setting.package_max_length),
            links,
            batch: Batch::default(),
            spare,
            first_bytes,
            soon_alone,
            client: None,
            soon: SOON,
            stopping: false,
            waiting: Vec::new(),
            heir: None,
            started: Instant::now(),
            steering: 0,
        }
    }

    /// Serves the whole frames at the head of `bytes` and returns how many bytes that were.
    pub fn frames(&mut self, conn: &mut Conn, id: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while matches!(conn.course, Course::Open) {
            match split(&bytes[used..], self.links.config.setting.package_max_length) {
                Split::Partial { .. } => return used,
                Split::TooLong => {
                    self.links.stats.turn_down(Refusal::FrameTooLong);
                    conn.course = Course::Closing(Vec::new());
                }
                Split::Frame { payload, size } => match self.frame(conn, id, payload) {
                    Next::Frame => used += size,
                    Next::End => {}
                    Next::Hold(hold) => {
                        conn.course = Course::Held(hold);
                        return used;
                    }
                },
            }
        }
        bytes.len()
    }

    #[inline]
    fn frame(&mut self, conn: &mut Conn, id: ConnId, payload: &[u8]) -> Next {
        let decoded = match conn.is_admin() {
            true => command::decode_admin(payload),
            false => command::decode(payload),
        };
        if conn.only_looks()
            && let Ok(command) = &decoded
            && let Some(opaque) = command.beyond_reading()
        {
            return self.answer(conn, command::BAD_REQUEST, opaque, ONLY_STATUS.as_bytes());
        }
        match decoded {
            Ok(Command::Send(request)) => self.request(conn, id, Kind::Send, request),
            Ok(Command::Push(request)) => self.request(conn, id, Kind::Push, request),
            Ok(Command::Tset { opaque, key }) => self.tset(conn, id, opaque, key),
            Ok(Command::Tget { opaque, key }) => self.tget(conn, opaque, key),
            Ok(Command::Result { .. }) => Next::Frame,
            Ok(Command::Ask { opaque, question, body }) => {
                self.question(conn, id, opaque, question, body)
            }
            Err(bad) => {
                self.links.stats.turn_down(Refusal::BadFrame);
                let mut words = Vec::new();
                command::encode_result(&mut words, command::FAILED, 0, bad.0.as_bytes());
                conn.course = Course::Closing(words);
                Next::End
            }
        }
    }

    /// `send {openid} {key} [id={own}]` and `push` likewise, the body a JSON object of variables.
    fn request(&mut self, conn: &mut Conn, id: ConnId, kind: Kind, request: Request) -> Next {
        let Request { opaque, openid, key, id: own, data } = request;
        if self.stopping {
            return self.refuse(conn, opaque, Refusal::Stopping, not_now::STOPPING);
        }
        if let Err(unfit) = self.links.table.check(key, data) {
            self.links.stats.turn_down(match unfit {
                Unfit::NoTemplate => Refusal::NoTemplate,
                Unfit::Data(_) | Unfit::Missing(_) => Refusal::BadData,
            });
            let why = unfit.to_string();
            return self.answer(conn, command::BAD_REQUEST, opaque, why.as_bytes());
        }
        if own.is_some_and(|own| ClientMsgId::new(own).is_none()) {
            self.links.stats.turn_down(Refusal::BadData);
            return self.answer(conn, command::BAD_REQUEST, opaque, BAD_ID.as_bytes());
        }
        let own = own.unwrap_or_default();
        let weight = match kind {
            // It is in a batch, and then on the disk.
            Kind::Push => 0,
            Kind::Send => openid.len() + key.len() + data.len() + REQUEST_COST,
        };
        if conn.unanswered >= UNANSWERED {
            return Next::Hold(Hold::Results);
        }
        if weight > 0
            && let Some(next) = self.weigh(conn, opaque, weight)
        {
            return next;
        }
        if self.batch.bytes() >= BATCH_BYTES && !self.hand_on() {
            return Next::Hold(Hold::Spool);
        }
        let to = self.owe(conn, id, opaque, weight);
        let client = match kind {
            Kind::Push => None,
            Kind::Send => conn.peer(),
        };
        let new = New { openid, key, data };
        self.batch.add(&batch::Request { to, kind, client, id: own, new });
        if self.is_idle() && self.batch.bytes() >= self.first_bytes {
            // R1: what cannot be handed on stays in the batch.
            self.hand_on();
        }
        Next::Frame
    }

    /// `tget {key}`, no body.
    pub(super) fn tget(&self, conn: &mut Conn, opaque: u32, key: &[u8]) -> Next {
        match self.links.table.get(key) {
            Some(template) => self.answer(conn, command::OK, opaque, template.text().as_bytes()),
            None => {
                self.answer(conn, command::BAD_REQUEST, opaque, command::NO_TEMPLATE.as_bytes())
            }
        }
    }

    /// `tset {key}`, no body.
    fn tset(&mut self, conn: &mut Conn, id: ConnId, opaque: u32, key: &[u8]) -> Next {
        let weight = key.len() + REQUEST_COST;
        if conn.unanswered >= UNANSWERED {
            return Next::Hold(Hold::Results);
        }
        if let Some(next) = self.weigh(conn, opaque, weight) {
            return next;
        }
        if self.links.store.is_full() {
            return Next::Hold(Hold::Store);
        }
        let to = self.owe(conn, id, opaque, weight);
        let handed = self.links.store.try_send(Tset { to, key: key.into() });
        if handed.is_ok() {
            return Next::Frame;
        }
        // This thread alone sends here, and there was room: the store has ended, and so does the daemon.
        self.paid(weight);
        conn.unanswered -= 1;
        conn.weight -= weight;
        Next::Hold(Hold::Store)
    }

    /// Why a request that is held in memory cannot be taken now: its client has its share, which
    /// slows it, or all of them together have theirs, which refuses it.
    fn weigh(&self, conn: &mut Conn, opaque: u32, weight: usize) -> Option<Next> {
        if conn.weight > 0 && conn.weight + weight > self.account.client_share() {
            return Some(Next::Hold(Hold::Results));
        }
        let fits = self.account.fits(Part::Requests, weight);
        (!fits).then(|| self.refuse(conn, opaque, Refusal::Memory, not_now::QUEUE_FULL))
    }

    /// What a client has to wait for before it is read. Nothing is read that has nowhere to go: what
    /// the kernel holds costs the daemon nothing. The administration socket waits for nothing but its own results.
    pub fn holds(&self, conn: &Conn) -> Option<Hold> {
        let limit = self.links.config.setting.buffer_output_size;
        match conn.course {
            Course::Open if conn.outbox.unwritten() > limit => Some(Hold::Results),
            Course::Open if conn.is_admin() => None,
            Course::Open if !self.has_room(Hold::Spool) => Some(Hold::Spool),
            _ => None,
        }
    }

    /// A client that was held for its results goes on when a quarter of its share is free again: not
    /// at each result, which would have it looked at for each.
    pub fn may_go_on(&self, conn: &Conn) -> bool {
        conn.unanswered <= UNANSWERED / 4 * 3
            && conn.weight <= self.account.client_share() / 4 * 3
            && conn.outbox.unwritten() <= self.links.config.setting.buffer_output_size / 4 * 3
    }

    /// R2: from here on a result is owed.
    pub(super) fn owe(
        &mut self,
        conn: &mut Conn,
        id: ConnId,
        opaque: u32,
        weight: usize,
    ) -> ReplyTo {
        conn.unanswered += 1;
        if weight > 0 {
            conn.weight += weight;
            self.account.charge(Part::Requests, weight);
        }
        // The longest frame that can be configured has 64 MiB.
        ReplyTo { conn: id, opaque, weight: weight as u32 }
    }

    /// The result of a request of this weight has come.
    pub fn paid(&mut self, weight: usize) {
        self.account.credit(Part::Requests, weight);
    }

    fn refuse(&self, conn: &mut Conn, opaque: u32, refusal: Refusal, why: &str) -> Next {
        self.links.stats.turn_down(refusal);
        self.answer(conn, command::UNAVAILABLE, opaque, why.as_bytes())
    }

    pub(super) fn answer(&self, conn: &mut Conn, code: u16, opaque: u32, message: &[u8]) -> Next {
        self.write_result(conn.outbox.bytes(), code, opaque, message);
        Next::Frame
    }

    /// Every result goes through here: the one place that knows what clients read for "not now".
    pub fn write_result(&self, out: &mut Vec<u8>, code: u16, opaque: u32, message: &[u8]) {
        let code = match code {
            command::UNAVAILABLE => self.links.config.setting.unavailable_code,
            code => code,
        };
        command::encode_result(out, code, opaque, message);
    }

    /// Hands this turn's requests to the spool; false if they must wait for a batch to come back.
    pub fn hand_on(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        let bytes = self.batch.memory();
        if !self.account.fits(Part::Batches, bytes) {
            return false;
        }
        // R1: a batch goes only where a spare one takes its place.
        let Some(next) = self.spare.pop() else { return false };
        let mut batch = std::mem::replace(&mut self.batch, next);
        let client = batch.single();
        batch.alone = client.is_some() && client == self.client;
        let soon = if batch.alone { self.soon_alone } else { SOON };
        match self.links.spool.try_send(Event::Batch(batch)) {
            Err(TrySendError::Full(Event::Batch(batch))) => {
                // R1 broken by somebody else's events: nothing is lost, and the clients wait.
                self.spare.push(std::mem::replace(&mut self.batch, batch));
                false
            }
            // A spool that has ended needs no batch: so does the daemon.
            _ => {
                self.account.charge(Part::Batches, bytes);
                (self.soon, self.client) = (soon, client);
                true
            }
        }
    }

    /// Whether a client that was held for this can go on.
    pub fn has_room(&self, hold: Hold) -> bool {
        match hold {
            Hold::Spool => {
                let next = self.batch.memory();
                let goes = !self.spare.is_empty() && self.account.fits(Part::Batches, next);
                self.batch.bytes() < BATCH_BYTES || (goes && !self.links.spool.is_full())
            }
            Hold::Store => !self.links.store.is_full() && !self.links.ledger.is_full(),
            Hold::Results => false,
        }
    }

    /// No batch is under way.
    pub fn is_idle(&self) -> bool {
        self.spare.len() == BATCHES - 1
    }

    /// There are requests that could not be handed on, and no batch is under way whose return would
    /// tell when they can be.
    pub fn is_stuck(&self) -> bool {
        !self.batch.is_empty() && self.is_idle()
    }

    /// A batch has been worked off.
    pub fn take_back(&mut self, mut batch: Batch) {
        self.account.credit(Part::Batches, batch.memory());
        batch.clear();
        self.spare.push(batch);
    }
}
