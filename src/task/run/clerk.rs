//! The clerk: a thread that owns the journal and the result file, so that nobody who sends waits for a disk. One
//! block at a time: first its rows, then the journal that says how many they are (J1).

use crate::task::event::{Failure, Remade};
use crate::task::journal::{Journal, State};
use crate::task::results::Results;
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What became of some people, and who may be sent to next.
pub struct Block {
    pub number: u64,
    /// The clerk puts `result_bytes` in.
    pub state: State,
    /// Lines of the result file.
    pub rows: String,
    pub failures: Vec<Failure>,
    /// The clerk puts in that the result file is another.
    pub remade: Option<Remade>,
}

pub struct Clerk {
    to: Option<Sender<Block>>,
    from: Receiver<Result<Block, String>>,
    thread: Option<JoinHandle<Journal>>,
    /// It has a block in hand.
    busy: bool,
}

impl Clerk {
    /// `waker` is woken after each block.
    pub fn start(
        mut journal: Journal,
        mut results: Results,
        waker: Arc<Waker>,
    ) -> Result<Clerk, String> {
        // One block at a time: neither side ever waits for room.
        let (to, blocks) = bounded::<Block>(1);
        let (done, from) = bounded(1);
        let thread = std::thread::Builder::new().name("clerk".into()).spawn(move || {
            for mut block in blocks {
                let kept = keep(&mut results, &mut journal, &mut block);
                if done.send(kept.map(|()| block)).is_err() {
                    break;
                }
                // The other side looks by itself some tenths of a second later.
                let _ = waker.wake();
            }
            journal
        });
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Clerk { to: Some(to), from, thread: Some(thread), busy: false })
    }

    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// To be called while it is not busy.
    pub fn give(&mut self, block: Block) -> Result<(), String> {
        let to = self.to.as_ref().ok_or("the clerk was dismissed")?;
        to.try_send(block).map_err(|_| "the clerk's thread has died".to_owned())?;
        self.busy = true;
        Ok(())
    }

    /// The block that is done, if one is.
    pub fn take(&mut self) -> Result<Option<Block>, String> {
        match self.from.try_recv() {
            Ok(block) => {
                self.busy = false;
                block.map(Some)
            }
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(None),
            Err(_) => Err("the clerk's thread has died".into()),
        }
    }

    /// Waits for the block in hand.
    pub fn wait(&mut self) -> Result<Block, String> {
        self.busy = false;
        self.from.recv().map_err(|_| "the clerk's thread has died".to_owned())?
    }
}

/// Rows before the journal: those that it does not know are cut off by the next run, and written again.
fn keep(results: &mut Results, journal: &mut Journal, block: &mut Block) -> Result<(), String> {
    block.remade = results.mend(journal)?;
    results.keep(&block.rows)?;
    block.state.result_bytes = results.bytes();
    journal.keep(&block.state, &block.failures)
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            // It has said already what went wrong, or its panic has.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::language::Language;
    use crate::clock::Moment;
    use crate::task::event::{Progress, Status};
    use crate::task::journal::{Open, Stage};
    use crate::task::plan::{self, Encoding, Plan};
    use crate::task::results::{self, Row};
    use std::path::Path;

    const BLOCKS: u64 = 4;
    /// People of a block: two are sent to, one fails and one stays open.
    const PEOPLE: u64 = 4;
    const FILES: [&str; 3] = ["result.csv", "journal.db-wal", "journal.db"];

    fn moment(unix: u64) -> Moment {
        Moment { boot: Some("b".into()), uptime: 1, unix }
    }

    /// What there is to keep after so many blocks. The first has no rows, as a run's first has none.
    fn block(number: u64) -> Block {
        let mut block = Block {
            number,
            state: State { changed: moment(number), ..State::new(BLOCKS * PEOPLE) },
            rows: String::new(),
            failures: Vec::new(),
            remade: None,
        };
        let done = number.saturating_sub(1);
        let state = &mut block.state;
        (state.stage, state.next, state.offset) = (Stage::Running, done * PEOPLE, done * 100);
        let index = |block| block * PEOPLE + 3;
        let open =
            |block| Open { index: index(block), offset: block, since: Some(block as i64), turn: 0 };
        state.open = (0..done).map(open).collect();
        state.progress = Progress {
            total: BLOCKS * PEOPLE,
            sent: done * 2,
            failed: done,
            unknown: 0,
            front: state.front(),
            errcodes: (done > 0).then_some((Some(43004), done)).into_iter().collect(),
        };
        for index in done.saturating_sub(1) * PEOPLE..(done * PEOPLE).saturating_sub(1) {
            let failed = index % PEOPLE == 2;
            let (line, openid) = (index + 1, format!("o{index}"));
            let (status, errcode) =
                if failed { (Status::Failed, Some(43004)) } else { (Status::Sent, None) };
            let (meaning, time) =
                (if failed { "用户未关注" } else { "" }, "2026-11-11T00:00:00+08:00");
            let row = Row { line, openid: &openid, status, errcode, errmsg: "", meaning, time };
            results::put(&mut block.rows, &row);
            if failed {
                let (offset, errmsg) = (index, String::new());
                block.failures.push(Failure {
                    index,
                    offset,
                    line,
                    openid,
                    status,
                    errcode,
                    errmsg,
                });
            }
        }
        block
    }

    fn plan(folder: &Path, encoding: Encoding) -> Plan {
        let result = folder.join(FILES[0]);
        Plan { total: BLOCKS * PEOPLE, result, encoding, ..plan::tests::plan() }
    }

    fn take_up(folder: &Path, encoding: Encoding, state: &State) -> Results {
        let plan = plan(folder, encoding);
        Results::take_up(folder, &plan, state, Language::Chinese).unwrap()
    }

    fn read(folder: &Path) -> [Vec<u8>; 3] {
        FILES.map(|file| std::fs::read(folder.join(file)).unwrap_or_default())
    }

    /// What a kill can leave of a file that was about to become `after`.
    fn torn(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
        let changed = before.iter().zip(after).take_while(|(old, new)| old == new).count();
        let mut cuts = vec![changed, changed + 1, (changed + after.len()) / 2, after.len() - 1];
        cuts.retain(|cut| *cut <= after.len());
        let rest = |cut: usize| before.get(cut..).unwrap_or_default();
        cuts.into_iter().map(|cut| [&after[..cut], rest(cut)].concat()).collect()
    }

    /// A task's files as a kill leaves them, after so many blocks that the journal has for sure.
    struct Left {
        files: [Vec<u8>; 3],
        kept: u64,
    }

    /// Keeps all blocks; returns the files that a kill at each write can leave, and the result file.
    fn lefts(encoding: Encoding) -> (Vec<Left>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let mut own = Journal::create(&journal, &plan(folder.path(), encoding)).unwrap();
        let mut results = take_up(folder.path(), encoding, &own.state().unwrap());
        let mut lefts = Vec::new();
        let mut before = read(folder.path());
        let mut seen = |before: &mut [Vec<u8>; 3], kept| {
            let after = read(folder.path());
            for file in 0..FILES.len() {
                if before[file] != after[file] {
                    for torn in torn(&before[file], &after[file]) {
                        let mut files = before.clone();
                        files[file] = torn;
                        lefts.push(Left { files, kept });
                    }
                    before[file].clone_from(&after[file]);
                }
            }
            lefts.push(Left { files: after, kept });
        };
        for number in 1..=BLOCKS {
            keep(&mut results, &mut own, &mut block(number)).unwrap();
            seen(&mut before, number - 1);
            if number % 2 == 0 {
                // What SQLite does by itself after a thousand pages: the next block begins the log anew.
                let other = rusqlite::Connection::open(&journal).unwrap();
                let sql = "PRAGMA wal_checkpoint(PASSIVE)";
                other.query_row(sql, [], |_| Ok(())).unwrap();
                seen(&mut before, number);
            }
        }
        let whole = before[0].clone();
        (lefts, whole)
    }

    /// Who takes the files up finds a whole state, and in the end everybody has one row.
    fn goes_on(left: &Left, encoding: Encoding, whole: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in FILES.iter().zip(&left.files) {
            std::fs::write(folder.path().join(file), bytes).unwrap();
        }
        let mut journal = Journal::open(&folder.path().join("journal.db")).unwrap();
        let state = journal.state().unwrap();
        let kept = match state.stage {
            Stage::Ready => 0,
            _ => state.changed.unix,
        };
        assert!(kept == left.kept || kept == left.kept + 1, "{kept} after {}", left.kept);
        if kept > 0 {
            let known = State { result_bytes: state.result_bytes, ..block(kept).state };
            assert_eq!(state, known);
        }
        let mut failures = 0;
        let count = |_| {
            failures += 1;
            Ok(())
        };
        journal.failures(count).unwrap();
        assert_eq!(failures, state.progress.failed);
        let path = folder.path().join(FILES[0]);
        let mut results = take_up(folder.path(), encoding, &state);
        for number in kept + 1..=BLOCKS {
            keep(&mut results, &mut journal, &mut block(number)).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), whole, "a row twice, or none");
        let state = journal.state().unwrap();
        assert_eq!(state.result_bytes, whole.len() as u64);
    }

    #[test]
    fn a_kill_at_any_write_leaves_nobody_without_a_row_and_nobody_with_two() {
        for encoding in [Encoding::Utf8, Encoding::Gbk] {
            let (lefts, whole) = lefts(encoding);
            assert!(lefts.len() > 40, "{}", lefts.len());
            lefts.iter().for_each(|left| goes_on(left, encoding, &whole));
        }
    }
}
