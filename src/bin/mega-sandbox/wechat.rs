//! The fake WeChat itself: it answers one request, without sockets or waiting, and says how long the answer
//! is held back and whether there is one at all. The order of its checks is the order of `send`. The
//! /sandbox calls that steer it are in page.rs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::answer::{Answer, Outcome, Reply, default_errmsg};
use crate::deliveries::{Accepted, Deliveries, Keep, Send};
use crate::faults::{Faults, Strike};
use crate::http::Request;
use crate::tokens::{Grant, Refresh, Tokens, Verdict};

/// Who may fetch a token; None accepts anyone.
#[derive(Default)]
pub struct Account {
    pub app_id: Option<String>,
    pub app_secret: Option<String>,
}

#[derive(Debug, Default)]
pub struct Stats {
    pub requests: u64,
    /// Answered errcodes, `http 500` and the like, and the faults without an answer, by name;
    /// `tls` for each connection whose TLS came to nothing.
    pub errors: BTreeMap<String, u64>,
    pub classic_calls: u64,
    pub stable_calls: u64,
    pub forced_calls: u64,
    pub connections: usize,
    pub max_connections: usize,
    /// Requests whose answer is held back; the others are answered within the same step.
    pub in_flight: usize,
    pub max_in_flight: usize,
}

impl Stats {
    pub fn hold(&mut self) {
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
    }
}

/// The sends of one day, a day being one at UTC+8, for `daily_quota`.
#[derive(Default)]
struct Today {
    day: u64,
    sends: u64,
}

pub struct WeChat {
    pub tokens: Tokens,
    pub faults: Faults,
    pub deliveries: Deliveries,
    pub stats: Stats,
    account: Account,
    today: Today,
}

/// template/send returns a msgid and knows client_msg_id; its successors have neither.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Template,
    Subscribe,
}

impl WeChat {
    pub fn new(account: Account, token_ttl: Duration, keep: Keep, faults: Faults) -> Self {
        WeChat {
            tokens: Tokens::new(token_ttl),
            faults,
            deliveries: Deliveries::new(keep),
            stats: Stats::default(),
            account,
            today: Today::default(),
        }
    }

    pub fn reply(&mut self, request: &Request, now: Instant) -> Reply {
        let method = match request.path.as_str() {
            "/cgi-bin/token" => "GET",
            "/cgi-bin/stable_token"
            | "/cgi-bin/message/template/send"
            | "/cgi-bin/message/subscribe/bizsend"
            | "/cgi-bin/message/subscribe/send" => "POST",
            _ => return Reply::now(self.page(request, now)),
        };
        self.stats.requests += 1;
        if request.method != method {
            return Reply::now(Answer::status(405));
        }
        match request.path.as_str() {
            "/cgi-bin/token" => self.classic_reply(request, now),
            "/cgi-bin/stable_token" => self.stable_reply(request, now),
            "/cgi-bin/message/template/send" => self.send_reply(Api::Template, request, now),
            _ => self.send_reply(Api::Subscribe, request, now),
        }
    }

    /// Forgets everything counted and delivered; tokens and faults stay, sequences start again.
    pub fn reset(&mut self) {
        self.deliveries.clear();
        self.faults.restart();
        self.today = Today::default();
        self.stats = Stats {
            connections: self.stats.connections,
            max_connections: self.stats.connections,
            in_flight: self.stats.in_flight,
            max_in_flight: self.stats.in_flight,
            ..Stats::default()
        };
    }

    /// `GET /cgi-bin/token?grant_type=client_credential&appid=..&secret=..`
    fn classic_reply(&mut self, request: &Request, now: Instant) -> Reply {
        self.stats.classic_calls += 1;
        let refused = self.check_account(|name| request.parameter(name));
        self.token_reply(refused, |tokens| tokens.classic(now))
    }

    /// `POST /cgi-bin/stable_token` with `{grant_type, appid, secret, force_refresh?}`
    fn stable_reply(&mut self, request: &Request, now: Instant) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let refresh = if body["force_refresh"] == true {
            self.stats.forced_calls += 1;
            Refresh::Forced
        } else {
            self.stats.stable_calls += 1;
            Refresh::WhenDue
        };
        let refused = match body.is_object() {
            true => self.check_account(|name| body[name].as_str().map(str::to_string)),
            false => Some(47001),
        };
        self.token_reply(refused, |tokens| tokens.stable(refresh, now))
    }

    /// A refused or faulty call issues nothing, so that it kills no token either.
    fn token_reply(
        &mut self,
        refused: Option<i64>,
        issue: impl FnOnce(&mut Tokens) -> Grant,
    ) -> Reply {
        let fault = self.faults.token_errcode.filter(|errcode| *errcode != 0);
        let answer = if let Some(status) = self.faults.token_http_status {
            self.http_status(status)
        } else if let Some(errcode) = fault.or(refused) {
            self.error(errcode, None)
        } else {
            let grant = issue(&mut self.tokens);
            let expires_in = match &self.faults.token_expires_in {
                Some(absurd) => absurd.clone(),
                None => grant.expires_in.as_secs().into(),
            };
            Answer::json(&json!({"access_token": grant.token, "expires_in": expires_in}))
        };
        Reply { delay: self.faults.token_latency, outcome: Outcome::Answer(answer) }
    }

    fn check_account(&self, member: impl Fn(&str) -> Option<String>) -> Option<i64> {
        let differs = |wanted: &Option<String>, name| wanted.is_some() && member(name) != *wanted;
        if member("grant_type").as_deref() != Some("client_credential") {
            Some(40002)
        } else if differs(&self.account.app_id, "appid") {
            Some(40013)
        } else if differs(&self.account.app_secret, "secret") {
            Some(40125)
        } else {
            None
        }
    }

    fn send_reply(&mut self, api: Api, request: &Request, now: Instant) -> Reply {
        Reply { delay: self.faults.latency(), outcome: self.send(api, request, now) }
    }

    /// `POST /cgi-bin/message/template/send?access_token=..` and its successors. The checks: faults without an
    /// errcode or with one of the token class, token, body, other faults, quota, repeat.
    fn send(&mut self, api: Api, request: &Request, now: Instant) -> Outcome {
        let body: Option<Value> =
            serde_json::from_slice(&request.body).ok().filter(Value::is_object);
        let member = |name: &str| {
            body.as_ref().and_then(|body| body[name].as_str()).filter(|text| !text.is_empty())
        };
        let openid = member("touser");
        let token_error = self.check_token(request, now);
        let strike = self.faults.strike(openid.unwrap_or(""), token_error.is_none());
        let fault = match &strike {
            Some(Strike::HttpStatus(status)) => return Outcome::Answer(self.http_status(*status)),
            Some(Strike::Garbage) => {
                return self.spoil("garbage", Outcome::Answer(Answer::garbage()));
            }
            Some(Strike::Hang) => return self.spoil("hang", Outcome::Hang),
            Some(Strike::Close) => return self.spoil("close", Outcome::Close),
            Some(Strike::Huge) => return self.spoil("huge", Outcome::Huge),
            Some(Strike::Errcode { errcode, errmsg }) => Some((*errcode, errmsg.as_deref())),
            Some(Strike::CloseAfter) | None => None,
        };
        // Behind a refused token only a fault of the token class strikes, and then it hides the real refusal.
        if let Some(errcode) = token_error {
            let (errcode, errmsg) = fault.unwrap_or((errcode, None));
            return Outcome::Answer(self.error(errcode, errmsg));
        }
        let Some(openid) = openid else {
            let errcode = if body.is_none() { 47001 } else { 40003 };
            return Outcome::Answer(self.error(errcode, None));
        };
        if let Some((errcode, errmsg)) = fault {
            return Outcome::Answer(self.error(errcode, errmsg));
        }
        if self.over_quota() {
            return Outcome::Answer(self.error(45009, None));
        }
        let send = Send {
            openid,
            client_msg_id: member("client_msg_id").filter(|_| api == Api::Template),
            body: &request.body,
        };
        let accepted = self.deliveries.accept(&send, now);
        let (Accepted::Delivered { msgid } | Accepted::Repeat { msgid }) = accepted;
        if let Accepted::Delivered { .. } = accepted {
            self.today.sends += 1;
        }
        if strike == Some(Strike::CloseAfter) {
            return self.spoil("close_after", Outcome::Close);
        }
        Outcome::Answer(Answer::json(&match api {
            Api::Template => json!({"errcode": 0, "errmsg": "ok", "msgid": msgid}),
            Api::Subscribe => json!({"errcode": 0, "errmsg": "ok"}),
        }))
    }

    fn check_token(&self, request: &Request, now: Instant) -> Option<i64> {
        match request.parameter("access_token").filter(|token| !token.is_empty()) {
            None => Some(41001),
            Some(token) => match self.tokens.check(&token, now) {
                Verdict::Valid => None,
                Verdict::Unknown => Some(40001),
                Verdict::Expired => Some(42001),
            },
        }
    }

    fn over_quota(&mut self) -> bool {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let day = (seconds + 8 * 3600) / 86_400;
        if day != self.today.day {
            self.today = Today { day, sends: 0 };
        }
        self.faults.daily_quota.is_some_and(|quota| self.today.sends >= quota)
    }

    fn error(&mut self, errcode: i64, errmsg: Option<&[u8]>) -> Answer {
        self.count_error(errcode.to_string());
        let Some(errmsg) = errmsg else {
            let errmsg = format!(
                "{} rid: {:08x}-{:08x}-{:08x}",
                default_errmsg(errcode),
                fastrand::u32(..),
                fastrand::u32(..),
                fastrand::u32(..)
            );
            return Answer::json(&json!({"errcode": errcode, "errmsg": errmsg}));
        };
        let head = format!(r#"{{"errcode":{errcode},"errmsg":"#);
        Answer::as_json([head.as_bytes(), errmsg, b"}"].concat())
    }

    fn http_status(&mut self, status: u16) -> Answer {
        self.count_error(format!("http {status}"));
        Answer::status(status)
    }

    fn spoil(&mut self, name: &str, outcome: Outcome) -> Outcome {
        self.count_error(name.to_string());
        outcome
    }

    pub fn count_error(&mut self, name: String) {
        *self.stats.errors.entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_PATH: &str = "/cgi-bin/token?grant_type=client_credential&appid=a&secret=s";
    const STABLE: &str = r#"{"grant_type":"client_credential","appid":"a","secret":"s"}"#;
    const MESSAGE: &str = r#"{"touser":"o1","client_msg_id":"k1","data":{}}"#;

    struct Sandbox {
        wechat: WeChat,
        now: Instant,
        token: String,
    }

    impl Sandbox {
        fn new(account: Account) -> Sandbox {
            let ttl = Duration::from_secs(7200);
            let wechat = WeChat::new(account, ttl, Keep::Messages(10), Faults::default());
            Sandbox { wechat, now: Instant::now(), token: String::new() }
        }

        fn with_token() -> Sandbox {
            let mut sandbox = Sandbox::new(Account::default());
            sandbox.token = sandbox.wechat.tokens.stable(Refresh::WhenDue, sandbox.now).token;
            sandbox
        }

        fn faults(&mut self, json: &str) {
            self.wechat.faults = Faults::parse(json.as_bytes()).unwrap();
        }

        fn call(&mut self, method: &str, target: &str, body: &str) -> Outcome {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let request = Request {
                method: method.to_string(),
                path: path.to_string(),
                query: query.to_string(),
                body: body.as_bytes().to_vec(),
                keep_alive: true,
            };
            self.wechat.reply(&request, self.now).outcome
        }

        fn send(&mut self, body: &str) -> Outcome {
            let target = format!("/cgi-bin/message/template/send?access_token={}", self.token);
            self.call("POST", &target, body)
        }
    }

    fn json(outcome: Outcome) -> Value {
        match outcome {
            Outcome::Answer(answer) => serde_json::from_slice(&answer.body).unwrap(),
            other => panic!("no answer: {other:?}"),
        }
    }

    fn errcode(outcome: Outcome) -> i64 {
        json(outcome)["errcode"].as_i64().unwrap()
    }

    #[test]
    fn a_repeat_is_answered_with_the_same_msgid_and_not_delivered() {
        let mut sandbox = Sandbox::with_token();
        let first = json(sandbox.send(MESSAGE));
        assert_eq!((&first["errcode"], &first["errmsg"]), (&json!(0), &json!("ok")));
        assert!(first["msgid"].as_u64().unwrap() > 1 << 53);
        assert_eq!(json(sandbox.send(MESSAGE)), first);
        assert_eq!(
            (sandbox.wechat.deliveries.delivered, sandbox.wechat.deliveries.repeats),
            (1, 1)
        );
    }

    #[test]
    fn the_successors_know_neither_msgid_nor_client_msg_id() {
        let mut sandbox = Sandbox::with_token();
        for path in ["bizsend", "send", "send"] {
            let target =
                format!("/cgi-bin/message/subscribe/{path}?access_token={}", sandbox.token);
            assert_eq!(
                json(sandbox.call("POST", &target, MESSAGE)),
                json!({"errcode": 0, "errmsg": "ok"})
            );
        }
        assert_eq!(sandbox.wechat.deliveries.delivered, 3);
    }

    #[test]
    fn each_check_has_its_errcode() {
        let mut sandbox = Sandbox::with_token();
        let path = "/cgi-bin/message/template/send";
        assert_eq!(errcode(sandbox.call("POST", path, MESSAGE)), 41001);
        assert_eq!(
            errcode(sandbox.call("POST", &format!("{path}?access_token=x"), MESSAGE)),
            40001
        );
        assert_eq!(errcode(sandbox.send("{\"touser\":")), 47001);
        assert_eq!(errcode(sandbox.send("[]")), 47001);
        assert_eq!(errcode(sandbox.send("{}")), 40003);
        assert_eq!(errcode(sandbox.send(r#"{"touser":""}"#)), 40003);
        sandbox.wechat.tokens.expire(sandbox.now);
        assert_eq!(errcode(sandbox.send(MESSAGE)), 42001);
        assert_eq!(sandbox.wechat.stats.errors["47001"], 2);
    }

    #[test]
    fn tokens_go_to_the_account_only() {
        let mut sandbox = Sandbox::new(Account {
            app_id: Some("a".to_string()),
            app_secret: Some("s".to_string()),
        });
        let stable = "/cgi-bin/stable_token";
        assert!(json(sandbox.call("GET", TOKEN_PATH, ""))["access_token"].is_string());
        assert_eq!(json(sandbox.call("POST", stable, STABLE))["expires_in"], 7200);
        assert_eq!(errcode(sandbox.call("POST", stable, &STABLE.replace("\"a\"", "\"b\""))), 40013);
        assert_eq!(errcode(sandbox.call("GET", &TOKEN_PATH.replace("secret=s", ""), "")), 40125);
        assert_eq!(errcode(sandbox.call("GET", "/cgi-bin/token", "")), 40002);
        assert_eq!(errcode(sandbox.call("POST", stable, "x")), 47001);
    }

    #[test]
    fn a_failed_token_call_kills_no_token() {
        let mut sandbox = Sandbox::new(Account::default());
        sandbox.token =
            json(sandbox.call("GET", TOKEN_PATH, ""))["access_token"].as_str().unwrap().to_string();
        sandbox.faults(r#"{"token_errcode":-1}"#);
        assert_eq!(errcode(sandbox.call("GET", TOKEN_PATH, "")), -1);
        sandbox.faults(r#"{"token_http_status":503}"#);
        assert_eq!(sandbox.call("GET", TOKEN_PATH, ""), Outcome::Answer(Answer::status(503)));
        assert_eq!(errcode(sandbox.send(MESSAGE)), 0);
        assert_eq!(sandbox.wechat.stats.classic_calls, 3);
    }

    #[test]
    fn token_faults_strike_behind_a_refused_token_and_other_faults_do_not() {
        let mut sandbox = Sandbox::new(Account::default());
        sandbox.faults(r#"{"answer":{"errcode":43101}}"#);
        assert_eq!(errcode(sandbox.send(MESSAGE)), 41001);
        sandbox.faults(r#"{"answer":{"errcode":42001,"errmsg":"mine"}}"#);
        assert_eq!(json(sandbox.send(MESSAGE)), json!({"errcode": 42001, "errmsg": "mine"}));
    }

    #[test]
    fn close_after_delivers_and_close_does_not() {
        let mut sandbox = Sandbox::with_token();
        sandbox.faults(r#"{"answer":{"close":true}}"#);
        assert_eq!(sandbox.send(MESSAGE), Outcome::Close);
        assert_eq!(sandbox.wechat.deliveries.delivered, 0);
        sandbox.faults(r#"{"answer":{"close_after":true}}"#);
        assert_eq!(sandbox.send(MESSAGE), Outcome::Close);
        assert_eq!(sandbox.wechat.deliveries.delivered, 1);
    }

    #[test]
    fn beyond_the_daily_quota_nothing_is_delivered() {
        let mut sandbox = Sandbox::with_token();
        sandbox.faults(r#"{"daily_quota":2}"#);
        let codes: Vec<i64> =
            (0..3).map(|n| errcode(sandbox.send(&format!(r#"{{"touser":"o{n}"}}"#)))).collect();
        assert_eq!(codes, [0, 0, 45009]);
        assert_eq!(sandbox.wechat.deliveries.delivered, 2);
    }
}
