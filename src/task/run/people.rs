//! The people that a run holds: read from the list and not answered yet. Who may go out, who is out, and who goes out
//! again. Knows the list; no network, no journal.
//!
//! A person is *held* from being read until being answered. Each time before a message may go out, the time is put
//! into `Open::since`, and the person waits until the journal has it (J2): `cleared` says with which block. Times are
//! handed in, as `clock::uptime_ms` tells them.

use crate::task::journal::Open;
use crate::task::list::{Kept, Person};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// How long a repeat is recognised at least: WeChat's ten minutes, which begin when the first message goes out at the
/// earliest, less what mega may take until the repeat is with WeChat, and what two clocks may differ.
pub const RECOGNISED_FOR: Duration = Duration::from_secs(10 * 60 - 90);

/// A time that was put down for somebody who did not go out is put down anew after this.
const STALE: Duration = Duration::from_secs(20);

/// The next attempt after an answer that said nothing.
const UNCLEAR_PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// How long before `now` that was, both in ms since the machine began: a clock that is set makes nobody older or
/// younger, and a machine that slept does.
fn age(since: i64, now: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(since)).unwrap_or_default())
}

pub struct Held {
    pub open: Open,
    pub line: u64,
    pub openid: String,
    /// The own variables.
    pub data: String,
    /// The block with which the journal has `open.since`.
    cleared: u64,
    /// An earlier message of it is of unknown fate.
    doubt: bool,
    /// The connection that owes the answer.
    pub on: Option<usize>,
    /// After so many answers that said nothing.
    tries: usize,
    not_before: Option<Instant>,
}

impl Held {
    fn new(person: Person, open: Open) -> Held {
        let Person { line, openid, data } = person;
        let (cleared, doubt) = (0, open.since.is_some());
        let (on, tries, not_before) = (None, 0, None);
        Held { open, line, openid, data, cleared, doubt, on, tries, not_before }
    }

    /// A repeat would not be recognised any more.
    fn is_too_late(&self, now: i64) -> bool {
        self.doubt && self.is_older(RECOGNISED_FOR, now)
    }

    /// Something may be out, and was to go out as long ago as that.
    fn is_older(&self, than: Duration, now: i64) -> bool {
        self.open.since.is_some_and(|since| age(since, now) >= than)
    }
}

/// How many may be held, so that they can go out at once when there is room.
const AHEAD: std::ops::Range<usize> = 16..4_096;

pub struct People {
    list: Kept,
    next: u64,
    total: u64,
    slots: Vec<Option<Held>>,
    free: Vec<u32>,
    /// To go out again, before those who have not been out.
    again: VecDeque<u32>,
    ready: VecDeque<u32>,
    /// To go out again, not yet.
    later: Vec<u32>,
    ahead: usize,
    most_ahead: usize,
    window: usize,
    out: usize,
    /// The last block that somebody had to wait for.
    starved: u64,
}

/// Whether somebody may go out.
pub enum Next {
    Goes(u32),
    /// As soon as the journal has it.
    Waits,
    /// WeChat may have it, and would not recognise a repeat.
    TooLate(u32),
    Nobody,
}

impl People {
    /// Those from `next` on, where `list` stands.
    pub fn new(list: Kept, next: u64, total: u64, window: usize, rate: Option<u32>) -> People {
        // Who is held for long has an old time in the journal.
        let most_ahead = rate.map_or(AHEAD.end, |rate| (rate as usize).clamp(1, AHEAD.end));
        People {
            list,
            next,
            total,
            slots: Vec::new(),
            free: Vec::new(),
            again: VecDeque::new(),
            ready: VecDeque::new(),
            later: Vec::new(),
            ahead: window.clamp(AHEAD.start, AHEAD.end).min(most_ahead),
            most_ahead,
            window,
            out: 0,
            starved: 0,
        }
    }

    /// One whom an earlier run held.
    pub fn hold(&mut self, person: Person, open: Open) {
        let slot = self.keep(Held::new(person, open));
        self.again.push_back(slot);
    }

    fn keep(&mut self, held: Held) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(held);
                slot
            }
            None => {
                self.slots.push(Some(held));
                (self.slots.len() - 1) as u32
            }
        }
    }

    pub fn out(&self) -> usize {
        self.out
    }

    /// Everybody is answered.
    pub fn is_done(&self) -> bool {
        self.next >= self.total && self.free.len() == self.slots.len()
    }

    pub fn get(&self, slot: u32) -> Option<&Held> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn held(&mut self, slot: u32) -> &mut Held {
        self.slots[slot as usize].as_mut().expect("invariant: a slot in a line is held")
    }

    /// Reads people ahead, for the journal to have them with block `block`; true if there were any.
    pub fn read(&mut self, block: u64, now: i64) -> io::Result<bool> {
        let mut any = false;
        let since = Some(now);
        while self.ready.len() < self.ahead && self.next < self.total {
            let offset = self.list.offset();
            let person = self.list.at(offset)?;
            let open = Open { index: self.next, offset, since, turn: 0 };
            let held = Held { cleared: block, doubt: false, ..Held::new(person, open) };
            let slot = self.keep(held);
            self.ready.push_back(slot);
            self.next += 1;
            any = true;
        }
        Ok(any)
    }

    /// There was room in the window and nobody whom the journal had: more are read ahead from now on.
    pub fn starves(&mut self, block: u64) {
        if std::mem::replace(&mut self.starved, block) != block {
            self.ahead = (self.ahead * 2).min(self.most_ahead);
        }
    }

    /// The first in line, if block `acked` is in the journal.
    pub fn next(&self, acked: u64, now: i64) -> Next {
        // Whoever was out once holds a place in the window until the answer.
        let engaged = self.slots.len() - self.free.len() - self.ready.len();
        let fresh = || self.ready.front().filter(|_| engaged < self.window);
        let Some(slot) = self.again.front().or_else(fresh).copied() else { return Next::Nobody };
        let held = self.get(slot).expect("invariant: a slot in a line is held");
        match () {
            () if held.is_too_late(now) => Next::TooLate(slot),
            () if held.doubt => Next::Goes(slot),
            () if held.open.since.is_none() || held.is_older(STALE, now) => Next::Waits,
            () if held.cleared > acked => Next::Waits,
            () => Next::Goes(slot),
        }
    }

    /// Puts the time down for those in line who need it, for the journal to have it with block `block`; true if there
    /// were any.
    pub fn stage(&mut self, block: u64, now: i64) -> bool {
        self.stage_first(self.ahead.max(self.window), block, now)
    }

    /// As `stage`, for so many at most: who will not go out soon is not to be in doubt if the process is killed.
    pub fn stage_first(&mut self, most: usize, block: u64, now: i64) -> bool {
        let mut any = false;
        for slot in self.again.iter().chain(&self.ready).take(most) {
            let held =
                self.slots[*slot as usize].as_mut().expect("invariant: a slot in a line is held");
            // Those who are young enough stay so until the next block.
            if !held.doubt && (held.open.since.is_none() || held.is_older(STALE / 2, now)) {
                held.open.since = Some(now);
                held.cleared = block;
                any = true;
            }
        }
        any
    }

    /// Nobody goes out for a while: who was not out is told apart from who was; true if there were any.
    pub fn unstage(&mut self) -> bool {
        let mut any = false;
        for slot in self.again.iter().chain(&self.ready) {
            let held =
                self.slots[*slot as usize].as_mut().expect("invariant: a slot in a line is held");
            if !held.doubt {
                any |= held.open.since.take().is_some();
            }
        }
        any
    }

    /// The first in line goes out.
    pub fn goes(&mut self, slot: u32, on: usize) -> &Held {
        if self.again.pop_front().is_none() {
            self.ready.pop_front();
        }
        self.out += 1;
        let held = self.held(slot);
        held.on = Some(on);
        held
    }

    /// The connection that owed the answer is gone, or the answer says nothing: out of the window.
    fn lands(&mut self, slot: u32) -> &mut Held {
        self.out -= 1;
        let held = self.held(slot);
        held.on = None;
        held
    }

    /// It was not taken in: nothing is out, unless an earlier one of unknown fate is.
    pub fn comes_again(&mut self, slot: u32) {
        let held = self.lands(slot);
        if !held.doubt {
            held.open.since = None;
        }
        self.again.push_back(slot);
    }

    /// WeChat refused it for good: another message is to be sent, under another id, unless an earlier one of unknown
    /// fate may have reached WeChat.
    pub fn takes_another_turn(&mut self, slot: u32) {
        let held = self.lands(slot);
        if !held.doubt {
            held.open.since = None;
            held.open.turn += 1;
        }
        self.again.push_back(slot);
    }

    /// Nobody knows what became of it: it goes out again under the same id, after a pause.
    pub fn stays_unclear(&mut self, slot: u32, now: Instant) {
        let held = self.lands(slot);
        let pause = UNCLEAR_PAUSES[held.tries.min(UNCLEAR_PAUSES.len() - 1)];
        held.tries += 1;
        held.doubt = true;
        held.not_before = Some(now + Duration::from_secs(pause));
        self.later.push(slot);
    }

    /// A connection is gone: what it owed goes out again under the same ids. Calls `on_lost` for each.
    pub fn lose(&mut self, on: usize, mut on_lost: impl FnMut(u32)) {
        for slot in 0..self.slots.len() as u32 {
            if self.get(slot).is_some_and(|held| held.on == Some(on)) {
                self.lands(slot).doubt = true;
                self.again.push_back(slot);
                on_lost(slot);
            }
        }
        self.sort();
    }

    /// Those who go out again do so in the list's order.
    pub fn sort(&mut self) {
        let slots = &self.slots;
        let index = |slot: &u32| slots[*slot as usize].as_ref().map(|held| held.open.index);
        self.again.make_contiguous().sort_by_key(index);
    }

    /// Those whose pause is over are in line again; returns when the next one's is.
    pub fn look(&mut self, now: Instant) -> Option<Instant> {
        let slots = &self.slots;
        let due = |slot: &u32| slots[*slot as usize].as_ref().and_then(|held| held.not_before);
        let again = &mut self.again;
        self.later.retain(|slot| {
            let waits = due(slot).is_some_and(|at| at > now);
            if !waits {
                again.push_back(*slot);
            }
            waits
        });
        self.later.iter().filter_map(due).min()
    }

    /// Answered: held no more.
    pub fn ends(&mut self, slot: u32) -> Held {
        self.out -= 1;
        self.forget(slot)
    }

    /// The first in line is held no more: too late.
    pub fn ends_unanswered(&mut self, slot: u32) -> Held {
        if self.again.pop_front().is_none() {
            self.ready.pop_front();
        }
        self.forget(slot)
    }

    fn forget(&mut self, slot: u32) -> Held {
        let held = self.slots[slot as usize].take().expect("invariant: a slot in a line is held");
        self.free.push(slot);
        held
    }

    /// What the journal is to know of them: the next one who is not held, where the list has that one, and all who are.
    pub fn put(&self, open: &mut Vec<Open>) -> (u64, u64) {
        open.clear();
        open.extend(self.slots.iter().flatten().map(|held| held.open));
        (self.next, self.list.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::list::Keeper;

    const MINUTE: i64 = 60_000;

    /// `count` people, of whom as many may be out as `window` says.
    fn people(count: u64, window: usize) -> (tempfile::TempDir, People) {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::create(folder.path()).unwrap();
        for line in 1..=count {
            let (openid, data) = (format!("o{line}"), String::new());
            keeper.keep(&Person { line, openid, data }).unwrap();
        }
        keeper.finish().unwrap();
        let list = Kept::open(folder.path(), 0).unwrap();
        (folder, People::new(list, 0, count, window, None))
    }

    #[test]
    fn nobody_goes_out_before_the_journal_has_the_time_nor_long_after() {
        let (_folder, mut people) = people(3, 2);
        // The machine began 49 days before now, or has just begun.
        for (block, now) in [(1, 49 * 24 * 60 * MINUTE), (2, 5)] {
            people.unstage();
            people.read(block, now).unwrap();
            people.stage(block, now);
            assert!(matches!(people.next(block - 1, now), Next::Waits));
            assert!(matches!(people.next(block, now), Next::Goes(_)));
            let late = now + 20_000;
            assert!(matches!(people.next(block, late), Next::Waits), "its time is old");
            assert!(people.stage(block + 1, late));
            assert!(matches!(people.next(block + 1, late), Next::Goes(_)));
        }
    }

    #[test]
    fn who_was_out_goes_out_again_for_as_long_as_a_repeat_is_recognised() {
        let (_folder, mut people) = people(1, 2);
        // An earlier start of the machine: before this one's first ms.
        let open = Open { index: 0, offset: 0, since: Some(-5 * MINUTE), turn: 0 };
        let person = Person { line: 1, openid: "o1".into(), data: String::new() };
        people.hold(person, open);
        assert!(matches!(people.next(0, 3 * MINUTE), Next::Goes(_)));
        assert!(matches!(people.next(0, 3 * MINUTE + MINUTE / 2 - 1), Next::Goes(_)));
        assert!(matches!(people.next(0, 3 * MINUTE + MINUTE / 2), Next::TooLate(_)));
    }
}
