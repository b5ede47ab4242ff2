//! The three protocols: how a request is written and how answers are recognised. Pure: no sockets,
//! no clock.

use mega::wire::command::{self, Command, Request};
use mega::wire::frame::{Split, split};

/// What stands at the head of what was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    Partial,
    /// No answer of this protocol.
    Foreign,
    /// An answer of so many bytes. `slot` says to which request, unless they come in order.
    Whole {
        size: usize,
        slot: Option<u32>,
        error: Option<&'a [u8]>,
    },
}

/// A longer answer is none.
const LONGEST: usize = 1 << 20;

pub trait Protocol {
    /// Answers come in the order of their requests, and name none.
    const IN_ORDER: bool;
    /// What an echo answers to every request, for `--ceiling`.
    const ECHO: &'static [u8];
    /// Where in `ECHO` the request's four bytes of opaque belong, and where they are in a request.
    const OPAQUE: Option<(usize, Opaque)>;

    /// Appends request number `number`, to be answered in `slot`.
    fn write(&mut self, out: &mut Vec<u8>, number: u64, slot: u32);

    fn read<'a>(&self, received: &'a [u8]) -> Answer<'a>;

    /// All requests have this size.
    fn request_size(&mut self) -> usize {
        let mut one = Vec::new();
        self.write(&mut one, 0, 0);
        one.len()
    }
}

/// How an echo finds a request's opaque.
#[derive(Clone, Copy)]
pub enum Opaque {
    /// Behind the header, whose length stands in bytes 4 to 7.
    BehindHeader,
}

/// A JSON object of exactly `size` bytes.
fn body(size: usize) -> Vec<u8> {
    format!(r#"{{"first":"{}"}}"#, value(size)).into_bytes()
}

/// What stands for `first` in a body of `size` bytes.
pub fn value(size: usize) -> String {
    let around = r#"{"first":""}"#.len();
    "x".repeat(size.saturating_sub(around))
}

/// A request made once; the digits of its number and its opaque are put in.
pub struct Mega {
    frame: Vec<u8>,
    digits: usize,
    opaque: usize,
}

const DIGITS: usize = 12;

impl Mega {
    pub fn new(verb: &str, prefix: &str, key: &str, size: usize) -> Mega {
        let openid = format!("{prefix}-{:0DIGITS$}", 0);
        let data = body(size);
        let request = Request {
            opaque: 0,
            openid: openid.as_bytes(),
            key: key.as_bytes(),
            id: None,
            data: &data,
        };
        let mut frame = Vec::new();
        match verb {
            "send" => command::encode_send(&mut frame, request),
            _ => command::encode_push(&mut frame, request),
        }
        let header = 8;
        let digits = header + verb.len() + 1 + openid.len() - DIGITS;
        let opaque = header + verb.len() + 1 + openid.len() + 1 + key.len();
        Mega { frame, digits, opaque }
    }
}

impl Protocol for Mega {
    const IN_ORDER: bool = false;
    const ECHO: &'static [u8] =
        b"\x00\x00\x00\x16\x00\x00\x00\x0aresult 200\x00\x00\x00\x00\x00\x00\x00\x00";
    const OPAQUE: Option<(usize, Opaque)> = Some((18, Opaque::BehindHeader));

    fn write(&mut self, out: &mut Vec<u8>, number: u64, slot: u32) {
        let mut rest = number;
        for digit in self.frame[self.digits..self.digits + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.frame[self.opaque..self.opaque + 4].copy_from_slice(&slot.to_be_bytes());
        out.extend_from_slice(&self.frame);
    }

    fn read<'a>(&self, received: &'a [u8]) -> Answer<'a> {
        match split(received, LONGEST) {
            Split::Partial { .. } => Answer::Partial,
            Split::TooLong => Answer::Foreign,
            Split::Frame { payload, size } => match command::decode(payload) {
                Ok(Command::Result { code: b"200", opaque, .. }) => {
                    Answer::Whole { size, slot: Some(opaque), error: None }
                }
                Ok(Command::Result { opaque, message, .. }) => {
                    Answer::Whole { size, slot: Some(opaque), error: Some(message) }
                }
                _ => Answer::Foreign,
            },
        }
    }
}

pub struct Redis(Vec<u8>);

impl Redis {
    pub fn new(size: usize) -> Redis {
        let head = format!("*5\r\n$4\r\nXADD\r\n$4\r\nmega\r\n$1\r\n*\r\n$1\r\nd\r\n${size}\r\n");
        Redis([head.as_bytes(), &body(size), b"\r\n"].concat())
    }
}

impl Protocol for Redis {
    const IN_ORDER: bool = true;
    const ECHO: &'static [u8] = b"$15\r\n1700000000000-0\r\n";
    const OPAQUE: Option<(usize, Opaque)> = None;

    fn write(&mut self, out: &mut Vec<u8>, _number: u64, _slot: u32) {
        out.extend_from_slice(&self.0);
    }

    /// A bulk string of one line, or one line.
    fn read<'a>(&self, received: &'a [u8]) -> Answer<'a> {
        let first = match line(received) {
            Ok(first) => first,
            Err(answer) => return answer,
        };
        match first[0] {
            b'$' => match line(&received[first.len()..]) {
                Ok(second) => {
                    Answer::Whole { size: first.len() + second.len(), slot: None, error: None }
                }
                Err(answer) => answer,
            },
            b'+' => Answer::Whole { size: first.len(), slot: None, error: None },
            b'-' => Answer::Whole { size: first.len(), slot: None, error: Some(trim(first)) },
            _ => Answer::Foreign,
        }
    }
}

pub struct Beanstalkd(Vec<u8>);

impl Beanstalkd {
    pub fn new(size: usize) -> Beanstalkd {
        let head = format!("put 0 0 60 {size}\r\n");
        Beanstalkd([head.as_bytes(), &body(size), b"\r\n"].concat())
    }
}

impl Protocol for Beanstalkd {
    const IN_ORDER: bool = true;
    const ECHO: &'static [u8] = b"INSERTED 1000000\r\n";
    const OPAQUE: Option<(usize, Opaque)> = None;

    fn write(&mut self, out: &mut Vec<u8>, _number: u64, _slot: u32) {
        out.extend_from_slice(&self.0);
    }

    fn read<'a>(&self, received: &'a [u8]) -> Answer<'a> {
        let line = match line(received) {
            Ok(line) => line,
            Err(answer) => return answer,
        };
        let error = (!line.starts_with(b"INSERTED ")).then(|| trim(line));
        Answer::Whole { size: line.len(), slot: None, error }
    }
}

/// Up to and with the first line end; else what there is instead.
fn line(received: &[u8]) -> Result<&[u8], Answer<'_>> {
    match received.iter().position(|byte| *byte == b'\n') {
        Some(end) => Ok(&received[..=end]),
        None if received.len() > LONGEST => Err(Answer::Foreign),
        None => Err(Answer::Partial),
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<P: Protocol>(protocol: &P, bytes: &[u8], slot: Option<u32>, error: Option<&[u8]>) {
        for cut in 0..bytes.len() {
            assert_eq!(protocol.read(&bytes[..cut]), Answer::Partial);
        }
        let two = [bytes, bytes].concat();
        assert_eq!(protocol.read(&two), Answer::Whole { size: bytes.len(), slot, error });
    }

    #[test]
    fn answers_are_recognised_in_any_segmentation() {
        let mega = Mega::new("push", "o", "k", 64);
        whole(&mega, Mega::ECHO, Some(0), None);
        let mut refused = Vec::new();
        command::encode_result(&mut refused, 503, 9, b"queue full");
        whole(&mega, &refused, Some(9), Some(b"queue full"));
        whole(&Redis::new(64), Redis::ECHO, None, None);
        let error = protocol_line(b"-ERR no\r\n");
        assert_eq!(error, Answer::Whole { size: 9, slot: None, error: Some(b"-ERR no") });
        whole(&Beanstalkd::new(64), Beanstalkd::ECHO, None, None);
        whole(&Beanstalkd::new(64), b"DRAINING\r\n", None, Some(b"DRAINING"));
    }

    #[test]
    fn another_protocol_is_told_at_once() {
        let mega = Mega::new("push", "o", "k", 64);
        assert_eq!(mega.read(b"HTTP/1.1 400 Bad Request\r\n"), Answer::Foreign);
        assert_eq!(mega.read(b"-ERR unknown command\r\n"), Answer::Foreign);
        assert_eq!(Redis::new(64).read(b"UNKNOWN_COMMAND\r\n"), Answer::Foreign);
        assert_eq!(Beanstalkd::new(64).read(&vec![b'x'; LONGEST + 1]), Answer::Foreign);
    }

    fn protocol_line(line: &[u8]) -> Answer<'_> {
        Redis::new(64).read(line)
    }

    #[test]
    fn a_request_carries_its_number_and_its_slot() {
        let mut mega = Mega::new("send", "prefix", "key", 64);
        let mut out = Vec::new();
        mega.write(&mut out, 123, 7);
        let Split::Frame { payload, .. } = split(&out, usize::MAX) else { panic!() };
        let Ok(Command::Send(request)) = command::decode(payload) else { panic!() };
        assert_eq!((request.openid, request.opaque), (&b"prefix-000000000123"[..], 7));
        assert_eq!((request.key, request.data.len()), (&b"key"[..], 64));
    }
}
