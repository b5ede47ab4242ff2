//! Keeps the row of a running task as the pages read it, and its log: a thread that owns the connection to the
//! database, so that nobody who sends waits for it. A database that is away holds nothing up; the row is saved when it
//! is back, and in the end it is waited for.

use super::table::{Counts, Status, Table};
use crate::cli::language::Language;
use crate::clock::Seldom;
use crate::output::printable;
use crate::task::event::{Event, Failure, Progress, Watch, Why};
use crate::task::list::{Kept, Person};
use crate::task::words;
use crate::task::{Control, Wish};
use parking_lot::{Condvar, Mutex};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two savings of a row that changed.
const PAUSE: Duration = Duration::from_millis(1_000);
/// How long the database is waited for in the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the pages are told when mega is not reached, in the demo's words.
pub const UNREACHED: &str = "连接服务器失败";

/// What a row is, and where the rest of its task is kept.
pub struct Subject {
    pub id: u32,
    /// What others had done before this task began.
    pub before: Counts,
    /// Of the people's list.
    pub folder: PathBuf,
    /// Who failed and why.
    pub log: PathBuf,
}

/// What is to be saved next.
#[derive(Default)]
struct News {
    progress: Progress,
    /// Why nothing goes out.
    said: String,
    /// Lines of the log.
    log: String,
    changed: bool,
    end: Option<(Status, String)>,
}

#[derive(Default)]
struct Shared {
    news: Mutex<News>,
    /// It has ended.
    bell: Condvar,
}

pub struct Board {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), String>>,
}

impl Board {
    pub fn start(table: Table, subject: Subject) -> Result<Board, String> {
        let kept = Kept::open(&subject.folder, 0)
            .map_err(|error| format!("cannot read {}: {error}", subject.folder.display()))?;
        let log = open_log(&subject.log)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut keeper = Keeper { table, subject, log, kept, front: 0, line: 0, lost: false };
        let thread = std::thread::Builder::new().name("board".into());
        let thread = thread.spawn(move || keeper.keep(&theirs));
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Board { shared, thread })
    }

    /// Hears what the task tells; `patience` is how long it may wait before it counts as interrupted.
    pub fn recorder(&self, control: &Control, patience: Duration) -> Recorder {
        Recorder {
            shared: Arc::clone(&self.shared),
            control: control.clone(),
            patience,
            waits: None,
            gave_up: None,
        }
    }

    /// The row's last state is saved, or the database was waited for in vain.
    pub fn finish(self, status: Status, said: String) -> Result<(), String> {
        self.shared.news.lock().end = Some((status, said));
        self.shared.bell.notify_one();
        self.thread.join().map_err(|_| "the thread that saves the row has died".to_owned())?
    }
}

/// The thread that sends tells it what happens.
pub struct Recorder {
    shared: Arc<Shared>,
    control: Control,
    patience: Duration,
    waits: Option<(Instant, String)>,
    /// Why it waited for too long.
    pub gave_up: Option<String>,
}

impl Watch for Recorder {
    fn hear(&mut self, event: &Event) {
        let mut news = self.shared.news.lock();
        match event {
            Event::Started(progress) => news.progress = (*progress).clone(),
            Event::Answered { progress, failures } => {
                news.progress = (*progress).clone();
                failures.iter().for_each(|failure| put_failure(&mut news.log, failure));
            }
            Event::Waits(why) => {
                let said = match why {
                    Why::Unreachable(_) => UNREACHED.to_owned(),
                    why => words::why(why, Language::Chinese),
                };
                let since = self.waits.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                self.waits = Some((since, said.clone()));
                news.said = said;
            }
            Event::GoesOn => {
                self.waits = None;
                news.said.clear();
            }
            Event::Unclear(_) | Event::Remade(_) | Event::Drains(_) | Event::Ended(..) => return,
        }
        news.changed = true;
    }

    fn tick(&mut self, _progress: &Progress) {
        if let Some((since, said)) = &self.waits
            && self.gave_up.is_none()
            && since.elapsed() >= self.patience
        {
            self.gave_up = Some(said.clone());
            self.control.ask(Wish::Pause);
        }
    }
}

/// What the thread owns.
struct Keeper {
    table: Table,
    subject: Subject,
    log: File,
    /// Read as far as `front`; the last who was read has `line`.
    kept: Kept,
    front: u64,
    line: u64,
    /// It was said that lines of the log are lost.
    lost: bool,
}

impl Keeper {
    fn keep(&mut self, shared: &Shared) -> Result<(), String> {
        let mut seldom = Seldom::default();
        loop {
            let due = Instant::now() + PAUSE;
            let mut news = shared.news.lock();
            while news.end.is_none() && !shared.bell.wait_until(&mut news, due).timed_out() {}
            let end = news.end.clone();
            if end.is_none() && !news.changed {
                continue;
            }
            news.changed = false;
            let (progress, said) = (news.progress.clone(), news.said.clone());
            let log = std::mem::take(&mut news.log);
            drop(news);
            // What the log lacks is no reason to leave the row to itself.
            if let Err(why) = self.write(&log)
                && !std::mem::replace(&mut self.lost, true)
            {
                crate::say_err!("mega-task: {why} (the task goes on)");
            }
            let counts = self.counts(&progress)?;
            if let Some((status, said)) = end {
                return self.end(&counts, status, &said);
            }
            if let Err(why) = self.table.save(self.subject.id, &counts, Status::Running, &said) {
                shared.news.lock().changed = true;
                if seldom.now() {
                    crate::say_err!("mega-task: the row is not saved for the time being: {why}");
                }
            }
        }
    }

    /// Saves the row for the last time.
    fn end(&mut self, counts: &Counts, status: Status, said: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.table.save(self.subject.id, counts, status, said) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                saved => return saved,
            }
        }
    }

    fn counts(&mut self, progress: &Progress) -> Result<Counts, String> {
        while self.front < progress.front {
            let next = self.kept.person().map_err(|error| format!("the task's list: {error}"))?;
            let Person { line, .. } = next.ok_or("the task's list is cut short")?;
            (self.front, self.line) = (self.front + 1, line);
        }
        let before = &self.subject.before;
        Ok(Counts {
            total: before.total,
            success: before.success + progress.sent,
            fail: before.fail + progress.failed + progress.unknown,
            file_index: self.line.max(before.file_index),
        })
    }

    fn write(&mut self, lines: &str) -> Result<(), String> {
        let written = self.log.write_all(lines.as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", self.subject.log.display()))
    }
}

fn put_failure(log: &mut String, failure: &Failure) {
    let Failure { line, openid, status, errcode, errmsg, .. } = failure;
    let errcode = errcode.map_or(String::new(), |errcode| format!("{errcode} "));
    let said = printable(errmsg);
    put(log, &format!("line {line}: {} {}: {errcode}{said}", status.name(), printable(openid)));
}

/// A line of the log.
pub fn put(log: &mut String, said: &str) {
    let time = words::now();
    log.push_str(&format!("{time} [error] {said}\n"));
}

/// In a folder that is made where it is missing.
pub fn open_log(path: &Path) -> Result<File, String> {
    let failed = |error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(failed)?;
    }
    OpenOptions::new().create(true).append(true).open(path).map_err(failed)
}

/// The installation's other users write their logs there, too.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;
    use crate::task::list::Keeper as ListKeeper;
    use crate::task::{Failure, Status as Became};

    const RUNS: &str = "INSERT INTO PREFIX_mega_task SET task_id = 5, status = 0, total = 9;";

    fn board(prefix: &str) -> Option<(tempfile::TempDir, Table, Board)> {
        let mut mine = table(prefix, RUNS)?;
        let folder = tempfile::tempdir().unwrap();
        let mut list = ListKeeper::create(folder.path()).unwrap();
        for line in [1, 3, 4] {
            let (openid, data) = (format!("o{line}"), String::new());
            list.keep(&Person { line, openid, data }).unwrap();
        }
        list.finish().unwrap();
        let before = Counts { total: 9, success: 4, fail: 2, file_index: 0 };
        let found = mine.find(5).unwrap();
        mine.begin(5, &found, &before).unwrap();
        let dsn = std::env::var("MEGA_TEST_MYSQL").unwrap();
        let [user, password] = ["USER", "PASSWORD"]
            .map(|name| std::env::var(format!("MEGA_TEST_MYSQL_{name}")).unwrap());
        let theirs = Table::open(&dsn, &user, &password, prefix).unwrap();
        let log = folder.path().join("runtime/logs/task-5.log");
        let subject = Subject { id: 5, before, folder: folder.path().to_owned(), log };
        Some((folder, mine, Board::start(theirs, subject).unwrap()))
    }

    fn wait_for(table: &mut Table, wanted: impl Fn(&super::super::table::Row) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(&table.find(5).unwrap()) {
            assert!(Instant::now() < deadline, "{:?}", table.find(5));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_row_follows_its_task_and_shows_why_it_waits() {
        let Some((folder, mut table, board)) = board("board_") else { return };
        let mut recorder = board.recorder(&Control::default(), Duration::from_secs(600));
        let mut progress =
            Progress { total: 3, sent: 1, front: 2, failed: 1, ..Progress::default() };
        let failure = Failure {
            index: 1,
            offset: 0,
            line: 3,
            openid: "o3".into(),
            status: Became::Failed,
            errcode: Some(43004),
            errmsg: "require\nsubscribe".into(),
        };
        recorder.hear(&Event::Answered { progress: &progress, failures: &[failure] });
        wait_for(&mut table, |row| row.counts.file_index == 3);
        let counts = Counts { total: 9, success: 5, fail: 3, file_index: 3 };
        let row = table.find(5).unwrap();
        assert_eq!((row.counts, row.status), (counts, Status::Running));
        recorder.hear(&Event::Waits(&Why::Refused("sending suspended: x".into())));
        recorder.tick(&Progress::default());
        assert_eq!(recorder.gave_up, None);
        (progress.sent, progress.front) = (2, 3);
        recorder.hear(&Event::GoesOn);
        recorder.hear(&Event::Answered { progress: &progress, failures: &[] });
        board.finish(Status::Finished, String::new()).unwrap();
        let row = table.find(5).unwrap();
        assert_eq!(row.status, Status::Finished);
        let Counts { total, success, fail, file_index } = row.counts;
        assert_eq!((total - success - fail, file_index), (0, 4));
        let log = std::fs::read_to_string(folder.path().join("runtime/logs/task-5.log")).unwrap();
        assert!(log.ends_with(" [error] line 3: failed o3: 43004 require\\nsubscribe\n"), "{log}");
    }

    #[test]
    fn who_waits_for_too_long_is_asked_to_pause_once() {
        let Some((_folder, _table, board)) = board("gave_up_") else { return };
        let control = Control::default();
        let mut recorder = board.recorder(&control, Duration::ZERO);
        recorder.tick(&Progress::default());
        assert_eq!(control.wish(), None);
        recorder.hear(&Event::Waits(&Why::Unreachable("refused".into())));
        recorder.tick(&Progress::default());
        recorder.tick(&Progress::default());
        assert_eq!(control.wish(), Some((Wish::Pause, crate::task::Haste::Drain)));
        assert_eq!(recorder.gave_up.as_deref(), Some(UNREACHED));
        board.finish(Status::Interrupted, UNREACHED.into()).unwrap();
    }
}
