//! What `/metrics` shows. Labels come from the program's own tables and from counts that are bounded
//! where they are kept, so nobody outside can make the page grow.

use super::Links;
use super::process;
use super::text::Text;
use crate::class::TABLE;
use crate::clock::{unix_seconds, wechat_day};
use crate::logger;
use crate::stats::{Account, Cause, Reading, Refusal, Stats, TROUBLES};
use std::path::Path;
use std::sync::atomic::Ordering;

pub fn page(links: &Links) -> String {
    let Links { stats, table, tokens, .. } = links;
    let Reading { now, account, .. } = stats.read();
    let mut text = Text::default();
    text.gauge("mega_build_info", "The version that runs.")
        .with(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    messages(&mut text, &account);
    ends(&mut text, stats, &account);
    queue(&mut text, &account, now);
    hands(&mut text, &account, now);
    times(&mut text, stats);
    troubles(&mut text, stats);

    let gauges = [
        ("mega_templates", "Templates that are kept in memory.", table.len() as u64),
        ("mega_connections", "Connections of clients.", load(&stats.clients)),
        ("mega_connections_limit", "`setting.max_conn`.", load(&stats.clients_limit)),
        ("mega_memory_held_bytes", "Memory that clients make the daemon hold.", load(&stats.held)),
        ("mega_memory_limit_bytes", "`setting.memory_limit`.", load(&stats.held_limit)),
        (
            "mega_token_calls_today",
            "Calls for an access token in this day of WeChat's.",
            tokens.calls_today(),
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help).value(value);
    }
    if let Some((age, lasts)) = tokens.token() {
        text.gauge("mega_token_age_seconds", "For how long the access token has been used.")
            .value(age.as_secs());
        text.gauge("mega_token_expires_seconds", "For how long the access token still lasts.")
            .value(lasts.as_secs());
    }
    disks(&mut text, links);
    process::add(&mut text);
    text.finish()
}

/// The two equations of `stats::account`, term by term.
fn messages(text: &mut Text, account: &Account) {
    let (pushes, sends) = (&account.pushes, &account.sends);
    const PUSH: &[(&str, &str)] = &[("kind", "push")];
    const SEND: &[(&str, &str)] = &[("kind", "send")];
    for (name, help, push, send) in [
        ("mega_accepted_total", "Messages taken in.", pushes.accepted, sends.accepted),
        ("mega_delivered_total", "Messages that WeChat took.", pushes.delivered, sends.delivered),
        ("mega_failed_total", "Messages that ended undelivered.", pushes.failed, sends.failed),
    ] {
        let mut family = text.counter(name, help);
        family.with(PUSH, push);
        family.with(SEND, send);
    }
    for (name, help, count) in [
        ("mega_found_total", "Pushes that waited when the daemon began.", pushes.found),
        ("mega_requeued_total", "Failed pushes that were queued again.", pushes.requeued),
        ("mega_cancelled_total", "Queued pushes that operators cancelled.", pushes.cancelled),
        ("mega_lost_total", "Pushes that the disk has lost.", pushes.lost),
        ("mega_given_up_total", "Sends answered without asking WeChat.", sends.given_up),
        (
            "mega_repeated_total",
            "Requests answered like an earlier one with their id.",
            account.repeated,
        ),
        ("mega_duplicates_total", "Deliveries that WeChat had already.", account.duplicates),
        ("mega_retried_total", "Attempts that are followed by another.", account.retried),
        ("mega_damaged_total", "Parts of segments that could not be read.", account.damaged),
    ] {
        text.counter(name, help).value(count);
    }
}

fn ends(text: &mut Text, stats: &Stats, account: &Account) {
    let mut family = text.counter("mega_attempts_total", "Attempts by what they came to.");
    for row in TABLE {
        family.with(&[("class", row.name)], account.classes[row.class as usize]);
    }
    let mut family = text.counter("mega_refused_total", "Requests and clients told no, by cause.");
    for refusal in Refusal::ALL {
        family.with(&[("cause", refusal.name())], stats.refused(*refusal, account));
    }
    let (most, others) = stats.failures.most(usize::MAX);
    let help = "Pushes and sends that failed, by class and WeChat's errcode.";
    let mut family = text.counter("mega_failures_total", help);
    for (ended, count) in most {
        let errcode = ended.errcode.map_or_else(|| "none".to_owned(), |code| code.to_string());
        family.with(&[("class", ended.class.name()), ("errcode", &errcode)], count);
    }
    family.with(&[("class", "other"), ("errcode", "other")], others);
}

fn queue(text: &mut Text, account: &Account, now: u64) {
    let (pushes, queue, day) = (&account.pushes, &account.queue, &account.day);
    let oldest = queue.oldest.filter(|_| pushes.queued > 0);
    let age = oldest.map_or(0, |at| now.saturating_sub(at) / 1_000);
    let today = wechat_day(unix_seconds()) == day.number;
    for (name, help, value) in [
        ("mega_queue_messages", "Pushes in the queue.", pushes.queued),
        ("mega_queue_oldest_seconds", "Age of the push that is next in line.", age),
        ("mega_queue_retrying", "Pushes that wait for their next attempt.", queue.retrying),
        ("mega_queue_bytes", "Records in the segments that are kept.", queue.bytes),
        ("mega_queue_segments", "Files of the queue.", queue.segments),
        ("mega_sends_waiting", "Sends whose clients wait.", account.sends.waiting),
        ("mega_sent_today", "Messages in this day of WeChat's.", if today { day.sent } else { 0 }),
        ("mega_daily_limit", "`wechat.daily_limit`; 0 is none.", day.limit),
    ] {
        text.gauge(name, help).value(value);
    }
}

fn hands(text: &mut Text, account: &Account, now: u64) {
    let hands = &account.hands;
    for (name, help, value) in [
        ("mega_workers", "Workers.", hands.workers),
        ("mega_in_flight", "Messages in workers' hands.", hands.in_flight()),
        ("mega_ready", "Messages that lie ready for a worker.", hands.ready()),
        ("mega_unrecorded", "Failed pushes that the ledger has not yet.", hands.failed()),
    ] {
        text.gauge(name, help).value(value);
    }
    // Nothing was published since because nothing has changed.
    let since = now.saturating_sub(account.at) * 1_000 * hands.in_flight();
    let busy = (hands.busy + since) as f64 / 1e6;
    text.counter("mega_workers_busy_seconds_total", "Time that workers had something in hand.")
        .value(busy);
}

fn times(text: &mut Text, stats: &Stats) {
    for (name, help, histogram) in [
        ("mega_wechat_seconds", "How long calls to WeChat take.", &stats.latency),
        ("mega_queue_age_seconds", "Age of pushes when WeChat took them.", &stats.age),
        ("mega_sync_seconds", "How long making the queue durable takes.", &stats.sync),
    ] {
        let counts = histogram.read();
        text.histogram(name, help).times(counts.bounds(), &counts.buckets(), counts.sum);
    }
}

fn troubles(text: &mut Text, stats: &Stats) {
    let suspended = stats.suspended.lock().as_ref().map(|it| (it.cause, it.since));
    let mut family = text.gauge("mega_suspended", "1 for why nothing is being sent.");
    for cause in Cause::ALL {
        let is = suspended.is_some_and(|(why, _)| why == *cause);
        family.with(&[("cause", cause.name())], u8::from(is));
    }
    let seconds = suspended.map_or(0, |(_, since)| unix_seconds().saturating_sub(since));
    text.gauge("mega_suspended_seconds", "For how long nothing has been sent.").value(seconds);
    let stopping = stats.stopping.load(Ordering::Relaxed);
    let troubles = stats.troubles();
    let mut family = text.gauge("mega_trouble", "1 where something is wrong; status says what.");
    family.with(&[("what", "stopping")], u8::from(stopping));
    for trouble in TROUBLES {
        family.with(&[("what", trouble.name)], u8::from(!troubles[trouble.name].is_null()));
    }
    let mut family = text.counter("mega_log_lines_lost_total", "Lines no log could write.");
    for (log, lost) in logger::lost() {
        family.with(&[("to", log)], lost);
    }
    family.with(&[("to", "message_log")], load(&stats.message_log_lost));
}

/// Where the daemon writes, and how much room is there.
fn disks(text: &mut Text, links: &Links) {
    let (server, log) = (&links.config.server, &links.config.log);
    let folders = [
        ("queue", Some(server.queue_file_path.as_path())),
        ("ledger", server.ledger_file.parent()),
        ("log", log.log_file.path().and_then(Path::parent)),
        ("message_log", log.message_log.as_deref().and_then(Path::parent)),
    ];
    let disks = folders.into_iter().filter_map(|(name, folder)| {
        let disk = rustix::fs::statvfs(folder?).ok()?;
        Some((name, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
    });
    let disks: Vec<(&str, u64, u64)> = disks.collect();
    let mut family = text.gauge("mega_disk_free_bytes", "Room on the disk of a folder.");
    disks.iter().for_each(|(name, free, _)| family.with(&[("folder", name)], free));
    let mut family = text.gauge("mega_disk_size_bytes", "Size of the disk of a folder.");
    disks.iter().for_each(|(name, _, size)| family.with(&[("folder", name)], size));
}

fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
