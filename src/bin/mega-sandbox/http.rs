//! The framing of HTTP/1.1 (RFC 9112), without sockets: `Reader` turns bytes into requests as they arrive,
//! `write_answer` turns an answer into bytes. It refuses a head above 16 KiB, a body above 1 MiB and
//! everything ambiguous (two lengths, an unknown transfer coding); after a refusal the connection is done.

use std::cell::RefCell;
use std::io::Write;
use std::sync::OnceLock;

/// How far the time in answers is ahead of the machine's, in seconds; set once, at the start.
pub static CLOCK_OFFSET: OnceLock<i64> = OnceLock::new();

const HEAD_LIMIT: usize = 16 * 1024;
const BODY_LIMIT: usize = 1024 * 1024;
const CHUNK_LINE_LIMIT: usize = 1024;
const HEADER_COUNT: usize = 64;
/// A connection stops reading while this much waits unparsed; above `HEAD_LIMIT`, so that a head always fits.
const INPUT_LIMIT: usize = 64 * 1024;

pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Debug, Default, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Vec<u8>,
    pub keep_alive: bool,
}

impl Request {
    /// The percent-decoded value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| percent_decode(value))
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()
        });
        match (byte, escaped) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                at += 1;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The HTTP status a refused request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u16);

#[derive(Debug, PartialEq)]
pub enum Next {
    Request(Request),
    /// The client waits for `100 Continue` before it sends its body.
    Continue,
    /// Nothing is complete; read more.
    More,
}

enum State {
    Head,
    Body(Request, Framing),
}

/// How the rest of a body is delimited.
#[derive(Clone, Copy)]
enum Framing {
    Fixed(usize),
    ChunkLine,
    ChunkData(usize),
    ChunkEnd,
    Trailer,
}

struct Head {
    request: Request,
    framing: Framing,
    expects_continue: bool,
    length: usize,
}

/// Requests out of a stream of bytes, cut anywhere.
pub struct Reader {
    input: Vec<u8>,
    taken: usize,
    state: State,
}

impl Reader {
    pub fn new() -> Self {
        Reader { input: Vec::new(), taken: 0, state: State::Head }
    }

    pub fn has_room(&self) -> bool {
        self.input.len() - self.taken < INPUT_LIMIT
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(bytes);
    }

    pub fn next(&mut self) -> Result<Next, Refused> {
        loop {
            match std::mem::replace(&mut self.state, State::Head) {
                State::Head => {
                    let Some(head) = read_head(&self.input[self.taken..])? else {
                        return Ok(Next::More);
                    };
                    self.taken += head.length;
                    self.state = State::Body(head.request, head.framing);
                    if head.expects_continue && self.taken == self.input.len() {
                        return Ok(Next::Continue);
                    }
                }
                State::Body(request, Framing::Fixed(0)) => return Ok(Next::Request(request)),
                State::Body(mut request, framing) => {
                    let rest = &self.input[self.taken..];
                    let (used, step) = read_body(rest, framing, &mut request.body)?;
                    self.taken += used;
                    match step {
                        Step::Next(framing) => self.state = State::Body(request, framing),
                        Step::Done => return Ok(Next::Request(request)),
                        Step::Starved(framing) => {
                            self.state = State::Body(request, framing);
                            return Ok(Next::More);
                        }
                    }
                }
            }
        }
    }
}

enum Step {
    Next(Framing),
    Starved(Framing),
    Done,
}

/// Reads one head; None while it is incomplete.
fn read_head(input: &[u8]) -> Result<Option<Head>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(input) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => length,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_LIMIT => return Ok(None),
        Ok(_) => return Err(Refused(413)),
        Err(_) => return Err(Refused(400)),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refused(400));
    };
    let mut keep_alive = version == 1;
    let mut expects_continue = false;
    let mut fixed = None;
    let mut chunked = false;
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = parse_length(value)?;
            if fixed.is_some_and(|earlier| earlier != length) {
                return Err(Refused(400));
            }
            fixed = Some(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err(Refused(400));
            }
            chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            expects_continue = value.eq_ignore_ascii_case("100-continue");
        }
    }
    let framing = match (chunked, fixed) {
        (true, Some(_)) => return Err(Refused(400)),
        (true, None) => Framing::ChunkLine,
        (false, length) => Framing::Fixed(length.unwrap_or(0)),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Head {
        request: Request {
            method: method.to_string(),
            path: path.to_string(),
            query: query.to_string(),
            body: Vec::new(),
            keep_alive,
        },
        expects_continue: expects_continue && !matches!(framing, Framing::Fixed(0)),
        framing,
        length,
    }))
}

/// The value of Content-Length. Digits only: `parse` alone would take a sign.
fn parse_length(value: &str) -> Result<usize, Refused> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refused(400));
    }
    match value.parse::<usize>() {
        Ok(length) if length <= BODY_LIMIT => Ok(length),
        // A number too long for usize is a body too long for us.
        _ => Err(Refused(413)),
    }
}

/// Moves what has arrived of a body into `body`; returns how many bytes it used and what comes next.
fn read_body(rest: &[u8], framing: Framing, body: &mut Vec<u8>) -> Result<(usize, Step), Refused> {
    match framing {
        Framing::Fixed(left) => {
            let used = left.min(rest.len());
            body.extend_from_slice(&rest[..used]);
            Ok(match left - used {
                0 => (used, Step::Done),
                left => (used, Step::Starved(Framing::Fixed(left))),
            })
        }
        Framing::ChunkLine => match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((used, 0))) => Ok((used, Step::Next(Framing::Trailer))),
            Ok(httparse::Status::Complete((used, size))) => match usize::try_from(size) {
                Ok(size) if size <= BODY_LIMIT - body.len() => {
                    Ok((used, Step::Next(Framing::ChunkData(size))))
                }
                _ => Err(Refused(413)),
            },
            Ok(httparse::Status::Partial) if rest.len() <= CHUNK_LINE_LIMIT => {
                Ok((0, Step::Starved(framing)))
            }
            _ => Err(Refused(400)),
        },
        Framing::ChunkData(left) => {
            let used = left.min(rest.len());
            body.extend_from_slice(&rest[..used]);
            Ok(match left - used {
                0 => (used, Step::Next(Framing::ChunkEnd)),
                left => (used, Step::Starved(Framing::ChunkData(left))),
            })
        }
        Framing::ChunkEnd => match rest {
            [b'\r', b'\n', ..] => Ok((2, Step::Next(Framing::ChunkLine))),
            [] | [b'\r'] => Ok((0, Step::Starved(framing))),
            _ => Err(Refused(400)),
        },
        Framing::Trailer => {
            let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT];
            match httparse::parse_headers(rest, &mut headers) {
                Ok(httparse::Status::Complete((used, _))) => Ok((used, Step::Done)),
                Ok(httparse::Status::Partial) if rest.len() <= HEAD_LIMIT => {
                    Ok((0, Step::Starved(framing)))
                }
                Ok(httparse::Status::Partial) => Err(Refused(413)),
                Err(_) => Err(Refused(400)),
            }
        }
    }
}

/// Whether the connection stays open after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    KeepAlive,
    Close,
}

/// Appends the head of an answer whose body has `length` bytes.
pub fn write_head(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    length: usize,
    afterwards: Afterwards,
) {
    let connection = match afterwards {
        Afterwards::KeepAlive => "keep-alive",
        Afterwards::Close => "close",
    };
    with_date(|date| {
        write!(
            out,
            "HTTP/1.1 {status} {}\r\nDate: {date}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n",
            reason(status)
        )
        .expect("writing to a Vec does not fail");
    });
}

/// The time as a Date header has it (RFC 9110, 5.6.7), put into words once a second.
fn with_date(then: impl FnOnce(&str)) {
    thread_local! {
        static SAID: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let offset = CLOCK_OFFSET.get().copied().unwrap_or(0);
    let now = chrono::Utc::now() + chrono::Duration::seconds(offset);
    SAID.with_borrow_mut(|(second, text)| {
        if *second != now.timestamp() || text.is_empty() {
            *second = now.timestamp();
            *text = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        }
        then(text);
    });
}

pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = "POST /a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n";

    /// All requests in `bytes` when they arrive `step` bytes at a time.
    fn requests(bytes: &str, step: usize) -> Result<Vec<Request>, Refused> {
        let mut reader = Reader::new();
        let mut found = Vec::new();
        for piece in bytes.as_bytes().chunks(step) {
            reader.push(piece);
            loop {
                match reader.next()? {
                    Next::Request(request) => found.push(request),
                    Next::Continue => {}
                    Next::More => break,
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn requests_read_the_same_however_they_are_cut() {
        let bytes = format!("{FIXED}{CHUNKED}GET / HTTP/1.0\r\n\r\n{FIXED}");
        let whole = requests(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!((whole[0].path.as_str(), whole[0].query.as_str()), ("/a", "x=1"));
        assert_eq!(whole[0].body, b"hello");
        assert_eq!(whole[1].body, b"hello");
        assert!(whole[0].keep_alive && !whole[2].keep_alive);
        for step in [1, 2, 3, 7, 50] {
            assert_eq!(requests(&bytes, step).unwrap(), whole, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_client_that_expects_100_continue_is_told_once() {
        let mut reader = Reader::new();
        reader.push(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(reader.next(), Ok(Next::Continue));
        assert_eq!(reader.next(), Ok(Next::More));
        reader.push(b"ok");
        assert!(matches!(reader.next(), Ok(Next::Request(request)) if request.body == b"ok"));
    }

    #[test]
    fn what_is_ambiguous_or_too_large_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_LIMIT));
        let endless =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "e".repeat(2000));
        for (bytes, status) in [
            ("\0\0\0\0", 400),
            ("GET / HTTP/3.0\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            (&long, 413),
            (&endless, 400),
        ] {
            assert_eq!(requests(bytes, 4096).unwrap_err(), Refused(status), "{bytes:.80}");
        }
    }

    #[test]
    fn query_values_are_percent_decoded_and_bad_escapes_left_alone() {
        let request =
            Request { query: "a=%E4%BD%a0+b&b=%zz%4&c=".to_string(), ..Request::default() };
        assert_eq!(request.parameter("a").as_deref(), Some("你 b"));
        assert_eq!(request.parameter("b").as_deref(), Some("%zz%4"));
        assert_eq!(request.parameter("c").as_deref(), Some(""));
        assert_eq!(request.parameter("d"), None);
    }
}
