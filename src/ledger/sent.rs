//! The message log's file: blocks of lines that others have put together, and the lines of failed pushes,
//! which are written when they are recorded. What cannot be written is counted, shown in `stats`, and nobody
//! waits for it.

use super::RETRY;
use crate::clock::Seldom;
use crate::config::Config;
use crate::day_file::DayFile;
use crate::stats::Stats;
use crate::traffic::ledger::Failure;
use crate::traffic::line::{Block, Lines};
use chrono::Local;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub struct Sent {
    /// None: it is off.
    file: Option<DayFile>,
    /// The lines of failed pushes.
    lines: Lines,
    /// When a file that misses lines is tried again.
    retry: Option<Instant>,
    said: Seldom,
}

impl Sent {
    pub fn open(config: &Config) -> io::Result<Sent> {
        let log = &config.log;
        let file = log
            .message_log
            .clone()
            .map(|path| DayFile::open(path, log.log_max_files, Local::now().date_naive()));
        Ok(Sent {
            file: file.transpose()?,
            lines: Lines::default(),
            retry: None,
            said: Seldom::default(),
        })
    }

    pub fn failed(&mut self, failures: &[Failure], stats: &Arc<Stats>) {
        if self.file.is_none() {
            return;
        }
        for failure in failures {
            let before = self.lines.add(failure.at, &failure.end());
            before.into_iter().for_each(|block| self.write(block, stats));
        }
        let block = self.lines.take();
        self.write(block, stats);
    }

    pub fn write(&mut self, block: Block, stats: &Arc<Stats>) {
        let Some(file) = &mut self.file else { return };
        file.miss(block.missed);
        file.write(block.day, &block.bytes, block.lines);
        stats.message_log_lost.store(file.lost(), Ordering::Relaxed);
        if let Some(trouble) = file.trouble() {
            self.retry.get_or_insert_with(|| Instant::now() + RETRY);
            if self.said.now() {
                log::error!("the message log: {trouble} (free space where log.message_log is)");
            }
            *stats.message_log.lock() = Some(trouble);
        } else if self.retry.is_some() {
            self.goes_on(stats);
        }
    }

    pub fn retries(&self) -> Option<Instant> {
        self.retry
    }

    /// A file that takes lines again says so, whether there are any or not.
    pub fn catch_up(&mut self, stats: &Arc<Stats>) {
        let (Some(file), Some(at)) = (&mut self.file, self.retry) else { return };
        if Instant::now() < at {
            return;
        }
        self.retry = Some(Instant::now() + RETRY);
        if file.catch_up(Local::now().date_naive()).is_ok() {
            self.goes_on(stats);
        }
    }

    fn goes_on(&mut self, stats: &Arc<Stats>) {
        self.retry = None;
        *stats.message_log.lock() = None;
        crate::notice!("the message log is written again");
    }
}
