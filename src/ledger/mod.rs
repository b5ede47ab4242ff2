//! The ledger thread: what became of each message. Alone writes the database of failed pushes and the message
//! log. Decides nothing, and holds up nobody: what it cannot write it keeps and tries again once a second,
//! while the spool goes on until `traffic::UNRECORDED` failures wait.
//!
//! A failed push is recorded durably, together with all that came with it, before the spool is told to mark
//! it done. A requeue is a step for each request of an administrator: rows are claimed, the spool puts their
//! messages into the queue durably, the rows count as requeued, and only then the spool lets finished
//! segments go (L1 in `failed`).

pub mod database;
pub mod failed;
pub mod filter;
pub mod history;
pub mod order;
mod schema;
#[cfg(test)]
mod tests;

use crate::clock::{Seldom, now_ms};
use crate::config::Config;
use crate::day_file::DayFile;
use crate::queue::{ClientMsgId, Held};
use crate::stats::Stats;
use crate::template::{Change, Table};
use crate::traffic::batch::{Reply, ReplyTo};
use crate::traffic::ledger::{Again, Ask, Failure, Note, Placed, Stopped, What};
use crate::traffic::line::{Block, Lines};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{Event, UNRECORDED};
use crate::wire::command;
use crossbeam_channel::{Receiver, Sender, never, select};
use database::Database;
use failed::{New, Row, State};
use order::{Answer, Request};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    log: Option<DayFile>,
    /// The lines of failed pushes.
    lines: Lines,
    /// What the last run left open, until it is settled. No row is requeued before.
    doubt: Doubt,
    failures: Vec<Failure>,
    moving: Option<Moving>,
    /// Since when nothing can be written.
    retry: Option<Instant>,
    chores: Instant,
    /// Failures were recorded since the chores.
    recorded: bool,
    said: Seldom,
    log_said: Seldom,
}

enum Doubt {
    None,
    /// These rows, and what the queue holds of them.
    Rows(Vec<Row>, Vec<Held>),
    /// The ledger could not be read before the queue went on.
    Blind,
}

/// A step of a requeue that is under way.
struct Moving {
    to: ReplyTo,
    by: String,
    rows: Vec<Row>,
    answer: Answer,
    placed: Option<Placed>,
}

impl Ledger {
    pub fn open(config: &Config) -> io::Result<Ledger> {
        let log = config.log.message_log.clone().map(|path| {
            DayFile::open(path, config.log.log_max_files, chrono::Local::now().date_naive())
        });
        Ok(Ledger {
            database: Database::new(&config.server.ledger_file),
            keep: u64::from(config.server.failed_keep) * DAY,
            log: log.transpose()?,
            lines: Lines::default(),
            doubt: Doubt::None,
            failures: Vec::new(),
            moving: None,
            retry: None,
            chores: Instant::now(),
            recorded: false,
            said: Seldom::default(),
            log_said: Seldom::default(),
        })
    }

    /// The messages about which the end of the last run leaves doubt. To be asked before the queue hands out or
    /// lets go anything.
    pub fn in_doubt(&mut self) -> HashSet<ClientMsgId> {
        let path = self.database.path().to_owned();
        let rows = self.database.write(|write| failed::in_doubt(write)).or_else(|why| {
            // A full disk can be read.
            log::error!("{why}; failed messages are kept in the queue until they can be recorded");
            let read = Database::read_only(&path)?;
            let rows = read.map(|read| failed::in_doubt(&read)).transpose();
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
        if !rows.is_empty() {
            self.doubt = Doubt::Rows(rows, Vec::new());
        }
        ids
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
            // One step of a requeue at a time.
            let asks = if self.moving.is_some() { &nobody } else { &links.asks };
            let timeout = self.timeout();
            select! {
                recv(notes) -> note => match note {
                    Ok(note) => self.note(note),
                    Err(_) => break,
                },
                recv(blocks) -> block => block.into_iter().for_each(|block| self.write_lines(block)),
                recv(asks) -> ask => ask.into_iter().for_each(|ask| self.ask(&ask, &links)),
                recv(links.changes) -> changes => {
                    changes.into_iter().for_each(|changes| self.keep(&changes));
                }
                default(timeout) => {}
            }
            notes.try_iter().for_each(|note| self.note(note));
            blocks.try_iter().for_each(|block| self.write_lines(block));
            self.record(&links);
            self.do_chores(&links);
        }
        blocks.try_iter().for_each(|block| self.write_lines(block));
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
        let at = retry.map_or(self.chores, |retry| retry.min(self.chores));
        at.saturating_duration_since(Instant::now())
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Failed(failure) => self.failures.push(*failure),
            Note::Placed(placed) => {
                if let Some(moving) = &mut self.moving {
                    moving.placed = Some(placed);
                }
            }
            Note::Ended => {
                // Nothing is in doubt at the next start; if this cannot be written, everything is.
                let marked = self.database.write(|write| failed::marked(write, now_ms() + 1));
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
        let (doubt, moving, failures) = (&self.doubt, &self.moving, &self.failures);
        let now = now_ms();
        let written = self.database.write(|write| {
            match doubt {
                Doubt::None => {}
                Doubt::Rows(rows, held) => failed::settle(write, rows, held, now)?,
                Doubt::Blind => failed::give_up(write, now)?,
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
            Err(why) => self.not_recorded(links, why),
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
            let _ = links.spool.send(Event::Recorded(tickets));
            self.log_failures(&failures);
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.placed.is_some()) {
            let _ = links.spool.send(Event::Confirmed);
            links.answer(moving.to, command::OK, json(&moving.told()));
        }
    }

    fn not_recorded(&mut self, links: &Links, why: String) {
        self.retry = Some(Instant::now() + RETRY);
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

    fn log_failures(&mut self, failures: &[Failure]) {
        if self.log.is_none() {
            return;
        }
        for failure in failures {
            let id = failure.message.client_msg_id();
            let before = self.lines.add(failure.at, &failure.end(&id));
            before.into_iter().for_each(|block| self.write_lines(block));
        }
        let block = self.lines.take();
        self.write_lines(block);
    }

    fn write_lines(&mut self, block: Block) {
        if let Some(log) = &mut self.log {
            log.miss(block.missed);
            log.write(block.day, &block.bytes, block.lines);
            if log.missing() > 0 && self.log_said.now() {
                log::error!(
                    "the message log misses {} lines that cannot be written: free space where \
                     log.message_log is",
                    log.missing()
                );
            }
        }
    }

    fn ask(&mut self, ask: &Ask, links: &Links) {
        let request: Request = match serde_json::from_slice(&ask.body) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("not understood: {error}");
                return links.answer(ask.to, command::BAD_REQUEST, why);
            }
        };
        if self.in_doubt_still() {
            self.retry = None;
            self.record(links);
        }
        if let Some(why) = links.stats.ledger.lock().clone().filter(|_| self.in_doubt_still()) {
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
        self.moving = Some(Moving { to, by, rows, answer, placed: None });
        let _ = links.spool.send(Event::Requeue(batch));
    }

    fn do_chores(&mut self, links: &Links) {
        if Instant::now() < self.chores || self.retry.is_some() {
            return;
        }
        let (now, keep, recorded) = (now_ms(), self.keep, self.recorded);
        let ended = self.database.write(|write| {
            if recorded {
                failed::marked(write, now.saturating_sub(MARKED.as_millis() as u64))?;
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
            Err(why) => self.not_recorded(links, why),
        }
    }
}

impl Links {
    fn answer(&self, to: ReplyTo, code: u16, message: String) {
        let reply = Reply { to, code, message: message.into(), close: false };
        self.mailbox.send(Mail::Replies { replies: vec![reply], batches: Vec::new() });
    }
}

impl Moving {
    /// What the spool has placed is requeued, and the rest is as it was.
    fn confirm(&self, write: &rusqlite::Connection, now: u64) -> rusqlite::Result<()> {
        let Some(placed) = &self.placed else { return Ok(()) };
        for (index, row) in self.rows.iter().enumerate() {
            let (to, changed) = match index < placed.count {
                true => (State::Requeued, Some((now, self.by.as_str()))),
                false => (State::Failed, None),
            };
            failed::change(write, row.seq, State::Moving, to, changed)?;
        }
        Ok(())
    }

    /// What whoever asked is told.
    fn told(self) -> Answer {
        let placed = self.placed.unwrap_or_default();
        let mut answer = Answer { count: placed.count, ..self.answer };
        let Some(stopped) = placed.stopped else { return answer };
        answer.done = false;
        // The next step begins with the one that found no room, or behind the one that never will.
        let at = self.rows.get(placed.count).map_or(answer.after, |row| row.seq);
        match stopped {
            Stopped::TooLarge => (answer.after, answer.too_large) = (at, 1),
            Stopped::NotNow(why) => (answer.after, answer.stopped) = (at - 1, Some(why)),
        }
        answer
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
        attempts: failure.message.attempts(),
        class: failure.class.name(),
        errcode: failure.errcode,
        errmsg: &failure.text,
    }
}

/// The first rows that are meant, claimed durably, and the answer as far as it is known.
fn claim(database: &mut Database, request: &Request) -> Result<(Vec<Row>, Answer), String> {
    let now = now_ms();
    database.write(|write| {
        let bound = request.bound.map_or_else(|| failed::newest(write), Ok)?;
        let limit = request.limit.min(order::STEP);
        let mut rows = match &request.lines {
            Some(lines) => import(write, lines)?,
            None => {
                let seqs = request.after.saturating_add(1)..=bound;
                failed::page(write, &request.filter, &[State::Failed], seqs, limit)?
            }
        };
        let mut bytes = 0;
        let fits = rows.iter().take_while(|row| {
            bytes += row.data.len();
            bytes <= order::STEP_BYTES
        });
        let fits = fits.count().max(1);
        let cut = fits < rows.len() && request.lines.is_none();
        if cut {
            rows.truncate(fits);
        }
        for row in &rows {
            let by = Some((now, request.by.as_str()));
            failed::change(write, row.seq, State::Failed, State::Moving, by)?;
        }
        let done = request.lines.is_some() || (!cut && rows.len() < limit);
        let after = rows.last().map_or(request.after, |row| row.seq);
        let answer = Answer { count: 0, after, bound, done, too_large: 0, stopped: None };
        Ok((rows, answer))
    })
}

/// The rows of an old list that are failed, whether they were known or not.
fn import(write: &rusqlite::Connection, lines: &[order::Line]) -> rusqlite::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in lines {
        failed::import(
            write,
            New {
                id: &line.client_msg_id,
                openid: line.openid.as_bytes(),
                key: line.key.as_bytes(),
                data: line.data.as_ref().map_or("null", |data| data.get()).as_bytes(),
                time: line.time,
                enqueued: None,
                attempts: line.attempts,
                class: "list",
                errcode: line.errcode,
                errmsg: &line.errmsg,
            },
        )?;
        let filter = filter::Filter {
            id: Some(line.client_msg_id.clone()),
            openid: Some(line.openid.clone()),
            ..filter::Filter::default()
        };
        let known = failed::page(write, &filter, &[State::Failed], 0..=i64::MAX, 1)?;
        // Two lines of one message are one message.
        let twice = |row: &Row| rows.iter().any(|other: &Row| other.seq == row.seq);
        let known: Vec<Row> = known.into_iter().filter(|row| !twice(row)).collect();
        rows.extend(known);
    }
    Ok(rows)
}

/// One step of a dismissal; also for the command line, when no daemon runs.
pub fn dismiss(database: &mut Database, request: &Request) -> Result<Answer, String> {
    let now = now_ms();
    database.write(|write| {
        let bound = request.bound.map_or_else(|| failed::newest(write), Ok)?;
        let limit = request.limit.min(order::STEP);
        let seqs = request.after.saturating_add(1)..=bound;
        let by = (now, request.by.as_str());
        let (count, last) = failed::dismiss(write, &request.filter, seqs, limit, by)?;
        let after = last.unwrap_or(request.after);
        Ok(Answer { count, after, bound, done: count < limit, too_large: 0, stopped: None })
    })
}

fn json(answer: &Answer) -> String {
    serde_json::to_string(answer).expect("invariant: numbers and texts are JSON")
}
