//! Who is closed because it holds too much, or has held it for too long. Part of the reactor's loop.

use super::Reactor;
use super::account::Part;
use super::conn::{Conn, Overstay};
use crate::stats::Refusal;
use std::time::{Duration, Instant};

/// How long a client that has just come in keeps its place when others want it.
const MOMENT: Duration = Duration::from_secs(1);

impl Reactor {
    /// Closes those who make a part of the account too large; see `account`.
    pub(super) fn shed(&mut self, part: Part, now: Instant) {
        let Some(excess) = self.desk.account.excess(part) else { return };
        let cost = |conn: &Conn| match part {
            Part::Frames => conn.frame_cost(now),
            _ => conn.outbox.memory() as u128,
        };
        let clients = self.conns.iter().filter(|(_, conn)| !conn.is_admin());
        let mut costs: Vec<_> = clients.map(|(slot, conn)| (cost(conn), slot)).collect();
        costs.sort_unstable();
        let before = self.desk.account.total();
        let mut closed = 0;
        while before - self.desk.account.total() < excess
            && let Some((1.., slot)) = costs.pop()
        {
            self.close(slot);
            self.desk.links.stats.turn_down(Refusal::ClosedForMemory);
            closed += 1;
        }
        if self.told.now() {
            log::warn!(
                "{closed} clients are closed: {part} take up more than setting.memory_limit has for them"
            );
        }
    }

    /// Makes room for those who come: closes clients for whom nothing was done since they came in, whatever they have
    /// sent, those who are here for longest first. Down to seven eighths, so that it is not for each that
    /// everybody has to be looked at.
    pub(super) fn close_newcomers(&mut self, now: Instant) {
        if now < self.rests_until {
            return;
        }
        // What was taken in is answered first.
        let idle = |conn: &Conn| conn.newcomer_since.filter(|_| conn.unanswered == 0);
        let mut idle: Vec<_> = self
            .conns
            .iter()
            .filter_map(|(slot, conn)| Some((idle(conn)?, slot)))
            .filter(|(since, _)| now.duration_since(*since) >= MOMENT)
            .collect();
        if idle.is_empty() {
            self.rests_until = now + MOMENT;
            return;
        }
        idle.sort_unstable();
        idle.truncate((self.conns.len() / 8).max(1));
        for (_, slot) in &idle {
            self.close(*slot);
        }
        if self.told.now() {
            log::warn!(
                "{} clients are closed: nothing was done for them since they came, and others want their places",
                idle.len()
            );
        }
    }

    /// Closes clients that have been in the middle of something for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        let limit = self.desk.links.config.setting.heartbeat_idle_time;
        let mut overstaying = Vec::new();
        self.agenda.sweep_at = None;
        for (slot, conn) in &self.conns {
            match conn.overstays(now, limit) {
                Some(how) => overstaying.push((slot, how)),
                None => self.agenda.watch(conn, now),
            }
        }
        let counted = |how| overstaying.iter().filter(|(_, is)| *is == how).count();
        let (frames, replies) = (counted(Overstay::Frame), counted(Overstay::Replies));
        for (slot, _) in overstaying {
            self.close(slot);
            self.desk.links.stats.turn_down(Refusal::ClosedForTime);
        }
        for (count, what) in
            [(frames, "did not finish a frame"), (replies, "does not read its replies")]
        {
            if count > 0 {
                log::warn!(
                    "{count} clients closed: each {what} within setting.heartbeat_idle_time"
                );
            }
        }
    }
}
