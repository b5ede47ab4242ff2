//! What the spool and the reactor tell the ledger, and what it asks of the spool. Plain data.

use super::batch::{Kind, ReplyTo};
use super::class::Class;
use super::job::Reason;
use super::line::End;
use crate::queue::{ClientMsgId, Message};
use serde::{Deserialize, Serialize};

/// The longest text that is kept of a failure; WeChat's own are far shorter.
const TEXT: usize = 1024;

/// The same where the message stays in the queue for now.
const KEPT_TEXT: usize = 256;

/// A push that ended undelivered: its record is marked done when the ledger has it.
pub struct Failure {
    pub message: Message,
    pub attempts: u8,
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
        Failure { attempts: message.attempts(), message, class, errcode, text, at, called }
    }

    /// As the message log has it.
    pub fn end(&self) -> End<'_> {
        End {
            kind: Kind::Push,
            openid: self.message.openid(),
            key: self.message.key(),
            id: self.message.client_msg_id(),
            msgid: None,
            attempts: self.attempts,
            enqueued: self.message.enqueued(),
            called: self.called,
            class: self.class.name(),
            errcode: self.errcode,
            client: None,
        }
    }
}

/// A verdict without its message, which stays in the queue until the verdict is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The message's, and its client_msg_id.
    pub number: u64,
    pub id: String,
    attempts: u8,
    class: Class,
    errcode: Option<i64>,
    text: String,
    at: u64,
    called: Option<u32>,
}

impl Failure {
    pub fn kept(&self) -> Kept {
        let Failure { ref message, attempts, class, errcode, ref text, at, called } = *self;
        let (number, id) = (message.id(), message.client_msg_id().as_str().into());
        let text = text[..text.floor_char_boundary(KEPT_TEXT)].into();
        Kept { number, id, attempts, class, errcode, text, at, called }
    }
}

impl Kept {
    /// Whether this is the message of which it speaks.
    pub fn is_of(&self, message: &Message) -> bool {
        message.id() == self.number && message.client_msg_id().as_str() == self.id
    }

    pub fn with(self, message: Message) -> Failure {
        let Kept { attempts, class, errcode, text, at, called, .. } = self;
        Failure { message, attempts, class, errcode, text, at, called }
    }
}

/// What the spool tells the ledger.
pub enum Note {
    Failed(Box<Failure>),
    /// The answer to `Event::Requeue`.
    Placed(Placed),
    /// Nothing more will fail: what is not recorded yet is recorded now, or kept as it is (`Event::Kept`).
    Last,
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
    /// The user at the other end of the socket, as the kernel has it.
    pub by: String,
    pub body: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Requeue,
    Dismiss,
}
