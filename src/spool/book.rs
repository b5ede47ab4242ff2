//! Books what workers bring back: done, again later, failed, or the gate closes. Part of the
//! spool's loop.

use super::Spool;
use super::gate::Fault;
use crate::clock::{now_ms, unix_seconds};
use crate::queue::Message;
use crate::stats;
use crate::traffic::job::{Job, Outcome, Reason, Verdict, Waiting};
use crate::wire::command;
use std::time::{Duration, Instant};

/// Attempts for an answer that is tried once more.
const ONCE: u8 = 2;

/// The first pause of a send's retries; somebody is waiting.
const SEND_BACKOFF: Duration = Duration::from_millis(250);

/// A failed push that cannot be written to the failed list stays in the queue for so long.
const LIST_RETRY: Duration = Duration::from_secs(60);

impl Spool {
    pub(super) fn book(&mut self, outcome: Outcome) {
        let Outcome { job, verdict } = outcome;
        let Some(mut verdict) = verdict else { return self.take_back(job) };
        // A send is tried again while its client waits; pushes would all meet the same refusal.
        if let (None, Verdict::TokenRefused(reason)) = (&job.waiting, &verdict) {
            verdict = Verdict::Config(reason.clone());
        }
        self.pace.answered(matches!(&verdict, Verdict::Later(reason) if reason.errcode.is_some()));
        self.move_gate(&verdict);
        match job.waiting {
            None => {
                self.pushes_in_flight -= 1;
                self.book_push(job, verdict);
            }
            Some(waiting) => {
                self.sends.landed(&job);
                self.book_send(job, waiting, verdict);
            }
        }
    }

    /// What the verdict means for sending as a whole.
    fn move_gate(&mut self, verdict: &Verdict) {
        let now = Instant::now();
        let (fault, reason) = match verdict {
            Verdict::Rate(reason) => (Fault::Rate, reason),
            Verdict::Config(reason) => (Fault::Config, reason),
            // A network failure or a refused token says nothing about the limit or the account.
            Verdict::Later(_)
            | Verdict::Once(_)
            | Verdict::Unclear(_)
            | Verdict::TokenRefused(_) => return self.gate.postpone(now),
            Verdict::Delivered { .. } | Verdict::Failed(_) | Verdict::OpenidRate(_) => {
                if self.gate.open() {
                    crate::notice!("sending goes on");
                    *self.stats.suspended.lock() = None;
                }
                return;
            }
        };
        if self.gate.close(fault, reason.errcode, &reason.text, now, unix_seconds()) {
            match fault {
                Fault::Rate => log::warn!("sending suspended, a limit is reached: {}", reason.text),
                Fault::Config => log::error!(
                    "sending suspended, the account or the configuration is at fault: {} \
                     (see the errcode in WeChat's documents; messages are kept)",
                    reason.text
                ),
            }
        }
        *self.stats.suspended.lock() = Some(reason.text.clone());
        self.recall();
        for to in self.sends.give_up_waiting() {
            self.reply(to, command::UNAVAILABLE, format!("sending suspended: {}", reason.text));
        }
    }

    fn book_push(&mut self, mut job: Job, verdict: Verdict) {
        let Some(ticket) = job.message.ticket() else { return };
        match verdict {
            Verdict::Delivered { duplicate } => {
                self.delivered(duplicate);
                self.queue.done(ticket);
            }
            Verdict::Failed(reason) => self.fail(&job.message, &reason),
            Verdict::Once(reason) => self.retry_push(job, reason, ONCE),
            Verdict::Later(reason) | Verdict::OpenidRate(reason) => {
                self.retry_push(job, reason, self.config.queue.retry_max)
            }
            Verdict::Unclear(reason) => {
                job.message.mark_unclear();
                self.retry_push(job, reason, self.config.queue.retry_max);
            }
            Verdict::Rate(_) | Verdict::Config(_) | Verdict::TokenRefused(_) => {
                self.queue.give_back(&job.message);
            }
        }
    }

    fn retry_push(&mut self, job: Job, reason: Reason, limit: u8) {
        let attempts = job.message.attempts();
        if attempts >= limit {
            return self.fail(&job.message, &reason);
        }
        let (base, cap) = (self.config.queue.retry_base, self.config.queue.retry_cap);
        let delay = backoff(base, cap, attempts);
        log::debug!("attempt {attempts} failed, the next in {delay:?}: {}", reason.text);
        stats::add(&self.stats.retried, 1);
        let now = now_ms();
        self.queue.retry(&job.message, now + delay.as_millis() as u64, now);
    }

    /// Ends a push undelivered: on the failed list first, so that it is never just gone.
    pub(super) fn fail(&mut self, message: &Message, reason: &Reason) {
        let Some(ticket) = message.ticket() else { return };
        if let Err(error) = self.failed.write(message, reason) {
            if self.said.now() {
                log::error!("cannot write the failed list: {error}; failed messages stay queued");
            }
            return self.queue.keep_until(ticket, now_ms() + LIST_RETRY.as_millis() as u64);
        }
        log::info!("failed for good: {}", reason.text);
        stats::add(&self.stats.failed, 1);
        self.queue.done(ticket);
    }

    fn book_send(&mut self, mut job: Job, waiting: Waiting, verdict: Verdict) {
        job.message.count_attempt();
        match verdict {
            Verdict::Delivered { duplicate } => {
                self.delivered(duplicate);
                self.reply(waiting.to, command::OK, "");
            }
            Verdict::Once(reason) if job.message.attempts() >= ONCE => self.answer(waiting, reason),
            Verdict::Later(reason)
            | Verdict::Once(reason)
            | Verdict::Unclear(reason)
            | Verdict::TokenRefused(reason) => {
                let delay =
                    backoff(SEND_BACKOFF, self.config.queue.retry_cap, job.message.attempts());
                let due = Instant::now() + delay;
                if due > waiting.until || self.stopping.is_some() {
                    return self.answer(waiting, reason);
                }
                stats::add(&self.stats.retried, 1);
                self.sends.delay(job, due);
            }
            Verdict::Failed(reason) | Verdict::OpenidRate(reason) => self.answer(waiting, reason),
            Verdict::Rate(reason) | Verdict::Config(reason) => self.answer(waiting, reason),
        }
    }

    /// Tells a waiting client that its message was not sent, and why.
    fn answer(&mut self, waiting: Waiting, reason: Reason) {
        stats::add(&self.stats.failed, 1);
        match reason.answer {
            Some(answer) => self.reply(waiting.to, command::BAD_REQUEST, answer),
            None => self.reply(waiting.to, command::FAILED, reason.text),
        }
    }

    fn delivered(&self, duplicate: bool) {
        stats::add(&self.stats.delivered, 1);
        stats::add(&self.stats.duplicates, u64::from(duplicate));
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
