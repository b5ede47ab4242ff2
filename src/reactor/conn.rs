//! One client: its socket, what it sent that is not a whole frame yet, and what it has not taken
//! yet. Owned by the reactor; never blocks, and says what it holds so that the account can be kept.

use super::account::{Account, CONN_COST, Part};
use super::asker;
use super::inbox::Inbox;
use super::outbox::{Io, Keeps, Outbox, Peer};
use super::stream::Stream;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a client may take to close its side after it was told to go.
const PARTING: Duration = Duration::from_secs(1);

/// Bytes read in one go.
pub const CHUNK: usize = 64 * 1024;

/// What there is to read, as the last edge and the last read said (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    Empty,
    Readable,
    /// The other side has sent its end, which no later edge will tell of again: it is read up to it.
    Ending,
    /// It has sent all it will send.
    Ended,
}

/// What becomes of its frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Course {
    /// They are taken as they come.
    Open,
    /// The next one cannot be handed on; nothing is read until it can.
    Held(Hold),
    /// No more of them are taken: it is closed when everything it is owed is written, these last
    /// words last of all.
    Closing(Vec<u8>),
    /// Its sending side was ended then; what still comes is thrown away for a moment, because closing
    /// a socket that has unread bytes would take the last words back.
    Parted(Instant),
}

/// What a client that is held back waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Room for a batch.
    Spool,
    /// Room for an order, of the store or of the ledger.
    Store,
    /// Its own results: it has had its share.
    Results,
}

/// How a client has been in the middle of something for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overstay {
    /// The time for a frame runs from its first byte to its last.
    Frame,
    /// No byte of its replies was taken.
    Replies,
    /// It was told to go, and does not close its side.
    Parted,
}

pub struct Conn {
    stream: Stream,
    peer: Option<IpAddr>,
    pub generation: u32,
    pub socket: Socket,
    pub course: Course,
    /// When a client came in; none from the first request on that was done for it.
    pub newcomer_since: Option<Instant>,
    inbox: Inbox,
    pub outbox: Outbox,
    /// R2: requests whose results have not come back yet, and what they weigh.
    pub unanswered: usize,
    pub weight: usize,
    /// What the account was charged for inbox and outbox.
    charged: [usize; 2],
    /// It is on the reactor's list of those to be written to.
    pub touched: bool,
}

impl Conn {
    /// `peer`: where a client comes from; none at the administration socket.
    pub fn new(stream: Stream, peer: Option<IpAddr>, generation: u32, now: Instant) -> Conn {
        Conn {
            stream,
            peer,
            generation,
            socket: Socket::Readable,
            course: Course::Open,
            newcomer_since: peer.map(|_| now),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            unanswered: 0,
            weight: 0,
            charged: [0; 2],
            touched: false,
        }
    }

    pub fn is_admin(&self) -> bool {
        matches!(self.stream, Stream::Unix(_) | Stream::Monitor(_))
    }

    /// It may ask how the daemon is, and nothing else.
    pub fn only_looks(&self) -> bool {
        matches!(self.stream, Stream::Monitor(_))
    }

    /// Who is at the other end of an administrator's connection.
    pub fn asker(&self) -> String {
        asker::name(&self.stream)
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// An edge has told of something to read, or of the other side's end.
    pub fn tell(&mut self, is_end: bool) {
        self.socket = match self.socket {
            Socket::Ended => Socket::Ended,
            Socket::Ending => Socket::Ending,
            _ if is_end => Socket::Ending,
            _ => Socket::Readable,
        };
    }

    pub fn is_held(&self) -> bool {
        matches!(self.course, Course::Held(_))
    }

    /// What it was held for may be there now. The time that it was not read is not its own.
    pub fn resume(&mut self, now: Instant) {
        self.course = Course::Open;
        self.inbox.begin_anew(now);
    }

    /// Reads what the socket has, about `quantum` bytes at most, and calls `each` with what there is to look at: the
    /// bytes read, or the inbox with these at its end. `each` says how many of them are used up; the
    /// rest is kept. R3: it goes on until the socket is empty, it is held, or others have their turn.
    pub fn read(
        &mut self,
        chunk: &mut [u8],
        quantum: usize,
        mut each: impl FnMut(&mut Conn, &[u8]) -> usize,
        now: Instant,
    ) -> Io {
        let size = chunk.len().min(quantum);
        let chunk = &mut chunk[..size];
        if !self.inbox.is_empty() && !self.is_held() {
            // What being held has left.
            self.digest(&[], &mut each, now);
        }
        let mut taken = 0;
        while matches!(self.socket, Socket::Readable | Socket::Ending) && !self.is_held() {
            if taken >= quantum {
                return Io::More;
            }
            match self.stream.read(chunk) {
                Ok(0) => self.socket = Socket::Ended,
                Ok(count) => {
                    taken += count;
                    // A short read has emptied the socket; the next edge tells of more.
                    if count < chunk.len() && self.socket == Socket::Readable {
                        self.socket = Socket::Empty;
                    }
                    self.digest(&chunk[..count], &mut each, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket = Socket::Empty,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The kernel says so after the last byte that had arrived.
                Err(_) => return Io::Broken,
            }
        }
        Io::Done
    }

    fn digest(
        &mut self,
        chunk: &[u8],
        each: &mut impl FnMut(&mut Conn, &[u8]) -> usize,
        now: Instant,
    ) {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.digest(chunk, |bytes: &[u8]| each(self, bytes), now);
        self.inbox = inbox;
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self, now: Instant, keeps: Keeps) -> Io {
        let stream = &mut self.stream;
        self.outbox.flush(now, keeps, |bytes| stream.write(bytes))
    }

    /// What is in the inbox is a frame that its client has not finished.
    fn half_frame(&self) -> Option<Instant> {
        self.inbox.since().filter(|_| !self.is_held())
    }

    /// It has sent half a frame, or does not take what it is owed, or was told to go.
    pub fn owes(&self) -> bool {
        let parted = matches!(self.course, Course::Parted(_));
        self.outbox.unwritten() > 0 || self.half_frame().is_some() || parted
    }

    /// A limit of zero is off.
    pub fn overstays(&self, now: Instant, limit: Duration) -> Option<Overstay> {
        let older = |since: Instant, limit| now.duration_since(since) > limit;
        match self.course {
            Course::Parted(at) if older(at, PARTING) => Some(Overstay::Parted),
            _ if limit.is_zero() => None,
            _ if self.half_frame().is_some_and(|since| older(since, limit)) => {
                Some(Overstay::Frame)
            }
            _ if self.outbox.is_stalled(now, limit) => Some(Overstay::Replies),
            _ => None,
        }
    }

    /// What its inbox has cost so far. Who waits for the spool is not to blame for it.
    pub fn frame_cost(&self, now: Instant) -> u128 {
        match self.course {
            Course::Held(Hold::Spool) => 0,
            _ => self.inbox.cost(now),
        }
    }

    /// Ends the sending side when the last words are written; true if that was now.
    pub fn part(&mut self, now: Instant) -> bool {
        let written = self.unanswered == 0 && self.outbox.unwritten() == 0;
        let parts = written && matches!(self.course, Course::Closing(_));
        if parts {
            self.course = Course::Parted(now);
            self.stream.end();
            self.tell(false);
        }
        parts
    }

    /// Nothing more will come from it or go to it.
    pub fn is_over(&self) -> bool {
        let settled = self.unanswered == 0 || self.outbox.peer() == Peer::Gone;
        let ended = self.socket == Socket::Ended && !self.is_held();
        ended && settled && self.outbox.unwritten() == 0
    }

    /// Tells the account what it holds now.
    pub fn settle(&mut self, account: &mut Account) {
        let held = [self.inbox.memory(), self.outbox.memory()];
        for (index, part) in [Part::Frames, Part::Replies].into_iter().enumerate() {
            if held[index] != self.charged[index] {
                account.credit(part, self.charged[index]);
                account.charge(part, held[index]);
            }
        }
        self.charged = held;
    }

    /// A request of its was done.
    pub fn served(&mut self, account: &mut Account) {
        if self.newcomer_since.take().is_some() {
            account.newcomers -= 1;
        }
    }

    /// Tells the account that it has gone.
    pub fn leave(self, account: &mut Account) {
        account.clients -= usize::from(self.peer.is_some());
        account.newcomers -= usize::from(self.newcomer_since.is_some());
        account.credit(Part::Frames, self.charged[0]);
        account.credit(Part::Replies, self.charged[1]);
        account.credit(Part::Conns, CONN_COST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Split, encode, split};
    use mio::net::UnixStream;
    use std::io::{Read, Write};

    const SECOND: Duration = Duration::from_secs(1);

    fn pair() -> (Conn, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Conn::new(Stream::Unix(ours), None, 1, Instant::now()), theirs)
    }

    /// Reads as the reactor does after an edge, and returns the opaques of the frames.
    fn read(conn: &mut Conn, now: Instant) -> (Io, Vec<u8>) {
        read_holding(conn, b"hold", now)
    }

    /// As `read`, when what a frame was held for is there.
    fn read_past_hold(conn: &mut Conn, now: Instant) -> (Io, Vec<u8>) {
        read_holding(conn, b"no frame begins so", now)
    }

    fn read_holding(conn: &mut Conn, at: &[u8], now: Instant) -> (Io, Vec<u8>) {
        let (mut chunk, mut seen) = (vec![0; CHUNK], Vec::new());
        conn.tell(false);
        let each = |conn: &mut Conn, bytes: &[u8]| {
            let mut used = 0;
            while let Split::Frame { payload, size } = split(&bytes[used..], usize::MAX) {
                if payload.starts_with(at) {
                    conn.course = Course::Held(Hold::Spool);
                    break;
                }
                seen.push(payload[LAST_OF_OPAQUE]);
                used += size;
            }
            used
        };
        let read = conn.read(&mut chunk, usize::MAX, each, now);
        (read, seen)
    }

    const LAST_OF_OPAQUE: usize = 4 + 4 + 3;

    fn frame(opaque: u8, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"push"], u32::from(opaque), Some(&vec![7; length]));
        bytes
    }

    #[test]
    fn frames_are_found_in_any_segmentation() {
        let stream: Vec<u8> = (0..6).flat_map(|n| frame(n, 50 * usize::from(n))).collect();
        for size in [1, 2, 17, 200, stream.len()] {
            let (mut conn, mut client) = pair();
            let mut seen = Vec::new();
            for part in stream.chunks(size) {
                client.write_all(part).unwrap();
                seen.extend(read(&mut conn, Instant::now()).1);
            }
            assert_eq!(seen, [0, 1, 2, 3, 4, 5], "{size} bytes a read");
            assert_eq!((conn.inbox.memory(), conn.owes()), (0, false));
        }
    }

    #[test]
    fn the_time_of_a_frame_runs_from_its_first_byte_whatever_follows() {
        let (mut conn, mut client) = pair();
        let began = Instant::now();
        let at = |seconds| began + seconds * SECOND;
        client.write_all(&frame(1, 9)[..3]).unwrap();
        read(&mut conn, at(0));
        client.write_all(&frame(1, 9)[3..4]).unwrap();
        read(&mut conn, at(9));
        assert_eq!(conn.overstays(at(10), 10 * SECOND), None);
        assert_eq!(conn.overstays(at(11), 10 * SECOND), Some(Overstay::Frame));
        assert_eq!(conn.overstays(at(11), Duration::ZERO), None);
        // The end of one frame and the beginning of the next one begin anew.
        client.write_all(&[&frame(1, 9)[4..], &frame(2, 9)[..1]].concat()).unwrap();
        assert_eq!(read(&mut conn, at(11)).1, [1]);
        assert_eq!(conn.overstays(at(21), 10 * SECOND), None);
        assert_eq!(conn.overstays(at(22), 10 * SECOND), Some(Overstay::Frame));
        client.write_all(&frame(2, 9)[1..]).unwrap();
        assert_eq!(read(&mut conn, at(22)).1, [2]);
        assert_eq!((conn.overstays(at(99), SECOND), conn.owes()), (None, false));
    }

    #[test]
    fn who_is_held_is_not_read_and_goes_on_where_it_was() {
        let (mut conn, mut client) = pair();
        let began = Instant::now();
        let hold = [&12_u32.to_be_bytes()[..], b"hold........"].concat();
        client.write_all(&[frame(1, 9), hold, frame(2, 9)].concat()).unwrap();
        assert_eq!(read(&mut conn, began).1, [1]);
        let kept = conn.inbox.bytes().to_vec();
        client.write_all(&frame(3, 9)).unwrap();
        assert_eq!(read(&mut conn, began), (Io::Done, Vec::new()));
        assert_eq!(
            (conn.inbox.bytes(), conn.overstays(began + 9 * SECOND, SECOND)),
            (&kept[..], None)
        );
        conn.resume(began + 9 * SECOND);
        assert_eq!(conn.overstays(began + 10 * SECOND, SECOND), None);
        // What held it may go on now.
        assert_eq!(read_past_hold(&mut conn, began), (Io::Done, vec![b'.', 2, 3]));
    }

    #[test]
    fn an_end_is_read_up_to_and_what_is_owed_comes_first() {
        let (mut conn, mut client) = pair();
        client.write_all(&frame(1, 9)).unwrap();
        conn.unanswered = 1;
        conn.tell(true);
        drop(client);
        assert_eq!(read(&mut conn, Instant::now()).1, [1]);
        assert_eq!((conn.socket, conn.is_over()), (Socket::Ended, false));
        conn.unanswered = 0;
        assert!(conn.is_over());
    }

    #[test]
    fn a_client_that_was_told_to_go_has_a_moment() {
        let (mut conn, mut client) = pair();
        let now = Instant::now();
        conn.course = Course::Closing(Vec::new());
        conn.unanswered = 1;
        assert!(!conn.part(now));
        conn.unanswered = 0;
        assert!(conn.part(now) && !conn.part(now));
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(conn.overstays(now + PARTING, Duration::ZERO), None);
        assert_eq!(conn.overstays(now + 2 * PARTING, Duration::ZERO), Some(Overstay::Parted));
    }

    #[test]
    fn the_account_knows_what_is_held_and_a_long_frame_gives_it_back() {
        let (mut conn, mut client) = pair();
        let mut account = Account::new(1 << 30, 1000);
        account.charge(Part::Conns, CONN_COST);
        let long = [frame(1, 300_000), frame(2, 9)[..5].to_vec()].concat();
        for part in long.chunks(10_000) {
            client.write_all(part).unwrap();
            read(&mut conn, Instant::now());
            conn.settle(&mut account);
            let held = account.total() - CONN_COST;
            assert!(held >= conn.inbox.bytes().len() && held <= 380_000, "{held}");
        }
        assert_eq!(account.total(), CONN_COST + 5);
        conn.outbox.bytes().resize(5000, 0);
        conn.settle(&mut account);
        assert!(account.total() > 5000);
        conn.leave(&mut account);
        assert_eq!(account.total(), 0);
    }
}
