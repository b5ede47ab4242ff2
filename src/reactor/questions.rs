//! What the desk does with the questions and orders of administrators: answers what it knows, and hands on what
//! others have to do. Part of the desk.

use super::account::REQUEST_COST;
use super::conn::{Conn, Hold};
use super::orders::{cancelling, log_level};
use super::serve::{Desk, Next};
use crate::config::Named;
use crate::logger;
use crate::traffic::Event;
use crate::traffic::batch::{ConnId, ReplyTo, UNANSWERED};
use crate::traffic::ledger::{Ask, What};
use crate::traffic::steer::{STEERS, Steer, Steering, Why, one_line};
use crate::wire::command;
use crate::wire::question::Question;
use serde_json::json;
use std::path::Path;

/// Templates that status shows.
const BUSIEST: usize = 10;

impl Desk {
    /// What administrators ask.
    pub(super) fn question(
        &mut self,
        conn: &mut Conn,
        id: ConnId,
        opaque: u32,
        question: Question,
        body: &[u8],
    ) -> Next {
        match question {
            Question::Status => {
                let status = self.status();
                self.answer(conn, command::OK, opaque, status.as_bytes())
            }
            Question::Wait => {
                self.waiting.push(ReplyTo { conn: id, opaque, weight: 0 });
                conn.unanswered += 1;
                Next::Frame
            }
            Question::Reload => {
                if conn.unanswered >= UNANSWERED {
                    return Next::Hold(Hold::Results);
                }
                let to = self.owe(conn, id, opaque, 0);
                (self.links.reload)(to);
                Next::Frame
            }
            Question::Stop => match serde_json::from_slice(body) {
                Ok(halt) => {
                    (self.links.stop)(halt, conn.asker());
                    self.answer(conn, command::OK, opaque, b"")
                }
                Err(error) => self.misunderstood(conn, opaque, &error.to_string()),
            },
            Question::Listeners => {
                self.heir = Some(opaque);
                Next::Frame
            }
            Question::Requeue => self.ask(conn, id, opaque, What::Requeue, body),
            Question::Dismiss => self.ask(conn, id, opaque, What::Dismiss, body),
            Question::Template => {
                let key = serde_json::from_slice::<String>(body).unwrap_or_default();
                self.tget(conn, opaque, key.as_bytes())
            }
            Question::Pause => match serde_json::from_slice(body) {
                Ok(Why { why }) => {
                    self.steer(conn, id, opaque, Steering::Pause { why: one_line(&why) })
                }
                Err(error) => self.misunderstood(conn, opaque, &error.to_string()),
            },
            Question::Resume => self.steer(conn, id, opaque, Steering::Resume),
            Question::Drain => self.steer(conn, id, opaque, Steering::Drain),
            Question::EndDrain => self.steer(conn, id, opaque, Steering::EndDrain),
            Question::Cancel => match cancelling(body) {
                Ok(order) => self.steer(conn, id, opaque, order),
                Err(error) => self.misunderstood(conn, opaque, &error),
            },
            Question::LogLevel => match log_level(body, &conn.asker()) {
                Ok(before) => self.answer(conn, command::OK, opaque, before.as_bytes()),
                Err(error) => self.misunderstood(conn, opaque, &error),
            },
        }
    }

    /// `requeue` and `dismiss`, the body a JSON object, see `ledger::order`.
    fn ask(&mut self, conn: &mut Conn, id: ConnId, opaque: u32, what: What, body: &[u8]) -> Next {
        if self.links.ledger.is_full() {
            return Next::Hold(Hold::Store);
        }
        let weight = body.len() + REQUEST_COST;
        let by = conn.asker();
        let to = self.owe(conn, id, opaque, weight);
        // This thread alone sends here, and there was room; a ledger that has ended ends the daemon, too.
        if self.links.ledger.try_send(Ask { to, what, by, body: body.into() }).is_err() {
            log::error!("the ledger takes no orders any more");
        }
        Next::Frame
    }

    /// An order to the spool, which answers it.
    fn steer(&mut self, conn: &mut Conn, id: ConnId, opaque: u32, order: Steering) -> Next {
        if self.steering == STEERS {
            let why = "too many orders at once; try again";
            return self.answer(conn, command::UNAVAILABLE, opaque, why.as_bytes());
        }
        let by = conn.asker();
        let to = self.owe(conn, id, opaque, REQUEST_COST);
        self.steering += 1;
        // There is room: they are counted here. A spool that has ended ends the daemon, too.
        if self.links.spool.try_send(Event::Steer(Box::new(Steer { to, by, order }))).is_err() {
            log::error!("the spool takes no orders any more");
        }
        Next::Frame
    }

    fn misunderstood(&self, conn: &mut Conn, opaque: u32, error: &str) -> Next {
        let why = format!("not understood: {error}");
        self.answer(conn, command::BAD_REQUEST, opaque, why.as_bytes())
    }

    fn status(&self) -> String {
        let config = &self.links.config;
        let token = self.links.tokens.token();
        let busiest = self.links.table.busiest(BUSIEST).into_iter();
        let busiest = busiest.map(|(key, count)| json!({"key": key, "requests": count}));
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "name": config.name,
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "listen": self.links.listen,
            "templates": self.links.table.len(),
            "stopping": self.stopping,
            "log_level": logger::level().name(),
            "token_calls_today": self.links.tokens.calls_today(),
            "token_age_seconds": token.map(|(age, _)| age.as_secs()),
            "token_expires_seconds": token.map(|(_, lasts)| lasts.as_secs()),
            "memory_held": self.account.total(),
            "memory_limit": config.setting.memory_limit,
            "clients": self.account.clients,
            "clients_limit": config.setting.max_conn,
            "busiest_templates": busiest.collect::<Vec<_>>(),
            "folders": {
                "queue": config.server.queue_file_path,
                "ledger": config.server.ledger_file.parent(),
                "log": config.log.log_file.path().and_then(Path::parent),
                "message_log": config.log.message_log.as_ref().and_then(|file| file.parent()),
            },
        });
        if let (Some(status), serde_json::Value::Object(stats)) =
            (status.as_object_mut(), self.links.stats.to_json())
        {
            status.extend(stats);
        }
        status.to_string()
    }
}
