//! The access token, one for all workers. Whoever finds it missing fetches it; everybody else waits
//! for that one call. Runs on the worker threads; never holds its lock during a call.

use super::client::{Client, Trouble};
use super::errcode::{Class, Errcodes};
use crate::config::{Config, Secret, TokenSource};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// WeChat issues the next token this long before the current one ends, and both are valid then.
const OVERLAP: Duration = Duration::from_secs(300);

/// A failed fetch is everybody's answer for so long: no storm of calls with a wrong secret.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// WeChat's limits for force_refresh: 20 a day, 30 seconds apart. 73 minutes keep both.
const FORCE_INTERVAL: Duration = Duration::from_secs(73 * 60);

/// Why there is no token.
#[derive(Debug, Clone)]
pub struct NoToken {
    pub class: Class,
    pub errcode: Option<i64>,
    /// One line.
    pub text: String,
}

struct Token {
    text: Arc<str>,
    renew_at: Instant,
    expires_at: Instant,
}

#[derive(Default)]
struct State {
    current: Option<Token>,
    fetching: bool,
    failure: Option<(Instant, NoToken)>,
    /// The last token WeChat refused: the same one again is of no use.
    refused: Option<Arc<str>>,
    forced: Option<Instant>,
}

pub struct Tokens {
    state: Mutex<State>,
    /// When the current token is to be renewed, in ms since `born`: looked at after every message.
    renew_at: AtomicU64,
    born: Instant,
    settled: Condvar,
    app_id: String,
    app_secret: Secret,
    source: TokenSource,
    errcodes: Arc<Errcodes>,
}

impl Tokens {
    pub fn new(config: &Config, errcodes: Arc<Errcodes>) -> Tokens {
        Tokens {
            state: Mutex::default(),
            renew_at: AtomicU64::new(u64::MAX),
            born: Instant::now(),
            settled: Condvar::new(),
            app_id: config.wechat.app_id.clone(),
            app_secret: config.wechat.app_secret.clone(),
            source: config.wechat.token_source,
            errcodes,
        }
    }

    /// The current token, fetched first if there is none.
    pub fn get(&self, client: &mut Client) -> Result<Arc<str>, NoToken> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            if let Some(token) = &state.current
                && now < token.expires_at
            {
                return Ok(Arc::clone(&token.text));
            }
            if let Some((at, failure)) = &state.failure
                && now < *at + FAILURE_HOLDS
            {
                return Err(failure.clone());
            }
            if !state.fetching {
                state.fetching = true;
                drop(state);
                return self.fetch(client);
            }
            self.settled.wait(&mut state);
        }
    }

    /// WeChat refused this token: it is dropped unless a newer one took its place already.
    pub fn refuse(&self, token: &Arc<str>) {
        let mut state = self.state.lock();
        if state.current.as_ref().is_some_and(|current| current.text == *token) {
            state.current = None;
            state.refused = Some(Arc::clone(token));
        }
    }

    /// Fetches the next token when the current one nears its end; everybody else goes on with the
    /// old one meanwhile.
    pub fn renew_if_due(&self, client: &mut Client) {
        if (self.born.elapsed().as_millis() as u64) < self.renew_at.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        let due = state.current.as_ref().is_some_and(|t| t.renew_at <= Instant::now());
        let resting = state.failure.as_ref().is_some_and(|(at, _)| at.elapsed() < OVERLAP / 30);
        if due && !resting && !state.fetching {
            state.fetching = true;
            drop(state);
            // A failure is kept for whoever needs a token after this one has ended.
            let _ = self.fetch(client);
        }
    }

    /// How long until somebody should call `renew_if_due`.
    pub fn renew_in(&self) -> Duration {
        let at = Duration::from_millis(self.renew_at.load(Ordering::Relaxed));
        at.saturating_sub(self.born.elapsed()).max(FAILURE_HOLDS)
    }

    fn fetch(&self, client: &mut Client) -> Result<Arc<str>, NoToken> {
        // Whatever happens on the way, `fetching` ends and the waiting ones go on.
        let _settle = Settle(self);
        let mut fetched = self.call(client, false);
        if let Ok((text, _)) = &fetched
            && self.needs_force(text)
        {
            fetched = self.call(client, true);
        }
        let mut state = self.state.lock();
        match fetched {
            Ok((text, lasts)) => {
                let text: Arc<str> = text.into();
                let now = Instant::now();
                let margin = OVERLAP.min(lasts / 24);
                let renew_at = now + lasts.saturating_sub(margin).max(margin / 5);
                let after = renew_at.duration_since(self.born).as_millis();
                self.renew_at.store(after as u64, Ordering::Relaxed);
                crate::logger::hide(&text);
                let token = Token { text: Arc::clone(&text), renew_at, expires_at: now + lasts };
                state.current = Some(token);
                state.failure = None;
                Ok(text)
            }
            Err(failure) => {
                log::error!("no access token: {}", failure.text);
                state.failure = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// WeChat keeps returning a token that it refuses: only force_refresh helps, and rarely.
    fn needs_force(&self, text: &str) -> bool {
        let mut state = self.state.lock();
        let refused = state.refused.as_deref() == Some(text);
        let allowed = state.forced.is_none_or(|at| at.elapsed() > FORCE_INTERVAL);
        let force = refused && allowed && self.source == TokenSource::Stable;
        if force {
            state.forced = Some(Instant::now());
        }
        force
    }

    fn call(&self, client: &mut Client, force: bool) -> Result<(String, Duration), NoToken> {
        let (id, secret) = (&self.app_id, self.app_secret.expose());
        let answer = match self.source {
            TokenSource::Classic => client.get(&format!(
                "/cgi-bin/token?grant_type=client_credential&appid={id}&secret={secret}"
            )),
            TokenSource::Stable => {
                let mut body =
                    json!({"grant_type": "client_credential", "appid": id, "secret": secret});
                if force {
                    body["force_refresh"] = true.into();
                }
                client.post("/cgi-bin/stable_token", body.to_string().as_bytes())
            }
        };
        let answer = answer.map_err(|Trouble { text, .. }| NoToken {
            class: Class::Later,
            errcode: None,
            text: format!("fetching the access token: {text}"),
        })?;
        self.understand(answer.into_object())
    }

    fn understand(&self, answer: Map<String, Value>) -> Result<(String, Duration), NoToken> {
        let token = answer.get("access_token").and_then(Value::as_str);
        let lasts = answer.get("expires_in").and_then(Value::as_u64);
        if let (Some(token), Some(lasts)) = (token, lasts)
            && !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_graphic() && b != b'&' && b != b'#')
        {
            return Ok((token.to_owned(), Duration::from_secs(lasts)));
        }
        let errcode = answer.get("errcode").and_then(Value::as_i64);
        let errmsg = answer.get("errmsg").and_then(Value::as_str).unwrap_or("no access_token");
        let class = match errcode.map(|code| self.errcodes.class(code)) {
            Some(class @ (Class::Rate | Class::Config | Class::Later)) => class,
            // "Invalid credential" here means the secret, not a token.
            Some(Class::Token) => Class::Config,
            _ => Class::Later,
        };
        let code = errcode.map_or(String::new(), |code| format!("{code} "));
        Err(NoToken {
            class,
            errcode,
            text: format!("WeChat gives no access token: {code}{errmsg}"),
        })
    }
}

struct Settle<'a>(&'a Tokens);

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.0.state.lock().fetching = false;
        self.0.settled.notify_all();
    }
}
