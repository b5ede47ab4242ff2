//! One row of `mega_task`, and the people of `mega_user`: the only file here that speaks SQL. Nothing is created, and no
//! text of mega's own is longer than its column. A connection that was lost is made again, once for each call.

use crate::config::{Dsn, Pdo};
use crate::template::{denies_access, mysql_server};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

/// Characters of the column `information`.
const INFORMATION: usize = 255;

/// What a row says of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Running,
    Finished,
    Failed,
    Interrupted,
    Paused,
    Ended,
}

impl Status {
    const ALL: [Status; 7] = [
        Status::Waiting,
        Status::Running,
        Status::Finished,
        Status::Failed,
        Status::Interrupted,
        Status::Paused,
        Status::Ended,
    ];

    fn of(number: i64) -> Option<Status> {
        Status::ALL.into_iter().find(|status| *status as i64 == number)
    }
}

/// The column `send_to_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// All of mega_user.
    Everybody,
    /// The file has uids of mega_user.
    Uids,
    /// The file has openids.
    Openids,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub file: String,
    pub to: To,
    pub status: Status,
    pub is_deleted: bool,
    pub pid: i32,
    pub counts: Counts,
    /// What the pages show.
    pub information: String,
}

impl Row {
    /// The last process that had the row was mega-task's: its first `file_index` lines are done. The demo writes its
    /// own pid.
    pub fn is_ours(&self) -> bool {
        let ours = mark(self.pid);
        let rest = self.information.strip_prefix(&ours);
        self.pid != 0 && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(COLON))
    }
}

/// Whose row it is, as `information` begins while people are left.
fn mark(pid: i32) -> String {
    format!("mega-task {pid}")
}

const COLON: char = '：';

/// How far a task has come, as its row counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub success: u64,
    pub fail: u64,
    /// So many lines from the file's beginning are done.
    pub file_index: u64,
}

pub struct Table {
    opts: OptsBuilder,
    /// Where the server is, for error messages.
    place: String,
    /// None from a failure until the next call.
    connection: Option<Conn>,
    task: String,
    user: String,
    /// The present time as the row's columns of time have it.
    now: &'static str,
}

impl Table {
    /// `prefix` is that of the names of both tables.
    pub fn open(dsn: &str, username: &str, password: &str, prefix: &str) -> Result<Table, String> {
        let dsn = crate::config::dsn(dsn).map_err(|why| format!("--mysql: the DSN {why}"))?;
        if !matches!(dsn, Dsn::Mysql { .. }) {
            return Err("--mysql: the DSN must begin with mysql:".into());
        }
        if !prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("--table-prefix: only letters, digits and _ may be in it".into());
        }
        let pdo = Pdo {
            dsn,
            username: username.to_owned(),
            password: password.to_owned(),
            table_prefix: prefix.to_owned(),
        };
        let (opts, place) = mysql_server(&pdo).map_err(|error| error.to_string())?;
        // What a column cannot hold is for the eye, and ends no task.
        let init = vec!["SET NAMES utf8mb4", "SET SESSION sql_mode = ''"];
        let mut table = Table {
            opts: opts.init(init),
            place,
            connection: None,
            task: format!("{prefix}mega_task"),
            user: format!("{prefix}mega_user"),
            now: "UNIX_TIMESTAMP()",
        };
        let sql = "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() \
                   AND table_name = ? AND column_name = 'updated_at'";
        let name = table.task.clone();
        let kind: Option<String> = table.run(|c| c.exec_first(sql, (&name,)))?;
        match kind.as_deref() {
            Some("datetime" | "timestamp") => table.now = "NOW()",
            Some(_) => {}
            None => {
                return Err(format!(
                    "{} has no table {name} with a column updated_at (--table-prefix names another)",
                    table.place
                ));
            }
        }
        Ok(table)
    }

    /// A row as people tell it from those of other databases.
    pub fn name_of(&self, id: u32) -> String {
        format!("row {id} of {} in {}", self.task, self.place)
    }

    pub fn find(&mut self, id: u32) -> Result<Row, String> {
        let sql = format!(
            "SELECT tmpl_key, file, send_to_type, status, is_delete, pid, total, success, fail, file_index, \
             information FROM {} WHERE task_id = ?",
            self.task
        );
        let row: Option<mysql::Row> = self.run(|c| c.exec_first(&sql, (id,)))?;
        let Some(row) = row else { return Err(format!("{} has no task {id}", self.task)) };
        let text = |index| row.get::<Option<String>, _>(index).flatten().unwrap_or_default();
        let number = |index| row.get::<Option<i64>, _>(index).flatten().unwrap_or_default();
        let count = |index| u64::try_from(number(index)).unwrap_or_default();
        let strange = |column, value| format!("task {id} of {} has {column} {value}", self.task);
        Ok(Row {
            key: text(0),
            file: text(1),
            to: match number(2) {
                0 => To::Everybody,
                1 => To::Uids,
                2 => To::Openids,
                other => return Err(strange("send_to_type", other)),
            },
            status: Status::of(number(3)).ok_or_else(|| strange("status", number(3)))?,
            is_deleted: number(4) != 0,
            pid: i32::try_from(number(5)).unwrap_or_default(),
            counts: Counts {
                total: count(6),
                success: count(7),
                fail: count(8),
                file_index: count(9),
            },
            information: text(10),
        })
    }

    /// Makes the row this process's, if it still is as it was found.
    pub fn begin(&mut self, id: u32, found: &Row, counts: &Counts) -> Result<(), String> {
        // A page that has never set a pid has left it empty.
        let sql = format!(
            "UPDATE {} SET status = 1, pid = ?, information = ?, total = ?, success = ?, fail = ?, \
             file_index = ?, updated_at = {} WHERE task_id = ? AND status = ? AND COALESCE(pid, 0) = ? \
             AND is_delete = 0",
            self.task, self.now
        );
        let Counts { total, success, fail, file_index } = *counts;
        let (pid, status) = (std::process::id(), found.status as u8);
        let said = information(Some(pid as i32), "");
        // Pages divide by it.
        let total = total.max(1);
        self.run(|c| {
            let values = (pid, &said, total, success, fail, file_index, id, status, found.pid);
            c.exec_drop(&sql, values)
        })?;
        match self.find(id)? {
            row if row.status == Status::Running && row.pid == pid as i32 => Ok(()),
            _ => Err(format!("task {id} was changed by somebody else just now; look at its row")),
        }
    }

    /// Saves how it goes while this process has the row.
    pub fn save(
        &mut self,
        id: u32,
        counts: &Counts,
        status: Status,
        said: &str,
    ) -> Result<(), String> {
        let sql = format!(
            "UPDATE {} SET status = ?, information = ?, success = ?, fail = ?, file_index = ?, \
             updated_at = {} WHERE task_id = ? AND pid = ? AND status = 1",
            self.task, self.now
        );
        let Counts { success, fail, file_index, .. } = *counts;
        let pid = std::process::id();
        let whose = (status != Status::Finished).then_some(pid as i32);
        let (status, said) = (status as u8, information(whose, said));
        self.run(|c| c.exec_drop(&sql, (status, &said, success, fail, file_index, id, pid)))
    }

    /// It came to this without a process that runs it: `found` is what the row was. `total`: the people, as far as they
    /// are known.
    pub fn settle(
        &mut self,
        id: u32,
        found: &Row,
        (status, said): (Status, &str),
        total: u64,
    ) -> Result<(), String> {
        let sql = format!(
            "UPDATE {} SET status = ?, information = ?, total = GREATEST(total, ?), updated_at = {} \
             WHERE task_id = ? AND status = ? AND COALESCE(pid, 0) = ?",
            self.task, self.now
        );
        let said = information(found.is_ours().then_some(found.pid), said);
        let (status, was, total) = (status as u8, found.status as u8, total.max(1));
        self.run(|c| c.exec_drop(&sql, (status, &said, total, id, was, found.pid)))
    }

    /// Tells the openid of everybody, in the order of uids.
    pub fn everybody(
        &mut self,
        mut tell: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let sql = format!("SELECT openid FROM {} WHERE openid <> '' ORDER BY uid", self.user);
        self.connect()?;
        let connection = self.connection.as_mut().expect("invariant: it is connected");
        let mut told = Ok(());
        let read = connection.query_iter(&sql).and_then(|rows| {
            for row in rows {
                let openid: Option<String> = row?.take(0);
                told = tell(&openid.unwrap_or_default());
                if told.is_err() {
                    break;
                }
            }
            Ok(())
        });
        read.map_err(|error| self.failed(&error))?;
        told
    }

    /// The openids of those uids that are known.
    pub fn openids(&mut self, uids: &[String]) -> Result<Vec<(String, String)>, String> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let places = vec!["?"; uids.len()].join(",");
        let sql = format!(
            "SELECT CAST(uid AS CHAR), openid FROM {} WHERE openid <> '' AND uid IN ({places})",
            self.user
        );
        self.run(|c| c.exec(&sql, uids.to_vec()))
    }

    fn connect(&mut self) -> Result<(), String> {
        if self.connection.is_none() {
            let made = Conn::new(self.opts.clone());
            self.connection = Some(made.map_err(|error| self.failed(&error))?);
        }
        Ok(())
    }

    /// Runs what may be run twice, and does so if the connection turns out to be dead.
    fn run<T>(&mut self, call: impl Fn(&mut Conn) -> mysql::Result<T>) -> Result<T, String> {
        let had = self.connection.is_some();
        self.connect()?;
        let connection = self.connection.as_mut().expect("invariant: it is connected");
        match call(connection) {
            Err(mysql::Error::MySqlError(error)) => {
                Err(self.failed(&mysql::Error::MySqlError(error)))
            }
            Err(error) => {
                self.connection = None;
                if had { self.run(call) } else { Err(self.failed(&error)) }
            }
            Ok(value) => Ok(value),
        }
    }

    fn failed(&self, error: &mysql::Error) -> String {
        let place = &self.place;
        match error {
            error if denies_access(error) => {
                format!("{place} denies access: check --user, its password and its rights")
            }
            mysql::Error::MySqlError(error) => {
                format!("{place}: {} (error {})", error.message, error.code)
            }
            error => {
                format!("cannot reach {place}: {error} (is it running, and is the DSN right?)")
            }
        }
    }
}

/// As much of a text as its column holds, behind the mark of the process whose row it is.
fn information(whose: Option<i32>, text: &str) -> String {
    let mark = whose.map(mark).unwrap_or_default();
    let colon = if mark.is_empty() || text.is_empty() { "" } else { "：" };
    format!("{mark}{colon}{text}").chars().take(INFORMATION).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The tables as installations have them, on the server of scripts/with-mariadb; None where MEGA_TEST_MYSQL=skip.
    pub fn table(prefix: &str, more: &str) -> Option<Table> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let dsn = variable("MEGA_TEST_MYSQL");
        if dsn == "skip" {
            return None;
        }
        assert!(
            !dsn.is_empty(),
            "run `scripts/with-mariadb cargo test`, or set MEGA_TEST_MYSQL=skip"
        );
        let (user, password) =
            (variable("MEGA_TEST_MYSQL_USER"), variable("MEGA_TEST_MYSQL_PASSWORD"));
        let pdo = Pdo {
            dsn: crate::config::dsn(&dsn).unwrap(),
            username: user.clone(),
            password: password.clone(),
            table_prefix: String::new(),
        };
        let mut connection = Conn::new(mysql_server(&pdo).unwrap().0).unwrap();
        let schema = include_str!("../../../tests/data/mega_task.sql");
        let schema = schema.replace("mega_task", &format!("{prefix}mega_task"));
        let schema = schema.replace("mega_user", &format!("{prefix}mega_user"));
        for sql in format!("{schema}{more}").split(';').filter(|sql| !sql.trim().is_empty()) {
            connection.query_drop(sql.replace("PREFIX_", prefix)).unwrap();
        }
        Some(Table::open(&dsn, &user, &password, prefix).unwrap())
    }

    const WAITING: &str = "INSERT INTO PREFIX_mega_task SET task_id = 5, tmpl_key = 'k', \
                           file = 'people.txt', send_to_type = 2, status = 0;";

    #[test]
    fn a_row_goes_from_waiting_to_its_end_and_only_its_process_writes_it() {
        let Some(mut table) = table("row_", WAITING) else { return };
        let found = table.find(5).unwrap();
        assert_eq!((found.status, found.to, found.pid), (Status::Waiting, To::Openids, 0));
        assert_eq!((found.key.as_str(), found.file.as_str()), ("k", "people.txt"));
        let mut counts = Counts { total: 10, ..Counts::default() };
        // Nobody runs it yet.
        table.save(5, &counts, Status::Finished, "").unwrap();
        assert_eq!(table.find(5).unwrap(), found);
        table.begin(5, &found, &counts).unwrap();
        let error = table.begin(5, &found, &counts).err();
        assert_eq!(error, None, "this process has it already");
        (counts.success, counts.fail, counts.file_index) = (7, 3, 10);
        let said = "话".repeat(300);
        table.save(5, &counts, Status::Interrupted, &said).unwrap();
        let row = table.find(5).unwrap();
        assert_eq!((row.status, row.counts), (Status::Interrupted, counts));
        let sql = "SELECT CHAR_LENGTH(information), updated_at > 1000000000 FROM row_mega_task";
        let kept: Option<(u32, bool)> = table.run(|c| c.query_first(sql)).unwrap();
        assert_eq!(kept, Some((255, true)));
        table.save(5, &counts, Status::Finished, "").unwrap();
        assert_eq!(table.find(5).unwrap().status, Status::Interrupted, "it had ended");
        assert!(table.find(6).unwrap_err().contains("has no task 6"));
    }

    #[test]
    fn a_row_that_somebody_else_took_is_not_taken() {
        let Some(mut table) = table("taken_", WAITING) else { return };
        let found = table.find(5).unwrap();
        table.run(|c| c.query_drop("UPDATE taken_mega_task SET status = 1, pid = 4711")).unwrap();
        let error = table.begin(5, &found, &Counts::default()).unwrap_err();
        assert!(error.contains("changed by somebody else"), "{error}");
        table.settle(5, &found, (Status::Failed, "x"), 0).unwrap();
        let row = table.find(5).unwrap();
        assert_eq!((row.status, row.pid), (Status::Running, 4711));
        table.settle(5, &row, (Status::Interrupted, "gone"), 0).unwrap();
        let row = table.find(5).unwrap();
        assert_eq!((row.status, row.information.as_str()), (Status::Interrupted, "gone"));
        assert_eq!(row.counts.total, 1, "pages divide by it");
    }

    #[test]
    fn a_row_says_that_it_is_ours_until_somebody_else_has_had_it() {
        let Some(mut table) = table("ours_", WAITING) else { return };
        let found = table.find(5).unwrap();
        assert!(!found.is_ours());
        let counts = Counts { file_index: 2, ..Counts::default() };
        table.begin(5, &found, &counts).unwrap();
        let row = table.find(5).unwrap();
        assert!(row.is_ours() && row.counts.total == 1, "{row:?}");
        table.save(5, &counts, Status::Paused, "").unwrap();
        assert!(table.find(5).unwrap().is_ours());
        let row = table.find(5).unwrap();
        table.settle(5, &row, (Status::Failed, "连接服务器失败"), 9).unwrap();
        let row = table.find(5).unwrap();
        assert!(row.is_ours() && row.information.ends_with("：连接服务器失败"), "{row:?}");
        assert_eq!(row.counts.total, 9);
        table.run(|c| c.query_drop("UPDATE ours_mega_task SET pid = 1")).unwrap();
        assert!(!table.find(5).unwrap().is_ours());
    }

    #[test]
    fn times_are_written_as_their_column_has_them_and_a_lost_connection_is_made_again() {
        let more = format!("ALTER TABLE PREFIX_mega_task MODIFY updated_at DATETIME;{WAITING}");
        let Some(mut table) = table("time_", &more) else { return };
        let found = table.find(5).unwrap();
        let id = table.connection.as_ref().unwrap().connection_id();
        let mut other = Conn::new(table.opts.clone()).unwrap();
        other.query_drop(format!("KILL {id}")).unwrap();
        table.begin(5, &found, &Counts::default()).unwrap();
        let sql = "SELECT ABS(TIMESTAMPDIFF(SECOND, updated_at, NOW())) < 60 FROM time_mega_task";
        assert_eq!(other.query_first(sql).unwrap(), Some(true));
        table.opts = table.opts.clone().tcp_port(1);
        table.connection = None;
        assert!(table.find(5).unwrap_err().starts_with("cannot reach MySQL database"));
    }

    #[test]
    fn people_are_found_by_their_uids_or_all_of_them() {
        let users =
            "INSERT INTO PREFIX_mega_user (uid, openid) VALUES (3, 'o3'), (1, 'o1'), (2, '');";
        let Some(mut table) = table("user_", users) else { return };
        let mut all = Vec::new();
        let mut tell = |openid: &str| {
            all.push(openid.to_owned());
            Ok(())
        };
        table.everybody(&mut tell).unwrap();
        assert_eq!(all, ["o1", "o3"]);
        let uids = ["3", "2", "9", "x"].map(str::to_owned);
        assert_eq!(table.openids(&uids).unwrap(), [("3".to_owned(), "o3".to_owned())]);
        assert_eq!(table.openids(&[]).unwrap(), []);
    }

    #[test]
    fn no_error_has_the_password() {
        let Some(table) = table("deny_", "") else { return };
        drop(table);
        let dsn = std::env::var("MEGA_TEST_MYSQL").unwrap();
        let error = Table::open(&dsn, "nobody77", "wrong88", "").err().unwrap();
        assert!(error.contains("denies access") && !error.contains("wrong88"), "{error}");
        let error = Table::open(&dsn, "a", "b", "x`y").err().unwrap();
        assert!(error.contains("--table-prefix"), "{error}");
        let error = Table::open("sqlite:x.db", "a", "b", "").err().unwrap();
        assert!(error.contains("must begin with mysql:"), "{error}");
    }
}
