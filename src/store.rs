//! The store thread: owns the one database connection. Reloads templates into the table, one for
//! each tset and all of them on USR1, and answers through the mailbox. Never touches the queue.

use crate::reactor::mailbox::{Mail, Mailbox};
use crate::reactor::{Reply, ReplyTo};
use crate::template::{Insert, Store, StoreError, Table};
use crate::wire::command;
use crossbeam_channel::Receiver;
use std::sync::Arc;

/// Orders that may wait; beyond that the reactor stops reading the clients that send them.
pub const ORDERS: usize = 1024;

pub enum Order {
    Tset { to: ReplyTo, key: Box<[u8]> },
    ReloadAll,
}

pub fn run(
    mut store: Box<dyn Store>,
    table: &Arc<Table>,
    table_size: usize,
    orders: &Receiver<Order>,
    mailbox: &Mailbox,
) {
    for order in orders {
        match order {
            Order::Tset { to, key } => {
                let (code, message) = tset(store.as_mut(), table, &key);
                let close = code == command::FAILED;
                let reply = Reply { to, code, message: message.into(), close };
                mailbox.send(Mail::Replies { replies: vec![reply], batches: Vec::new() });
            }
            Order::ReloadAll => {
                if let Err(error) = load_all(store.as_mut(), table, table_size) {
                    log::error!("templates not reloaded, the old ones stay: {error}");
                }
            }
        }
    }
}

fn tset(store: &mut dyn Store, table: &Table, key: &[u8]) -> (u16, String) {
    let row = match store.find(key) {
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
pub fn load_all(store: &mut dyn Store, table: &Table, table_size: usize) -> Result<(), StoreError> {
    // One more than fit, so that somebody learns of those that do not.
    for left_out in table.replace_all(store.load(table_size.saturating_add(1))?) {
        log::warn!("{left_out}");
    }
    crate::notice!("{} templates loaded", table.len());
    Ok(())
}
