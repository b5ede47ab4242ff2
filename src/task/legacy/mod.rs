//! Drives a row of `mega_task`, so that an installation's pages go on showing how far a task is: `start`, `stop` and
//! `end` as the demo's `yii task` had them. `table` speaks SQL, `people` makes the list, `board` keeps the row, `steer`
//! stops it; the task itself is one like any other, in a folder of its own.
//!
//! - L1: a row is taken only as it was found, and written only by the process that has it.
//! - L2: the row's file_index counts lines from the beginning that are all done, never more.

mod board;
mod people;
mod steer;
mod table;

use super::control::{Control, Hangup};
use super::event::{End, Event, Progress, Watch};
use super::home::{Home, Name, Place};
use super::journal::Journal;
use super::list::{self, Input, Survey};
use super::plan::{self, Encoding, Plan, Verb};
use super::run::{self, Orders, Unknown};
use super::watch::Log;
use super::{ask, exit};
use crate::cli::language::Language;
use crate::daemon::PidFile;
use crate::file;
use board::{Board, Recorder, Subject, UNREACHED};
use clap::{Args, Subcommand};
use people::Left;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::{Counts, Row, Status, Table, To};

/// What is waited for a connection to mega before anything begins.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Subcommand)]
pub enum Command {
    /// Send to the people of a row, or go on with it
    Start(Start),
    /// Pause the process that runs a row (status 5)
    Stop(Which),
    /// End the process that runs a row (status 6)
    End(Which),
}

#[derive(Args)]
pub struct Which {
    /// The row's task_id
    id: u32,
    /// The database, as PDO has it: mysql:host=127.0.0.1;port=3306;dbname=mega
    #[arg(long, value_name = "DSN")]
    mysql: String,
    /// Who asks the database
    #[arg(long, value_name = "NAME", default_value = "root")]
    user: String,
    /// The file that has the password [default: MEGA_TASK_MYSQL_PASSWORD, else none]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What stands before mega_task and mega_user in the names of the tables
    #[arg(long, value_name = "PREFIX", default_value = "")]
    table_prefix: String,
}

#[derive(Args)]
pub struct Start {
    #[command(flatten)]
    which: Which,
    /// Where mega listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9501")]
    to: String,
    /// The installation's folder: what the row's file is relative to, and where runtime/logs is
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// The demo left the row half done: the last file_index lines of its file are done
    #[arg(long)]
    resume_demo: bool,
    /// How long mega may be away, or refuse, before the row is interrupted (status 4)
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

/// Whose the task is, and what others had done before, as its folder keeps it.
#[derive(Serialize, Deserialize)]
struct Before {
    row: String,
    success: u64,
    fail: u64,
}

impl Before {
    const FILE: &str = "legacy.json";

    fn read(folder: &Path) -> Result<Before, String> {
        let path = folder.join(Before::FILE);
        let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn write(&self, folder: &Path) -> Result<(), String> {
        let path = folder.join(Before::FILE);
        let text = serde_json::to_vec(self).expect("invariant: text and numbers are JSON");
        let written = file::replace(&path, |file| file.write_all(&text));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// A row's task goes on with its row alone, or the pages would not see it.
pub fn not_a_rows(place: &Place) -> Result<(), String> {
    match place.folder.join(Before::FILE).exists() {
        false => Ok(()),
        true => Err(format!(
            "the task {} belongs to a row of mega_task, which says what is to become of it: legacy start goes on with it",
            place.name
        )),
    }
}

/// Runs one of the commands and returns its exit code.
pub fn command(home: &Home, command: &Command) -> Result<u8, String> {
    match command {
        Command::Start(options) => start(home, options),
        Command::Stop(which) => steer::signal(which, Signal::TERM),
        Command::End(which) => steer::signal(which, Signal::INT),
    }
}

impl Which {
    fn open(&self) -> Result<Table, String> {
        let password = match &self.password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("--password-file {}: {error}", path.display()))?,
            None => std::env::var("MEGA_TASK_MYSQL_PASSWORD").unwrap_or_default(),
        };
        Table::open(
            &self.mysql,
            &self.user,
            password.trim_end_matches(['\r', '\n']),
            &self.table_prefix,
        )
    }
}

fn start(home: &Home, options: &Start) -> Result<u8, String> {
    let control = Control::default();
    // As with the demo; USR1 is `mega-task end`.
    control
        .listen(&[SIGINT, SIGUSR1], Hangup::Pauses)
        .map_err(|error| format!("cannot listen to signals: {error}"))?;
    let id = options.which.id;
    let mut table = options.which.open()?;
    let row = table.find(id)?;
    let name = Name::new(&format!("legacy-{}{id}", options.which.table_prefix))?;
    may_start(id, &row, &options.root, home.task(&name).ok())?;
    let taken = take_up(home, &name, &row, options, &mut table);
    let (place, lock) = match taken {
        Ok(taken) => taken,
        Err(Refused { why, settled }) => {
            if settled {
                table.settle(id, &row, Status::Failed, &why)?;
            }
            return Err(why);
        }
    };
    if let Err(why) = ask::connect(&options.to, CONNECT) {
        table.settle(id, &row, Status::Failed, UNREACHED)?;
        return Err(format!("cannot reach mega at {}: {why} (does it run?)", options.to));
    }
    send(id, &row, table, (&place, &lock), options, &control)
}

/// Why a row is not started.
struct Refused {
    why: String,
    /// The row says so.
    settled: bool,
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused { why, settled: false }
    }
}

fn may_start(id: u32, row: &Row, root: &Path, place: Option<Place>) -> Result<(), String> {
    if row.is_deleted {
        return Err(format!("task {id} is deleted"));
    }
    // Who had the row had the folder, too: its lock tells a process that was killed from one that is elsewhere.
    let killed = place.and_then(|place| place.left_by()).is_some_and(|pid| pid as i32 == row.pid);
    match row.status {
        Status::Running if !killed => {
            return Err(format!(
                "task {id} runs already: process {} (if that is gone, legacy stop {id} on its machine says so in the row)",
                row.pid
            ));
        }
        Status::Finished => return Err(format!("task {id} is finished: nobody is left")),
        _ => {}
    }
    let file = root.join(&row.file);
    match row.to {
        To::Everybody => Ok(()),
        To::Uids | To::Openids if file.is_file() => Ok(()),
        To::Uids | To::Openids => {
            Err(format!("the file of task {id} is missing: {} (--root?)", file.display()))
        }
    }
}

/// The folder of the row's task: the one that is there, or a new one.
fn take_up(
    home: &Home,
    name: &Name,
    row: &Row,
    options: &Start,
    table: &mut Table,
) -> Result<(Place, PidFile), Refused> {
    let own = table.name_of(options.which.id);
    if let Ok(place) = home.task(name) {
        let whose = Before::read(&place.folder)?.row;
        if whose != own {
            return Err(format!(
                "the folder {} has the task of {whose}, and this is {own}: give it another --home, or name the \
                 database as it was named there",
                place.folder.display()
            )
            .into());
        }
        let lock = place.lock()?;
        if row.status != Status::Waiting {
            go_on(&place, row, options)?;
            return Ok((place, lock));
        }
        // The pages have set the row back: it is a new task.
        let folder = &place.folder;
        std::fs::remove_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let file_index = row.counts.file_index;
    let left = match (file_index, options.resume_demo) {
        (0, _) => Left::Fresh,
        (done, true) => Left::LastDone(done),
        (done, false) => {
            return Err(format!(
                "somebody else has sent a part of this task ({done} lines): --resume-demo goes on where the \
                 demo stopped; with file_index 0 it begins anew"
            )
            .into());
        }
    };
    let before = match left {
        Left::Fresh => Before { row: own, success: 0, fail: 0 },
        Left::LastDone(_) => {
            Before { row: own, success: row.counts.success, fail: row.counts.fail }
        }
    };
    let draft = home.draft(name)?;
    let folder = &draft.place.folder;
    let gathered = people::gather(row, left, table, &options.root, folder)?;
    let imported = list::import(Input::File(&gathered.path), &list::Options::default(), folder);
    let survey = match imported {
        Ok(survey) if survey.people > 0 => survey,
        Ok(_) => {
            return Err(Refused { why: "名单中没有可发送的人".into(), settled: true });
        }
        Err(error) => return Err(Refused { why: error.texts()[1].clone(), settled: true }),
    };
    tell(&survey, &gathered, &log_path(options))?;
    before.write(folder)?;
    drop(Journal::create(&draft.place.journal(), &plan(row, options, &survey, home, name)?)?);
    Ok(home.settle(draft)?)
}

fn plan(
    row: &Row,
    options: &Start,
    survey: &Survey,
    home: &Home,
    name: &Name,
) -> Result<Plan, String> {
    let result = home.place(name).folder.join("result.csv");
    Ok(Plan {
        to: options.to.clone(),
        key: row.key.clone(),
        data: String::new(),
        verb: Verb::Send,
        window: plan::WINDOW,
        connections: plan::CONNECTIONS,
        rate: None,
        at: None,
        result: std::path::absolute(&result).map_err(|error| error.to_string())?,
        encoding: Encoding::Utf8,
        source: row.file.clone(),
        total: survey.people,
        id: plan::own_part()?,
        created: crate::clock::now_ms(),
    })
}

/// A task that was begun here goes on, if it is still the row's.
fn go_on(place: &Place, row: &Row, options: &Start) -> Result<(), String> {
    let journal = Journal::open(&place.journal())?;
    let (mut plan, state, before) =
        (journal.plan()?, journal.state()?, Before::read(&place.folder)?);
    if plan.key != row.key || plan.source != row.file {
        return Err("the row has another tmpl_key or file than when it was begun; with status 0 it begins anew".into());
    }
    let ours = before.success + before.fail + state.progress.done();
    if row.counts.success + row.counts.fail > ours {
        return Err(format!(
            "somebody else has gone on with this row: it counts {} done, and mega-task has done {ours}; \
             with status 0 it begins anew",
            row.counts.success + row.counts.fail
        ));
    }
    plan.to = options.to.clone();
    journal.set_plan(&plan)
}

fn log_path(options: &Start) -> PathBuf {
    options.root.join(format!("runtime/logs/task-{}.log", options.which.id))
}

/// Who of the file is not sent to is in the log.
fn tell(survey: &Survey, gathered: &people::Gathered, log: &Path) -> Result<(), String> {
    let mut text = String::new();
    gathered.told.iter().for_each(|line| board::put(&mut text, line));
    for malformed in &survey.malformed.first {
        board::put(&mut text, &format!("line {}: {}", malformed.line, malformed.why.texts()[0]));
    }
    for again in &survey.duplicates.first {
        let (line, before) = (again.line, again.before);
        board::put(&mut text, &format!("line {line}: is in line {before} already"));
    }
    let (strangers, malformed, again) =
        (gathered.strangers, survey.malformed.count, survey.duplicates.count);
    if strangers + malformed + again > 0 {
        let said =
            format!("{malformed} malformed, {again} repeated, {strangers} unknown: left out");
        board::put(&mut text, &said);
    }
    let written = board::open_log(log)?.write_all(text.as_bytes());
    written.map_err(|error| format!("cannot write {}: {error}", log.display()))
}

/// Takes the row and runs its task.
fn send(
    id: u32,
    row: &Row,
    mut table: Table,
    (place, _lock): (&Place, &PidFile),
    options: &Start,
    control: &Control,
) -> Result<u8, String> {
    let journal = Journal::open(&place.journal())?;
    let (plan, state) = (journal.plan()?, journal.state()?);
    let Before { success, fail, .. } = Before::read(&place.folder)?;
    let before = Counts { total: success + fail + plan.total, success, fail, file_index: 0 };
    let progress = &state.progress;
    let counts = Counts {
        success: success + progress.sent,
        fail: fail + progress.failed + progress.unknown,
        // Of a task that goes on, the board knows it anew in a moment.
        file_index: if progress.done() == 0 { 0 } else { row.counts.file_index },
        ..before
    };
    table.begin(id, row, &counts)?;
    let subject = Subject { id, before, folder: place.folder.clone(), log: log_path(options) };
    let board = Board::start(table, subject)?;
    let recorder = board.recorder(control, Duration::from_secs(options.patience));
    let mut watch = Both { recorder, log: Log::open(&place.log())?, ended: Progress::default() };
    let unknown = Unknown::Report;
    let orders = Orders {
        place,
        plan: &plan,
        journal,
        control,
        watch: &mut watch,
        unknown,
        language: Language::Chinese,
    };
    let end = run::run(orders).unwrap_or_else(End::Broken);
    let (status, said) = match (&end, watch.recorder.gave_up.take()) {
        (End::Finished, _) => (Status::Finished, String::new()),
        (End::Paused, Some(why)) => (Status::Interrupted, why),
        (End::Paused, None) => (Status::Paused, String::new()),
        (End::Ended, _) => (Status::Ended, String::new()),
        (End::Broken(why), _) => (Status::Failed, why.clone()),
    };
    board.finish(status, said)?;
    match end {
        End::Broken(why) => Err(why),
        end => Ok(exit::of(&end, &watch.ended)),
    }
}

/// The row and the task's own log.
struct Both {
    recorder: Recorder,
    log: Log,
    ended: Progress,
}

impl Watch for Both {
    fn hear(&mut self, event: &Event) {
        if let Event::Ended(_, progress) = event {
            self.ended = (*progress).clone();
        }
        self.recorder.hear(event);
        self.log.hear(event);
    }

    fn tick(&mut self, progress: &Progress) {
        self.recorder.tick(progress);
        self.log.tick(progress);
    }
}
