//! The client_msg_ids that waiting messages were given by their clients, read from the files by whoever has the
//! time. Read-only; what ends meanwhile may be among them.

use super::disk::Disk;
use super::header::{self, Header};
use super::inspect::{Summary, walk};
use super::reader::Reader;
use super::segment::Segment;
use super::{BLOCK, Queue};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// What the queue's files held at a moment.
pub struct OwnIds {
    disk: Arc<dyn Disk>,
    origin: u64,
    /// The segments' numbers, and how far each was written.
    segments: Vec<(u64, usize)>,
}

impl Queue {
    /// Of what is written now: in the files, nothing that is taken in later is looked at.
    pub fn own_ids(&self) -> OwnIds {
        let written = |segment: &Segment| (segment.number, segment.written());
        let segments = self.segments.iter().map(written).collect();
        OwnIds { disk: Arc::clone(&self.disk), origin: self.origin, segments }
    }
}

impl OwnIds {
    /// Calls `each` with the openid and the id of every message that has one and is not done, until it fails.
    pub fn read(&self, mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut result = Ok(());
        for (number, written) in &self.segments {
            let file = match self.disk.open(&header::name(*number)) {
                Ok(file) => file,
                // Finished since.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let segment = Segment::new(&Header::read(&file), self.origin, *number);
            let mut file = Reader::new(file, *written, BLOCK);
            walk(&segment, &mut file, &mut Summary::default(), |_, record, payload| {
                let [id, openid, _, _] = record.parts(payload);
                if result.is_ok() && !record.done && !id.is_empty() {
                    result = each(openid, id);
                }
            });
            if result.is_err() {
                break;
            }
        }
        result
    }
}
