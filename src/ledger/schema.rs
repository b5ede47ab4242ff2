//! The tables of the ledger's file, and its version. Pure SQL.

use rusqlite::{Connection, TransactionBehavior};

pub const VERSION: i64 = 1;

/// A failed message that fails again takes a new `seq`, so that whoever walks the table by `seq` up
/// to the highest there was meets each once. WeChat knows a message by its openid and client_msg_id
/// together, and so does this table. Texts that are not UTF-8 are blobs.
const TABLES: &str = "
CREATE TABLE failed (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL,
    openid     TEXT NOT NULL,
    key        TEXT NOT NULL,
    data       TEXT NOT NULL,
    time       INTEGER NOT NULL, -- Unix ms, as every time here
    enqueued   INTEGER,
    attempts   INTEGER NOT NULL,
    class      TEXT NOT NULL,
    errcode    INTEGER,
    errmsg     TEXT NOT NULL,
    state      INTEGER NOT NULL DEFAULT 0, -- 0 failed, 1 being requeued, 2 requeued, 3 dismissed
    changed    INTEGER,
    changed_by TEXT,
    UNIQUE (openid, id)
);
CREATE INDEX failed_state ON failed (state, seq);
CREATE INDEX failed_time ON failed (time);
CREATE INDEX failed_id ON failed (id);
-- Up to this seq, the records of failed messages are known to be marked done.
CREATE TABLE settled (seq INTEGER NOT NULL);
INSERT INTO settled VALUES (0);
";

/// Came later, and is no new version: to an older mega it is a table that nobody asks for.
const HISTORY: &str = "
CREATE TABLE IF NOT EXISTS template_history (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    key   TEXT NOT NULL,
    time  INTEGER, -- NULL: nobody knows
    who   TEXT NOT NULL,
    what  TEXT NOT NULL,
    title TEXT NOT NULL,
    text  TEXT -- NULL: the template was removed
);
CREATE INDEX IF NOT EXISTS template_history_key ON template_history (key, seq);
";

/// What a file turned out to be.
pub enum Prepared {
    Ready,
    Newer(i64),
    Foreign,
}

pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes a new file a ledger, and sees that every transaction is durable.
pub fn prepare(connection: &mut Connection) -> rusqlite::Result<Prepared> {
    let found = match version(connection)? {
        VERSION => Prepared::Ready,
        0 if connection.table_exists(None, "sqlite_sequence")? || !is_empty(connection)? => {
            Prepared::Foreign
        }
        0 => {
            // Space is given back as rows end; only a file without tables can be told so.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            Prepared::Ready
        }
        version => Prepared::Newer(version),
    };
    let Prepared::Ready = found else { return Ok(found) };
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have made it one since.
    if version(&write)? == 0 {
        write.execute_batch(TABLES)?;
        write.pragma_update(None, "user_version", VERSION)?;
    }
    write.execute_batch(HISTORY)?;
    write.commit()?;
    Ok(found)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
}
