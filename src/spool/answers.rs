//! Results on their way to clients, and batches on their way back to the reactor. Part of the spool's state.
//! S1: a push is answered 200 only by `kept`.

use crate::traffic::batch::{Batch, Reply, ReplyTo};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::wire::command;
use std::borrow::Cow;

pub struct Answers {
    mailbox: Mailbox,
    /// Whose pushes are in the queue, but not as safe as promised yet.
    accepted: Vec<ReplyTo>,
    /// Who has asked for one of them, or for an earlier one, again.
    repeated: Vec<ReplyTo>,
    replies: Vec<Reply>,
    finished: Vec<Batch>,
}

impl Answers {
    pub fn new(mailbox: Mailbox) -> Answers {
        let (accepted, repeated) = (Vec::new(), Vec::new());
        Answers { mailbox, accepted, repeated, replies: Vec::new(), finished: Vec::new() }
    }

    pub fn say(&mut self, to: ReplyTo, code: u16, message: impl Into<Cow<'static, str>>) {
        self.replies.push(Reply { to, code, message: message.into(), close: false });
    }

    /// Not now, and why.
    pub fn not_now(&mut self, to: ReplyTo, why: impl Into<Cow<'static, str>>) {
        self.say(to, command::UNAVAILABLE, why);
    }

    /// Its push is in the queue.
    pub fn accept(&mut self, to: ReplyTo) {
        self.accepted.push(to);
    }

    /// Its push was in the queue already, perhaps since a moment ago.
    pub fn accept_again(&mut self, to: ReplyTo) {
        self.repeated.push(to);
    }

    /// Nobody waits for what is to be made safe.
    pub fn nobody_accepted(&self) -> bool {
        self.accepted.is_empty()
    }

    /// What was accepted is as safe as promised (S1); returns how many that were.
    pub fn kept(&mut self) -> u64 {
        let count = self.accepted.len() as u64;
        let told = |to| Reply { to, code: command::OK, message: "".into(), close: false };
        self.replies.extend(self.accepted.drain(..).chain(self.repeated.drain(..)).map(told));
        count
    }

    /// What was accepted cannot be kept, and nobody is told otherwise (S1).
    pub fn not_kept(&mut self, why: &str) {
        let repeated = std::mem::take(&mut self.repeated);
        for to in std::mem::take(&mut self.accepted).into_iter().chain(repeated) {
            self.say(to, command::FAILED, why.to_owned());
        }
    }

    /// All of its requests are taken in, or answered.
    pub fn finish(&mut self, batch: Batch) {
        self.finished.push(batch);
    }

    /// An administrator's order was carried out, or could not be.
    pub fn steered(&self, reply: Reply) {
        self.mailbox.send(Mail::Steered(reply));
    }

    pub fn mail(&mut self) {
        if self.replies.is_empty() && self.finished.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.replies);
        let batches = std::mem::take(&mut self.finished);
        self.mailbox.send(Mail::Replies { replies, batches });
    }
}
