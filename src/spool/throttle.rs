//! Whether and how fast messages go out: an operator's pause, the gate, the pace and the day's limit together.
//! Part of the spool's state, and the only writer of what status shows as `paused` and `suspended`.

use super::gate::{Allowance, Gate, Moved, Told};
use super::pace::Pace;
use super::pause::Pause;
use super::quota::{Over, Quota};
use crate::class::{Class, Fault};
use crate::clock::{Now, Seldom};
use crate::config::Config;
use crate::stats::{Cause, Day, Stats, Suspended};
use crate::traffic::job::{Job, Reason, Verdict};
use crate::traffic::steer::Paused;
use crate::wechat::meaning;
use crate::wire::not_now;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The file beside the segments that keeps how many messages went out today.
const SENT_TODAY: &str = "sent-today";

pub struct Throttle {
    pause: Pause,
    gate: Gate,
    pace: Pace,
    quota: Quota,
    /// Codes to which the configuration gives a class.
    own: Vec<i64>,
    /// The day's limit lets nothing out.
    day_over: Option<DayOver>,
    stats: Arc<Stats>,
    said: Seldom,
}

/// Since when (seconds since 1970), and why.
struct DayOver {
    since: u64,
    why: String,
}

impl Throttle {
    pub fn open(config: &Config, stats: Arc<Stats>, now: Now) -> io::Result<Throttle> {
        let wechat = &config.wechat;
        let file = config.server.queue_file_path.join(SENT_TODAY);
        let quota = Quota::open(wechat.daily_limit, file.clone()).map_err(|error| {
            let text = format!(
                "cannot read how many messages went out today from {}: {error} (correct it, or remove it to \
                 count from here)",
                file.display()
            );
            io::Error::new(error.kind(), text)
        })?;
        let throttle = Throttle {
            pause: Pause::open(&config.server.queue_file_path, now.unix),
            gate: Gate::new(config.setting.task_worker_num, now.at),
            pace: Pace::new(wechat.max_per_second, now.at),
            quota,
            own: own(config),
            day_over: None,
            stats,
            said: Seldom::default(),
        };
        if let Some(paused) = throttle.pause.now() {
            log::warn!("sending is {}; it goes on after: resume", paused.text());
        }
        throttle.show_pause();
        Ok(throttle)
    }

    /// Goes by another configuration; `mended`: it may have removed what the gate is closed for.
    pub fn configure(&mut self, config: &Config, mended: bool, now: Now) {
        let wechat = &config.wechat;
        self.gate.set_workers(config.setting.task_worker_num);
        self.pace.configure(wechat.max_per_second);
        self.quota.configure(wechat.daily_limit);
        self.own = own(config);
        if mended {
            self.gate.hasten(now.at);
        }
        if self.day_over.take().is_some() && self.look_at_day(now).is_none() {
            crate::notice!("sending goes on: daily_limit = {} is not reached", self.quota.limit());
        }
        self.show(now);
    }

    /// Brings the state up to now. True if the day's limit lets nothing out from now on.
    pub fn turn(&mut self, now: Now) -> bool {
        self.pace.turn(now.at);
        let new_day = self.quota.turn(now.at, now.unix);
        let was = self.day_over.is_some();
        match (was, self.look_at_day(now)) {
            (false, None) | (true, Some(_)) => return false,
            (false, Some(why)) => log::warn!("sending suspended: {why}"),
            (true, None) if new_day => crate::notice!("sending goes on: a new day"),
            (true, None) => crate::notice!("sending goes on"),
        }
        self.show(now);
        !was
    }

    /// Why the day's limit lets nothing out, if so.
    fn look_at_day(&mut self, now: Now) -> Option<&str> {
        let limit = self.quota.limit();
        let why = match self.quota.over() {
            None => {
                self.day_over = None;
                return None;
            }
            Some(Over::Used) => format!("daily_limit = {limit} is reached, until midnight UTC+8"),
            Some(Over::Unwritten(error)) => format!(
                "daily_limit = {limit}: how many messages go out cannot be written to {SENT_TODAY}: {error} (see \
                 server.queue_file_path; it is tried every second)"
            ),
        };
        let since = self.day_over.as_ref().map_or(now.unix, |over| over.since);
        Some(&self.day_over.insert(DayOver { since, why }).why)
    }

    /// Before a message is handed out: true if it may be, the file knows of it.
    pub fn reserve(&mut self, now: Now) -> bool {
        if self.quota.must_reserve()
            && let Err(error) = self.quota.reserve(now.at)
            && self.quota.limit() == 0
            && self.said.now()
        {
            log::warn!("cannot write down the number of messages sent today: {error}");
        }
        self.quota.allows()
    }

    /// Nothing is handed out from now on. Returns how it was before, and why this will not survive the daemon's
    /// end, if it will not.
    pub fn pause(&mut self, paused: Paused) -> (Option<Paused>, io::Result<()>) {
        log::warn!("sending is {}", paused.text());
        let begun = self.pause.begin(paused);
        self.show_pause();
        begun
    }

    /// Something else than an operator wants it paused, who may have paused it already: both reasons hold.
    pub fn pause_besides(&mut self, why: String, now: Now) -> io::Result<()> {
        let paused = match self.pause.now() {
            Some(paused) if paused.why.contains(&why) => return Ok(()),
            Some(paused) => {
                let both = [paused.why.as_str(), &why].map(str::trim);
                let both = both.into_iter().filter(|why| !why.is_empty()).collect::<Vec<_>>();
                Paused { why: both.join("; "), ..paused.clone() }
            }
            None => Paused { by: "mega".into(), why, since: now.unix },
        };
        self.pause(paused).1
    }

    /// What else stops sending is as it was. Returns how it was before.
    pub fn resume(&mut self, by: &str) -> io::Result<Option<Paused>> {
        let before = self.pause.end()?;
        if before.is_some() {
            match self.suspended() {
                Some(why) => crate::notice!("resumed by {by}; sending is still suspended: {why}"),
                None => crate::notice!("resumed by {by}: sending goes on"),
            }
        }
        self.show_pause();
        Ok(before)
    }

    fn show_pause(&self) {
        *self.stats.paused.lock() = self.pause.now().cloned();
    }

    pub fn allowance(&self, now: Now) -> Allowance {
        if self.pause.now().is_some() {
            return Allowance::Shut;
        }
        match self.gate.allowance(now.at) {
            _ if !self.quota.allows() => Allowance::Shut,
            // A single message is no pace.
            Allowance::Open if !self.pace.allows() => Allowance::Shut,
            allowance => allowance,
        }
    }

    /// What a send is told that is answered at once instead of waiting for its turn.
    pub fn refusal(&self) -> Option<String> {
        self.suspended().map(|why| format!("{}{why}", not_now::SUSPENDED))
    }

    /// Why a send is answered at once instead of waiting for its turn.
    pub fn suspended(&self) -> Option<String> {
        let why = self.pause.now().map(Paused::text);
        let why = why.or_else(|| self.gate.why().map(|(why, _)| why.to_owned()));
        why.or_else(|| match self.quota.over()? {
            Over::Used => Some("daily_limit is reached".into()),
            Over::Unwritten(_) => self.day_over.as_ref().map(|over| over.why.clone()),
        })
    }

    /// When to look again, if something waits to go out and may not.
    pub fn asks_again(&self, now: Now) -> Option<Instant> {
        match self.gate.why() {
            _ if self.pause.now().is_some() => None,
            _ if self.quota.over().is_some() => self.quota.goes_on(now.at, now.unix),
            // What is handed out already may come back, and makes room then.
            _ if !self.quota.allows() => None,
            Some(_) => self.gate.next_probe().filter(|at| *at > now.at),
            None => self.pace.asks_again(now.at),
        }
    }

    /// One goes out.
    pub fn spend(&mut self, probe: bool) {
        self.pace.spend();
        self.quota.spend();
        if probe {
            self.gate.probe();
        }
    }

    /// One that was to go out was not begun.
    pub fn refund(&mut self, probe: bool) {
        self.pace.refund();
        self.quota.refund();
        if probe {
            self.gate.probe_again();
        }
    }

    /// What came back is not this message's fault, though another time it would be.
    pub fn blames_the_account(&self, reason: &Reason) -> bool {
        reason.errcode.is_some_and(|errcode| self.gate.blames_the_account(errcode))
    }

    /// Takes the outcome of a job in; true if nobody may begin anything that is handed out already. `went`: WeChat may
    /// have heard of the message.
    pub fn hear(&mut self, job: &Job, verdict: &Verdict, went: bool, now: Now) -> bool {
        let (openid, probe) = (job.message.openid(), job.probe);
        let (what, reason) = match verdict {
            Verdict::Delivered { .. } => (verdict.class().row().gate, None),
            Verdict::Refused(class, reason) => (class.row().gate, Some(reason)),
        };
        match went {
            true => self.quota.gone(),
            false => self.quota.refund(),
        }
        self.pace.answered(is_busy(verdict));
        let puzzle = match verdict {
            Verdict::Refused(Class::Once, Reason { errcode: Some(errcode), .. }) => {
                let known = meaning::of(*errcode).is_some() || self.own.contains(errcode);
                (!known).then_some((*errcode, openid))
            }
            _ => None,
        };
        let Now { at, unix, .. } = now;
        let told = Told { what, probe, reason, puzzle, now: at, unix_seconds: unix };
        let moved = self.gate.hear(told);
        let text = reason.map_or("", |reason| reason.text.as_str());
        match moved {
            Moved::Not if probe => self.show(now),
            Moved::Not => {}
            Moved::Opened => {
                match self.pause.now() {
                    Some(paused) => crate::notice!("sending could go on, and is {}", paused.text()),
                    None => crate::notice!("sending goes on"),
                }
                self.show(now);
            }
            Moved::Closed(fault) => {
                match fault {
                    Fault::Rate => log::warn!("sending suspended, a limit is reached: {text}"),
                    Fault::Unreachable => log::warn!(
                        "sending suspended, WeChat gives no usable answer: {text} (messages are kept; single ones \
                         probe until one gets through)"
                    ),
                    Fault::Config => log::error!(
                        "sending suspended, the account or the configuration is at fault: {text} (see the \
                         errcode in WeChat's documents; messages are kept)"
                    ),
                }
                self.show(now);
            }
        }
        matches!(moved, Moved::Closed(_))
    }

    /// The gate's reason is shown before the day's: it is the one that somebody can do something about.
    fn show(&self, now: Now) {
        let next = |at: Instant| now.unix + at.saturating_duration_since(now.at).as_secs();
        let gate = self.gate.why().map(|(why, since)| Suspended {
            cause: match self.gate.fault() {
                Some(Fault::Rate) => Cause::Rate,
                Some(Fault::Config) => Cause::Config,
                Some(Fault::Unreachable) | None => Cause::Unreachable,
            },
            why: why.to_owned(),
            since,
            next_probe: self.gate.next_probe().map(next),
        });
        let day = || {
            self.day_over.as_ref().map(|over| Suspended {
                cause: Cause::DailyLimit,
                why: over.why.clone(),
                since: over.since,
                next_probe: self.quota.goes_on(now.at, now.unix).map(next),
            })
        };
        *self.stats.suspended.lock() = gate.or_else(day);
    }

    /// What is known to have gone out today.
    pub fn day(&self) -> Day {
        let (number, sent) = self.quota.today();
        Day { number, sent, limit: self.quota.limit() }
    }

    /// Nothing goes out any more.
    pub fn close(&mut self) {
        if let Err(error) = self.quota.close() {
            log::warn!("more messages count as sent today than were: {error}");
        }
    }
}

fn own(config: &Config) -> Vec<i64> {
    config.errcode.iter().map(|(errcode, _)| *errcode).collect()
}

/// WeChat says that it is busy.
fn is_busy(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused(Class::Later, Reason { errcode: Some(_), .. }))
}
