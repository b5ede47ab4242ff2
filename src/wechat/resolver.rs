//! Looks host names up for ureq and remembers the answers for a while: ureq asks for every call, open
//! connection or not, and with a timeout it starts a thread to ask. One for all workers. A name that was
//! found once stays usable while it cannot be looked up again.

use super::transport::Unconnected;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Shorter than an operator waits after changing an address.
const REMEMBERED: Duration = Duration::from_secs(30);

/// A call that has the old addresses waits no longer than this for new ones.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Remembering<R = DefaultResolver> {
    system: R,
    /// As many as there are hosts and proxies in the configuration.
    found: Mutex<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    host: String,
    /// When it was looked up, or when that was last tried.
    at: Instant,
    addresses: Vec<SocketAddr>,
}

/// What a worker's agent holds of it.
#[derive(Debug)]
pub struct Shared<R = DefaultResolver>(pub Arc<Remembering<R>>);

impl<R: Resolver> Resolver for Shared<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        // Whatever goes wrong here, nothing was sent.
        let unconnected = |error| Error::Other(Box::new(Unconnected(error)));
        self.0.resolve(uri, config, timeout, Instant::now()).map_err(unconnected)
    }
}

impl<R: Resolver> Remembering<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
        now: Instant,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut known = self.system.empty();
        if let Some(found) = self.found.lock().iter_mut().find(|found| found.host == host) {
            found.addresses.iter().for_each(|address| known.push(*address));
            if now.saturating_duration_since(found.at) < REMEMBERED {
                return Ok(known);
            }
            // The others go on with the old ones while this call asks.
            found.at = now;
        }
        if known.is_empty() {
            let addresses = self.system.resolve(uri, config, timeout)?;
            self.remember(host, &addresses, now);
            return Ok(addresses);
        }
        let patience = NextTimeout { after: (*timeout.after).min(PATIENCE).into(), ..timeout };
        match self.system.resolve(uri, config, patience) {
            Ok(addresses) => {
                self.remember(host, &addresses, now);
                Ok(addresses)
            }
            Err(error) => {
                log::warn!(
                    "{} cannot be looked up again ({error}): its old addresses are used",
                    uri.host().unwrap_or_default()
                );
                Ok(known)
            }
        }
    }

    fn remember(&self, host: &str, addresses: &[SocketAddr], at: Instant) {
        let mut all = self.found.lock();
        all.retain(|found| found.host != host);
        all.push(Found { host: host.to_owned(), at, addresses: addresses.to_vec() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    /// Answers with a new address each time, unless it is broken.
    #[derive(Debug, Default)]
    struct System {
        asked: AtomicU32,
        broken: bool,
        longest: Mutex<Duration>,
    }

    impl Resolver for System {
        fn resolve(
            &self,
            _: &Uri,
            _: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            *self.longest.lock() = *timeout.after;
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if self.broken {
                return Err(Error::HostNotFound);
            }
            let mut addresses = self.empty();
            addresses.push(SocketAddr::from(([127, 0, 0, 1], asked as u16 + 1)));
            Ok(addresses)
        }
    }

    fn ask(names: &Remembering<System>, host: &str, now: Instant) -> Option<u16> {
        let uri: Uri = format!("http://{host}/path").parse().unwrap();
        let timeout =
            NextTimeout { after: Duration::from_secs(10).into(), ..NextTimeout::default() };
        let addresses = names.resolve(&uri, &Config::default(), timeout, now).ok()?;
        Some(addresses[0].port())
    }

    #[test]
    fn an_answer_is_remembered_for_each_host() {
        let (names, now) = (Remembering::<System>::default(), Instant::now());
        assert_eq!([ask(&names, "a", now), ask(&names, "b", now)], [Some(1), Some(2)]);
        assert_eq!([ask(&names, "a", now), ask(&names, "b", now)], [Some(1), Some(2)]);
        assert_eq!(ask(&names, "a", now + REMEMBERED), Some(3));
    }

    #[test]
    fn a_refresh_that_fails_keeps_the_old_addresses_and_is_tried_again_later() {
        let (mut names, now) = (Remembering::<System>::default(), Instant::now());
        assert_eq!(ask(&names, "a", now), Some(1));
        names.system.broken = true;
        let later = now + REMEMBERED;
        assert_eq!(ask(&names, "a", later), Some(1));
        assert_eq!(*names.system.longest.lock(), PATIENCE, "the call's time is not spent on it");
        assert_eq!(ask(&names, "a", later), Some(1));
        assert_eq!(names.system.asked.load(Ordering::Relaxed), 2, "and not with every call");
        assert_eq!(ask(&names, "b", later), None);
        names.system.broken = false;
        assert_eq!(ask(&names, "a", later + REMEMBERED), Some(4));
    }

    #[test]
    fn a_refresh_is_one_callers_work() {
        let (names, now) = (Remembering::<System>::default(), Instant::now());
        ask(&names, "a", now);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| ask(&names, "a", now + REMEMBERED));
            }
        });
        assert_eq!(names.system.asked.load(Ordering::Relaxed), 2);
    }
}
