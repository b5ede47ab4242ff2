//! mega-sandbox: a fake WeChat on loopback for trying things out and for tests. It takes template messages
//! over HTTP, with or without TLS, lists what it took, and plays the faults it is told to. One thread (server.rs); it
//! refuses to listen beyond loopback unless told so, for it checks nobody.

mod answer;
mod connection;
mod deliveries;
mod door;
mod faults;
mod http;
mod page;
mod server;
mod tls;
mod tokens;
mod wechat;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::deliveries::Keep;
use crate::door::Door;
use crate::faults::Faults;
use crate::server::Server;
use crate::tls::Tls;
use crate::wechat::{Account, WeChat};

/// A fake WeChat for trying out mega: nothing sent to it reaches anyone.
#[derive(Parser)]
#[command(name = "mega-sandbox", version)]
struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9580")]
    listen: SocketAddr,
    /// Listen beyond loopback, where anyone may set faults and read messages
    #[arg(long)]
    allow_remote: bool,
    /// Speak TLS too, with a certificate made at start for localhost, 127.0.0.1, ::1 and the address;
    /// plain HTTP is answered on the same port as before
    #[arg(long)]
    tls: bool,
    /// Write there, as PEM, the authority that a client has to trust ([wechat] ca_file of mega)
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,
    /// Life of an access token
    #[arg(long, value_name = "SECONDS", default_value_t = 7200, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    token_ttl: u64,
    /// The only appid that gets a token [default: any]
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// The only secret that gets a token [default: any]
    #[arg(long, value_name = "SECRET")]
    app_secret: Option<String>,
    /// How far WeChat's clock is ahead of this machine's, in the answers' Date header
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-31_536_000..=31_536_000))]
    clock_offset: i64,
    /// Faults to play from the start, as POST /sandbox/faults takes them
    #[arg(long, value_name = "JSON")]
    faults: Option<String>,
    /// How many messages are kept in full; the ids of all are kept
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keep: usize,
    /// Count only: keep no messages and no ids, notice no repeats
    #[arg(long, conflicts_with = "keep")]
    no_record: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("mega-sandbox: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let address = options.listen;
    if !address.ip().is_loopback() && !options.allow_remote {
        return Err(format!(
            "refusing to listen on {address}: it is not loopback (--allow-remote permits it)"
        ));
    }
    let faults = Faults::parse(options.faults.as_deref().unwrap_or("{}").as_bytes())
        .map_err(|error| format!("--faults: {error}"))?;
    http::CLOCK_OFFSET.get_or_init(|| options.clock_offset);
    let keep = match options.no_record {
        true => Keep::Counts,
        false => Keep::Messages(options.keep),
    };
    let account = Account { app_id: options.app_id, app_secret: options.app_secret };
    raise_file_limit();
    let signals = catch_signals().map_err(|error| format!("cannot catch signals: {error}"))?;
    let door = Door::open(address).map_err(|error| {
        format!("cannot listen on {address}: {error} (is another mega-sandbox running?)")
    })?;
    let address = door.address;
    let tls = options.tls.then(|| Tls::new(address.ip())).transpose()?;
    if let (Some(tls), Some(file)) = (&tls, &options.tls_ca) {
        std::fs::write(file, &tls.authority)
            .map_err(|error| format!("--tls-ca: cannot write {}: {error}", file.display()))?;
    }
    let schemes = if tls.is_some() { &["https", "http"][..] } else { &["http"] };
    let wechat = WeChat::new(account, Duration::from_secs(options.token_ttl), keep, faults);
    let mut server = Server::new(door, tls, signals, wechat)
        .map_err(|error| format!("cannot poll the listener: {error}"))?;
    announce(schemes, address)
        .map_err(|error| format!("cannot write to standard output: {error}"))?;
    server.run().map_err(|error| format!("cannot go on serving: {error}"))
}

/// Tests wait for this line, so it is flushed.
fn announce(schemes: &[&str], address: SocketAddr) -> std::io::Result<()> {
    let urls: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://{address}")).collect();
    let mut out = std::io::stdout();
    writeln!(out, "mega-sandbox listening on {}", urls.join(" and "))?;
    out.flush()
}

/// TERM and INT arrive as a byte on the stream that is returned.
fn catch_signals() -> std::io::Result<mio::net::UnixStream> {
    let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(mio::net::UnixStream::from_std(receiver))
}

/// Each connection takes a file descriptor. A limit that cannot be raised still serves, with fewer of them.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!(
            "mega-sandbox: cannot raise the limit of open files: {error} (going on with the present one)"
        );
    }
}
