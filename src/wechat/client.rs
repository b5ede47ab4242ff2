//! One worker's connection to WeChat: HTTPS through ureq, kept alive between calls. Knows paths
//! and JSON, not what an errcode means. No text it returns carries a token or a secret.

use super::answer::Answer;
use super::hosts::{Choice, Hosts};
use super::resolver::{Remembering, Shared};
use super::tls;
use super::transport::{self, Unconnected};
use crate::config::Config;
use crate::output::brief;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::header::{CONTENT_TYPE, HeaderValue};
use ureq::http::{Request, Response, Uri};
use ureq::{Agent, Body, Proxy};

/// The longest answer that is read. Real ones have some hundred bytes.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Idle connections older than this are not used again: WeChat's front end closes them about then,
/// and a close that crosses a request on the wire is a failure nobody can classify.
const IDLE_AGE: Duration = Duration::from_secs(50);

/// A connection's buffers, which it keeps while it is idle. An answer's head must fit into one, a request's
/// head into the other; ureq takes no less than this for reading a body in between.
const INPUT_BYTES: usize = 10 * 1024;
const OUTPUT_BYTES: usize = 4 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What all connections share.
pub struct Network {
    hosts: Hosts,
    config: ureq::config::Config,
    tls: Arc<rustls::ClientConfig>,
    names: Arc<Remembering>,
}

impl Network {
    /// Reads `ca_file`; the error names it.
    pub fn open(config: &Config) -> Result<Arc<Network>, String> {
        Network::with(config, tls::trusting(config.wechat.ca_file.as_deref())?)
    }

    /// With TLS of one's own.
    pub(super) fn with(
        config: &Config,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Arc<Network>, String> {
        let wechat = &config.wechat;
        let agent = Agent::config_builder()
            .timeout_connect(Some(wechat.connect_timeout))
            .timeout_global(Some(wechat.timeout))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_AGE)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .input_buffer_size(INPUT_BYTES)
            .output_buffer_size(OUTPUT_BYTES)
            .user_agent(concat!("mega/", env!("CARGO_PKG_VERSION")))
            // Without this one, ureq takes the environment's.
            .proxy(wechat.proxy.as_deref().map(proxy).transpose()?)
            .build();
        Ok(Arc::new(Network {
            hosts: Hosts::new(&wechat.api_hosts),
            config: agent,
            tls,
            names: Arc::default(),
        }))
    }
}

/// What is on this machine is asked directly.
fn proxy(url: &str) -> Result<Proxy, String> {
    let why = |_| "wechat.proxy is not the URL of a proxy".to_owned();
    let parsed = Proxy::new(url).map_err(why)?;
    let mut builder = Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port())
        .no_proxy("localhost")
        .no_proxy("127.*")
        .no_proxy("[::1]");
    if let Some(user) = parsed.username() {
        builder = builder.username(user).password(parsed.password().unwrap_or_default());
    }
    builder.build().map_err(why)
}

/// How far a call without a usable answer has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Nothing was sent.
    No,
    /// WeChat may have acted on the request.
    Perhaps,
    /// WeChat's door has turned this one request away.
    Refused,
    /// The door lets nobody in for now.
    Limited,
}

/// No usable answer.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What went wrong, one line.
    pub text: String,
    pub reached: Reached,
}

pub struct Client {
    agent: Agent,
    network: Arc<Network>,
    /// The last URL in both forms: it changes with the token only.
    url: Option<(String, Uri)>,
}

impl Client {
    pub fn new(network: Arc<Network>) -> Client {
        let connector = transport::connector(Arc::clone(&network.tls));
        let names = Shared(Arc::clone(&network.names));
        let agent = Agent::with_parts(network.config.clone(), connector, names);
        Client { agent, network, url: None }
    }

    /// The plain answer of one host, whatever it is.
    pub(super) fn raw(&mut self, host: &str) -> Result<Response<Body>, Trouble> {
        let response =
            self.url(host, "/").and_then(|url| self.agent.run(Request::get(url).body(())?));
        response.map_err(|error| self.through_proxy(trouble(host, error)))
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

    /// Asks one host; if nothing could be sent to it, each of the others once.
    fn call(
        &mut self,
        path_and_query: &str,
        send: impl Fn(&Agent, Uri) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Trouble> {
        let network = Arc::clone(&self.network);
        let hosts = &network.hosts;
        let mut choice = hosts.choose(Instant::now());
        let mut others = hosts.len() - 1;
        loop {
            let trouble = match self.ask(hosts, choice, path_and_query, &send) {
                Ok(answer) => {
                    hosts.answered(choice);
                    return Ok(answer);
                }
                Err(trouble) => trouble,
            };
            if matches!(trouble.reached, Reached::Refused | Reached::Limited) {
                hosts.answered(choice);
                return Err(trouble);
            }
            hosts.failed(choice, Instant::now());
            if trouble.reached == Reached::Perhaps || others == 0 {
                return Err(trouble);
            }
            others -= 1;
            choice = hosts.after(choice);
        }
    }

    fn ask(
        &mut self,
        hosts: &Hosts,
        choice: Choice,
        path_and_query: &str,
        send: impl Fn(&Agent, Uri) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Trouble> {
        let host = hosts.url(choice.host);
        let response = self.url(host, path_and_query).and_then(|url| send(&self.agent, url));
        read(host, response.map_err(|error| self.through_proxy(trouble(host, error)))?)
    }

    /// Whoever reads that a host cannot be reached should know whether it was asked at all.
    fn through_proxy(&self, mut trouble: Trouble) -> Trouble {
        if let (Some(proxy), Some((_, url))) = (self.network.config.proxy(), &self.url)
            && trouble.reached == Reached::No
            && !proxy.is_no_proxy(url)
        {
            trouble.text += " (through wechat.proxy)";
        }
        trouble
    }

    fn url(&mut self, host: &str, path_and_query: &str) -> Result<Uri, ureq::Error> {
        if let Some((text, url)) = &self.url
            && text.strip_prefix(host) == Some(path_and_query)
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
    let after = |text: String| Trouble { text, reached: Reached::Perhaps };
    let body = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec();
    if status != 200 {
        let text = format!("{host} answered HTTP {}", status.as_u16());
        let reached = match status.as_u16() {
            // This one is too large: that says nothing about others.
            413 | 414 | 431 => Reached::Refused,
            429 => Reached::Limited,
            // Where it is WeChat's own word, it is an answer. Else somebody in between has spoken: a proxy, a
            // portal, a firewall.
            400..500 => match body.ok().and_then(Answer::new).filter(|it| it.errcode.is_some()) {
                Some(answer) => return Ok(answer),
                None => Reached::Perhaps,
            },
            _ => Reached::Perhaps,
        };
        return Err(Trouble { text, reached });
    }
    let bytes = body.map_err(|error| trouble(host, error))?;
    Answer::new(bytes)
        .ok_or_else(|| after(format!("{host} answered something that is not a JSON object")))
}

fn trouble(host: &str, error: ureq::Error) -> Trouble {
    use ureq::{Error, Timeout};
    let (error, reached) = match before_sending(error) {
        Ok(before) => (before, Reached::No),
        Err(error @ (Error::HostNotFound | Error::ConnectionFailed)) => (error, Reached::No),
        Err(error @ Error::Timeout(Timeout::Resolve | Timeout::Connect)) => (error, Reached::No),
        Err(error) => (error, Reached::Perhaps),
    };
    let text = match error {
        Error::HostNotFound => format!("{host} cannot be resolved"),
        Error::Timeout(which) => {
            let limit = match which {
                Timeout::Resolve => "its name was not looked up",
                Timeout::Connect => "wechat.connect_timeout",
                _ => "wechat.timeout",
            };
            format!("{host} did not answer in time ({limit})")
        }
        // That is how a handshake that failed comes out of the stream.
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            format!("{host} is not trusted: {error}")
        }
        Error::Io(error) => format!("{host} cannot be reached: {error}"),
        Error::ConnectProxyFailed(why) => format!("{host} cannot be reached: {why}"),
        Error::Rustls(error) => format!("{host} is not trusted: {error}"),
        Error::BodyExceedsLimit(limit) => format!("{host} answered more than {limit} bytes"),
        // Texts of other kinds may quote the URL, and with it the token.
        other => {
            let debug = format!("{other:?}");
            let kind = debug.split(['(', ' ']).next().unwrap_or_default();
            format!("{host}: the call failed ({kind})")
        }
    };
    // A proxy, or whoever shows a certificate, has a say in it.
    Trouble { text: brief(&text), reached }
}

/// What went wrong before a request was sent, or else the error as it is. Through a proxy it comes wrapped twice.
fn before_sending(mut error: ureq::Error) -> Result<ureq::Error, ureq::Error> {
    let mut before = false;
    while let ureq::Error::Other(other) = error {
        match other.downcast::<Unconnected>() {
            Ok(unconnected) => error = unconnected.0,
            Err(other) => {
                error = ureq::Error::Other(other);
                break;
            }
        }
        before = true;
    }
    if before { Ok(error) } else { Err(error) }
}
