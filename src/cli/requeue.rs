//! `requeue`: orders the daemon to queue failed messages again, by the filters of `failed` or from the lines
//! of an old list. One step after the other, so that it can be stopped and asked for again at any time.

use super::control::ask_ledger;
use super::failed::{Filters, steps, whoami};
use super::state::Target;
use super::when;
use crate::exit;
use crate::ledger::order::{Line, Request, STEP};
use crate::queue::ClientMsgId;
use crate::template::check_data;
use crate::wire::question::Question;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::path::{Path, PathBuf};

/// Bytes of lines that are sent at a time.
const BYTES: usize = 256 * 1024;

#[derive(Args)]
pub struct Requeue {
    #[command(flatten)]
    filters: Filters,
    /// The messages of an old failed list, or of what `failed` prints; those that were requeued or dismissed
    /// before are left out
    #[arg(long, conflicts_with_all = [
        "errcode", "openid", "key", "class", "since", "until", "limit"
    ])]
    file: Option<PathBuf>,
}

pub fn requeue(target: &Target, options: &Requeue) -> Result<u8, String> {
    if let Some(path) = &options.file {
        return from_file(target, path);
    }
    let total = steps(
        &options.filters,
        |request| ask_ledger(target, Question::Requeue, request),
        progress,
    )?;
    crate::say!("{} requeued", total.count);
    if total.too_large > 0 {
        eprintln!("mega: {} fit into no segment of the queue and stay failed", total.too_large);
    }
    match total.stopped {
        Some(why) => Err(format!("not all of them: {why}; run the command again later")),
        None if total.too_large > 0 => Ok(exit::FAILED),
        None => Ok(exit::OK),
    }
}

fn progress(count: usize) {
    if stderr().is_terminal() && count > STEP {
        eprint!("\r{count} requeued ");
    }
}

/// A line of an old list; of what else stands there, nothing is needed.
#[derive(Deserialize)]
struct Old {
    time: String,
    openid: String,
    key: String,
    data: Option<Box<RawValue>>,
    attempts: Option<u8>,
    errcode: Option<i64>,
    errmsg: Option<String>,
    client_msg_id: String,
}

impl Old {
    fn line(self) -> Result<Line, String> {
        if ClientMsgId::new(self.client_msg_id.as_bytes()).is_none() {
            return Err(format!("{} is no client_msg_id", self.client_msg_id));
        }
        check_data(self.data.as_ref().map_or("null", |data| data.get()).as_bytes())
            .map_err(|error| format!("invalid data: {error}"))?;
        Ok(Line {
            time: when::parse(&self.time)?,
            openid: self.openid,
            key: self.key,
            data: self.data,
            attempts: self.attempts.unwrap_or(1),
            errcode: self.errcode,
            errmsg: self.errmsg.unwrap_or_default(),
            client_msg_id: self.client_msg_id,
        })
    }
}

fn from_file(target: &Target, path: &Path) -> Result<u8, String> {
    let cannot_read = |error| format!("cannot read {}: {error}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(cannot_read)?);
    let (mut count, mut skipped, mut number) = (0, 0, 0);
    let (mut lines, mut bytes, mut text) = (Vec::new(), 0, Vec::new());
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text).map_err(cannot_read)?;
        if read == 0 || bytes + read > BYTES || lines.len() == STEP {
            count += step(target, std::mem::take(&mut lines))?;
            progress(count);
            bytes = 0;
        }
        if read == 0 {
            break;
        }
        number += 1;
        let old = serde_json::from_slice(&text).map_err(|error| error.to_string());
        let fits = read.saturating_add(1024) < target.longest_frame();
        let fits = fits.then_some(()).ok_or("longer than setting.package_max_length".to_owned());
        match fits.and(old).and_then(Old::line) {
            Ok(line) => {
                bytes += read;
                lines.push(line);
            }
            Err(why) => {
                skipped += 1;
                crate::complain!("{}:{number}: skipped: {why}", path.display());
            }
        }
    }
    crate::say!("{count} requeued, {skipped} lines skipped");
    Ok(if skipped == 0 { exit::OK } else { exit::FAILED })
}

/// Asks for these until all of them are queued or known.
fn step(target: &Target, lines: Vec<Line>) -> Result<usize, String> {
    if lines.is_empty() {
        return Ok(0);
    }
    let request = Request { by: whoami(), lines: Some(lines), ..Request::default() };
    let (mut count, mut fruitless) = (0, 0);
    loop {
        let answer = ask_ledger(target, Question::Requeue, &request)?;
        count += answer.count;
        if answer.done {
            return Ok(count);
        }
        let Some(why) = answer.stopped else {
            let why = "a message that fits into no segment (see queue.segment_size)";
            return Err(format!("{count} requeued, then: {why}"));
        };
        fruitless = if answer.count > 0 { 0 } else { fruitless + 1 };
        if fruitless == super::failed::FRUITLESS {
            return Err(format!("{count} requeued, then: {why}; run the command again later"));
        }
        std::thread::sleep(super::failed::PAUSE);
    }
}
