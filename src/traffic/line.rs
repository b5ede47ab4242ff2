//! The message log: one text line for every message that ended, delivered or not, pushes and sends
//! alike. Lines are put together in blocks by whoever ends a message, without an allocation a line;
//! the ledger writes the blocks.
//!
//! ```text
//! 2026-11-24T10:00:00.123+08:00 push OPENID KEY CLIENT_MSG_ID MSGID ATTEMPTS QUEUED CALL CLASS ERRCODE CLIENT
//! ```
//!
//! Twelve words that are separated by one space each, in this order: the time of its end with its
//! zone; `push` or `send`; openid; key; client_msg_id; WeChat's msgid; attempts; milliseconds from
//! acceptance to the end without the last call; milliseconds of the last call to WeChat; the class
//! that it ended with (see `class`, or `suspended`, `stopping` for a send that was given up); errcode;
//! the client's address, of a send. `-` stands where there is nothing. Within a word, spaces, control
//! characters, backslashes and bytes that are not UTF-8 are written as `\xNN`.

use super::batch::Kind;
use crate::queue::ClientMsgId;
use chrono::{DateTime, Local, NaiveDate};
use std::io::Write as _;
use std::net::IpAddr;

/// A block is handed over when it has so many bytes.
pub const BLOCK: usize = 32 * 1024;

/// How a message ended.
#[derive(Clone, Copy)]
pub struct End<'a> {
    pub kind: Kind,
    pub openid: &'a [u8],
    pub key: &'a [u8],
    pub id: ClientMsgId,
    pub msgid: Option<u64>,
    pub attempts: u8,
    /// Unix time in ms of its acceptance, and the ms that the last call to WeChat took.
    pub enqueued: u64,
    pub called: Option<u32>,
    pub class: &'static str,
    pub errcode: Option<i64>,
    pub client: Option<IpAddr>,
}

/// Lines of one day.
pub struct Block {
    pub day: NaiveDate,
    pub bytes: Vec<u8>,
    pub lines: u64,
    /// Lines before these that could not be handed over.
    pub missed: u64,
}

/// The block that lines are put into, and the second that it is, as text.
pub struct Lines {
    bytes: Vec<u8>,
    lines: u64,
    second: u64,
    day: NaiveDate,
    /// `2026-11-24T10:00:00.` and `+08:00`.
    head: Vec<u8>,
    zone: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Lines {
        let mut lines = Lines {
            bytes: Vec::new(),
            lines: 0,
            second: 0,
            day: NaiveDate::MIN,
            head: Vec::new(),
            zone: Vec::new(),
        };
        lines.tell(0);
        lines
    }
}

impl Lines {
    /// Adds a line; `now` is Unix time in ms. Returns the block that it does not belong to any more,
    /// because a new day has begun.
    pub fn add(&mut self, now: u64, end: &End) -> Option<Block> {
        let mut before = None;
        if now / 1_000 != self.second {
            let day = self.day;
            self.tell(now / 1_000);
            if day != self.day && self.lines > 0 {
                before = Some(Block { day, ..self.take() });
            }
        }
        if self.lines == 0 {
            self.bytes.reserve(BLOCK + 1024);
        }
        self.lines += 1;
        let out = &mut self.bytes;
        out.extend_from_slice(&self.head);
        let ms = (now % 1_000) as usize;
        out.extend([ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8));
        out.extend_from_slice(&self.zone);
        out.extend_from_slice(match end.kind {
            Kind::Push => b" push",
            Kind::Send => b" send",
        });
        word(out, end.openid);
        word(out, end.key);
        plain(out, end.id.as_bytes());
        number(out, end.msgid);
        number(out, Some(end.attempts.into()));
        let whole = now.saturating_sub(end.enqueued);
        number(out, Some(whole.saturating_sub(end.called.unwrap_or(0).into())));
        number(out, end.called.map(u64::from));
        plain(out, end.class.as_bytes());
        match end.errcode {
            Some(errcode) if errcode < 0 => {
                out.extend_from_slice(b" -");
                digits(out, errcode.unsigned_abs());
            }
            errcode => number(out, errcode.map(|errcode| errcode as u64)),
        }
        match end.client {
            // A Vec takes every byte.
            Some(client) => drop(write!(out, " {client}")),
            None => out.extend_from_slice(b" -"),
        }
        out.push(b'\n');
        before
    }

    fn tell(&mut self, second: u64) {
        self.second = second;
        let time = DateTime::from_timestamp(second as i64, 0).unwrap_or_default();
        let time = time.with_timezone(&Local);
        self.day = time.date_naive();
        self.head = time.format("%Y-%m-%dT%H:%M:%S.").to_string().into_bytes();
        self.zone = time.format("%:z").to_string().into_bytes();
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK
    }

    /// What there is, to be handed over.
    pub fn take(&mut self) -> Block {
        let bytes = std::mem::take(&mut self.bytes);
        Block { day: self.day, bytes, lines: std::mem::take(&mut self.lines), missed: 0 }
    }
}

fn number(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(b' ');
    match number {
        Some(number) => digits(out, number),
        None => out.push(b'-'),
    }
}

fn digits(out: &mut Vec<u8>, mut number: u64) {
    // Most numbers of a line have one digit.
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let mut digits = [0; 20];
    let mut start = digits.len();
    while number >= 100 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    start -= 2;
    digits[start..start + 2].copy_from_slice(&PAIRS[number as usize]);
    start += usize::from(number < 10);
    out.extend_from_slice(&digits[start..]);
}

/// Of 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// A space, and what has nothing in it that could end a word.
fn plain(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(bytes);
}

/// A space, and bytes as a word of the log.
fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b' ');
    // Of all bytes, so that several are looked at at once.
    let special = |special, byte: &u8| special | !(0x21..0x7F).contains(byte) | (*byte == b'\\');
    match bytes {
        b"" => out.push(b'-'),
        b"-" => out.extend_from_slice(br"\x2d"),
        _ if !bytes.iter().fold(false, special) => out.extend_from_slice(bytes),
        _ => escaped(out, bytes),
    }
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            let utf8 = character.encode_utf8(&mut utf8).as_bytes();
            match character == '\\' || character.is_whitespace() || character.is_control() {
                true => hex(out, utf8),
                false => out.extend_from_slice(utf8),
            }
        }
        hex(out, chunk.invalid());
    }
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        // A Vec takes every byte.
        drop(write!(out, "\\x{byte:02x}"));
    }
}

/// Bytes as the log spells them, to look for them in it.
pub fn spelt(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    word(&mut out, bytes);
    out.remove(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End<'static> {
        End {
            kind: Kind::Push,
            openid: b"oABC",
            key: b"k",
            id: ClientMsgId::new(b"00ff").unwrap(),
            msgid: Some(9_007_199_254_740_993),
            attempts: 2,
            enqueued: 1_000_000,
            called: Some(45),
            class: "ok",
            errcode: Some(0),
            client: None,
        }
    }

    fn line(now: u64, end: &End) -> String {
        let mut lines = Lines::default();
        assert!(lines.add(now, end).is_none());
        String::from_utf8(lines.take().bytes).unwrap()
    }

    #[test]
    fn a_message_is_a_line_of_twelve_words() {
        let first = line(1_000_200, &end());
        let (time, rest) = first.split_once(' ').unwrap();
        assert_eq!(rest, "push oABC k 00ff 9007199254740993 2 155 45 ok 0 -\n");
        let time = DateTime::parse_from_rfc3339(time).unwrap();
        assert_eq!(time.timestamp_millis(), 1_000_200);
        let other = End {
            kind: Kind::Send,
            msgid: None,
            called: None,
            class: "later",
            errcode: Some(-1),
            client: Some([10, 0, 0, 7].into()),
            ..end()
        };
        assert!(
            line(1_000_200, &other).ends_with(" send oABC k 00ff - 2 200 - later -1 10.0.0.7\n")
        );
        let other = End { errcode: None, client: Some("::1".parse().unwrap()), ..other };
        assert!(line(1_000_200, &other).ends_with(" later - ::1\n"));
    }

    #[test]
    fn a_number_is_written_as_everybody_writes_it() {
        let edges = (0..20).flat_map(|power| {
            let ten = 10_u64.saturating_pow(power);
            [ten - 1, ten, ten.saturating_add(1), ten.saturating_mul(7)]
        });
        for number in (0..1_200).chain(edges).chain([u64::MAX]) {
            let mut out = Vec::new();
            digits(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn nothing_in_a_word_can_end_it() {
        for (bytes, spelling) in [
            (&b"a b"[..], r"a\x20b"),
            (b"a\nb\x1b[2J", r"a\x0ab\x1b[2J"),
            (b"a\\x20b", r"a\x5cx20b"),
            ("用户".as_bytes(), "用户"),
            ("\u{9b}\u{2028}x".as_bytes(), r"\xc2\x9b\xe2\x80\xa8x"),
            (b"\xff\xfe!", r"\xff\xfe!"),
            (b"", "-"),
            (b"-", r"\x2d"),
            (b"--", "--"),
        ] {
            assert_eq!(String::from_utf8(spelt(bytes)).unwrap(), spelling);
            let line = line(0, &End { openid: bytes, key: bytes, ..end() });
            assert_eq!(line.split(' ').count(), 12, "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }

    #[test]
    fn a_new_day_begins_a_new_block() {
        let mut lines = Lines::default();
        let noon = 86_400_000 * 20_000 + 43_200_000;
        assert!(lines.add(noon, &end()).is_none());
        assert!(lines.add(noon + 10, &end()).is_none());
        let before = lines.add(noon + 86_400_000, &end()).unwrap();
        let after = lines.take();
        assert_eq!((before.lines, after.lines), (2, 1));
        assert_eq!((after.day - before.day).num_days(), 1);
    }
}
