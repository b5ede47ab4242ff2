//! pause and end: a signal to the process that runs the task, or a word in the journal of one that does not run.

use crate::task::exit;
use crate::task::home::Place;
use crate::task::journal::{Journal, Stage};
use crate::task::legacy;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Longer than a run waits for answers.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn pause(place: &Place) -> Result<u8, String> {
    match stop(place, Signal::TERM)? {
        true => crate::say!("{}: paused", place.name),
        false => return Err(format!("the task {} does not run", place.name)),
    }
    Ok(exit::OK)
}

pub fn end(place: &Place) -> Result<u8, String> {
    if !stop(place, Signal::USR1)? {
        legacy::not_a_rows(place)?;
    }
    // It may have been killed, or have ended by itself, meanwhile.
    let _lock = place.lock()?;
    let mut journal = Journal::open(&place.journal())?;
    let mut state = journal.state()?;
    match state.stage {
        Stage::Finished => return Err(format!("the task {} is finished already", place.name)),
        Stage::Ended => {}
        Stage::Ready | Stage::Running | Stage::Paused => {
            state.stage = Stage::Ended;
            journal.keep(&state, &[])?;
        }
    }
    crate::say!("{}: ended", place.name);
    Ok(exit::OK)
}

/// Returns when its process has ended; false if there is none.
fn stop(place: &Place, signal: Signal) -> Result<bool, String> {
    let Some(process) = place.runs() else { return Ok(false) };
    process
        .signal(signal)
        .map_err(|error| format!("cannot signal the process {}: {error}", process.pid))?;
    match process.ends_before(Instant::now() + PATIENCE) {
        true => Ok(true),
        false => Err(format!(
            "the task {} still waits for answers after {} s: it is the process {} (a second signal ends it at once)",
            place.name,
            PATIENCE.as_secs(),
            process.pid
        )),
    }
}
