//! A look at a queue folder from outside, while the daemon runs or not: read-only, changes nothing,
//! decides nothing. For `mega NAME queue check|dump`.

use super::disk::{Disk, Map};
use super::record::{self, Found, Record};
use super::segment::{self, BAD, HEADER, Segment};
use super::{OpenError, recover};
use serde_json::{Value, json};
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
            "size": segment.map.size(),
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
    let mut maps: Vec<(String, Map)> = Vec::new();
    for name in names {
        match disk.open(&name) {
            Ok(map) => maps.push((name, map)),
            // Finished and removed since the folder was listed, or being made.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {}
            Err(error) => return Err(OpenError::Segment { name, why: error.to_string() }),
        }
    }
    let queue = recover::majority(maps.iter().filter_map(|(_, map)| Segment::queue_of(map)));
    for (name, map) in maps {
        let number = number(&name).unwrap_or_default();
        let mut summary = Summary::default();
        if let Err(unusable) = Segment::check(&map, queue.unwrap_or_default(), number) {
            summary.damage.push((0, HEADER.min(map.size()), unusable.to_string()));
        }
        let segment = Segment::open(map, queue.unwrap_or_default(), number);
        walk(&segment, &mut summary, |at, found, payload| {
            record(describe(&name, segment.origin(), at, found, payload));
        });
        file(&name, &segment, &summary);
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    segment::number(name.strip_suffix(BAD).unwrap_or(name))
}

/// Calls `each` for every record that can be trusted, and notes what lies between them.
pub(super) fn walk(
    segment: &Segment,
    summary: &mut Summary,
    mut each: impl FnMut(usize, &Record, &[u8]),
) {
    let end = if segment.sealed { segment.end } else { segment.map.size() };
    let mut at = HEADER;
    while at < end {
        let found = record::read(&segment.map, segment.place(at), end);
        if let Found::Record(record) = found {
            match record.done {
                true => summary.done += 1,
                false => summary.ready += 1,
            }
            each(at, &record, segment.map.bytes(record::payload(at, record.length)));
            at += record.size();
            continue;
        }
        let next = record::search(&segment.map, segment.place(at + record::ALIGN), end);
        // Behind the last record of the tail there is nothing yet, or one that is being written.
        if next.is_none() && found == Found::Nothing && !segment.sealed {
            return;
        }
        let next = next.unwrap_or(end);
        summary.damage.push((at, next - at, "records that fail their checksum".into()));
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
