//! What the end of the last run leaves in doubt between the rows of failed messages and the queue, and how
//! the queue's records end it (L1 in `failed`). Each function is a part of one transaction; none knows
//! threads or clocks.

use super::failed::{COLUMNS, Row, State, change};
use crate::queue::Held;
use rusqlite::Connection;
use std::collections::HashMap;

/// The rows about which a crash leaves doubt: those that were on their way back into the queue (L1),
/// and those whose records may not be marked done. Those that were cancelled are in no doubt: the order stands
/// until they are marked, and there can be millions.
pub fn in_doubt(read: &Connection) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM failed WHERE state = 1 \
         OR (state = 0 AND seq > (SELECT seq FROM settled) AND class != 'cancelled')"
    );
    let mut statement = read.prepare(&sql)?;
    let rows = statement.query_map([], Row::read)?;
    rows.collect()
}

/// The records of all that failed before `before` are marked done, durably.
pub fn marked(write: &Connection, before: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE settled SET seq = newest.seq FROM \
               (SELECT coalesce(max(seq), 0) AS seq FROM failed WHERE time < ?) AS newest \
               WHERE newest.seq > settled.seq";
    write.execute(sql, [before as i64]).map(drop)
}

/// Ends the doubt by what the queue holds.
pub fn settle(write: &Connection, rows: &[Row], held: &[Held], now: u64) -> rusqlite::Result<()> {
    let mut by_id: HashMap<&str, Vec<&Held>> = HashMap::new();
    for held in held {
        by_id.entry(held.id.as_str()).or_default().push(held);
    }
    for row in rows {
        let known = by_id.get(row.id.as_str()).into_iter().flatten();
        let mut records = known.filter(|held| *held.openid == *row.openid);
        match row.state {
            // Its first record has the time of acceptance that stands here; the second has another.
            State::Moving => {
                let moved = row.changed.as_ref().map_or(0, |(at, _)| *at);
                let came = |held: &&Held| match row.enqueued {
                    Some(enqueued) => held.enqueued != enqueued,
                    None => held.enqueued >= moved,
                };
                let by = row.changed.as_ref().map_or("", |(_, by)| by.as_str());
                match records.any(came) {
                    true => {
                        change(write, row.seq, State::Moving, State::Requeued, Some((now, by)))?
                    }
                    false => change(write, row.seq, State::Moving, State::Failed, None)?,
                }
            }
            // It will be tried once more, because its record was not marked done.
            _ if records.any(|held| !held.done) => {
                let by = Some((now, "restart"));
                change(write, row.seq, State::Failed, State::Requeued, by)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Nobody can say any more what became of rows that were on their way back into the queue: they are taken to
/// have arrived, as nothing is to go out twice.
pub fn give_up(write: &Connection, now: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE failed SET state = 2, changed = ?, changed_by = 'unsettled' WHERE state = 1";
    write.execute(sql, [now as i64]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::failed::tests::{new, with};
    use crate::ledger::failed::{New, page, record};
    use crate::ledger::filter::Filter;
    use crate::queue::ClientMsgId;

    /// What a crash leaves, and what the queue holds then: the state that the row comes to.
    #[test]
    fn after_a_crash_the_queue_says_what_became_of_a_row() {
        let held = |enqueued, done| Held {
            id: ClientMsgId::new(b"1").unwrap(),
            openid: (*b"o").into(),
            enqueued,
            done,
        };
        let cases = [
            // Claimed, and nothing of it in the queue but the record that failed.
            (State::Moving, Some(9_000), vec![], State::Failed),
            (State::Moving, Some(9_000), vec![held(9_000, true)], State::Failed),
            // It stands there anew, or went out already.
            (
                State::Moving,
                Some(9_000),
                vec![held(9_000, true), held(12_000, false)],
                State::Requeued,
            ),
            (State::Moving, Some(9_000), vec![held(12_000, true)], State::Requeued),
            // Of an old list: only what came after the claim is new.
            (State::Moving, None, vec![held(9_000, true)], State::Failed),
            (State::Moving, None, vec![held(12_000, true)], State::Requeued),
            // Recorded, and not marked done: it goes out by itself.
            (State::Failed, Some(9_000), vec![held(9_000, false)], State::Requeued),
            (State::Failed, Some(9_000), vec![held(9_000, true)], State::Failed),
        ];
        for (state, enqueued, held, expected) in cases {
            with(|write| {
                record(write, New { enqueued, ..new("1", 1) })?;
                change(write, 1, State::Failed, state, Some((11_000, "root")))?;
                settle(write, &in_doubt(write)?, &held, 13_000)?;
                let row = &page(
                    write,
                    &Filter::default(),
                    &[State::Failed, State::Requeued],
                    0..=i64::MAX,
                    1,
                )?[0];
                assert_eq!(row.state, expected, "{state:?} {enqueued:?} {held:?}");
                Ok(())
            });
        }
    }
}
