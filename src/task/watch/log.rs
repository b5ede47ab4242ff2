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
    language: Language,
    said: Instant,
    waits: Option<String>,
    /// It could not be written: said once.
    lost: bool,
}

impl Log {
    pub fn open(path: &Path, language: Language) -> Result<Log, String> {
        let file = file::append(path)
            .map_err(|error| format!("cannot write the task's log {}: {error}", path.display()))?;
        Ok(Log { file, language, said: Instant::now(), waits: None, lost: false })
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
        let language = self.language;
        match event {
            Event::Started(progress) => {
                let (pid, counts) = (std::process::id(), words::counts(progress, language));
                self.say(&language.pick([
                    format!("begins, process {pid}: {counts}"),
                    format!("开始，进程 {pid}：{counts}"),
                ]));
            }
            Event::Answered { .. } => {}
            Event::Waits(why) => {
                let why = words::why(why, language);
                let why = language.pick([format!("waits: {why}"), format!("等待：{why}")]);
                self.say(&why);
                self.waits = Some(why);
            }
            Event::GoesOn => {
                self.waits = None;
                self.say(language.pick(["goes on", "继续"]));
            }
            Event::Unclear(why) => self.say(&words::unclear(why, language)),
            Event::Remade(remade) => self.say(&words::remade(remade, language)),
            Event::Drains(out) => self.say(&language.pick([
                format!("ends when {out} answers are there"),
                format!("等待 {out} 个应答后结束"),
            ])),
            Event::Ended(end, progress) => {
                let counts = words::counts(progress, language);
                let end = match end {
                    End::Broken(why) => {
                        language.pick([format!("stopped: {why}"), format!("已停止：{why}")])
                    }
                    End::Finished => language.pick(["finished", "已完成"]).into(),
                    End::Paused => language.pick(["paused", "已暂停"]).into(),
                    End::Ended => language.pick(["ended", "已结束"]).into(),
                };
                self.say(&language.pick([format!("{end}: {counts}"), format!("{end}：{counts}")]));
            }
        }
    }

    fn tick(&mut self, progress: &Progress) {
        if self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            let mut text = words::counts(progress, self.language);
            if let Some(why) = &self.waits {
                text += self.language.pick(["; ", "；"]);
                text += why;
            }
            self.say(&text);
        }
    }
}
