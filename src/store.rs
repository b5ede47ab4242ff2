//! The store thread: owns the one database connection. Reloads templates into the table, one for
//! each tset and all of them on USR1, and answers through the mailbox. Never touches the queue.

use crate::template::{Change, Database, DatabaseError, Insert, Loaded, Table};
use crate::traffic::Order;
use crate::traffic::batch::Reply;
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::wire::command;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

pub fn run(
    mut database: Box<dyn Database>,
    table: &Arc<Table>,
    table_size: usize,
    orders: &Receiver<Order>,
    mailbox: &Mailbox,
    history: &Sender<Vec<Change>>,
) {
    for order in orders {
        match order {
            Order::Tset { to, key } => {
                let (code, message) = tset(database.as_mut(), table, &key, history);
                let close = code == command::FAILED;
                let reply = Reply { to, code, message: message.into(), close };
                mailbox.send(Mail::Replies { replies: vec![reply], batches: Vec::new() });
            }
            Order::ReloadAll => match load_all(database.as_mut(), table, table_size) {
                Ok(changes) => keep(history, changes),
                Err(error) => {
                    log::error!("templates not reloaded, the old ones stay: {error}");
                }
            },
        }
    }
}

fn tset(
    database: &mut dyn Database,
    table: &Table,
    key: &[u8],
    history: &Sender<Vec<Change>>,
) -> (u16, String) {
    let row = match database.find(key) {
        Ok(Some(row)) => row,
        Ok(None) => return (command::BAD_REQUEST, command::NO_TEMPLATE.into()),
        Err(error) => {
            log::error!("tset: {error}");
            return (command::FAILED, error.to_string());
        }
    };
    let (insert, loaded) = table.reload(&row);
    match insert {
        Insert::Stored => {
            log::info!("template {:?} reloaded", row.key);
            keep(history, tell(loaded));
            (command::OK, String::new())
        }
        Insert::OverTableSize => (command::BAD_REQUEST, command::OVER_TABLE_SIZE.into()),
        Insert::OverTemplateSize => (command::BAD_REQUEST, command::OVER_TEMPLATE_SIZE.into()),
    }
}

/// Fills the table with what the database has, up to `table_size`, and says what has changed.
pub fn load_all(
    database: &mut dyn Database,
    table: &Table,
    table_size: usize,
) -> Result<Vec<Change>, DatabaseError> {
    // One more than fit, so that somebody learns of those that do not.
    let loaded = table.replace_all(database.load(table_size.saturating_add(1))?);
    let changes = tell(loaded);
    crate::notice!("{} templates loaded", table.len());
    Ok(changes)
}

fn tell(loaded: Loaded) -> Vec<Change> {
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    loaded.changes
}

/// Hands changes to the ledger, which may be too busy for them: no message waits for a history.
fn keep(history: &Sender<Vec<Change>>, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    if let Err(error) = history.try_send(changes) {
        let count = error.into_inner().len();
        log::warn!("the ledger is busy: {count} changed templates are not kept in the history");
    }
}
