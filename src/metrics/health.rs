//! Whether a load balancer should send clients here: a push would be taken. That messages cannot be sent
//! right now is no reason to keep away, because they are kept; it is told all the same.

use crate::output::printable;
use crate::stats::Stats;
use std::sync::atomic::Ordering;

/// One line: how it is, or why nothing is taken in.
pub fn of(stats: &Stats) -> Result<String, String> {
    if stats.stopping.load(Ordering::Relaxed) {
        return Err("stopping".into());
    }
    if let Some(why) = stats.full.lock().as_ref() {
        return Err(format!("queue full: {}", printable(why)));
    }
    if stats.draining.lock().is_some() {
        return Err("draining".into());
    }
    if let Some(why) = stats.crowded() {
        return Err(why.into());
    }
    let suspended = stats.suspended.lock().as_ref().map(|it| printable(&it.why));
    let blocked = stats.blocked();
    let ledger = stats.ledger.lock().as_ref().map(|why| printable(why));
    let paused = stats.paused.lock().as_ref().map(|it| printable(&it.text()));
    let notes = [
        ("nothing is sent", paused),
        ("sending is suspended", suspended),
        ("no push is delivered", blocked),
        ("the ledger", ledger),
    ];
    let notes = notes.into_iter().filter_map(|(what, why)| Some(format!("; {what}: {}", why?)));
    Ok(format!("ok{}", notes.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_refuses_pushes_is_unhealthy() {
        let stats = Stats::default();
        assert_eq!(of(&stats), Ok("ok".into()));
        *stats.ledger.lock() = Some("disk\nfull".into());
        assert_eq!(of(&stats), Ok("ok; the ledger: disk\\nfull".into()));
        stats.crowd.lock().full = Some("setting.max_conn clients are connected");
        assert_eq!(of(&stats), Err("setting.max_conn clients are connected".into()));
        *stats.draining.lock() = Some(("ann".into(), 7));
        assert_eq!(of(&stats), Err("draining".into()));
        *stats.full.lock() = Some("no room".into());
        assert_eq!(of(&stats), Err("queue full: no room".into()));
        stats.stopping.store(true, Ordering::Relaxed);
        assert_eq!(of(&stats), Err("stopping".into()));
    }
}
