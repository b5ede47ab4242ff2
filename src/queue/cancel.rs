//! Ending messages before their turn. A rule says which; the cursor passes those by that it meets, and a
//! sweep walks the records from where the cursor stood to where the queue ended when the rule came, and gives
//! them out to be ended, a few at a time. Part of the queue; remembers no rule over its end.
//!
//! - C1: what the cursor has passed when the rule comes belongs to whoever has it: a worker, or the heap. What
//!   lies ahead of it belongs to the sweep alone, but for retries of this run (Q5), which the heap has. So each
//!   message is ended by one of them, whatever they are at when the other comes by.
//! - C2: the heap is sifted last, when every retry that was written before the rule is in it. Whoever hands out
//!   or takes back a message asks `is_cancelled`, so none comes after that.
//! - C3: a segment ahead of the cursor goes when the sweep has read all of it and every record in it is done.

use super::cursor::is_lasting;
use super::reader::Reader;
use super::record::{self, Found, Parts, Record};
use super::{AGAIN, BLOCK, Mark, Message, Position, Queue, SINGLE, Ticket, header};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::io::ErrorKind;

/// Messages that the cursor passes by in one go, so that nobody waits for it.
const PASSED: usize = if cfg!(test) { 3 } else { 1_024 };

/// Which messages are meant: all of what is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// The template's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How the openid begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openid: Option<String>,
    /// When it was accepted, Unix time in ms; `until` is not included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Which {
    /// Nothing is given.
    pub fn is_any(&self) -> bool {
        *self == Which::default()
    }

    fn is(&self, enqueued: u64, openid: &[u8], key: &[u8]) -> bool {
        self.key.as_ref().is_none_or(|wanted| wanted.as_bytes() == key)
            && self.openid.as_ref().is_none_or(|wanted| openid.starts_with(wanted.as_bytes()))
            && self.since.is_none_or(|since| enqueued >= since)
            && self.until.is_none_or(|until| enqueued < until)
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub number: u64,
    pub which: Which,
    /// What was accepted later is not meant.
    pub before: Mark,
}

impl Rule {
    fn catches(&self, record: &Record, [_, openid, key, _]: Parts) -> bool {
        record.id < self.before.0 && self.which.is(record.enqueued, openid, key)
    }
}

/// What a sweep is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To end what the rules in force catch.
    End,
    /// To count what a rule would.
    Count,
}

/// What one look of a sweep came to.
pub enum Swept {
    /// A message that the rule of this number catches. It is to be ended where that is the purpose, and then
    /// `done`; nobody else has it.
    Caught(u64, Message),
    /// One that it does not.
    Passed,
    /// It can go on later.
    Waits,
    Ended,
}

#[derive(Default)]
pub struct Cancels {
    /// The rules, and where the cursor stood when each came (C1).
    in_force: Vec<(Rule, Position)>,
    sweep: Option<Sweep>,
    /// What was in the heap and is not looked at yet, and what of it was caught.
    sifting: Vec<(u64, Position)>,
    sifted: Vec<(u64, Position)>,
    /// Retries that have become durable.
    pub settled: u64,
    /// The cursor has passed many by, and has more to do at once.
    hurries: bool,
}

struct Sweep {
    purpose: Purpose,
    rules: Vec<(Rule, Position)>,
    at: Position,
    until: Position,
    reader: Option<Reader>,
    stage: Stage,
    /// When so many retries are durable, those are that were written before the rules (C2).
    settles: u64,
    again: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Records,
    Settling,
    Heap,
    Sifted,
}

impl Cancels {
    /// Entries that are out of the heap for now.
    pub fn waiting(&self) -> usize {
        self.sifting.len() + self.sifted.len()
    }

    pub fn any(&self) -> bool {
        !self.in_force.is_empty()
    }

    /// The rule that catches this, whoever has it.
    fn catching(&self, record: &Record, parts: Parts) -> Option<u64> {
        let rule = self.in_force.iter().find(|(rule, _)| rule.catches(record, parts));
        rule.map(|(rule, _)| rule.number)
    }

    /// The cursor has met what a rule catches. True: it goes on; false: not before it is asked again.
    pub fn pass(&mut self, passed: &mut usize) -> bool {
        *passed += 1;
        self.hurries = *passed >= PASSED;
        !self.hurries
    }

    pub fn meets(&self, record: &Record, payload: &[u8]) -> bool {
        self.catching(record, record.parts(payload)).is_some()
    }

    /// What the sweep has read of a segment stands in another file now.
    pub fn read_anew(&mut self, segment: u64) {
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.at.segment == segment) {
            sweep.reader = None;
        }
    }

    /// What is about to be written shows where the sweep reads.
    pub fn patch(&mut self, segment: u64, at: usize, bytes: &[u8]) {
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.at.segment == segment)
            && let Some(reader) = &mut sweep.reader
        {
            reader.patch(at, bytes);
        }
    }
}

impl Sweep {
    /// The next segment, or what comes after them.
    fn leave(&mut self, next: Option<u64>) {
        self.reader = None;
        match next.map(|segment| Position { segment, at: header::HEADER }) {
            Some(next) if next < self.until => self.at = next,
            _ => self.stage = Stage::Settling,
        }
    }
}

impl Queue {
    /// From now on the cursor passes by what the rule catches.
    pub fn cancel(&mut self, rule: Rule) {
        self.cancels.in_force.push((rule, self.cursor));
    }

    /// Nothing of it is left to be ended.
    pub fn forget_rule(&mut self, number: u64) {
        self.cancels.in_force.retain(|(rule, _)| rule.number != number);
    }

    /// The number of the rule that catches a message in somebody's hands.
    pub fn is_cancelled(&self, message: &Message) -> Option<u64> {
        self.cancels.catching(message.record(), message.parts())
    }

    /// `take` has stopped in the middle, and is to be called again soon.
    pub fn hurries(&self) -> bool {
        self.cancels.hurries
    }

    pub(super) fn begin_take(&mut self) {
        self.cancels.hurries = false;
    }

    /// Begins a sweep for these rules in force, or to count for one that is not.
    pub fn begin_sweep(&mut self, purpose: Purpose, rules: Vec<Rule>) {
        // What became of others before must show (C1).
        self.write_marks();
        let from = |rule: &Rule| {
            let mut known = self.cancels.in_force.iter();
            let known = known.find(|(known, _)| known.number == rule.number);
            known.map_or(self.cursor, |(_, from)| *from)
        };
        let rules: Vec<_> = rules.into_iter().map(|rule| (from(&rule), rule)).collect();
        let at = rules.iter().map(|(from, _)| *from).min().unwrap_or(self.cursor);
        let tail = self.tail();
        let until = Position { segment: tail.number, at: tail.end };
        let settles = self.cancels.settled + self.unsettled.len() as u64;
        let rules = rules.into_iter().map(|(from, rule)| (rule, from)).collect();
        let (stage, reader, again) = (Stage::Records, None, 0);
        self.cancels.sweep =
            Some(Sweep { purpose, rules, at, until, reader, stage, settles, again });
    }

    /// What the next look may give out has to find room. Without it, only what holds up others is looked at.
    pub fn sweep_gives(&self) -> bool {
        let sweep = self.cancels.sweep.as_ref();
        sweep.is_some_and(|sweep| sweep.stage != Stage::Heap && sweep.purpose == Purpose::End)
    }

    /// Looks at one more record.
    pub fn sweep(&mut self, now: u64) -> Swept {
        let Some(mut sweep) = self.cancels.sweep.take() else { return Swept::Ended };
        if now < sweep.again {
            self.cancels.sweep = Some(sweep);
            return Swept::Waits;
        }
        let swept = match sweep.stage {
            Stage::Records => self.sweep_record(&mut sweep, now),
            Stage::Settling if self.cancels.settled < sweep.settles => Swept::Waits,
            Stage::Settling => {
                sweep.stage = Stage::Heap;
                let heap = std::mem::take(&mut self.heap).into_vec();
                self.cancels.sifting = heap.into_iter().map(|Reverse(entry)| entry).collect();
                Swept::Passed
            }
            Stage::Heap => self.sift(&mut sweep, now),
            Stage::Sifted => match self.cancels.sifted.pop() {
                Some((due, position)) => self.give_sifted(&sweep, due, position, now),
                None => return Swept::Ended,
            },
        };
        self.cancels.sweep = Some(sweep);
        swept
    }

    fn sweep_record(&mut self, sweep: &mut Sweep, now: u64) -> Swept {
        let position = sweep.at;
        if position >= sweep.until {
            sweep.leave(None);
            return Swept::Passed;
        }
        let found = self.segments.binary_search_by_key(&position.segment, |segment| segment.number);
        let (index, there) = found.map_or_else(|next| (next, false), |index| (index, true));
        if !there {
            // It is finished.
            sweep.leave(self.segments.get(index).map(|next| next.number));
            return Swept::Passed;
        }
        let segment = &mut self.segments[index];
        let written = segment.written();
        if position.at >= written {
            if segment.unwritten() > 0 {
                return Swept::Waits;
            }
            sweep.leave(self.segments.get(index + 1).map(|next| next.number));
            self.retire_finished(position.segment);
            return Swept::Passed;
        }
        if sweep.reader.is_none() {
            match segment.open(&*self.disk) {
                Ok(file) => sweep.reader = Some(Reader::new(file, written, BLOCK)),
                // The cursor tells of it.
                Err(error) if error.kind() == ErrorKind::NotFound || is_lasting(&error) => {
                    sweep.at.at = written;
                    return Swept::Passed;
                }
                Err(_) => {
                    sweep.again = now + AGAIN;
                    return Swept::Waits;
                }
            }
            self.busy.insert(position.segment);
            let whole = sweep.purpose == Purpose::End && position.at == header::HEADER;
            if whole && position.segment > self.cursor.segment {
                segment.begin_count();
            }
        }
        let reader = sweep.reader.as_mut().expect("invariant: opened just now");
        reader.extend(written);
        let place = segment.place(position.at);
        let extent = record::extent(reader, place, written);
        if segment.has_marks() && reader.must_load(extent) {
            self.write_marks_of(index);
            if self.segments[index].file().is_none() {
                sweep.again = now + AGAIN;
                return Swept::Waits;
            }
            return Swept::Passed;
        }
        let Found::Record(record) = record::read(reader, place, written) else {
            let from = segment.place(position.at + record::ALIGN);
            sweep.at.at = record::search(reader, from, written).unwrap_or(written);
            segment.give_up_count();
            return Swept::Passed;
        };
        sweep.at.at += record.size();
        segment.count_read(sweep.at.at, record.done);
        // Q5
        if record.done || record.due > 0 && position >= self.ours_from {
            return Swept::Passed;
        }
        let payload = reader.bytes(record::payload(position.at, record.length));
        match catching(&sweep.rules, Some(position), &record, payload) {
            Some(number) => {
                Swept::Caught(number, message(self.origin, position, record, payload, now))
            }
            None => Swept::Passed,
        }
    }

    /// Puts one entry back into the heap, unless it is caught.
    fn sift(&mut self, sweep: &mut Sweep, now: u64) -> Swept {
        let Some((due, position)) = self.cancels.sifting.pop() else {
            sweep.stage = Stage::Sifted;
            return Swept::Passed;
        };
        let caught = self.waiting_record(position).and_then(|(record, payload)| {
            let number = catching(&sweep.rules, None, &record, &payload)?;
            Some((number, message(self.origin, position, record, &payload, now)))
        });
        match (caught, sweep.purpose) {
            (Some(_), Purpose::End) => {
                self.cancels.sifted.push((due, position));
                Swept::Passed
            }
            (Some((number, message)), Purpose::Count) => {
                self.wait_until(due, position);
                Swept::Caught(number, message)
            }
            (None, _) => {
                self.wait_until(due, position);
                Swept::Passed
            }
        }
    }

    fn give_sifted(&mut self, sweep: &Sweep, due: u64, position: Position, now: u64) -> Swept {
        if let Some((record, payload)) = self.waiting_record(position)
            && let Some(number) = catching(&sweep.rules, None, &record, &payload)
        {
            return Swept::Caught(number, message(self.origin, position, record, &payload, now));
        }
        // Whoever takes it finds out what is wrong with it.
        self.wait_until(due, position);
        Swept::Passed
    }

    /// What an entry of the heap speaks of, if it can be read.
    fn waiting_record(&mut self, position: Position) -> Option<(Record, Vec<u8>)> {
        let index = self.index(position.segment)?;
        // What is read next must show them.
        self.write_marks_of(index);
        let segment = &mut self.segments[index];
        let file = segment.open(&*self.disk).ok()?;
        self.busy.insert(position.segment);
        let (place, written) = (segment.place(position.at), segment.written());
        let mut file = Reader::new(file, written, SINGLE);
        match record::read(&mut file, place, written) {
            Found::Record(record) if !record.done => {
                let payload = file.bytes(record::payload(position.at, record.length));
                Some((record, payload.to_vec()))
            }
            _ => None,
        }
    }
}

/// The rule of a sweep that catches this: what the heap has, wherever it stands (C1).
fn catching(
    rules: &[(Rule, Position)],
    at: Option<Position>,
    record: &Record,
    payload: &[u8],
) -> Option<u64> {
    let parts = record.parts(payload);
    let owns = |from: &Position| at.is_none_or(|at| at >= *from);
    let rule = rules.iter().find(|(rule, from)| owns(from) && rule.catches(record, parts));
    rule.map(|(rule, _)| rule.number)
}

/// As it stands: it was not handed out.
fn message(origin: u64, position: Position, record: Record, payload: &[u8], now: u64) -> Message {
    // The clock may have been set back since.
    let record = Record { unclear: record.unclear.min(now), ..record };
    Message::on_disk(origin, Ticket(position), record, payload, now)
}
