//! The metrics' sockets: one thread, one poll, at most `CONNS` connections of one request each. Who is
//! slow, sends more than a head or does not read has until its deadline; where all places are taken the
//! one that has been here longest makes room, so nobody keeps others out. Who floods the door is let in
//! at `PACE`.

use super::Answer;
use super::request::{self, Asked, LONGEST};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Connections at the same time.
const CONNS: usize = 32;

/// How long a connection may last, whatever it does.
const LIFE: Duration = Duration::from_secs(5);

/// Connections that are let in at once, and how long the next ones wait if there are more.
const ACCEPTS: usize = 16;
const PACE: Duration = Duration::from_millis(10);

/// How long the door stays shut when it cannot be opened, because no descriptor is free.
const SHUT: Duration = Duration::from_secs(1);

/// Bytes that are read and forgotten behind a head, so that the answer is not lost with the connection.
const REST: usize = 256 * 1024;

const DOOR: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

pub struct Server {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    conns: Slab<Conn>,
    /// Nobody is let in before; somebody may be waiting.
    door: Option<Instant>,
}

struct Conn {
    stream: TcpStream,
    until: Instant,
    state: State,
}

enum State {
    /// The head, as far as it has come.
    Asking(Vec<u8>),
    /// The answer, and how much of it is written.
    Told(Vec<u8>, usize),
    /// So many bytes may still come, for nobody.
    Over(usize),
}

/// What becomes of a connection after a look at it.
enum Next {
    Waits,
    Ends,
}

impl Server {
    /// The waker ends a turn.
    pub fn bind(address: SocketAddr) -> io::Result<(Server, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, DOOR, Interest::READABLE)?;
        let events = Events::with_capacity(2 * CONNS);
        let conns = Slab::with_capacity(CONNS);
        Ok((Server { poll, events, listener, conns, door: None }, waker))
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits until something happens, and does what there is to do.
    pub fn turn(&mut self, answer: &dyn Fn(&str) -> Answer) -> io::Result<()> {
        let times = self.conns.iter().map(|(_, conn)| conn.until).chain(self.door);
        let wait = times.min().map(|at| at.saturating_duration_since(Instant::now()));
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let tokens: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        for token in tokens {
            match token {
                WAKER => {}
                // Whoever is kept waiting at the door still is.
                DOOR if self.door.is_some() => {}
                DOOR => self.door = Some(Instant::now()),
                Token(slot) => self.look(slot, answer),
            }
        }
        let now = Instant::now();
        self.conns.retain(|_, conn| conn.until > now);
        if self.door.is_some_and(|at| at <= now) {
            self.door = self.let_in(answer);
        }
        Ok(())
    }

    /// Lets in who waits; when to go on, if there are more.
    fn let_in(&mut self, answer: &dyn Fn(&str) -> Answer) -> Option<Instant> {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, answer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if is_the_visitors(&error) => {}
                Err(_) => return Some(Instant::now() + SHUT),
            }
        }
        Some(Instant::now() + PACE)
    }

    fn admit(&mut self, mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer) {
        if self.conns.len() >= CONNS {
            // Those that have their answer before those that still wait for one.
            let order = |conn: &Conn| (!matches!(conn.state, State::Over(_)), conn.until);
            if let Some(slot) = self.conns.iter().min_by_key(|(_, c)| order(c)).map(|(s, _)| s) {
                self.conns.remove(slot);
            }
        }
        let place = self.conns.vacant_entry();
        let slot = place.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(slot), both).is_ok() {
            let until = Instant::now() + LIFE;
            place.insert(Conn { stream, until, state: State::Asking(Vec::new()) });
            // Most ask at once, and are gone before the next one comes.
            self.look(slot, answer);
        }
    }

    fn look(&mut self, slot: usize, answer: &dyn Fn(&str) -> Answer) {
        if let Some(conn) = self.conns.get_mut(slot)
            && let Next::Ends = conn.go_on(answer)
        {
            self.conns.remove(slot);
        }
    }
}

impl Conn {
    /// As far as its socket allows.
    fn go_on(&mut self, answer: &dyn Fn(&str) -> Answer) -> Next {
        loop {
            let step = match &mut self.state {
                State::Asking(head) => match ask(&mut self.stream, head) {
                    Ok(None) => Ok(None),
                    Ok(Some(asked)) => Ok(Some(State::Told(reply(asked, answer), 0))),
                    Err(error) => Err(error),
                },
                State::Told(bytes, written) => tell(&mut self.stream, bytes, written),
                State::Over(rest) => forget(&mut self.stream, rest),
            };
            match step {
                Ok(Some(next)) => self.state = next,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Ends,
            }
        }
    }
}

/// Reads on, and returns what is asked for when it is known.
fn ask(
    stream: &mut TcpStream,
    head: &mut Vec<u8>,
) -> io::Result<Option<Result<Asked, request::Refused>>> {
    let mut chunk = [0; LONGEST];
    let room = LONGEST - head.len();
    let count = stream.read(&mut chunk[..room])?;
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    head.extend_from_slice(&chunk[..count]);
    Ok(request::read(head).transpose())
}

fn reply(asked: Result<Asked, request::Refused>, answer: &dyn Fn(&str) -> Answer) -> Vec<u8> {
    let (Answer { status, kind, body }, head_only) = match asked {
        Ok(Asked { path, head_only }) => (answer(&path), head_only),
        Err(refused) => (refused.into(), false),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    match head_only {
        true => head.into_bytes(),
        false => (head + &body).into_bytes(),
    }
}

fn tell(stream: &mut TcpStream, bytes: &[u8], written: &mut usize) -> io::Result<Option<State>> {
    *written += stream.write(&bytes[*written..])?;
    if *written < bytes.len() {
        return Ok(None);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(Some(State::Over(REST)))
}

/// A socket that is closed with bytes unread takes back what was written to it.
fn forget(stream: &mut TcpStream, rest: &mut usize) -> io::Result<Option<State>> {
    let count = stream.read(&mut [0; 4096])?;
    *rest = rest.saturating_sub(count);
    match count > 0 && *rest > 0 {
        true => Ok(None),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// The one at the door has gone, which says nothing about the next.
fn is_the_visitors(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Client;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Running {
        address: SocketAddr,
        over: Arc<AtomicBool>,
        waker: Waker,
        thread: Option<std::thread::JoinHandle<usize>>,
    }

    impl Running {
        fn start(body: usize) -> Running {
            let (mut server, waker) = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = server.address().unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let ended = Arc::clone(&over);
            let thread = Some(std::thread::spawn(move || {
                let mut most = 0;
                while !ended.load(Ordering::Acquire) {
                    let answer = |path: &str| Answer::text("200 OK", &path.repeat(body));
                    server.turn(&answer).unwrap();
                    most = most.max(server.conns.len());
                }
                most
            }));
            Running { address, over, waker, thread }
        }

        fn connect(&self) -> Client {
            let client = Client::connect(self.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client
        }

        fn ask(&self, bytes: &[u8]) -> String {
            let mut client = self.connect();
            client.write_all(bytes).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        }

        /// The most connections that there were.
        fn end(mut self) -> usize {
            self.over.store(true, Ordering::Release);
            self.waker.wake().unwrap();
            self.thread.take().unwrap().join().unwrap()
        }
    }

    #[test]
    fn an_answer_is_whole_however_long_it_is_and_whatever_comes_behind_the_head() {
        let server = Running::start(1_000_000);
        let answer = server.ask(b"GET /x HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &answer[..100]);
        assert!(answer.ends_with(&("/x".repeat(1_000_000) + "\n")));
        let body = vec![b'x'; REST / 2];
        let post = [&b"POST / HTTP/1.1\r\nContent-Length: 131072\r\n\r\n"[..], &body].concat();
        assert!(server.ask(&post).contains("405 Method Not Allowed\r\n"));
        let head = server.ask(b"HEAD /x HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 2000001\r\n") && head.ends_with("\r\n\r\n"));
        server.end();
    }

    #[test]
    fn whoever_says_nothing_makes_room_for_who_asks() {
        let server = Running::start(1);
        let silent: Vec<Client> = (0..500).map(|_| server.connect()).collect();
        let slow: Vec<Client> = (0..500)
            .map(|_| {
                let mut client = server.connect();
                // One that was closed already is what this is about.
                let _ = client.write_all(b"GET /met");
                client
            })
            .collect();
        for _ in 0..50 {
            assert!(server.ask(b"GET /x HTTP/1.1\r\n\r\n").ends_with("/x\n"));
        }
        drop((silent, slow));
        assert_eq!(server.end(), CONNS);
    }

    #[test]
    fn who_dribbles_is_cut_off_at_its_deadline() {
        let server = Running::start(1);
        let mut client = server.connect();
        let began = Instant::now();
        client.write_all(b"GET /x HTTP/1.1\r\na: ").unwrap();
        while client.write_all(b"x").is_ok() {
            assert!(began.elapsed() < LIFE * 2, "still open");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(began.elapsed() >= LIFE);
        server.end();
    }
}
