//! One worker's connection to WeChat: HTTPS through ureq, kept alive between calls. Knows paths
//! and JSON, not what an errcode means. No text it returns carries a token or a secret.

use super::resolver::Remembering;
use super::transport::{self, Unconnected};
use crate::config::Config;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use ureq::http::header::{CONTENT_TYPE, HeaderValue};
use ureq::http::{Request, Response, Uri};
use ureq::{Agent, Body};

/// The longest answer that is read. Real ones have some hundred bytes.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Idle connections older than this are not used again: WeChat's front end closes them about then,
/// and a close that crosses a request on the wire is a failure nobody can classify.
const IDLE_AGE: Duration = Duration::from_secs(50);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What all connections share.
pub struct Hosts {
    urls: Vec<String>,
    /// The one in use; moves on when it cannot be reached.
    current: AtomicUsize,
    connect_timeout: Duration,
    timeout: Duration,
}

impl Hosts {
    pub fn new(config: &Config) -> Arc<Hosts> {
        Arc::new(Hosts {
            urls: config.wechat.api_hosts.clone(),
            current: AtomicUsize::new(0),
            connect_timeout: config.wechat.connect_timeout,
            timeout: config.wechat.timeout,
        })
    }
}

/// No usable answer.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What went wrong, one line.
    pub text: String,
    /// WeChat may have acted on the request all the same.
    pub ambiguous: bool,
}

/// A JSON object, as far as its errcode was looked at.
pub struct Answer {
    pub errcode: Option<i64>,
    bytes: Vec<u8>,
}

impl Answer {
    /// WeChat's number for the message: the digits behind `"msgid"`, which is a number or a text.
    pub fn msgid(&self) -> Option<u64> {
        const NAME: &[u8] = b"\"msgid\"";
        let at = self.bytes.windows(NAME.len()).position(|window| window == NAME)?;
        let value = self.bytes[at + NAME.len()..].trim_ascii_start().strip_prefix(b":")?;
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()?.parse().ok()
    }

    pub fn into_object(self) -> Map<String, Value> {
        // That it is an object was seen when it was read.
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

pub struct Client {
    agent: Agent,
    hosts: Arc<Hosts>,
    /// The last URL in both forms: it changes with the token only.
    url: Option<(String, Uri)>,
}

impl Client {
    pub fn new(hosts: Arc<Hosts>) -> Client {
        let config = Agent::config_builder()
            .timeout_connect(Some(hosts.connect_timeout))
            .timeout_global(Some(hosts.timeout))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_AGE)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("mega/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::with_parts(config, transport::connector(), Remembering::default());
        Client { agent, hosts, url: None }
    }

    pub fn get(&mut self, path_and_query: &str) -> Result<Answer, Trouble> {
        self.call(path_and_query, |agent, url| agent.run(Request::get(url).body(())?))
    }

    /// Posts JSON text.
    pub fn post(&mut self, path_and_query: &str, body: &[u8]) -> Result<Answer, Trouble> {
        self.call(path_and_query, |agent, url| {
            let request = Request::post(url).header(CONTENT_TYPE, JSON);
            agent.run(request.body(body)?)
        })
    }

    fn call(
        &mut self,
        path_and_query: &str,
        send: impl FnOnce(&Agent, Uri) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Trouble> {
        let used = self.hosts.current.load(Ordering::Relaxed);
        let url = self.url(used, path_and_query);
        let host = &self.hosts.urls[used];
        let answer = url
            .and_then(|url| send(&self.agent, url))
            .map_err(|error| trouble(host, error))
            .and_then(|response| read(host, response));
        if answer.as_ref().is_err_and(|trouble| !trouble.ambiguous) {
            let next = (used + 1) % self.hosts.urls.len();
            let current = &self.hosts.current;
            // Another worker may have moved on already; one step for one failure is enough.
            let _ = current.compare_exchange(used, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    fn url(&mut self, host: usize, path_and_query: &str) -> Result<Uri, ureq::Error> {
        let host = &self.hosts.urls[host];
        if let Some((text, url)) = &self.url
            && text.strip_prefix(host.as_str()) == Some(path_and_query)
        {
            return Ok(url.clone());
        }
        let text = format!("{host}{path_and_query}");
        let url: Uri = text.parse().map_err(ureq::http::Error::from)?;
        self.url = Some((text, url.clone()));
        Ok(url)
    }
}

fn read(host: &str, mut response: Response<Body>) -> Result<Answer, Trouble> {
    let status = response.status();
    let after = |text: String| Trouble { text, ambiguous: true };
    let body = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec();
    if status != 200 {
        return Err(after(format!("{host} answered HTTP {}", status.as_u16())));
    }
    let bytes = body.map_err(|error| trouble(host, error))?;
    match serde_json::from_slice(&bytes) {
        Ok(Errcode { errcode }) if bytes.trim_ascii_start().starts_with(b"{") => {
            Ok(Answer { errcode, bytes })
        }
        _ => Err(after(format!("{host} answered something that is not a JSON object"))),
    }
}

#[derive(Deserialize)]
struct Errcode {
    errcode: Option<i64>,
}

fn trouble(host: &str, error: ureq::Error) -> Trouble {
    use ureq::{Error, Timeout};
    let (error, ambiguous) = match error {
        Error::Other(other) => match other.downcast() {
            Ok(unconnected) => {
                let Unconnected(error) = *unconnected;
                (error, false)
            }
            Err(other) => (Error::Other(other), true),
        },
        Error::HostNotFound | Error::ConnectionFailed => (error, false),
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => (error, false),
        error => (error, true),
    };
    let text = match error {
        Error::HostNotFound => format!("{host} cannot be resolved"),
        Error::Timeout(which) => format!("{host} did not answer in time ({which:?})"),
        // That is how a handshake that failed comes out of the stream.
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            format!("{host} is not trusted: {error}")
        }
        Error::Io(error) => format!("{host} cannot be reached: {error}"),
        Error::Rustls(error) => format!("{host} is not trusted: {error}"),
        Error::BodyExceedsLimit(limit) => format!("{host} answered more than {limit} bytes"),
        // Texts of other kinds may quote the URL, and with it the token.
        other => {
            let debug = format!("{other:?}");
            let kind = debug.split(['(', ' ']).next().unwrap_or_default();
            format!("{host}: the call failed ({kind})")
        }
    };
    Trouble { text, ambiguous }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_msgid_is_read_as_it_is() {
        for (text, msgid) in [
            (
                r#"{"errcode":0,"errmsg":"ok","msgid":9007199254740993}"#,
                Some(9_007_199_254_740_993),
            ),
            (r#"{"msgid" : "42" , "errcode":0}"#, Some(42)),
            (r#"{"errcode":0}"#, None),
            (r#"{"errcode":0,"msgid":null}"#, None),
            (r#"{"errcode":0,"msgid":99999999999999999999}"#, None),
        ] {
            let answer = Answer { errcode: Some(0), bytes: text.into() };
            assert_eq!(answer.msgid(), msgid, "{text}");
        }
    }
}
