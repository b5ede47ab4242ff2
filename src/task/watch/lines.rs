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
    /// `waits: why`, as it was said when it began.
    waits: Option<String>,
}

impl Lines {
    pub fn new(name: &str, every: Duration, language: Language) -> Lines {
        let (name, said) = (printable(name), Instant::now());
        Lines { name, language, every, said, pace: Pace::new(), waits: None }
    }

    fn say(&self, text: &str) {
        crate::say!("{}: {text}", self.name);
    }

    /// What happens is a line at once.
    fn news(&mut self, event: &Event) -> Option<String> {
        let language = self.language;
        match event {
            Event::Started(progress) => {
                let counts = words::counts(progress, language);
                Some(language.pick([format!("begins: {counts}"), format!("开始：{counts}")]))
            }
            Event::Waits(why) => {
                let why = printable(&words::why(why, language));
                self.waits = Some(language.pick([format!("waits: {why}"), format!("等待：{why}")]));
                self.waits.clone()
            }
            Event::GoesOn => {
                self.waits = None;
                Some(language.pick(["goes on", "继续"]).into())
            }
            Event::Drains(out) => Some(language.pick([
                format!("ends when {out} answers are there"),
                format!("等待 {out} 个应答后结束"),
            ])),
            Event::Remade(remade) => Some(words::remade(remade, language)),
            Event::Unclear(why) => Some(words::unclear(why, language)),
            // How far it is is said by the clock, and the end by the summary.
            Event::Answered { .. } | Event::Ended(..) => None,
        }
    }

    /// How far it is, and why it waits if it does: whoever looks has not seen the line that said so.
    fn due(&mut self, now: Instant, progress: &Progress) -> Option<String> {
        let done = progress.done();
        self.pace.see(now, done);
        if now - self.said < self.every {
            return None;
        }
        self.said = now;
        let counts = words::counts(progress, self.language);
        if let Some(waits) = &self.waits {
            return Some(
                self.language.pick([format!("{counts}; {waits}"), format!("{counts}；{waits}")]),
            );
        }
        let rate = self.pace.per_second(now, done);
        let left = self.pace.left(now, done, progress.left()).map(words::span);
        let left = left.as_deref().unwrap_or("?");
        Some(self.language.pick([
            format!("{counts}; {rate:.0} a second, {left} left"),
            format!("{counts}；每秒 {rate:.0} 条，剩余 {left}"),
        ]))
    }
}

impl Watch for Lines {
    fn hear(&mut self, event: &Event) {
        if let Some(text) = self.news(event) {
            self.say(&text);
        }
    }

    fn tick(&mut self, progress: &Progress) {
        if let Some(text) = self.due(Instant::now(), progress) {
            self.say(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event::Why;

    #[test]
    fn each_line_says_why_it_waits_for_as_long_as_it_does() {
        let every = Duration::from_secs(10);
        let mut lines = Lines::new("t", every, Language::English);
        let progress = Progress { total: 3, sent: 1, ..Progress::default() };
        let mut now = lines.said;
        let mut line = |lines: &mut Lines| {
            assert_eq!(lines.due(now + every / 2, &progress), None);
            now += every;
            lines.due(now, &progress).unwrap()
        };
        assert!(line(&mut lines).ends_with("0 a second, ? left"));
        for why in [
            Why::Refused("sending suspended: x".into()),
            Why::Unclear("500 HTTP 502".into()),
            Why::Limit(45009),
        ] {
            let said = lines.news(&Event::Waits(&why)).unwrap();
            assert!(said.starts_with("waits: "), "{said}");
            for _ in 0..2 {
                assert_eq!(line(&mut lines), format!("1 sent, 0 failed, 0 unknown of 3; {said}"));
            }
        }
        assert_eq!(lines.news(&Event::GoesOn).as_deref(), Some("goes on"));
        assert!(line(&mut lines).ends_with("0 a second, ? left"));
    }
}
