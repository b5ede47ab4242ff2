//! The access tokens the sandbox has issued, classic and stable, and which of them still hold. It owns no
//! clock: each call is told the time. It forgets the oldest tokens, which are then refused as unknown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Enough to tell an expired token from an unknown one for a long while.
const REMEMBERED: usize = 1000;
const TOKEN_LENGTH: usize = 136;
/// A stable token is replaced in its last five minutes, and proportionally earlier with a short life.
const LAST_WINDOW: Duration = Duration::from_secs(300);
const LAST_WINDOW_SHARE: u32 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Classic,
    Stable,
}

/// What a stable_token call does with a token that still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    WhenDue,
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// Never issued, forgotten, or killed by a later call.
    Unknown,
    Expired,
}

#[derive(Debug, Clone)]
struct Issued {
    token: String,
    kind: Kind,
    expires: Instant,
    killed: bool,
}

/// A token and how long it still holds.
#[derive(Debug, PartialEq)]
pub struct Grant {
    pub token: String,
    pub expires_in: Duration,
}

pub struct Tokens {
    ttl: Duration,
    issued: VecDeque<Issued>,
}

impl Tokens {
    pub fn new(ttl: Duration) -> Self {
        Tokens { ttl, issued: VecDeque::new() }
    }

    /// `GET /cgi-bin/token`: a new token; the previous one is dead.
    pub fn classic(&mut self, now: Instant) -> Grant {
        self.kill(Kind::Classic);
        self.issue(Kind::Classic, now)
    }

    /// `POST /cgi-bin/stable_token`: the same token until its last window, then a new one beside it.
    pub fn stable(&mut self, refresh: Refresh, now: Instant) -> Grant {
        if refresh == Refresh::Forced {
            self.kill(Kind::Stable);
        }
        let window = LAST_WINDOW.min(self.ttl / LAST_WINDOW_SHARE);
        let newest = self.issued.iter().rev().find(|issued| issued.kind == Kind::Stable);
        if let Some(current) = newest {
            let left = current.expires.saturating_duration_since(now);
            if !current.killed && left > window {
                return Grant { token: current.token.clone(), expires_in: left };
            }
        }
        self.issue(Kind::Stable, now)
    }

    /// Newest first: the token in use is nearly always the newest.
    pub fn check(&self, token: &str, now: Instant) -> Verdict {
        match self.issued.iter().rev().find(|issued| issued.token == token) {
            None => Verdict::Unknown,
            Some(issued) if issued.killed => Verdict::Unknown,
            Some(issued) if issued.expires <= now => Verdict::Expired,
            Some(_) => Verdict::Valid,
        }
    }

    /// Every token issued so far expires now.
    pub fn expire(&mut self, now: Instant) {
        for issued in &mut self.issued {
            issued.expires = issued.expires.min(now);
        }
    }

    fn kill(&mut self, kind: Kind) {
        for issued in self.issued.iter_mut().filter(|issued| issued.kind == kind) {
            issued.killed = true;
        }
    }

    fn issue(&mut self, kind: Kind, now: Instant) -> Grant {
        let token: String =
            std::iter::repeat_with(fastrand::alphanumeric).take(TOKEN_LENGTH).collect();
        if self.issued.len() == REMEMBERED {
            self.issued.pop_front();
        }
        self.issued.push_back(Issued {
            token: token.clone(),
            kind,
            expires: now + self.ttl,
            killed: false,
        });
        Grant { token, expires_in: self.ttl }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(7200);

    #[test]
    fn each_classic_call_kills_the_previous_classic_token_only() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let stable = tokens.stable(Refresh::WhenDue, now).token;
        let first = tokens.classic(now).token;
        let second = tokens.classic(now).token;
        assert_eq!(tokens.check(&first, now), Verdict::Unknown);
        assert_eq!(tokens.check(&second, now), Verdict::Valid);
        assert_eq!(tokens.check(&stable, now), Verdict::Valid);
        assert_eq!(tokens.check(&second, now + TTL), Verdict::Expired);
    }

    #[test]
    fn a_stable_token_stays_until_its_last_window_and_then_both_hold() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let first = tokens.stable(Refresh::WhenDue, now).token;
        let later = now + TTL - LAST_WINDOW - Duration::from_secs(1);
        let again = tokens.stable(Refresh::WhenDue, later);
        assert_eq!((again.token.as_str(), again.expires_in.as_secs()), (first.as_str(), 301));
        let due = now + TTL - LAST_WINDOW;
        let second = tokens.stable(Refresh::WhenDue, due).token;
        assert_ne!(first, second);
        assert_eq!(tokens.check(&first, due), Verdict::Valid);
        assert_eq!(tokens.check(&second, due), Verdict::Valid);
        assert_eq!(tokens.check(&first, now + TTL), Verdict::Expired);
    }

    #[test]
    fn a_forced_refresh_kills_the_stable_token() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let first = tokens.stable(Refresh::WhenDue, now).token;
        let second = tokens.stable(Refresh::Forced, now).token;
        assert_eq!(tokens.check(&first, now), Verdict::Unknown);
        assert_eq!(tokens.check(&second, now), Verdict::Valid);
        assert_eq!(tokens.stable(Refresh::WhenDue, now).token, second);
    }

    #[test]
    fn an_expired_token_is_refused_as_expired_and_replaced() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let first = tokens.stable(Refresh::WhenDue, now).token;
        tokens.expire(now);
        assert_eq!(tokens.check(&first, now), Verdict::Expired);
        let second = tokens.stable(Refresh::WhenDue, now).token;
        assert_ne!(first, second);
        assert_eq!(tokens.check(&second, now), Verdict::Valid);
    }

    #[test]
    fn the_oldest_tokens_are_forgotten() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        for _ in 0..REMEMBERED + 10 {
            tokens.classic(now);
        }
        assert_eq!(tokens.issued.len(), REMEMBERED);
    }
}
