//! `status`: what the running daemon tells of itself, for people, as JSON, once or again and again. How the
//! daemon is found and asked is the caller's part.

mod disk;
mod page;
mod screen;
mod words;

use crate::cli::language::Language;
use crate::clock::unix_seconds;
use crate::exit;
use crate::output::line;
use clap::Args;
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use page::{Page, Present};
use screen::Screen;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Options {
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds (2), with the rates since the last look, until it is interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
}

/// What came of asking.
pub enum Asked {
    /// The daemon's own account of itself.
    Runs(Value),
    /// It runs, and there is nobody to ask.
    Unheard { name: String, pid: i32, note: String },
    /// There is none, and what is known, with the exit code that says so.
    Not { code: u8, why: String },
}

pub fn run(options: &Options, mut ask: impl FnMut() -> Asked) -> Result<u8, String> {
    let mut ask = || match ask() {
        Asked::Runs(mut status) => {
            disk::add(&mut status);
            Asked::Runs(status)
        }
        not => not,
    };
    if let Some(seconds) = options.watch {
        return watch(options, Duration::from_secs(seconds), ask);
    }
    Ok(match ask() {
        Asked::Runs(status) if options.json => {
            crate::say!("{status}");
            exit::OK
        }
        Asked::Runs(status) => {
            let page = Page::new(&status, Language::of_environment(), unix_seconds() as i64);
            crate::say!("{}", page.lines().join("\n"));
            exit::OK
        }
        Asked::Unheard { name, pid, note } if options.json => {
            crate::say!("{}", json!({ "name": name, "pid": pid, "note": note }));
            exit::OK
        }
        Asked::Unheard { name, pid, note } => {
            crate::say!("mega {name} is running\n  pid            {pid}\n  note           {note}");
            exit::OK
        }
        // What cannot be told is no answer.
        Asked::Not { code: code @ exit::UNKNOWN, why } => {
            crate::complain!("{why}");
            code
        }
        Asked::Not { code, why } => {
            crate::say!("{why}");
            code
        }
    })
}

/// Until it is interrupted, or nobody reads any more.
fn watch(options: &Options, every: Duration, mut ask: impl FnMut() -> Asked) -> Result<u8, String> {
    let interrupts = interrupts().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let screen = if options.json { None } else { Screen::enter() };
    let mut last: Option<(Instant, Value)> = None;
    loop {
        let asked = ask();
        let at = Instant::now();
        let shown = match &asked {
            Asked::Runs(status) if options.json => vec![status.to_string()],
            Asked::Runs(status) => {
                let language = Language::of_environment();
                let mut page = Page::new(status, language, unix_seconds() as i64);
                page.present = last.as_ref().map(|(then, last)| present(last, status, at - *then));
                page.lines()
            }
            Asked::Not { why, .. } | Asked::Unheard { note: why, .. } if options.json => {
                crate::complain!("{why}");
                Vec::new()
            }
            Asked::Not { why, .. } | Asked::Unheard { note: why, .. } => vec![why.clone()],
        };
        let drawn = match &screen {
            Some(screen) => screen.draw(&shown),
            None => block(&shown, options.json),
        };
        if drawn.is_err() {
            return Ok(exit::OK);
        }
        last = match asked {
            Asked::Runs(status) => Some((at, status)),
            Asked::Not { .. } | Asked::Unheard { .. } => None,
        };
        if wait(&interrupts, Instant::now() + every) {
            return Ok(exit::OK);
        }
    }
}

/// One look, for whoever is no terminal.
fn block(lines: &[String], json: bool) -> std::io::Result<()> {
    use std::io::Write;
    let gap = if json || lines.is_empty() { "" } else { "\n" };
    let mut out = std::io::stdout().lock();
    if !lines.is_empty() {
        line(&mut out, format_args!("{}{gap}", lines.join("\n")))?;
    }
    out.flush()
}

/// What happened in a second between two looks, if they saw the same run of the daemon.
fn present(last: &Value, status: &Value, passed: Duration) -> Present {
    let number = |status: &Value, name: &str| status[name].as_u64().unwrap_or_default();
    let same = number(last, "pid") == number(status, "pid");
    let sum = |status, names: &[&str]| names.iter().map(|name| number(status, name)).sum::<u64>();
    let rate = |names: &[&str]| {
        let count = sum(status, names).saturating_sub(sum(last, names));
        let seconds = passed.as_secs_f64().max(0.001);
        if same { count as f64 / seconds } else { 0.0 }
    };
    Present {
        accepted: rate(&["accepted"]),
        delivered: rate(&["delivered"]),
        // What is recorded meanwhile had failed before.
        failed: rate(&["failed", "unrecorded"]),
    }
}

/// True: interrupted; false: it is time, or the terminal has another size.
fn wait(interrupts: &Receiver<i32>, until: Instant) -> bool {
    match interrupts.recv_deadline(until) {
        Ok(SIGWINCH) | Err(RecvTimeoutError::Timeout) => false,
        Ok(_) | Err(RecvTimeoutError::Disconnected) => true,
    }
}

fn interrupts() -> std::io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
    let (interrupt, interrupts) = unbounded();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if interrupt.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(interrupts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_of_what_happened_between_two_looks_at_one_run() {
        let then = json!({"pid": 1, "accepted": 10, "delivered": 5, "failed": 1, "unrecorded": 4});
        let now = json!({"pid": 1, "accepted": 30, "delivered": 6, "failed": 5, "unrecorded": 2});
        let rates = |last: &Value| {
            let Present { accepted, delivered, failed } =
                present(last, &now, Duration::from_secs(2));
            [accepted, delivered, failed]
        };
        assert_eq!(rates(&then), [10.0, 0.5, 1.0]);
        let other = json!({"pid": 2, "accepted": 1, "delivered": 1, "failed": 1});
        assert_eq!(rates(&other), [0.0; 3]);
    }
}
