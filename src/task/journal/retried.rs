//! Which of those that failed were given to a task that tries again, so that none is given to two. What is written here
//! is durable before the other task can begin; of one that never came to be, its people are given again.

use super::{Failure, Journal, Told, failed, failures};
use rusqlite::TransactionBehavior;

/// A task that was removed has this name: what became of its people is not known here any more.
const REMOVED: &str = "";

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS retried (person INTEGER PRIMARY KEY, task TEXT NOT NULL)";

/// Whom somebody wants to retry.
pub struct Pick<'a> {
    /// Those that failed with one of these codes; None: all that failed.
    pub codes: Option<&'a [i64]>,
    /// Those of whom nobody knows.
    pub unknown: bool,
}

impl Pick<'_> {
    fn sql(&self) -> String {
        let failed = match self.codes {
            None => "status = 'failed'".into(),
            Some(codes) => {
                let codes: Vec<String> = codes.iter().map(i64::to_string).collect();
                format!("status = 'failed' AND errcode IN ({})", codes.join(","))
            }
        };
        let unknown = if self.unknown { "status = 'unknown'" } else { "0" };
        format!("({failed} OR {unknown})")
    }
}

impl Journal {
    /// The tasks that people were given to.
    pub fn retries(&self) -> Told<Vec<String>> {
        let sql = "SELECT DISTINCT task FROM retried WHERE task <> '' ORDER BY task";
        self.names(sql)
    }

    /// The tasks that have those whom `pick` means; an empty name: one that was removed.
    pub fn who_has(&self, pick: &Pick) -> Told<Vec<String>> {
        let pick = pick.sql();
        self.names(&format!(
            "SELECT DISTINCT task FROM retried JOIN failure USING (person) WHERE {pick} ORDER BY task"
        ))
    }

    fn names(&self, sql: &str) -> Told<Vec<String>> {
        self.connection.execute_batch(TABLE).map_err(failed)?;
        let mut select = self.connection.prepare(sql).map_err(failed)?;
        let names = select.query_map([], |row| row.get(0)).map_err(failed)?;
        names.collect::<Result<_, _>>().map_err(failed)
    }

    /// Those whom `pick` means and nobody has are the task's from now on; how many they are. `gone`: tasks that never
    /// came to be.
    pub fn give(&mut self, name: &str, pick: &Pick, gone: &[String]) -> Told<u64> {
        let pick = pick.sql();
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let write = write.map_err(failed)?;
        let give = || {
            write.execute_batch(TABLE)?;
            for gone in gone {
                write.execute("DELETE FROM retried WHERE task = ?1", [gone])?;
            }
            let sql = format!(
                "INSERT INTO retried SELECT person, ?1 FROM failure \
                 WHERE {pick} AND person NOT IN (SELECT person FROM retried)"
            );
            write.execute(&sql, [name])
        };
        let given = give().map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(given as u64)
    }

    /// Calls `on` for each whom the task was given, in the order of the list.
    pub fn given(&self, name: &str, on: impl FnMut(Failure) -> Told<()>) -> Told<()> {
        let whose = "WHERE person IN (SELECT person FROM retried WHERE task = ?1)";
        failures(&self.connection, whose, [name], on)
    }

    /// The task was never begun, and is no more: its people may be given to others.
    pub fn give_back(&mut self, name: &str) -> Told<()> {
        self.retried("DELETE FROM retried WHERE task = ?1", [name].as_slice())
    }

    /// The task is no more, and its people may have the message.
    pub fn retry_is_removed(&mut self, name: &str) -> Told<()> {
        self.retried("UPDATE retried SET task = ?2 WHERE task = ?1", [name, REMOVED].as_slice())
    }

    fn retried(&mut self, sql: &str, values: &[&str]) -> Told<()> {
        self.connection.execute_batch(TABLE).map_err(failed)?;
        let values = rusqlite::params_from_iter(values);
        self.connection.execute(sql, values).map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::task::event::Status;
    use crate::task::plan::tests::plan;

    #[test]
    fn nobody_is_given_to_two_tasks_unless_the_first_never_came_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(&folder.path().join("journal.db"), &plan()).unwrap();
        let failure = |index, status, errcode| Failure {
            index,
            offset: 0,
            line: index,
            openid: format!("o{index}"),
            status,
            errcode,
            errmsg: String::new(),
        };
        let failures = [
            failure(1, Status::Failed, Some(-1)),
            failure(2, Status::Failed, Some(43004)),
            failure(3, Status::Unknown, None),
            failure(4, Status::Failed, None),
        ];
        journal.keep(&State::new(10), &failures).unwrap();
        let busy = Pick { codes: Some(&[-1]), unknown: false };
        let all = Pick { codes: None, unknown: true };
        assert!(journal.who_has(&all).unwrap().is_empty());
        assert_eq!(journal.give("a", &busy, &[]), Ok(1));
        assert_eq!(journal.give("b", &busy, &[]), Ok(0));
        assert_eq!(journal.give("b", &all, &[]), Ok(3));
        assert_eq!(journal.retries(), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(journal.who_has(&busy), Ok(vec!["a".into()]));
        let mut people = Vec::new();
        let tell = |failure: Failure| {
            people.push(failure.index);
            Ok(())
        };
        journal.given("b", tell).unwrap();
        assert_eq!(people, [2, 3, 4]);
        assert_eq!(journal.give("c", &all, &["b".into()]), Ok(3));
        journal.retry_is_removed("a").unwrap();
        assert_eq!(journal.give("d", &all, &[]), Ok(0));
        assert_eq!(journal.who_has(&busy), Ok(vec![REMOVED.into()]));
        journal.give_back("c").unwrap();
        assert_eq!(journal.give("d", &all, &[]), Ok(3));
    }
}
