//! `mega NAME template ...`: the rows of the template table, managed in the database and made known
//! to the running daemon.

use super::state::{State, Target, find as find_daemon};
use crate::config::{Config, Dsn};
use crate::daemon::step_down_to_write;
use crate::exit;
use crate::template::{self, Database, Row, Template as Compiled};
use crate::wire::command;
use clap::Subcommand;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Subcommand)]
pub enum Template {
    /// List keys, sizes and titles
    List,
    /// Print one template's text
    Show { key: String },
    /// Store a template, and tell the running daemon to reload it
    Put {
        /// Its key, at most 32 characters and no spaces
        key: String,
        /// The file that holds its JSON; - or nothing reads standard input
        file: Option<PathBuf>,
        /// A title for people
        #[arg(long)]
        title: Option<String>,
    },
    /// Remove a template from the database; a running daemon keeps it until it is reloaded
    Rm { key: String },
}

/// What the original's column holds.
const KEY_CHARACTERS: usize = 32;

pub fn run(config: &Config, command: Template) -> Result<u8, String> {
    // The caller's file is read as the caller, the database is opened as the user it belongs to.
    let text = match &command {
        Template::Put { file, .. } => read(file.as_ref())?,
        _ => String::new(),
    };
    if let Dsn::Sqlite(_) = config.pdo.dsn {
        step_down_to_write(config)?;
    }
    let mut database = template::open(&config.pdo).map_err(|error| error.to_string())?;
    match command {
        Template::List => list(database.as_mut()),
        Template::Show { key } => {
            crate::say!("{}", find(database.as_mut(), &key)?.template);
            Ok(exit::OK)
        }
        Template::Put { key, title, .. } => put(config, database.as_mut(), &key, text, title),
        Template::Rm { key } => {
            let key = find(database.as_mut(), &key)?.key;
            database.remove(&key).map_err(|error| error.to_string())?;
            crate::say!("{key} removed; mega {} reload drops it from the daemon", config.name);
            Ok(exit::OK)
        }
    }
}

fn list(database: &mut dyn Database) -> Result<u8, String> {
    for row in database.list().map_err(|error| error.to_string())? {
        crate::say!("{:<32}  {:>6} bytes  {}", row.key, row.template.len(), row.title);
    }
    Ok(exit::OK)
}

fn find(database: &mut dyn Database, key: &str) -> Result<Row, String> {
    let found = database.find(key.as_bytes()).map_err(|error| error.to_string())?;
    found.ok_or_else(|| format!("there is no template {key} (see template list)"))
}

fn put(
    config: &Config,
    database: &mut dyn Database,
    key: &str,
    text: String,
    title: Option<String>,
) -> Result<u8, String> {
    if key.is_empty() || key.contains(char::is_whitespace) || key.chars().count() > KEY_CHARACTERS {
        return Err(format!("a key has 1 to {KEY_CHARACTERS} characters and no spaces: {key:?}"));
    }
    let variables = examine(config, &text)?;
    let now = crate::clock::unix_seconds() as i64;
    let old = database.find(key.as_bytes()).map_err(|error| error.to_string())?;
    let title = title.or_else(|| old.map(|row| row.title)).unwrap_or_default();
    let row = Row { key: key.into(), title, template: text, created_at: now, updated_at: now };
    database.put(&row).map_err(|error| error.to_string())?;
    crate::say!("{key} stored, variables: {}", variables.join(", "));
    tell(config, key)
}

fn read(file: Option<&PathBuf>) -> Result<String, String> {
    let (name, bytes) = match file.filter(|file| file.as_os_str() != "-") {
        Some(file) => (file.display().to_string(), std::fs::read(file)),
        None => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            ("standard input".into(), read.map(|_| bytes))
        }
    };
    let bytes = bytes.map_err(|error| format!("cannot read {name}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("{name} is not UTF-8: {error}"))?;
    Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
}

/// Refuses what WeChat would refuse, and returns the variables.
fn examine(config: &Config, text: &str) -> Result<Vec<String>, String> {
    let limit = config.server.template_size;
    if text.len() > limit {
        return Err(format!(
            "the template has {} bytes, server.template_size allows {limit}",
            text.len()
        ));
    }
    let template = Compiled::compile(text, config.wechat.template_escape);
    let variables: Vec<String> = template.variables().into_iter().map(str::to_owned).collect();
    // With a digit for every variable the text must be JSON, inside a string or outside.
    let sample: serde_json::Map<_, _> =
        variables.iter().map(|name| (name.clone(), serde_json::Value::from(0))).collect();
    let sample = serde_json::Value::Object(sample).to_string();
    let mut rendered = Vec::new();
    let shown = template.render("0", sample.as_bytes(), None, &mut rendered);
    shown.map_err(|error| error.to_string())?;
    let message: serde_json::Value = serde_json::from_slice(&rendered).map_err(|error| {
        format!("the template is not JSON once its variables are filled: {error}")
    })?;
    for member in ["touser", "template_id"] {
        if message.get(member).is_none() {
            eprintln!("mega: warning: the template has no \"{member}\", WeChat will refuse it");
        }
    }
    Ok(variables)
}

fn tell(config: &Config, key: &str) -> Result<u8, String> {
    let target = Target::of(config);
    let mut daemon = match find_daemon(&target, Duration::from_secs(10)) {
        State::Listens(daemon, _) => daemon,
        State::Stale(_) | State::Absent => {
            crate::say!("no daemon is running; it will load the template when it starts");
            return Ok(exit::OK);
        }
        State::Locked(process, _) => {
            let pid = process.pid;
            return Err(format!("cannot tell the daemon: the process {pid} starts or ends"));
        }
        State::Denied(why) | State::Doubtful(why) => {
            return Err(format!("cannot tell the daemon: {why}"));
        }
    };
    let mut frame = Vec::new();
    command::encode_tset(&mut frame, 1, key.as_bytes());
    let answer =
        daemon.call(&frame).map_err(|error| format!("the daemon does not answer: {error}"))?;
    if answer.code != command::OK {
        return Err(format!("the daemon did not load it: {} {}", answer.code, answer.message));
    }
    crate::say!("the running daemon uses it from now on");
    Ok(exit::OK)
}
