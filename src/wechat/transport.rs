//! ureq's TCP connection with fewer system calls: a request leaves in one write, head and body;
//! timeouts are set when they differ, not for each call; and whether an idle connection is still
//! open is asked once. Proxies are ureq's own, around it; TLS is in tls.rs.

use super::tls::TlsConnector;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    Transport,
};
use ureq::{Error, Timeout};

/// Timeouts are rounded up to a multiple of it.
const STEP: Duration = Duration::from_millis(100);

/// More than this is not held back until the answer is awaited.
const UNSENT_BYTES: usize = 64 * 1024;

/// So much room is kept for the next request.
const KEPT_BYTES: usize = 8 * 1024;

/// Room for a part of a TLS record: what is read and written below TLS is passed on at once.
const BELOW_TLS: usize = 2 * 1024;

pub fn connector(tls: Arc<rustls::ClientConfig>) -> impl Connector {
    let tcp = ().chain(ConnectProxyConnector::default()).chain(Tcp);
    Whole(tcp.chain(TlsConnector::new(tls)))
}

/// There is no connection to the host, or no TLS on it: nothing was sent.
#[derive(Debug)]
pub struct Unconnected(pub Error);

impl std::error::Error for Unconnected {}

impl std::fmt::Display for Unconnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// All that comes before a request.
#[derive(Debug)]
struct Whole<C>(C);

impl<C: Connector> Connector for Whole<C> {
    type Out = C::Out;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<C::Out>, Error> {
        self.0.connect(details, chained).map_err(|error| Error::Other(Box::new(Unconnected(error))))
    }
}

#[derive(Debug)]
struct Tcp;

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, Connection>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        proxy: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(proxy) = proxy {
            return Ok(Some(Either::A(proxy)));
        }
        let stream = connect(details)?;
        stream.set_nodelay(true)?;
        let config = details.config;
        let (input, output) = match details.needs_tls() {
            true => (BELOW_TLS, BELOW_TLS),
            false => (config.input_buffer_size(), config.output_buffer_size()),
        };
        Ok(Some(Either::B(Connection {
            stream,
            buffers: LazyBuffers::new(input, output),
            unsent: Vec::new(),
            timeout: Duration::ZERO,
            answered: false,
        })))
    }
}

/// Tries every address of the host; one that does not answer leaves half of the time to the others.
fn connect(details: &ConnectionDetails) -> Result<TcpStream, Error> {
    let mut left = *details.timeout.after;
    let mut error = io::Error::from(ErrorKind::AddrNotAvailable);
    for (tried, address) in details.addrs.iter().enumerate() {
        let began = Instant::now();
        let share = if tried + 1 == details.addrs.len() { left } else { left / 2 };
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(failed) => error = failed,
        }
        left = left.saturating_sub(began.elapsed());
    }
    match error.kind() {
        ErrorKind::TimedOut => Err(Error::Timeout(Timeout::Connect)),
        _ => Err(Error::Io(error)),
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// What waits for the rest of the request; sent when the answer is awaited.
    unsent: Vec<u8>,
    /// As the socket has it, for reading and for writing.
    timeout: Duration,
    /// An answer was read since somebody asked whether the connection is open.
    answered: bool,
}

impl Connection {
    fn set_timeout(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let steps = timeout.after.as_millis().div_ceil(STEP.as_millis());
        let rounded = STEP.saturating_mul(steps.try_into().unwrap_or(u32::MAX));
        if rounded != self.timeout {
            self.stream.set_read_timeout(Some(rounded))?;
            self.stream.set_write_timeout(Some(rounded))?;
            self.timeout = rounded;
        }
        Ok(())
    }

    fn send(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.unsent);
        self.unsent.clear();
        self.unsent.shrink_to(KEPT_BYTES);
        sent.map_err(|error| in_time(error, timeout))
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.unsent.extend_from_slice(&self.buffers.output()[..amount]);
        if self.unsent.len() <= UNSENT_BYTES {
            return Ok(());
        }
        self.set_timeout(timeout)?;
        self.send(timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.set_timeout(timeout)?;
        self.send(timeout)?;
        let input = self.buffers.input_append_buf();
        let (read, _) = retry_on_intr(|| recv(&self.stream, &mut *input, RecvFlags::empty()))
            .map_err(|error| in_time(error.into(), timeout))?;
        self.buffers.input_appended(read);
        self.answered = true;
        Ok(read > 0)
    }

    /// Asked when a connection is put away after an answer and when it is taken out for the next
    /// request: the second time is the one that counts.
    fn is_open(&mut self) -> bool {
        if std::mem::take(&mut self.answered) {
            return true;
        }
        let mut byte = [0u8];
        let found = recv(&self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        // Neither the end nor bytes that nobody asked for.
        matches!(found, Err(Errno::AGAIN))
    }
}

fn in_time(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tls;
    use super::*;
    use std::io::Read;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::mpsc;
    use std::thread;
    use ureq::Agent;
    use ureq::config::Config;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolver for Fixed {
        fn resolve(
            &self,
            _: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let mut addresses = self.empty();
            self.0.iter().for_each(|address| addresses.push(*address));
            Ok(addresses)
        }
    }

    fn agent(addresses: &[SocketAddr]) -> Agent {
        within(Duration::from_secs(10), addresses)
    }

    fn within(timeout: Duration, addresses: &[SocketAddr]) -> Agent {
        let config = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(timeout))
            .build();
        Agent::with_parts(
            config,
            connector(tls::trusting(None).unwrap()),
            Fixed(addresses.to_vec()),
        )
    }

    fn post(agent: &Agent) -> Result<String, Error> {
        agent.post("http://api.test/path").send("the body")?.body_mut().read_to_string()
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// What one read gets.
    fn request(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn a_request_is_sent_whole_and_the_connection_is_kept() {
        let (listener, address) = listener();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..3 {
                assert!(request(&mut stream).ends_with(b"\r\n\r\nthe body"));
                stream.write_all(ANSWER).unwrap();
            }
        });
        let agent = agent(&[address]);
        for _ in 0..3 {
            assert_eq!(post(&agent).unwrap(), "{}");
        }
        server.join().unwrap();
    }

    #[test]
    fn a_connection_that_was_closed_or_has_bytes_nobody_asked_for_is_not_used_again() {
        for extra in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (listener, address) = listener();
            let (read, was_read) = mpsc::channel();
            let (closed, was_closed) = mpsc::channel();
            let server = thread::spawn(move || {
                for _ in 0..2 {
                    let (mut stream, _) = listener.accept().unwrap();
                    request(&mut stream);
                    stream.write_all(ANSWER).unwrap();
                    was_read.recv().unwrap();
                    stream.write_all(extra.as_bytes()).unwrap();
                    drop(stream);
                    closed.send(()).unwrap();
                }
            });
            let agent = agent(&[address]);
            for _ in 0..2 {
                assert_eq!(post(&agent).unwrap(), "{}");
                read.send(()).unwrap();
                was_closed.recv().unwrap();
            }
            server.join().unwrap();
        }
    }

    /// The answer never ends, so that whoever stops waiting has a timeout for the whole of it. A busy machine
    /// is slow now and then; a timeout that begins anew is late every time.
    #[test]
    fn an_answer_that_only_drips_ends_at_the_timeout() {
        let timeout = Duration::from_millis(400);
        let in_time = (0..5).any(|_| {
            let (listener, address) = listener();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                request(&mut stream);
                let header = b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'x'));
                let began = Instant::now();
                for byte in header.take_while(|_| began.elapsed() < Duration::from_secs(20)) {
                    if stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            });
            let began = Instant::now();
            let answer = post(&within(timeout, &[address]));
            let took = began.elapsed();
            assert!(matches!(answer, Err(Error::Timeout(Timeout::Global))), "{answer:?}");
            server.join().unwrap();
            took < timeout * 3
        });
        assert!(in_time, "never within {:?}", timeout * 3);
    }

    #[test]
    fn every_address_is_tried_and_nothing_counts_as_sent_when_none_can_be_reached() {
        let (listener, address) = listener();
        let closed = {
            let (_, address) = self::listener();
            address
        };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            request(&mut stream);
            stream.write_all(ANSWER).unwrap();
        });
        assert_eq!(post(&agent(&[closed, address])).unwrap(), "{}");
        server.join().unwrap();
        match post(&agent(&[closed])) {
            Err(Error::Other(error)) => assert!(error.is::<Unconnected>()),
            other => panic!("{other:?}"),
        }
    }
}
