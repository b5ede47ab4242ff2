//! When the access token may be fetched, how, and what a refusal of it means. The state that all workers
//! share behind one lock (token.rs), and pure: it is told the time and calls nobody.
//!
//! - T1: two calls that WeChat may have seen are at least `INTERVAL` apart, whatever came of them, also over a
//!   restart; but that a stable token, which a repeated call does not replace, is fetched at once by a new start.
//! - T2: one fetch at a time; a fetch that was begun ends with `granted` or `denied`.
//! - T3: a token that replaced a refused one and is refused in turn, without ever having been accepted, is a
//!   fault of the account.

#[cfg(test)]
mod tests;

use super::calls::Calls;
use crate::clock::wechat_day;
use crate::config::TokenSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// WeChat issues the next token this long before the current one ends, and both are valid then.
const OVERLAP: Duration = Duration::from_secs(300);

/// What a token's life may be, whatever the answer says: WeChat's documents promise 7200 seconds.
const LIFE: std::ops::RangeInclusive<u64> = 60..=7200;

/// Between two calls that WeChat may have seen.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between two attempts of which WeChat saw nothing.
const UNSENT_INTERVAL: Duration = Duration::from_secs(1);

/// Of the classic token's 2,000 calls a day, the second half is spread over a whole day: whatever goes wrong,
/// the day's calls are never used up.
const CLASSIC_BRISK: u64 = 1_000;
const CLASSIC_INTERVAL: Duration = Duration::from_secs(90);

/// WeChat's limits for force_refresh: 20 a day, 30 seconds apart. 73 minutes between two that were answered
/// keep the first; one that was cut off counts for the second only.
const FORCE_INTERVAL: Duration = Duration::from_secs(73 * 60);
const FORCE_APART: Duration = Duration::from_secs(30);

/// A token that messages are sent with.
#[derive(Debug)]
pub struct Token {
    pub text: Box<str>,
    /// Fetched because another one was refused.
    replaces_refused: bool,
    /// WeChat took a message with it, or refused one for a reason that concerns the message.
    accepted: AtomicBool,
    granted_at: Instant,
    renew_at: Instant,
    expires_at: Instant,
}

impl Token {
    /// An answer to a call with this token said nothing against the token.
    pub fn accept(&self) {
        // Nearly always known already: a store for each message would move the line between all cores.
        if !self.accepted.load(Ordering::Relaxed) {
            self.accepted.store(true, Ordering::Relaxed);
        }
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoToken {
    pub lack: Lack,
    pub errcode: Option<i64>,
    /// One line.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// A limit of the account is reached.
    Rate,
    /// The account or the configuration is at fault.
    Config,
    /// Later there may be one: WeChat was not reached, or may not be asked yet.
    NotNow,
}

/// How a token is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    Plain,
    /// With force_refresh: WeChat kept returning a token that it refuses.
    Forced,
}

/// How far a fetch that failed has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// WeChat has seen nothing of it.
    Unsent,
    /// Cut off: WeChat may have issued a token.
    Unanswered,
    Answered,
}

/// What whoever needs a token is to do.
#[derive(Debug)]
pub enum Need {
    Use(Arc<Token>),
    /// Fetch one, and say what came of it.
    Fetch(Fetch),
    /// Somebody is fetching one.
    Wait,
    GoWithout(NoToken),
}

/// What it means that WeChat refused a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another one takes its place.
    OfThisToken,
    /// T3: another one is of no use.
    OfTheAccount,
}

struct Refused {
    text: Box<str>,
    errcode: i64,
    /// WeChat's, with the errcode.
    words: String,
}

pub struct Refresh {
    source: TokenSource,
    current: Option<Arc<Token>>,
    /// T2.
    fetching: bool,
    /// The current token was fetched with a secret that the account has no longer: from then on it is used no more.
    outdated: Option<Instant>,
    /// So will be the one that is being fetched.
    fetching_outdated: bool,
    /// T1: no call before this.
    not_before: Option<Instant>,
    /// Everybody's answer until then.
    lack: Option<NoToken>,
    /// The last token WeChat refused: the same one again is of no use.
    refused: Option<Refused>,
    /// WeChat returned the refused token, so the next fetch is a forced one.
    force_next: bool,
    force_answered: Option<Instant>,
    force_begun: Option<Instant>,
    /// WeChat's day, and the calls in it.
    day: u64,
    calls: u64,
}

impl Refresh {
    pub fn new(source: TokenSource) -> Refresh {
        Refresh {
            source,
            current: None,
            fetching: false,
            outdated: None,
            fetching_outdated: false,
            not_before: None,
            lack: None,
            refused: None,
            force_next: false,
            force_answered: None,
            force_begun: None,
            day: 0,
            calls: 0,
        }
    }

    /// Goes on after the calls of earlier runs.
    pub fn go_on(&mut self, calls: &Calls, now: Instant, unix_seconds: u64) {
        if calls.day == wechat_day(unix_seconds) {
            (self.day, self.calls) = (calls.day, calls.count);
        }
        // A clock that was set back makes nobody wait for longer than a call that has just ended.
        let ago = |at: u64| Duration::from_secs(unix_seconds.saturating_sub(at));
        let forced = (calls.forced > 0).then(|| now.checked_sub(ago(calls.forced))).flatten();
        (self.force_answered, self.force_begun) = (forced, forced);
        let left = self.rest(Call::Unanswered).saturating_sub(ago(calls.last));
        if self.source == TokenSource::Classic && !left.is_zero() {
            self.not_before = Some(now + left);
            let text = "a token was fetched shortly before the start".into();
            self.lack = Some(NoToken { lack: Lack::NotNow, errcode: None, text });
        }
    }

    /// What a later run is to know when a call begins: WeChat may see it.
    pub fn calls(&mut self, app_id: &str, fetch: Fetch, unix_seconds: u64, now: Instant) -> Calls {
        self.turn_day(unix_seconds);
        let forced = match fetch {
            Fetch::Forced => unix_seconds,
            Fetch::Plain => self.force_begun.map_or(0, |at| {
                unix_seconds.saturating_sub(now.saturating_duration_since(at).as_secs())
            }),
        };
        let (day, count) = (self.day, self.calls + 1);
        Calls { app_id: app_id.into(), day, count, last: unix_seconds, forced }
    }

    pub fn need(&mut self, now: Instant) -> Need {
        if let Some(token) = &self.current
            && now < token.expires_at
            && self.outdated.is_none_or(|at| now < at)
        {
            return Need::Use(Arc::clone(token));
        }
        if self.fetching {
            return Need::Wait;
        }
        match self.not_before {
            Some(at) if now < at => Need::GoWithout(self.lack(at - now)),
            _ => Need::Fetch(self.begin(now)),
        }
    }

    fn lack(&self, wait: Duration) -> NoToken {
        let mut lack = self.lack.clone().unwrap_or_else(|| NoToken {
            lack: Lack::NotNow,
            errcode: None,
            text: "the access token has expired".into(),
        });
        if lack.lack == Lack::NotNow {
            lack.text += &format!("; the next is fetched in {} s", wait.as_secs() + 1);
        }
        lack
    }

    /// Begins the fetch of the next token while the current one is still good, if it is time.
    pub fn renew(&mut self, now: Instant) -> Option<Fetch> {
        let due = self.renew_at().is_some_and(|at| at <= now);
        (due && !self.fetching).then(|| self.begin(now))
    }

    /// When the current token is to be renewed.
    pub fn renew_at(&self) -> Option<Instant> {
        let renew_at = self.current.as_ref()?.renew_at;
        let renew_at = self.outdated.map_or(renew_at, |at| at.min(renew_at));
        Some(self.not_before.map_or(renew_at, |at| at.max(renew_at)))
    }

    /// How old the current token is, and how long it still lasts, if there is one.
    pub fn token(&self, now: Instant) -> Option<(Duration, Duration)> {
        let token = self.current.as_ref()?;
        let since = |at: Instant, later: Instant| later.saturating_duration_since(at);
        Some((since(token.granted_at, now), since(now, token.expires_at)))
    }

    fn begin(&mut self, now: Instant) -> Fetch {
        self.fetching = true;
        if !(std::mem::take(&mut self.force_next) && self.may_force(now)) {
            return Fetch::Plain;
        }
        self.force_begun = Some(now);
        Fetch::Forced
    }

    fn may_force(&self, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        self.source == TokenSource::Stable
            && since(self.force_answered).is_none_or(|since| since > FORCE_INTERVAL)
            && since(self.force_begun).is_none_or(|since| since > FORCE_APART)
    }

    /// A fetch ended with a token that lasts for so many seconds, if the answer is believed.
    pub fn granted(&mut self, fetch: Fetch, text: &str, seconds: u64, now: Instant) {
        self.ended(fetch, Call::Answered, now);
        self.outdated = self.not_before.filter(|_| std::mem::take(&mut self.fetching_outdated));
        self.lack = None;
        // A renewal: the one before was not refused.
        if self.current.is_some() {
            self.refused = None;
        }
        if let Some(refused) = self.refused.as_ref().filter(|refused| *refused.text == *text)
            && self.may_force(now)
        {
            let text = format!("WeChat issues the access token that it refuses: {}", refused.words);
            let errcode = Some(refused.errcode);
            self.lack = Some(NoToken { lack: Lack::NotNow, errcode, text });
            self.force_next = true;
            return;
        }
        let life = Duration::from_secs(seconds.clamp(*LIFE.start(), *LIFE.end()));
        let margin = OVERLAP.min(life / 24);
        self.current = Some(Arc::new(Token {
            text: text.into(),
            replaces_refused: self.refused.is_some(),
            accepted: AtomicBool::new(false),
            granted_at: now,
            renew_at: now + (life - margin),
            expires_at: now + life,
        }));
    }

    /// A fetch ended without a token.
    pub fn denied(&mut self, fetch: Fetch, call: Call, why: NoToken, now: Instant) {
        self.ended(fetch, call, now);
        self.fetching_outdated = false;
        // One that was cut off may have been done: the next plain one shows it.
        self.force_next = fetch == Fetch::Forced && call == Call::Unsent;
        self.lack = Some(why);
    }

    /// The account has another secret. The token that was fetched with the old one is replaced as soon as the next may
    /// be fetched (T1), and goes on until then: no message has to wait.
    pub fn outdate(&mut self, now: Instant) {
        self.outdated = Some(self.not_before.map_or(now, |at| at.max(now)));
        self.fetching_outdated = self.fetching;
        // What WeChat said of the old secret says nothing about this one.
        (self.refused, self.force_next) = (None, false);
        let text = "wechat.app_secret has changed".into();
        self.lack = Some(NoToken { lack: Lack::NotNow, errcode: None, text });
    }

    fn ended(&mut self, fetch: Fetch, call: Call, now: Instant) {
        self.fetching = false;
        self.not_before = Some(now + self.rest(call));
        match (fetch, call) {
            (Fetch::Forced, Call::Answered) => self.force_answered = Some(now),
            // As if it had not been begun.
            (Fetch::Forced, Call::Unsent) => self.force_begun = None,
            _ => {}
        }
    }

    /// How long nobody calls after such a call.
    fn rest(&self, call: Call) -> Duration {
        match call {
            Call::Unsent => UNSENT_INTERVAL,
            _ if self.source == TokenSource::Classic && self.calls >= CLASSIC_BRISK => {
                CLASSIC_INTERVAL
            }
            _ => INTERVAL,
        }
    }

    /// Counts a call that WeChat may have seen.
    pub fn count(&mut self, unix_seconds: u64) {
        self.turn_day(unix_seconds);
        self.calls += 1;
    }

    /// Calls in the present day of WeChat's.
    pub fn calls_today(&mut self, unix_seconds: u64) -> u64 {
        self.turn_day(unix_seconds);
        self.calls
    }

    fn turn_day(&mut self, unix_seconds: u64) {
        let day = wechat_day(unix_seconds);
        if day != self.day {
            (self.day, self.calls) = (day, 0);
        }
    }

    /// WeChat refused this token with these words: it is dropped unless a newer one took its place already.
    pub fn refuse(&mut self, token: &Arc<Token>, errcode: i64, words: &str) -> Refusal {
        let is_current = self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, token));
        // A late refusal of a token that was replaced meanwhile says nothing about the new one.
        let fault = (is_current || self.current.is_none())
            && token.replaces_refused
            && !token.accepted.load(Ordering::Relaxed);
        if is_current {
            self.current = None;
            let (text, words) = (token.text.clone(), words.to_owned());
            self.refused = Some(Refused { text, errcode, words: words.clone() });
            let (lack, text) = match fault {
                true => (Lack::Config, format!("a fresh access token is refused: {words}")),
                false => (Lack::NotNow, format!("the access token is refused: {words}")),
            };
            self.lack = Some(NoToken { lack, errcode: Some(errcode), text });
        }
        if fault { Refusal::OfTheAccount } else { Refusal::OfThisToken }
    }
}
