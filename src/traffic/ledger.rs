//! What the spool and the reactor tell the ledger, and what it asks of the spool. Plain data.

use super::batch::{Kind, ReplyTo};
use super::class::Class;
use super::job::Reason;
use super::line::End;
use crate::queue::{ClientMsgId, Message};

/// The longest text that is kept of a failure; WeChat's own are far shorter.
const TEXT: usize = 1024;

/// A push that ended undelivered: its record is marked done when the ledger has it.
pub struct Failure {
    pub message: Message,
    pub class: Class,
    pub errcode: Option<i64>,
    pub text: String,
    /// Unix time in ms, and the ms that the last call took.
    pub at: u64,
    pub called: Option<u32>,
}

impl Failure {
    pub fn new(
        message: Message,
        class: Class,
        reason: Reason,
        at: u64,
        called: Option<u32>,
    ) -> Failure {
        let Reason { errcode, mut text, .. } = reason;
        text.truncate(text.floor_char_boundary(TEXT));
        text.shrink_to_fit();
        Failure { message, class, errcode, text, at, called }
    }

    /// As the message log has it.
    pub fn end<'a>(&'a self, id: &'a ClientMsgId) -> End<'a> {
        End {
            kind: Kind::Push,
            openid: self.message.openid(),
            key: self.message.key(),
            id: id.as_bytes(),
            msgid: None,
            attempts: self.message.attempts(),
            enqueued: self.message.enqueued(),
            called: self.called,
            class: self.class.name(),
            errcode: self.errcode,
            client: None,
        }
    }
}

/// What the spool tells the ledger.
pub enum Note {
    Failed(Box<Failure>),
    /// The answer to `Event::Requeue`.
    Placed(Placed),
    /// The spool has ended, and whatever is recorded is marked done, durably.
    Ended,
}

/// A failed message on its way back into the queue.
pub struct Again {
    pub id: ClientMsgId,
    pub openid: Vec<u8>,
    pub key: Vec<u8>,
    pub data: Vec<u8>,
}

/// How many of a batch stand in the queue, durably, from the first on.
#[derive(Debug, Default)]
pub struct Placed {
    pub count: usize,
    /// Why not all of them.
    pub stopped: Option<Stopped>,
}

#[derive(Debug)]
pub enum Stopped {
    /// The next one never fits.
    TooLarge,
    /// Nothing fits at the moment.
    NotNow(String),
}

/// What an administrator asks the ledger for, with its JSON text.
pub struct Ask {
    pub to: ReplyTo,
    pub what: What,
    pub body: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Requeue,
    Dismiss,
}
