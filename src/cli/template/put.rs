//! `template put`: what WeChat would refuse is refused, and what is doubtful is said.

use super::Desk;
use crate::ledger::history::What;
use crate::output::printable;
use crate::template::{Caution, Change, Row, doubts};
use clap::Args;
use std::io::Read;
use std::path::PathBuf;

/// What the original's column holds.
const KEY_CHARACTERS: usize = 32;

#[derive(Args)]
pub struct Put {
    /// Its key, at most 32 characters and no spaces
    key: String,
    /// The file that holds its JSON; - or nothing reads standard input
    file: Option<PathBuf>,
    /// A title for people
    #[arg(long)]
    title: Option<String>,
    /// Store it even if it is not JSON with a digit for each variable, as where a value is a whole object
    #[arg(long)]
    force: bool,
}

impl Put {
    pub fn read(&self) -> Result<String, String> {
        let (name, bytes) = match self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            Some(file) => (file.display().to_string(), std::fs::read(file)),
            None => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().read_to_end(&mut bytes);
                ("standard input".into(), read.map(|_| bytes))
            }
        };
        let bytes = bytes.map_err(|error| format!("cannot read {name}: {error}"))?;
        let text =
            String::from_utf8(bytes).map_err(|error| format!("{name} is not UTF-8: {error}"))?;
        Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
    }
}

impl Desk<'_> {
    pub(super) fn put(&mut self, put: Put, text: String) -> Result<u8, String> {
        let Put { key, title, force, .. } = put;
        let characters = key.chars().count();
        if characters == 0 || characters > KEY_CHARACTERS || key.contains(char::is_whitespace) {
            return Err(format!(
                "a key has 1 to {KEY_CHARACTERS} characters and no spaces: {key:?}"
            ));
        }
        let limit = self.config.server.template_size;
        if text.len() > limit {
            let size = text.len();
            return Err(self.language.pick([
                format!("the template has {size} bytes, server.template_size allows {limit}"),
                format!("模板有 {size} 字节，server.template_size 只允许 {limit}"),
            ]));
        }
        self.examine(&text, force)?;
        let variables = self.compiled(&text).variables().join(", ");
        let (before, old_title, key) = match self.row(&key)? {
            Some(row) => (Some(row.template), row.title, row.key),
            None => (None, String::new(), key),
        };
        let title = title.unwrap_or(old_title);
        self.store(Change { key: key.clone(), before, now: Some(text) }, What::Put, title)?;
        let (shown, variables) = (printable(&key), printable(&variables));
        let stored = self.language.pick([
            format!("{shown} stored, variables: {variables}"),
            format!("{shown} 已保存，变量：{variables}"),
        ]);
        crate::say!("{stored}");
        self.tell(&key)
    }

    /// Says what is doubtful, and refuses what is not JSON unless it is told not to.
    fn examine(&self, text: &str, force: bool) -> Result<(), String> {
        for doubt in doubts(&self.compiled(text)) {
            if doubt.caution == Caution::NotJson && !force {
                let why = doubt.detail;
                return Err(self.language.pick([
                    format!(
                        "the template is not JSON once its variables are filled: {why} (--force \
                         stores it all the same)"
                    ),
                    format!("变量代入后模板不是 JSON：{why}（--force 仍会保存）"),
                ]));
            }
            self.warn(&self.told(&doubt));
        }
        Ok(())
    }

    /// The change in the database, and then in the history: what the daemon finds there is not another program's.
    pub(super) fn store(
        &mut self,
        change: Change,
        what: What,
        title: String,
    ) -> Result<(), String> {
        let now = crate::clock::unix_seconds() as i64;
        let template = change.now.clone().unwrap_or_default();
        let (key, title_kept) = (change.key.clone(), title.clone());
        let row = Row { key, title, template, created_at: now, updated_at: now };
        self.database.put(&row).map_err(|error| error.to_string())?;
        self.keep(change, what, &title_kept);
        Ok(())
    }
}
