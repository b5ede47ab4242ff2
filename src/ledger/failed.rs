//! The rows of failed messages: how they are recorded, found, requeued, dismissed and ended. Each
//! function is a part of one transaction or one look; none knows threads or clocks.
//!
//! - L1: a row is claimed (`moving`) durably before its message is handed to the queue, and counts
//!   as requeued only when the message is durable there. What a crash leaves claimed is settled by
//!   what the queue holds (`doubt`).
//! - L2: a row that fails again takes a new `seq`, behind everything that a requeue under way may
//!   still meet.

use super::filter::{Condition, Filter};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row as SqlRow, params, params_from_iter};
use serde_json::json;
use serde_json::value::RawValue;
use std::ops::RangeInclusive;

/// What has become of a failed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Failed = 0,
    /// On its way back into the queue.
    Moving = 1,
    Requeued = 2,
    Dismissed = 3,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Failed => "failed",
            State::Moving => "moving",
            State::Requeued => "requeued",
            State::Dismissed => "dismissed",
        }
    }

    fn of(number: i64) -> State {
        let all = [State::Failed, State::Moving, State::Requeued, State::Dismissed];
        all.into_iter().find(|state| *state as i64 == number).unwrap_or(State::Failed)
    }
}

/// A failed message as it is recorded.
#[derive(Clone, Copy)]
pub struct New<'a> {
    pub id: &'a str,
    pub openid: &'a [u8],
    pub key: &'a [u8],
    pub data: &'a [u8],
    pub time: u64,
    /// None where nobody knows.
    pub enqueued: Option<u64>,
    pub attempts: u8,
    pub class: &'a str,
    pub errcode: Option<i64>,
    pub errmsg: &'a str,
}

/// A failed message as it stands in the table.
#[derive(Debug)]
pub struct Row {
    pub seq: i64,
    pub id: String,
    pub openid: Vec<u8>,
    pub key: Vec<u8>,
    pub data: Vec<u8>,
    pub time: u64,
    pub enqueued: Option<u64>,
    pub attempts: u8,
    pub class: String,
    pub errcode: Option<i64>,
    pub errmsg: String,
    pub state: State,
    /// When and by whom it was requeued or dismissed.
    pub changed: Option<(u64, String)>,
}

pub(super) const COLUMNS: &str = "seq, id, openid, key, data, time, enqueued, attempts, class, errcode, \
                       errmsg, state, changed, changed_by";

const INSERT: &str = "failed (id, openid, key, data, time, enqueued, attempts, class, errcode, \
                      errmsg) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

impl Row {
    pub(super) fn read(row: &SqlRow) -> rusqlite::Result<Row> {
        let bytes = |index| match row.get_ref(index) {
            Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        let changed: Option<i64> = row.get(12)?;
        let by: Option<String> = row.get(13)?;
        Ok(Row {
            seq: row.get(0)?,
            id: row.get(1)?,
            openid: bytes(2),
            key: bytes(3),
            data: bytes(4),
            time: row.get::<_, i64>(5)? as u64,
            enqueued: row.get::<_, Option<i64>>(6)?.map(|time| time as u64),
            attempts: row.get(7)?,
            class: row.get(8)?,
            errcode: row.get(9)?,
            errmsg: row.get(10)?,
            state: State::of(row.get(11)?),
            changed: changed.map(|at| (at as u64, by.unwrap_or_default())),
        })
    }

    /// One JSON object; `time` says how a time is written.
    pub fn to_json(&self, time: impl Fn(u64) -> String) -> serde_json::Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let data = std::str::from_utf8(&self.data).unwrap_or_default();
        let data: Option<&RawValue> = serde_json::from_str(data).ok();
        let mut object = json!({
            "time": time(self.time),
            "openid": text(&self.openid),
            "key": text(&self.key),
            "data": data,
            "attempts": self.attempts,
            "class": self.class,
            "errcode": self.errcode,
            "errmsg": self.errmsg,
            "client_msg_id": self.id,
            "enqueued": self.enqueued.map(&time),
            "state": self.state.name(),
        });
        if let Some((at, by)) = &self.changed {
            object["changed"] = time(*at).into();
            object["changed_by"] = by.clone().into();
        }
        object
    }
}

/// Text where it is text, so that it can be asked for by its name.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.into()),
        Err(_) => Value::Blob(bytes.into()),
    }
}

fn insert(write: &Connection, or: &str, new: New) -> rusqlite::Result<usize> {
    let New { id, openid, key, data, time, enqueued, attempts, class, errcode, errmsg } = new;
    let (time, enqueued) = (time as i64, enqueued.map(|time| time as i64));
    write.prepare_cached(&format!("INSERT OR {or} INTO {INSERT}"))?.execute(params![
        id,
        text(openid),
        text(key),
        text(data),
        time,
        enqueued,
        attempts,
        class,
        errcode,
        errmsg
    ])
}

/// Records a failure; one that is known takes the place of what was known of it (L2).
pub fn record(write: &Connection, new: New) -> rusqlite::Result<()> {
    insert(write, "REPLACE", new).map(drop)
}

/// Records a failure of an old list, unless it is known.
pub fn import(write: &Connection, new: New) -> rusqlite::Result<()> {
    insert(write, "IGNORE", new).map(drop)
}

/// The highest `seq` there is.
pub fn newest(read: &Connection) -> rusqlite::Result<i64> {
    read.query_row("SELECT coalesce(max(seq), 0) FROM failed", [], |row| row.get(0))
}

/// The first rows with such a `seq` that the filter lets through, in the order in which they failed.
pub fn page(
    read: &Connection,
    filter: &Filter,
    states: &[State],
    seqs: RangeInclusive<i64>,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let mut condition = Condition::of(filter);
    condition.and("seq >= ?", *seqs.start());
    condition.and("seq <= ?", *seqs.end());
    let sql = format!(
        "SELECT {COLUMNS} FROM failed WHERE {} AND state IN ({}) ORDER BY seq LIMIT {limit}",
        condition.sql(),
        list(states)
    );
    let mut statement = read.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(condition.values), Row::read)?;
    rows.collect()
}

fn list(states: &[State]) -> String {
    let numbers: Vec<String> = states.iter().map(|state| (*state as i64).to_string()).collect();
    numbers.join(", ")
}

/// How many there are of each errcode, the most frequent last.
pub fn count(
    read: &Connection,
    filter: &Filter,
    states: &[State],
) -> rusqlite::Result<Vec<(Option<i64>, String, u64)>> {
    let condition = Condition::of(filter);
    let sql = format!(
        "SELECT errcode, CASE WHEN errcode IS NULL THEN class ELSE '' END AS why, count(*) FROM failed \
         WHERE {} AND state IN ({}) GROUP BY errcode, why ORDER BY count(*), errcode",
        condition.sql(),
        list(states)
    );
    let mut statement = read.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(condition.values), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64))
    })?;
    rows.collect()
}

/// Gives a row another state, if it is in the one it is thought to be in.
pub fn change(
    write: &Connection,
    seq: i64,
    from: State,
    to: State,
    changed: Option<(u64, &str)>,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE failed SET state = ?, changed = ?, changed_by = ? WHERE seq = ? AND state = ?";
    let (at, by) = changed.map(|(at, by)| (at as i64, by)).unzip();
    write.prepare_cached(sql)?.execute(params![to as i64, at, by, seq, from as i64]).map(drop)
}

/// Ends rows that failed, or were requeued or dismissed, before `before`; at most `limit`.
pub fn expire(write: &Connection, before: u64, limit: usize) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM failed WHERE seq IN (SELECT seq FROM failed WHERE time < ?1 AND \
               state != 1 AND coalesce(changed, 0) < ?1 LIMIT ?2)";
    let ended = write.execute(sql, params![before as i64, limit as i64])?;
    if ended > 0 {
        // Pages that were given back are few, and so is the time it takes.
        write.query_row("PRAGMA incremental_vacuum(256)", [], |_| Ok(())).or_else(none)?;
    }
    Ok(ended)
}

/// The pragma answers with no row.
fn none(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

/// Dismisses the first rows with such a `seq` that the filter lets through; how many, and the last.
pub fn dismiss(
    write: &Connection,
    filter: &Filter,
    seqs: RangeInclusive<i64>,
    limit: usize,
    changed: (u64, &str),
) -> rusqlite::Result<(usize, Option<i64>)> {
    let rows = page(write, filter, &[State::Failed], seqs, limit)?;
    for row in &rows {
        change(write, row.seq, State::Failed, State::Dismissed, Some(changed))?;
    }
    Ok((rows.len(), rows.last().map(|row| row.seq)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ledger::database::Database;

    pub fn new<'a>(id: &'a str, errcode: i64) -> New<'a> {
        New {
            id,
            openid: b"o",
            key: b"k",
            data: br#"{"a":1.50}"#,
            time: 10_000,
            enqueued: Some(9_000),
            attempts: 1,
            class: "permanent",
            errcode: Some(errcode),
            errmsg: "43004 require subscribe rid: 1",
        }
    }

    pub fn with<T>(work: impl Fn(&Connection) -> rusqlite::Result<T>) -> T {
        let folder = tempfile::tempdir().unwrap();
        Database::new(&folder.path().join("l.db")).write(|write| work(write)).unwrap()
    }

    fn ids(read: &Connection, filter: &Filter, states: &[State]) -> Vec<String> {
        page(read, filter, states, 0..=i64::MAX, 100)
            .unwrap()
            .into_iter()
            .map(|row| row.id)
            .collect()
    }

    #[test]
    fn a_failure_is_one_row_however_often_it_is_recorded() {
        with(|write| {
            record(write, new("1", 43004))?;
            record(write, new("2", 43004))?;
            let first = &page(write, &Filter::default(), &[State::Failed], 0..=i64::MAX, 1)?[0];
            change(write, first.seq, State::Failed, State::Requeued, Some((11_000, "root")))?;
            assert_eq!(ids(write, &Filter::default(), &[State::Failed]), ["2"]);
            import(write, new("1", 1))?;
            assert_eq!(ids(write, &Filter::default(), &[State::Failed]), ["2"]);
            // It failed again, behind all that failed before.
            record(write, new("1", 40003))?;
            assert_eq!(ids(write, &Filter::default(), &[State::Failed]), ["2", "1"]);
            // Another recipient under the same id is another message.
            record(write, New { openid: b"\xff", ..new("1", 40003) })?;
            let rows = page(write, &Filter::default(), &[State::Failed], 0..=i64::MAX, 100)?;
            assert_eq!((rows.len(), rows[2].openid.as_slice()), (3, &b"\xff"[..]));
            assert_eq!(rows[1].errcode, Some(40003));
            assert!(rows[1].changed.is_none());
            Ok(())
        });
    }

    #[test]
    fn filters_hold_all_together() {
        with(|write| {
            record(write, new("1", 43004))?;
            record(write, New { openid: b"p", time: 20_000, ..new("2", 43004) })?;
            record(write, New { class: "network", errcode: None, ..new("3", 0) })?;
            let found = |filter: Filter| ids(write, &filter, &[State::Failed]).join(" ");
            let none = Filter::default;
            assert_eq!(found(Filter { errcode: Some(43004), ..none() }), "1 2");
            assert_eq!(found(Filter { openid: Some("p".into()), ..none() }), "2");
            assert_eq!(found(Filter { class: Some("network".into()), ..none() }), "3");
            assert_eq!(found(Filter { since: Some(20_000), ..none() }), "2");
            assert_eq!(found(Filter { until: Some(20_000), errcode: Some(43004), ..none() }), "1");
            assert_eq!(found(Filter { key: Some("' OR 1".into()), ..none() }), "");
            let counts = count(write, &none(), &[State::Failed])?;
            let network = (None, "network".to_owned(), 1);
            assert_eq!(counts, [network, (Some(43004), String::new(), 2)]);
            Ok(())
        });
    }

    #[test]
    fn the_data_and_the_times_are_shown_as_they_were() {
        with(|write| {
            record(write, new("1", 43004))?;
            let row = &page(write, &Filter::default(), &[State::Failed], 0..=i64::MAX, 1)?[0];
            let shown = row.to_json(|time| format!("at {time}")).to_string();
            assert!(
                shown.starts_with(r#"{"time":"at 10000","openid":"o","key":"k","data":{"a":1.5"#)
            );
            assert!(
                shown.contains(r#""client_msg_id":"1","enqueued":"at 9000","state":"failed"}"#)
            );
            Ok(())
        });
    }

    #[test]
    fn old_rows_end_a_few_at_a_time_unless_they_are_under_way() {
        with(|write| {
            for n in 0..10 {
                record(write, New { time: 1_000 * n, ..new(&n.to_string(), 1) })?;
            }
            change(write, 1, State::Failed, State::Moving, Some((0, "x")))?;
            change(write, 2, State::Failed, State::Requeued, Some((8_000, "x")))?;
            assert_eq!(expire(write, 5_000, 2)?, 2);
            assert_eq!(expire(write, 5_000, 2)?, 1);
            assert_eq!(expire(write, 5_000, 2)?, 0);
            let all = [State::Failed, State::Moving, State::Requeued];
            assert_eq!(ids(write, &Filter::default(), &all), ["0", "1", "5", "6", "7", "8", "9"]);
            Ok(())
        });
    }
}
