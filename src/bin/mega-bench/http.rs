//! The bare loop that delivery is compared with: each thread posts the same message to the sandbox
//! over one kept connection, with or without TLS, with ureq as it comes (mega puts a connection of its own under it), and
//! does nothing else.

use crate::engine::Load;
use crate::protocol::value;
use crate::report::Report;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// As mega posts it.
const HEAD: &str = r#"{"client_msg_id":"00000000000000000000000000000000","touser":"bench-000000000000","template_id":"t","data":{"first":{"value":""#;
const TAIL: &str = r#""}}}"#;

/// Where the message is posted to, and how.
pub struct Target {
    pub address: SocketAddr,
    /// The file with the authority that is trusted; without one TLS is not spoken.
    pub authority: Option<PathBuf>,
    /// Bytes of the push that the message would be made of.
    pub size: usize,
}

pub fn run(target: &Target, load: &Load) -> Result<Report, String> {
    let address = target.address;
    let config = config(target.authority.as_deref())?;
    let scheme = if target.authority.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{address}/cgi-bin");
    let token = token(&config.new_agent(), &base)
        .map_err(|error| format!("{address} gives no token: {error}"))?;
    let url = &format!("{base}/message/template/send?access_token={token}");
    let body = &format!("{HEAD}{}{TAIL}", value(target.size));
    let (asked, started) = (&AtomicU64::new(0), Instant::now());
    let mut report = Report::default();
    let post = |own: &mut Report| -> Result<(), ureq::Error> {
        let agent = config.new_agent();
        while asked.fetch_add(1, Ordering::Relaxed) < load.requests
            && started.elapsed() < load.duration
        {
            let since = Instant::now();
            let request = agent.post(url).header("content-type", "application/json");
            let answer = request.send(body)?.body_mut().read_to_vec()?;
            let error = (!answer.starts_with(br#"{"errcode":0"#)).then_some(&answer[..]);
            own.note(since.elapsed(), error);
        }
        Ok(())
    };
    let measure = || {
        let mut own = Report::default();
        own.broke = post(&mut own).err().map(|error| format!("{address}: {error}"));
        own
    };
    std::thread::scope(|scope| -> Result<(), String> {
        let threads: Vec<_> = (0..load.connections).map(|_| scope.spawn(measure)).collect();
        for thread in threads {
            report.add(thread.join().map_err(|_| "a thread panicked")?)?;
        }
        Ok(())
    })?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn config(authority: Option<&Path>) -> Result<Config, String> {
    let mut tls = TlsConfig::builder();
    if let Some(file) = authority {
        let cannot = |error: &dyn Display| format!("--ca: cannot use {}: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| cannot(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| cannot(&error))?;
        tls = tls.root_certs(RootCerts::from([certificate]));
    }
    Ok(Agent::config_builder().tls_config(tls.build()).build())
}

fn token(agent: &Agent, base: &str) -> Result<String, String> {
    let url = format!("{base}/token?grant_type=client_credential&appid=a&secret=bench-secret");
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    answer["access_token"].as_str().map(str::to_owned).ok_or(text)
}
