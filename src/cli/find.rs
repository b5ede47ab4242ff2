//! `find`: where a message is, or what became of it. Looks through the queue's folder, the ledger and the
//! message logs, one after the other, and changes nothing; needs no daemon, and memory for what it finds only.

use super::paths::Paths;
use super::when;
use crate::day_file::{dated, days};
use crate::exit;
use crate::file;
use crate::ledger::database::Database;
use crate::ledger::failed::{State, page};
use crate::ledger::filter::Filter;
use crate::queue::disk::Folder;
use crate::queue::inspect::inspect;
use crate::traffic::line::spelt;
use clap::Args;
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// The words of a line of the message log, behind its time.
const WORDS: [&str; 11] = [
    "kind",
    "openid",
    "key",
    "client_msg_id",
    "msgid",
    "attempts",
    "queued_ms",
    "call_ms",
    "class",
    "errcode",
    "client",
];

/// The longest line that is looked at; a longer one is not the log's.
const LINE: usize = 64 * 1024;

#[derive(Args)]
pub struct Find {
    /// A recipient's openid, or a client_msg_id
    #[arg(value_name = "OPENID|CLIENT_MSG_ID")]
    what: String,
    /// What ended since: 2026-11-24, "2026-11-24 10:00", or so long ago: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<u64>,
    /// The newest of each place, so many at most
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    limit: usize,
}

/// The newest that were found in one place, by time and the order in which they were found.
struct Newest {
    limit: usize,
    found: BTreeMap<(u64, u64), Value>,
    count: u64,
}

impl Newest {
    fn new(limit: usize) -> Newest {
        Newest { limit, found: BTreeMap::new(), count: 0 }
    }

    fn add(&mut self, time: u64, what: Value) {
        self.count += 1;
        self.found.insert((time, self.count), what);
        if self.found.len() > self.limit {
            self.found.pop_first();
        }
    }
}

pub fn find(paths: &Paths, options: &Find) -> Result<u8, String> {
    let since = options.since.unwrap_or(0);
    let places = [
        in_log(paths, options, since)?,
        in_ledger(paths, options, since)?,
        in_queue(paths, options)?,
    ];
    let mut all: Vec<(u64, usize, Value)> = Vec::new();
    for (place, newest) in places.into_iter().enumerate() {
        let left_out = newest.count - newest.found.len() as u64;
        if left_out > 0 {
            eprintln!("mega: {left_out} older ones are left out (see --limit)");
        }
        all.extend(newest.found.into_iter().map(|((time, _), value)| (time, place, value)));
    }
    // Of one time, where it is now comes behind what became of it before.
    all.sort_by_key(|(time, place, _)| (*time, *place));
    for (_, _, value) in &all {
        crate::say!("{value}");
    }
    Ok(if all.is_empty() { exit::FAILED } else { exit::OK })
}

/// A message that waits has the time of its acceptance, and is shown whenever that was.
fn in_queue(paths: &Paths, options: &Find) -> Result<Newest, String> {
    let path = &paths.queue;
    let mut newest = Newest::new(options.limit);
    if !path.exists() {
        return Ok(newest);
    }
    let failed = |why: String| format!("cannot read the queue {}: {why}", path.display());
    let disk = Folder::read_only(path).map_err(|error| failed(error.to_string()))?;
    let each = |record: Value| {
        let meant = [&record["openid"], &record["client_msg_id"]];
        if record["state"] != "done" && meant.iter().any(|text| **text == *options.what) {
            let time = record["enqueued_ms"].as_u64().unwrap_or(0);
            newest.add(time, waiting(&record, time));
        }
    };
    inspect(&disk, each, |_, _, _| {}).map_err(|error| failed(error.to_string()))?;
    Ok(newest)
}

fn waiting(record: &Value, time: u64) -> Value {
    let due = record["due_ms"].as_u64().filter(|due| *due > 0).map(when::shown);
    json!({
        "time": when::shown(time),
        "where": "queue",
        "openid": record["openid"],
        "key": record["key"],
        "data": record["data"],
        "attempts": record["attempts"],
        "client_msg_id": record["client_msg_id"],
        "due": due,
    })
}

fn in_ledger(paths: &Paths, options: &Find, since: u64) -> Result<Newest, String> {
    let path = &paths.ledger;
    let mut newest = Newest::new(options.limit);
    let Some(read) = Database::read_only(path)? else { return Ok(newest) };
    let every = [State::Failed, State::Moving, State::Requeued, State::Dismissed];
    let since = Some(since);
    let by_openid = Filter { openid: Some(options.what.clone()), since, ..Filter::default() };
    let by_id = Filter { id: Some(options.what.clone()), since, ..Filter::default() };
    for filter in [by_openid, by_id] {
        let mut from = 0;
        loop {
            let rows = page(&read, &filter, &every, from..=i64::MAX, 500)
                .map_err(|error| format!("the ledger {}: {error}", path.display()))?;
            let Some(last) = rows.last() else { break };
            from = last.seq + 1;
            for row in rows {
                let mut found = row.to_json(when::shown);
                found["where"] = "ledger".into();
                newest.add(row.time, found);
            }
        }
    }
    Ok(newest)
}

fn in_log(paths: &Paths, options: &Find, since: u64) -> Result<Newest, String> {
    let mut newest = Newest::new(options.limit);
    let Some(path) = &paths.message_log else { return Ok(newest) };
    let days = match days(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(newest),
        days => {
            days.map_err(|error| format!("cannot read the folder of {}: {error}", path.display()))?
        }
    };
    let word = spelt(options.what.as_bytes());
    // A file may hold the last lines of the day before.
    let first = when::day(since.saturating_sub(86_400_000));
    for day in days.into_iter().filter(|day| *day >= first) {
        let file = dated(path, day);
        if let Err(error) = look(&file, &word, since, &mut newest)
            // Removed since the folder was listed.
            && error.kind() != ErrorKind::NotFound
        {
            return Err(format!("cannot read {}: {error}", file.display()));
        }
    }
    Ok(newest)
}

fn look(file: &Path, word: &[u8], since: u64, newest: &mut Newest) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, file::open(file, OFlags::RDONLY, 0)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, LINE as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
        // Time and kind come before the openid, and the key after it.
        let meant = words.clone().skip(2).step_by(2).take(2).any(|text| text == word);
        let Some(time) = words.next().filter(|_| meant) else { continue };
        let time = String::from_utf8_lossy(time).into_owned();
        let ms = when::parse(&time).unwrap_or(0);
        if ms < since {
            continue;
        }
        let mut found = json!({ "time": time, "where": "log" });
        for (name, word) in WORDS.iter().zip(words) {
            found[*name] = match String::from_utf8_lossy(word) {
                word if word == "-" => Value::Null,
                word => word.parse::<i64>().map_or_else(|_| word.into(), Value::from),
            };
        }
        newest.add(ms, found);
    }
}
