//! Runs a task: keeps a window of messages without an answer, over several connections, and books what becomes of each
//! person. One thread that never waits for a disk (`clerk` does) nor for mega (`link` never blocks).
//!
//! - R1: nobody goes out before the journal has the time (J2, `people`); an answer is told to those who watch when the
//!   journal has it.
//! - R2: a message whose fate is unknown goes out again under the same id while that is recognised, and never later.
//! - R3: who was refused because mega takes nothing in is charged nothing, and is tried again (`wait`).
//! - R4: while mega refuses, or nobody has answered since it was lost, one at a time goes out, and nobody else is in
//!   doubt (`turn`).
//! - R5: who goes out is in `reach` before: after a kill nobody behind that is in doubt, although the journal lets more go
//!   out than do.

mod clerk;
mod link;
mod people;
mod rate;
mod reach;
mod turn;
mod wait;

use super::control::{Control, Haste, Wish};
use super::event::{End, Event, Failure, Progress, Status, Watch, Why};
use super::journal::{Journal, Open, Stage, State};
use super::list::Kept;
use super::plan::Plan;
use super::reply::Judge;
use super::results::{self, Results};
use super::words;
use crate::cli::language::Language;
use crate::clock::{self, Moment, Seldom};
use crate::task::home::Place;
use clerk::{Block, Clerk};
use link::Link;
use mio::{Events, Poll, Token, Waker};
use people::{Held, People};
use rate::Rate;
use reach::Reach;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wait::Wait;

/// What is waited for answers after a first wish to pause.
const DRAIN: Duration = Duration::from_secs(30);

/// How often the clocks are looked at.
const TICK: Duration = Duration::from_millis(200);

/// The shortest pause between two blocks, unless somebody waits for one.
const BLOCK: Duration = Duration::from_millis(20);

/// The pauses before a connection is tried again.
const BACKOFF: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(10);

/// Answers that say nothing are why nothing moves when for so long none has said something.
const STILL: Duration = Duration::from_secs(3);

const WAKER: Token = Token(usize::MAX);

/// What one run is given.
pub struct Orders<'a> {
    pub place: &'a Place,
    pub plan: &'a Plan,
    pub journal: Journal,
    pub control: &'a Control,
    pub watch: &'a mut dyn Watch,
    /// Those of whom nobody knows whether WeChat has it are sent to again.
    pub unknown: Unknown,
    /// Of the result file.
    pub language: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    Report,
    Resend,
}

/// Runs until everybody is answered, or somebody wants otherwise, or it cannot go on.
pub fn run(orders: Orders) -> Result<End, String> {
    let mut run = Run::begin(orders)?;
    let end = match run.drive() {
        Ok(end) => end,
        Err(why) => End::Broken(why),
    };
    let closed = run.close(&end);
    let end = match (end, closed) {
        // The first thing that went wrong is why the second did.
        (End::Broken(why), _) => End::Broken(why),
        (_, Err(why)) => End::Broken(why),
        (end, Ok(())) => end,
    };
    run.watch.hear(&Event::Ended(&end, &run.told));
    Ok(end)
}

struct Run<'a> {
    plan: &'a Plan,
    control: &'a Control,
    watch: &'a mut dyn Watch,
    language: Language,
    judge: Judge,
    poll: Poll,
    links: Vec<Option<Link>>,
    reconnect: Reconnect,
    /// It is not time yet.
    appointed: Option<Why>,
    people: People,
    reach: Reach,
    /// Which start of the machine this is.
    boot: Option<String>,
    wait: Wait,
    rate: Rate,
    clerk: Clerk,
    book: Book,
    /// What the journal has, and why nothing goes out, as those who watch know it.
    told: Progress,
    told_why: Option<Why>,
    began: Instant,
    /// Somebody wants it to end, since when.
    drains: Option<Instant>,
    /// Somebody's id and variables.
    id: String,
    data: String,
    unclear: Unclear,
    chunk: Vec<u8>,
}

/// When connections are tried again that were lost or never came to be.
struct Reconnect {
    pause: Duration,
    at: Instant,
    /// Attempts in vain: of a name with several addresses, each has its turn.
    tries: usize,
    /// Nobody is reached.
    why: Option<Why>,
}

/// Answers that say nothing.
#[derive(Default)]
struct Unclear {
    told: Seldom,
    /// The first since somebody's said something.
    since: Option<(Instant, Why)>,
}

/// What is to be in the journal next.
struct Book {
    progress: Progress,
    /// Of all runs before.
    took: u64,
    rows: String,
    failures: Vec<Failure>,
    open: Vec<Open>,
    /// The last block that was given to the clerk, and the last that is in the journal.
    given: u64,
    acked: u64,
    /// Something is to be kept.
    dirty: bool,
    /// Somebody waits for that.
    hurry: bool,
    at: Instant,
    /// The time as results have it, and the second that it is of.
    time: (u64, String),
}

impl<'a> Run<'a> {
    fn begin(orders: Orders<'a>) -> Result<Run<'a>, String> {
        let Orders { place, plan, mut journal, control, watch, unknown, language } = orders;
        let mut state = journal.state()?;
        let results = Results::take_up(&place.folder, plan, &state, language)?;
        let unread = |error| format!("cannot read the list in {}: {error}", place.folder.display());
        if unknown == Unknown::Resend {
            reopen(&mut journal, &mut state)?;
        }
        let list = Kept::open(&place.folder, state.offset).map_err(unread)?;
        let mut people = People::new(list, state.next, plan.total, plan.window, plan.rate);
        let now = Moment::read();
        let reach = Reach::open(&place.folder, &state, &now).map_err(reach::failed)?;
        state.open.sort_by_key(|open| open.index);
        let mut read = Kept::open(&place.folder, 0).map_err(unread)?;
        for open in &state.open {
            let person = read.at(open.offset).map_err(unread)?;
            let doubt = unknown == Unknown::Report && reach.covers(open.index);
            let since = open.since.filter(|_| doubt).map(|since| {
                // Who is of an age that nobody can tell is too old.
                let age = now.age(since, &state.changed).unwrap_or(people::RECOGNISED_FOR);
                now.uptime - age.as_millis() as i64
            });
            people.hold(person, Open { since, ..*open });
        }
        let cannot = |error| format!("cannot poll: {error}");
        let poll = Poll::new().map_err(cannot)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(cannot)?);
        control.wakes(&waker);
        let boot = now.boot;
        let now = Instant::now();
        Ok(Run {
            clerk: Clerk::start(journal, results, waker)?,
            plan,
            control,
            watch,
            language,
            judge: Judge::new(),
            poll,
            links: (0..plan.connections).map(|_| None).collect(),
            reconnect: Reconnect { pause: BACKOFF.start, at: now, tries: 0, why: None },
            appointed: None,
            people,
            reach,
            boot,
            wait: Wait::new(now),
            rate: Rate::new(plan.rate, now),
            told: state.progress.clone(),
            told_why: None,
            book: Book {
                progress: state.progress,
                took: state.took,
                rows: String::new(),
                failures: Vec::new(),
                open: Vec::new(),
                given: 0,
                acked: 0,
                dirty: true,
                hurry: false,
                at: now,
                time: (0, String::new()),
            },
            began: now,
            drains: None,
            id: String::new(),
            unclear: Unclear::default(),
            data: String::new(),
            chunk: vec![0; 64 * 1024],
        })
    }

    fn drive(&mut self) -> Result<End, String> {
        self.watch.hear(&Event::Started(&self.told));
        if let Some(end) = self.appointment()? {
            return Ok(end);
        }
        let mut events = Events::with_capacity(64);
        let mut ticked = Instant::now();
        loop {
            let now = Instant::now();
            if let Some(end) = self.turn(now)? {
                return Ok(end);
            }
            if now - ticked >= TICK {
                ticked = now;
                self.watch.tick(&self.told);
            }
            match self.poll.poll(&mut events, Some(self.idle(now))) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled.map_err(|error| format!("cannot poll: {error}"))?,
            }
            let now = Instant::now();
            for event in &events {
                if event.token() != WAKER {
                    self.serve(event.token().0, now)?;
                }
            }
        }
    }

    /// Waits until the time that was appointed.
    fn appointment(&mut self) -> Result<Option<End>, String> {
        let due = |at: u64| at > clock::unix_seconds() * 1_000;
        let Some(at) = self.plan.at.filter(|at| due(*at)) else { return Ok(None) };
        self.appointed = Some(Why::Appointed(at));
        self.tell_why(Instant::now());
        self.keep(Stage::Running, Instant::now())?;
        let mut events = Events::with_capacity(1);
        while due(at) {
            if let Some((wish, _)) = self.control.wish() {
                self.appointed = None;
                return Ok(Some(end_of(wish)));
            }
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("cannot poll: {error}"));
                }
                _ => self.watch.tick(&self.told),
            }
            self.take_block()?;
        }
        self.appointed = None;
        self.tell_why(Instant::now());
        Ok(None)
    }

    /// One look at all that may have changed; Some if it ends.
    fn turn(&mut self, now: Instant) -> Result<Option<End>, String> {
        self.take_block()?;
        self.tell_why(now);
        if let Some(end) = self.wishes(now) {
            return Ok(Some(end));
        }
        if self.people.is_done() && self.is_booked() {
            return Ok(Some(End::Finished));
        }
        self.connect(now);
        if self.drains.is_none() {
            self.go_out(now)?;
        }
        self.reach.keep().map_err(reach::failed)?;
        self.flush(now);
        self.give_block(now)?;
        Ok(None)
    }

    /// Why nothing goes out, if nothing does.
    fn why(&self, now: Instant) -> Option<&Why> {
        let unclear = self.unclear.since.as_ref();
        let unclear = unclear.filter(|(since, _)| now.saturating_duration_since(*since) >= STILL);
        let reached = self.reconnect.why.as_ref().or(self.wait.why());
        self.appointed.as_ref().or(reached).or(unclear.map(|(_, why)| why))
    }

    /// Those who watch, and the journal, know it when it has changed.
    fn tell_why(&mut self, now: Instant) {
        if self.why(now) == self.told_why.as_ref() {
            return;
        }
        self.told_why = self.why(now).cloned();
        self.watch.hear(&self.told_why.as_ref().map_or(Event::GoesOn, Event::Waits));
        self.book.dirty = true;
    }

    fn wishes(&mut self, now: Instant) -> Option<End> {
        let (wish, haste) = self.control.wish()?;
        let out = self.people.out();
        let since = *self.drains.get_or_insert_with(|| {
            self.watch.hear(&Event::Drains(out));
            now
        });
        let over = out == 0 || haste == Haste::Now || now - since >= DRAIN;
        // What was answered is told by whoever closes the books.
        over.then(|| end_of(wish))
    }

    /// How long nothing can be due.
    fn idle(&self, now: Instant) -> Duration {
        let links = self.links.iter().flatten().filter_map(Link::deadline);
        let lost = self.links.iter().any(Option::is_none).then_some(self.reconnect.at);
        let block = (self.book.dirty && !self.clerk.is_busy()).then_some(self.book.at + BLOCK);
        let due = links.chain(lost).chain(block).chain(self.wait.due()).chain(self.rate.due());
        due.map(|at| at.saturating_duration_since(now)).min().unwrap_or(TICK).min(TICK)
    }

    /// All that became of people is in the journal.
    fn is_booked(&self) -> bool {
        !self.book.dirty && !self.clerk.is_busy()
    }

    fn number_of_next_block(&self) -> u64 {
        self.book.given + 1
    }

    /// What the clerk has done is told.
    fn take_block(&mut self) -> Result<(), String> {
        match self.clerk.take()? {
            Some(block) => self.tell(block),
            None => Ok(()),
        }
    }

    fn tell(&mut self, block: Block) -> Result<(), String> {
        self.book.acked = block.number;
        if let Some(remade) = &block.remade {
            self.watch.hear(&Event::Remade(remade));
        }
        let any = block.state.progress != self.told;
        self.told = block.state.progress;
        if any {
            let (progress, failures) = (&self.told, &block.failures[..]);
            self.watch.hear(&Event::Answered { progress, failures });
        }
        // Their memory serves again.
        self.book.open = block.state.open;
        if self.book.rows.is_empty() {
            self.book.rows = block.rows;
            self.book.rows.clear();
        }
        Ok(())
    }

    fn give_block(&mut self, now: Instant) -> Result<(), String> {
        let due = self.book.dirty && !self.clerk.is_busy();
        let hurry = self.book.hurry || self.people.is_done();
        match due && (hurry || now >= self.book.at + BLOCK) {
            true => self.keep(Stage::Running, now),
            false => Ok(()),
        }
    }

    /// Gives the clerk what there is. To be called while it is not busy.
    fn keep(&mut self, stage: Stage, now: Instant) -> Result<(), String> {
        let mut open = std::mem::take(&mut self.book.open);
        let (next, offset) = self.people.put(&mut open);
        let waits = self.why(now).map(|why| words::why(why, Language::English));
        let book = &mut self.book;
        let mut state = State {
            stage,
            next,
            offset,
            open,
            result_bytes: 0,
            progress: book.progress.clone(),
            waits,
            took: book.took + (now - self.began).as_millis() as u64,
            changed: Moment::of(self.boot.clone()),
        };
        state.progress.front = state.front();
        book.given += 1;
        (book.dirty, book.hurry, book.at) = (false, false, now);
        let (rows, failures) = (std::mem::take(&mut book.rows), std::mem::take(&mut book.failures));
        self.clerk.give(Block { number: book.given, state, rows, failures, remade: None })
    }

    /// The last block.
    fn close(&mut self, end: &End) -> Result<(), String> {
        let stage = match end {
            End::Finished => Stage::Finished,
            End::Ended => Stage::Ended,
            End::Paused | End::Broken(_) => Stage::Paused,
        };
        if self.clerk.is_busy() {
            let block = self.clerk.wait()?;
            self.tell(block)?;
        }
        self.people.unstage();
        self.keep(stage, Instant::now())?;
        let block = self.clerk.wait()?;
        self.tell(block)
    }

    /// Somebody is answered, and leaves.
    fn book(&mut self, held: Held, status: Status, errcode: Option<i64>, errmsg: &str) {
        let book = &mut self.book;
        let second = clock::unix_seconds();
        if book.time.0 != second {
            book.time = (second, words::time(second * 1_000));
        }
        let counter = match status {
            Status::Sent => &mut book.progress.sent,
            Status::Failed => &mut book.progress.failed,
            Status::Unknown => &mut book.progress.unknown,
        };
        *counter += 1;
        let meaning = errcode.map_or("", |errcode| words::meaning(errcode, self.language));
        let row = results::Row {
            line: held.line,
            openid: &held.openid,
            status,
            errcode,
            errmsg,
            meaning,
            time: &book.time.1,
        };
        results::put(&mut book.rows, &row);
        if status == Status::Failed {
            *book.progress.errcodes.entry(errcode).or_default() += 1;
        }
        if status != Status::Sent {
            let Held { open: Open { index, offset, .. }, line, openid, .. } = held;
            let errmsg = errmsg.to_owned();
            book.failures.push(Failure { index, offset, line, openid, status, errcode, errmsg });
        }
        book.dirty = true;
    }
}

fn end_of(wish: Wish) -> End {
    match wish {
        Wish::Pause => End::Paused,
        Wish::End => End::Ended,
    }
}

/// Those of whom it was reported that nobody knows are to be sent to again; a later line of the result file counts.
fn reopen(journal: &mut Journal, state: &mut State) -> Result<(), String> {
    let mut open = Vec::new();
    journal.failures(|failure| {
        if failure.status == Status::Unknown {
            let Failure { index, offset, .. } = failure;
            // Another id: what became of the first is asked no more.
            open.push(Open { index, offset, since: None, turn: 1 });
        }
        Ok(())
    })?;
    state.open.extend(open);
    state.progress.unknown = 0;
    journal.take_back(state, Status::Unknown)
}
