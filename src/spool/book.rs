//! Books what workers bring back, by the table in `class`: done, again later, failed, or the gate
//! closes. Part of the spool's loop.

use super::Spool;
use super::ends::Learnt;
use crate::class::{Class, Gate, Push, Send};
use crate::clock::Now;
use crate::queue::Message;
use crate::stats::Ended;
use crate::traffic::job::{Job, Outcome, Reason, Verdict, Waiting};
use crate::traffic::ledger::Failure;
use crate::wire::command;
use std::borrow::Cow;
use std::time::Duration;

/// Attempts for an answer that is tried once more.
const ONCE: u8 = 2;

/// The first pause of a send's retries; somebody is waiting.
const SEND_BACKOFF: Duration = Duration::from_millis(250);

/// Why a message was not delivered, and how many ms its last call took.
pub(super) struct Failed {
    pub class: Class,
    pub reason: Reason,
    pub called: Option<u32>,
}

impl Spool {
    pub(super) fn book(&mut self, outcome: Outcome, now: Now) {
        let Outcome { job, verdict, called } = outcome;
        let Some(verdict) = verdict else { return self.take_back(job, now) };
        self.books.account.came_to(verdict.class());
        called.inspect(|took| self.stats.latency.record(*took));
        let called = called.map(|took| took.as_millis() as u32);
        let probe = job.probe;
        // Also a probe that the gate stays closed after: whoever hands out in a round that is over hands out in vain.
        let over =
            verdict.ends_round() | self.throttle.hear(&verdict, job.message.openid(), probe, now);
        match job.waiting {
            None => {
                self.pushes.land();
                self.cancels.landed(job.round);
                self.book_push(job, verdict, called, now);
            }
            Some(waiting) => {
                self.sends.landed(&job);
                self.book_send(job, waiting, verdict, called, now);
            }
        }
        if over {
            self.halt(now);
        } else if probe {
            self.answer_waiting_sends(now);
        }
    }

    fn book_push(&mut self, mut job: Job, verdict: Verdict, called: Option<u32>, now: Now) {
        let Some(ticket) = job.message.ticket() else { return };
        let (class, reason) = match verdict {
            Verdict::Delivered { duplicate, msgid } => {
                self.delivered(&job.message, None, Learnt::ok(duplicate, msgid, called), now);
                return self.queue.done(ticket);
            }
            Verdict::Refused(class, reason) => (class, reason),
        };
        let most = self.config.queue.retry_max;
        let failed = Failed { class, reason, called };
        if !matches!(class.row().push, Push::Done | Push::Fails)
            && let Some(number) = self.queue.is_cancelled(&job.message)
        {
            if class.row().push == Push::AgainUnclear {
                job.message.mark_unclear();
            }
            return self.cancel(job.message, number, now);
        }
        match class.row().push {
            Push::Done => self.queue.done(ticket),
            Push::Fails => self.fail(job.message, failed, now),
            Push::Back => self.queue.give_back(&job.message),
            Push::Again => self.retry_push(job, failed, most, now),
            Push::AgainOnce => self.retry_push(job, failed, ONCE, now),
            Push::AgainUnclear => {
                job.message.mark_unclear();
                self.retry_push(job, failed, most, now);
            }
        }
    }

    fn retry_push(&mut self, mut job: Job, failed: Failed, limit: u8, now: Now) {
        // That nobody gets through is not the fault of the one who finds out.
        let nobodys = matches!(failed.class.row().gate, Gate::Fails { .. })
            || self.throttle.blames_the_account(&failed.reason);
        if job.probe && nobodys {
            job.message.forgive_attempt();
        }
        let attempts = job.message.attempts();
        if attempts >= limit {
            return self.fail(job.message, failed, now);
        }
        let (base, cap) = (self.config.queue.retry_base, self.config.queue.retry_cap);
        let delay = backoff(base, cap, attempts);
        log::debug!("attempt {attempts} failed, the next in {delay:?}: {}", failed.reason.text);
        self.books.account.retried += 1;
        self.queue.retry(&job.message, now.ms + delay.as_millis() as u64, now.ms);
    }

    /// Ends a push undelivered: it is done when the ledger has it, so that it is never just gone.
    pub(super) fn fail(&mut self, message: Message, failed: Failed, now: Now) {
        let Failed { class, reason, called } = failed;
        log::debug!("failed for good: {}", reason.text);
        self.stats.failures.count(Ended { class, errcode: reason.errcode });
        self.end_failed(Failure::new(message, class, reason, now.ms, called), now);
    }

    /// Whatever a push ends undelivered for, it ends here.
    pub(super) fn end_failed(&mut self, failure: Failure, now: Now) {
        self.ids.ended(&failure.message, now.at);
        self.ends.fail(failure);
    }

    fn book_send(
        &mut self,
        mut job: Job,
        waiting: Waiting,
        verdict: Verdict,
        called: Option<u32>,
        now: Now,
    ) {
        job.message.count_attempt();
        let (class, reason) = match verdict {
            Verdict::Delivered { duplicate, msgid } => {
                let learnt = Learnt::ok(duplicate, msgid, called);
                self.delivered(&job.message, Some(&waiting), learnt, now);
                return self.result(&job.message, waiting, command::OK, "", now);
            }
            Verdict::Refused(class, reason) => (class, reason),
        };
        let again = match class.row().send {
            Send::Done | Send::Answered => false,
            Send::Again => true,
            Send::AgainOnce => job.message.attempts() < ONCE,
        };
        let due =
            now.at + backoff(SEND_BACKOFF, self.config.queue.retry_cap, job.message.attempts());
        let ends = self.stopping.is_some() || self.throttle.suspended().is_some();
        if !again || due > waiting.until || ends {
            let learnt =
                Learnt { class: class.name(), errcode: reason.errcode, msgid: None, called };
            self.ends.log(&job.message, Some(&waiting), learnt, now);
            return self.answer(&job.message, waiting, class, reason, now);
        }
        self.books.account.retried += 1;
        self.sends.delay(job, due);
    }

    /// Tells a waiting client that its message was not sent, and why.
    fn answer(
        &mut self,
        message: &Message,
        waiting: Waiting,
        class: Class,
        reason: Reason,
        now: Now,
    ) {
        self.books.account.sends.failed += 1;
        self.stats.failures.count(Ended { class, errcode: reason.errcode });
        let (code, text) = match reason.answer {
            Some(answer) => (command::BAD_REQUEST, answer),
            None => (command::FAILED, reason.text),
        };
        self.result(message, waiting, code, text, now);
    }

    /// The result of a send, to all who have asked for it. That nobody knows what became of it is no result
    /// for later (K2).
    fn result(
        &mut self,
        message: &Message,
        waiting: Waiting,
        code: u16,
        text: impl Into<Cow<'static, str>>,
        now: Now,
    ) {
        let text = text.into();
        let definite = (code != command::FAILED).then_some((code, &*text));
        for to in self.ids.answered(message, definite, now.at) {
            self.answers.say(to, code, text.clone());
        }
        self.answers.say(waiting.to, code, text);
    }

    fn delivered(
        &mut self,
        message: &Message,
        waiting: Option<&Waiting>,
        learnt: Learnt,
        now: Now,
    ) {
        let account = &mut self.books.account;
        account.duplicates += u64::from(learnt.is_duplicate());
        match waiting {
            None => {
                self.ids.ended(message, now.at);
                account.pushes.delivered += 1;
                let age = now.ms.saturating_sub(message.enqueued());
                self.stats.age.record(Duration::from_millis(age));
            }
            Some(_) => account.sends.delivered += 1,
        }
        self.ends.log(message, waiting, learnt, now);
    }
}

/// The pause after the n-th attempt: doubling from `base` to `cap`, a quarter more or less by
/// chance so that messages which failed together do not come back together.
fn backoff(base: Duration, cap: Duration, attempts: u8) -> Duration {
    let doublings = u32::from(attempts.saturating_sub(1)).min(16);
    let delay = base.saturating_mul(1 << doublings).min(cap);
    delay.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_cap() {
        let second = Duration::from_secs(1);
        for (attempts, around) in [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (255, 60.0)] {
            let delay = backoff(second, 60 * second, attempts).as_secs_f64();
            assert!((around * 0.75..=around * 1.25).contains(&delay), "{attempts}: {delay}");
        }
    }
}
