//! What a frame says: decodes a frame's payload into a `Command` that borrows from it, and encodes
//! requests and results. Strict where a wrong guess would lose a message, and never panics.

use super::frame::{self, WORD};
use super::question::Question;
use byteorder::{BigEndian, ByteOrder};
use std::borrow::Cow;

/// Result codes, with the meaning of the HTTP status of the same number.
pub const OK: u16 = 200;
pub const BAD_REQUEST: u16 = 400;
pub const FAILED: u16 = 500;
pub const UNAVAILABLE: u16 = 503;

/// Messages that legacy clients compare by text.
pub const NO_TEMPLATE: &str = "template key not exists";
pub const OVER_TABLE_SIZE: &str = "over table size";
pub const OVER_TEMPLATE_SIZE: &str = "over template size";
const UNKNOWN: &str = "Unknown command";

/// How a third word of `send` and `push` begins that is the message's id; any other is ignored.
const ID: &[u8] = b"id=";

/// How much of a wrong first word is quoted back.
const WORD_QUOTED: usize = 64;

/// "Send template `key` to `openid` with these variables".
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Request<'a> {
    pub opaque: u32,
    pub openid: &'a [u8],
    pub key: &'a [u8],
    /// What WeChat is to know the message by, as the client has it; not looked at yet.
    pub id: Option<&'a [u8]>,
    pub data: &'a [u8],
}

/// One decoded frame.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Command<'a> {
    Send(Request<'a>),
    Push(Request<'a>),
    Tset {
        opaque: u32,
        key: &'a [u8],
    },
    /// What is the text of this template?
    Tget {
        opaque: u32,
        key: &'a [u8],
    },
    Result {
        opaque: u32,
        code: &'a [u8],
        message: &'a [u8],
    },
    /// Only on the administration socket; `body` is empty or JSON, as the question has it.
    Ask {
        opaque: u32,
        question: Question,
        body: &'a [u8],
    },
}

impl Command<'_> {
    /// The number that its result carries, where one is owed to whoever may only look.
    pub fn beyond_reading(&self) -> Option<u32> {
        match *self {
            Command::Send(Request { opaque, .. })
            | Command::Push(Request { opaque, .. })
            | Command::Tset { opaque, .. }
            | Command::Tget { opaque, .. } => Some(opaque),
            Command::Ask { opaque, question, .. } => (!question.only_reads()).then_some(opaque),
            Command::Result { .. } => None,
        }
    }
}

/// A frame that cannot be understood; the text is what the client is told, with opaque 0.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFrame(pub Cow<'static, str>);

impl BadFrame {
    fn unknown() -> BadFrame {
        BadFrame(Cow::Borrowed(UNKNOWN))
    }
}

/// Decodes what follows `pack_len` in a client's frame.
pub fn decode(payload: &[u8]) -> Result<Command<'_>, BadFrame> {
    let (header, rest) = counted(payload)?;
    let mut words = header.split(|byte| *byte == b' ');
    let name = words.next().unwrap_or_default();
    let expected = match name.first() {
        Some(b's') => "send",
        Some(b'p') => "push",
        Some(b't') if name == b"tget" => "tget",
        Some(b't') => "tset",
        Some(b'r') => "result",
        _ => return Err(BadFrame::unknown()),
    };
    if name != expected.as_bytes() {
        let quoted = String::from_utf8_lossy(&name[..name.len().min(WORD_QUOTED)]);
        return Err(BadFrame(Cow::Owned(format!("Expect {expected} but was {quoted}"))));
    }
    let mut word = || words.next().ok_or_else(BadFrame::unknown);
    match expected {
        // tset {key}, tget {key}
        "tset" | "tget" => {
            let key = word()?;
            let (opaque, _) = integer(rest)?;
            Ok(match expected {
                "tset" => Command::Tset { opaque, key },
                _ => Command::Tget { opaque, key },
            })
        }
        // result {code}
        "result" => {
            let code = word()?;
            let (opaque, rest) = integer(rest)?;
            let (message, _) = counted(rest)?;
            Ok(Command::Result { opaque, code, message })
        }
        // send {openid} {key} [id={id}], push {openid} {key} [id={id}]
        _ => {
            let (openid, key) = (word()?, word()?);
            let id = words.next().and_then(|word| word.strip_prefix(ID));
            let (opaque, rest) = integer(rest)?;
            let (data, _) = counted(rest)?;
            let request = Request { opaque, openid, key, id, data };
            Ok(match expected {
                "send" => Command::Send(request),
                _ => Command::Push(request),
            })
        }
    }
}

/// Decodes a frame of the administration socket: a client's commands, and those that only it understands.
pub fn decode_admin(payload: &[u8]) -> Result<Command<'_>, BadFrame> {
    if let Ok((name, rest)) = counted(payload)
        && let Some(question) = Question::ALL.iter().find(|it| it.name().as_bytes() == name)
    {
        let (opaque, rest) = integer(rest)?;
        let body = if rest.is_empty() { rest } else { counted(rest)?.0 };
        return Ok(Command::Ask { opaque, question: *question, body });
    }
    decode(payload)
}

/// A length and as many bytes, and what follows them.
fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadFrame> {
    let (length, rest) = integer(bytes)?;
    rest.split_at_checked(length as usize).ok_or_else(BadFrame::unknown)
}

fn integer(bytes: &[u8]) -> Result<(u32, &[u8]), BadFrame> {
    let (word, rest) = bytes.split_at_checked(WORD).ok_or_else(BadFrame::unknown)?;
    Ok((BigEndian::read_u32(word), rest))
}

/// Appends `result {code}`; body_len is 0 when there is no message.
pub fn encode_result(out: &mut Vec<u8>, code: u16, opaque: u32, message: &[u8]) {
    let mut digits = [0; 5];
    frame::encode(out, &[b"result", decimal(code, &mut digits)], opaque, Some(message));
}

/// `code` as decimal digits at the end of `digits`, without an allocation.
fn decimal(mut code: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (code % 10) as u8;
        code /= 10;
        if code == 0 {
            return &digits[start..];
        }
    }
}

/// Appends `send {openid} {key} [id={id}]`.
pub fn encode_send(out: &mut Vec<u8>, request: Request) {
    encode_request(out, b"send", request);
}

/// Appends `push {openid} {key} [id={id}]`.
pub fn encode_push(out: &mut Vec<u8>, request: Request) {
    encode_request(out, b"push", request);
}

fn encode_request(out: &mut Vec<u8>, name: &[u8], request: Request) {
    let Request { opaque, openid, key, id, data } = request;
    match id {
        None => frame::encode(out, &[name, openid, key], opaque, Some(data)),
        Some(id) => {
            frame::encode(out, &[name, openid, key, &[ID, id].concat()], opaque, Some(data))
        }
    }
}

/// Appends `tset {key}`.
pub fn encode_tset(out: &mut Vec<u8>, opaque: u32, key: &[u8]) {
    frame::encode(out, &[b"tset", key], opaque, None);
}

/// Appends `tget {key}`.
pub fn encode_tget(out: &mut Vec<u8>, opaque: u32, key: &[u8]) {
    frame::encode(out, &[b"tget", key], opaque, None);
}

/// Appends a question to the administration socket.
pub fn encode_ask(out: &mut Vec<u8>, opaque: u32, question: Question, body: &[u8]) {
    frame::encode(out, &[question.name().as_bytes()], opaque, Some(body));
}

#[cfg(test)]
mod tests {
    use super::frame::{Split, split};
    use super::*;
    use serde_json::Value;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    fn text<'a>(args: &'a Value, name: &str) -> &'a [u8] {
        args[name].as_str().unwrap_or("").as_bytes()
    }

    /// Equal, where 10 and 10.0 are one number.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
            }
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            _ => a == b,
        }
    }

    fn words(case: &str) -> Vec<Value> {
        let vectors = include_str!("../../tests/data/wire.json");
        let cases: Vec<Value> = serde_json::from_str(vectors).unwrap();
        assert_eq!(cases.len(), 74);
        cases.into_iter().filter(|c| c["command"] == case || case.is_empty()).collect()
    }

    #[test]
    fn recorded_frames_decode_to_their_arguments() {
        for case in words("") {
            let (name, args) = (&case["name"], &case["args"]);
            let bytes = unhex(case["hex"].as_str().unwrap());
            let Split::Frame { payload, size } = split(&bytes, 2_465_792) else {
                panic!("{name}: no frame");
            };
            assert_eq!(size, bytes.len(), "{name}");
            let opaque = args["opaque"].as_u64().unwrap_or(0) as u32;
            match decode(payload).unwrap() {
                Command::Send(got) | Command::Push(got) => {
                    assert_eq!(got.opaque, opaque, "{name}");
                    if name == "push_openid_with_space" {
                        assert_eq!((got.openid, got.key), (&b"a"[..], &b"b"[..]));
                    } else {
                        assert_eq!(got.openid, text(args, "openid"), "{name}");
                        assert_eq!(got.key, text(args, "key"), "{name}");
                    }
                    let data: Value = serde_json::from_slice(got.data).unwrap();
                    assert!(same(&data, &args["data"]), "{name}: {data}");
                }
                Command::Tset { opaque: got, key } => {
                    assert_eq!((got, key), (opaque, text(args, "key")), "{name}");
                }
                Command::Result { opaque: got, code, message } => {
                    let want = args["code"].to_string();
                    assert_eq!(code, want.trim_matches('"').as_bytes(), "{name}");
                    assert_eq!((got, message), (opaque, text(args, "message")), "{name}");
                }
                _ => panic!("{name}"),
            }
        }
    }

    #[test]
    fn arguments_encode_to_the_recorded_frames() {
        for case in words("") {
            let (name, args) = (&case["name"], &case["args"]);
            let recorded = unhex(case["hex"].as_str().unwrap());
            let opaque = args["opaque"].as_u64().unwrap_or(0) as u32;
            let mut out = Vec::new();
            match case["command"].as_str().unwrap() {
                "tset" => encode_tset(&mut out, opaque, text(args, "key")),
                "result" => {
                    let code = args["code"].to_string();
                    let code = code.trim_matches('"').as_bytes();
                    frame::encode(
                        &mut out,
                        &[b"result", code],
                        opaque,
                        Some(text(args, "message")),
                    );
                    if let Some(code) = args["code"].as_u64() {
                        let mut same = Vec::new();
                        encode_result(&mut same, code as u16, opaque, text(args, "message"));
                        assert_eq!(same, recorded, "{name}");
                    }
                }
                command => {
                    let Split::Frame { payload, .. } = split(&recorded, usize::MAX) else {
                        panic!("{name}");
                    };
                    // The original's JSON spelling is its own; the frame around it is compared.
                    let data = match decode(payload).unwrap() {
                        Command::Send(got) | Command::Push(got) => got.data.to_vec(),
                        _ => panic!("{name}"),
                    };
                    let (openid, key) = (text(args, "openid"), text(args, "key"));
                    let request = Request { opaque, openid, key, id: None, data: &data };
                    match command {
                        "send" => encode_send(&mut out, request),
                        _ => encode_push(&mut out, request),
                    }
                }
            }
            assert_eq!(out, recorded, "{name}");
        }
    }

    #[test]
    fn no_cut_or_flipped_frame_panics() {
        for case in words("") {
            let bytes = unhex(case["hex"].as_str().unwrap());
            for cut in WORD..bytes.len() {
                let _ = decode(&bytes[WORD..cut]);
                let mut flipped = bytes.clone();
                flipped[cut] ^= 0xff;
                let _ = decode_admin(&flipped[WORD..]);
            }
        }
    }

    /// Runs for a second, or for MEGA_FUZZ_SECONDS (scripts/fuzz).
    #[test]
    fn no_stream_of_bytes_stops_the_decoder_or_depends_on_its_segmentation() {
        const MAX: usize = 4096;
        let recorded: Vec<Vec<u8>> =
            words("").iter().map(|case| unhex(case["hex"].as_str().unwrap())).collect();
        let (started, mut count) = (std::time::Instant::now(), 0_u64);
        while started.elapsed() < crate::queue::tests::fuzz::budget() {
            let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
            let mut stream = Vec::new();
            for _ in 0..random.usize(1..5) {
                stream.extend_from_slice(&recorded[random.usize(..recorded.len())]);
            }
            for _ in 0..random.usize(..6) {
                let at = random.usize(..stream.len());
                match random.u8(..5) {
                    0 => stream[at] = random.u8(..),
                    1 => stream[at] ^= 1 << random.u8(..8),
                    2 => stream.truncate(at.max(1)),
                    3 => stream.insert(at, random.u8(..)),
                    _ => {
                        let word = [u32::MAX, 0, 3, 4, MAX as u32][random.usize(..5)];
                        let at = at.min(stream.len().saturating_sub(4));
                        let end = (at + 4).min(stream.len());
                        stream[at..end].copy_from_slice(&word.to_be_bytes()[..end - at]);
                    }
                }
            }
            let whole = read_all(&stream, &[stream.len()], MAX);
            let mut cuts: Vec<usize> =
                (0..random.usize(1..8)).map(|_| random.usize(..stream.len())).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            assert_eq!(read_all(&stream, &cuts, MAX), whole, "{stream:02x?} cut at {cuts:?}");
            count += 1;
        }
        println!("{count} streams in {:?}", started.elapsed());
    }

    /// What a stream says when it arrives in pieces that end at `cuts`.
    fn read_all(stream: &[u8], cuts: &[usize], max: usize) -> Vec<String> {
        let (mut said, mut start) = (Vec::new(), 0);
        for end in cuts {
            loop {
                match split(&stream[start..*end], max) {
                    Split::Partial { .. } => break,
                    Split::TooLong => {
                        said.push("too long".into());
                        return said;
                    }
                    Split::Frame { payload, size } => {
                        said.push(format!("{:?} {:?}", decode(payload), decode_admin(payload)));
                        start += size;
                    }
                }
            }
        }
        said
    }

    #[test]
    fn a_third_word_is_an_id_only_where_it_says_so() {
        let words = [
            ("push o k", None),
            ("push o k id=A-1_z", Some("A-1_z")),
            ("push o k id=", Some("")),
            ("push o k id=a id=b", Some("a")),
            ("push o k x id=b", None),
            ("push o k ID=b", None),
        ];
        for (words, id) in words {
            let id = id.map(str::as_bytes);
            let mut out = Vec::new();
            frame::encode(&mut out, &[words.as_bytes()], 7, Some(b"{}"));
            let request = Request { opaque: 7, openid: b"o", key: b"k", id, data: b"{}" };
            assert_eq!(decode(&out[WORD..]), Ok(Command::Push(request)), "{words:?}");
            let mut again = Vec::new();
            encode_push(&mut again, request);
            assert!(decode(&again[WORD..]) == Ok(Command::Push(request)));
        }
    }

    #[test]
    fn a_push_may_have_an_empty_body_and_must_have_one() {
        let mut out = Vec::new();
        frame::encode(&mut out, &[b"push", b"o", b"k"], 7, None);
        assert_eq!(decode(&out[WORD..]), Err(BadFrame::unknown()));
        out.extend_from_slice(&[0; WORD]);
        let request = Request { opaque: 7, openid: b"o", key: b"k", id: None, data: b"" };
        assert_eq!(decode(&out[WORD..]), Ok(Command::Push(request)));
    }

    #[test]
    fn a_wrong_word_is_named_with_the_command_it_resembles() {
        let mut out = Vec::new();
        frame::encode(&mut out, &[b"sexd", b"a", b"b"], 1, Some(b""));
        let wrong = decode(&out[WORD..]).unwrap_err();
        assert_eq!(wrong.0, "Expect send but was sexd");
    }
}
