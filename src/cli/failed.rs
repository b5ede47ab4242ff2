//! `failed`: shows and counts the messages that ended undelivered. `requeue`: pushes those of a file
//! again, and can be stopped and started again without pushing one twice.

use super::state::cannot_ask;
use crate::client::{Client, PATIENCE};
use crate::config::Config;
use crate::exit;
use crate::spool::failed::files;
use crate::wire::command::{self, Request};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write, stdout};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Failed {
    /// Those with this errcode only
    #[arg(long, allow_negative_numbers = true)]
    errcode: Option<i64>,
    /// Print how many there are of each errcode, and not the messages
    #[arg(long)]
    count: bool,
    /// Files of the failed list [default: all that are kept beside the log]
    files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Line<'a> {
    openid: String,
    key: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    errcode: Option<i64>,
}

pub fn failed(config: &Config, options: &Failed) -> Result<u8, String> {
    let files = match options.files.is_empty() {
        true => {
            files(&config.log.log_file).map_err(|error| format!("the log's folder: {error}"))?
        }
        false => options.files.clone(),
    };
    let mut counts: BTreeMap<Option<i64>, u64> = BTreeMap::new();
    let mut out = stdout().lock();
    for path in files {
        let cannot_read = |error| format!("cannot read {}: {error}", path.display());
        let mut reader = BufReader::new(File::open(&path).map_err(cannot_read)?);
        let (mut text, mut number) = (String::new(), 0);
        while next(&mut reader, &mut text).map_err(cannot_read)? {
            number += 1;
            let line = parse(&path, number, &text)?;
            if options.errcode.is_some_and(|wanted| line.errcode != Some(wanted)) {
                continue;
            }
            *counts.entry(line.errcode).or_default() += 1;
            if !options.count && out.write_all(text.as_bytes()).is_err() {
                // Whoever reads has seen enough.
                return Ok(exit::OK);
            }
        }
    }
    if options.count {
        for (errcode, count) in counts {
            let errcode = errcode.map_or("none".into(), |errcode| errcode.to_string());
            crate::say!("{errcode:>8} {count}");
        }
    }
    Ok(exit::OK)
}

/// The next whole line; what a daemon is writing at the moment is none yet.
fn next(reader: &mut impl BufRead, text: &mut String) -> std::io::Result<bool> {
    text.clear();
    reader.read_line(text)?;
    Ok(text.ends_with('\n'))
}

fn parse<'a>(path: &Path, number: u64, text: &'a str) -> Result<Line<'a>, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("{}:{number}: not a line of the failed list: {error}", path.display())
    })
}

pub fn requeue(config: &Config, path: &Path) -> Result<u8, String> {
    let cannot =
        |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
    let mut file = File::open(path).map_err(|error| cannot("read", error))?;
    let (mut progress, resumed) = Progress::open(path)?;
    if let Some((from, to)) = resumed {
        eprintln!(
            "mega: the message at bytes {from} to {to} of {} was being pushed when the last run \
             ended; it may be queued, so it is not pushed again",
            path.display()
        );
    }
    file.seek(SeekFrom::Start(progress.done)).map_err(|error| cannot("read", error))?;
    let mut reader = BufReader::new(file);
    let unreachable = |error: std::io::Error| cannot_ask(config, &error);
    let mut client = Client::admin(config, PATIENCE).map_err(unreachable)?;
    let (mut pushed, mut refused) = (0_u64, 0_u64);
    let (mut text, mut frame) = (String::new(), Vec::new());
    while next(&mut reader, &mut text).map_err(|error| cannot("read", error))? {
        let line = parse(path, pushed + refused + 1, &text)?;
        let request = Request {
            opaque: 1,
            openid: line.openid.as_bytes(),
            key: line.key.as_bytes(),
            data: line.data.map_or("null", RawValue::get).as_bytes(),
        };
        frame.clear();
        command::encode_push(&mut frame, request);
        progress.begin(text.len() as u64)?;
        let answer = client.call(&frame).map_err(unreachable)?;
        match answer.code {
            command::OK => pushed += 1,
            command::BAD_REQUEST => {
                refused += 1;
                eprintln!("mega: {} to {}: {}", line.key, line.openid, answer.message);
            }
            _ => {
                progress.give_up()?;
                let message = answer.message;
                return Err(format!(
                    "{pushed} pushed, then: {message}; run the command again later"
                ));
            }
        }
        progress.end()?;
    }
    crate::say!("{pushed} pushed, {refused} refused");
    Ok(if refused == 0 { exit::OK } else { exit::FAILED })
}

/// How far a file has been pushed, in `FILE.requeued`: the bytes that are done, and those that are
/// done or under way. Written before and after each push, so that a run that was killed in between
/// leaves one message in doubt and no more.
struct Progress {
    state: File,
    path: PathBuf,
    done: u64,
    asked: u64,
}

impl Progress {
    /// What was under way when the last run ended is returned, and counts as done.
    fn open(list: &Path) -> Result<(Progress, Option<(u64, u64)>), String> {
        let path = PathBuf::from(format!("{}.requeued", list.display()));
        let cannot = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let state = options.open(&path).map_err(cannot)?;
        if flock(&state, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(format!("another requeue of {} is running", list.display()));
        }
        let text = std::io::read_to_string(&state).map_err(cannot)?;
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        let (done, asked) = match (words.next(), words.next()) {
            (None, _) => (0, 0),
            (Some(Ok(done)), Some(Ok(asked))) => (done, asked),
            _ => return Err(format!("{} holds {text:?}, not two numbers", path.display())),
        };
        let mut progress = Progress { state, path, done: asked, asked };
        progress.write()?;
        Ok((progress, (asked > done).then_some((done, asked))))
    }

    fn begin(&mut self, bytes: u64) -> Result<(), String> {
        self.asked = self.done + bytes;
        self.write()
    }

    fn end(&mut self) -> Result<(), String> {
        self.done = self.asked;
        self.write()
    }

    /// It was not taken.
    fn give_up(&mut self) -> Result<(), String> {
        self.asked = self.done;
        self.write()
    }

    fn write(&mut self) -> Result<(), String> {
        // Of one length, so that it is replaced at once and as a whole.
        let text = format!("{:020} {:020}\n", self.done, self.asked);
        self.state
            .write_all_at(text.as_bytes(), 0)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}
