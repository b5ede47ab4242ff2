//! Messages that clients gave ids of their own: a request that is repeated is answered like the first, and nothing
//! goes out twice. Part of the spool's state; knows no channels.
//!
//! - K1: the id of a push is known from the moment it is taken in until ten minutes after its end, that of a send
//!   while it is in hand and for ten minutes after WeChat's answer. Like WeChat, for one openid. A send under a
//!   push's id is refused: nobody could answer it as a send.
//! - K2: a send of which nobody knows what became, or that was refused, is forgotten: the repeat is tried, and
//!   WeChat drops it if it took the first.
//! - K3: what an earlier run took in is read from the queue by a thread of its own, when the first request with
//!   an id comes; until that is done such requests are refused, not guessed at.
//! - K4: there are never more than `limit`, each of at most `COST` bytes. Those that ended first are forgotten
//!   before their time, because WeChat itself drops a repeat for ten minutes; what is held is not, and one more is
//!   refused.

use crate::linger::linger;
use crate::queue::{ClientMsgId, Message, OwnIds};
use crate::traffic::batch::ReplyTo;
use crate::wire::command::OK;
use crate::wire::not_now::{IDS_FULL, IDS_UNREAD, QUEUE_FULL};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long an end is remembered at least.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// How long it is waited after the queue could not be read.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the reading of a short queue is waited for, so that the first request need not come again.
const SHORT: Duration = Duration::from_millis(10);

/// Bytes of memory that one takes at most, in a table that has just grown; texts of that length count for one more.
const COST: usize = 96;

/// An openid and an id, as good as unlike any other.
pub type Print = [u64; 2];

/// Its seeds are random, so that no client can find two that are alike.
#[derive(Clone)]
struct Printer([RandomState; 2]);

impl Printer {
    fn print(&self, openid: &[u8], id: &[u8]) -> Print {
        self.0.each_ref().map(|hasher| hasher.hash_one((openid, id)))
    }
}

type Prints<V> = HashMap<Print, V, foldhash::fast::RandomState>;
type Set = HashSet<Print, foldhash::fast::RandomState>;

/// What the first request was told, if it was not just 200.
type Told = Option<Box<(u16, Box<str>)>>;

/// What ended in ten minutes.
#[derive(Default)]
struct Ends {
    pushes: Set,
    sends: Prints<Told>,
    /// What texts of answers count for, beside their ids.
    texts: usize,
}

impl Ends {
    fn len(&self) -> usize {
        self.pushes.len() + self.sends.len() + self.texts
    }
}

/// What is known of an id.
pub enum Known {
    /// Nothing; what it is remembered by.
    New(Print),
    /// A push with it is in the queue, or ended.
    Pushed,
    /// A send with it has ended so.
    Told(u16, Box<str>),
    /// A send with it is in hand: this one is told with it.
    Joined,
    /// It cannot be said now, or not be remembered.
    Refused(String),
}

pub struct Ids {
    printer: Printer,
    limit: usize,
    queued: Set,
    /// Who waits for a send beside the one that it came from.
    sends: Prints<Vec<ReplyTo>>,
    /// Those of the last ten minutes, and those of up to ten minutes before.
    ended: [Ends; 2],
    turned: Instant,
    before: Before,
}

/// The ids that the queue held at the start (K3).
enum Before {
    /// Nobody has asked yet.
    Unread,
    Reading(JoinHandle<io::Result<Vec<Print>>>),
    /// Until when it is not tried again, and why.
    Failed(Instant, String),
    Read,
}

impl Ids {
    /// `found`: messages waited when the daemon began.
    pub fn new(limit: usize, found: bool, now: Instant) -> Ids {
        Ids {
            printer: Printer([RandomState::new(), RandomState::new()]),
            limit,
            queued: HashSet::default(),
            sends: Prints::default(),
            ended: Default::default(),
            turned: now,
            before: if found { Before::Unread } else { Before::Read },
        }
    }

    pub fn configure(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many are remembered; texts count, too.
    pub fn len(&self) -> usize {
        self.queued.len() + self.sends.len() + self.ended.iter().map(Ends::len).sum::<usize>()
    }

    /// What is known of a request that came just now, before it is taken in.
    pub fn look(
        &mut self,
        openid: &[u8],
        id: &ClientMsgId,
        to: ReplyTo,
        old: impl FnOnce() -> OwnIds,
        now: Instant,
    ) -> Known {
        self.turn(now);
        let print = self.printer.print(openid, id.as_bytes());
        if let Some(waiting) = self.sends.get_mut(&print) {
            waiting.push(to);
            return Known::Joined;
        }
        if self.is_push(&print) {
            return Known::Pushed;
        }
        match self.ended.iter().find_map(|ended| ended.sends.get(&print)) {
            Some(None) => return Known::Told(OK, "".into()),
            Some(Some(told)) => return Known::Told(told.0, told.1.clone()),
            None => {}
        }
        if let Err(why) = self.read(old, now) {
            return Known::Refused(why);
        }
        // What was just read may hold it.
        if self.queued.contains(&print) {
            return Known::Pushed;
        }
        self.make_room(now);
        if self.len() >= self.limit {
            return Known::Refused(format!(
                "{QUEUE_FULL}: {} {IDS_FULL} (queue.ids_max)",
                self.limit
            ));
        }
        Known::New(print)
    }

    fn is_push(&self, print: &Print) -> bool {
        let ended = |ended: &Ends| ended.pushes.contains(print);
        self.queued.contains(print) || self.ended.iter().any(ended)
    }

    /// A push is in the queue.
    pub fn queued(&mut self, print: Print) {
        self.queued.insert(print);
    }

    /// A push is in the queue again, and nobody has looked.
    pub fn requeued(&mut self, openid: &[u8], id: &ClientMsgId) {
        // What was there at the start is read later, all of it.
        if !matches!(self.before, Before::Unread) {
            self.queued.insert(self.printer.print(openid, id.as_bytes()));
        }
    }

    /// A send was taken in.
    pub fn sent(&mut self, print: Print) {
        self.sends.insert(print, Vec::new());
    }

    /// A push has ended, whatever it came to.
    pub fn ended(&mut self, message: &Message, now: Instant) {
        let Some(id) = message.own_id() else { return };
        self.turn(now);
        let print = self.printer.print(message.openid(), id);
        if !self.queued.remove(&print) {
            // One that was queued before the start, and was not read yet.
            self.make_room(now);
        }
        self.ended[0].pushes.insert(print);
        self.share(now);
    }

    /// A send was answered, and whoever joined it is to be told the same; `definite`: by WeChat (K2).
    pub fn answered(
        &mut self,
        message: &Message,
        definite: Option<(u16, &str)>,
        now: Instant,
    ) -> Vec<ReplyTo> {
        let Some(id) = message.own_id() else { return Vec::new() };
        self.turn(now);
        let print = self.printer.print(message.openid(), id);
        if let Some((code, text)) = definite {
            let told = !(code == OK && text.is_empty());
            let told = told.then(|| Box::new((code, text.into())));
            self.ended[0].texts += told.as_ref().map_or(0, |_| 1 + text.len() / COST);
            self.ended[0].sends.insert(print, told);
            self.share(now);
        }
        self.sends.remove(&print).unwrap_or_default()
    }

    /// Everybody who joined a send that is given up.
    pub fn give_up(&mut self) -> Vec<ReplyTo> {
        self.sends.drain().flat_map(|(_, joined)| joined).collect()
    }

    /// Forgets what ended more than ten minutes ago, a table at a time.
    fn turn(&mut self, now: Instant) {
        // What is being read may have ended meanwhile: until it is here, nothing is forgotten.
        if now < self.turned + REMEMBERED || matches!(self.before, Before::Reading(_)) {
            return;
        }
        // Nothing came for long: both are old.
        if now >= self.turned + 2 * REMEMBERED {
            self.ended[0] = Ends::default();
        }
        self.forget(now);
    }

    /// The older of the two tables goes.
    fn forget(&mut self, now: Instant) {
        // What is being read may hold what is forgotten now: it is read anew.
        if matches!(self.before, Before::Reading(_)) {
            self.before = Before::Unread;
        }
        self.ended[1] = std::mem::take(&mut self.ended[0]);
        self.turned = now;
    }

    /// Half of the room is left to the newer table, so that not all is forgotten at once.
    fn share(&mut self, now: Instant) {
        if self.ended[0].len() >= self.limit / 2 {
            self.forget(now);
        }
    }

    /// Room for one more, as far as what has ended takes it (K4).
    fn make_room(&mut self, now: Instant) {
        for _ in 0..self.ended.len() {
            if self.len() >= self.limit {
                self.forget(now);
            }
        }
    }

    /// K3; why nothing can be said yet, if so.
    fn read(&mut self, old: impl FnOnce() -> OwnIds, now: Instant) -> Result<(), String> {
        let mut patience = Duration::ZERO;
        match self.before {
            Before::Failed(again, _) if now < again => {}
            Before::Unread | Before::Failed(..) => {
                self.begin_reading(old(), now);
                patience = SHORT;
            }
            Before::Reading(_) | Before::Read => {}
        }
        if let Before::Reading(thread) = &self.before {
            if linger(patience, || thread.is_finished().then_some(())).is_none() {
                return Err(format!("{IDS_UNREAD} are being read; come again"));
            }
            self.end_reading(now);
        }
        match &self.before {
            Before::Failed(_, why) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    fn begin_reading(&mut self, old: OwnIds, now: Instant) {
        let (printer, limit) = (self.printer.clone(), self.limit);
        let read = move || {
            let mut prints = Vec::new();
            old.read(|openid, id| {
                if prints.len() >= limit {
                    let why = format!("there are more than {limit} (queue.ids_max)");
                    return Err(io::Error::other(why));
                }
                prints.push(printer.print(openid, id));
                Ok(())
            })?;
            Ok(prints)
        };
        self.before = match thread::Builder::new().name("ids".into()).spawn(read) {
            Ok(thread) => Before::Reading(thread),
            Err(error) => failed(error, now),
        };
    }

    fn end_reading(&mut self, now: Instant) {
        let Before::Reading(thread) = std::mem::replace(&mut self.before, Before::Read) else {
            return;
        };
        match thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
            Ok(prints) => {
                let ended =
                    |print: &Print| self.ended.iter().any(|ended| ended.pushes.contains(print));
                let waiting = prints.into_iter().filter(|print| !ended(print));
                self.queued.extend(waiting);
            }
            Err(error) => self.before = failed(error, now),
        }
    }
}

fn failed(error: io::Error, now: Instant) -> Before {
    let why = format!("{IDS_UNREAD} cannot be read: {error}");
    log::error!("{why}");
    Before::Failed(now + AGAIN, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::simulated::Simulated;
    use crate::queue::{Durability, New, Options, Queue};
    use crate::traffic::batch::ConnId;
    use std::sync::Arc;

    const MINUTE: Duration = Duration::from_secs(60);

    fn to(opaque: u32) -> ReplyTo {
        ReplyTo { conn: ConnId { slot: 0, generation: 0 }, opaque, weight: 0 }
    }

    fn id(number: u64) -> ClientMsgId {
        ClientMsgId::new(number.to_string().as_bytes()).unwrap()
    }

    fn message(number: u64) -> Message {
        let new = New { openid: b"o", key: b"k", data: b"" };
        Message::in_memory(1, number, 0, new, id(number).as_bytes())
    }

    fn queue() -> Queue {
        let retry_cap = MINUTE;
        let options = Options { segment_size: 64 * 1024, max_bytes: 0, retry_cap };
        Queue::open(Arc::new(Simulated::default()), options, 0).unwrap()
    }

    struct Alone {
        ids: Ids,
        queue: Queue,
        now: Instant,
    }

    impl Alone {
        fn new(limit: usize) -> Alone {
            let now = Instant::now();
            Alone { ids: Ids::new(limit, true, now), queue: queue(), now }
        }

        fn look(&mut self, number: u64) -> Known {
            self.ids.look(b"o", &id(number), to(0), || self.queue.own_ids(), self.now)
        }

        /// What is known when the queue has been read.
        fn know(&mut self, number: u64) -> Known {
            let until = Instant::now() + MINUTE;
            loop {
                match self.look(number) {
                    Known::Refused(why) if why.contains("come again") => {
                        assert!(Instant::now() < until);
                        thread::yield_now();
                    }
                    known => return known,
                }
            }
        }

        fn push(&mut self, number: u64) {
            let Known::New(print) = self.know(number) else { panic!("{number} is known") };
            self.ids.queued(print);
        }
    }

    #[test]
    fn an_end_is_remembered_for_ten_minutes_and_not_for_ever() {
        let mut alone = Alone::new(100);
        let began = alone.now;
        for start in [0, 3, 9, 10, 14] {
            alone.push(start);
            alone.now = began + start as u32 * MINUTE;
            alone.ids.ended(&message(start), alone.now);
        }
        for minutes in 14..60 {
            alone.now = began + minutes * MINUTE;
            for start in [0, 3, 9, 10, 14] {
                let age = u64::from(minutes) - start;
                match alone.look(start) {
                    Known::Pushed => assert!(age <= 20, "{age}"),
                    Known::New(_) => assert!(age > 10, "{age}"),
                    _ => panic!("neither"),
                }
            }
        }
        assert_eq!(alone.ids.len(), 0);
    }

    #[test]
    fn after_a_long_silence_both_tables_are_old() {
        let mut alone = Alone::new(100);
        alone.push(1);
        alone.ids.ended(&message(1), alone.now);
        alone.now += 21 * MINUTE;
        assert!(matches!(alone.look(1), Known::New(_)));
        assert_eq!(alone.ids.len(), 0);
    }

    #[test]
    fn a_send_is_joined_while_it_is_in_hand_and_its_answer_kept_if_it_is_one() {
        let mut alone = Alone::new(100);
        let answers = [(200, "", true), (400, "{\"errcode\":1}", true), (500, "lost", false)];
        for (number, (code, text, kept)) in answers.into_iter().enumerate() {
            let number = number as u64;
            let Known::New(print) = alone.know(number) else { panic!("{number} is known") };
            alone.ids.sent(print);
            assert!(matches!(alone.look(number), Known::Joined));
            let definite = kept.then_some((code, text));
            assert_eq!(alone.ids.answered(&message(number), definite, alone.now), [to(0)]);
            match alone.look(number) {
                Known::Told(same, words) => assert!((same, &*words) == (code, text) && kept),
                Known::New(_) => assert!(!kept),
                _ => panic!("neither"),
            }
        }
        let Known::New(print) = alone.know(9) else { panic!("it is known") };
        alone.ids.sent(print);
        assert!(matches!(alone.look(9), Known::Joined));
        assert_eq!((alone.ids.give_up(), alone.ids.give_up()), (vec![to(0)], vec![]));
    }

    #[test]
    fn what_ended_first_is_forgotten_for_what_is_new_and_what_is_held_never() {
        let mut alone = Alone::new(10);
        let long = "x".repeat(5 * COST);
        assert!(matches!(alone.know(1), Known::New(_)));
        alone.ids.answered(&message(1), Some((400, &long)), alone.now);
        assert_eq!(alone.ids.len(), 7);
        assert!(matches!(alone.look(1), Known::Told(400, _)));
        // Held, with what an answer's text counts for: full, and only the answer goes.
        (2..12).for_each(|number| alone.push(number));
        assert!(
            matches!(alone.look(1), Known::Refused(why) if why.contains("10 ids are remembered"))
        );
        (2..12).for_each(|number| assert!(matches!(alone.look(number), Known::Pushed)));
        // One after the other ends: the newer half is known still.
        (2..12).for_each(|number| alone.ids.ended(&message(number), alone.now));
        for number in 12..40 {
            alone.push(number);
            alone.ids.ended(&message(number), alone.now);
            assert!(alone.ids.len() <= 10);
            (number - 4..=number)
                .for_each(|n| assert!(matches!(alone.look(n), Known::Pushed), "{n}"));
        }
        assert!(matches!(alone.look(12), Known::New(_)));
    }

    #[test]
    fn what_ends_in_numbers_while_the_queue_is_read_makes_it_be_read_anew() {
        let mut alone = Alone::new(10);
        let new = New { openid: b"o", key: b"k", data: b"" };
        alone.queue.append_as(new, &id(99), 1).unwrap();
        alone.queue.commit(Durability::Never).unwrap();
        alone.ids.begin_reading(alone.queue.own_ids(), alone.now);
        (0..30).for_each(|number| alone.ids.ended(&message(number), alone.now));
        assert!(alone.ids.len() <= 10 && matches!(alone.ids.before, Before::Unread));
        assert!(matches!(alone.know(99), Known::Pushed));
    }

    #[test]
    fn what_an_earlier_run_took_in_is_read_once_and_what_ends_meanwhile_is_no_longer_in_the_queue()
    {
        let mut alone = Alone::new(1_000);
        for number in 0..600 {
            let new = New { openid: b"o", key: b"k", data: &[b' '; 300] };
            match number % 3 {
                0 => alone.queue.append(new, 1),
                _ => alone.queue.append_as(new, &id(number), 1),
            }
            .unwrap();
            alone.queue.commit(Durability::Never).unwrap();
            while let Some(chore) = alone.queue.chore() {
                let done = chore.run();
                alone.queue.chore_done(done, 1).unwrap();
            }
        }
        assert!(alone.queue.segments() > 2);
        // Ended before anybody asked.
        let done = alone.queue.take(1).unwrap();
        alone.queue.done(done.ticket().unwrap());
        alone.ids.ended(&message(1), alone.now);
        assert!(matches!(alone.look(1), Known::Pushed));
        alone.ids.begin_reading(alone.queue.own_ids(), alone.now);
        // Not forgotten before what was read is here.
        alone.ids.ended(&message(2), alone.now);
        alone.now += 60 * MINUTE;
        assert!(matches!(alone.know(4), Known::Pushed));
        assert_eq!(alone.ids.queued.len(), 398);
        assert!(matches!(alone.look(3), Known::New(_)));
        alone.now += 20 * MINUTE;
        for gone in [1, 2] {
            assert!(matches!(alone.look(gone), Known::New(_)), "{gone}");
        }
        assert!(matches!(alone.look(599), Known::Pushed));
    }

    #[test]
    fn a_queue_that_holds_more_ids_than_are_remembered_takes_none() {
        let mut alone = Alone::new(3);
        for number in 0..4 {
            let new = New { openid: b"o", key: b"k", data: b"" };
            alone.queue.append_as(new, &id(number), 1).unwrap();
            alone.queue.commit(Durability::Never).unwrap();
        }
        let refused = |known| matches!(known, Known::Refused(why) if why.contains("more than 3"));
        assert!(refused(alone.know(1)));
        alone.ids.configure(4);
        assert!(refused(alone.look(1)));
        alone.now += AGAIN;
        assert!(matches!(alone.know(1), Known::Pushed));
    }
}
