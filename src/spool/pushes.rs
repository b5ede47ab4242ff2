//! Pushes between the queue and the workers. Part of the spool's state.

use crate::queue::Message;

#[derive(Default)]
pub struct Pushes {
    /// Taken from the queue, and must let a send go first.
    peeked: Option<Message>,
    in_flight: usize,
    /// When the one was accepted that was handed out last, in ms since 1970.
    last_left: u64,
}

impl Pushes {
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn is_peeked(&self) -> bool {
        self.peeked.is_some()
    }

    /// When the one was accepted that was taken before.
    pub fn peeked(&self) -> Option<u64> {
        self.peeked.as_ref().map(Message::enqueued)
    }

    pub fn last_left(&self) -> u64 {
        self.last_left
    }

    /// The one that was taken before, if there is one.
    pub fn take_peeked(&mut self) -> Option<Message> {
        self.peeked.take()
    }

    pub fn peek(&mut self, message: Message) {
        self.peeked = Some(message);
    }

    /// One is in a worker's hands, or ready for them.
    pub fn leave(&mut self, message: &Message) {
        self.in_flight += 1;
        self.last_left = message.enqueued();
    }

    /// A worker has brought one back.
    pub fn land(&mut self) {
        self.in_flight -= 1;
    }
}
