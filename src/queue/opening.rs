//! Makes a queue of what recovery found in its folder. Part of the queue; runs once, before the spool
//! thread starts.

use super::cancel::Cancels;
use super::disk::Disk;
use super::janitor;
use super::segment::Segment;
use super::{COUNTER_BITS, OpenError, Options, Position, Queue, header, recover};
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;

impl Queue {
    /// Opens the folder, creating what a new queue needs, and makes what is in it durable. `now` is
    /// Unix time in ms here and below, and never goes back.
    pub fn open(disk: Arc<dyn Disk>, options: Options, now: u64) -> Result<Queue, OpenError> {
        let recovered = recover::recover(&*disk)?;
        let origin = match recovered.origin {
            Some(origin) => origin,
            None => random().map_err(|error| OpenError::Folder { error })?,
        };
        let mut next_number = recovered.highest_number + 1;
        // Q6
        let next_id = now.max((recovered.ids >> COUNTER_BITS) + 1) << COUNTER_BITS;
        let mut segments = VecDeque::from(recovered.segments);
        let last_used = segments.iter().rposition(Segment::is_used);
        let empty = segments.split_off(last_used.map_or(0, |i| i + 1));
        let (mut empty, old): (VecDeque<_>, VecDeque<_>) =
            empty.into_iter().partition(Segment::takes_more);
        // What is empty and unsealed comes after the tail, or is the tail of an empty queue.
        if segments.back().is_none_or(|tail| !tail.takes_more()) {
            let tail = match empty.pop_front() {
                Some(segment) => segment,
                None => {
                    next_number += 1;
                    let size = options.segment_size;
                    janitor::create(&*disk, next_number - 1, origin, size, now)
                        .map_err(|error| OpenError::NoSpace { error, size })?
                }
            };
            segments.push_back(tail);
            begin_first(&*disk, &mut segments, next_id)?;
        }
        let tail = segments.back().expect("invariant: a queue has a tail");
        // What does not say that it follows the tail may name a segment that is finished by now (Q7).
        // It is left by a crash in the middle of several starts, or by an older version.
        let (mut fit, surplus): (Vec<_>, Vec<_>) =
            empty.into_iter().partition(|segment| segment.follows == Some(tail.number));
        for Segment { number, .. } in
            surplus.into_iter().chain(old).chain(fit.drain(1.min(fit.len())..))
        {
            let name = header::name(number);
            let removed = disk.remove(&name).and_then(|()| disk.sync_folder());
            removed.map_err(|error| OpenError::Segment { name, why: error.to_string() })?;
        }
        let ours_from = Position { segment: tail.number, at: tail.end };
        let first = segments.front().expect("invariant: a queue has a tail");
        let cursor = Position { segment: first.number, at: header::HEADER };
        let depth: i64 = segments.iter().map(|s| s.unread).sum();
        let mut queue = Queue {
            origin,
            busy: segments.iter().filter(|s| s.file().is_some()).map(|s| s.number).collect(),
            spare: fit.pop(),
            spare_ordered: false,
            spare_again: 0,
            next_number,
            cursor,
            ahead: None,
            cursor_again: None,
            ours_from,
            heap: BinaryHeap::new(),
            latest_due: now.saturating_add(options.retry_cap.as_millis() as u64),
            next_id,
            depth,
            found: depth.max(0) as u64,
            lost: 0,
            front: None,
            cancels: Cancels::default(),
            bytes: segments.iter().map(|s| s.counted as u64).sum(),
            damage: recovered.damage,
            chores: VecDeque::new(),
            unsettled: VecDeque::new(),
            settling: 0,
            marked_since: false,
            failed: None,
            astray: false,
            keeps_finished: false,
            segments,
            options,
            disk,
        };
        queue.order_spare(now);
        Ok(queue)
    }
}

/// Makes the last segment the tail of a queue that is being opened.
fn begin_first(
    disk: &dyn Disk,
    segments: &mut VecDeque<Segment>,
    ids: u64,
) -> Result<(), OpenError> {
    let before = segments.iter().rev().nth(1).map_or(0, |segment| segment.number);
    let tail = segments.back_mut().expect("invariant: a queue has a tail");
    // Q6: before a segment goes whose ids it is to remember.
    tail.begin(ids, before, disk)
        .and_then(|()| tail.open(disk)?.sync())
        .map_err(|error| OpenError::Sync { error })
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}
