//! The store thread: owns the one database connection. Reloads templates into the table, one for
//! each tset and all of them on USR1, and answers through the mailbox. Never touches the queue.

use crate::stats::Stats;
use crate::template::{Database, DatabaseError, Insert, Table};
use crate::traffic::Order;
use crate::traffic::batch::Reply;
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::wire::command;
use crossbeam_channel::Receiver;
use std::sync::Arc;

pub fn run(
    mut database: Box<dyn Database>,
    table: &Arc<Table>,
    table_size: usize,
    orders: &Receiver<Order>,
    mailbox: &Mailbox,
    stats: &Stats,
) {
    for order in orders {
        match order {
            Order::Tset { to, key } => {
                let (code, message) = tset(database.as_mut(), table, &key, stats);
                let close = code == command::FAILED;
                let reply = Reply { to, code, message: message.into(), close };
                mailbox.send(Mail::Replies { replies: vec![reply], batches: Vec::new() });
            }
            Order::ReloadAll => match load_all(database.as_mut(), table, table_size) {
                Ok(()) => stats.templates_loaded(),
                Err(error) => {
                    log::error!("templates not reloaded, the old ones stay: {error}");
                    stats.database.lock().trouble = Some(error.to_string());
                }
            },
        }
    }
}

fn tset(database: &mut dyn Database, table: &Table, key: &[u8], stats: &Stats) -> (u16, String) {
    let found = database.find(key);
    stats.database.lock().trouble = found.as_ref().err().map(DatabaseError::to_string);
    let row = match found {
        Ok(Some(row)) => row,
        Ok(None) => return (command::BAD_REQUEST, command::NO_TEMPLATE.into()),
        Err(error) => {
            log::error!("tset: {error}");
            return (command::FAILED, error.to_string());
        }
    };
    match table.insert(row.key.as_bytes(), &row.template) {
        Insert::Stored => {
            log::info!("template {} reloaded", row.key);
            (command::OK, String::new())
        }
        Insert::OverTableSize => (command::BAD_REQUEST, command::OVER_TABLE_SIZE.into()),
        Insert::OverTemplateSize => (command::BAD_REQUEST, command::OVER_TEMPLATE_SIZE.into()),
    }
}

/// Fills the table with what the database has, up to `table_size`.
pub fn load_all(
    database: &mut dyn Database,
    table: &Table,
    table_size: usize,
) -> Result<(), DatabaseError> {
    // One more than fit, so that somebody learns of those that do not.
    for left_out in table.replace_all(database.load(table_size.saturating_add(1))?) {
        log::warn!("{left_out}");
    }
    crate::notice!("{} templates loaded", table.len());
    Ok(())
}
