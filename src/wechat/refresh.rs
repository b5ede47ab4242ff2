//! When the access token may be fetched, how, and what a refusal of it means. The state that all workers
//! share behind one lock (token.rs), and pure: it is told the time and calls nobody.
//!
//! - T1: two calls that WeChat may have seen are at least `INTERVAL` apart, whatever came of them.
//! - T2: one fetch at a time; a fetch that was begun ends with `granted` or `denied`.
//! - T3: a token that replaced a refused one and is refused in turn, without ever having been accepted, is a
//!   fault of the account.

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

pub struct Refresh {
    source: TokenSource,
    current: Option<Arc<Token>>,
    /// T2.
    fetching: bool,
    /// T1: no call before this.
    not_before: Option<Instant>,
    /// Everybody's answer until then.
    lack: Option<NoToken>,
    /// The last token WeChat refused: the same one again is of no use.
    refused: Option<Box<str>>,
    /// WeChat returned the refused token, so the next fetch is a forced one.
    force_next: bool,
    force_answered: Option<Instant>,
    force_begun: Option<Instant>,
    /// Days since 1970 at UTC+8, and the calls in this one.
    day: u64,
    calls: u64,
}

impl Refresh {
    pub fn new(source: TokenSource) -> Refresh {
        Refresh {
            source,
            current: None,
            fetching: false,
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

    pub fn need(&mut self, now: Instant) -> Need {
        if let Some(token) = &self.current
            && now < token.expires_at
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
        Some(self.not_before.map_or(renew_at, |at| at.max(renew_at)))
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
        self.lack = None;
        // A renewal: the one before was not refused.
        if self.current.is_some() {
            self.refused = None;
        }
        if self.refused.as_deref() == Some(text) && self.may_force(now) {
            self.force_next = true;
            let text = "WeChat returns the access token that it refuses";
            self.lack = Some(NoToken { lack: Lack::NotNow, errcode: None, text: text.into() });
            return;
        }
        let life = Duration::from_secs(seconds.clamp(*LIFE.start(), *LIFE.end()));
        let margin = OVERLAP.min(life / 24);
        self.current = Some(Arc::new(Token {
            text: text.into(),
            replaces_refused: self.refused.is_some(),
            accepted: AtomicBool::new(false),
            renew_at: now + (life - margin),
            expires_at: now + life,
        }));
    }

    /// A fetch ended without a token.
    pub fn denied(&mut self, fetch: Fetch, call: Call, why: NoToken, now: Instant) {
        self.ended(fetch, call, now);
        // One that was cut off may have been done: the next plain one shows it.
        self.force_next = fetch == Fetch::Forced && call == Call::Unsent;
        self.lack = Some(why);
    }

    fn ended(&mut self, fetch: Fetch, call: Call, now: Instant) {
        self.fetching = false;
        let rest = match call {
            Call::Unsent => UNSENT_INTERVAL,
            _ if self.source == TokenSource::Classic && self.calls >= CLASSIC_BRISK => {
                CLASSIC_INTERVAL
            }
            _ => INTERVAL,
        };
        self.not_before = Some(now + rest);
        match (fetch, call) {
            (Fetch::Forced, Call::Answered) => self.force_answered = Some(now),
            // As if it had not been begun.
            (Fetch::Forced, Call::Unsent) => self.force_begun = None,
            _ => {}
        }
    }

    /// Counts a call that WeChat may have seen.
    pub fn count(&mut self, unix_seconds: u64) {
        self.turn_day(unix_seconds);
        self.calls += 1;
    }

    /// Calls in the present day of WeChat's, since the start of the daemon.
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
            self.refused = Some(token.text.clone());
            let (lack, text) = match fault {
                true => (Lack::Config, format!("a fresh access token is refused: {words}")),
                false => (Lack::NotNow, format!("the access token is refused: {words}")),
            };
            self.lack = Some(NoToken { lack, errcode: Some(errcode), text });
        }
        if fault { Refusal::OfTheAccount } else { Refusal::OfThisToken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn use_token(refresh: &mut Refresh, now: Instant) -> Arc<Token> {
        match refresh.need(now) {
            Need::Use(token) => token,
            other => panic!("{other:?}"),
        }
    }

    fn without(refresh: &mut Refresh, now: Instant) -> NoToken {
        match refresh.need(now) {
            Need::GoWithout(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn fetch(refresh: &mut Refresh, now: Instant) -> Fetch {
        match refresh.need(now) {
            Need::Fetch(fetch) => fetch,
            other => panic!("{other:?}"),
        }
    }

    fn grant(refresh: &mut Refresh, text: &str, now: Instant) -> Arc<Token> {
        let fetch = fetch(refresh, now);
        refresh.granted(fetch, text, 7200, now);
        use_token(refresh, now)
    }

    fn fault() -> NoToken {
        NoToken { lack: Lack::Config, errcode: Some(40125), text: "40125".into() }
    }

    #[test]
    fn whatever_comes_of_a_call_the_next_is_ten_seconds_later() {
        for call in [Call::Unanswered, Call::Answered] {
            let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
            let fetch = fetch(&mut refresh, start);
            assert!(matches!(refresh.need(start), Need::Wait), "one fetch at a time");
            refresh.denied(fetch, call, fault(), start);
            assert_eq!(without(&mut refresh, start + 9 * SECOND), fault());
            assert!(matches!(refresh.need(start + 10 * SECOND), Need::Fetch(_)));
        }
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let token = grant(&mut refresh, "a", start);
        assert_eq!(refresh.refuse(&token, 40001, "40001 no"), Refusal::OfThisToken);
        let why = without(&mut refresh, start + 2 * SECOND);
        let text = "the access token is refused: 40001 no; the next is fetched in 9 s";
        assert_eq!((why.lack, why.text.as_str()), (Lack::NotNow, text));
        assert!(matches!(refresh.need(start + 10 * SECOND), Need::Fetch(Fetch::Plain)));
    }

    #[test]
    fn a_call_that_was_never_sent_is_tried_again_soon() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let fetch = fetch(&mut refresh, start);
        refresh.denied(fetch, Call::Unsent, fault(), start);
        without(&mut refresh, start);
        assert!(matches!(refresh.need(start + SECOND), Need::Fetch(_)));
    }

    #[test]
    fn a_refusal_of_the_token_that_replaced_a_refused_one_is_a_fault_of_the_account() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let first = grant(&mut refresh, "a", start);
        assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken);
        assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken);
        let second = grant(&mut refresh, "b", start + 10 * SECOND);
        assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken, "an old one");
        assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfTheAccount);
        assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfTheAccount, "the next worker");
        assert_eq!(without(&mut refresh, start + 11 * SECOND).lack, Lack::Config);
        let third = grant(&mut refresh, "c", start + 20 * SECOND);
        assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfThisToken, "a late one");
        third.accept();
        assert_eq!(refresh.refuse(&third, 40001, "no"), Refusal::OfThisToken, "it was good once");
    }

    #[test]
    fn a_renewal_is_no_replacement_of_a_refused_token() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let first = grant(&mut refresh, "a", start);
        refresh.refuse(&first, 40001, "no");
        grant(&mut refresh, "b", start + 10 * SECOND);
        let later = start + 7200 * SECOND;
        let renewal = refresh.renew(later).unwrap();
        refresh.granted(renewal, "c", 7200, later);
        let third = use_token(&mut refresh, later);
        assert_eq!(refresh.refuse(&third, 40001, "no"), Refusal::OfThisToken);
    }

    #[test]
    fn a_token_is_renewed_once_in_its_last_five_minutes_while_the_old_one_is_used() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        grant(&mut refresh, "a", start);
        assert_eq!(refresh.renew_at(), Some(start + 6900 * SECOND));
        assert_eq!(refresh.renew(start + 6899 * SECOND), None);
        let due = start + 6900 * SECOND;
        assert_eq!(refresh.renew(due), Some(Fetch::Plain));
        assert_eq!(refresh.renew(due), None, "one at a time");
        assert_eq!(&*use_token(&mut refresh, due).text, "a");
        refresh.denied(Fetch::Plain, Call::Answered, fault(), due);
        assert_eq!(&*use_token(&mut refresh, due + SECOND).text, "a");
        assert_eq!(refresh.renew_at(), Some(due + 10 * SECOND));
        assert_eq!(refresh.renew(due + 10 * SECOND), Some(Fetch::Plain));
        refresh.granted(Fetch::Plain, "b", 7200, due + 10 * SECOND);
        assert_eq!(&*use_token(&mut refresh, due + 10 * SECOND).text, "b");
    }

    #[test]
    fn a_token_lives_between_a_minute_and_two_hours_whatever_is_said() {
        for (said, lasts) in [(0, 60), (59, 60), (3600, 3600), (1 << 63, 7200), (u64::MAX, 7200)] {
            let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
            let fetch = fetch(&mut refresh, start);
            refresh.granted(fetch, "a", said, start);
            use_token(&mut refresh, start + (lasts - 1) * SECOND);
            assert!(matches!(refresh.need(start + lasts * SECOND), Need::Fetch(_)), "{said}");
        }
    }

    /// Up to where the next call is a forced one; returns when.
    fn until_forced(refresh: &mut Refresh, start: Instant) -> Instant {
        let token = grant(refresh, "a", start);
        assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfThisToken);
        let plain = fetch(refresh, start + 10 * SECOND);
        assert_eq!(plain, Fetch::Plain);
        refresh.granted(plain, "a", 7200, start + 10 * SECOND);
        assert_eq!(without(refresh, start + 10 * SECOND).lack, Lack::NotNow);
        start + 20 * SECOND
    }

    #[test]
    fn a_refused_token_that_comes_back_is_replaced_by_force_once_in_73_minutes() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let mut now = until_forced(&mut refresh, start);
        assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
        refresh.granted(Fetch::Forced, "b", 7200, now);
        let token = use_token(&mut refresh, now);
        assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfTheAccount);
        now += 10 * SECOND;
        // Force is not allowed again, so the same token is tried again.
        let token = grant(&mut refresh, "b", now);
        assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfTheAccount);
        now += 73 * 60 * SECOND;
        assert_eq!(fetch(&mut refresh, now), Fetch::Plain);
        refresh.granted(Fetch::Plain, "b", 7200, now);
        assert_eq!(fetch(&mut refresh, now + 10 * SECOND), Fetch::Forced);
    }

    #[test]
    fn a_force_refresh_that_was_cut_off_does_not_block_the_next_for_long() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let mut now = until_forced(&mut refresh, start);
        assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
        refresh.denied(Fetch::Forced, Call::Unanswered, fault(), now);
        // Perhaps it was done.
        now += 31 * SECOND;
        assert_eq!(fetch(&mut refresh, now), Fetch::Plain);
        refresh.granted(Fetch::Plain, "a", 7200, now);
        now += 10 * SECOND;
        assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
        refresh.denied(Fetch::Forced, Call::Unsent, fault(), now);
        assert_eq!(fetch(&mut refresh, now + SECOND), Fetch::Forced, "nothing was sent");
    }

    #[test]
    fn the_classic_token_is_never_forced() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Classic), Instant::now());
        let token = grant(&mut refresh, "a", start);
        refresh.refuse(&token, 40001, "no");
        let again = grant(&mut refresh, "a", start + 10 * SECOND);
        assert_eq!(refresh.refuse(&again, 40001, "no"), Refusal::OfTheAccount);
        assert_eq!(fetch(&mut refresh, start + 20 * SECOND), Fetch::Plain);
    }

    #[test]
    fn a_day_of_refusals_does_not_use_up_the_classic_tokens_calls() {
        let (mut refresh, start) = (Refresh::new(TokenSource::Classic), Instant::now());
        for second in 0..86_400 {
            let now = start + second * SECOND;
            if let Need::Fetch(fetch) = refresh.need(now) {
                refresh.count(16 * 3_600 + u64::from(second));
                refresh.granted(fetch, &second.to_string(), 7200, now);
            }
            if let Need::Use(token) = refresh.need(now) {
                refresh.refuse(&token, 40001, "no");
            }
        }
        let calls = refresh.calls_today(16 * 3_600);
        assert!((1_800..2_000).contains(&calls), "{calls}");
        assert_eq!(refresh.calls_today(40 * 3_600), 0, "the next day");
    }
}
