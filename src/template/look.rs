//! A look at the template database from outside: changes nothing and creates nothing.

use super::mysql::Mysql;
use super::row::{Database, DatabaseError, Row};
use super::sqlite;
use crate::config::{Dsn, Pdo};

pub struct Look {
    pub rows: Vec<Row>,
    /// Columns that cannot hold every character, and their character sets.
    pub narrow: Vec<String>,
}

/// The first `limit` rows; none where the database is yet to be created.
pub fn look(pdo: &Pdo, limit: usize) -> Result<Look, DatabaseError> {
    match &pdo.dsn {
        Dsn::Sqlite(path) => {
            let rows = sqlite::look(path, &pdo.table_prefix, limit)?;
            Ok(Look { rows, narrow: Vec::new() })
        }
        Dsn::Mysql { .. } => {
            let mut database = Mysql::open(pdo)?;
            Ok(Look { rows: database.load(limit)?, narrow: database.narrow()? })
        }
    }
}
