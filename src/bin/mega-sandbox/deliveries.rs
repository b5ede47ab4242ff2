//! What the sandbox has accepted: one record per distinct message (openid and client_msg_id), kept for all,
//! and a ring of the last messages in full. A message seen again within ten minutes is a repeat and is not
//! delivered again, as WeChat promises for client_msg_id.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// A msgid is beyond 2^53: a client that keeps it in a double shows that at once.
const FIRST_MSGID: u64 = 3_000_000_000_000_000_001;
/// The ring gives up its oldest messages above this many bytes, however few they are.
const RING_BYTES: usize = 256 * 1024 * 1024;

/// How much is kept of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Counts only; repeats then go unnoticed, for there is nothing to compare with.
    Counts,
    /// The ids of all messages and this many in full.
    Messages(usize),
}

/// One send that passed every check.
pub struct Send<'a> {
    pub openid: &'a str,
    pub client_msg_id: Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    Delivered { msgid: u64 },
    Repeat { msgid: u64 },
}

struct Record {
    /// `openid<TAB>client_msg_id`, control characters escaped, so that it is one line.
    name: Rc<str>,
    times_seen: u64,
    msgid: u64,
    accepted: Instant,
}

struct Message {
    n: u64,
    openid: Box<str>,
    client_msg_id: Option<Box<str>>,
    msgid: u64,
    body: Box<[u8]>,
}

pub struct Deliveries {
    keep: Keep,
    next_msgid: u64,
    pub delivered: u64,
    pub repeats: u64,
    records: Vec<Record>,
    /// The newest record of each name that has a client_msg_id.
    newest: HashMap<Rc<str>, usize>,
    ring: VecDeque<Message>,
    ring_bytes: usize,
}

impl Deliveries {
    pub fn new(keep: Keep) -> Self {
        Deliveries {
            keep,
            next_msgid: FIRST_MSGID,
            delivered: 0,
            repeats: 0,
            records: Vec::new(),
            newest: HashMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
        }
    }

    pub fn clear(&mut self) {
        let next_msgid = self.next_msgid;
        *self = Deliveries::new(self.keep);
        self.next_msgid = next_msgid;
    }

    pub fn accept(&mut self, send: &Send, now: Instant) -> Accepted {
        let Keep::Messages(kept) = self.keep else {
            return Accepted::Delivered { msgid: self.count() };
        };
        let name: Rc<str> = record_name(send).into();
        if send.client_msg_id.is_some()
            && let Some(&at) = self.newest.get(&name)
            && now.duration_since(self.records[at].accepted) < REPEAT_WINDOW
        {
            let record = &mut self.records[at];
            record.times_seen += 1;
            self.repeats += 1;
            return Accepted::Repeat { msgid: record.msgid };
        }
        let msgid = self.count();
        if send.client_msg_id.is_some() {
            self.newest.insert(Rc::clone(&name), self.records.len());
        }
        self.records.push(Record { name, times_seen: 1, msgid, accepted: now });
        self.remember(send, msgid, kept);
        Accepted::Delivered { msgid }
    }

    fn count(&mut self) -> u64 {
        self.delivered += 1;
        self.next_msgid += 1;
        self.next_msgid - 1
    }

    fn remember(&mut self, send: &Send, msgid: u64, kept: usize) {
        self.ring_bytes += send.body.len();
        self.ring.push_back(Message {
            n: self.delivered,
            openid: send.openid.into(),
            client_msg_id: send.client_msg_id.map(Box::from),
            msgid,
            body: send.body.into(),
        });
        while self.ring.len() > kept || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else {
                break;
            };
            self.ring_bytes -= oldest.body.len();
        }
    }

    /// One line per distinct message: `openid<TAB>client_msg_id<TAB>times_seen`.
    pub fn ids(&self) -> String {
        let mut lines = String::new();
        for record in &self.records {
            writeln!(lines, "{}\t{}", record.name, record.times_seen)
                .expect("writing to a String does not fail");
        }
        lines
    }

    /// The last `limit` messages in full, oldest first.
    pub fn last(&self, limit: usize) -> impl Iterator<Item = Value> {
        self.ring.iter().skip(self.ring.len().saturating_sub(limit)).map(|message| {
            json!({
                "n": message.n,
                "openid": message.openid,
                "client_msg_id": message.client_msg_id,
                "msgid": message.msgid,
                "body": serde_json::from_slice::<Value>(&message.body).unwrap_or(Value::Null),
            })
        })
    }
}

fn record_name(send: &Send) -> String {
    let mut name = String::with_capacity(send.openid.len() + 34);
    push_escaped(&mut name, send.openid);
    name.push('\t');
    push_escaped(&mut name, send.client_msg_id.unwrap_or(""));
    name
}

fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() || character == '\\' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send<'a>(openid: &'a str, client_msg_id: Option<&'a str>) -> Send<'a> {
        Send { openid, client_msg_id, body: b"{\"a\":1}" }
    }

    #[test]
    fn a_message_seen_again_within_ten_minutes_is_a_repeat_with_the_same_msgid() {
        let (mut deliveries, now) = (Deliveries::new(Keep::Messages(10)), Instant::now());
        let Accepted::Delivered { msgid } = deliveries.accept(&send("o", Some("k")), now) else {
            panic!("the first is delivered")
        };
        assert!(msgid > 1 << 53);
        let soon = now + REPEAT_WINDOW - Duration::from_secs(1);
        assert_eq!(deliveries.accept(&send("o", Some("k")), soon), Accepted::Repeat { msgid });
        assert!(matches!(
            deliveries.accept(&send("p", Some("k")), now),
            Accepted::Delivered { .. }
        ));
        let late = deliveries.accept(&send("o", Some("k")), now + REPEAT_WINDOW);
        assert!(matches!(late, Accepted::Delivered { .. }));
        assert_eq!((deliveries.delivered, deliveries.repeats), (3, 1));
        assert_eq!(deliveries.ids(), "o\tk\t2\np\tk\t1\no\tk\t1\n");
    }

    #[test]
    fn without_a_client_msg_id_every_message_is_distinct_and_each_is_one_line() {
        let (mut deliveries, now) = (Deliveries::new(Keep::Messages(10)), Instant::now());
        deliveries.accept(&send("a\tb\n", None), now);
        deliveries.accept(&send("a\tb\n", None), now);
        assert_eq!(deliveries.ids(), "a\\tb\\n\t\t1\na\\tb\\n\t\t1\n");
    }

    #[test]
    fn the_ring_keeps_the_last_messages_and_the_ids_keep_all() {
        let (mut deliveries, now) = (Deliveries::new(Keep::Messages(2)), Instant::now());
        for openid in ["a", "b", "c"] {
            deliveries.accept(&send(openid, None), now);
        }
        let openids: Vec<_> = deliveries.last(9).map(|message| message["openid"].clone()).collect();
        assert_eq!(openids, ["b", "c"]);
        assert_eq!(deliveries.last(1).count(), 1);
        assert_eq!(deliveries.ids().lines().count(), 3);
        deliveries.clear();
        assert_eq!((deliveries.delivered, deliveries.ids().len()), (0, 0));
    }

    #[test]
    fn counts_only_keeps_nothing() {
        let mut deliveries = Deliveries::new(Keep::Counts);
        deliveries.accept(&send("a", Some("k")), Instant::now());
        assert_eq!(
            (deliveries.delivered, deliveries.ids().len(), deliveries.last(9).count()),
            (1, 0, 0)
        );
    }
}
