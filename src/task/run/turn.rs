//! What a turn of the run does on the connections: connects, lets people go out, and books what is answered.

use super::link::{Heard, Link, Reply};
use super::people::Next;
use super::wait::{Allowance, Moved};
use super::{BACKOFF, Run};
use crate::clock;
use crate::task::event::{Event, Status, Why};
use crate::task::reply::Verdict;
use crate::wire::command::Request;
use mio::Token;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

/// What is said of those whose answer never came.
const TOO_LATE: &str = "unknown: WeChat may have taken it, and it is too late to ask again";

impl Run<'_> {
    /// Begins connections that are due, and gives up those that have said nothing for too long.
    pub(super) fn connect(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            let late = |link: &Link| link.deadline().is_some_and(|at| at <= now);
            if self.links[index].as_ref().is_some_and(late) {
                self.lose(
                    index,
                    &io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
                    now,
                );
            }
        }
        if self.reconnect.at > now || self.drains.is_some() {
            return;
        }
        if self.links.iter().any(Option::is_none)
            && let Err(error) = self.open()
        {
            self.not_reached(&error, now);
        }
    }

    /// Begins the links that are missing.
    fn open(&mut self) -> io::Result<()> {
        let addresses: Vec<SocketAddr> = self.plan.to.to_socket_addrs()?.collect();
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let turn = self.reconnect.tries % addresses.len().max(1);
        let address = *addresses.get(turn).ok_or_else(none)?;
        for (index, link) in self.links.iter_mut().enumerate().filter(|(_, link)| link.is_none()) {
            *link = Some(Link::begin(address, self.poll.registry(), Token(index))?);
        }
        Ok(())
    }

    /// The next attempts are later.
    fn not_reached(&mut self, error: &io::Error, now: Instant) {
        if self.reconnect.at <= now {
            self.reconnect.at = now + self.reconnect.pause;
            self.reconnect.pause = (self.reconnect.pause * 2).min(BACKOFF.end);
            self.reconnect.tries += 1;
        }
        let nobody = !self.links.iter().flatten().any(Link::is_up);
        if nobody && self.reconnect.why.is_none() {
            let why = Why::Unreachable(format!("{}: {error}", self.plan.to));
            self.reconnect.why = Some(why);
            self.people.unstage();
            self.book.dirty = true;
        }
    }

    fn lose(&mut self, index: usize, error: &io::Error, now: Instant) {
        if let Some(link) = self.links[index].take() {
            link.end(self.poll.registry());
        }
        let wait = &mut self.wait;
        self.people.lose(index, |slot| wait.lost(slot, now));
        self.not_reached(error, now);
    }

    /// Something happened on a connection.
    pub(super) fn serve(&mut self, index: usize, now: Instant) -> Result<(), String> {
        // It was lost in the same turn.
        let Some(mut link) = self.links[index].take() else { return Ok(()) };
        let mut halt = None;
        let heard = self.hear(&mut link, index, now, &mut halt);
        self.links[index] = Some(link);
        match heard {
            Ok(true) => {}
            Ok(false) => self.lose(index, &io::ErrorKind::UnexpectedEof.into(), now),
            Err(error) => self.lose(index, &error, now),
        }
        halt.map_or(Ok(()), Err)
    }

    /// False when the other side has closed the connection.
    fn hear(
        &mut self,
        link: &mut Link,
        index: usize,
        now: Instant,
        halt: &mut Option<String>,
    ) -> io::Result<bool> {
        link.look()?;
        if !link.is_up() {
            return Ok(true);
        }
        loop {
            match link.read(&mut self.chunk, now)? {
                // What was said before the end counts.
                Heard::Some => link.replies(|reply| self.answered(&reply, index, now, halt))?,
                Heard::NoMore => return Ok(true),
                Heard::End => return Ok(false),
            }
        }
    }

    /// By an answer: a connection alone proves nothing, what stands before mega may have made it.
    fn reached(&mut self) {
        self.reconnect.pause = BACKOFF.start;
        self.reconnect.why = None;
    }

    /// False if it answers nothing that this connection was asked.
    fn answered(
        &mut self,
        reply: &Reply,
        index: usize,
        now: Instant,
        halt: &mut Option<String>,
    ) -> bool {
        let Some(slot) = reply.opaque.checked_sub(1) else {
            // So mega tells who speaks another language.
            let message = String::from_utf8_lossy(reply.message);
            *halt = Some(format!("{} answers: {} {message}", self.plan.to, reply.code));
            return false;
        };
        if self.people.get(slot).and_then(|held| held.on) != Some(index) {
            return false;
        }
        self.reached();
        let verdict = self.judge.judge(reply.code, reply.message);
        if !matches!(verdict, Verdict::Unclear(_)) {
            self.unclear.since = None;
        }
        match verdict {
            Verdict::Sent => self.ended(slot, Status::Sent, None, ""),
            Verdict::Failed { errcode, errmsg } => {
                self.ended(slot, Status::Failed, errcode, &errmsg);
            }
            Verdict::NotNow(why) => {
                self.people.comes_again(slot);
                self.refused(slot, Why::Refused(why), now);
            }
            Verdict::Limit(errcode) => {
                self.people.takes_another_turn(slot);
                self.refused(slot, Why::Limit(errcode), now);
            }
            Verdict::Unclear(why) => {
                if self.unclear.told.now() {
                    self.watch.hear(&Event::Unclear(&why));
                }
                self.unclear.since.get_or_insert((now, Why::Unclear(why)));
                self.people.stays_unclear(slot, now);
                self.wait.lost(slot, now);
            }
            Verdict::Halt(why) => {
                self.people.comes_again(slot);
                *halt = Some(format!("{}: {why} ({})", self.plan.to, self.plan.key));
            }
        }
        true
    }

    fn ended(&mut self, slot: u32, status: Status, errcode: Option<i64>, errmsg: &str) {
        let held = self.people.ends(slot);
        self.book(held, status, errcode, errmsg);
        if self.wait.answered(slot) == Moved::GoesOn {
            self.people.sort();
        }
    }

    fn refused(&mut self, slot: u32, why: Why, now: Instant) {
        // That nothing of it is out is to be kept.
        self.book.dirty = true;
        if self.wait.refused(slot, why, now) == Moved::Waits {
            self.people.unstage();
        }
    }

    /// As long as nobody is known to be reached, one at a time goes out, and the others are not in doubt.
    fn allowance(&self, now: Instant) -> Allowance {
        match (self.wait.allowance(now), &self.reconnect.why) {
            (Allowance::Shut, _) => Allowance::Shut,
            (_, Some(_)) if self.people.out() > 0 => Allowance::Shut,
            (_, Some(_)) => Allowance::Probe,
            (allowance, None) => allowance,
        }
    }

    /// Lets go out whom window, rate and journal allow.
    pub(super) fn go_out(&mut self, now: Instant) -> Result<(), String> {
        self.people.look(now);
        let uptime = clock::uptime_ms();
        let block = self.number_of_next_block();
        let free = self.allowance(now) == Allowance::Free && self.reaches();
        if free {
            let read = self.people.read(block, uptime);
            self.book.dirty |=
                read.map_err(|error| format!("cannot read the task's list: {error}"))?;
        }
        while self.people.out() < self.plan.window {
            let allowance = self.allowance(now);
            if allowance == Allowance::Shut || !self.reaches() || !self.rate.allows(now) {
                break;
            }
            match self.people.next(self.book.acked, uptime) {
                Next::Goes(slot) => {
                    if self.wait.allowance(now) == Allowance::Probe {
                        self.wait.tries(slot);
                    }
                    self.send(slot, now);
                }
                Next::TooLate(slot) => {
                    let held = self.people.ends_unanswered(slot);
                    self.book(held, Status::Unknown, None, TOO_LATE);
                }
                Next::Waits => {
                    self.book.dirty |= match allowance {
                        Allowance::Free => self.people.stage(block, uptime),
                        Allowance::Probe | Allowance::Shut => {
                            self.people.stage_first(1, block, uptime)
                        }
                    };
                    if self.clerk.is_busy() {
                        self.people.starves(block);
                    }
                    self.book.hurry = true;
                    break;
                }
                Next::Nobody => {
                    // A probe needs somebody.
                    if allowance == Allowance::Probe {
                        let read = self.people.read(block, uptime);
                        self.book.dirty |=
                            read.map_err(|error| format!("cannot read the task's list: {error}"))?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// There is a connection to send over.
    fn reaches(&self) -> bool {
        self.links.iter().flatten().any(Link::is_up)
    }

    /// The message goes over the connection that owes the fewest answers.
    fn send(&mut self, slot: u32, now: Instant) {
        let up = self.links.iter_mut().enumerate();
        let up = up
            .filter_map(|(index, link)| Some((index, link.as_mut()?)))
            .filter(|(_, it)| it.is_up());
        let Some((index, link)) = up.min_by_key(|(_, link)| link.outstanding) else { return };
        let held = self.people.goes(slot, index);
        self.reach.extend(held.open.index);
        self.plan.put_id(&mut self.id, held.open.index, held.open.turn);
        self.plan.put_data(&mut self.data, &held.data);
        let request = Request {
            opaque: slot + 1,
            openid: held.openid.as_bytes(),
            key: self.plan.key.as_bytes(),
            id: Some(self.id.as_bytes()),
            data: self.data.as_bytes(),
        };
        link.put(self.plan.verb, request, now);
        self.rate.goes(now);
    }

    pub(super) fn flush(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            let Some(link) = self.links[index].as_mut().filter(|link| link.is_up()) else {
                continue;
            };
            if let Err(error) = link.flush() {
                self.lose(index, &error, now);
            }
        }
    }
}
