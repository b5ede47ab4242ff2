//! How many messages go out in a day of WeChat's, and how many of them the disk knows of. Part of the spool's
//! state; knows neither messages nor threads.
//!
//! - D1: the file never says less than what has gone out, or may have: a block is reserved there before the first
//!   message of it is handed out. So no end of the daemon lets more out than the limit, and one that is no clean
//!   stop costs what is left of a block.
//! - What is handed out when the day turns counts for the new one too: WeChat may hear of it then.

use crate::clock::{until_next_wechat_day, wechat_day};
use crate::file;
use rustix::fs::OFlags;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A block is so small a part of the limit, and no larger than that: as few writes a day, and no more lost.
const BLOCKS: u64 = 100;
const LARGEST: u64 = 10_000;

/// The smallest block where there is no limit of which one could cost much.
const LEAST: u64 = 200;

/// How soon what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The file has a line: the day, and a number of this width. It is written in its place, for which a full disk
/// has room.
const WIDTH: usize = 20;

pub struct Quota {
    limit: Option<u64>,
    /// Days since 1970 at UTC+8.
    day: u64,
    /// Went out in it, and what became of them is known.
    went: u64,
    /// Handed out, and not known to have gone out or not.
    out: u64,
    /// D1
    reserved: u64,
    file: PathBuf,
    trouble: Option<Trouble>,
}

/// Nothing can be reserved.
struct Trouble {
    why: String,
    again: Instant,
}

/// Why nothing goes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Over<'a> {
    /// The day's messages are used up.
    Used,
    /// What would go out cannot be written down first.
    Unwritten(&'a str),
}

impl Quota {
    /// Zero is no limit.
    pub fn open(limit: u64, file: PathBuf) -> io::Result<Quota> {
        let (day, went, out, reserved, trouble) = (0, 0, 0, 0, None);
        let mut quota = Quota { limit: None, day, went, out, reserved, file, trouble };
        quota.configure(limit);
        quota.load()?;
        Ok(quota)
    }

    /// Zero is no limit.
    pub fn configure(&mut self, limit: u64) {
        self.limit = (limit > 0).then_some(limit);
    }

    /// Zero: there is none.
    pub fn limit(&self) -> u64 {
        self.limit.unwrap_or(0)
    }

    /// Without a file the day counts from here. One that cannot be read would let a second day's messages out:
    /// where there is a limit that is an error.
    fn load(&mut self) -> io::Result<()> {
        let open = file::open(&self.file, OFlags::RDONLY, 0);
        let text = match open.and_then(io::read_to_string) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) if self.limit.is_none() => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut words = text.split_whitespace().map(str::parse);
        match (words.next(), words.next()) {
            (Some(Ok(day)), Some(Ok(went))) => {
                (self.day, self.went, self.reserved) = (day, went, went);
                Ok(())
            }
            _ if self.limit.is_none() => Ok(()),
            _ => Err(io::Error::new(ErrorKind::InvalidData, format!("it holds {text:?}"))),
        }
    }

    /// Brings the state up to now; true if a new day has begun.
    pub fn turn(&mut self, now: Instant, unix_seconds: u64) -> bool {
        let today = wechat_day(unix_seconds);
        let turned = today != self.day;
        if turned {
            (self.day, self.went, self.reserved) = (today, 0, 0);
        }
        if self.trouble.as_ref().is_some_and(|trouble| now >= trouble.again) {
            // An error is the same trouble still.
            let _ = self.reserve(now);
        }
        turned
    }

    /// The day, and what is known to have gone out in it.
    pub fn today(&self) -> (u64, u64) {
        (self.day, self.went)
    }

    fn counted(&self) -> u64 {
        self.went + self.out
    }

    /// One more may be handed out, when it is reserved.
    pub fn allows(&self) -> bool {
        let room = |limit| self.counted() < limit && self.trouble.is_none();
        self.limit.is_none_or(room)
    }

    pub fn over(&self) -> Option<Over<'_>> {
        let limit = self.limit?;
        let unwritten = self.trouble.as_ref().map(|trouble| Over::Unwritten(&trouble.why));
        if self.went >= limit { Some(Over::Used) } else { unwritten }
    }

    /// When it goes on after `over` said that nothing goes out.
    pub fn goes_on(&self, now: Instant, unix_seconds: u64) -> Option<Instant> {
        match self.over()? {
            Over::Used => Some(now + until_next_wechat_day(unix_seconds)),
            Over::Unwritten(_) => self.trouble.as_ref().map(|trouble| trouble.again),
        }
    }

    /// The next one that is handed out needs a new block.
    pub fn must_reserve(&self) -> bool {
        self.counted() >= self.reserved && self.trouble.is_none()
    }

    /// D1. An error holds up whatever there is a limit for.
    pub fn reserve(&mut self, now: Instant) -> io::Result<()> {
        let counted = self.counted();
        let block = match self.limit {
            Some(limit) => (limit / BLOCKS).clamp(1, LARGEST).min(limit.saturating_sub(counted)),
            None => (self.went / BLOCKS).clamp(LEAST, LARGEST),
        };
        self.write(counted + block).inspect_err(|error| {
            self.trouble = Some(Trouble { why: error.to_string(), again: now + AGAIN });
        })
    }

    fn write(&mut self, number: u64) -> io::Result<()> {
        let line = format!("{} {number:0WIDTH$}\n", self.day);
        match file::open_own(&self.file, OFlags::WRONLY, 0) {
            Ok(file) => {
                file.write_all_at(line.as_bytes(), 0)?;
                // Without a limit it is a figure, which nobody waits for the disk for.
                if self.limit.is_some() {
                    file.sync_data()?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                file::replace(&self.file, |file| file.write_all(line.as_bytes()))?;
            }
            Err(error) => return Err(error),
        }
        (self.reserved, self.trouble) = (number, None);
        Ok(())
    }

    /// One is handed out.
    pub fn spend(&mut self) {
        self.out += 1;
    }

    /// One that was handed out was not begun, or WeChat was not reached.
    pub fn refund(&mut self) {
        self.out -= 1;
    }

    /// One that was handed out has gone out.
    pub fn gone(&mut self) {
        self.out -= 1;
        self.went += 1;
    }

    /// Gives back what was reserved and has not gone out: nothing is handed out any more.
    pub fn close(&mut self) -> io::Result<()> {
        match self.reserved == self.counted() {
            true => Ok(()),
            false => self.write(self.counted()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 4 * 3_600;

    fn open(limit: u64, folder: &tempfile::TempDir) -> Quota {
        let mut quota = Quota::open(limit, folder.path().join("sent")).unwrap();
        quota.turn(Instant::now(), NOON);
        quota
    }

    /// Hands out as the spool does; returns how many found room.
    fn hand_out(quota: &mut Quota, count: u64) -> u64 {
        for handed in 0..count {
            if !quota.allows() {
                return handed;
            }
            if quota.must_reserve() {
                quota.reserve(Instant::now()).unwrap();
            }
            quota.spend();
        }
        count
    }

    #[test]
    fn no_end_lets_more_out_than_the_limit_and_each_costs_a_block_at_most() {
        for limit in [1, 10, 99, 100, 1_000, 12_345] {
            let folder = tempfile::tempdir().unwrap();
            let (mut sent, mut ends) = (0, 0);
            loop {
                // Every time it ends without a word.
                let mut quota = open(limit, &folder);
                let handed = hand_out(&mut quota, (limit / 5).max(1));
                (0..handed / 2).for_each(|_| quota.gone());
                sent += handed;
                if handed == 0 {
                    break;
                }
                ends += 1;
            }
            assert!(sent <= limit && sent + ends * (limit / BLOCKS) >= limit, "{sent} of {limit}");
        }
    }

    #[test]
    fn what_was_reserved_and_did_not_go_out_is_given_back_at_a_clean_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut quota = open(1_000, &folder);
        assert_eq!(hand_out(&mut quota, 4), 4);
        (0..3).for_each(|_| quota.gone());
        quota.refund();
        quota.close().unwrap();
        assert_eq!(open(1_000, &folder).today().1, 3);
        // One whose outcome nobody waits for may have gone out.
        let mut quota = open(1_000, &folder);
        hand_out(&mut quota, 1);
        quota.close().unwrap();
        assert_eq!(open(1_000, &folder).today().1, 4);
    }

    #[test]
    fn it_is_counted_whether_there_is_a_limit_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut quota = open(0, &folder);
        hand_out(&mut quota, 20);
        (0..20).for_each(|_| quota.gone());
        quota.configure(21);
        assert_eq!(hand_out(&mut quota, 5), 1);
        assert_eq!(quota.over(), None, "the last one may come back");
        quota.close().unwrap();
        assert_eq!(open(21, &folder).over(), Some(Over::Used));
    }

    #[test]
    fn a_day_ends_at_midnight_in_china_and_what_is_on_its_way_then_counts_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let evening = 16 * 3_600 - 60;
        let (now, mut quota) = (Instant::now(), open(2, &folder));
        hand_out(&mut quota, 2);
        quota.gone();
        assert!(!quota.turn(now, evening) && !quota.allows());
        quota.spend();
        quota.gone();
        assert_eq!(quota.over(), Some(Over::Used));
        assert_eq!(quota.goes_on(now, evening), Some(now + Duration::from_secs(60)));
        assert!(quota.turn(now, evening + 60));
        assert_eq!((quota.today(), quota.over()), ((1, 0), None));
        assert_eq!(hand_out(&mut quota, 2), 1, "one is on its way still");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_where_there_is_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sent");
        std::fs::write(&file, "half a li").unwrap();
        assert!(Quota::open(5, file.clone()).is_err(), "the day's limit would begin anew");
        assert!(Quota::open(0, file.clone()).is_ok(), "nobody asks for the number");
        // As an earlier version wrote it.
        std::fs::write(&file, "0 7\n").unwrap();
        assert_eq!(open(9, &folder).today(), (0, 7));
    }

    #[test]
    fn where_nothing_can_be_written_a_limit_holds_messages_up_and_no_limit_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut quota = open(5, &folder);
        std::fs::create_dir(folder.path().join("sent")).unwrap();
        let now = Instant::now();
        assert!(quota.must_reserve() && quota.reserve(now).is_err());
        assert!(!quota.allows() && !quota.must_reserve());
        assert!(matches!(quota.over(), Some(Over::Unwritten(_))));
        assert_eq!(quota.goes_on(now, NOON), Some(now + AGAIN));
        quota.configure(0);
        assert!(quota.allows() && quota.over().is_none());
        quota.configure(5);
        std::fs::remove_dir(folder.path().join("sent")).unwrap();
        quota.turn(now + AGAIN, NOON);
        assert_eq!(hand_out(&mut quota, 9), 5);
    }
}
