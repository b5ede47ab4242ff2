//! Which of `api_hosts` is asked: one for all workers, the first of the list as long as it answers. One that gives
//! no usable answer three times in a row is left for the next; the first is looked at again from time to time, by
//! one call. Told the time, without a lock, for every call passes here.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Calls in a row without a usable answer, all workers' together, after which a host is left.
const PATIENCE: u32 = 3;

/// Until the first host is looked at again; doubled after each look that was in vain.
const FIRST_LOOK: Duration = Duration::from_secs(60);
const LAST_LOOK: Duration = Duration::from_secs(16 * 60);

pub struct Hosts {
    hosts: Vec<Host>,
    current: AtomicUsize,
    born: Instant,
    /// When the first host is looked at again, in ms since `born`, and the pause before the look after that.
    look_at: AtomicU64,
    pause: AtomicU64,
}

struct Host {
    url: String,
    /// Calls in a row without a usable answer.
    failures: AtomicU32,
}

/// The host of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub host: usize,
    /// The first host was left, and this call finds out whether it is back.
    look: bool,
}

impl Hosts {
    pub fn new(urls: &[String]) -> Hosts {
        // One that has never answered is left at the first failure: a start needs not wait for three.
        let failures = || AtomicU32::new(PATIENCE - 1);
        let host = |url: &String| Host { url: url.clone(), failures: failures() };
        Hosts {
            hosts: urls.iter().map(host).collect(),
            current: AtomicUsize::new(0),
            born: Instant::now(),
            look_at: AtomicU64::new(0),
            pause: AtomicU64::new(ms(FIRST_LOOK)),
        }
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The base URL of a host.
    pub fn url(&self, host: usize) -> &str {
        &self.hosts[host].url
    }

    pub fn choose(&self, now: Instant) -> Choice {
        let host = self.current.load(Ordering::Relaxed);
        if host == 0 {
            return Choice { host, look: false };
        }
        let (now, look_at) = (self.since_born(now), self.look_at.load(Ordering::Relaxed));
        let next = now + self.pause.load(Ordering::Relaxed);
        // Whoever moves the time on is the one that looks.
        let look = now >= look_at
            && self
                .look_at
                .compare_exchange(look_at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        Choice { host: if look { 0 } else { host }, look }
    }

    /// For a call of which nothing was sent: the host after this one, wherever the others stand.
    pub fn after(&self, choice: Choice) -> Choice {
        Choice { host: (choice.host + 1) % self.hosts.len(), look: false }
    }

    pub fn answered(&self, choice: Choice) {
        let failures = &self.hosts[choice.host].failures;
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
        if choice.look {
            self.pause.store(ms(FIRST_LOOK), Ordering::Relaxed);
            self.current.store(0, Ordering::Relaxed);
            crate::notice!("{} answers again and is asked again", self.url(0));
        }
    }

    /// The call brought no usable answer.
    pub fn failed(&self, choice: Choice, now: Instant) {
        if choice.look {
            let longer = self.pause.load(Ordering::Relaxed).saturating_mul(2).min(ms(LAST_LOOK));
            self.pause.store(longer, Ordering::Relaxed);
            self.look_at.store(self.since_born(now) + longer, Ordering::Relaxed);
            return;
        }
        let host = choice.host;
        let failures = self.hosts[host].failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < PATIENCE || self.hosts.len() == 1 {
            return;
        }
        let next = self.after(choice).host;
        // Others fail with it; the first one moves on for all.
        let moved = self.current.compare_exchange(host, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            // The next one starts afresh, whatever happened to it before.
            self.hosts[next].failures.store(0, Ordering::Relaxed);
            let pause = self.pause.load(Ordering::Relaxed);
            self.look_at.store(self.since_born(now) + pause, Ordering::Relaxed);
            log::warn!(
                "{} gave no usable answer {PATIENCE} times in a row: {} is asked instead",
                self.url(host),
                self.url(next)
            );
        }
    }

    fn since_born(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.born))
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(count: usize) -> (Hosts, Instant) {
        let urls: Vec<String> = (0..count).map(|n| format!("http://{n}")).collect();
        (Hosts::new(&urls), Instant::now())
    }

    /// The first of which has answered.
    fn hosts(count: usize) -> (Hosts, Instant) {
        let (hosts, start) = unknown(count);
        hosts.answered(hosts.choose(start));
        (hosts, start)
    }

    #[test]
    fn a_host_that_has_never_answered_is_left_at_once() {
        let (hosts, start) = unknown(2);
        fail(&hosts, 1, start);
        assert_eq!(chosen(&hosts, start), 1);
        fail(&hosts, 2, start);
        assert_eq!(chosen(&hosts, start), 1);
    }

    fn fail(hosts: &Hosts, times: usize, now: Instant) {
        for _ in 0..times {
            hosts.failed(hosts.choose(now), now);
        }
    }

    fn chosen(hosts: &Hosts, now: Instant) -> usize {
        hosts.choose(now).host
    }

    #[test]
    fn a_host_is_left_after_three_failures_in_a_row_and_not_before() {
        let (hosts, start) = hosts(2);
        fail(&hosts, 2, start);
        hosts.answered(hosts.choose(start));
        fail(&hosts, 2, start);
        assert_eq!(chosen(&hosts, start), 0);
        fail(&hosts, 1, start);
        assert_eq!(chosen(&hosts, start), 1);
    }

    #[test]
    fn many_that_fail_together_are_one_step() {
        let (hosts, start) = hosts(3);
        let choices: Vec<Choice> = (0..64).map(|_| hosts.choose(start)).collect();
        choices.into_iter().for_each(|choice| hosts.failed(choice, start));
        assert_eq!(chosen(&hosts, start), 1);
    }

    #[test]
    fn when_all_are_down_each_gets_its_turn() {
        let (hosts, start) = hosts(3);
        let mut turns = Vec::new();
        for _ in 0..9 {
            turns.push(chosen(&hosts, start));
            fail(&hosts, 1, start);
        }
        assert_eq!(turns, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(chosen(&hosts, start), 0);
        let (alone, start) = self::hosts(1);
        fail(&alone, 10, start);
        assert_eq!(chosen(&alone, start), 0);
    }

    #[test]
    fn one_call_looks_at_the_first_host_again_later_and_later_and_finds_it_back() {
        let (hosts, start) = hosts(2);
        fail(&hosts, 3, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(chosen(&hosts, after(59)), 1);
        let look = hosts.choose(after(61));
        assert_eq!(look.host, 0);
        assert_eq!(chosen(&hosts, after(61)), 1, "one call, not all");
        hosts.failed(look, after(61));
        assert_eq!(chosen(&hosts, after(61 + 119)), 1);
        let look = hosts.choose(after(61 + 121));
        assert_eq!(look.host, 0);
        hosts.answered(look);
        assert_eq!(chosen(&hosts, after(183)), 0);
        fail(&hosts, 2, after(183));
        assert_eq!(chosen(&hosts, after(183)), 0);
    }

    #[test]
    fn a_look_that_fails_leaves_the_current_host_alone() {
        let (hosts, start) = hosts(2);
        fail(&hosts, 3, start);
        for n in 1..20 {
            let now = start + Duration::from_secs(3_600 * n);
            let look = hosts.choose(now);
            assert_eq!(look.host, 0);
            hosts.failed(look, now);
            assert_eq!(chosen(&hosts, now), 1);
        }
    }
}
