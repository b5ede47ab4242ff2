//! The message log's file: blocks of lines that others have put together, and the lines of failed pushes,
//! which are written when they are recorded. What cannot be written is counted, and nobody waits for it.

use crate::clock::Seldom;
use crate::config::Config;
use crate::day_file::DayFile;
use crate::traffic::ledger::Failure;
use crate::traffic::line::{Block, Lines};
use std::io;

pub struct Sent {
    /// None: there is no message log.
    file: Option<DayFile>,
    /// The lines of failed pushes.
    lines: Lines,
    said: Seldom,
}

impl Sent {
    pub fn open(config: &Config) -> io::Result<Sent> {
        let file = config.log.message_log.clone().map(|path| {
            DayFile::open(path, config.log.log_max_files, chrono::Local::now().date_naive())
        });
        Ok(Sent { file: file.transpose()?, lines: Lines::default(), said: Seldom::default() })
    }

    pub fn failed(&mut self, failures: &[Failure]) {
        if self.file.is_none() {
            return;
        }
        for failure in failures {
            let before = self.lines.add(failure.at, &failure.end());
            before.into_iter().for_each(|block| self.write(block));
        }
        let block = self.lines.take();
        self.write(block);
    }

    pub fn write(&mut self, block: Block) {
        let Some(file) = &mut self.file else { return };
        file.miss(block.missed);
        file.write(block.day, &block.bytes, block.lines);
        if file.missing() > 0 && self.said.now() {
            log::error!(
                "the message log misses {} lines that cannot be written: free space where \
                 log.message_log is",
                file.missing()
            );
        }
    }
}
