//! How messages end, on its way to the ledger: failed pushes, which are done only when they are recorded, and
//! lines of the message log. Part of the spool's state.

use crate::class::Class;
use crate::clock::Now;
use crate::queue::Message;
use crate::traffic::UNRECORDED;
use crate::traffic::batch::Kind;
use crate::traffic::job::Waiting;
use crate::traffic::ledger::{Failure, Kept, Note};
use crate::traffic::line::{Block, End, Lines};
use crate::wechat::errcode::DUPLICATE;
use crossbeam_channel::{Sender, TrySendError};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a line may wait for others.
const AGE: Duration = Duration::from_millis(100);

pub struct Ends {
    notes: Sender<Note>,
    blocks: Sender<Block>,
    /// Failures that the ledger has not recorded yet.
    unrecorded: usize,
    /// Of these, what was cancelled.
    cancelling: usize,
    /// Verdicts of an earlier run, by the number of the message: WeChat is not asked again.
    decided: HashMap<u64, Kept>,
    last: Last,
    /// None: there is no message log.
    lines: Option<Lines>,
    /// Since when the first line waits, as far as it is known.
    since: Option<Instant>,
    /// Lines that found no room.
    missed: u64,
}

/// How far it has come with the failures that are unrecorded when the spool stops.
#[derive(PartialEq, Eq)]
enum Last {
    Open,
    /// The ledger was told that they are the last.
    Told,
    /// They cannot be recorded now, and are kept for the next run.
    Kept,
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
        Ends {
            notes,
            blocks,
            unrecorded: 0,
            cancelling: 0,
            decided: HashMap::new(),
            last: Last::Open,
            lines,
            since: None,
            missed: 0,
        }
    }

    /// A message more may fail.
    pub fn have_room(&self) -> bool {
        self.unrecorded < UNRECORDED
    }

    /// A message more may be cancelled, and others may fail meanwhile.
    pub fn may_cancel(&self) -> bool {
        self.cancelling < UNRECORDED / 2 && self.have_room()
    }

    pub fn cancelling(&self) -> usize {
        self.cancelling
    }

    pub fn unrecorded(&self) -> usize {
        self.unrecorded
    }

    pub fn all_recorded(&self) -> bool {
        self.unrecorded == 0
    }

    /// Nothing more will fail: true when every failure is recorded, or cannot be for now.
    pub fn last(&mut self) -> bool {
        if self.last == Last::Open && !self.all_recorded() {
            self.last = Last::Told;
            self.tell(Note::Last);
        }
        self.all_recorded() || self.last == Last::Kept
    }

    pub fn kept(&mut self) {
        self.last = Last::Kept;
    }

    pub fn remember(&mut self, decided: HashMap<u64, Kept>) {
        self.decided = decided;
    }

    /// The verdict that an earlier run came to of this message.
    pub fn decided(&mut self, message: &Message) -> Option<Kept> {
        self.decided.get(&message.id()).filter(|kept| kept.is_of(message))?;
        self.decided.remove(&message.id())
    }

    pub fn fail(&mut self, failure: Failure) {
        self.unrecorded += 1;
        self.cancelling += usize::from(failure.class == Class::Cancelled);
        self.tell(Note::Failed(Box::new(failure)));
    }

    /// So many are recorded, and of these so many were cancelled.
    pub fn recorded(&mut self, count: usize, cancelled: usize) {
        self.unrecorded -= count;
        self.cancelling -= cancelled;
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

    /// Adds a line to the message log; `waiting`: who waits for it, if it is a send.
    pub fn log(&mut self, message: &Message, waiting: Option<&Waiting>, learnt: Learnt, now: Now) {
        let Some(lines) = &mut self.lines else { return };
        let Learnt { class, errcode, msgid, called } = learnt;
        let end = End {
            kind: if waiting.is_some() { Kind::Send } else { Kind::Push },
            openid: message.openid(),
            key: message.key(),
            id: message.client_msg_id(),
            msgid,
            attempts: message.attempts(),
            enqueued: message.enqueued(),
            called,
            class,
            errcode,
            client: waiting.and_then(|waiting| waiting.client),
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
        let message =
            Message::in_memory(1, 1, now.ms, New { openid: b"o", key: b"k", data: b"" }, b"");
        let lines = |ends: &mut Ends, count| {
            for _ in 0..count {
                ends.log(&message, None, Learnt::ok(false, None, None), now);
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
