//! Finds frames in a byte stream and writes them. Owns the framing only: what a frame means is
//! `command`'s business. Refuses a frame by its announced length, before any buffer grows to it.
//!
//! ```text
//! frame   := pack_len  header_len  header  opaque  [ body_len  body ]
//! ```
//! All integers are unsigned 32-bit big-endian; `pack_len` counts the bytes that follow it.

use byteorder::{BigEndian, ByteOrder};

/// Bytes of each length field and of opaque.
pub const WORD: usize = 4;

/// What stands at the head of a receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// Fewer bytes than one frame; the frame, as far as it is known, has `wanted` bytes in all.
    Partial { wanted: usize },
    /// One whole frame: `payload` is what follows `pack_len`, `size` all its bytes.
    Frame { payload: &'a [u8], size: usize },
    /// The frame announces more than the limit allows.
    TooLong,
}

/// Looks for one frame at the head of `buffer`; `max` is `package_max_length`, which counts the
/// four length bytes too.
pub fn split(buffer: &[u8], max: usize) -> Split<'_> {
    if buffer.len() < WORD {
        return Split::Partial { wanted: WORD };
    }
    let size = BigEndian::read_u32(buffer) as usize + WORD;
    if size > max {
        return Split::TooLong;
    }
    match buffer.get(WORD..size) {
        Some(payload) => Split::Frame { payload, size },
        None => Split::Partial { wanted: size },
    }
}

/// Appends one frame whose header is `words` joined by single spaces. A body of `None` leaves out
/// body and body_len, as tset does.
pub fn encode(out: &mut Vec<u8>, words: &[&[u8]], opaque: u32, body: Option<&[u8]>) {
    let header: usize = words.iter().map(|w| w.len()).sum::<usize>() + words.len() - 1;
    let tail = body.map_or(0, |b| WORD + b.len());
    let pack = WORD + header + WORD + tail;
    out.reserve(WORD + pack);
    put(out, pack);
    put(out, header);
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(&opaque.to_be_bytes());
    if let Some(body) = body {
        put(out, body.len());
        out.extend_from_slice(body);
    }
}

fn put(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_only_when_its_last_byte_is_there() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"tset", b"k"], 7, None);
        for n in 0..bytes.len() {
            assert!(matches!(split(&bytes[..n], 1024), Split::Partial { .. }));
        }
        assert!(matches!(split(&bytes, 1024), Split::Frame { size, .. } if size == bytes.len()));
    }

    #[test]
    fn the_limit_counts_the_length_bytes() {
        let announces = |n: u32| n.to_be_bytes();
        assert_eq!(split(&announces(97), 100), Split::TooLong);
        assert_eq!(split(&announces(96), 100), Split::Partial { wanted: 100 });
        assert_eq!(split(&announces(u32::MAX), 100), Split::TooLong);
    }

    #[test]
    fn a_length_of_zero_is_an_empty_frame() {
        assert_eq!(split(&[0, 0, 0, 0, 9], 100), Split::Frame { payload: &[], size: 4 });
    }
}
