//! Whether messages may be sent at all: closed by a limit of the account, a fault of its configuration or a
//! WeChat that cannot be reached, and opened by the one message that finds out. Part of the spool's state;
//! knows neither messages nor threads.

use crate::class::{self, Fault};
use crate::clock::until_next_wechat_day;
use crate::traffic::job::Reason;
use crate::wechat::errcode;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const CONFIG_DELAY: Duration = Duration::from_secs(30);

/// WeChat may take an hour or a day to confirm an address; to ask again sooner is punished.
const CONFIRM_WITHIN_HOUR: Duration = Duration::from_secs(3_600);
const CONFIRM_WITHIN_DAY: Duration = Duration::from_secs(86_400);

/// Waits for a used-up daily quota; the new day cuts the last one short.
const QUOTA_STEPS: [u64; 5] = [60, 300, 900, 1_800, 3_600];

/// The pause before a WeChat that cannot be reached is probed again: a part of the time for which nothing
/// has got through, so that the end of an outage is noticed soon in proportion to its length, and a few probes
/// that meet a fault of some calls only do not stop sending for long.
const SILENCE_PARTS: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A run of failures closes the gate at once when it is as long as there are workers, and otherwise when
/// nothing has succeeded for so long: where few messages come, each is worth more.
const WITHOUT_SUCCESS: Duration = Duration::from_secs(5);

/// An answer whose code nobody knows may speak of one message. Where so many people in a row get the same, and nobody
/// else gets through, it speaks of the account.
const PUZZLED: usize = 10;

/// How many messages may be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    Open,
    /// One, to find out.
    Probe,
    Shut,
}

/// What an outcome did to the gate.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    Opened,
    Closed(Fault),
    /// Open or closed, as before.
    Not,
}

struct Closed {
    fault: Fault,
    errcode: Option<i64>,
    why: String,
    /// Seconds since 1970.
    since: u64,
    until: Instant,
    /// Times in a row that a probe met the same fault.
    repeats: usize,
    probing: bool,
}

pub struct Gate {
    closed: Option<Closed>,
    workers: u32,
    /// Failures since the last answer that speaks of its message alone.
    run: u32,
    /// When that answer came, or the fault began for which the gate is closed, whichever is later.
    silent_since: Instant,
    puzzle: Option<Puzzle>,
}

/// A code that nobody knows, and the people who got it since the last success, as far as they are counted.
struct Puzzle {
    errcode: i64,
    openids: HashSet<Box<[u8]>>,
}

/// An outcome, as far as it concerns the gate.
pub struct Told<'a> {
    pub what: class::Gate,
    pub probe: bool,
    pub reason: Option<&'a Reason>,
    /// The errcode, if nobody knows it, and whom the message was for.
    pub puzzle: Option<(i64, &'a [u8])>,
    pub now: Instant,
    pub unix_seconds: u64,
}

impl Gate {
    pub fn new(workers: usize, now: Instant) -> Gate {
        let (workers, run, silent_since) = (workers as u32, 0, now);
        Gate { closed: None, workers, run, silent_since, puzzle: None }
    }

    pub fn set_workers(&mut self, workers: usize) {
        self.workers = workers as u32;
    }

    /// What was at fault may have been mended: the next probe may go at once. Not where a limit holds, nor where WeChat
    /// punishes who asks again.
    pub fn hasten(&mut self, now: Instant) {
        if let Some(closed) = &mut self.closed {
            let punished = config_delay(closed.errcode) != CONFIG_DELAY;
            let mended = match closed.fault {
                Fault::Unreachable => true,
                Fault::Config => !punished,
                Fault::Rate => false,
            };
            if mended {
                closed.until = closed.until.min(now);
            }
        }
    }

    /// Why nothing is sent, and since when (seconds since 1970).
    pub fn why(&self) -> Option<(&str, u64)> {
        self.closed.as_ref().map(|closed| (closed.why.as_str(), closed.since))
    }

    pub fn fault(&self) -> Option<Fault> {
        self.closed.as_ref().map(|closed| closed.fault)
    }

    pub fn allowance(&self, now: Instant) -> Allowance {
        match &self.closed {
            None => Allowance::Open,
            Some(closed) if closed.probing || now < closed.until => Allowance::Shut,
            Some(_) => Allowance::Probe,
        }
    }

    /// When the next probe may go, if it is known.
    pub fn next_probe(&self) -> Option<Instant> {
        self.closed.as_ref().filter(|closed| !closed.probing).map(|closed| closed.until)
    }

    /// A probe is on its way.
    pub fn probe(&mut self) {
        if let Some(closed) = &mut self.closed {
            closed.probing = true;
        }
    }

    /// The probe was not begun, or says nothing: the next one may go at once.
    pub fn probe_again(&mut self) {
        if let Some(closed) = &mut self.closed {
            closed.probing = false;
        }
    }

    /// Takes an outcome in. While the gate is closed only the probe's can open it, or keep it closed for longer:
    /// what else comes back was on its way before.
    pub fn hear(&mut self, told: Told) -> Moved {
        let Told { what, probe, now, .. } = told;
        match what {
            class::Gate::Opens if self.is_puzzled(&told) => self.close(Fault::Config, told),
            class::Gate::Opens => {
                (self.run, self.silent_since) = (0, now);
                let opened = probe && self.closed.take().is_some();
                if opened { Moved::Opened } else { Moved::Not }
            }
            class::Gate::Silent => {
                if probe {
                    self.probe_again();
                }
                Moved::Not
            }
            class::Gate::Closes(fault) => self.close(fault, told),
            class::Gate::Fails { in_a_row } => {
                self.run += 1;
                let long = self.run >= in_a_row;
                let few = now.duration_since(self.silent_since) >= WITHOUT_SUCCESS;
                match probe || long && (few || self.run >= self.workers) {
                    true => self.close(Fault::Unreachable, told),
                    false => Moved::Not,
                }
            }
        }
    }

    /// This code speaks of the account, as far as can be told.
    pub fn blames_the_account(&self, errcode: i64) -> bool {
        let known = self.puzzle.as_ref().filter(|puzzle| puzzle.errcode == errcode);
        known.is_some_and(|puzzle| puzzle.openids.len() >= PUZZLED)
    }

    fn is_puzzled(&mut self, told: &Told) -> bool {
        if told.reason.is_none() {
            self.puzzle = None;
        }
        let Some((errcode, openid)) = told.puzzle else { return false };
        let puzzle = self.puzzle.take().filter(|puzzle| puzzle.errcode == errcode);
        let puzzle =
            self.puzzle.insert(puzzle.unwrap_or(Puzzle { errcode, openids: HashSet::new() }));
        if puzzle.openids.len() < PUZZLED {
            puzzle.openids.insert(openid.into());
        }
        self.blames_the_account(errcode)
    }

    fn close(&mut self, fault: Fault, told: Told) -> Moved {
        let errcode = told.reason.and_then(|reason| reason.errcode);
        let (since, repeats, moved) = match &self.closed {
            None => (told.unix_seconds, 0, Moved::Closed(fault)),
            Some(closed) if told.probe => {
                let same = (closed.fault, closed.errcode) == (fault, errcode);
                let moved = if same { Moved::Not } else { Moved::Closed(fault) };
                (closed.since, if closed.fault == fault { closed.repeats + 1 } else { 0 }, moved)
            }
            // WeChat's own word weighs more than that it could not be reached.
            Some(closed) if closed.fault == Fault::Unreachable && fault != Fault::Unreachable => {
                (closed.since, 0, Moved::Closed(fault))
            }
            Some(_) => return Moved::Not,
        };
        if self.closed.as_ref().is_none_or(|closed| closed.fault != fault) {
            self.silent_since = told.now;
        }
        let delay = match fault {
            Fault::Unreachable => {
                let silence = told.now.duration_since(self.silent_since);
                (silence / SILENCE_PARTS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            }
            Fault::Rate => rate_delay(errcode, repeats, told.unix_seconds),
            Fault::Config => config_delay(errcode),
        };
        let why = told.reason.map_or(String::new(), |reason| reason.text.clone());
        let why = match fault {
            Fault::Unreachable if errcode.is_none() => format!("unreachable: {why}"),
            Fault::Unreachable => format!("no usable answer: {why}"),
            Fault::Rate | Fault::Config => why,
        };
        let until = told.now + delay;
        // There is never a second one, whatever else closes the gate meanwhile.
        let probing = !told.probe && self.closed.as_ref().is_some_and(|closed| closed.probing);
        self.closed = Some(Closed { fault, errcode, why, since, until, repeats, probing });
        moved
    }
}

fn config_delay(errcode: Option<i64>) -> Duration {
    match errcode {
        Some(errcode::CONFIRM_WITHIN_DAY) => CONFIRM_WITHIN_DAY,
        Some(errcode::CONFIRM_WITHIN_HOUR) => CONFIRM_WITHIN_HOUR,
        _ => CONFIG_DELAY,
    }
}

fn rate_delay(errcode: Option<i64>, repeats: usize, unix_seconds: u64) -> Duration {
    if errcode == Some(errcode::DAILY_QUOTA) && repeats > 0 {
        let step = Duration::from_secs(QUOTA_STEPS[repeats.min(QUOTA_STEPS.len() - 1)]);
        return step.min(until_next_wechat_day(unix_seconds));
    }
    Duration::from_secs(60 - unix_seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;

    const SECOND: Duration = Duration::from_secs(1);

    /// A gate and its time, in seconds since it was made.
    struct Case {
        gate: Gate,
        start: Instant,
        at: u64,
    }

    impl Case {
        fn new(workers: usize) -> Case {
            let start = Instant::now();
            Case { gate: Gate::new(workers, start), start, at: 0 }
        }

        fn now(&self) -> Instant {
            self.start + SECOND * self.at as u32
        }

        fn allowance(&self) -> Allowance {
            self.gate.allowance(self.now())
        }

        fn hear(&mut self, class: Class, probe: bool) -> Moved {
            let reason = Reason::text(class.name());
            let (now, what) = (self.now(), class.row().gate);
            let reason = Some(&reason);
            self.gate.hear(Told { what, probe, reason, puzzle: None, now, unix_seconds: self.at })
        }

        /// Hands the probe out that must be allowed now.
        fn probe(&mut self, class: Class) -> Moved {
            assert_eq!(self.allowance(), Allowance::Probe);
            self.gate.probe();
            assert_eq!(self.allowance(), Allowance::Shut, "one at a time");
            self.hear(class, true)
        }

        /// Lets the time pass until the next probe may go: so many seconds.
        fn pause(&mut self) -> u64 {
            let before = self.at;
            while self.allowance() == Allowance::Shut {
                self.at += 1;
            }
            self.at - before
        }

        fn unreachable(&mut self) {
            for _ in 0..3 {
                self.hear(Class::Unreachable, false);
            }
            assert_eq!(self.allowance(), Allowance::Shut);
        }

        fn closed() -> Case {
            let mut case = Case::new(8);
            assert_eq!(case.hear(Class::Config, false), Moved::Closed(Fault::Config));
            case
        }
    }

    #[test]
    fn what_may_have_been_mended_is_probed_at_once_and_a_limit_or_a_punishment_is_not() {
        for (class, code, hastened) in [
            (Class::Config, Some(40125), true),
            (Class::Config, Some(errcode::CONFIRM_WITHIN_HOUR), false),
            (Class::Config, Some(errcode::CONFIRM_WITHIN_DAY), false),
            (Class::Rate, Some(45009), false),
            (Class::Unreachable, None, true),
        ] {
            let mut case = Case::new(1);
            let reason = Reason { errcode: code, text: "words".into(), answer: None };
            for _ in 0..20 {
                let (now, what) = (case.now(), class.row().gate);
                let (probe, reason, puzzle) = (false, Some(&reason), None);
                let told = Told { what, probe, reason, puzzle, now, unix_seconds: 0 };
                case.gate.hear(told);
            }
            assert_eq!(case.allowance(), Allowance::Shut, "{code:?}");
            case.gate.hasten(case.now());
            let expected = if hastened { Allowance::Probe } else { Allowance::Shut };
            assert_eq!(case.allowance(), expected, "{code:?}");
            case.gate.probe();
            case.gate.hasten(case.now());
            assert_eq!(case.allowance(), Allowance::Shut, "there is never a second one");
        }
        let mut open = Case::new(1);
        open.gate.hasten(open.now());
        assert_eq!(open.allowance(), Allowance::Open);
    }

    #[test]
    fn one_probe_goes_after_the_delay_and_opens_the_gate() {
        let mut case = Case::closed();
        assert_eq!(case.hear(Class::Config, false), Moved::Not);
        case.at = 29;
        assert_eq!(case.allowance(), Allowance::Shut);
        case.at = 30;
        assert_eq!(case.probe(Class::Ok), Moved::Opened);
        assert_eq!(case.allowance(), Allowance::Open);
    }

    #[test]
    fn what_was_on_its_way_when_the_gate_closed_does_not_open_it() {
        let mut case = Case::closed();
        for class in [Class::Ok, Class::Permanent, Class::Unclear, Class::Data] {
            assert_eq!(case.hear(class, false), Moved::Not);
            assert_eq!(case.allowance(), Allowance::Shut);
        }
    }

    #[test]
    fn an_answer_that_concerns_the_recipient_alone_is_an_answer() {
        for class in [Class::Ok, Class::Permanent, Class::Once, Class::OpenidRate] {
            let mut case = Case::closed();
            case.at = 30;
            assert_eq!(case.probe(class), Moved::Opened, "{class:?}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_speaks_of_the_account_where_many_people_get_it_and_nobody_gets_through()
     {
        let mut case = Case::new(8);
        let told = |case: &mut Case, code: i64, openid: usize, probe: bool| {
            let reason = Reason { errcode: Some(code), text: "new".into(), answer: None };
            let (reason, openid) = (Some(&reason), openid.to_string());
            let puzzle = Some((code, openid.as_bytes()));
            let (what, now, unix_seconds) = (Class::Once.row().gate, case.now(), case.at);
            case.gate.hear(Told { what, probe, reason, puzzle, now, unix_seconds })
        };
        // One person's own trouble, codes that change, and others who get through in between.
        for n in 0..30 {
            assert_eq!(told(&mut case, 7, 0, false), Moved::Not);
            assert_eq!(told(&mut case, 7 + n % 2, n as usize, false), Moved::Not);
        }
        for n in 0..9 {
            assert_eq!(told(&mut case, 7, n, false), Moved::Not);
        }
        let reason = None;
        let (what, now, unix_seconds) = (Class::Ok.row().gate, case.now(), case.at);
        case.gate.hear(Told { what, probe: false, reason, puzzle: None, now, unix_seconds });
        for n in 0..9 {
            assert_eq!(told(&mut case, 7, n, false), Moved::Not);
            assert!(!case.gate.blames_the_account(7));
        }
        assert_eq!(told(&mut case, 7, 9, false), Moved::Closed(Fault::Config));
        assert!(case.gate.blames_the_account(7) && !case.gate.blames_the_account(8));
        // The probe that meets the same opens nothing, and any other answer does.
        assert_eq!(case.pause(), 30);
        case.gate.probe();
        assert_eq!(told(&mut case, 7, 0, true), Moved::Not);
        assert_eq!(case.pause(), 30);
        assert_eq!(case.probe(Class::Permanent), Moved::Opened);
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_the_next() {
        let mut case = Case::closed();
        case.at = 30;
        assert_eq!(case.probe(Class::Data), Moved::Not);
        assert_eq!(case.probe(Class::Ok), Moved::Opened);
    }

    #[test]
    fn nobody_reached_by_any_worker_closes_it_and_probes_come_less_and_less_often() {
        let mut case = Case::new(8);
        for _ in 0..7 {
            assert_eq!(case.hear(Class::Unreachable, false), Moved::Not);
        }
        assert_eq!(case.hear(Class::Unreachable, false), Moved::Closed(Fault::Unreachable));
        assert_eq!(case.gate.why(), Some(("unreachable: unreachable", 0)));
        let mut before = 0;
        while case.at < 200 {
            let pause = case.pause();
            // Who waits for the end of an outage waits for a quarter of it more at most.
            assert!(pause >= before && pause <= (case.at / 4 + 1).min(30), "{pause} s");
            assert_eq!(case.probe(Class::Unreachable), Moved::Not);
            before = pause;
        }
        assert_eq!(case.pause(), 30);
        assert_eq!(case.probe(Class::Permanent), Moved::Opened);
    }

    #[test]
    fn probes_that_meet_a_fault_of_some_calls_by_chance_do_not_make_an_outage_of_it() {
        let mut case = Case::new(1);
        case.at = 5;
        case.unreachable();
        for _ in 0..5 {
            case.pause();
            assert_eq!(case.probe(Class::Unclear), Moved::Not);
        }
        assert!(case.at <= 10, "five in vain took {} s", case.at - 5);
        // One that was on its way before gets through meanwhile.
        case.at = 60;
        assert_eq!(case.probe(Class::Unclear), Moved::Not);
        case.hear(Class::Ok, false);
        case.pause();
        assert_eq!(case.probe(Class::Unclear), Moved::Not);
        assert!(case.pause() <= 4);
    }

    #[test]
    fn where_few_messages_come_three_failures_are_enough_after_a_while_without_success() {
        let mut case = Case::new(8);
        for (at, moved) in
            [(1, Moved::Not), (2, Moved::Not), (5, Moved::Closed(Fault::Unreachable))]
        {
            case.at = at;
            assert_eq!(case.hear(Class::Unclear, false), moved);
        }
        let mut case = Case::new(8);
        for at in 0..100 {
            case.at = at;
            assert_eq!(case.hear(Class::Unclear, false), Moved::Not);
            assert_eq!(case.hear(Class::Unclear, false), Moved::Not);
            assert_eq!(case.hear(Class::Ok, false), Moved::Not);
        }
    }

    #[test]
    fn wechats_own_word_takes_the_place_of_unreachable_and_not_the_other_way_round() {
        let mut case = Case::new(1);
        case.at = 9;
        case.unreachable();
        assert_eq!(case.hear(Class::Config, false), Moved::Closed(Fault::Config));
        assert_eq!(case.hear(Class::Unreachable, false), Moved::Not);
        assert_eq!(case.gate.why(), Some(("config", 9)));
    }

    #[test]
    fn what_closes_the_gate_meanwhile_allows_no_second_probe() {
        let mut case = Case::new(1);
        case.at = 9;
        case.unreachable();
        case.at = 10;
        case.gate.probe();
        case.hear(Class::Config, false);
        case.at = 100;
        assert_eq!(case.allowance(), Allowance::Shut);
        assert_eq!(case.hear(Class::Ok, true), Moved::Opened);
    }

    #[test]
    fn a_used_up_day_is_asked_for_less_and_less_often_until_it_ends() {
        let noon = 4 * 3_600;
        let wait = |repeats, at| rate_delay(Some(45009), repeats, at).as_secs();
        assert_eq!(wait(0, noon + 15), 45);
        assert_eq!([wait(1, noon), wait(2, noon), wait(9, noon)], [300, 900, 3_600]);
        let ten_minutes_before_midnight_in_china = 16 * 3_600 - 600;
        assert_eq!(wait(9, ten_minutes_before_midnight_in_china), 600);
    }
}
