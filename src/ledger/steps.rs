//! What one step of a requeue or of a dismissal does to the rows (see `order`). Knows no threads.

use super::database::Database;
use super::failed::{self, New, Row, State};
use super::filter::Filter;
use super::order::{self, Answer, Request};
use crate::clock::now_ms;
use crate::traffic::batch::ReplyTo;
use crate::traffic::ledger::{Placed, Stopped};

/// A step of a requeue that is under way.
pub struct Moving {
    /// Who is to be answered still.
    pub to: Option<ReplyTo>,
    pub by: String,
    pub rows: Vec<Row>,
    pub answer: Answer,
    pub placed: Option<Placed>,
}

impl Moving {
    /// What the spool has placed is requeued, and the rest is as it was.
    pub fn confirm(&self, write: &rusqlite::Connection, now: u64) -> rusqlite::Result<()> {
        let Some(placed) = &self.placed else { return Ok(()) };
        for (index, row) in self.rows.iter().enumerate() {
            let (to, changed) = match index < placed.count {
                true => (State::Requeued, Some((now, self.by.as_str()))),
                false => (State::Failed, None),
            };
            failed::change(write, row.seq, State::Moving, to, changed)?;
        }
        Ok(())
    }

    /// What whoever asked is told.
    pub fn told(self) -> Answer {
        let placed = self.placed.unwrap_or_default();
        let mut answer = Answer { count: placed.count, ..self.answer };
        let Some(stopped) = placed.stopped else { return answer };
        answer.done = false;
        // The next step begins with the one that found no room, or behind the one that never will.
        let at = self.rows.get(placed.count).map_or(answer.after, |row| row.seq);
        match stopped {
            Stopped::TooLarge => (answer.after, answer.too_large) = (at, 1),
            Stopped::NotNow(why) => (answer.after, answer.stopped) = (at - 1, Some(why)),
        }
        answer
    }
}

/// The first rows that are meant, claimed durably, and the answer as far as it is known.
pub fn claim(database: &mut Database, request: &Request) -> Result<(Vec<Row>, Answer), String> {
    let now = now_ms();
    database.write(|write| {
        let bound = request.bound.map_or_else(|| failed::newest(write), Ok)?;
        let limit = request.limit.min(order::STEP);
        let mut rows = match &request.lines {
            Some(lines) => import(write, lines)?,
            None => {
                let seqs = request.after.saturating_add(1)..=bound;
                failed::page(write, &request.filter, &[State::Failed], seqs, limit)?
            }
        };
        let mut bytes = 0;
        let fits = rows.iter().take_while(|row| {
            bytes += row.data.len();
            bytes <= order::STEP_BYTES
        });
        let fits = fits.count().max(1);
        let cut = fits < rows.len() && request.lines.is_none();
        if cut {
            rows.truncate(fits);
        }
        for row in &rows {
            let by = Some((now, request.by.as_str()));
            failed::change(write, row.seq, State::Failed, State::Moving, by)?;
        }
        let done = request.lines.is_some() || (!cut && rows.len() < limit);
        let after = rows.last().map_or(request.after, |row| row.seq);
        let answer = Answer { count: 0, after, bound, done, too_large: 0, stopped: None };
        Ok((rows, answer))
    })
}

/// The rows of an old list that are failed, whether they were known or not.
fn import(write: &rusqlite::Connection, lines: &[order::Line]) -> rusqlite::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in lines {
        failed::import(
            write,
            New {
                id: &line.client_msg_id,
                openid: line.openid.as_bytes(),
                key: line.key.as_bytes(),
                data: line.data.as_ref().map_or("null", |data| data.get()).as_bytes(),
                time: line.time,
                enqueued: None,
                attempts: line.attempts,
                class: order::OLD_LIST,
                errcode: line.errcode,
                errmsg: &line.errmsg,
            },
        )?;
        let filter = Filter {
            id: Some(line.client_msg_id.clone()),
            openid: Some(line.openid.clone()),
            ..Filter::default()
        };
        let known = failed::page(write, &filter, &[State::Failed], 0..=i64::MAX, 1)?;
        // Two lines of one message are one message.
        let twice = |row: &Row| rows.iter().any(|other: &Row| other.seq == row.seq);
        let known: Vec<Row> = known.into_iter().filter(|row| !twice(row)).collect();
        rows.extend(known);
    }
    Ok(rows)
}

/// One step of a dismissal; also for the command line, when no daemon runs.
pub fn dismiss(database: &mut Database, request: &Request) -> Result<Answer, String> {
    let now = now_ms();
    database.write(|write| {
        let bound = request.bound.map_or_else(|| failed::newest(write), Ok)?;
        let limit = request.limit.min(order::STEP);
        let seqs = request.after.saturating_add(1)..=bound;
        let by = (now, request.by.as_str());
        let (count, last) = failed::dismiss(write, &request.filter, seqs, limit, by)?;
        let after = last.unwrap_or(request.after);
        Ok(Answer { count, after, bound, done: count < limit, too_large: 0, stopped: None })
    })
}
