//! The task's own log in its folder: what happened when, for whoever asks later.

use crate::cli::language::Language;
use crate::file;
use crate::task::event::{End, Event, Progress, Watch};
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
    waits: Option<String>,
    /// It could not be written: said once.
    lost: bool,
}

impl Log {
    pub fn open(path: &Path) -> Result<Log, String> {
        let file = file::append(path)
            .map_err(|error| format!("cannot write the task's log {}: {error}", path.display()))?;
        Ok(Log { file, said: Instant::now(), waits: None, lost: false })
    }

    pub fn say(&mut self, text: &str) {
        let line = format!("{} {}\n", words::now(), crate::output::printable(text));
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
                let pid = std::process::id();
                self.say(&format!("begins, process {pid}: {}", words::counts(progress, english)));
            }
            Event::Answered { .. } => {}
            Event::Waits(why) => {
                let why = format!("waits: {}", words::why(why, english));
                self.say(&why);
                self.waits = Some(why);
            }
            Event::GoesOn => {
                self.waits = None;
                self.say("goes on");
            }
            Event::Unclear(why) => self.say(&words::unclear(why, english)),
            Event::Drains(out) => self.say(&format!("ends when {out} answers are there")),
            Event::Ended(end, progress) => {
                let counts = words::counts(progress, english);
                let end = match end {
                    End::Broken(why) => format!("stopped: {why}"),
                    End::Finished => "finished".into(),
                    End::Paused => "paused".into(),
                    End::Ended => "ended".into(),
                };
                self.say(&format!("{end}: {counts}"));
            }
        }
    }

    fn tick(&mut self, progress: &Progress) {
        if self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            let mut text = words::counts(progress, Language::English);
            if let Some(why) = &self.waits {
                text += "; ";
                text += why;
            }
            self.say(&text);
        }
    }
}
