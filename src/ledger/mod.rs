//! The ledger thread: what became of each message. Alone writes the database of failed pushes and the message
//! log; the history of templates it shares with the commands that change one. Decides nothing, and holds up
//! nobody: what it cannot write it keeps and tries again once a second, while the spool goes on until
//! `traffic::UNRECORDED` failures wait.
//!
//! A failed push is recorded durably, together with all that came with it, before the spool is told to mark
//! it done. A requeue is a step for each request of an administrator: rows are claimed, the spool puts their
//! messages into the queue durably, the rows count as requeued, and only then the spool lets finished
//! segments go (L1 in `failed`).

pub mod database;
mod doubt;
pub mod failed;
pub mod filter;
pub mod history;
pub mod order;
pub mod schema;
mod sent;
mod steps;
mod tally;
#[cfg(test)]
mod tests;
mod verdicts;

use crate::class::Class;
use crate::clock::{Seldom, now_ms};
use crate::config::Config;
use crate::queue::{ClientMsgId, Held};
use crate::stats::Stats;
use crate::template::{Change, Table};
use crate::traffic::batch::{Reply, ReplyTo};
use crate::traffic::ledger::{Again, Ask, Failure, Kept, Note, What};
use crate::traffic::line::Block;
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{Event, UNRECORDED};
use crate::wire::command;
use crossbeam_channel::{Receiver, Sender, never, select};
use database::Database;
use failed::{New, Row};
use order::{Answer, Request};
use sent::Sent;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use steps::dismiss;
use steps::{Moving, claim};
use tally::Tally;
use verdicts::Verdicts;

/// How soon what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked for rows that are to end, and how many end in one transaction.
const CHORES: Duration = Duration::from_secs(60);
const ENDED: usize = 500;

const DAY: u64 = 86_400_000;

/// The marks of what failed so long ago are durable, whatever `sync` says.
const MARKED: Duration = Duration::from_secs(120);

/// Where its work comes from, and where it tells of it.
pub struct Links {
    pub notes: Receiver<Note>,
    pub blocks: Receiver<Block>,
    pub asks: Receiver<Ask>,
    /// Templates that the store has found changed.
    pub changes: Receiver<Vec<Change>>,
    pub spool: Sender<Event>,
    pub mailbox: Mailbox,
    pub stats: Arc<Stats>,
}

pub struct Ledger {
    database: Database,
    /// Milliseconds that rows are kept, 0 for ever.
    keep: u64,
    sent: Sent,
    /// What the last run left open, until it is settled. No row is requeued before.
    doubt: Doubt,
    /// What was wrong before the statistics were there.
    trouble: Option<String>,
    failures: Vec<Failure>,
    /// Of the failures, and of earlier ones.
    verdicts: Verdicts,
    /// The spool waits for the last verdicts to be safe.
    last: bool,
    moving: Option<Moving>,
    /// Since when nothing can be written.
    retry: Option<Instant>,
    chores: Instant,
    /// Failures were recorded since the chores.
    recorded: bool,
    said: Seldom,
    tally: Tally,
    /// The configuration's, for what is said.
    name: String,
}

enum Doubt {
    None,
    /// These rows, and what the queue holds of them.
    Rows(Vec<Row>, Vec<Held>),
    /// The ledger could not be read before the queue went on.
    Blind,
}

/// Whether what is counted is told before its time.
#[derive(PartialEq, Eq)]
enum Last {
    No,
    Yes,
}

impl Ledger {
    pub fn open(config: &Config) -> io::Result<Ledger> {
        Ok(Ledger {
            database: Database::impatient(&config.server.ledger_file),
            keep: u64::from(config.server.failed_keep) * DAY,
            sent: Sent::open(config)?,
            doubt: Doubt::None,
            trouble: None,
            failures: Vec::new(),
            verdicts: Verdicts::open(config),
            last: false,
            moving: None,
            retry: None,
            chores: Instant::now(),
            recorded: false,
            said: Seldom::default(),
            tally: Tally::default(),
            name: config.name.clone(),
        })
    }

    /// The messages about which the end of the last run leaves doubt. To be asked before the queue hands out or
    /// lets go anything.
    pub fn in_doubt(&mut self) -> HashSet<ClientMsgId> {
        let path = self.database.path().to_owned();
        let rows = self.database.write(|write| doubt::in_doubt(write)).or_else(|why| {
            // A full disk can be read.
            log::error!("{why}; failed messages are kept in the queue until they can be recorded");
            self.trouble = Some(why);
            let read = Database::read_only(&path)?;
            let rows = read.map(|read| doubt::in_doubt(&read)).transpose();
            rows.map(Option::unwrap_or_default).map_err(|error| error.to_string())
        });
        let rows = match rows {
            Ok(rows) => rows,
            Err(why) => {
                log::error!(
                    "{why}; what was being requeued when the last run ended is not requeued again"
                );
                self.doubt = Doubt::Blind;
                return HashSet::new();
            }
        };
        let ids = rows.iter().filter_map(|row| ClientMsgId::new(row.id.as_bytes())).collect();
        // What could not be written is tried again, whether or not there is anything to write.
        if !rows.is_empty() || self.trouble.is_some() {
            self.doubt = Doubt::Rows(rows, Vec::new());
        }
        ids
    }

    /// Verdicts of the last run that could not be recorded, by the number of the message.
    pub fn kept(&self) -> HashMap<u64, Kept> {
        self.verdicts.earlier().clone()
    }

    /// Tells of what was wrong so far, until it is not any more.
    pub fn show(&mut self, stats: &Stats) {
        if let Some(why) = self.trouble.take() {
            self.retry = Some(Instant::now() + RETRY);
            *stats.ledger.lock() = Some(why);
        }
    }

    /// What the queue holds of them.
    pub fn settle(&mut self, found: Vec<Held>) {
        if let Doubt::Rows(_, held) = &mut self.doubt {
            *held = found;
        }
    }

    fn in_doubt_still(&self) -> bool {
        !matches!(self.doubt, Doubt::None)
    }

    /// Works until the spool has ended.
    pub fn run(mut self, links: Links) {
        let Links { notes, blocks, .. } = &links;
        let nobody = never();
        loop {
            links.stats.show_begun_anew(self.database.begun_anew());
            // One step of a requeue at a time; while its end cannot be written, others are told so.
            let moves = |moving: &Moving| moving.placed.is_none() || self.retry.is_none();
            let asks = if self.moving.as_ref().is_some_and(moves) { &nobody } else { &links.asks };
            let timeout = self.timeout();
            select! {
                recv(notes) -> note => match note {
                    Ok(note) => self.note(note),
                    Err(_) => break,
                },
                recv(blocks) -> block => {
                    block.into_iter().for_each(|block| self.sent.write(block, &links.stats));
                }
                recv(asks) -> ask => ask.into_iter().for_each(|ask| self.ask(&ask, &links)),
                recv(links.changes) -> changes => {
                    changes.into_iter().for_each(|changes| self.keep(&changes));
                }
                default(timeout) => {}
            }
            notes.try_iter().for_each(|note| self.note(note));
            blocks.try_iter().for_each(|block| self.sent.write(block, &links.stats));
            self.record(&links);
            self.do_chores(&links);
            self.sent.catch_up(&links.stats);
            self.tell_failures(Last::No);
        }
        self.verdicts.keep(&self.failures);
        blocks.try_iter().for_each(|block| self.sent.write(block, &links.stats));
        self.tell_failures(Last::Yes);
    }

    /// Keeps texts in the history of templates. No message waits for that: what cannot be written is named in the
    /// log, and comes in as found with the next change.
    fn keep(&mut self, changes: &[Change]) {
        let by = history::By::database(now_ms());
        let written = self.database.write(|write| {
            changes.iter().try_for_each(|change| history::record(write, change, by))
        });
        written.unwrap_or_else(|why| {
            log::warn!("{why}; {} changed templates are not kept in the history", changes.len());
        });
    }

    /// The same for what changed while no daemon ran.
    pub fn catch_up(&mut self, table: &Table) {
        let text = |key: &str| table.get(key.as_bytes()).map(|known| known.text().to_owned());
        let written = self.database.write(|write| history::catch_up(write, now_ms(), text));
        written.unwrap_or_else(|why| {
            log::warn!("{why}; templates that changed meanwhile are not kept in the history");
        });
    }

    fn timeout(&self) -> Duration {
        let retry = self.retry.filter(|_| self.has_work());
        let times = [retry, self.sent.retries(), self.tally.due()];
        let at = times.into_iter().flatten().fold(self.chores, Instant::min);
        at.saturating_duration_since(Instant::now())
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Failed(failure) => {
                self.tally.count(failure.class, failure.errcode, Instant::now());
                self.failures.push(*failure);
            }
            Note::Placed(placed) => {
                if let Some(moving) = &mut self.moving {
                    moving.placed = Some(placed);
                }
            }
            Note::Last => (self.retry, self.last) = (None, true),
            Note::Ended => {
                // Nothing is in doubt at the next start; if this cannot be written, everything is.
                let marked = self.database.write(|write| doubt::marked(write, now_ms() + 1));
                marked.unwrap_or_else(|why| log::error!("{why}"));
            }
        }
    }

    fn has_work(&self) -> bool {
        let placed = self.moving.as_ref().is_some_and(|moving| moving.placed.is_some());
        self.in_doubt_still() || placed || !self.failures.is_empty()
    }

    /// Writes everything that waits for it in one transaction, and tells who waits.
    fn record(&mut self, links: &Links) {
        if !self.has_work() || self.retry.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if self.retry.is_some() {
            // The next try may take its time.
            self.verdicts.keep(&self.failures);
        }
        let (doubt, moving, failures) = (&self.doubt, &self.moving, &self.failures);
        let (began, now) = (Instant::now(), now_ms());
        let written = self.database.write(|write| {
            match doubt {
                Doubt::None => {}
                Doubt::Rows(rows, held) => doubt::settle(write, rows, held, now)?,
                Doubt::Blind => doubt::give_up(write, now)?,
            }
            if let Some(moving) = moving {
                moving.confirm(write, now)?;
            }
            failures.iter().try_for_each(|failure| {
                let id = failure.message.client_msg_id();
                failed::record(write, row_of(failure, id.as_str()))
            })
        });
        match written {
            Ok(()) => self.recorded(links),
            Err(why) => self.not_recorded(links, why, began),
        }
    }

    /// Events find room (see `traffic`). A spool that has ended needs none: its queue and the rows say what is
    /// in doubt at the next start.
    fn recorded(&mut self, links: &Links) {
        if self.retry.take().is_some() {
            *links.stats.ledger.lock() = None;
            crate::notice!("failed messages are recorded again");
        }
        if self.in_doubt_still() {
            self.doubt = Doubt::None;
            let _ = links.spool.send(Event::Confirmed);
        }
        let failures = std::mem::take(&mut self.failures);
        if !failures.is_empty() {
            self.recorded = true;
            let tickets = failures.iter().filter_map(|failure| failure.message.ticket()).collect();
            let cancelled = failures.iter().filter(|it| it.class == Class::Cancelled).count();
            let _ = links.spool.send(Event::Recorded { tickets, cancelled });
            self.sent.failed(&failures, &links.stats);
            self.verdicts.recorded(&failures);
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.placed.is_some()) {
            let _ = links.spool.send(Event::Confirmed);
            if let Some(to) = moving.to {
                links.answer(to, command::OK, json(&moving.told()));
            }
        }
    }

    fn not_recorded(&mut self, links: &Links, why: String, began: Instant) {
        self.retry = Some(began + RETRY);
        self.verdicts.keep(&self.failures);
        if std::mem::take(&mut self.last) {
            let _ = links.spool.send(Event::Kept);
        }
        // Whoever asked for it is not to wait for the disk.
        if let Some(moving) = self.moving.as_mut().filter(|moving| moving.placed.is_some())
            && let Some(to) = moving.to.take()
        {
            let queued = moving.placed.as_ref().map_or(0, |placed| placed.count);
            let told =
                format!("{queued} are in the queue again, which cannot be recorded yet: {why}");
            links.answer(to, command::FAILED, told);
        }
        if self.said.now() {
            log::error!(
                "{why}; {} failed messages stay in the queue until they can be recorded, which is \
                 tried every second (see server.ledger_file)",
                self.failures.len()
            );
        }
        let waits = if self.failures.len() >= UNRECORDED { "; pushes wait for it" } else { "" };
        *links.stats.ledger.lock() = Some(why + waits);
    }

    fn tell_failures(&mut self, last: Last) {
        if let Some(line) = self.tally.tell(Instant::now(), last == Last::Yes) {
            log::warn!("{line} (see: mega {} failed)", self.name);
        }
    }

    fn ask(&mut self, ask: &Ask, links: &Links) {
        let request: Request = match serde_json::from_slice(&ask.body) {
            Ok(request) => Request { by: ask.by.clone(), ..request },
            Err(error) => {
                let why = format!("not understood: {error}");
                return links.answer(ask.to, command::BAD_REQUEST, why);
            }
        };
        // What waits to be written goes first; whoever asks is not to wait for the disk.
        if self.has_work() {
            self.retry = None;
            self.record(links);
        }
        if let Some(why) = links.stats.ledger.lock().clone().filter(|_| self.has_work()) {
            return links.answer(ask.to, command::FAILED, why);
        }
        let answer = match ask.what {
            What::Dismiss => dismiss(&mut self.database, &request),
            What::Requeue => match claim(&mut self.database, &request) {
                Ok(claimed) => return self.move_rows(ask.to, request.by, claimed, links),
                Err(why) => Err(why),
            },
        };
        match answer {
            Ok(answer) => links.answer(ask.to, command::OK, json(&answer)),
            Err(why) => links.answer(ask.to, command::FAILED, why),
        }
    }

    fn move_rows(&mut self, to: ReplyTo, by: String, claimed: (Vec<Row>, Answer), links: &Links) {
        let (rows, answer) = claimed;
        if rows.is_empty() {
            return links.answer(to, command::OK, json(&answer));
        }
        let again = |row: &Row| {
            let id = ClientMsgId::new(row.id.as_bytes())?;
            let (openid, key, data) = (row.openid.clone(), row.key.clone(), row.data.clone());
            Some(Again { id, openid, key, data })
        };
        let batch = rows.iter().map_while(again).collect();
        self.moving = Some(Moving { to: Some(to), by, rows, answer, placed: None });
        let _ = links.spool.send(Event::Requeue(batch));
    }

    fn do_chores(&mut self, links: &Links) {
        if Instant::now() < self.chores || self.retry.is_some() {
            return;
        }
        self.verdicts.keep(&self.failures);
        let (began, now) = (Instant::now(), now_ms());
        let (keep, recorded) = (self.keep, self.recorded);
        let ended = self.database.write(|write| {
            if recorded {
                doubt::marked(write, now.saturating_sub(MARKED.as_millis() as u64))?;
            }
            match keep {
                0 => Ok(0),
                keep => failed::expire(write, now.saturating_sub(keep), ENDED),
            }
        });
        // In small steps, so that failures and requests have their turn between two of them.
        let rest = if ended == Ok(ENDED) { Duration::ZERO } else { CHORES };
        self.chores = Instant::now() + rest;
        match ended {
            Ok(_) => self.recorded = false,
            Err(why) => self.not_recorded(links, why, began),
        }
    }
}

impl Links {
    fn answer(&self, to: ReplyTo, code: u16, message: String) {
        let reply = Reply { to, code, message: message.into(), close: false };
        self.mailbox.send(Mail::Replies { replies: vec![reply], batches: Vec::new() });
    }
}

fn row_of<'a>(failure: &'a Failure, id: &'a str) -> New<'a> {
    New {
        id,
        openid: failure.message.openid(),
        key: failure.message.key(),
        data: failure.message.data(),
        time: failure.at,
        enqueued: Some(failure.message.enqueued()),
        attempts: failure.attempts,
        class: failure.class.name(),
        errcode: failure.errcode,
        errmsg: &failure.text,
    }
}

fn json(answer: &Answer) -> String {
    serde_json::to_string(answer).expect("invariant: numbers and texts are JSON")
}
