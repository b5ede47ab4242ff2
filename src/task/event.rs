//! What a task tells of itself while it runs, and who listens: the bar, the lines, the journal of a table. Pure
//! data, below everything else of `task`.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What became of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Sent,
    Failed,
    /// WeChat may have it, and would not recognise a repeat any more.
    Unknown,
}

impl Status {
    /// As results, journal and `--json` call it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Sent => "sent",
            Status::Failed => "failed",
            Status::Unknown => "unknown",
        }
    }
}

/// How far a task has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The people of the list.
    pub total: u64,
    pub sent: u64,
    pub failed: u64,
    pub unknown: u64,
    /// So many from the beginning of the list are answered without a gap.
    pub front: u64,
    /// Those that failed, by WeChat's errcode; without one where it was not WeChat that refused.
    pub errcodes: BTreeMap<Option<i64>, u64>,
}

impl Progress {
    pub fn done(&self) -> u64 {
        self.sent + self.failed + self.unknown
    }

    pub fn left(&self) -> u64 {
        self.total.saturating_sub(self.done())
    }
}

/// Somebody who was not reached, or of whom it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Counted from 0 in the order of the list.
    pub index: u64,
    /// Where the kept list has it.
    pub offset: u64,
    /// Where the original list has it.
    pub line: u64,
    pub openid: String,
    pub status: Status,
    pub errcode: Option<i64>,
    pub errmsg: String,
}

/// Why nothing goes out for the time being.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is not time yet: Unix ms.
    Appointed(u64),
    /// mega is not reached.
    Unreachable(String),
    /// mega's own words.
    Refused(String),
    /// WeChat's code that concerns everybody.
    Limit(i64),
    /// Answers come, and none says what became of anybody: what one of them says.
    Unclear(String),
}

/// How a run came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everybody is answered.
    Finished,
    /// It can be resumed.
    Paused,
    /// Somebody wants no more of it.
    Ended,
    /// It can be resumed when that is mended.
    Broken(String),
}

/// What was found where the result file had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    /// Another file.
    Another,
    /// It has so many bytes, and the task wrote others.
    Size(u64),
}

/// A new result file was made, because the old one is not as the task left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remade {
    pub loss: Loss,
    pub old: PathBuf,
    pub new: PathBuf,
    /// Lines that were written anew; the times of these are lost.
    pub rows: u64,
}

#[derive(Debug)]
pub enum Event<'a> {
    Started(&'a Progress),
    /// More people are answered, and the journal has it.
    Answered {
        progress: &'a Progress,
        /// Of those that are new.
        failures: &'a [Failure],
    },
    Waits(&'a Why),
    GoesOn,
    /// An answer says nothing of what became of somebody, who is asked for again; now and then, and not each of them.
    Unclear(&'a str),
    /// The result file was removed or changed by others.
    Remade(&'a Remade),
    /// It was asked to pause or to end, and waits for so many answers.
    Drains(usize),
    Ended(&'a End, &'a Progress),
}

/// Whoever listens. Called on the thread that sends: quickly.
pub trait Watch {
    fn hear(&mut self, event: &Event);

    /// Some tenths of a second have passed, and so far it is.
    fn tick(&mut self, _progress: &Progress) {}
}

/// Several of them.
impl Watch for Vec<Box<dyn Watch + '_>> {
    fn hear(&mut self, event: &Event) {
        self.iter_mut().for_each(|watch| watch.hear(event));
    }

    fn tick(&mut self, progress: &Progress) {
        self.iter_mut().for_each(|watch| watch.tick(progress));
    }
}
