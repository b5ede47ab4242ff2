//! What `status --json` shows of the statistics. README documents each field.

use super::history::Rates;
use super::{Account, Counts, Reading, Refusal, Stats};
use crate::class::TABLE;
use crate::clock::{local, unix_seconds, wechat_day};
use crate::logger;
use crate::traffic::steer::Paused;
use serde_json::{Map, Value, json};

/// Failures that are shown apart.
const FAILURES: usize = 10;

impl Stats {
    pub fn to_json(&self) -> Value {
        let Reading { now, account, minute, five_minutes, latency, cancels } = self.read();
        let mut shown = Map::new();
        for part in [
            counted(&account),
            present(&account, now),
            speed(&account, &minute, &five_minutes),
            self.refusals(&account),
            self.ends(),
            self.troubles(),
            json!({
                "cancels": cancels,
                "latency_ms": percentiles(&latency),
                "age_ms": percentiles(&self.age.read()),
                "sync_ms": percentiles(&self.sync.read()),
            }),
        ] {
            let Value::Object(part) = part else { continue };
            shown.extend(part);
        }
        Value::Object(shown)
    }

    fn refusals(&self, account: &Account) -> Value {
        let each = Refusal::ALL.iter().map(|refusal| (*refusal, self.refused(*refusal, account)));
        let each: Vec<(Refusal, u64)> = each.collect();
        let named =
            each.iter().map(|(refusal, count)| (refusal.name().to_owned(), (*count).into()));
        json!({
            "refused": each.iter().map(|(_, count)| count).sum::<u64>(),
            "refusals": Map::from_iter(named),
        })
    }

    fn ends(&self) -> Value {
        let (most, others) = self.failures.most(FAILURES);
        let most = most.iter().map(|(ended, count)| {
            json!({"class": ended.class.name(), "errcode": ended.errcode, "count": count})
        });
        json!({"failures": most.collect::<Vec<_>>(), "other_failures": others})
    }

    /// What is wrong or ordered: null is neither.
    pub fn troubles(&self) -> Value {
        let suspended = self.suspended.lock();
        let suspended = suspended.as_ref();
        let draining = self.draining.lock();
        let paused = self.paused.lock();
        let paused = paused.as_ref();
        let database = self.database.lock();
        let blocked = self.blocked();
        json!({
            "paused": paused.map(Paused::text),
            "paused_by": paused.map(|it| &it.by),
            "paused_why": paused.map(|it| &it.why),
            "paused_since": paused.map(|it| local_time(it.since)),
            "draining": draining.as_ref().map(|(by, _)| format!("drained by {by}")),
            "draining_by": draining.as_ref().map(|(by, _)| by),
            "draining_since": draining.as_ref().map(|(_, since)| local_time(*since)),
            "suspended": suspended.map(|it| &it.why),
            "suspended_cause": suspended.map(|it| it.cause.name()),
            "suspended_since": suspended.map(|it| local_time(it.since)),
            "next_probe": suspended.and_then(|it| it.next_probe).map(local_time),
            "full": *self.full.lock(),
            "crowded": self.crowded(),
            "blocked": blocked,
            "ledger": *self.ledger.lock(),
            "message_log": *self.message_log.lock(),
            "log": logger::trouble(),
            "templates_loaded": database.loaded.map(local_time),
            "database": database.trouble,
            "database_since": database.since.map(local_time),
        })
    }
}

/// A1, A2, and their sums.
fn counted(account: &Account) -> Value {
    let (pushes, sends) = (&account.pushes, &account.sends);
    let classes =
        TABLE.iter().map(|row| (row.name.to_owned(), account.classes[row.class as usize].into()));
    json!({
        "pushes": {
            "found": pushes.found,
            "accepted": pushes.accepted,
            "requeued": pushes.requeued,
            "delivered": pushes.delivered,
            "failed": pushes.failed,
            "cancelled": pushes.cancelled,
            "lost": pushes.lost,
            "queued": pushes.queued,
        },
        "sends": {
            "accepted": sends.accepted,
            "delivered": sends.delivered,
            "failed": sends.failed,
            "given_up": sends.given_up,
            "waiting": sends.waiting,
        },
        "accepted": pushes.accepted + sends.accepted,
        "delivered": pushes.delivered + sends.delivered,
        "failed": pushes.failed + sends.failed,
        "duplicates": account.duplicates,
        "repeated": account.repeated,
        "retried": account.retried,
        "damaged": account.damaged,
        "classes": Map::from_iter(classes),
    })
}

/// What is there right now.
fn present(account: &Account, now: u64) -> Value {
    let (hands, queue, day) = (&account.hands, &account.queue, &account.day);
    let oldest = queue.oldest.filter(|_| account.pushes.queued > 0);
    let today = wechat_day(unix_seconds()) == day.number;
    json!({
        "queue_depth": account.pushes.queued,
        "queue_bytes": queue.bytes,
        "segments": queue.segments,
        "retrying": queue.retrying,
        "oldest_seconds": oldest.map(|at| now.saturating_sub(at) / 1_000),
        "workers": hands.workers,
        "in_flight": hands.in_flight(),
        "ready": hands.ready(),
        "unrecorded": hands.failed(),
        "sends_waiting": account.sends.waiting,
        "sent_today": if today { day.sent } else { 0 },
        "daily_limit": day.limit,
    })
}

fn speed(account: &Account, minute: &Rates, five_minutes: &Rates) -> Value {
    let rates = |rates: &Rates| {
        json!({
            "accepted": rounded(rates.accepted, 10.0),
            "delivered": rounded(rates.delivered, 10.0),
            "failed": rounded(rates.failed, 10.0),
            "busy": rounded(rates.busy, 1_000.0),
        })
    };
    let queued = account.pushes.queued as f64;
    let ends = (minute.drained > 0.0).then(|| (queued / minute.drained).round() as u64);
    json!({
        "rates_1m": rates(minute),
        "rates_5m": rates(five_minutes),
        "backlog_seconds": if account.pushes.queued == 0 { Some(0) } else { ends },
    })
}

fn rounded(number: f64, to: f64) -> f64 {
    (number * to).round() / to
}

fn percentiles(counts: &Counts) -> Value {
    let ms = |percent| counts.percentile(percent).map(|it| rounded(it.as_secs_f64() * 1e3, 10.0));
    json!({"p50": ms(50), "p99": ms(99)})
}

/// With its zone, as RFC 3339 has it.
fn local_time(unix_seconds: u64) -> String {
    local(unix_seconds.saturating_mul(1_000)).to_rfc3339()
}
