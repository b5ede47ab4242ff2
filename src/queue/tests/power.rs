//! Loss of power at any moment: what was synced is there, once, and nothing is there that was not
//! put in. Also where a sync failed before: the process ends, and the next one must not believe what
//! the page cache shows.

use super::simulated::{Loss, Simulated};
use super::{Case, drain, open_at, run_chore};
use crate::queue::janitor::Work;
use crate::queue::{
    Chore, ClientMsgId, Durability, Message, New, Purpose, Queue, Refused, Rule, Swept, Which,
};
use fastrand::Rng;
use std::collections::{HashMap, HashSet};

/// Seeds that found something once.
const SEEDS: &[u64] = &[];

const CASES: u64 = 2_000;
const STEPS: usize = 200;

struct Run {
    disk: Simulated,
    queue: Queue,
    rng: Rng,
    now: u64,
    held: Vec<Message>,
    /// What a sweep has given out, and whether there is one.
    caught: Vec<Message>,
    sweeps: bool,
    /// A sync that was ordered, and what it speaks for.
    ordered: Option<(Chore, Vec<u64>, HashSet<u64>)>,
    /// What WeChat knows it by and the bytes of every message that was ever accepted, by id.
    accepted: HashMap<u64, (ClientMsgId, Vec<u8>)>,
    done: HashSet<u64>,
    /// Of the accepted ones those that a sync has covered.
    promised: HashSet<u64>,
    /// When each was handed out, and of which of those in somebody's hands a sync has covered it.
    handed: HashMap<u64, Vec<u64>>,
    out: HashSet<u64>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = Simulated::default();
        Run {
            queue: open_at(&disk, 1_000).unwrap(),
            disk,
            rng: Rng::with_seed(seed),
            now: 1_000,
            held: Vec::new(),
            caught: Vec::new(),
            sweeps: false,
            ordered: None,
            accepted: HashMap::new(),
            done: HashSet::new(),
            promised: HashSet::new(),
            handed: HashMap::new(),
            out: HashSet::new(),
        }
    }

    fn step(&mut self) {
        self.now += self.rng.u64(..100);
        match self.rng.u32(..100) {
            0..30 => self.append(),
            30..35 => self.cancel(),
            35..58 => self.take(),
            58..70 => self.done(),
            70..84 => self.retry(),
            84..87 => self.sync(),
            87..91 => self.order_sync(),
            91..95 => self.end_sync(),
            95 => self.restart(),
            _ => self.chores(),
        }
    }

    fn take(&mut self) {
        let Some(message) = self.queue.take(self.now) else { return };
        self.handed.entry(message.id()).or_default().push(self.now);
        self.held.push(message);
    }

    fn append(&mut self) {
        let limit = if self.rng.bool() { 1_500 } else { 100 };
        let length = self.rng.usize(..limit);
        let data: Vec<u8> = (0..length).map(|_| self.rng.u8(..)).collect();
        let openid = if self.rng.bool() { &b"openid-c"[..] } else { b"openid" };
        let new = New { openid, key: b"key", data: &data };
        let own_id = format!("own-{}", self.accepted.len());
        let own_id = ClientMsgId::new(own_id.as_bytes()).filter(|_| self.rng.bool());
        let appended = match &own_id {
            Some(own_id) => self.queue.append_as(new, own_id, self.now),
            None => self.queue.append(new, self.now),
        };
        match appended {
            Ok(id) => {
                self.queue.commit(Durability::Later).unwrap();
                let own_id = own_id.unwrap_or(ClientMsgId::of(self.queue.origin, id));
                let before = self.accepted.insert(id, (own_id, data));
                assert!(before.is_none(), "an id was used twice");
            }
            Err(refused) => {
                assert_eq!(refused, Refused::NoSegment);
                self.chores();
            }
        }
    }

    fn pick(&mut self) -> Option<Message> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(self.rng.usize(..count)))
    }

    fn done(&mut self) {
        let Some(message) = self.pick() else { return };
        self.done.insert(message.id());
        self.queue.done(message.ticket().unwrap());
    }

    fn retry(&mut self) {
        let Some(message) = self.pick() else { return };
        // Its next hand-out is another one.
        self.out.remove(&message.id());
        if let Some((_, _, out)) = &mut self.ordered {
            out.remove(&message.id());
        }
        self.queue.retry(&message, self.now + self.rng.u64(1..200), self.now);
        self.queue.commit(Durability::Later).unwrap();
    }

    /// Messages of one kind are given out by a sweep, a few at a time, and ended sooner or later.
    fn cancel(&mut self) {
        if !self.sweeps && self.caught.is_empty() {
            let which = Which { openid: Some("openid-c".into()), ..Which::default() };
            let rule = Rule { number: 1, which, before: self.queue.order_mark() };
            self.queue.forget_rule(1);
            self.queue.cancel(rule.clone());
            self.queue.begin_sweep(Purpose::End, vec![rule]);
            self.sweeps = true;
        }
        let mut looks = self.rng.u32(..100);
        while self.sweeps && (looks > 0 || self.queue.cancels.waiting() > 0) {
            looks = looks.saturating_sub(1);
            match self.queue.sweep(self.now) {
                Swept::Caught(_, message) => self.caught.push(message),
                Swept::Passed => {}
                Swept::Waits => break,
                Swept::Ended => self.sweeps = false,
            }
        }
        for message in self.caught.split_off(self.rng.usize(..=self.caught.len())) {
            self.done.insert(message.id());
            self.queue.done(message.ticket().unwrap());
        }
    }

    fn sync(&mut self) {
        let fails = self.rng.u8(..8) == 0;
        if fails {
            self.disk.fail_in(self.rng.u64(..3));
        }
        let synced = self.queue.commit(Durability::Now);
        self.disk.fail_no_more();
        match synced {
            Ok(()) => self.promised = self.accepted.keys().copied().collect(),
            Err(_) => self.restart(),
        }
    }

    /// More is stored between the order and its end, which the sync does not speak for.
    fn order_sync(&mut self) {
        if self.ordered.is_none() {
            let covered = self.accepted.keys().copied().collect();
            let out = self.held.iter().map(Message::id).collect();
            self.ordered = self.queue.order_sync().map(|chore| (chore, covered, out));
        }
    }

    fn end_sync(&mut self) {
        let Some((chore, covered, out)) = self.ordered.take() else { return };
        if self.rng.u8(..8) == 0 {
            self.disk.fail_in(self.rng.u64(..3));
        }
        let synced = run_chore(&mut self.queue, chore);
        self.disk.fail_no_more();
        match synced {
            Ok(()) => {
                self.promised.extend(covered);
                let still = self.held.iter().map(Message::id).filter(|id| out.contains(id));
                self.out.extend(still.collect::<Vec<_>>());
            }
            Err(_) => self.restart(),
        }
    }

    fn chores(&mut self) {
        while let Some(chore) = self.queue.chore() {
            let retires = matches!(chore.work, Work::Retire { .. });
            run_chore(&mut self.queue, chore).unwrap();
            if retires && self.rng.bool() {
                return;
            }
        }
    }

    /// The process ends, because a sync has failed or for another reason, and starts again. The
    /// first start may fail as well.
    fn restart(&mut self) {
        self.held.clear();
        self.out.clear();
        self.caught.clear();
        self.sweeps = false;
        if let Some((chore, ..)) = self.ordered.take() {
            self.disk.fail_in(self.rng.u64(..3));
            let _ = chore.run();
        }
        self.disk.fail_in(self.rng.u64(..40));
        drop(open_at(&self.disk, self.now));
        self.disk.fail_no_more();
        self.now += 1;
        self.queue = open_at(&self.disk, self.now).unwrap();
        // What was there at the start is promised by it.
        self.promised = self.accepted.keys().copied().collect();
    }

    /// What comes out of the folder after the power has come back, perhaps after a second loss in
    /// the middle of recovery.
    fn after(&mut self, loss: Loss) -> Vec<Message> {
        let mut disk = self.disk.lose_power(loss, &mut self.rng);
        if self.rng.bool() {
            disk.fail_in(self.rng.u64(..40));
            drop(open_at(&disk, self.now + 1));
            disk.fail_no_more();
            disk = disk.lose_power(loss, &mut self.rng);
        }
        let mut queue = open_at(&disk, self.now + 2).unwrap();
        let new = queue.append(New { openid: b"o", key: b"k", data: b"new" }, self.now);
        queue.commit(Durability::Later).unwrap();
        if let Ok(new) = new {
            let id = ClientMsgId::of(queue.origin, new);
            let before = self.accepted.insert(new, (id, b"new".to_vec()));
            assert!(before.is_none(), "an id was used twice");
            self.promised.insert(new);
        }
        drain(&mut queue)
    }
}

#[test]
fn what_was_synced_survives_the_loss_of_power_and_is_there_once() {
    for case in Case::series("MEGA_POWER_SEED", SEEDS, CASES) {
        let mut run = Run::new(case.seed);
        for _ in 0..STEPS {
            run.step();
        }
        let loss = if case.seed.is_multiple_of(4) { Loss::Whole } else { Loss::Torn };
        let delivered = run.after(loss);
        let mut seen = HashSet::new();
        for message in &delivered {
            let (id, data) = &run.accepted[&message.id()];
            assert_eq!((message.client_msg_id(), message.data()), (*id, &data[..]));
            assert!(seen.insert(message.id()), "{} is there twice", message.id());
            // Q2, as far as a sync has covered it.
            let handed = run.handed.get(&message.id());
            let since = message.unclear_since();
            let is_one = |since| handed.is_some_and(|times| times.contains(&since));
            assert!(since.is_none_or(is_one), "{since:?} of {handed:?}");
            assert!(since.is_some() || !run.out.contains(&message.id()), "{}", message.id());
        }
        let lost: Vec<&u64> =
            run.promised.iter().filter(|id| !run.done.contains(id) && !seen.contains(id)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }
}
