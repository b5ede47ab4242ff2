//! Pushes between the queue and the workers. Part of the spool's state.

use crate::queue::Message;

#[derive(Default)]
pub struct Pushes {
    /// Taken from the queue, and must let a send go first.
    peeked: Option<Message>,
    in_flight: usize,
}

impl Pushes {
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn is_peeked(&self) -> bool {
        self.peeked.is_some()
    }

    /// The one that was taken before, if there is one.
    pub fn take_peeked(&mut self) -> Option<Message> {
        self.peeked.take()
    }

    pub fn peek(&mut self, message: Message) {
        self.peeked = Some(message);
    }

    /// One is in a worker's hands, or ready for them.
    pub fn leave(&mut self) {
        self.in_flight += 1;
    }

    /// A worker has brought one back.
    pub fn land(&mut self) {
        self.in_flight -= 1;
    }
}
