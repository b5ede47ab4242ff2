//! How messages end, on its way to the ledger: failed pushes, which are done only when they are recorded, and
//! lines of the message log. Part of the spool's state.

use crate::clock::Now;
use crate::queue::Message;
use crate::traffic::UNRECORDED;
use crate::traffic::batch::Kind;
use crate::traffic::class::Class;
use crate::traffic::ledger::{Failure, Note};
use crate::traffic::line::{Block, End, Lines};
use crate::wechat::errcode::DUPLICATE;
use crossbeam_channel::{Sender, TrySendError};
use std::time::{Duration, Instant};

/// How long a line may wait for others.
const AGE: Duration = Duration::from_millis(100);

pub struct Ends {
    notes: Sender<Note>,
    blocks: Sender<Block>,
    /// Failures that the ledger has not recorded yet.
    unrecorded: usize,
    /// None: there is no message log.
    lines: Option<Lines>,
    /// Since when the first line waits, as far as it is known.
    since: Option<Instant>,
    /// Lines that found no room.
    missed: u64,
}

/// What a worker learnt of a message that has ended.
#[derive(Clone, Copy)]
pub struct Learnt {
    pub class: &'static str,
    pub errcode: Option<i64>,
    pub msgid: Option<u64>,
    pub called: Option<u32>,
}

impl Learnt {
    /// WeChat took it, or had it already.
    pub fn ok(duplicate: bool, msgid: Option<u64>, called: Option<u32>) -> Learnt {
        let errcode = Some(if duplicate { DUPLICATE } else { 0 });
        Learnt { class: Class::Ok.name(), errcode, msgid, called }
    }

    pub fn is_duplicate(&self) -> bool {
        self.errcode == Some(DUPLICATE)
    }
}

impl Ends {
    pub fn new(notes: Sender<Note>, blocks: Sender<Block>, log: bool) -> Ends {
        let lines = log.then(Lines::default);
        Ends { notes, blocks, unrecorded: 0, lines, since: None, missed: 0 }
    }

    /// A message more may fail.
    pub fn have_room(&self) -> bool {
        self.unrecorded < UNRECORDED
    }

    pub fn unrecorded(&self) -> usize {
        self.unrecorded
    }

    pub fn all_recorded(&self) -> bool {
        self.unrecorded == 0
    }

    pub fn fail(&mut self, failure: Failure) {
        self.unrecorded += 1;
        self.tell(Note::Failed(Box::new(failure)));
    }

    pub fn recorded(&mut self, count: usize) {
        self.unrecorded -= count;
    }

    /// S3: there is room, and a ledger that has ended ends the daemon too; what it was told of is in the
    /// queue still.
    pub fn tell(&self, note: Note) {
        if let Err(TrySendError::Full(_)) = self.notes.try_send(note) {
            log::error!(
                "a note found no room on its way to the ledger; it comes again at the next start"
            );
        }
    }

    /// Adds a line to the message log.
    pub fn log(&mut self, kind: Kind, message: &Message, learnt: Learnt, now: Now) {
        let Some(lines) = &mut self.lines else { return };
        let Learnt { class, errcode, msgid, called } = learnt;
        let id = message.client_msg_id();
        let end = End {
            kind,
            openid: message.openid(),
            key: message.key(),
            id: id.as_bytes(),
            msgid,
            attempts: message.attempts(),
            enqueued: message.enqueued(),
            called,
            class,
            errcode,
            client: None,
        };
        self.since.get_or_insert(now.at);
        let before = lines.add(now.ms, &end);
        let full = lines.is_full().then(|| lines.take());
        for block in before.into_iter().chain(full) {
            self.hand_over(block);
        }
    }

    /// When the lines that wait are to be handed over.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.since.map(|since| since + AGE)
    }

    /// Hands the lines over that have waited long enough, or all of them.
    pub fn flush(&mut self, now: Instant, all: bool) {
        if self.since.is_some_and(|since| all || now >= since + AGE)
            && let Some(lines) = &mut self.lines
        {
            let block = lines.take();
            self.hand_over(block);
        }
    }

    fn hand_over(&mut self, block: Block) {
        self.since = None;
        let block = Block { missed: self.missed, ..block };
        self.missed = match self.blocks.try_send(block) {
            Ok(()) => 0,
            Err(refused) => {
                let Block { missed, lines, .. } = refused.into_inner();
                missed + lines
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::New;
    use crossbeam_channel::bounded;

    #[test]
    fn a_line_waits_a_moment_for_others_and_those_that_find_no_room_are_counted() {
        let (notes, _notes) = bounded(1);
        let (to_log, log) = bounded(1);
        let mut ends = Ends::new(notes, to_log, true);
        let now = Now::read();
        let due = now.at + AGE;
        let message = Message::in_memory(1, 1, now.ms, New { openid: b"o", key: b"k", data: b"" });
        let lines = |ends: &mut Ends, count| {
            for _ in 0..count {
                ends.log(Kind::Push, &message, Learnt::ok(false, None, None), now);
            }
        };
        assert_eq!(ends.wakes_at(), None);
        lines(&mut ends, 4);
        assert_eq!(ends.wakes_at(), Some(due));
        ends.flush(due - Duration::from_nanos(1), false);
        assert!(log.is_empty());
        ends.flush(due, false);
        assert_eq!((ends.wakes_at(), log.len()), (None, 1));
        for found_no_room in [2, 3] {
            lines(&mut ends, found_no_room);
            ends.flush(now.at, true);
        }
        let block = || log.try_recv().map(|block| (block.lines, block.missed)).unwrap();
        assert_eq!(block(), (4, 0));
        for missed in [5, 0] {
            lines(&mut ends, 1);
            ends.flush(now.at, true);
            assert_eq!(block(), (1, missed));
        }
    }
}
