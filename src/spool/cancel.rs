//! Orders to end queued messages: kept in a file beside the segments until nothing is left to be ended, and
//! carried out by sweeps of the queue, a little in each turn. Part of the spool's loop.
//!
//! - An order is in the file before it is answered, and leaves it when all that it has ended is recorded and
//!   marked on the disk: whatever end comes in between, the rest is ended after it, and nothing goes out.
//! - Sends are not touched: a client waits for each, and is told what became of it.

use super::{Spool, SyncFailed};
use crate::class::Class;
use crate::clock::Now;
use crate::file;
use crate::queue::{Mark, Message, Purpose, Queue, Rule, Swept, Which};
use crate::traffic::batch::ReplyTo;
use crate::traffic::job::Reason;
use crate::traffic::ledger::Failure;
use crate::traffic::steer::{Cancelling, Paused};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the file, and what it is called when it cannot be read.
const CANCELS: &str = "cancels";
const BAD: &str = "cancels.bad";

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Orders under way, and those that have ended and can be asked for still.
const MOST: usize = 16;
const REMEMBERED: usize = 16;

/// Records that a turn looks at: where something waits to be done, and where nothing does.
const LOOKS_BETWEEN: usize = 48;
const LOOKS_IDLE: usize = 1_024;

/// How often a sweep that waits for the disk looks again, and how often status hears of it.
const AGAIN: Duration = Duration::from_millis(100);
const SHOWN: Duration = Duration::from_millis(100);

/// An order as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    number: u64,
    by: String,
    /// Seconds since 1970.
    since: u64,
    which: Which,
    before: Mark,
}

struct Order {
    kept: Kept,
    purpose: Purpose,
    stage: Stage,
    /// Pushes that workers held when it came, of rounds before this one.
    in_hands: usize,
    round: u64,
    total: u64,
    scanned: u64,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Sweeps,
    Swept,
}

impl Order {
    fn new(kept: Kept, purpose: Purpose, total: u64) -> Order {
        let (stage, in_hands, round, scanned, count) = (Stage::Waits, 0, 0, 0, 0);
        Order { kept, purpose, stage, in_hands, round, total, scanned, count }
    }

    fn rule(&self) -> Rule {
        let Kept { number, ref which, before, .. } = self.kept;
        Rule { number, which: which.clone(), before }
    }

    fn told(&self, done: bool) -> Cancelling {
        let Kept { number, ref by, since, ref which, .. } = self.kept;
        let total = self.total.max(self.count);
        Cancelling {
            number,
            by: by.clone(),
            since,
            which: which.clone(),
            dry_run: self.purpose == Purpose::Count,
            total,
            scanned: if done { total } else { self.scanned.min(total) },
            count: self.count,
            done,
        }
    }
}

pub struct Cancels {
    path: PathBuf,
    orders: Vec<Order>,
    ended: VecDeque<Cancelling>,
    last: u64,
    sweeps: bool,
    /// The sweep cannot go on before something else has happened.
    waits: bool,
    /// When an order that has ended could not be taken out of the file.
    failed: Option<Instant>,
    shown: Option<Instant>,
}

impl Cancels {
    /// Reads the orders that are not carried out yet, and has the queue keep to them.
    pub fn open(folder: &Path, queue: &mut Queue) -> io::Result<Cancels> {
        let path = folder.join(CANCELS);
        let kept: Vec<Kept> = match file::read(&path, LONGEST) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut cancels = Cancels::none(folder);
        for kept in kept {
            crate::notice!("messages are still to be cancelled, by {}", kept.by);
            cancels.last = cancels.last.max(kept.number);
            let order = Order::new(kept, Purpose::End, queue.depth());
            queue.cancel(order.rule());
            cancels.orders.push(order);
        }
        Ok(cancels)
    }

    /// The orders of before cannot be read, and are set aside. Why nothing may be sent, so.
    pub fn unreadable(folder: &Path, error: &io::Error) -> (Cancels, String) {
        let (path, bad) = (folder.join(CANCELS), folder.join(BAD));
        let moved = std::fs::rename(&path, &bad).is_ok();
        let kept = if moved { bad } else { path };
        let why = format!(
            "which messages were to be cancelled cannot be read from {}: {error}; cancel them again",
            kept.display()
        );
        (Cancels::none(folder), why)
    }

    pub fn none(folder: &Path) -> Cancels {
        Cancels {
            path: folder.join(CANCELS),
            orders: Vec::new(),
            ended: VecDeque::new(),
            last: 0,
            sweeps: false,
            waits: false,
            failed: None,
            shown: None,
        }
    }

    fn save(&self) -> io::Result<()> {
        let kept = self.orders.iter().filter(|order| order.purpose == Purpose::End);
        let kept: Vec<&Kept> = kept.map(|order| &order.kept).collect();
        match kept.is_empty() {
            true => file::remove(&self.path),
            false => {
                let text = serde_json::to_vec(&kept)?;
                file::replace(&self.path, |file| file.write_all(&text))
            }
        }
    }

    fn order(&mut self, number: u64) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.kept.number == number)
    }

    /// A worker has brought a push back that was handed out in this round.
    pub fn landed(&mut self, round: u64) {
        for order in self.orders.iter_mut().filter(|order| round < order.round) {
            order.in_hands = order.in_hands.saturating_sub(1);
        }
    }

    /// When to look again at what waits for something that tells nobody.
    pub fn wakes_at(&self, now: Instant) -> Option<Instant> {
        (self.sweeps && self.waits).then_some(now + AGAIN).or(self.failed)
    }

    fn told(&self) -> Vec<Cancelling> {
        let under_way = self.orders.iter().map(|order| order.told(false));
        self.ended.iter().cloned().chain(under_way).collect()
    }
}

impl Spool {
    /// Begins to end, or to count, what is meant of all that is queued now.
    pub(super) fn order_cancel(
        &mut self,
        to: ReplyTo,
        by: String,
        which: Which,
        purpose: Purpose,
        now: Now,
    ) {
        if self.cancels.orders.len() == MOST {
            let why = format!("{MOST} such orders are under way; wait for one to end");
            return self.not_steered(to, why);
        }
        let number = now.ms.max(self.cancels.last + 1);
        let before = self.queue.order_mark();
        let kept = Kept { number, by, since: now.unix, which, before };
        let order = Order::new(kept, purpose, self.queue.depth());
        self.cancels.last = number;
        let told = order.told(false);
        if purpose == Purpose::Count {
            self.cancels.orders.push(order);
            return self.steered(to, &told);
        }
        log::warn!("messages are cancelled by {}: {}", order.kept.by, order.kept.which);
        self.queue.cancel(order.rule());
        self.cancels.orders.push(order);
        // What no worker has begun comes back, and is looked at before it is handed out again.
        if let Some(message) = self.pushes.take_peeked() {
            self.queue.give_back(&message);
        }
        self.end_round(now);
        if let Some(order) = self.cancels.order(number) {
            (order.round, order.in_hands) = (self.round, self.pushes.in_flight());
        }
        match self.cancels.save() {
            Ok(()) => self.steered(to, &told),
            Err(error) => {
                let why = format!(
                    "they are being cancelled, but a restart will forget those that are left: {error} (see \
                     server.queue_file_path)"
                );
                log::error!("{why}");
                self.not_steered(to, why);
            }
        }
    }

    pub(super) fn tell_progress(&mut self, to: ReplyTo, number: u64) {
        match self.cancels.told().into_iter().find(|told| told.number == number) {
            Some(told) => self.steered(to, &told),
            None => self.not_steered(to, format!("no order {number} is known (any more)")),
        }
    }

    /// Ends a message that nobody else has.
    pub(super) fn cancel(&mut self, message: Message, number: u64, now: Now) {
        if let Some(kept) = self.ends.decided(&message) {
            return self.end_failed(kept.with(message), now);
        }
        let mut text = "cancelled".to_owned();
        if let Some(order) = self.cancels.order(number) {
            order.count += 1;
            text = text + " by " + &order.kept.by;
        }
        if message.unclear_since().is_some() {
            text += "; an earlier attempt has an unknown outcome";
        }
        let failure = Failure::new(message, Class::Cancelled, Reason::text(text), now.ms, None);
        self.end_failed(failure, now);
    }

    /// The sweep's part of a turn.
    pub(super) fn sweep(&mut self, now: Now) -> Result<(), SyncFailed> {
        if self.cancels.orders.is_empty() || self.stopping.is_some() {
            return Ok(());
        }
        let looks = if self.inside.events.is_empty() { LOOKS_IDLE } else { LOOKS_BETWEEN };
        self.cancels.waits = false;
        let mut looked = 0;
        for _ in 0..looks {
            if !self.cancels.sweeps && !self.begin_sweep() || !self.may_sweep() {
                break;
            }
            match self.queue.sweep(now.ms) {
                Swept::Caught(number, message) => {
                    looked += 1;
                    match self.cancels.order(number) {
                        Some(order) if order.purpose == Purpose::Count => order.count += 1,
                        _ => self.cancel(message, number, now),
                    }
                }
                Swept::Passed => looked += 1,
                Swept::Waits => {
                    self.cancels.waits = true;
                    break;
                }
                Swept::Ended => {
                    self.cancels.sweeps = false;
                    let orders = self.cancels.orders.iter_mut();
                    orders
                        .filter(|order| order.stage == Stage::Sweeps)
                        .for_each(|order| order.stage = Stage::Swept);
                }
            }
        }
        let orders = self.cancels.orders.iter_mut();
        orders
            .filter(|order| order.stage == Stage::Sweeps)
            .for_each(|order| order.scanned += looked);
        self.end_orders(now)?;
        if self.cancels.shown.is_none_or(|at| now.at >= at + SHOWN) {
            self.show_cancels(now);
        }
        Ok(())
    }

    /// Begins the next sweep, if there is one to do: for a count alone, or for all that is to be ended.
    fn begin_sweep(&mut self) -> bool {
        let mut orders = self.cancels.orders.iter_mut().filter(|order| order.stage == Stage::Waits);
        let Some(first) = orders.next() else { return false };
        // What an earlier sweep has given out must be marked before it is met again.
        if self.ends.cancelling() > 0 {
            return false;
        }
        let purpose = first.purpose;
        let more = orders.filter(|order| purpose == Purpose::End && order.purpose == purpose);
        let rules = std::iter::once(first).chain(more).map(|order| {
            order.stage = Stage::Sweeps;
            order.rule()
        });
        self.queue.begin_sweep(purpose, rules.collect());
        self.cancels.sweeps = true;
        true
    }

    /// What is caught next has room on its way to the ledger, and leaves some to others.
    fn may_sweep(&self) -> bool {
        !self.queue.sweep_gives() || self.ends.may_cancel()
    }

    /// The next turn has something to sweep or to pass by, whatever happens.
    pub(super) fn hurries(&self, now: Now) -> bool {
        if self.stopping.is_some() {
            return false;
        }
        let waits = |order: &Order| order.stage == Stage::Waits;
        let begins = || self.ends.cancelling() == 0 && self.cancels.orders.iter().any(waits);
        let sweeps = match self.cancels.sweeps {
            true => !self.cancels.waits && self.may_sweep(),
            false => begins(),
        };
        sweeps || self.queue.hurries() && self.may_hand_out(now)
    }

    /// Takes those out of which nothing is left to be done.
    fn end_orders(&mut self, now: Now) -> Result<(), SyncFailed> {
        let recorded = self.ends.cancelling() == 0;
        let ended = |order: &Order| {
            let counted = order.purpose == Purpose::Count;
            order.stage == Stage::Swept && (counted || recorded && order.in_hands == 0)
        };
        if !self.cancels.orders.iter().any(ended)
            || self.cancels.failed.is_some_and(|at| now.at < at)
        {
            return Ok(());
        }
        let orders = std::mem::take(&mut self.cancels.orders);
        let (over, left): (Vec<Order>, Vec<Order>) = orders.into_iter().partition(ended);
        self.cancels.orders = left;
        if over.iter().any(|order| order.purpose == Purpose::End) {
            // Their marks are on the disk before the order is forgotten.
            self.queue.sync_all().map_err(|error| self.cannot_keep(error, now))?;
            if let Err(error) = self.cancels.save() {
                log::error!("an order to cancel that has ended cannot be forgotten: {error}");
                self.cancels.failed = Some(now.at + Duration::from_secs(1));
                self.cancels.orders.extend(over);
                return Ok(());
            }
        }
        self.cancels.failed = None;
        for order in over {
            if order.purpose == Purpose::End {
                self.queue.forget_rule(order.kept.number);
                crate::notice!("{} messages were cancelled by {}", order.count, order.kept.by);
            }
            self.cancels.ended.push_back(order.told(true));
        }
        while self.cancels.ended.len() > REMEMBERED {
            self.cancels.ended.pop_front();
        }
        self.show_cancels(now);
        Ok(())
    }

    pub(super) fn show_cancels(&mut self, now: Now) {
        self.cancels.shown = Some(now.at);
        *self.stats.cancels.lock() = self.cancels.told();
    }

    /// Reads the orders of before. Where they cannot be read, nothing is sent until somebody has looked.
    pub(super) fn open_cancels(&mut self, now: Now) {
        let folder = self.config.server.queue_file_path.clone();
        self.cancels = Cancels::open(&folder, &mut self.queue).unwrap_or_else(|error| {
            let (cancels, why) = Cancels::unreadable(&folder, &error);
            let paused = Paused { by: "mega".into(), why, since: now.unix };
            if let (_, Err(error)) = self.throttle.pause(paused) {
                log::error!("the pause cannot be kept: {error}");
            }
            cancels
        });
        self.show_cancels(now);
    }
}
