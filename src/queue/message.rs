//! A message on its way: what a worker needs to send it. Lives on any thread; its bytes are either
//! in a mapped segment, which it keeps mapped, or its own.

use super::Position;
use super::client_msg_id::ClientMsgId;
use super::disk::Map;
use super::record::{self, Parts, Record};
use std::sync::Arc;

/// Where a message stands in the queue; only the queue can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) Position);

enum Bytes {
    Mapped {
        ticket: Ticket,
        map: Arc<Map>,
    },
    /// A send: somebody waits for its result, so it is never stored.
    Owned(Box<[u8]>),
}

pub struct Message {
    /// What the first half of client_msg_id names: a queue, or the run of a process for a send.
    origin: u64,
    record: Record,
    bytes: Bytes,
    /// Unix time in ms of this hand-out.
    taken: u64,
}

impl Message {
    pub(super) fn on_disk(
        queue: u64,
        ticket: Ticket,
        record: Record,
        map: Arc<Map>,
        taken: u64,
    ) -> Message {
        Message { origin: queue, record, bytes: Bytes::Mapped { ticket, map }, taken }
    }

    /// A send's message: `run` is random per process, so its ids meet no other's.
    pub fn in_memory(run: u64, id: u64, now: u64, new: super::New) -> Message {
        let parts = new.parts(&[]);
        let bytes = parts.concat().into_boxed_slice();
        let record = Record::fresh(id, parts, now);
        Message { origin: run, record, bytes: Bytes::Owned(bytes), taken: now }
    }

    /// What WeChat recognises a repeat by: the same for every attempt.
    pub fn client_msg_id(&self) -> ClientMsgId {
        self.record.client_msg_id(self.origin, self.payload())
    }

    pub fn openid(&self) -> &[u8] {
        let [_, openid, _, _] = self.parts();
        openid
    }

    pub fn key(&self) -> &[u8] {
        let [_, _, key, _] = self.parts();
        key
    }

    /// The variables, as the client's JSON.
    pub fn data(&self) -> &[u8] {
        let [_, _, _, data] = self.parts();
        data
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        self.record.parts(self.payload())
    }

    fn payload(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped { ticket: Ticket(position), map } => {
                map.bytes(record::payload(position.at, self.record.length))
            }
        }
    }

    /// Unix time in ms of its acceptance.
    pub fn enqueued(&self) -> u64 {
        self.record.enqueued
    }

    /// None for a send.
    pub fn ticket(&self) -> Option<Ticket> {
        match &self.bytes {
            Bytes::Mapped { ticket, .. } => Some(*ticket),
            Bytes::Owned(_) => None,
        }
    }

    pub fn id(&self) -> u64 {
        self.record.id
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Hand-outs so far, this one included.
    pub fn attempts(&self) -> u8 {
        self.record.attempts
    }

    /// Counts one more attempt of a send; the queue counts those of a push.
    pub fn count_attempt(&mut self) {
        self.record.attempts = self.record.attempts.saturating_add(1);
    }

    /// This hand-out was not the message's fault.
    pub fn forgive_attempt(&mut self) {
        self.record.attempts = self.record.attempts.saturating_sub(1);
    }

    /// This hand-out came to nothing that is known: WeChat may have taken the message.
    pub fn mark_unclear(&mut self) {
        if self.record.unclear == 0 {
            self.record.unclear = self.taken;
        }
    }

    /// Unix time in ms of the first hand-out whose outcome is unknown.
    pub fn unclear_since(&self) -> Option<u64> {
        (self.record.unclear > 0).then_some(self.record.unclear)
    }
}
