//! What can be wrong with a queue, in words for the log and the operator.

use super::header;
use std::io;

/// A part of a segment that cannot be trusted.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: u64,
    pub at: usize,
    pub bytes: u64,
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Damage { segment, at, bytes, why } = self;
        let name = header::name(*segment);
        write!(f, "queue segment {name}: {why}; {bytes} bytes at offset {at} skipped, ")?;
        write!(f, "the file is kept as {}", header::bad_name(*segment))
    }
}

#[derive(Debug)]
pub enum OpenError {
    Folder { error: io::Error },
    Segment { name: String, why: String },
    NoSpace { error: io::Error, size: u64 },
    Sync { error: io::Error },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            OpenError::Folder { error } => write!(f, "cannot read the folder: {error}"),
            OpenError::Segment { name, why } => write!(f, "cannot open segment {name}: {why}"),
            OpenError::Sync { error } => {
                write!(f, "what is in it cannot be made durable: {error} (check the disk)")
            }
            OpenError::NoSpace { error, size } => {
                write!(f, "cannot create a segment of {size} bytes: {error}")
            }
        }
    }
}

/// Why a message was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The tail is full and the janitor has not brought the next segment yet.
    NoSegment,
    /// `max_bytes` is reached.
    Full,
    /// It would not fit into any segment.
    TooLarge,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Refused::NoSegment => "queue full: the next segment is not there yet",
            Refused::Full => "queue full",
            Refused::TooLarge => "invalid data: larger than a queue segment",
        })
    }
}
