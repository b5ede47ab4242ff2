//! Loss of power at any moment: what was synced is there, and nothing is there that was not put in.

use super::simulated::{Loss, Simulated};
use super::{Case, drain, open_at, run_chore, run_chores};
use crate::queue::{Chore, ClientMsgId, Message, New, Queue, Refused};
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
    /// Bytes of every message that was ever accepted, by id.
    accepted: HashMap<u64, Vec<u8>>,
    done: HashSet<u64>,
    /// Of the accepted ones those that a sync has covered.
    promised: HashSet<u64>,
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
            accepted: HashMap::new(),
            done: HashSet::new(),
            promised: HashSet::new(),
        }
    }

    fn step(&mut self) {
        self.now += self.rng.u64(..100);
        match self.rng.u32(..100) {
            0..40 => self.append(),
            40..60 => self.held.extend(self.queue.take(self.now)),
            60..75 => self.done(),
            75..85 => self.retry(),
            85..90 => {
                self.queue.sync().unwrap();
                self.promised = self.accepted.keys().copied().collect();
            }
            90..95 => self.background_sync(),
            _ => self.chores(),
        }
    }

    fn append(&mut self) {
        let data: Vec<u8> = (0..self.rng.usize(..1_500)).map(|_| self.rng.u8(..)).collect();
        let new = New { openid: b"openid", key: b"key", data: &data };
        let appended = match self.rng.bool() {
            true => {
                let own_id = format!("own-{}", self.accepted.len());
                self.queue.append_as(new, &ClientMsgId::new(own_id.as_bytes()).unwrap(), self.now)
            }
            false => self.queue.append(new, self.now),
        };
        match appended {
            Ok(id) => {
                self.queue.write_out().unwrap();
                assert!(self.accepted.insert(id, data).is_none(), "an id was used twice");
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
        self.queue.retry(&message, self.now + self.rng.u64(1..500), self.now);
        self.queue.write_out().unwrap();
    }

    /// More is stored between the order and its end, which the sync does not speak for.
    fn background_sync(&mut self) {
        let covered: Vec<u64> = self.accepted.keys().copied().collect();
        if !self.queue.order_sync() {
            return;
        }
        for _ in 0..self.rng.usize(..4) {
            let data = [b'x'; 100];
            if let Ok(id) =
                self.queue.append(New { openid: b"o", key: b"k", data: &data }, self.now)
            {
                self.queue.write_out().unwrap();
                self.accepted.insert(id, data.to_vec());
            }
            self.retry();
        }
        run_chores(&mut self.queue, &self.disk);
        self.promised.extend(covered);
    }

    fn chores(&mut self) {
        while let Some(chore) = self.queue.chore() {
            let retires = matches!(chore, Chore::Retire { .. });
            run_chore(&mut self.queue, &self.disk, chore).unwrap();
            if retires && self.rng.bool() {
                return;
            }
        }
    }

    /// What comes out of the folder after the power has come back, perhaps after a second loss in
    /// the middle of recovery.
    fn after(&mut self, loss: Loss) -> Vec<Message> {
        let mut disk = self.disk.lose_power(loss, &mut self.rng);
        if self.rng.bool() {
            drop(open_at(&disk, self.now + 1).unwrap());
            disk = disk.lose_power(loss, &mut self.rng);
        }
        let mut queue = open_at(&disk, self.now + 2).unwrap();
        let new = queue.append(New { openid: b"o", key: b"k", data: b"new" }, self.now);
        queue.write_out().unwrap();
        if let Ok(new) = new {
            assert!(!self.accepted.contains_key(&new), "an id was used twice");
            self.accepted.insert(new, b"new".to_vec());
            self.promised.insert(new);
        }
        drain(&mut queue, &disk)
    }
}

#[test]
fn what_was_synced_survives_the_loss_of_power() {
    for case in Case::series("MEGA_POWER_SEED", SEEDS, CASES) {
        let mut run = Run::new(case.seed);
        for _ in 0..STEPS {
            run.step();
        }
        let loss = if case.seed % 4 == 0 { Loss::Whole } else { Loss::Torn };
        let delivered = run.after(loss);
        for message in &delivered {
            assert_eq!(message.data(), run.accepted[&message.id()]);
        }
        let delivered: HashSet<u64> = delivered.iter().map(Message::id).collect();
        let lost: Vec<&u64> = run
            .promised
            .iter()
            .filter(|id| !run.done.contains(id) && !delivered.contains(id))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }
}
