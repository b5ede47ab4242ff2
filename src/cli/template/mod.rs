//! `mega NAME template ...`: the rows of the template table, managed in the database and made known
//! to the running daemon; what is doubtful about them, and what they were before.

mod layout;
mod put;
mod render;
mod versions;

use super::failed::whoami;
use super::language::Language;
use crate::cli::state::{Target, if_running};
use crate::clock::now_ms;
use crate::config::{Config, Dsn};
use crate::daemon::{step_down, step_down_to_write};
use crate::exit;
use crate::ledger::database::Database as Ledger;
use crate::ledger::history::{self, By, What};
use crate::output::{printable, printable_lines};
use crate::template::{self, Change, Database, Doubt, Filling, Row, Template as Compiled, doubts};
use crate::wire::command;
use clap::{Args, Subcommand};
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Subcommand)]
pub enum Template {
    /// List keys, sizes and titles
    List,
    /// Print one template's text
    Show { key: String },
    /// Store a template, and tell the running daemon to reload it
    Put(put::Put),
    /// Remove a template from the database; a running daemon keeps it until it is reloaded
    Rm { key: String },
    /// Say what is doubtful about the templates in the database (exit code 1 if anything is)
    Check {
        /// This one only
        key: Option<String>,
    },
    /// Print the message that a request would make, as it would be posted; needs no daemon
    Render(render::Render),
    /// Show what a reload would change: the running daemon's text against the database's
    Diff(Version),
    /// List the last ten texts of a template, the newest first: when they came, how, and through whom
    History(Version),
    /// Put the text before the present one back, and tell the running daemon to reload it
    Undo(Version),
}

#[derive(Args)]
pub struct Version {
    /// The template's key
    key: String,
    /// A number of its history: compare with that one, print its text, or put it back
    #[arg(value_name = "N")]
    number: Option<usize>,
}

pub fn run(config: &Config, command: Template) -> Result<u8, String> {
    // Who gives the order, and what is the caller's to read, is found out as the caller; databases are opened as the
    // user that they belong to.
    let who = whoami();
    let text = match &command {
        Template::Put(put) => put.read()?,
        _ => String::new(),
    };
    let writes = matches!(command, Template::Put(_) | Template::Rm { .. } | Template::Undo(_));
    match writes || matches!(config.pdo.dsn, Dsn::Sqlite(_)) {
        true => step_down_to_write(config)?,
        false => step_down(config)?,
    }
    let open = if let Template::Put(_) = &command { template::create } else { template::open };
    let database = open(&config.pdo).map_err(|error| error.to_string())?;
    let mut editor = Editor { config, database, who, language: Language::of_environment() };
    match command {
        Template::List => editor.list(),
        Template::Show { key } => {
            print(&editor.find(&key)?.template);
            Ok(exit::OK)
        }
        Template::Put(put) => editor.put(put, text),
        Template::Rm { key } => editor.remove(&key),
        Template::Check { key } => editor.check(key.as_deref()),
        Template::Render(request) => editor.render(&request),
        Template::Diff(version) => editor.diff(&version),
        Template::History(version) => editor.history(&version),
        Template::Undo(version) => editor.undo(&version),
    }
}

/// What every command works with.
struct Editor<'c> {
    config: &'c Config,
    database: Box<dyn Database>,
    /// Who gives the order.
    who: String,
    language: Language,
}

impl Editor<'_> {
    fn list(&mut self) -> Result<u8, String> {
        let mut out = std::io::BufWriter::new(stdout().lock());
        for Row { key, title, template, .. } in self.rows()? {
            let (key, title) = (printable(&key), printable(&title));
            if writeln!(out, "{key:<32}  {:>6} bytes  {title}", template.len()).is_err() {
                // Whoever reads has seen enough.
                return Ok(exit::OK);
            }
        }
        let _ = out.flush();
        Ok(exit::OK)
    }

    fn rows(&mut self) -> Result<Vec<Row>, String> {
        self.database.list().map_err(|error| error.to_string())
    }

    fn row(&mut self, key: &str) -> Result<Option<Row>, String> {
        self.database.find(key.as_bytes()).map_err(|error| error.to_string())
    }

    fn find(&mut self, key: &str) -> Result<Row, String> {
        self.row(key)?.ok_or_else(|| self.unknown(key))
    }

    fn unknown(&self, key: &str) -> String {
        let key = printable(key);
        self.language.pick([
            format!("there is no template {key} (see template list)"),
            format!("没有模板 {key}（见 template list）"),
        ])
    }

    fn remove(&mut self, key: &str) -> Result<u8, String> {
        let Row { key, title, template, .. } = self.find(key)?;
        self.database.remove(&key).map_err(|error| error.to_string())?;
        let (shown, name) = (printable(&key), &self.config.name);
        self.keep(Change { key, before: Some(template), now: None }, What::Removed, &title);
        let removed = self.language.pick([
            format!("{shown} removed; mega {name} reload drops it from the daemon"),
            format!("{shown} 已删除；mega {name} reload 后守护进程不再使用它"),
        ]);
        crate::say!("{removed}");
        Ok(exit::OK)
    }

    fn check(&mut self, key: Option<&str>) -> Result<u8, String> {
        let rows = match key {
            Some(key) => vec![self.find(key)?],
            None => self.rows()?,
        };
        let (count, mut doubtful) = (rows.len(), 0);
        let (table_size, template_size) =
            (self.config.server.table_size, self.config.server.template_size);
        if count > table_size {
            doubtful += 1;
            let text = self.language.pick([
                format!("{count} templates, and the daemon has room for {table_size} (server.table_size)"),
                format!("共 {count} 个模板，而守护进程只容纳 {table_size} 个（server.table_size）"),
            ]);
            crate::say!("{text}");
        }
        for Row { key, template, .. } in rows {
            let doubts = doubts(&self.compiled(&template));
            let size = template.len();
            if size > template_size {
                let text = self.language.pick([
                    format!("it has {size} bytes, and is left out: server.template_size allows {template_size}"),
                    format!("有 {size} 字节，不会载入：server.template_size 只允许 {template_size}"),
                ]);
                crate::say!("{}: {text}", printable(&key));
            }
            doubtful += usize::from(!doubts.is_empty() || size > template_size);
            for doubt in doubts {
                crate::say!("{}: {}", printable(&key), self.told(&doubt));
            }
        }
        if doubtful == 0 {
            let sound = self.language.pick([
                format!("{count} templates, nothing doubtful"),
                format!("{count} 个模板，没有可疑之处"),
            ]);
            crate::say!("{sound}");
            return Ok(exit::OK);
        }
        Ok(exit::FAILED)
    }

    fn compiled(&self, text: &str) -> Compiled {
        Compiled::compile(text, Filling::of(&self.config.wechat))
    }

    fn told(&self, Doubt { caution, detail }: &Doubt) -> String {
        let text = self.language.pick(caution.texts());
        match detail.is_empty() {
            true => text.to_owned(),
            false => format!("{text} ({detail})"),
        }
    }

    fn warn(&self, text: &str) {
        let warning = self.language.pick(["warning", "警告"]);
        crate::complain!("{warning}: {text}");
    }

    /// Keeps a change in the history. What was changed is changed, whether that can be done or not.
    fn keep(&self, change: Change, what: What, title: &str) {
        let by = By { who: &self.who, what, time: now_ms(), title };
        let mut ledger = Ledger::new(&self.config.server.ledger_file);
        if let Err(why) = ledger.write(|write| history::record(write, &change, by)) {
            let lost = ["this change is not kept in the history", "此次修改没有记入历史"];
            self.warn(&format!("{}: {why}", self.language.pick(lost)));
        }
    }

    /// Makes the running daemon read it again.
    fn tell(&self, key: &str) -> Result<u8, String> {
        let reached = if_running(&Target::of(self.config), PATIENCE);
        let reached = reached.map_err(|why| format!("cannot tell the daemon: {why}"))?;
        let Some(mut daemon) = reached else {
            crate::say!(
                "{}",
                self.language.pick([
                    "no daemon is running; it will load the template when it starts",
                    "守护进程没有运行；启动时会载入该模板",
                ])
            );
            return Ok(exit::OK);
        };
        let mut frame = Vec::new();
        command::encode_tset(&mut frame, 1, key.as_bytes());
        let answer =
            daemon.call(&frame).map_err(|error| format!("the daemon does not answer: {error}"))?;
        if answer.code != command::OK {
            return Err(format!("the daemon did not load it: {} {}", answer.code, answer.message));
        }
        crate::say!(
            "{}",
            self.language
                .pick(["the running daemon uses it from now on", "运行中的守护进程已开始使用它"])
        );
        Ok(exit::OK)
    }
}

/// A text as it is; on a terminal, without what would steer it.
fn print(text: &str) {
    match stdout().is_terminal() {
        true => crate::say!("{}", printable_lines(text)),
        // Whoever has seen enough reads no further.
        false => drop(writeln!(stdout(), "{text}")),
    }
}
