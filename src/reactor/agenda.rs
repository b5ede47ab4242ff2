//! Who has something to do in this turn or a later one. Part of the reactor's state; knows clients by their
//! slots and touches no socket.

use super::conn::{Conn, Hold};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often connections are looked at for having overstayed.
pub const SWEEP: Duration = Duration::from_secs(1);

/// Who has something to do, by slot.
#[derive(Default)]
pub struct Agenda {
    /// To be read before the next poll.
    pub read: Vec<usize>,
    /// To be written to in this turn.
    pub write: Vec<usize>,
    /// Held back for the spool and for the store, in the order in which they go on.
    pub spool: VecDeque<usize>,
    pub store: VecDeque<usize>,
    pub sweep_at: Option<Instant>,
}

impl Agenda {
    /// Who is held back for this, in order.
    pub fn held(&mut self, hold: Hold) -> Option<&mut VecDeque<usize>> {
        match hold {
            Hold::Spool => Some(&mut self.spool),
            Hold::Store => Some(&mut self.store),
            // It goes on when its own results are written.
            Hold::Results => None,
        }
    }

    /// Puts a connection on the list of those to be written to, once.
    pub fn touch(&mut self, conn: &mut Conn, slot: usize) {
        if !conn.touched {
            conn.touched = true;
            self.write.push(slot);
        }
    }

    /// It is looked at again when it may have overstayed.
    pub fn watch(&mut self, conn: &Conn, now: Instant) {
        if conn.owes() {
            self.sweep_at.get_or_insert(now + SWEEP);
        }
    }
}
