//! The template database in MySQL or MariaDB: the original's table, never created here. Runs on the database thread and in
//! commands, over one connection that is made again, once for each call, when the server has gone away.
//! It waits no longer than 5 s for a connection or an answer, and lets the server cut no text.

use std::io;
use std::time::Duration;

use mysql::prelude::{FromValue, Queryable};
use mysql::{Conn, DriverError, OptsBuilder, Params};

use super::row::{
    Columns, Database, DatabaseError, Fault, Reading, Row, Statements, sql_limit, table_names,
};
use crate::config::{Dsn, Pdo};

const TIMEOUT: Duration = Duration::from_secs(5);
/// ER_DBACCESS_DENIED, ER_ACCESS_DENIED, ER_TABLEACCESS_DENIED, ER_COLUMNACCESS_DENIED, ER_SPECIFIC_ACCESS_DENIED,
/// ER_ACCESS_DENIED_NO_PASSWORD: their messages name the user.
const DENIED: [u16; 6] = [1044, 1045, 1142, 1143, 1227, 1698];
/// ER_SERVER_SHUTDOWN, ER_ABORTING_CONNECTION, ER_CONNECTION_KILLED, ER_CLIENT_INTERACTION_TIMEOUT: the connection's last words.
const GONE: [u16; 4] = [1053, 1152, 1927, 4031];
/// ER_CANT_AGGREGATE_2COLLATIONS, ER_INVALID_CHARACTER_STRING, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD, ER_CANNOT_CONVERT_STRING: the
/// key has characters that the column's character set cannot hold, so no row has it.
const NOT_A_KEY: [u16; 4] = [1267, 1300, 1366, 3854];

/// ER_CON_COUNT_ERROR, ER_OUT_OF_RESOURCES, ER_HOST_IS_BLOCKED, ER_TOO_MANY_USER_CONNECTIONS, ER_LOCK_WAIT_TIMEOUT,
/// ER_USER_LIMIT_REACHED, ER_QUERY_INTERRUPTED: another time it would have answered otherwise.
const BUSY: [u16; 7] = [1040, 1041, 1129, 1203, 1205, 1226, 1317];

pub struct Mysql {
    opts: OptsBuilder,
    /// Where the server is, for error messages.
    place: String,
    /// None from a failure until the next call.
    connection: Option<Conn>,
    table: String,
    statements: Statements,
}

impl Mysql {
    pub fn open(pdo: &Pdo) -> Result<Mysql, DatabaseError> {
        let (opts, place) = server(pdo)?;
        let mut database = Mysql {
            opts,
            place,
            connection: None,
            table: String::new(),
            statements: Statements::new(""),
        };
        let names = table_names(&pdo.table_prefix);
        database.table = database.find_table(&names)?;
        database.statements = Statements::new(&database.table);
        Ok(database)
    }

    fn find_table(&mut self, names: &[String]) -> Result<String, DatabaseError> {
        // The server's spelling is the one to use: it may keep all table names in lower case.
        let sql = "SELECT table_name FROM information_schema.tables \
                   WHERE table_schema = DATABASE() AND table_name = ?";
        for name in names {
            let found: Option<String> = self.run(|c| c.exec_first(sql, (name,)))?;
            if let Some(name) = found {
                return Ok(name);
            }
        }
        let place = &self.place;
        let names = names.join(" nor ");
        let why = format_args!(
            "{place} has no template table: no {names} (create it with scripts/schema.sql, or correct [pdo] table_prefix)"
        );
        Err(DatabaseError::new(Fault::Wrong, why))
    }

    /// Columns of text that cannot hold every character, each with its character set.
    pub fn narrow(&mut self) -> Result<Vec<String>, DatabaseError> {
        let sql = "SELECT CONCAT(column_name, ' ', character_set_name) FROM information_schema.columns \
                   WHERE table_schema = DATABASE() AND table_name = ? \
                   AND column_name IN ('tmpl_key', 'title', 'template') AND character_set_name <> 'utf8mb4'";
        let table = self.table.clone();
        self.run(|c| c.exec(sql, (&table,)))
    }

    /// Runs a statement that may be run twice, and does so if the connection turns out to be dead.
    fn run<T>(&mut self, call: impl Fn(&mut Conn) -> mysql::Result<T>) -> Result<T, DatabaseError> {
        if let Some(connection) = &mut self.connection {
            match call(connection) {
                Err(e) if is_gone(&e) => self.connection = None,
                result => return result.map_err(|e| self.failed(&e)),
            }
        }
        let mut connection = Conn::new(self.opts.clone()).map_err(|e| self.failed(&e))?;
        let result = call(&mut connection);
        if !result.as_ref().is_err_and(is_gone) {
            self.connection = Some(connection);
        }
        result.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &mysql::Error) -> DatabaseError {
        let (place, why) = (&self.place, words(error));
        match error {
            mysql::Error::MySqlError(e) if denies_access(error) => DatabaseError::new(
                Fault::Wrong,
                format_args!(
                    "{place} denies access (error {}): check [pdo] username and password, and the user's rights",
                    e.code
                ),
            ),
            mysql::Error::MySqlError(e) => {
                let later = GONE.contains(&e.code) || BUSY.contains(&e.code);
                let fault = if later { Fault::Away } else { Fault::Wrong };
                DatabaseError::new(fault, format_args!("{place}: {why} (error {})", e.code))
            }
            mysql::Error::DriverError(e) if refuses_to_talk(e) => {
                DatabaseError::new(Fault::Wrong, format_args!("{place}: {why}"))
            }
            e if e.is_connectivity_error() => DatabaseError::new(
                Fault::Away,
                format_args!(
                    "cannot reach {place}: {why} (is it running, and is [pdo] dsn right?)"
                ),
            ),
            _ => DatabaseError::new(Fault::Wrong, format_args!("{place}: {why}")),
        }
    }
}

/// The server was reached, and would have to be set up otherwise.
fn refuses_to_talk(error: &DriverError) -> bool {
    matches!(
        error,
        DriverError::UnsupportedProtocol(_)
            | DriverError::Protocol41NotSet
            | DriverError::TlsNotSupported
            | DriverError::UnknownAuthPlugin(_)
            | DriverError::OldMysqlPasswordDisabled
            | DriverError::CleartextPluginDisabled
    )
}

/// What is inside: the library's own words for an error are made for its programmers.
fn words(error: &mysql::Error) -> String {
    use mysql::Error;
    match error {
        Error::IoError(why) => io_words(why),
        Error::CodecError(why) => {
            let inside = std::error::Error::source(why).and_then(|inside| inside.downcast_ref());
            inside.map_or_else(|| why.to_string(), io_words)
        }
        Error::MySqlError(why) => why.message.clone(),
        Error::DriverError(DriverError::ConnectTimeout | DriverError::Timeout) => {
            format!("no answer within {} s", TIMEOUT.as_secs())
        }
        Error::DriverError(why) => why.to_string(),
        Error::UrlError(why) => why.to_string(),
        other => other.to_string(),
    }
}

fn io_words(why: &io::Error) -> String {
    match why.kind() {
        // What a read says that has waited as long as it may.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", TIMEOUT.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it closes the connection".into(),
        _ => why.to_string(),
    }
}

impl Database for Mysql {
    fn load(&mut self, limit: usize) -> Result<Vec<Row>, DatabaseError> {
        let sql = self.statements.load.clone();
        let rows: Vec<mysql::Row> = self.run(|c| c.exec(&sql, (sql_limit(limit),)))?;
        let mut reading = Reading::of(&self.table);
        Ok(rows.into_iter().filter_map(|row| reading.take(columns(row))).collect())
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Row>, DatabaseError> {
        let Ok(key) = std::str::from_utf8(key) else {
            return Ok(None);
        };
        let sql = self.statements.find.clone();
        let row = self.run(|c| -> mysql::Result<Option<mysql::Row>> {
            c.exec_first(&sql, (key,)).or_else(|e| no_such_key(e, None))
        })?;
        Ok(row.and_then(|row| Reading::of(&self.table).take(columns(row))))
    }

    fn put(&mut self, row: &Row) -> Result<(), DatabaseError> {
        let sql = format!(
            "INSERT INTO {} (tmpl_key, title, template, created_at, updated_at) VALUES (?, ?, ?, ?, ?) \
             ON DUPLICATE KEY UPDATE title = VALUES(title), template = VALUES(template), \
             updated_at = VALUES(updated_at)",
            self.table
        );
        let values =
            Params::from((&row.key, &row.title, &row.template, row.created_at, row.updated_at));
        self.run(|c| c.exec_drop(&sql, values.clone()))
    }

    fn remove(&mut self, key: &str) -> Result<bool, DatabaseError> {
        let sql = self.statements.remove.clone();
        self.run(|c| match c.exec_drop(&sql, (key,)) {
            Ok(()) => Ok(c.affected_rows() > 0),
            Err(e) => no_such_key(e, false),
        })
    }
}

/// Whether it is about who may do what: the message of such an error names the user.
pub fn denies_access(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::MySqlError(e) if DENIED.contains(&e.code))
}

/// How the server is reached, and what it is called in messages.
pub fn server(pdo: &Pdo) -> Result<(OptsBuilder, String), DatabaseError> {
    let Dsn::Mysql { host, port, dbname, unix_socket, .. } = &pdo.dsn else {
        return Err(DatabaseError::new(Fault::Wrong, "[pdo] dsn does not name a MySQL database"));
    };
    let opts = OptsBuilder::new()
        .ip_or_hostname(Some(host))
        .tcp_port(*port)
        .db_name(Some(dbname))
        .user(Some(&pdo.username))
        .pass(Some(&pdo.password))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(TIMEOUT))
        .read_timeout(Some(TIMEOUT))
        .write_timeout(Some(TIMEOUT))
        // A server may ignore the client's character set until told, and cuts long text unless it is strict.
        .init(vec![
            "SET NAMES utf8mb4",
            "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
        ]);
    Ok(match unix_socket {
        Some(path) => {
            let path = path.display().to_string();
            let place = format!("MySQL database {dbname} at {path}");
            (opts.socket(Some(path)), place)
        }
        None => (opts, format!("MySQL database {dbname} at {host}:{port}")),
    })
}

/// The answer for a key that no row can have, or else the error.
fn no_such_key<T>(error: mysql::Error, none: T) -> mysql::Result<T> {
    match error {
        mysql::Error::MySqlError(e) if NOT_A_KEY.contains(&e.code) => Ok(none),
        e => Err(e),
    }
}

fn is_gone(error: &mysql::Error) -> bool {
    match error {
        mysql::Error::MySqlError(e) => GONE.contains(&e.code),
        e => e.is_connectivity_error(),
    }
}

fn columns(mut row: mysql::Row) -> Columns {
    Columns {
        key: column(&mut row, 0),
        title: column(&mut row, 1),
        template: column(&mut row, 2),
        created_at: column(&mut row, 3),
        updated_at: column(&mut row, 4),
    }
}

fn column<T: FromValue>(row: &mut mysql::Row, index: usize) -> Option<T> {
    row.take_opt(index)?.ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The server of scripts/with-mariadb; None where MEGA_TEST_MYSQL=skip.
    pub fn test_pdo(prefix: &str) -> Option<Pdo> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let dsn = variable("MEGA_TEST_MYSQL");
        if dsn == "skip" {
            return None;
        }
        let parts = dsn.strip_prefix("mysql:").expect(
            "MEGA_TEST_MYSQL is not set: run `scripts/with-mariadb cargo test`, or set it to `skip`",
        );
        let part = |name: &str| {
            let part = parts.split(';').find_map(|part| part.strip_prefix(name));
            part.unwrap().to_owned()
        };
        Some(Pdo {
            dsn: Dsn::Mysql {
                host: part("host="),
                port: part("port=").parse().unwrap(),
                dbname: part("dbname="),
                unix_socket: None,
                charset: "utf8".to_owned(),
            },
            username: variable("MEGA_TEST_MYSQL_USER"),
            password: variable("MEGA_TEST_MYSQL_PASSWORD"),
            table_prefix: prefix.to_owned(),
        })
    }

    /// Runs one statement on a connection of its own.
    pub fn execute(pdo: &Pdo, sql: &str) {
        let mut connection = Conn::new(server(pdo).unwrap().0).unwrap();
        connection.query_drop(sql).unwrap();
    }

    /// Makes the operator's table, as scripts/schema.sql does.
    pub fn create_table(pdo: &Pdo, table: &str) {
        let schema = include_str!("../../scripts/schema.sql");
        execute(pdo, &format!("DROP TABLE IF EXISTS {table}"));
        execute(pdo, &schema.replace("mega_wechat_template", table));
    }

    fn row(key: &str) -> Row {
        Row {
            key: key.to_owned(),
            title: String::new(),
            template: "{}".to_owned(),
            created_at: 1,
            updated_at: 2,
        }
    }

    #[test]
    fn a_connection_that_the_server_closed_is_made_again() {
        let Some(pdo) = test_pdo("gone_") else { return };
        create_table(&pdo, "gone_wechat_template");
        let mut database = Mysql::open(&pdo).unwrap();
        database.put(&row("k")).unwrap();
        let id = database.connection.as_ref().unwrap().connection_id();
        execute(&pdo, &format!("KILL {id}"));
        assert_eq!(database.find(b"k").unwrap(), Some(row("k")));
        assert_ne!(database.connection.as_ref().unwrap().connection_id(), id);
        let id = database.connection.as_ref().unwrap().connection_id();
        execute(&pdo, &format!("KILL {id}"));
        database.put(&row("l")).unwrap();
        assert_eq!(database.list().unwrap().len(), 2);
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_asked_again_by_the_next_call() {
        let Some(pdo) = test_pdo("back_") else { return };
        create_table(&pdo, "back_wechat_template");
        let mut database = Mysql::open(&pdo).unwrap();
        let there = database.opts.clone();
        database.opts = there.clone().tcp_port(1);
        database.connection = None;
        let error = database.find(b"k").unwrap_err().to_string();
        assert!(error.starts_with("cannot reach MySQL database mega at 127.0.0.1:"), "{error}");
        database.opts = there;
        assert_eq!(database.find(b"k").unwrap(), None);
    }

    #[test]
    fn an_error_names_neither_user_nor_password() {
        let Some(mut pdo) = test_pdo("secret_") else {
            return;
        };
        pdo.username = "nobody77".to_owned();
        pdo.password = "wrong88".to_owned();
        let error = Mysql::open(&pdo).err().unwrap().to_string();
        assert!(error.contains("denies access (error 1045): check [pdo] username"), "{error}");
        assert!(!error.contains("nobody77") && !error.contains("wrong88"), "{error}");
    }

    #[test]
    fn a_missing_table_is_an_error_that_names_both_and_the_script() {
        let Some(pdo) = test_pdo("none_") else { return };
        let error = Mysql::open(&pdo).err().unwrap().to_string();
        let names = "no none_wechat_template nor none_mega_wechat_template";
        assert!(error.contains(names), "{error}");
        assert!(error.contains("scripts/schema.sql"), "{error}");
    }

    #[test]
    fn a_key_that_the_tables_character_set_cannot_hold_is_not_there() {
        for (charset, keys) in
            [("utf8mb3", &["😀"][..]), ("latin1", &["😀", "购买"]), ("ascii", &["😀", "购买", "é"])]
        {
            let Some(pdo) = test_pdo(&format!("{charset}_")) else { return };
            let table = format!("{charset}_wechat_template");
            create_table(&pdo, &table);
            execute(&pdo, &format!("ALTER TABLE {table} CONVERT TO CHARACTER SET {charset}"));
            let mut database = Mysql::open(&pdo).unwrap();
            database.put(&row("k")).unwrap();
            for key in keys {
                assert_eq!(database.find(key.as_bytes()), Ok(None), "{key} in {charset}");
                assert_eq!(database.remove(key), Ok(false), "{key} in {charset}");
                database.put(&row(key)).unwrap_err();
            }
            assert_eq!(database.find(b"k"), Ok(Some(row("k"))), "the connection goes on");
        }
        let Some(pdo) = test_pdo("utf8mb3_") else { return };
        let mut database = Mysql::open(&pdo).unwrap();
        database.put(&row("购买")).unwrap();
        assert_eq!(database.find("购买".as_bytes()), Ok(Some(row("购买"))));
    }

    #[test]
    fn text_that_a_column_cannot_hold_is_refused_not_cut() {
        let Some(pdo) = test_pdo("long_") else { return };
        create_table(&pdo, "long_wechat_template");
        let mut database = Mysql::open(&pdo).unwrap();
        let mut long = row("k");
        long.template = "x".repeat(70_000);
        let error = database.put(&long).unwrap_err().to_string();
        assert!(error.contains("Data too long"), "{error}");
        assert_eq!(database.find(b"k").unwrap(), None);
    }
}
