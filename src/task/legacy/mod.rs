//! Drives a row of `mega_task`, so that an installation's pages go on showing how far a task is: `start`, `stop` and
//! `end` as the demo's `yii task` had them. `table` speaks SQL, `found` judges a row, `people` makes the list, `board`
//! keeps the row, `steer` stops it; the task itself is one like any other, in a folder of its own.
//!
//! - L1: a row is taken only as it was found, and written only by the process that has it.
//! - L2: the row's file_index counts lines from the beginning that are all done, never more.

mod board;
mod found;
mod people;
mod steer;
mod table;

use super::ask;
use super::control::{Control, Hangup};
use super::event::{End, Event, Progress, Watch};
use super::exit::{self, Refused};
use super::home::{Home, Name, Place};
use super::journal::Journal;
use super::list::{self, Input, Survey};
use super::plan::{self, Encoding, Plan, Verb};
use super::run::{self, Orders, Unknown};
use super::watch::Log;
use crate::cli::language::Language;
use crate::daemon::PidFile;
use crate::file;
use board::{Board, Recorder, Subject, UNREACHED};
use clap::{Args, Subcommand};
use found::{file_of, left, may_start};
use people::Left;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::{Counts, Row, Status, Table};

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
    #[arg(long, conflicts_with = "resume_forward")]
    resume_demo: bool,
    /// A mega-task whose --home is not at hand left the row half done: the first file_index lines are done
    #[arg(long)]
    resume_forward: bool,
    /// The row's file may be outside the installation's folder, also by a link
    #[arg(long)]
    any_file: bool,
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
    /// Lines from the file's beginning that were done.
    #[serde(default)]
    file_index: u64,
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
pub fn not_a_rows(place: &Place) -> Result<(), Refused> {
    let name = &place.name;
    match place.folder.join(Before::FILE).exists() {
        false => Ok(()),
        true => Err(Refused::unfit([
            format!(
                "the task {name} belongs to a row of mega_task, which says what is to become of it: legacy start goes \
                 on with it"
            ),
            format!("任务 {name} 属于 mega_task 的一行，由该行决定：请用 legacy start 继续"),
        ])),
    }
}

/// Runs one of the commands and returns its exit code.
pub fn command(home: &Home, command: &Command, language: Language) -> Result<u8, Refused> {
    match command {
        Command::Start(options) => start(home, options, language),
        Command::Stop(which) => steer::signal(which, Signal::TERM, language),
        Command::End(which) => steer::signal(which, Signal::INT, language),
    }
}

impl Which {
    fn open(&self) -> Result<Table, Refused> {
        // What names an option is said of the command line.
        let refused = |why: String| match why.starts_with("--") {
            true => Refused::wrong([why.clone(), why]),
            false => why.into(),
        };
        let password = match &self.password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| refused(format!("--password-file {}: {error}", path.display())))?,
            None => std::env::var("MEGA_TASK_MYSQL_PASSWORD").unwrap_or_default(),
        };
        Table::open(
            &self.mysql,
            &self.user,
            password.trim_end_matches(['\r', '\n']),
            &self.table_prefix,
        )
        .map_err(refused)
    }
}

fn start(home: &Home, options: &Start, language: Language) -> Result<u8, Refused> {
    // As with the demo; USR1 is `mega-task end`.
    let control = Control::of_signals(&[SIGINT, SIGUSR1], Hangup::Pauses)?;
    let id = options.which.id;
    ask::check_address(&options.to)?;
    let mut table = options.which.open()?;
    let row = table.find(id)?;
    let name = Name::new(&format!("legacy-{}{id}", options.which.table_prefix))?;
    may_start(id, &row, home.task(&name).ok())?;
    let file = file_of(id, &row, options)?;
    let (place, lock) = match take_up(home, &name, (&row, &file), options, &mut table, language) {
        Ok(taken) => taken,
        Err(Unfit { why, settled }) => {
            if settled {
                let said = (Status::Failed, why.why[1].as_str());
                table.settle(id, &row, said, row.counts.total)?;
            }
            return Err(why);
        }
    };
    if let Err(error) = ask::connect(&options.to, CONNECT) {
        let Before { success, fail, .. } = Before::read(&place.folder)?;
        let total = success + fail + Journal::open(&place.journal())?.plan()?.total;
        table.settle(id, &row, (Status::Failed, UNREACHED), total)?;
        let to = &options.to;
        return Err(Refused::new(
            exit::FAILED,
            [
                format!("cannot reach mega at {to}: {error} (does it run?)"),
                format!("无法连接 {to} 的 mega：{error}（mega 在运行吗？）"),
            ],
        ));
    }
    Ok(send(id, &row, table, (&place, &lock), options, (&control, language))?)
}

/// Why a row is not started.
struct Unfit {
    why: Refused,
    /// The row says so.
    settled: bool,
}

impl From<Refused> for Unfit {
    fn from(why: Refused) -> Unfit {
        Unfit { why, settled: false }
    }
}

impl From<String> for Unfit {
    fn from(why: String) -> Unfit {
        Refused::from(why).into()
    }
}

/// The folder of the row's task: the one that is there, or a new one.
fn take_up(
    home: &Home,
    name: &Name,
    (row, file): (&Row, &Path),
    options: &Start,
    table: &mut Table,
    language: Language,
) -> Result<(Place, PidFile), Unfit> {
    let own = table.name_of(options.which.id);
    if let Ok(place) = home.task(name) {
        let whose = Before::read(&place.folder)?.row;
        if whose != own {
            let folder = place.folder.display();
            return Err(Refused::unfit([
                format!(
                    "the folder {folder} has the task of {whose}, and this is {own}: give it another --home, or name the \
                     database as it was named there"
                ),
                format!(
                    "目录 {folder} 中是 {whose} 的任务，而这是 {own}：请另用 --home，或按当时的写法指定数据库"
                ),
            ])
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
    let left = left(options.which.id, row, options)?;
    let draft = home.draft(name)?;
    let folder = &draft.place.folder;
    let gathered = people::gather(row, left, table, file, folder)?;
    let imported = list::import(Input::File(&gathered.path), &list::Options::default(), folder);
    let settled = |why| Unfit { why, settled: true };
    let mut survey = imported.map_err(|error| settled(Refused::unfit(error.texts().clone())))?;
    let Counts { success, fail, .. } = row.counts;
    let before = match left {
        Left::Fresh => Before { row: own, success: 0, fail: 0, file_index: 0 },
        Left::LastDone(_) => Before { row: own, success, fail, file_index: 0 },
        Left::FirstDone(done) => {
            let first = people::leave_out(folder, done)
                .map_err(|error| format!("cannot write to {}: {error}", folder.display()))?;
            survey.people -= first;
            if let Some(more) = (success + fail).checked_sub(first).filter(|more| *more > 0) {
                crate::say_err!(
                    "mega-task: {}",
                    language.pick([
                        format!("{more} people behind line {done} were sent to before, and may get it twice"),
                        format!("第 {done} 行之后有 {more} 人此前已发送，可能重复收到"),
                    ])
                );
            }
            Before { row: own, success, fail, file_index: done }
        }
    };
    if survey.people == 0 {
        return Err(settled(Refused::unfit([
            "there is nobody to send to in the list",
            "名单中没有可发送的人",
        ])));
    }
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
        of: None,
    })
}

/// A task that was begun here goes on, if it is still the row's.
fn go_on(place: &Place, row: &Row, options: &Start) -> Result<(), Refused> {
    let journal = Journal::open(&place.journal())?;
    let (mut plan, state, before) =
        (journal.plan()?, journal.state()?, Before::read(&place.folder)?);
    if plan.key != row.key || plan.source != row.file {
        return Err(Refused::unfit([
            "the row has another tmpl_key or file than when it was begun; with status 0 it begins anew",
            "该行的 tmpl_key 或 file 与开始时不同；把 status 改为 0 则从头发送",
        ]));
    }
    let ours = before.success + before.fail + state.progress.done();
    let counted = row.counts.success + row.counts.fail;
    if counted > ours {
        return Err(Refused::unfit([
            format!(
                "somebody else has gone on with this row: it counts {counted} done, and mega-task has done {ours}; \
                 with status 0 it begins anew"
            ),
            format!(
                "该行已由他处继续：记有 {counted} 人完成，而 mega-task 完成了 {ours} 人；把 status 改为 0 则从头发送"
            ),
        ]));
    }
    plan.to = options.to.clone();
    Ok(journal.set_plan(&plan)?)
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
    (control, language): (&Control, Language),
) -> Result<u8, String> {
    let journal = Journal::open(&place.journal())?;
    let (plan, state) = (journal.plan()?, journal.state()?);
    let Before { success, fail, file_index, .. } = Before::read(&place.folder)?;
    let before = Counts { total: success + fail + plan.total, success, fail, file_index };
    let progress = &state.progress;
    let counts = Counts {
        success: success + progress.sent,
        fail: fail + progress.failed + progress.unknown,
        // Of a task that goes on, the board knows it anew in a moment.
        file_index: if progress.done() == 0 { file_index } else { row.counts.file_index },
        ..before
    };
    table.begin(id, row, &counts)?;
    let subject = Subject { id, before, folder: place.folder.clone(), log: log_path(options) };
    let board = Board::start(table, subject)?;
    let recorder = board.recorder(control, Duration::from_secs(options.patience));
    let mut watch =
        Both { recorder, log: Log::open(&place.log(), language)?, ended: Progress::default() };
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
