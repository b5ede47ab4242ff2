//! The real queue and a tiny model of it in lockstep, under random actions, crashes and failures.

use super::simulated::Simulated;
use super::{Case, FAR, open_at, run_chore};
use crate::queue::janitor::Work;
use crate::queue::{
    Chore, ClientMsgId, Durability, HEAP_LIMIT, Mark, Message, New, Purpose, Queue, Refused, Rule,
    Swept, Which,
};
use fastrand::Rng;
use std::collections::{BTreeSet, VecDeque};

/// Seeds that found something once.
const SEEDS: &[u64] = &[
    2_967_185_573_012_922_439,
    1_510_289_315_687_899_261,
    2_807_462_719_272_948_221,
    1_626_305_876_460_122_075,
];

const CASES: u64 = 3_000;
const STEPS: usize = 400;

#[derive(Clone)]
struct Entry {
    id: u64,
    own_id: Option<ClientMsgId>,
    openid: Vec<u8>,
    data: Vec<u8>,
    attempts: u8,
    due: u64,
    done: bool,
}

/// What the queue must hold, in the order of the records.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    cursor: usize,
    /// Entries from here on were appended since the queue was opened.
    ours_from: usize,
    waiting: BTreeSet<(u64, usize)>,
    /// Retries that wait to be durable before they wait for their time.
    unsettled: VecDeque<(u64, usize)>,
    rules: Vec<Rule>,
}

impl Entry {
    fn is_caught(&self, rule: &Rule) -> bool {
        let Mark(before) = rule.before;
        let prefix = rule.which.openid.as_deref().unwrap_or_default();
        self.id < before && self.openid.starts_with(prefix.as_bytes())
    }
}

impl Model {
    fn take(&mut self, now: u64) -> Option<usize> {
        if let Some(&(due, index)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            return Some(index);
        }
        while self.waiting.len() < HEAP_LIMIT && self.cursor < self.entries.len() {
            let index = self.cursor;
            self.cursor += 1;
            let entry = &self.entries[index];
            match entry.due {
                _ if entry.done => {}
                due if due > 0 && index >= self.ours_from => {}
                _ if self.rules.iter().any(|rule| entry.is_caught(rule)) => {}
                due if due > now => {
                    self.waiting.insert((due, index));
                }
                _ => return Some(index),
            }
        }
        None
    }

    fn reopen(&mut self) {
        self.cursor = 0;
        self.ours_from = self.entries.len();
        self.waiting.clear();
        self.unsettled.clear();
    }

    /// All but the last so many retries are known to be durable.
    fn settle(&mut self, left: usize) {
        let durable = self.unsettled.len() - left;
        self.waiting.extend(self.unsettled.drain(..durable));
    }

    fn undone(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.done).count()
    }
}

struct Lockstep {
    disk: Simulated,
    queue: Queue,
    model: Model,
    rng: Rng,
    now: u64,
    /// Messages in workers' hands, with their places in the model.
    held: Vec<(Message, usize)>,
    /// Messages that a sweep has given out.
    caught: Vec<(Message, usize)>,
    sweeps: bool,
    /// Where the model's cursor stood when the rules came that the sweep serves, and where the entries ended.
    swept: (usize, usize),
    chores: VecDeque<Chore>,
    syncing: bool,
}

impl Lockstep {
    fn new(seed: u64) -> Lockstep {
        let disk = Simulated::default();
        Lockstep {
            queue: open_at(&disk, 1_000).unwrap(),
            disk,
            model: Model::default(),
            rng: Rng::with_seed(seed),
            now: 1_000,
            held: Vec::new(),
            caught: Vec::new(),
            sweeps: false,
            swept: (0, 0),
            chores: VecDeque::new(),
            syncing: false,
        }
    }

    fn step(&mut self) {
        match self.rng.u32(..1_000) {
            0..330 => self.append(),
            330..334 => self.cancel(),
            334..375 => self.sweep(),
            375..400 => self.end_caught(),
            400..640 => self.take(self.now),
            640..800 => self.done(),
            800..860 => self.retry(),
            860..890 => self.give_back(),
            890..930 => self.chore(),
            930..950 if !self.syncing => self.order_sync(),
            950..960 => self.sync(),
            960..980 => self.now += self.rng.u64(1..5_000),
            980..990 => self.disk.fail_in(self.rng.u64(..4)),
            990..993 => self.queue.settle(),
            993..=999 => self.crash(),
            _ => {}
        }
        self.model.settle(self.queue.unsettled.len());
        assert_eq!(self.queue.depth() as usize, self.model.undone());
        assert_eq!(self.queue.damage(), []);
    }

    fn append(&mut self) {
        let length = if self.rng.u8(..20) == 0 { 2_000 } else { self.rng.usize(..300) };
        let data: Vec<u8> = (0..length).map(|_| self.rng.u8(..)).collect();
        let openid = format!("o{}", self.model.entries.len()).into_bytes();
        let new = New { openid: &openid, key: b"key", data: &data };
        let own_id = ClientMsgId::new(&openid).filter(|_| self.rng.bool());
        let appended = match &own_id {
            Some(own_id) => self.queue.append_as(new, own_id, self.now),
            None => self.queue.append(new, self.now),
        };
        match appended {
            Ok(_) if self.queue.commit(Durability::Later).is_err() => self.crash(),
            Ok(id) => {
                assert!(self.model.entries.iter().all(|entry| entry.id < id));
                let entry = Entry { id, own_id, openid, data, attempts: 0, due: 0, done: false };
                self.model.entries.push(entry);
            }
            Err(refused) => {
                assert_eq!(refused, Refused::NoSegment);
                self.chore();
            }
        }
    }

    fn take(&mut self, now: u64) {
        // What cannot be opened is tried again later: see `known_cases`.
        self.disk.fail_no_more();
        // Now and then: it reads the file each time. Of those that are being cancelled it may show one.
        let look = self.model.entries.len().is_multiple_of(16) && !self.queue.cancels.any();
        let next = look.then(|| self.queue.next_enqueued(now)).flatten();
        let mut message = self.queue.take(now);
        while message.is_none() && self.queue.hurries() {
            message = self.queue.take(now);
        }
        let index = self.model.take(now);
        if let (Some(next), Some(message)) = (next, &message) {
            assert_eq!(next, message.enqueued());
        }
        assert_eq!(message.as_ref().map(Message::id), index.map(|i| self.model.entries[i].id));
        let (Some(message), Some(index)) = (message, index) else { return };
        let entry = &mut self.model.entries[index];
        entry.attempts += 1;
        assert_eq!(message.attempts(), entry.attempts);
        assert_eq!((message.openid(), message.key()), (&entry.openid[..], &b"key"[..]));
        assert_eq!(message.data(), entry.data);
        let id = entry.own_id.unwrap_or(ClientMsgId::of(self.queue.origin, entry.id));
        assert_eq!(message.client_msg_id(), id);
        self.held.push((message, index));
    }

    fn pick(&mut self) -> Option<(Message, usize)> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(self.rng.usize(..count)))
    }

    fn done(&mut self) {
        let Some((message, index)) = self.pick() else { return };
        self.queue.done(message.ticket().unwrap());
        self.model.entries[index].done = true;
    }

    fn retry(&mut self) {
        let Some((message, index)) = self.pick() else { return };
        let due = self.now + self.rng.u64(1..8_000);
        let before = self.queue.unsettled.len();
        self.queue.retry(&message, due, self.now);
        if self.queue.commit(Durability::Later).is_err() {
            return self.crash();
        }
        if self.queue.unsettled.len() == before {
            self.model.entries[index].due = due;
            self.model.waiting.insert((due, index));
            return;
        }
        let place = self.model.entries.len();
        let old = &mut self.model.entries[index];
        old.done = true;
        let new = Entry { due, done: false, ..old.clone() };
        self.model.entries.push(new);
        self.model.unsettled.push_back((due, place));
    }

    /// A rule comes, and once the last sweep has ended the next begins.
    fn cancel(&mut self) {
        if self.sweeps || !self.caught.is_empty() || self.model.rules.len() > 2 {
            return;
        }
        let openid = Some(format!("o{}", self.rng.u8(1..10)));
        let which = Which { openid, ..Which::default() };
        let number = self.model.entries.len() as u64;
        let rule = Rule { number, which, before: self.queue.order_mark() };
        self.queue.cancel(rule.clone());
        self.model.rules.push(rule);
        self.swept = (self.model.cursor, self.model.entries.len());
        self.begin_sweep();
    }

    fn begin_sweep(&mut self) {
        self.queue.begin_sweep(Purpose::End, self.model.rules.clone());
        self.sweeps = true;
    }

    /// A few looks; once the heap is out of its place, all of them until it is back.
    fn sweep(&mut self) {
        self.disk.fail_no_more();
        let mut looks = self.rng.u32(..40);
        while self.sweeps && (looks > 0 || self.queue.cancels.waiting() > 0) {
            looks = looks.saturating_sub(1);
            match self.queue.sweep(self.now) {
                Swept::Caught(_, message) => {
                    let mut entries = self.model.entries.iter().enumerate();
                    let found = entries.find(|(index, entry)| {
                        let unsettled = self.model.unsettled.iter().any(|(_, at)| at == index);
                        entry.id == message.id() && !entry.done && !unsettled
                    });
                    let (index, entry) = found.expect("it is known and not done");
                    assert!(self.model.rules.iter().any(|rule| entry.is_caught(rule)));
                    assert_eq!(
                        (message.data(), message.attempts()),
                        (&entry.data[..], entry.attempts)
                    );
                    let taken = self.held.iter().chain(&self.caught).any(|(_, at)| *at == index);
                    assert!(!taken, "somebody has it");
                    self.model.waiting.remove(&(entry.due, index));
                    // What was given back waits for nothing.
                    self.model.waiting.remove(&(0, index));
                    self.caught.push((message, index));
                }
                Swept::Passed => {}
                Swept::Waits => return,
                Swept::Ended => self.swept(),
            }
        }
    }

    /// Nothing is left that the sweep was to find.
    fn swept(&mut self) {
        self.sweeps = false;
        let (from, to) = self.swept;
        for (index, entry) in self.model.entries.iter().enumerate().take(to).skip(from) {
            let heaps = entry.due > 0 && index >= self.model.ours_from;
            let caught = self.caught.iter().any(|(_, at)| *at == index);
            let rule = self.model.rules.last().expect("it was for one");
            assert!(entry.done || heaps || caught || !entry.is_caught(rule), "{index} is left");
        }
    }

    fn end_caught(&mut self) {
        for _ in 0..self.rng.usize(..8) {
            let count = self.caught.len();
            if count == 0 {
                break;
            }
            let (message, index) = self.caught.swap_remove(self.rng.usize(..count));
            self.queue.done(message.ticket().unwrap());
            self.model.entries[index].done = true;
        }
        if !self.sweeps && self.caught.is_empty() && self.rng.bool() {
            for rule in self.model.rules.drain(..) {
                self.queue.forget_rule(rule.number);
            }
        }
    }

    fn order_sync(&mut self) {
        if let Some(chore) = self.queue.order_sync() {
            self.syncing = true;
            self.chores.push_back(chore);
        }
    }

    fn give_back(&mut self) {
        let Some((message, index)) = self.pick() else { return };
        self.queue.give_back(&message);
        self.model.entries[index].attempts -= 1;
        self.model.waiting.insert((0, index));
    }

    fn chore(&mut self) {
        while let Some(chore) = self.queue.chore() {
            self.chores.push_back(chore);
        }
        let Some(chore) = self.chores.pop_front() else { return };
        let syncs = matches!(chore.work, Work::Sync(_));
        self.syncing &= !syncs;
        if run_chore(&mut self.queue, chore).is_err() {
            self.queue.order_spare(self.now);
            if syncs {
                // A daemon that cannot sync ends.
                self.crash();
            }
        }
    }

    fn sync(&mut self) {
        if self.queue.commit(Durability::Now).is_err() {
            self.crash();
        }
    }

    /// The process ends here and now, and another one opens the folder.
    fn crash(&mut self) {
        // It was not in the middle of a turn (what is lost then, `power` shows), and what failed was
        // tried again.
        self.queue.write_marks();
        self.queue.write_marks();
        self.held.clear();
        self.caught.clear();
        self.syncing = false;
        for chore in std::mem::take(&mut self.chores) {
            // The janitor may have done it, and nobody has heard of it.
            if self.rng.bool() {
                let _ = chore.run();
            }
        }
        self.now += 1;
        self.queue = match open_at(&self.disk, self.now) {
            Ok(queue) => queue,
            // What failed was simulated, and only once.
            Err(_) => open_at(&self.disk, self.now).unwrap(),
        };
        self.model.reopen();
        self.swept = (0, self.model.entries.len());
        self.model.rules.iter().for_each(|rule| self.queue.cancel(rule.clone()));
        self.sweeps = false;
        if !self.model.rules.is_empty() {
            self.begin_sweep();
        }
    }

    /// Everything that is left comes out, once, and the folder is as good as empty.
    fn finish(&mut self) {
        self.disk.fail_no_more();
        self.queue.settle();
        self.model.settle(0);
        while self.sweeps {
            self.sweep();
        }
        while !self.caught.is_empty() || !self.model.rules.is_empty() {
            self.end_caught();
        }
        while self.held.len() + self.model.undone() > 0 {
            while self.model.undone() > self.held.len() {
                let before = self.held.len();
                self.take(FAR);
                assert!(self.held.len() > before, "something cannot be taken");
            }
            while !self.held.is_empty() {
                self.done();
            }
        }
        assert!(self.queue.take(FAR).is_none());
        self.queue.sync_all().unwrap();
        self.crash();
        assert!(self.queue.take(FAR).is_none());
        assert_eq!(self.queue.depth(), 0);
        for _ in 0..100 {
            self.chore();
        }
        assert!(self.disk.names().len() <= 2, "{:?}", self.disk.names());
    }
}

#[test]
fn the_queue_does_what_the_model_does() {
    for case in Case::series("MEGA_MODEL_SEED", SEEDS, CASES) {
        let mut lockstep = Lockstep::new(case.seed);
        for _ in 0..STEPS {
            lockstep.step();
        }
        lockstep.finish();
    }
}

#[test]
fn whichever_operation_fails_nothing_is_lost() {
    for reopens in [false, true] {
        for n in 0..200 {
            let mut lockstep = Lockstep::new(n);
            lockstep.disk.fail_in(n);
            for _ in 0..STEPS {
                let failing = lockstep.disk.is_failing();
                lockstep.step();
                if reopens && failing && !lockstep.disk.is_failing() {
                    lockstep.crash();
                }
            }
            lockstep.finish();
        }
    }
}
