//! What can be wrong with a queue, in words for the log and the operator.

use super::header;
use crate::wire::not_now::QUEUE_FULL;
use std::io;

/// Messages that are lost, or will be.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// A part of a segment cannot be trusted, or nothing can be written there. The file is kept.
    Part { segment: u64, at: usize, bytes: u64, why: String },
    /// The file was there and is not.
    Gone { segment: u64 },
    /// Somebody took it away while it was open.
    TakenAway { segment: u64, replaced: bool },
    /// Another file stood in its place, and it stands there again; `kept`: the other one was no copy of it.
    PutBack { segment: u64, kept: bool },
    /// Another file stood in its place.
    NotPutBack { segment: u64, why: String },
    /// It was taken away while nobody looked: the next one knows of it.
    Missing { segment: u64, next: u64 },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let segment = match self {
            Damage::Part { segment, .. } | Damage::Gone { segment } => segment,
            Damage::PutBack { segment, .. } | Damage::NotPutBack { segment, .. } => segment,
            Damage::TakenAway { segment, .. } | Damage::Missing { segment, .. } => segment,
        };
        write!(f, "queue segment {}", header::name(*segment))?;
        match self {
            Damage::Part { at, bytes, why, .. } => {
                write!(f, ": {why}; ")?;
                if *bytes > 0 {
                    write!(f, "{bytes} bytes at offset {at} skipped, ")?;
                }
                write!(f, "the file is kept as {}", header::bad_name(*segment))
            }
            Damage::Gone { .. } => write!(
                f,
                ": the file is gone, and with it what waited in it (if it was moved: stop mega, put \
                 it back and start again)"
            ),
            Damage::TakenAway { replaced, .. } => write!(
                f,
                " has been {} while it was in use: what waits in it is delivered by this process \
                 only (let it empty the queue before you stop it)",
                if *replaced { "replaced by another file" } else { "removed" }
            ),
            Damage::PutBack { kept: false, .. } => write!(
                f,
                " was replaced by a copy of it while it was in use: it is put back as it is now (stop mega \
                 before you copy anything into its queue)"
            ),
            Damage::PutBack { kept: true, .. } => write!(
                f,
                " was replaced by another file while it was in use: it is put back, and the other file is kept \
                 as {}",
                header::bad_name(*segment)
            ),
            Damage::NotPutBack { why, .. } => write!(
                f,
                " was replaced by another file while it was in use, and cannot be put back: {why}; what waits \
                 in it is delivered by this process only (let it empty the queue before you stop it)"
            ),
            Damage::Missing { next, .. } => write!(
                f,
                " is missing: it was not finished when {} was written, and what waited in it, and \
                 in others missing before it, is lost (if it was moved: stop mega, put it back and \
                 start again)",
                header::name(*next)
            ),
        }
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
            Refused::Full => QUEUE_FULL,
            Refused::TooLarge => "invalid data: larger than a queue segment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_damage_is_true_of_each_kind() {
        let part = |bytes| Damage::Part { segment: 7, at: 128, bytes, why: "it is torn".into() };
        let name = "queue segment 00000000000000000007.seg";
        let kept = "the file is kept as 00000000000000000007.seg.bad";
        let skipped = format!("{name}: it is torn; 1 bytes at offset 128 skipped, {kept}");
        assert_eq!(part(1).to_string(), skipped);
        assert_eq!(part(0).to_string(), format!("{name}: it is torn; {kept}"));
        for gone in [
            Damage::Gone { segment: 7 },
            Damage::TakenAway { segment: 7, replaced: true },
            Damage::TakenAway { segment: 7, replaced: false },
            Damage::Missing { segment: 7, next: 9 },
            Damage::PutBack { segment: 7, kept: false },
            Damage::NotPutBack { segment: 7, why: "no room".into() },
        ] {
            let said = gone.to_string();
            assert!(said.starts_with(name) && !said.contains("kept as"), "{said}");
        }
    }
}
