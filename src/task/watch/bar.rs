//! The bar on a terminal: how many are done, how fast, what failed and why, when it is over, and why it waits.

use super::Pace;
use crate::cli::language::Language;
use crate::output::printable;
use crate::task::event::{Event, Progress, Watch};
use crate::task::words;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

/// Codes that are shown while it runs.
const CODES: usize = 5;

pub struct Bar {
    bar: ProgressBar,
    language: Language,
    pace: Pace,
    waits: Option<String>,
    /// The answer that said nothing, until somebody is answered.
    unclear: Option<String>,
    drains: Option<usize>,
    remade: Option<String>,
}

impl Bar {
    pub fn new(name: &str, language: Language) -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{prefix} {bar:30} {percent:>3}%  {pos}/{len}{msg}");
        bar.set_style(style.expect("invariant: the template is well formed").progress_chars("=> "));
        bar.set_prefix(printable(name));
        Bar {
            bar,
            language,
            pace: Pace::new(),
            waits: None,
            unclear: None,
            drains: None,
            remade: None,
        }
    }

    fn show(&mut self, progress: &Progress) {
        let (now, language) = (Instant::now(), self.language);
        self.pace.see(now, progress.done());
        let rate = self.pace.per_second(now, progress.done());
        let mut text = language.pick([format!("  {rate:.0}/s"), format!("  每秒 {rate:.0} 条")]);
        if let Some(left) = self.pace.left(now, progress.done(), progress.left())
            && self.waits.is_none()
        {
            let left = words::span(left);
            text += &language.pick([format!("  {left} left"), format!("  剩余 {left}")]);
        }
        text += "\n";
        text += &words::counts(progress, language);
        for line in words::failures(progress, language).iter().take(CODES) {
            text += "\n";
            text += line;
        }
        if let Some(why) = &self.waits {
            let why = printable(why);
            text += &language.pick([format!("\nwaits: {why}"), format!("\n等待：{why}")]);
        }
        if let Some(why) = self.unclear.as_ref().filter(|_| self.waits.is_none()) {
            text += "\n";
            text += &words::unclear(why, language);
        }
        if let Some(remade) = &self.remade {
            text += "\n";
            text += remade;
        }
        if let Some(out) = self.drains {
            text += &language.pick([
                format!("\nends when {out} answers are there (again: at once)"),
                format!("\n等待 {out} 个应答后结束（再次发送信号则立即结束）"),
            ]);
        }
        self.bar.set_message(text);
        self.bar.set_position(progress.done());
    }
}

impl Watch for Bar {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Started(progress) => {
                self.bar.set_length(progress.total);
                self.show(progress);
            }
            Event::Answered { .. } => self.unclear = None,
            Event::Waits(why) => self.waits = Some(words::why(why, self.language)),
            Event::GoesOn => self.waits = None,
            Event::Unclear(why) => self.unclear = Some((*why).to_owned()),
            Event::Remade(remade) => {
                self.remade = Some(words::remade(remade, self.language));
            }
            Event::Drains(out) => self.drains = Some(*out),
            Event::Ended(..) => self.bar.finish_and_clear(),
        }
    }

    fn tick(&mut self, progress: &Progress) {
        self.show(progress);
    }
}
