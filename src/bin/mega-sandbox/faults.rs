//! The faults the sandbox plays, read from the JSON of `POST /sandbox/faults` or `--faults`, and how far each
//! openid has come in a `seq`. It decides what goes wrong; wechat.rs carries it out. A member it does not
//! know is refused, so that a typing error is not a fault that silently never happens.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// What goes wrong with one send.
#[derive(Debug, Clone, PartialEq)]
pub enum Strike {
    Errcode {
        errcode: i64,
        /// The JSON string as it stands in the answer, with its quotes; perhaps no valid one.
        errmsg: Option<Vec<u8>>,
    },
    HttpStatus(u16),
    /// No answer, the connection stays open.
    Hang,
    /// No answer, nothing delivered, the connection is closed.
    Close,
    /// Delivered, then closed without an answer: the ambiguous failure.
    CloseAfter,
    /// An answer with status 200 that is not JSON.
    Garbage,
    /// An answer of 100 MiB.
    Huge,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Always(Strike),
    /// One errcode per request of an openid; the last one stays.
    Sequence(Vec<i64>),
}

#[derive(Debug, Clone, PartialEq)]
struct Fault {
    action: Action,
    /// The part of the requests it strikes, 0 to 1.
    share: f64,
}

/// What a client that begins to speak TLS meets instead of a proper session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// A fatal alert.
    Refuse,
    /// The end of the connection in the middle of the handshake.
    Close,
    /// No answer, the connection stays open.
    Hang,
    /// A certificate of another name.
    WrongName,
    /// A certificate that was valid once.
    Expired,
}

#[derive(Debug, Default)]
pub struct Faults {
    source: Map<String, Value>,
    latency: Duration,
    jitter: Duration,
    answer: Option<Fault>,
    openids: HashMap<String, Fault>,
    steps: HashMap<String, usize>,
    pub daily_quota: Option<u64>,
    pub token_errcode: Option<i64>,
    pub token_http_status: Option<u16>,
    pub token_latency: Duration,
    /// What stands for `expires_in` in a token's answer.
    pub token_expires_in: Option<Value>,
    pub tls: Option<TlsFault>,
    /// For how long nobody listens.
    pub refuse: Option<Duration>,
    /// They have just been set, and what they do to connections is yet to be done.
    pub fresh: bool,
}

impl Faults {
    pub fn parse(json: &[u8]) -> Result<Faults, String> {
        let source = match serde_json::from_slice(json) {
            Ok(Value::Object(source)) => source,
            Ok(_) => return Err("faults must be a JSON object, {} for none".to_string()),
            Err(error) => return Err(format!("faults are not JSON: {error}")),
        };
        let mut faults = Faults { fresh: true, ..Faults::default() };
        for (name, value) in &source {
            match name.as_str() {
                "latency_ms" => faults.latency = milliseconds(name, value)?,
                "latency_jitter_ms" => faults.jitter = milliseconds(name, value)?,
                "answer" => faults.answer = Some(parse_fault(name, value)?),
                "openids" => {
                    let Value::Object(openids) = value else {
                        return Err("openids must be an object {\"OPENID\": answer}".to_string());
                    };
                    for (openid, value) in openids {
                        faults.openids.insert(openid.clone(), parse_fault(openid, value)?);
                    }
                }
                "daily_quota" => faults.daily_quota = Some(number(name, value)?),
                "token_errcode" => faults.token_errcode = Some(errcode(name, value)?),
                "token_http_status" => faults.token_http_status = Some(http_status(name, value)?),
                "token_latency_ms" => faults.token_latency = milliseconds(name, value)?,
                "token_expires_in" => faults.token_expires_in = Some(value.clone()),
                "tls" => faults.tls = Some(tls_fault(value)?),
                "refuse_ms" => faults.refuse = Some(milliseconds(name, value)?),
                _ => return Err(format!("there is no fault `{name}`")),
            }
        }
        faults.source = source;
        Ok(faults)
    }

    pub fn source(&self) -> &Map<String, Value> {
        &self.source
    }

    /// How long this send's answer is held back.
    pub fn latency(&self) -> Duration {
        self.latency + self.jitter.mul_f64(fastrand::f64())
    }

    /// What goes wrong with a send to `openid`; None for nothing. Behind a refused token (`token_holds` false)
    /// an errcode strikes, and a sequence steps, only if the code is of the token class.
    pub fn strike(&mut self, openid: &str, token_holds: bool) -> Option<Strike> {
        let fault = self.openids.get(openid).or(self.answer.as_ref())?;
        if fault.share < 1.0 && fastrand::f64() >= fault.share {
            return None;
        }
        let (errcode, errmsg) = match &fault.action {
            Action::Always(Strike::Errcode { errcode, errmsg }) => (*errcode, errmsg.clone()),
            Action::Always(strike) => return Some(strike.clone()),
            Action::Sequence(codes) => {
                let step = self.steps.get(openid).copied().unwrap_or(0);
                let code = codes[step];
                if step + 1 < codes.len() && (token_holds || is_token_class(code)) {
                    self.steps.insert(openid.to_string(), step + 1);
                }
                (code, None)
            }
        };
        let strikes = errcode != 0 && (token_holds || is_token_class(errcode));
        strikes.then_some(Strike::Errcode { errcode, errmsg })
    }

    /// Every sequence starts again.
    pub fn restart(&mut self) {
        self.steps.clear();
    }
}

fn is_token_class(errcode: i64) -> bool {
    matches!(errcode, 40001 | 40014 | 41001 | 42001)
}

/// One answer: exactly one kind, and at most a `share` and an `errmsg` beside it.
fn parse_fault(place: &str, value: &Value) -> Result<Fault, String> {
    let Value::Object(members) = value else {
        return Err(format!("{place} must be an object such as {{\"errcode\": 43101}}"));
    };
    let mut share = 1.0;
    let mut errmsg = None;
    let mut actions = Vec::new();
    for (name, value) in members {
        match name.as_str() {
            "share" => {
                share = value
                    .as_f64()
                    .filter(|share| (0.0..=1.0).contains(share))
                    .ok_or_else(|| format!("{place}: share must be a number from 0 to 1"))?;
            }
            "errmsg" => {
                let text =
                    value.as_str().ok_or_else(|| format!("{place}: errmsg must be a string"))?;
                errmsg = Some(Value::from(text).to_string().into_bytes());
            }
            "errmsg_hex" => {
                let bytes = value.as_str().and_then(from_hex).ok_or_else(|| {
                    format!("{place}: errmsg_hex must be a string of hex digits, two a byte")
                })?;
                errmsg = Some([b"\"", &bytes[..], b"\""].concat());
            }
            _ => actions.push(parse_action(place, name, value)?),
        }
    }
    let action = match (actions.pop(), actions.is_empty(), errmsg) {
        (Some(Action::Always(Strike::Errcode { errcode, .. })), true, errmsg) => {
            Action::Always(Strike::Errcode { errcode, errmsg })
        }
        (Some(_), true, Some(_)) => return Err(format!("{place}: errmsg goes with errcode only")),
        (Some(action), true, None) => action,
        _ => return Err(format!("{place} must hold exactly one kind of answer")),
    };
    Ok(Fault { action, share })
}

fn parse_action(place: &str, name: &str, value: &Value) -> Result<Action, String> {
    let strike = match name {
        "errcode" => {
            let errcode = errcode(place, value)?;
            return Ok(Action::Always(Strike::Errcode { errcode, errmsg: None }));
        }
        "http_status" => {
            return Ok(Action::Always(Strike::HttpStatus(http_status(place, value)?)));
        }
        "seq" => {
            let codes: Option<Vec<i64>> =
                value.as_array().and_then(|codes| codes.iter().map(Value::as_i64).collect());
            return match codes {
                Some(codes) if !codes.is_empty() => Ok(Action::Sequence(codes)),
                _ => Err(format!("{place}: seq must be a list of errcodes, at least one")),
            };
        }
        "hang" => Strike::Hang,
        "close" => Strike::Close,
        "close_after" => Strike::CloseAfter,
        "garbage" => Strike::Garbage,
        "huge" => Strike::Huge,
        _ => return Err(format!("{place}: there is no kind of answer `{name}`")),
    };
    match value {
        Value::Bool(true) => Ok(Action::Always(strike)),
        _ => Err(format!("{place}: {name} takes the value true only")),
    }
}

/// The bytes that pairs of hex digits stand for.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

fn tls_fault(value: &Value) -> Result<TlsFault, String> {
    match value.as_str() {
        Some("refuse") => Ok(TlsFault::Refuse),
        Some("close") => Ok(TlsFault::Close),
        Some("hang") => Ok(TlsFault::Hang),
        Some("wrong_name") => Ok(TlsFault::WrongName),
        Some("expired") => Ok(TlsFault::Expired),
        _ => Err("tls must be refuse, close, hang, wrong_name or expired".to_string()),
    }
}

fn number(place: &str, value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{place} must be a whole number from 0"))
}

/// At most an hour: a longer one is a typing error, and an Instant must be able to hold it.
fn milliseconds(place: &str, value: &Value) -> Result<Duration, String> {
    match number(place, value)? {
        ms @ 0..=3_600_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{place} must be at most 3600000 (an hour)")),
    }
}

fn errcode(place: &str, value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{place}: the errcode must be a whole number"))
}

fn http_status(place: &str, value: &Value) -> Result<u16, String> {
    match value.as_u64().and_then(|status| u16::try_from(status).ok()) {
        Some(status @ 400..=599) => Ok(status),
        _ => Err(format!("{place}: the HTTP status must be from 400 to 599")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Faults {
        Faults::parse(json.as_bytes()).unwrap()
    }

    fn codes(faults: &mut Faults, openid: &str, times: usize) -> Vec<i64> {
        (0..times)
            .map(|_| match faults.strike(openid, true) {
                Some(Strike::Errcode { errcode, .. }) => errcode,
                None => 0,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_sequence_steps_per_openid_and_stays_on_its_last_code() {
        let mut faults = faults(r#"{"answer":{"seq":[42001,-1,0,43101]}}"#);
        assert_eq!(codes(&mut faults, "a", 6), [42001, -1, 0, 43101, 43101, 43101]);
        assert_eq!(codes(&mut faults, "b", 2), [42001, -1]);
        faults.restart();
        assert_eq!(codes(&mut faults, "a", 1), [42001]);
    }

    #[test]
    fn behind_a_refused_token_only_token_codes_strike_and_step() {
        let mut faults = faults(r#"{"answer":{"seq":[42001,43101]}}"#);
        assert!(matches!(faults.strike("a", false), Some(Strike::Errcode { errcode: 42001, .. })));
        assert_eq!(faults.strike("a", false), None);
        assert!(matches!(faults.strike("a", true), Some(Strike::Errcode { errcode: 43101, .. })));
    }

    #[test]
    fn the_fault_of_an_openid_wins() {
        let mut faults =
            faults(r#"{"answer":{"close":true},"openids":{"a":{"errcode":0},"b":{"hang":true}}}"#);
        assert_eq!(faults.strike("a", true), None);
        assert_eq!(faults.strike("b", true), Some(Strike::Hang));
        assert_eq!(faults.strike("c", true), Some(Strike::Close));
    }

    #[test]
    fn a_share_strikes_about_that_part() {
        let mut faults = faults(r#"{"answer":{"close":true,"share":0.25}}"#);
        let struck = (0..4000).filter(|_| faults.strike("a", true) == Some(Strike::Close)).count();
        assert!((800..1200).contains(&struck), "{struck} of 4000");
    }

    #[test]
    fn what_is_not_a_fault_is_refused_by_name() {
        for (json, words) in [
            ("[]", "JSON object"),
            ("{", "not JSON"),
            (r#"{"latencyms":1}"#, "latencyms"),
            (r#"{"latency_ms":-1}"#, "latency_ms"),
            (r#"{"latency_ms":99999999}"#, "hour"),
            (r#"{"answer":{}}"#, "exactly one"),
            (r#"{"answer":{"hang":true,"close":true}}"#, "exactly one"),
            (r#"{"answer":{"hang":1}}"#, "hang"),
            (r#"{"answer":{"seq":[]}}"#, "seq"),
            (r#"{"answer":{"seq":["a"]}}"#, "seq"),
            (r#"{"answer":{"errcode":"x"}}"#, "errcode"),
            (r#"{"answer":{"hang":true,"errmsg":"m"}}"#, "errmsg"),
            (r#"{"answer":{"close":true,"share":2}}"#, "share"),
            (r#"{"answer":{"http_status":99}}"#, "HTTP status"),
            (r#"{"openids":{"o1":{"crash":true}}}"#, "o1"),
            (r#"{"answer":{"errcode":1,"errmsg_hex":"abc"}}"#, "errmsg_hex"),
            (r#"{"answer":{"errcode":1,"errmsg_hex":"xy"}}"#, "errmsg_hex"),
            (r#"{"tls":"cloes"}"#, "wrong_name"),
            (r#"{"refuse_ms":true}"#, "refuse_ms"),
        ] {
            let error = Faults::parse(json.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
