//! Looks host names up for ureq and remembers the answer for a while: ureq asks for every call, open
//! connection or not, and with a timeout it starts a thread to ask. One for each worker.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Shorter than an operator waits after changing an address.
const REMEMBERED: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Remembering {
    system: DefaultResolver,
    last: Mutex<Option<Found>>,
}

#[derive(Debug)]
struct Found {
    host: String,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl Resolver for Remembering {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut last = self.last.lock();
        if let Some(found) = last.as_ref()
            && found.host == host
            && found.at.elapsed() < REMEMBERED
        {
            let mut addresses = self.empty();
            found.addresses.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let addresses = self.system.resolve(uri, config, timeout)?;
        let (host, at) = (host.to_owned(), Instant::now());
        *last = Some(Found { host, at, addresses: addresses.to_vec() });
        Ok(addresses)
    }
}
