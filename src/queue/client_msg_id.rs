//! What WeChat recognises a repeat by. Plain data, as small as its text, on any thread.

use std::fmt;

/// The longest that WeChat takes.
pub const MAX: usize = 32;

/// 1 to 32 bytes of `[A-Za-z0-9_-]`, the same for every attempt of one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientMsgId {
    /// Zeros behind the text.
    bytes: [u8; MAX],
    length: u8,
}

impl ClientMsgId {
    /// None if WeChat would not take it.
    pub fn new(text: &[u8]) -> Option<ClientMsgId> {
        let taken = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=MAX).contains(&text.len()) || !text.iter().all(taken) {
            return None;
        }
        let mut bytes = [0; MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(ClientMsgId { bytes, length: text.len() as u8 })
    }

    /// 32 hexadecimal digits: of a message that was given no other id.
    pub(super) fn of(origin: u64, id: u64) -> ClientMsgId {
        let mut bytes = [0; MAX];
        for (half, word) in bytes.chunks_exact_mut(16).zip([origin, id]) {
            for (digit, shift) in half.iter_mut().zip((0..16).rev()) {
                *digit = b"0123456789abcdef"[(word >> (4 * shift)) as usize & 15];
            }
        }
        ClientMsgId { bytes, length: MAX as u8 }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("invariant: made of ASCII only")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wechat_would_not_take_is_no_id() {
        let text = |length| vec![b'x'; length];
        for good in [&b"a"[..], b"AZaz09_-", &text(MAX)] {
            assert_eq!(ClientMsgId::new(good).unwrap().as_bytes(), good);
        }
        for bad in [&b""[..], b"a b", b"a\0", "ä".as_bytes(), &text(MAX + 1)] {
            assert_eq!(ClientMsgId::new(bad), None);
        }
    }

    #[test]
    fn without_one_it_is_made_of_both_numbers() {
        let id = ClientMsgId::of(0xAB, 1 << 60);
        assert_eq!(id.as_str(), "00000000000000ab1000000000000000");
        assert_eq!(ClientMsgId::new(id.as_bytes()), Some(id));
    }
}
