//! What crosses between the reactor and the spool, many at a time: requests one way, replies the
//! other. Plain data.

use crate::queue::New;
use std::borrow::Cow;
use std::net::IpAddr;

/// One connection, told apart from a later one in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnId {
    pub slot: u32,
    pub generation: u32,
}

/// Whom a result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    pub conn: ConnId,
    pub opaque: u32,
    /// Bytes that the daemon holds for the request until its result reaches the reactor, which
    /// charged them and alone keeps the account; 0 where they are in a batch only.
    pub weight: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Push,
    Send,
}

/// A checked request, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub to: ReplyTo,
    pub kind: Kind,
    /// Where a send comes from; none over the administration socket, and of a push.
    pub client: Option<IpAddr>,
    /// The message's own client_msg_id; empty: it was given none.
    pub id: &'a [u8],
    pub new: New<'a>,
}

/// Sends that may wait in memory, all together.
pub const SENDS: usize = 100_000;

/// Requests of one client that may wait for their results: a tenth of the places there are.
pub const UNANSWERED: usize = SENDS / 10;

pub struct Reply {
    pub to: ReplyTo,
    pub code: u16,
    pub message: Cow<'static, str>,
    /// The connection ends after this reply.
    pub close: bool,
}

struct Entry {
    to: ReplyTo,
    kind: Kind,
    id: u8,
    openid: u32,
    key: u32,
    data: u32,
}

/// A batch of so many bytes comes from clients that do not wait for each reply.
const STREAM_BYTES: usize = 4 * 1024;

/// The requests of one turn of the reactor; the buffers go back and forth with it.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Of the sends among them, in their order: pushes do not pay for it.
    clients: Vec<Option<IpAddr>>,
    /// A single request of the client that sent the one before: who waits for it waits for nothing
    /// else.
    pub alone: bool,
}

impl Batch {
    pub fn add(&mut self, request: &Request) {
        let Request { to, kind, client, id, new: New { openid, key, data } } = *request;
        if kind == Kind::Send {
            self.clients.push(client);
        }
        for part in [id, openid, key, data] {
            self.bytes.extend_from_slice(part);
        }
        let [openid, key, data] = [openid, key, data].map(|part| part.len() as u32);
        // It was checked, and is short.
        let id = id.len() as u8;
        self.entries.push(Entry { to, kind, id, openid, key, data });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whose request it is, if it is a single one.
    pub fn single(&self) -> Option<ConnId> {
        match self.entries.as_slice() {
            [single] => Some(single.to.conn),
            _ => None,
        }
    }

    /// The next batch is likely to come at once.
    pub fn is_followed(&self) -> bool {
        self.alone || self.bytes() >= STREAM_BYTES
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory it takes up, used or not.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.clients.capacity() * size_of::<Option<IpAddr>>()
    }

    /// Empties it for its next turn; buffers that one large request blew up are let go.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.clients.clear();
        self.bytes.shrink_to(64 * 1024);
        self.entries.shrink_to(1024);
        self.clients.shrink_to(1024);
    }

    pub fn requests(&self) -> impl Iterator<Item = Request<'_>> {
        let mut rest = self.bytes.as_slice();
        let mut clients = self.clients.iter();
        self.entries.iter().map(move |entry| {
            let mut part = |length: u32| {
                let (part, after) = rest.split_at(length as usize);
                rest = after;
                part
            };
            let id = part(entry.id.into());
            let new =
                New { openid: part(entry.openid), key: part(entry.key), data: part(entry.data) };
            let client = match entry.kind {
                Kind::Push => None,
                Kind::Send => clients.next().copied().flatten(),
            };
            Request { to: entry.to, kind: entry.kind, client, id, new }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_send_has_its_own_client_whatever_pushes_stand_between_them() {
        let to = ReplyTo { conn: ConnId { slot: 0, generation: 0 }, opaque: 0, weight: 0 };
        let new = New { openid: b"o", key: b"key", data: b"null" };
        let [first, second] = [[10, 0, 0, 7], [10, 0, 0, 8]].map(|address| Some(address.into()));
        let requests = [
            (Kind::Push, None),
            (Kind::Send, first),
            (Kind::Push, None),
            (Kind::Send, None),
            (Kind::Send, second),
        ];
        let mut batch = Batch::default();
        for round in 0..2 {
            for (kind, client) in requests {
                let id: &[u8] = if client == first { b"id" } else { b"" };
                batch.add(&Request { to, kind, client, id, new });
            }
            let whole = |request: &Request| {
                let New { openid, key, data } = request.new;
                (openid, key, data) == (b"o", b"key", b"null")
                    && request.id.is_empty() != (request.client == first)
            };
            assert!(batch.requests().all(|request| whole(&request)));
            let found = batch.requests().map(|request| (request.kind, request.client));
            assert_eq!(found.collect::<Vec<_>>(), requests, "round {round}");
            batch.clear();
        }
        assert!(batch.is_empty());
    }
}
