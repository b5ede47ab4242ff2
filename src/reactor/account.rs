//! What clients make the daemon hold, in bytes, and who gives way when it is too much. The reactor's
//! alone: every byte is charged when it comes in and credited when it has gone, by one thread.
//!
//! Each part has a share of `memory_limit` of its own, so that no part can starve another:
//!
//! | part | share | beyond it |
//! |---|---|---|
//! | connections, `CONN_COST` each | 1/8 | closed, for whom nothing was done yet, for longest, first; then new ones are turned away |
//! | batches on their way to the spool, at least one | 1/8 | nobody is read until one comes back |
//! | sends and tsets without a result | 1/4 | refused with `queue full` |
//! | frames that are not whole, at least the longest one | 1/4 | closed, the greatest bytes × time first |
//! | replies that are not taken | 1/4 | closed, who has left most of them first |
//!
//! What one client alone may have: `buffer_output_size` of replies, `UNANSWERED` requests, and a
//! quarter of the share of sends. Beyond that it is not read, and told nothing, until its results
//! have come and are taken.

use std::fmt;

/// A connection's own parts, and the buffers it keeps when they are empty.
pub const CONN_COST: usize = 1024;

/// A send or tset without its bytes: job, place in the queues, reply.
pub const REQUEST_COST: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Conns,
    Batches,
    Requests,
    Frames,
    Replies,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Conns => "connections",
            Part::Batches => "batches",
            Part::Requests => "requests without a result",
            Part::Frames => "parts of frames",
            Part::Replies => "replies that are not read",
        })
    }
}

const PARTS: usize = 5;

pub struct Account {
    held: [usize; PARTS],
    share: [usize; PARTS],
    /// Connections of clients, and those of them for whom nothing was done yet.
    pub clients: usize,
    pub newcomers: usize,
}

impl Account {
    /// `longest`: bytes of the longest frame.
    pub fn new(memory_limit: usize, longest: usize) -> Account {
        let (held, share) = ([0; PARTS], [0; PARTS]);
        let mut account = Account { held, share, clients: 0, newcomers: 0 };
        account.limit(memory_limit, longest);
        account
    }

    /// Shares out another limit. What is held beyond it goes as if it had just come in.
    pub fn limit(&mut self, memory_limit: usize, longest: usize) {
        let (eighth, quarter) = (memory_limit / 8, memory_limit / 4);
        // A buffer grows by a quarter, so it can be so much larger than the frame in it.
        let frames = quarter.max(longest + longest / 2);
        self.share = [eighth, eighth, quarter, frames, quarter];
    }

    pub fn charge(&mut self, part: Part, bytes: usize) {
        self.held[part as usize] += bytes;
    }

    pub fn credit(&mut self, part: Part, bytes: usize) {
        self.held[part as usize] -= bytes;
    }

    /// There is room for so much more; a part that holds nothing has room for anything.
    pub fn fits(&self, part: Part, bytes: usize) -> bool {
        let held = self.held[part as usize];
        held == 0 || held + bytes <= self.share[part as usize]
    }

    /// Not even half of its share is held.
    pub fn is_easy(&self, part: Part) -> bool {
        self.held[part as usize] < self.share[part as usize] / 2
    }

    /// Bytes that have to go now, if any: down to seven eighths, so that it is not at once again
    /// that everybody has to be looked at.
    pub fn excess(&self, part: Part) -> Option<usize> {
        let (held, share) = (self.held[part as usize], self.share[part as usize]);
        (held > share).then(|| held - share / 8 * 7)
    }

    /// What one client's sends and tsets may hold.
    pub fn client_share(&self) -> usize {
        self.share[Part::Requests as usize] / 4
    }

    /// All parts together.
    pub fn total(&self) -> usize {
        self.held.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_to_the_limit() {
        let account = Account::new(64 << 20, 2 << 20);
        assert_eq!(account.share.iter().sum::<usize>(), 64 << 20);
    }

    #[test]
    fn a_full_part_has_no_room_and_an_empty_one_has_room_for_anything() {
        let mut account = Account::new(1 << 20, 1000);
        assert!(account.fits(Part::Requests, 1 << 30));
        account.charge(Part::Requests, 256 << 10);
        assert!(!account.fits(Part::Requests, 1) && account.fits(Part::Batches, 1));
        assert_eq!(account.excess(Part::Requests), None);
        account.charge(Part::Requests, 1);
        assert_eq!(account.excess(Part::Requests), Some((32 << 10) + 1));
        account.credit(Part::Requests, 2);
        assert!(account.fits(Part::Requests, 1));
        assert_eq!(account.total(), (256 << 10) - 1);
    }

    #[test]
    fn the_longest_frame_has_room_under_any_limit() {
        let mut account = Account::new(16 << 20, 64 << 20);
        account.charge(Part::Frames, 64 << 20);
        assert_eq!(account.excess(Part::Frames), None);
    }
}
