//! What the other threads tell the reactor: results for clients, who may still be a client, and the daemon's
//! end. Part of the reactor's loop.

use super::Reactor;
use super::account::Part;
use super::conn::{Conn, Course};
use crate::config::{Config, Setting};
use crate::traffic::Event;
use crate::traffic::batch::Reply;
use crate::traffic::mailbox::Mail;
use crate::wire::command;
use crossbeam_channel::TrySendError;
use ipnet::IpNet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How far the daemon's end has come.
pub enum Ending {
    NotYet,
    /// The spool's order to stop within this time waits until it can be passed on.
    Order(Duration),
    Ordered,
    Now,
}

impl Reactor {
    pub(super) fn read_mail(&mut self, now: Instant) {
        let mail: Vec<Mail> = self.letters.read().collect();
        for letter in mail {
            match letter {
                Mail::Replies { replies, batches } => {
                    for batch in batches {
                        self.desk.take_back(batch);
                    }
                    for reply in replies {
                        self.deliver(reply);
                    }
                }
                Mail::Admin(socket) => {
                    if let Err(error) = self.door.move_admin(socket, self.poll.registry()) {
                        log::error!("nobody is heard on the administration socket: {error}");
                    }
                }
                Mail::Monitor(socket) => {
                    if let Err(error) = self.hear_monitors(socket) {
                        log::error!("nobody is heard on the monitoring socket: {error}");
                    }
                }
                Mail::Configure(config) => self.configure(config),
                Mail::Steered(reply) => {
                    self.desk.steering -= 1;
                    self.deliver(reply);
                }
                Mail::Stop { now } => self.stop(now),
                Mail::Quit { left } => self.quit(left),
            }
        }
        // Results of many clients can have come at once.
        self.shed(Part::Replies, now);
    }

    /// Goes by another configuration from now on.
    fn configure(&mut self, config: Arc<Config>) {
        let Setting { memory_limit, max_conn, package_max_length, .. } = config.setting;
        self.desk.account.limit(memory_limit, package_max_length);
        self.desk.links.stats.show_limits(max_conn, memory_limit);
        self.allow_only(config.server.allow.clone());
        self.desk.links.config = config;
    }

    /// Also closes those who are in and would not be let in any more.
    fn allow_only(&mut self, networks: Vec<IpNet>) {
        self.door.allow_only(networks);
        let stranger = |conn: &Conn| conn.peer().is_some_and(|peer| !self.door.allows(peer));
        let strangers: Vec<usize> =
            self.conns.iter().filter(|(_, conn)| stranger(conn)).map(|(slot, _)| slot).collect();
        for slot in &strangers {
            self.close(*slot);
        }
        if !strangers.is_empty() {
            let count = strangers.len();
            log::warn!("{count} clients are closed: they are no longer among server.allow[]");
        }
    }

    fn stop(&mut self, now: bool) {
        self.desk.stopping = true;
        self.desk.links.stats.stopping.store(true, Ordering::Relaxed);
        self.door.close();
        let patience = self.desk.links.config.setting.stop_timeout;
        let within = if now { Duration::ZERO } else { patience };
        self.ending = Ending::Order(within);
    }

    fn quit(&mut self, left: u64) {
        for to in std::mem::take(&mut self.desk.waiting) {
            let message = left.to_string().into();
            self.deliver(Reply { to, code: command::OK, message, close: true });
        }
        self.ending = Ending::Now;
    }

    /// The spool's order to stop comes after every request that was taken in.
    pub(super) fn pass_order_on(&mut self) {
        let Ending::Order(within) = self.ending else { return };
        if !self.desk.hand_on() {
            return;
        }
        self.ending = match self.desk.links.spool.try_send(Event::Stop { within }) {
            Err(TrySendError::Full(_)) => Ending::Order(within),
            // A spool that has ended needs no order.
            _ => Ending::Ordered,
        };
    }

    fn deliver(&mut self, reply: Reply) {
        let weight = reply.to.weight as usize;
        if weight > 0 {
            // R2: the weight goes, whether or not there is somebody to be told.
            self.desk.paid(weight);
        }
        let slot = reply.to.conn.slot as usize;
        let known = |conn: &&mut Conn| conn.generation == reply.to.conn.generation;
        let Some(conn) = self.conns.get_mut(slot).filter(known) else { return };
        conn.unanswered -= 1;
        conn.weight -= weight;
        if reply.code == command::OK {
            conn.served(&mut self.desk.account);
        }
        let (out, message) = (conn.outbox.bytes(), reply.message.as_bytes());
        self.desk.write_result(out, reply.code, reply.to.opaque, message);
        if reply.close && matches!(conn.course, Course::Open | Course::Held(_)) {
            conn.course = Course::Closing(Vec::new());
        }
        self.agenda.touch(conn, slot);
    }
}
