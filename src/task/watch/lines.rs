//! A line every some seconds where there is no terminal, and one for each thing that happens.

use super::Pace;
use crate::cli::language::Language;
use crate::output::printable;
use crate::task::event::{Event, Progress, Watch};
use crate::task::words;
use std::time::{Duration, Instant};

pub struct Lines {
    name: String,
    language: Language,
    every: Duration,
    said: Instant,
    pace: Pace,
}

impl Lines {
    pub fn new(name: &str, every: Duration, language: Language) -> Lines {
        let (name, said) = (printable(name), Instant::now());
        Lines { name, language, every, said, pace: Pace::new() }
    }

    fn say(&self, text: &str) {
        crate::say!("{}: {text}", self.name);
    }
}

impl Watch for Lines {
    fn hear(&mut self, event: &Event) {
        let language = self.language;
        match event {
            Event::Started(progress) => {
                let counts = words::counts(progress, language);
                self.say(&language.pick([format!("begins: {counts}"), format!("开始：{counts}")]));
            }
            Event::Waits(why) => {
                let why = printable(&words::why(why, language));
                self.say(&language.pick([format!("waits: {why}"), format!("等待：{why}")]));
            }
            Event::GoesOn => self.say(language.pick(["goes on", "继续"])),
            Event::Drains(out) => self.say(&language.pick([
                format!("ends when {out} answers are there"),
                format!("等待 {out} 个应答后结束"),
            ])),
            Event::Remade(remade) => self.say(&words::remade(remade, language)),
            Event::Unclear(why) => self.say(&words::unclear(why, language)),
            // How far it is is said by the clock, and the end by the summary.
            Event::Answered { .. } | Event::Ended(..) => {}
        }
    }

    fn tick(&mut self, progress: &Progress) {
        let now = Instant::now();
        let done = progress.done();
        self.pace.see(now, done);
        if now - self.said < self.every {
            return;
        }
        self.said = now;
        let rate = self.pace.per_second(now, done);
        let left = self.pace.left(now, done, progress.left()).map(words::span);
        let left = left.as_deref().unwrap_or("?");
        let counts = words::counts(progress, self.language);
        self.say(&self.language.pick([
            format!("{counts}; {rate:.0} a second, {left} left"),
            format!("{counts}；每秒 {rate:.0} 条，剩余 {left}"),
        ]));
    }
}
