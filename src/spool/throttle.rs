//! Whether and how fast messages go out: an operator's pause, the gate, the pace and the day's limit together.
//! Part of the spool's state, and the only writer of what status shows as `paused` and `suspended`.

use super::gate::{Allowance, Gate, Moved, Told};
use super::pace::Pace;
use super::pause::Pause;
use crate::class::{Class, Fault};
use crate::clock::{Now, Seldom, until_next_wechat_day};
use crate::config::Config;
use crate::stats::{Cause, Day, Stats, Suspended};
use crate::traffic::job::{Reason, Verdict};
use crate::traffic::steer::Paused;
use crate::wechat::meaning;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file beside the segments that keeps how many messages went out today.
const SENT_TODAY: &str = "sent-today";
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Throttle {
    pause: Pause,
    gate: Gate,
    pace: Pace,
    /// Codes to which the configuration gives a class.
    own: Vec<i64>,
    daily_limit: u64,
    /// Since when the day's messages are used up, seconds since 1970.
    day_over: Option<u64>,
    saved: Instant,
    stats: Arc<Stats>,
    said: Seldom,
}

impl Throttle {
    pub fn open(config: &Config, stats: Arc<Stats>, now: Now) -> io::Result<Throttle> {
        let wechat = &config.wechat;
        let file = config.server.queue_file_path.join(SENT_TODAY);
        let pace = Pace::open(wechat.max_per_second, wechat.daily_limit, file.clone());
        let pace = pace.map_err(|error| {
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
            pace,
            own: own(config),
            daily_limit: wechat.daily_limit,
            day_over: None,
            saved: now.at,
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
        self.pace.configure(wechat.max_per_second, wechat.daily_limit);
        self.daily_limit = wechat.daily_limit;
        self.own = own(config);
        if mended {
            self.gate.hasten(now.at);
        }
        if self.day_over.is_some() && !self.pace.day_is_over() {
            self.day_over = None;
            crate::notice!("sending goes on: daily_limit = {} is not reached", self.daily_limit);
        }
        self.show(now);
    }

    /// Brings the state up to now. True if the day's limit has just been reached.
    pub fn turn(&mut self, now: Now) -> bool {
        self.pace.turn(now.at, now.unix);
        let over = self.pace.day_is_over();
        let turned = over != self.day_over.is_some();
        if turned {
            self.day_over = over.then_some(now.unix);
            match over {
                true => log::warn!("sending suspended: {}", self.day_text()),
                false => crate::notice!("sending goes on: a new day"),
            }
            self.show(now);
        }
        turned && over
    }

    fn day_text(&self) -> String {
        format!("daily_limit = {} is reached, until midnight UTC+8", self.daily_limit)
    }

    /// Nothing is handed out from now on. Returns how it was before, and why this will not survive the daemon's
    /// end, if it will not.
    pub fn pause(&mut self, paused: Paused) -> (Option<Paused>, io::Result<()>) {
        log::warn!("sending is {}", paused.text());
        let begun = self.pause.begin(paused);
        self.show_pause();
        begun
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
            Allowance::Open if !self.pace.allows() => Allowance::Shut,
            // A single message is no pace.
            Allowance::Probe if self.pace.day_is_over() => Allowance::Shut,
            allowance => allowance,
        }
    }

    /// Why a send is answered at once instead of waiting for its turn.
    pub fn suspended(&self) -> Option<String> {
        let why = self.pause.now().map(Paused::text);
        let why = why.or_else(|| self.gate.why().map(|(why, _)| why.to_owned()));
        why.or_else(|| self.day_over.map(|_| "daily_limit is reached".into()))
    }

    /// When to look again, if something waits to go out and may not.
    pub fn asks_again(&self, now: Now) -> Option<Instant> {
        match self.gate.why() {
            _ if self.pause.now().is_some() => None,
            Some(_) if !self.pace.day_is_over() => self.gate.next_probe().filter(|at| *at > now.at),
            _ => self.pace.asks_again(now.at, now.unix),
        }
    }

    /// One goes out.
    pub fn spend(&mut self, probe: bool) {
        self.pace.spend();
        if probe {
            self.gate.probe();
        }
    }

    /// One that was to go out was not begun.
    pub fn refund(&mut self, probe: bool) {
        self.pace.refund();
        if probe {
            self.gate.probe_again();
        }
    }

    /// What came back is not this message's fault, though another time it would be.
    pub fn blames_the_account(&self, reason: &Reason) -> bool {
        reason.errcode.is_some_and(|errcode| self.gate.blames_the_account(errcode))
    }

    /// Takes an outcome of a message to `openid` in; true if nobody may begin anything that is handed out already.
    pub fn hear(&mut self, verdict: &Verdict, openid: &[u8], probe: bool, now: Now) -> bool {
        let (what, reason) = match verdict {
            Verdict::Delivered { .. } => (verdict.class().row().gate, None),
            Verdict::Refused(class, reason) => (class.row().gate, Some(reason)),
        };
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
            self.day_over.map(|since| Suspended {
                cause: Cause::DailyLimit,
                why: self.day_text(),
                since,
                next_probe: Some(now.unix + until_next_wechat_day(now.unix).as_secs()),
            })
        };
        *self.stats.suspended.lock() = gate.or_else(day);
    }

    /// What went out today.
    pub fn day(&self) -> Day {
        let (number, sent) = self.pace.today();
        Day { number, sent, limit: self.daily_limit }
    }

    /// Keeps the day's count, now and then or `at_once`.
    pub fn save(&mut self, now: Instant, at_once: bool) {
        if !at_once && now.duration_since(self.saved) < SAVE_INTERVAL {
            return;
        }
        self.saved = now;
        if let Err(error) = self.pace.save()
            && self.said.now()
        {
            log::warn!("cannot keep the number of messages sent today: {error}");
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
