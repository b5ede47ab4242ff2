//! mega-bench: how fast a daemon takes messages, and how long each one waits for its answer. Speaks
//! mega's protocol, Redis's and beanstalkd's, so that they can be compared on one machine. One
//! thread (engine.rs), so that it leaves the machine to what it measures.

mod ceiling;
mod conn;
mod engine;
mod http;
mod protocol;
mod report;

use clap::{Parser, ValueEnum};
use engine::{Engine, Load};
use protocol::{Beanstalkd, Mega, Protocol, Redis};
use report::Report;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures how fast a daemon takes messages, and how long each one waits for its answer.
#[derive(Parser)]
#[command(name = "mega-bench", version)]
struct Options {
    /// What listens there
    #[arg(long, value_enum, default_value = "mega")]
    protocol: Kind,
    /// Where it listens
    #[arg(value_name = "IP:PORT", required_unless_present = "ceiling")]
    address: Option<SocketAddr>,
    /// Measure mega-bench itself, against an echo in the same process
    #[arg(long, conflicts_with = "address")]
    ceiling: bool,
    /// mega: the template's key
    #[arg(long, default_value = "water_order")]
    key: String,
    /// mega: recipients are PREFIX-1, PREFIX-2, ...
    #[arg(long, value_name = "PREFIX", default_value = "bench")]
    openid_prefix: String,
    /// mega: send instead of push: answered when WeChat has answered
    #[arg(long)]
    send: bool,
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests of one connection under way at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: u32,
    /// Bytes of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(12..=1_000_000))]
    size: u32,
    /// Ends after so many requests
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Ends after so many seconds [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: Option<u64>,
    /// Requests offered each second, whether answers come or not. Latency then counts from when a
    /// request was due, and the run lasts until each that was due is answered [default: as fast as
    /// answers come]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// https: the file with the authority to trust, as mega-sandbox --tls-ca writes it
    #[arg(long, value_name = "FILE", required_if_eq("protocol", "https"))]
    ca: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// push, or send
    Mega,
    /// XADD
    Redis,
    /// put
    Beanstalkd,
    /// POST of a message to WeChat's API, as mega-sandbox plays it; a thread for each connection
    Http,
    /// The same over TLS, with --ca
    Https,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(report) => {
            let code = if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            mega::say!("{}", report.text(options.json));
            code
        }
        Err(why) => {
            eprintln!("mega-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, String> {
    let seconds = options.duration.unwrap_or(5);
    let (requests, duration) = match (options.requests, options.rate) {
        (Some(requests), _) => (requests, Duration::MAX),
        (None, Some(rate)) => (u64::from(rate) * seconds, Duration::MAX),
        (None, None) => (u64::MAX, Duration::from_secs(seconds)),
    };
    let (connections, window) = (options.connections as usize, options.window as usize);
    let load = Load { connections, window, requests, duration, rate: options.rate };
    let size = options.size as usize;
    if options.ca.is_some() && !matches!(options.protocol, Kind::Https) {
        return Err("--ca is of --protocol https".into());
    }
    match options.protocol {
        Kind::Mega => {
            let verb = if options.send { "send" } else { "push" };
            measure(options, &load, Mega::new(verb, &options.openid_prefix, &options.key, size))
        }
        Kind::Http | Kind::Https if options.window > 1 || options.rate.is_some() => {
            Err("--protocol http and https know neither --window nor --rate".into())
        }
        Kind::Http | Kind::Https => {
            let address = options.address.ok_or("--ceiling is of the other protocols")?;
            http::run(&http::Target { address, authority: options.ca.clone(), size }, &load)
        }
        Kind::Redis => measure(options, &load, Redis::new(size)),
        Kind::Beanstalkd => measure(options, &load, Beanstalkd::new(size)),
    }
}

fn measure<P: Protocol>(options: &Options, load: &Load, mut protocol: P) -> Result<Report, String> {
    let address = match options.address {
        Some(address) => address,
        None => ceiling::echo::<P>(protocol.request_size())?,
    };
    Ok(Engine::new(address, load, protocol)?.run())
}
