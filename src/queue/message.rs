//! A message on its way: what a worker needs to send it. Lives on any thread; its bytes are its own.

use super::Position;
use super::client_msg_id::ClientMsgId;
use super::record::{Parts, Record};
use serde::{Deserialize, Serialize};

/// Where a message stands in the queue; only the queue can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) Position);

/// A moment in the order of acceptance: what is accepted later stands behind it.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub(super) u64);

pub struct Message {
    /// What its client_msg_id is made of, beside its id: a queue, or the run of a process for a send.
    origin: u64,
    record: Record,
    payload: Box<[u8]>,
    /// None for a send: somebody waits for its result, so it is never stored.
    ticket: Option<Ticket>,
    /// Unix time in ms of this hand-out.
    taken: u64,
}

impl Message {
    pub(super) fn on_disk(
        origin: u64,
        ticket: Ticket,
        record: Record,
        payload: &[u8],
        taken: u64,
    ) -> Message {
        Message { origin, record, payload: payload.into(), ticket: Some(ticket), taken }
    }

    /// A send's message: `run` is random per process, so its ids meet no other's; `own`: the one that its client
    /// gave it, if any.
    pub fn in_memory(run: u64, id: u64, now: u64, new: super::New, own: &[u8]) -> Message {
        let parts = new.parts(own);
        let (record, payload) = (Record::fresh(id, parts, now), parts.concat().into());
        Message { origin: run, record, payload, ticket: None, taken: now }
    }

    /// What WeChat recognises a repeat by: the same for every attempt.
    pub fn client_msg_id(&self) -> ClientMsgId {
        self.record.client_msg_id(self.origin, &self.payload)
    }

    /// The client_msg_id that it came with, if any.
    pub fn own_id(&self) -> Option<&[u8]> {
        let [own, _, _, _] = self.parts();
        (!own.is_empty()).then_some(own)
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
        self.record.parts(&self.payload)
    }

    /// Unix time in ms of its acceptance.
    pub fn enqueued(&self) -> u64 {
        self.record.enqueued
    }

    /// None for a send.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// It was accepted before that moment, however often it was tried again since.
    pub fn is_before(&self, mark: &Mark) -> bool {
        self.record.id < mark.0
    }

    /// Unlike every other of its origin.
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
