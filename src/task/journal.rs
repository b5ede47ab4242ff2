//! The journal of one task, an SQLite file in its folder: what it is to do, and how far it has come. One writer; every
//! transaction is durable.
//!
//! - J1: everybody before `next` who is not `open` is answered, and the result file's first `result_bytes` bytes say
//!   so: one line for each.
//! - J2: nobody goes out who is not in `open` with a time that is no later than that: after any end of the process,
//!   who is not in it was never sent, or is answered.

mod retried;

pub use retried::Pick;

use super::event::{Failure, Progress, Status};
use super::plan::Plan;
use crate::clock::Moment;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::Path;

const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE plan (json TEXT NOT NULL);
CREATE TABLE state (
    stage        TEXT NOT NULL,
    next         INTEGER NOT NULL, -- the first of the list who is not looked at yet, from 0,
    offset       INTEGER NOT NULL, -- and where the list has it
    open         BLOB NOT NULL,    -- those before it without an answer, 28 bytes each: see Open
    result_bytes INTEGER NOT NULL,
    sent         INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    unknown      INTEGER NOT NULL,
    errcodes     TEXT NOT NULL,    -- JSON: pairs of a code, or null, and how many
    waits        TEXT,             -- why nothing goes out
    took         INTEGER NOT NULL, -- ms of all runs
    changed      INTEGER NOT NULL, -- Unix ms,
    uptime       INTEGER NOT NULL, -- and ms since the machine began
    boot         TEXT              -- for the time that has this id
);
CREATE TABLE failure (
    person  INTEGER PRIMARY KEY, -- from 0
    offset  INTEGER NOT NULL,
    line    INTEGER NOT NULL,
    openid  TEXT NOT NULL,
    status  TEXT NOT NULL,       -- failed, unknown
    errcode INTEGER,
    errmsg  TEXT NOT NULL
);
";

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Never run.
    Ready,
    /// A process runs it, or was killed while it did.
    Running,
    Paused,
    Finished,
    Ended,
}

impl Stage {
    const ALL: [(Stage, &str); 5] = [
        (Stage::Ready, "ready"),
        (Stage::Running, "running"),
        (Stage::Paused, "paused"),
        (Stage::Finished, "finished"),
        (Stage::Ended, "ended"),
    ];

    pub fn name(self) -> &'static str {
        Stage::ALL[self as usize].1
    }

    fn of(name: &str) -> Option<Stage> {
        Stage::ALL.iter().find(|(_, it)| *it == name).map(|(stage, _)| *stage)
    }
}

/// Somebody without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub index: u64,
    /// Where the list has it.
    pub offset: u64,
    /// Since when a message may be out, if one may be: in ms since the machine began, below 0 before that.
    pub since: Option<i64>,
    /// So many messages were refused for good.
    pub turn: u32,
}

impl Open {
    const BYTES: usize = 28;
    /// As `since`: nothing is out.
    const NOTHING: i64 = i64::MIN;

    fn put(&self, out: &mut Vec<u8>) {
        for number in [self.index, self.offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.since.unwrap_or(Open::NOTHING).to_le_bytes());
        out.extend_from_slice(&self.turn.to_le_bytes());
    }

    /// None if they are not as many bytes.
    fn take(bytes: &[u8]) -> Option<Open> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let turn = u32::from_le_bytes(bytes.get(24..28)?.try_into().ok()?);
        let since = Some(number(16)?.cast_signed()).filter(|since| *since != Open::NOTHING);
        Some(Open { index: number(0)?, offset: number(8)?, since, turn })
    }
}

/// How far a task has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub stage: Stage,
    pub next: u64,
    pub offset: u64,
    pub open: Vec<Open>,
    pub result_bytes: u64,
    /// Without `front`.
    pub progress: Progress,
    pub waits: Option<String>,
    /// ms of all runs.
    pub took: u64,
    /// When it was so, by the clock that `since` is of, too.
    pub changed: Moment,
}

impl State {
    pub fn new(total: u64) -> State {
        State {
            stage: Stage::Ready,
            next: 0,
            offset: 0,
            open: Vec::new(),
            result_bytes: 0,
            progress: Progress { total, ..Progress::default() },
            waits: None,
            took: 0,
            changed: Moment::read(),
        }
    }

    /// So many from the beginning are answered without a gap.
    pub fn front(&self) -> u64 {
        self.open.iter().map(|open| open.index).min().unwrap_or(self.next)
    }
}

pub struct Journal {
    connection: Connection,
    blob: Vec<u8>,
}

type Told<T> = Result<T, String>;

fn failed(error: rusqlite::Error) -> String {
    format!("the task's journal: {error} (check the disk and the folder's owner)")
}

impl Journal {
    /// A new task's; the people are on the disk already.
    pub fn create(path: &Path, plan: &Plan) -> Told<Journal> {
        let mut journal = Journal::begin(path)?;
        let json = serde_json::to_string(plan).map_err(|error| format!("the plan: {error}"))?;
        let state = State::new(plan.total);
        let write = journal.connection.transaction().map_err(failed)?;
        write
            .execute_batch(TABLES)
            .and_then(|()| write.pragma_update(None, "user_version", VERSION))
            .and_then(|()| write.execute("INSERT INTO plan VALUES (?1)", [&json]))
            .and_then(|_| {
                let sql = "INSERT INTO state VALUES \
                           ('ready', 0, 0, x'', 0, 0, 0, 0, '[]', NULL, 0, ?1, ?2, ?3)";
                let Moment { boot, uptime, unix } = &state.changed;
                write.execute(sql, rusqlite::params![unix, uptime, boot])
            })
            .and_then(|_| write.commit())
            .map_err(failed)?;
        Ok(journal)
    }

    pub fn open(path: &Path) -> Told<Journal> {
        let journal = Journal::begin(path)?;
        check(&journal.connection)?;
        Ok(journal)
    }

    fn begin(path: &Path) -> Told<Journal> {
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
            .and_then(|()| connection.busy_timeout(std::time::Duration::from_secs(5)))
            .map_err(failed)?;
        Ok(Journal { connection, blob: Vec::new() })
    }

    pub fn plan(&self) -> Told<Plan> {
        plan(&self.connection)
    }

    pub fn set_plan(&self, plan: &Plan) -> Told<()> {
        let json = serde_json::to_string(plan).map_err(|error| format!("the plan: {error}"))?;
        self.connection.execute("UPDATE plan SET json = ?1", [&json]).map_err(failed)?;
        Ok(())
    }

    pub fn state(&self) -> Told<State> {
        state(&self.connection)
    }

    /// The rows of all who are answered are in the plan's result file now, which has so many bytes.
    pub fn set_result(&mut self, plan: &Plan, bytes: u64) -> Told<()> {
        let json = serde_json::to_string(plan).map_err(|error| format!("the plan: {error}"))?;
        let write = self.connection.transaction().map_err(failed)?;
        write
            .execute("UPDATE plan SET json = ?1", [&json])
            .and_then(|_| write.execute("UPDATE state SET result_bytes = ?1", [bytes]))
            .and_then(|_| write.commit())
            .map_err(failed)
    }

    /// One transaction: a state, and those that failed since the last.
    pub fn keep(&mut self, state: &State, failures: &[Failure]) -> Told<()> {
        self.write(state, |write| put_failures(write, failures))
    }

    /// All of this status are open again, as the state says, and off the list of failures.
    pub fn take_back(&mut self, state: &State, status: Status) -> Told<()> {
        self.write(state, |write| {
            write.execute("DELETE FROM failure WHERE status = ?1", [status.name()]).map(drop)
        })
    }

    fn write(
        &mut self,
        state: &State,
        more: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Told<()> {
        self.blob.clear();
        state.open.iter().for_each(|open| open.put(&mut self.blob));
        let errcodes: Vec<(&Option<i64>, &u64)> = state.progress.errcodes.iter().collect();
        let errcodes = serde_json::to_string(&errcodes).map_err(|error| error.to_string())?;
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let write = write.map_err(failed)?;
        put_state(&write, state, &self.blob, &errcodes)
            .and_then(|()| more(&write))
            .and_then(|()| write.commit())
            .map_err(failed)
    }

    /// Calls `on` for each, in the order of the list.
    pub fn failures(&self, on: impl FnMut(Failure) -> Told<()>) -> Told<()> {
        failures(&self.connection, "", [], on)
    }
}

fn put_state(
    write: &Connection,
    state: &State,
    open: &[u8],
    errcodes: &str,
) -> rusqlite::Result<()> {
    let mut update = write.prepare_cached(
        "UPDATE state SET stage = ?1, next = ?2, offset = ?3, open = ?4, result_bytes = ?5, sent = ?6, \
         failed = ?7, unknown = ?8, errcodes = ?9, waits = ?10, took = ?11, changed = ?12, \
         uptime = ?13, boot = ?14",
    )?;
    update.execute(rusqlite::params![
        state.stage.name(),
        state.next,
        state.offset,
        open,
        state.result_bytes,
        state.progress.sent,
        state.progress.failed,
        state.progress.unknown,
        errcodes,
        state.waits,
        state.took,
        state.changed.unix,
        state.changed.uptime,
        state.changed.boot,
    ])?;
    Ok(())
}

fn put_failures(write: &Connection, failures: &[Failure]) -> rusqlite::Result<()> {
    let mut insert = write
        .prepare_cached("INSERT OR REPLACE INTO failure VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for failure in failures {
        let Failure { index, offset, line, openid, status, errcode, errmsg } = failure;
        insert.execute(rusqlite::params![
            index,
            offset,
            line,
            openid,
            status.name(),
            errcode,
            errmsg
        ])?;
    }
    Ok(())
}

/// A journal that another process may be writing.
pub struct Look(Connection);

impl Look {
    pub fn at(path: &Path) -> Told<Look> {
        let connection = crate::sqlite::look(path)?.ok_or("there is no journal")?;
        check(&connection)?;
        Ok(Look(connection))
    }

    pub fn plan(&self) -> Told<Plan> {
        plan(&self.0)
    }

    pub fn state(&self) -> Told<State> {
        state(&self.0)
    }
}

fn check(connection: &Connection) -> Told<()> {
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match version {
        VERSION => Ok(()),
        0 => Err("it is no journal of a task".into()),
        other => Err(format!("another mega-task has written it (version {other}): use that one")),
    }
}

fn plan(connection: &Connection) -> Told<Plan> {
    let json = connection.query_row("SELECT json FROM plan", [], |row| row.get::<_, String>(0));
    let json = json.map_err(failed)?;
    serde_json::from_str(&json).map_err(|error| format!("the task's plan is damaged: {error}"))
}

fn state(connection: &Connection) -> Told<State> {
    let damaged = || "the task's journal is damaged: what is in it is of no form".to_owned();
    let row = connection
        .query_row(
            "SELECT stage, next, offset, open, result_bytes, sent, failed, unknown, errcodes, waits, took, changed, \
             uptime, boot FROM state",
            [],
            |row| {
                let errcodes: String = row.get(8)?;
                let progress = Progress {
                    total: 0,
                    sent: row.get(5)?,
                    failed: row.get(6)?,
                    unknown: row.get(7)?,
                    front: 0,
                    errcodes: serde_json::from_str::<Vec<(Option<i64>, u64)>>(&errcodes)
                        .unwrap_or_default()
                        .into_iter()
                        .collect(),
                };
                let state = State {
                    stage: Stage::of(&row.get::<_, String>(0)?).unwrap_or(Stage::Paused),
                    next: row.get(1)?,
                    offset: row.get(2)?,
                    open: Vec::new(),
                    result_bytes: row.get(4)?,
                    progress,
                    waits: row.get(9)?,
                    took: row.get(10)?,
                    changed: Moment { unix: row.get(11)?, uptime: row.get(12)?, boot: row.get(13)? },
                };
                Ok((state, row.get::<_, Vec<u8>>(3)?))
            },
        )
        .optional()
        .map_err(failed)?;
    let (mut state, blob) = row.ok_or_else(damaged)?;
    let open: Option<Vec<Open>> = blob.chunks(Open::BYTES).map(Open::take).collect();
    state.open = open.ok_or_else(damaged)?;
    state.progress.total = plan(connection)?.total;
    state.progress.front = state.front();
    Ok(state)
}

/// `whose`: which of them, with its values.
fn failures(
    connection: &Connection,
    whose: &str,
    values: impl rusqlite::Params,
    mut on: impl FnMut(Failure) -> Told<()>,
) -> Told<()> {
    let sql = format!(
        "SELECT person, offset, line, openid, status, errcode, errmsg FROM failure {whose} ORDER BY person"
    );
    let mut select = connection.prepare(&sql).map_err(failed)?;
    let rows = select.query_map(values, |row| {
        let status = match row.get::<_, String>(4)?.as_str() {
            "failed" => Status::Failed,
            _ => Status::Unknown,
        };
        Ok(Failure {
            index: row.get(0)?,
            offset: row.get(1)?,
            line: row.get(2)?,
            openid: row.get(3)?,
            status,
            errcode: row.get(5)?,
            errmsg: row.get(6)?,
        })
    });
    for failure in rows.map_err(failed)? {
        on(failure.map_err(failed)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_a_look_sees_it_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let plan = plan();
        let mut journal = Journal::create(&path, &plan).unwrap();
        let mut state = journal.state().unwrap();
        assert_eq!((state.stage, state.progress.total, state.front()), (Stage::Ready, 10, 0));
        state.stage = Stage::Running;
        (state.next, state.offset) = (7, 700);
        state.open = vec![
            Open { index: 6, offset: 600, since: Some(-1), turn: 0 },
            Open { index: 3, offset: 300, since: None, turn: 2 },
            Open { index: 5, offset: 500, since: Some(0), turn: 0 },
        ];
        state.progress = Progress {
            total: 10,
            sent: 3,
            failed: 2,
            unknown: 0,
            front: 3,
            errcodes: [(None, 1), (Some(-1), 1)].into(),
        };
        state.waits = Some("stopping".into());
        state.changed = Moment { boot: None, uptime: -5, unix: 7 };
        let failure = |index, errcode| Failure {
            index,
            offset: index * 100,
            line: index + 2,
            openid: format!("o{index}"),
            status: Status::Failed,
            errcode,
            errmsg: "why".into(),
        };
        journal.keep(&state, &[failure(4, None), failure(1, Some(-1))]).unwrap();
        let look = Look::at(&path).unwrap();
        assert_eq!((look.state().unwrap(), look.plan().unwrap()), (state.clone(), plan));
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.state().unwrap(), state);
        let list = |journal: &Journal| {
            let mut list = Vec::new();
            journal
                .failures(|it| {
                    list.push(it);
                    Ok(())
                })
                .unwrap();
            list
        };
        assert_eq!(list(&journal), [failure(1, Some(-1)), failure(4, None)]);
        journal.take_back(&state, Status::Unknown).unwrap();
        assert_eq!(list(&journal).len(), 2);
        journal.take_back(&state, Status::Failed).unwrap();
        assert!(list(&journal).is_empty());
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(Journal::open(&path).err().unwrap().contains("no journal"));
        assert!(Look::at(&folder.path().join("none")).is_err());
    }
}
