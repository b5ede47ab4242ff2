//! The task's own log in its folder: what happened when, for whoever asks later.

use crate::cli::language::Language;
use crate::file;
use crate::task::event::{Event, Progress, Watch};
use crate::task::words;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How far it is, every so often.
const EVERY: Duration = Duration::from_secs(60);

pub struct Log {
    file: File,
    said: Instant,
    progress: Progress,
    /// It could not be written: said once.
    lost: bool,
}

impl Log {
    pub fn open(path: &Path) -> Result<Log, String> {
        let file = file::append(path)
            .map_err(|error| format!("cannot write the task's log {}: {error}", path.display()))?;
        Ok(Log { file, said: Instant::now(), progress: Progress::default(), lost: false })
    }

    pub fn say(&mut self, text: &str) {
        let time = words::time(crate::clock::unix_seconds() * 1_000);
        let line = format!("{time} {}\n", crate::output::printable(text));
        if let Err(error) = self.file.write_all(line.as_bytes())
            && !std::mem::replace(&mut self.lost, true)
        {
            crate::say_err!(
                "mega-task: the task's log cannot be written: {error} (the task goes on)"
            );
        }
    }
}

impl Watch for Log {
    fn hear(&mut self, event: &Event) {
        let english = Language::English;
        match event {
            Event::Started(progress) => {
                self.progress = (*progress).clone();
                let pid = std::process::id();
                self.say(&format!("begins, process {pid}: {}", words::counts(progress, english)));
            }
            Event::Answered { progress, .. } => self.progress.clone_from(progress),
            Event::Waits(why) => self.say(&format!("waits: {}", words::why(why, english))),
            Event::GoesOn => self.say("goes on"),
            Event::Drains(out) => self.say(&format!("ends when {out} answers are there")),
            Event::Ended(end, progress) => {
                let counts = words::counts(progress, english);
                let end = match end {
                    crate::task::End::Broken(why) => format!("stopped: {why}"),
                    crate::task::End::Finished => "finished".into(),
                    crate::task::End::Paused => "paused".into(),
                    crate::task::End::Ended => "ended".into(),
                };
                self.say(&format!("{end}: {counts}"));
            }
        }
    }

    fn tick(&mut self) {
        if self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            let counts = words::counts(&self.progress, Language::English);
            self.say(&counts);
        }
    }
}
