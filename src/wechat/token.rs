//! The access token, one for all workers. Whoever finds it missing fetches it; everybody else waits
//! for that one call. Runs on the worker threads; never holds its lock during a call. When it may be
//! fetched at all is decided in refresh.rs.

use super::answer::errmsg;
use super::calls::CallsFile;
use super::client::{Client, Reached, Trouble};
use super::errcode::{Class, Errcodes};
use super::refresh::{Call, Fetch, Lack, Need, NoToken, Refresh, Refusal, Token};
use crate::clock::unix_seconds;
use crate::config::{Config, Secret, TokenSource};
use parking_lot::{Condvar, Mutex, RwLock};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// WeChat's own have at most 512 characters. With its URL it must fit into the client's `OUTPUT_BYTES`.
const LONGEST: usize = 2048;

/// What an answer without `expires_in` is taken to say.
const USUAL_LIFE: u64 = 7200;

/// An idle worker looks after the token so often at most.
const LEAST_NAP: Duration = Duration::from_secs(1);

pub struct Tokens {
    refresh: Mutex<Refresh>,
    /// When the current token is to be renewed, in ms since `born`: looked at after every message.
    renew_at: AtomicU64,
    born: Instant,
    settled: Condvar,
    account: RwLock<Arc<Account>>,
    /// None: no later run is to know of the calls.
    calls: Option<CallsFile>,
}

/// What a call for a token goes by; a reload replaces it.
struct Account {
    app_id: String,
    app_secret: Secret,
    source: TokenSource,
    errcodes: Arc<Errcodes>,
}

impl Account {
    fn new(config: &Config, errcodes: Arc<Errcodes>) -> Arc<Account> {
        Arc::new(Account {
            app_id: config.wechat.app_id.clone(),
            app_secret: config.wechat.app_secret.clone(),
            source: config.wechat.token_source,
            errcodes,
        })
    }
}

impl Tokens {
    pub fn new(config: &Config, errcodes: Arc<Errcodes>) -> Tokens {
        Tokens {
            refresh: Mutex::new(Refresh::new(config.wechat.token_source)),
            renew_at: AtomicU64::new(u64::MAX),
            born: Instant::now(),
            settled: Condvar::new(),
            account: RwLock::new(Account::new(config, errcodes)),
            calls: None,
        }
    }

    /// The same, after the calls that earlier runs have made, and telling later ones of its own.
    pub fn of_daemon(config: &Config, errcodes: Arc<Errcodes>) -> Tokens {
        let tokens = Tokens::new(config, errcodes);
        let file = CallsFile::in_folder(&config.server.queue_file_path);
        if let Some(calls) = file.read(&config.wechat.app_id) {
            tokens.refresh.lock().go_on(&calls, Instant::now(), unix_seconds());
        }
        Tokens { calls: Some(file), ..tokens }
    }

    /// Calls for a token that begin later go by this configuration.
    pub fn configure(&self, config: &Config, errcodes: Arc<Errcodes>) {
        let fresh = Account::new(config, errcodes);
        // A fetch takes what it goes by under this lock, too.
        let mut refresh = self.refresh.lock();
        let old = std::mem::replace(&mut *self.account.write(), Arc::clone(&fresh));
        if old.app_secret != fresh.app_secret {
            refresh.outdate(Instant::now());
            self.note_renewal(&refresh);
        }
    }

    /// The current token, fetched first if there is none and one may be fetched.
    pub fn get(&self, client: &mut Client) -> Result<Arc<Token>, NoToken> {
        let mut refresh = self.refresh.lock();
        loop {
            match refresh.need(Instant::now()) {
                Need::Use(token) => return Ok(token),
                Need::GoWithout(why) => return Err(why),
                // The call that is waited for has a timeout.
                Need::Wait => self.settled.wait(&mut refresh),
                Need::Fetch(fetch) => {
                    let account = Arc::clone(&self.account.read());
                    drop(refresh);
                    self.fetch(client, fetch, &account);
                    refresh = self.refresh.lock();
                }
            }
        }
    }

    /// WeChat refused this token.
    pub fn refuse(&self, token: &Arc<Token>, errcode: i64, words: &str) -> Refusal {
        self.refresh.lock().refuse(token, errcode, words)
    }

    /// Fetches the next token when the current one nears its end; everybody else goes on with the
    /// old one meanwhile.
    pub fn renew_if_due(&self, client: &mut Client) {
        if (self.born.elapsed().as_millis() as u64) < self.renew_at.load(Ordering::Relaxed) {
            return;
        }
        let mut refresh = self.refresh.lock();
        if let Some(fetch) = refresh.renew(Instant::now()) {
            let account = Arc::clone(&self.account.read());
            drop(refresh);
            self.fetch(client, fetch, &account);
        }
    }

    /// How long until somebody should call `renew_if_due`.
    pub fn renew_in(&self) -> Duration {
        let at = Duration::from_millis(self.renew_at.load(Ordering::Relaxed));
        at.saturating_sub(self.born.elapsed()).max(LEAST_NAP)
    }

    /// Calls for a token in the present day of WeChat's (UTC+8).
    pub fn calls_today(&self) -> u64 {
        self.refresh.lock().calls_today(unix_seconds())
    }

    /// How old the current token is, and how long it still lasts, if there is one.
    pub fn token(&self) -> Option<(Duration, Duration)> {
        self.refresh.lock().token(Instant::now())
    }

    /// Makes the call that `refresh` has begun, and books what came of it.
    fn fetch(&self, client: &mut Client, fetch: Fetch, account: &Account) {
        let unfinished = Unfinished { tokens: self, fetch };
        if let Some(file) = &self.calls {
            let mut refresh = self.refresh.lock();
            let calls = refresh.calls(&account.app_id, fetch, unix_seconds(), Instant::now());
            drop(refresh);
            file.write(&calls);
        }
        let fetched = account.call(client, fetch);
        std::mem::forget(unfinished);
        self.book(fetch, fetched);
    }

    fn book(&self, fetch: Fetch, fetched: Result<Grant, (Call, NoToken)>) {
        // Before anybody can use it.
        match &fetched {
            Ok(grant) => crate::logger::hide(&grant.token),
            Err((_, why)) => log::error!("no access token: {}", why.text),
        }
        let mut refresh = self.refresh.lock();
        let now = Instant::now();
        if !matches!(fetched, Err((Call::Unsent, _))) {
            refresh.count(unix_seconds());
        }
        match fetched {
            Ok(grant) => refresh.granted(fetch, &grant.token, grant.seconds, now),
            Err((call, why)) => refresh.denied(fetch, call, why, now),
        }
        self.note_renewal(&refresh);
        drop(refresh);
        self.settled.notify_all();
    }

    fn note_renewal(&self, refresh: &Refresh) {
        let renew_at = refresh
            .renew_at()
            .map_or(u64::MAX, |at| at.saturating_duration_since(self.born).as_millis() as u64);
        self.renew_at.store(renew_at, Ordering::Relaxed);
    }
}

impl Account {
    fn call(&self, client: &mut Client, fetch: Fetch) -> Result<Grant, (Call, NoToken)> {
        let (id, secret) = (&self.app_id, self.app_secret.expose());
        let answer = match self.source {
            TokenSource::Classic => client.get(&format!(
                "/cgi-bin/token?grant_type=client_credential&appid={id}&secret={secret}"
            )),
            TokenSource::Stable => {
                let mut body =
                    json!({"grant_type": "client_credential", "appid": id, "secret": secret});
                if fetch == Fetch::Forced {
                    body["force_refresh"] = true.into();
                }
                client.post("/cgi-bin/stable_token", body.to_string().as_bytes())
            }
        };
        let answer = answer.map_err(|Trouble { text, reached }| {
            let call = match reached {
                Reached::No => Call::Unsent,
                _ => Call::Unanswered,
            };
            let text = format!("fetching the access token: {text}");
            (call, NoToken { lack: Lack::NotNow, errcode: None, text })
        })?;
        self.understand(&answer.into_object()).map_err(|why| (Call::Answered, why))
    }

    fn understand(&self, answer: &Map<String, Value>) -> Result<Grant, NoToken> {
        let token = answer.get("access_token").and_then(Value::as_str);
        if let Some(token) = token.filter(|token| is_usable(token)) {
            let seconds = answer.get("expires_in").and_then(whole_seconds).unwrap_or(USUAL_LIFE);
            return Ok(Grant { token: token.into(), seconds });
        }
        let errcode = answer.get("errcode").and_then(Value::as_i64);
        let errmsg = errmsg(answer).unwrap_or_else(|| "no access_token".into());
        let lack = match errcode.map(|code| self.errcodes.class(code)) {
            Some(Class::Rate) => Lack::Rate,
            // "Invalid credential" here means the secret, not a token.
            Some(Class::Config | Class::Token) => Lack::Config,
            _ => Lack::NotNow,
        };
        let code = errcode.map_or(String::new(), |code| format!("{code} "));
        let text = format!("WeChat gives no access token: {code}{errmsg}");
        Err(NoToken { lack, errcode, text })
    }
}

struct Grant {
    token: String,
    seconds: u64,
}

/// It becomes a part of a URL.
fn is_usable(token: &str) -> bool {
    (1..=LONGEST).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_graphic() && b != b'&' && b != b'#')
}

/// A number, however it is written; below zero it is zero.
fn whole_seconds(value: &Value) -> Option<u64> {
    // The cast saturates, and what is not a number becomes zero.
    let rounded = || value.as_f64().map(|number| number as u64);
    value.as_u64().or_else(rounded).or_else(|| value.as_str()?.parse().ok())
}

/// A fetch under way: one that a panic ends is booked too, and the waiting ones go on.
struct Unfinished<'a> {
    tokens: &'a Tokens,
    fetch: Fetch,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let text = "internal error while the access token was fetched, see the log".into();
        let why = NoToken { lack: Lack::NotNow, errcode: None, text };
        self.tokens.book(self.fetch, Err((Call::Unanswered, why)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Network;
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    /// Answers every call with this text, after a moment; counts them.
    fn wechat(answer: &str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, answer) = (Arc::new(AtomicUsize::new(0)), answer.to_owned());
        let count = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let head = BufReader::new(&stream).lines().map(Result::unwrap);
                assert!(head.take_while(|line| !line.is_empty()).count() > 0);
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
                let length = answer.len();
                let text = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
                );
                (&stream).write_all(text.as_bytes()).unwrap();
            }
        });
        (url, calls)
    }

    fn tokens(url: &str) -> (Tokens, Arc<Network>) {
        let mut config = Config::demo(std::path::Path::new("/nowhere")).unwrap();
        config.wechat.api_hosts = vec![url.to_owned()];
        config.wechat.token_source = TokenSource::Classic;
        let errcodes = Arc::new(Errcodes::new(&[]));
        (Tokens::new(&config, errcodes), Network::open(&config).unwrap())
    }

    #[test]
    fn sixty_four_workers_make_one_call_and_share_what_comes_of_it() {
        for (answer, good) in [
            (r#"{"access_token":"abc","expires_in":7200}"#, true),
            (r#"{"errcode":40125,"errmsg":"invalid appsecret"}"#, false),
        ] {
            let (url, calls) = wechat(answer);
            let (tokens, network) = tokens(&url);
            thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        let mut client = Client::new(Arc::clone(&network));
                        for _ in 0..100 {
                            match tokens.get(&mut client) {
                                Ok(token) => assert!(good && &*token.text == "abc"),
                                Err(why) => assert!(!good && why.lack == Lack::Config, "{why:?}"),
                            }
                        }
                    });
                }
            });
            assert_eq!(calls.load(Ordering::Relaxed), 1);
            assert_eq!(tokens.calls_today(), 1);
        }
    }

    #[test]
    fn a_later_run_knows_of_the_calls_and_of_no_token() {
        let (url, calls) = wechat(r#"{"access_token":"abc-of-the-first","expires_in":7200}"#);
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::demo(folder.path()).unwrap();
        config.wechat.api_hosts = vec![url];
        config.server.queue_file_path = folder.path().to_owned();
        for (source, asked) in
            [(TokenSource::Classic, 1), (TokenSource::Classic, 1), (TokenSource::Stable, 2)]
        {
            config.wechat.token_source = source;
            let network = Network::open(&config).unwrap();
            let tokens = Tokens::of_daemon(&config, Arc::new(Errcodes::new(&[])));
            let before = calls.load(Ordering::Relaxed);
            let got = tokens.get(&mut Client::new(network));
            assert_eq!(calls.load(Ordering::Relaxed), asked, "{source:?}");
            assert_eq!(tokens.calls_today(), asked as u64);
            if asked == before {
                let why = got.unwrap_err();
                assert!(
                    why.lack == Lack::NotNow && why.text.contains("before the start; the next")
                );
            }
        }
        let kept = std::fs::read_to_string(folder.path().join("token-calls")).unwrap();
        assert!(!kept.contains("abc-of-the-first"), "{kept}");
    }

    #[test]
    fn a_call_that_reaches_nobody_counts_for_nothing() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (tokens, network) = tokens(&format!("http://{closed}"));
        let why = tokens.get(&mut Client::new(network)).unwrap_err();
        assert_eq!(why.lack, Lack::NotNow);
        assert!(
            why.text.starts_with("fetching the access token: http://127.0.0.1:"),
            "{}",
            why.text
        );
        assert_eq!(tokens.calls_today(), 0);
    }

    #[test]
    fn an_absurd_life_is_no_panic_and_a_strange_token_is_none() {
        let (tokens, _) = tokens("http://127.0.0.1:1");
        let understood = |text: &str| {
            let Value::Object(answer) = serde_json::from_str(text).unwrap() else { panic!() };
            tokens.account.read().understand(&answer).map(|grant| grant.seconds)
        };
        for (said, seconds) in [
            ("7200", 7200),
            ("0", 0),
            ("-5", 0),
            ("9223372036854775808", 1 << 63),
            ("1000000000000000000000", u64::MAX),
            ("7200.9", 7200),
            (r#""7200""#, 7200),
            ("null", USUAL_LIFE),
        ] {
            let answer = format!(r#"{{"access_token":"abc","expires_in":{said}}}"#);
            assert_eq!(understood(&answer), Ok(seconds), "{said}");
            let grant = Grant { token: "abc".into(), seconds };
            tokens.book(Fetch::Plain, Ok(grant));
        }
        for token in ["", "a b", "a&b", "a\r\nb", "中", &"x".repeat(5000)] {
            let answer = json!({"access_token": token, "expires_in": 7200}).to_string();
            assert_eq!(understood(&answer).unwrap_err().lack, Lack::NotNow, "{token}");
        }
        let refused = |code| understood(&json!({ "errcode": code }).to_string()).unwrap_err().lack;
        let lacks = [Lack::Config, Lack::Config, Lack::Rate, Lack::NotNow, Lack::NotNow];
        assert_eq!([40013, 40001, 45009, -1, 12345].map(refused), lacks);
    }

    #[test]
    fn a_panic_in_a_fetch_leaves_nobody_waiting() {
        let (tokens, network) = tokens("http://127.0.0.1:1");
        let fetch = match tokens.refresh.lock().need(Instant::now()) {
            Need::Fetch(fetch) => fetch,
            other => panic!("{other:?}"),
        };
        drop(Unfinished { tokens: &tokens, fetch });
        let why = tokens.get(&mut Client::new(network)).unwrap_err();
        assert!(why.text.starts_with("internal error"), "{}", why.text);
    }
}
