//! A look at a queue folder from outside, while the daemon runs or not: read-only, changes nothing,
//! decides nothing. For `mega NAME queue check|dump`.

use super::disk::Disk;
use super::header::{self, HEADER, Header};
use super::reader::Reader;
use super::record::{self, Found, Record};
use super::segment::Segment;
use super::{BLOCK, OpenError, recover};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::ErrorKind;

/// What one file of the folder comes to.
#[derive(Default)]
pub struct Summary {
    pub ready: u64,
    pub done: u64,
    /// Offset, length and kind of each part that cannot be trusted.
    pub damage: Vec<(usize, usize, String)>,
}

impl Summary {
    /// One JSON object, with what the header says.
    pub fn to_json(&self, name: &str, segment: &Segment) -> Value {
        let damage: Vec<Value> = (self.damage.iter())
            .map(|(at, bytes, why)| json!({"at": at, "bytes": bytes, "why": why}))
            .collect();
        json!({
            "segment": name,
            "size": segment.size(),
            "sealed": segment.sealed,
            "ready": self.ready,
            "done": self.done,
            "damage": damage,
        })
    }
}

/// Calls `record` for each record, as a JSON object, and `file` for each file at its end, with what
/// was found in it. Files set aside (`.bad`) are looked at too.
pub fn inspect(
    disk: &dyn Disk,
    mut record: impl FnMut(Value),
    mut file: impl FnMut(&str, &Segment, &Summary),
) -> Result<(), OpenError> {
    let mut names = disk.list().map_err(|error| OpenError::Folder { error })?;
    names.retain(|name| number(name).is_some());
    names.sort_unstable();
    let open = |name: &str| match disk.open(name) {
        Ok(file) => Ok(Some(file)),
        // Finished and removed since the folder was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Segment { name: name.into(), why: error.to_string() }),
    };
    let numbers: HashSet<u64> = names.iter().filter_map(|name| number(name)).collect();
    let mut headers = Vec::new();
    for name in names {
        if let Some(file) = open(&name)? {
            headers.push((name, Header::read(&file)));
        }
    }
    let origin = recover::majority(headers.iter().filter_map(|(_, header)| header.origin()));
    let origin = origin.unwrap_or_default();
    for (name, header) in headers {
        // One of no bytes is being made.
        let Some(opened) = open(&name)?.filter(|_| header.size() > 0) else { continue };
        let number = number(&name).unwrap_or_default();
        let mut summary = Summary::default();
        if let Err(unusable) = header.check(origin, number) {
            summary.damage.push((0, HEADER.min(header.size()), unusable.to_string()));
        }
        let before = header.follows().filter(|before| *before > 0 && !numbers.contains(before));
        if let Some(before) = before {
            let why = format!("{} before it is missing", header::name(before));
            summary.damage.push((0, 0, why));
        }
        let segment = Segment::new(&header, origin, number);
        let end = if segment.sealed { segment.end } else { opened.size() };
        let mut reader = Reader::new(opened, end, BLOCK);
        walk(&segment, &mut reader, &mut summary, |at, found, payload| {
            record(describe(&name, origin, at, found, payload));
        });
        file(&name, &segment, &summary);
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    header::number(name).or_else(|| header::bad_number(name))
}

/// Calls `each` for every record that can be trusted, up to the reader's end, and notes what lies
/// between them.
pub(super) fn walk(
    segment: &Segment,
    file: &mut Reader,
    summary: &mut Summary,
    mut each: impl FnMut(usize, &Record, &[u8]),
) {
    let (mut at, end) = (HEADER, file.end());
    while at < end {
        let found = record::read(file, segment.place(at), end);
        if let Found::Record(record) = found {
            match record.done {
                true => summary.done += 1,
                false => summary.ready += 1,
            }
            each(at, &record, file.bytes(record::payload(at, record.length)));
            at += record.size();
            continue;
        }
        let next = record::search(file, segment.place(at + record::ALIGN), end);
        let unreadable = file.take_unreadable();
        // Behind the last record of the tail there is nothing yet, or one that is being written.
        let nothing = found == Found::Nothing && unreadable.is_none();
        if next.is_none() && nothing && !segment.sealed {
            return;
        }
        let next = next.unwrap_or(end);
        let why = match unreadable {
            Some(why) => format!("records that cannot be read: {why}"),
            None => "records that fail their checksum".into(),
        };
        summary.damage.push((at, next - at, why));
        at = next;
    }
}

fn describe(name: &str, origin: u64, at: usize, record: &Record, payload: &[u8]) -> Value {
    let [_, openid, key, data] = record.parts(payload);
    let data = serde_json::from_slice(data)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(data).into_owned()));
    json!({
        "segment": name,
        "at": at,
        "state": if record.done { "done" } else { "ready" },
        "attempts": record.attempts,
        "client_msg_id": record.client_msg_id(origin, payload).as_str(),
        "enqueued_ms": record.enqueued,
        "due_ms": record.due,
        "openid": String::from_utf8_lossy(openid),
        "key": String::from_utf8_lossy(key),
        "data": data,
    })
}
