//! `template history`, `diff` and `undo`: what a template's text was before. Number 1 is the newest.

use super::{Editor, PATIENCE, Version, layout, print};
use crate::cli::state::{Target, if_running};
use crate::cli::when;
use crate::exit;
use crate::ledger::database::Database as Ledger;
use crate::ledger::history::{self, Entry, What};
use crate::output::{printable, printable_lines};
use crate::template::{Change, Row, doubts};
use crate::wire::command;
use crate::wire::question::Question;
use similar::TextDiff;
use std::time::Duration;

/// Texts that differ in too much are compared less finely.
const COMPARING: Duration = Duration::from_secs(2);

/// A template as the database and the history have it.
struct Known {
    key: String,
    row: Option<Row>,
    entries: Vec<Entry>,
}

impl Known {
    fn text(&self) -> Option<&str> {
        self.row.as_ref().map(|row| row.template.as_str())
    }

    /// The row's, or the last that a row had.
    fn title(&self) -> String {
        let last = || self.entries.iter().map(|entry| &entry.title).find(|title| !title.is_empty());
        self.row.as_ref().map(|row| &row.title).or_else(last).cloned().unwrap_or_default()
    }

    /// The newest text that is another than the database's, and its number.
    fn previous(&self) -> Option<(usize, &Entry)> {
        (1..)
            .zip(&self.entries)
            .find(|(_, entry)| entry.text.is_some() && entry.text.as_deref() != self.text())
    }
}

impl Editor<'_> {
    fn known(&mut self, key: &str) -> Result<Known, String> {
        let row = self.row(key)?;
        let key = row.as_ref().map_or(key, |row| &row.key).to_owned();
        let path = &self.config.server.ledger_file;
        let entries = match Ledger::read_only(path)? {
            Some(read) => history::of(&read, &key)
                .map_err(|error| format!("the ledger {}: {error}", path.display()))?,
            None => Vec::new(),
        };
        match row.is_none() && entries.is_empty() {
            true => Err(self.unknown(&key)),
            false => Ok(Known { key, row, entries }),
        }
    }

    fn entry<'k>(&self, known: &'k Known, number: usize) -> Result<&'k Entry, String> {
        let entry = number.checked_sub(1).and_then(|index| known.entries.get(index));
        entry.ok_or_else(|| {
            let (key, count) = (printable(&known.key), known.entries.len());
            self.language.pick([
                format!("the history of {key} has no number {number}, it has {count} entries"),
                format!("{key} 的历史只有 {count} 条，没有第 {number} 条"),
            ])
        })
    }

    pub(super) fn history(&mut self, version: &Version) -> Result<u8, String> {
        let known = self.known(&version.key)?;
        if let Some(number) = version.number {
            print(self.entry(&known, number)?.text.as_deref().unwrap_or_default());
            return Ok(exit::OK);
        }
        if known.entries.is_empty() {
            let none = ["no change has been seen yet", "还没有见到过修改"];
            crate::say!("{}: {}", printable(&known.key), self.language.pick(none));
        }
        let present = known.entries.iter().position(|entry| entry.text.as_deref() == known.text());
        for (index, entry) in known.entries.iter().enumerate() {
            let mark = if present == Some(index) { "*" } else { " " };
            crate::say!("{mark}{:>2}  {}", index + 1, self.line(entry));
        }
        Ok(exit::OK)
    }

    fn line(&self, entry: &Entry) -> String {
        let Entry { time, who, what, title, text } = entry;
        let time = time.map_or("-".to_owned(), when::shown);
        let size = match text {
            Some(text) => format!("{} bytes", text.len()),
            None => "-".to_owned(),
        };
        let what = self.language.pick(what.texts());
        let (who, title) = (printable(who), printable(title));
        format!("{time:<29}  {who:<16}  {size:>10}  {what}  {title}").trim_end().to_owned()
    }

    pub(super) fn diff(&mut self, version: &Version) -> Result<u8, String> {
        let known = self.known(&version.key)?;
        let numbered = |number: usize, entry: &Entry| {
            let time = entry.time.map_or(String::new(), |time| format!(", {}", when::shown(time)));
            let label = self
                .language
                .pick([format!("number {number}{time}"), format!("第 {number} 条{time}")]);
            (label, entry.text.clone().unwrap_or_default())
        };
        let (old, text) = match version.number {
            Some(number) => numbered(number, self.entry(&known, number)?),
            None => match self.text_in_use(&known.key)? {
                InUse::Text(text) => {
                    (self.language.pick(["the running daemon", "运行中的守护进程"]).into(), text)
                }
                InUse::NoDaemon => {
                    let Some((number, entry)) = known.previous() else {
                        return Err(self.no_earlier(&known.key));
                    };
                    numbered(number, entry)
                }
            },
        };
        let new = self.language.pick(["the database", "数据库"]);
        let present = known.text().unwrap_or_default();
        if text == present {
            let same = self.language.pick([
                format!("{old} and {new} have the same text"),
                format!("{old}与{new}的文本相同"),
            ]);
            crate::say!("{same}");
            return Ok(exit::OK);
        }
        let (text, present) = (layout::laid_out(&text), layout::laid_out(present));
        let diff = TextDiff::configure().timeout(COMPARING).diff_lines(&text, &present);
        let shown = diff.unified_diff().header(&old, new).to_string();
        match shown.is_empty() {
            true => crate::say!(
                "{}",
                self.language.pick([
                    format!("{old} and {new} differ in white space only"),
                    format!("{old}与{new}只有空白不同"),
                ])
            ),
            false => crate::say!("{}", printable_lines(shown.trim_end())),
        }
        Ok(exit::OK)
    }

    fn text_in_use(&self, key: &str) -> Result<InUse, String> {
        let Some(mut daemon) = if_running(&Target::of(self.config), PATIENCE)? else {
            return Ok(InUse::NoDaemon);
        };
        let body = serde_json::Value::from(key).to_string();
        let asked = daemon.ask(Question::Template, body.as_bytes()).and_then(|()| daemon.read());
        let answer = asked.map_err(|error| format!("the daemon does not answer: {error}"))?;
        match answer.code {
            command::OK => Ok(InUse::Text(answer.message)),
            _ if answer.message == command::NO_TEMPLATE => Ok(InUse::Text(String::new())),
            _ => Err(answer.message),
        }
    }

    fn no_earlier(&self, key: &str) -> String {
        let key = printable(key);
        self.language.pick([
            format!("the history has no earlier text of {key}"),
            format!("历史中没有 {key} 更早的文本"),
        ])
    }

    pub(super) fn undo(&mut self, version: &Version) -> Result<u8, String> {
        let known = self.known(&version.key)?;
        let entry = match version.number {
            Some(number) => self.entry(&known, number)?,
            None => known.previous().ok_or_else(|| self.no_earlier(&known.key))?.1,
        };
        let Some(text) = &entry.text else {
            return Err(self.language.pick([
                "that one is the removal; template rm removes it".to_owned(),
                "该条是一次删除；删除请用 template rm".to_owned(),
            ]));
        };
        for doubt in doubts(&self.compiled(text)) {
            self.warn(&self.told(&doubt));
        }
        let key = known.key.clone();
        let title = known.title();
        let before = known.text().map(str::to_owned);
        let time = entry.time.map_or("-".to_owned(), when::shown);
        let (who, shown) = (printable(&entry.who), printable(&key));
        let now = Some(text.clone());
        self.store(Change { key: key.clone(), before, now }, What::Undone, title)?;
        let done = self.language.pick([
            format!("{shown} has the text of {time} ({who}) again"),
            format!("{shown} 恢复为 {time}（{who}）的文本"),
        ]);
        crate::say!("{done}");
        self.tell(&key)
    }
}

/// The text that the running daemon sends.
enum InUse {
    /// Empty: it has no such template.
    Text(String),
    NoDaemon,
}
