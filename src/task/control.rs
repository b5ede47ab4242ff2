//! What a running task is asked to do by signals, or by whoever runs it: a word that the sending thread looks at,
//! and a way to wake it.

use super::exit;
use crate::cli::language::Language;
use mio::Waker;
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::ffi::c_int;
use std::io;
use std::sync::Arc;

/// What somebody wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Pause,
    End,
}

/// How urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// When what is out is answered.
    Drain,
    /// Answers are not waited for.
    Now,
}

/// What a hangup comes to: as a rule the session that it was begun in was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It pauses, unless hangups were ignored when the process began: `nohup` has it so.
    Pauses,
    Ignored,
}

/// Whether whoever started the process wants it to ignore that signal, or it did so itself.
fn is_ignored(signal: c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[derive(Default)]
struct Asked {
    wish: Option<(Wish, Haste)>,
    /// None: the run has not begun.
    waker: Option<Arc<Waker>>,
}

/// Shared by those who ask and the one who runs.
#[derive(Default, Clone)]
pub struct Control(Arc<Mutex<Asked>>);

impl Control {
    /// A second wish is an urgent one.
    pub fn ask(&self, wish: Wish) {
        let mut asked = self.0.lock();
        let haste = if asked.wish.is_some() { Haste::Now } else { Haste::Drain };
        asked.wish = Some((wish, haste));
        if let Some(waker) = &asked.waker {
            // The thread looks by itself some tenths of a second later.
            let _ = waker.wake();
        }
    }

    /// A hangup often comes twice, or beside another signal: it is never urgent.
    fn hang_up(&self) {
        if self.wish().is_none() {
            self.ask(Wish::Pause);
        }
    }

    /// Before the run begins nobody looks at a wish: the first is told of, and the second needs no run.
    fn before_it_begins(&self) {
        let asked = self.0.lock();
        let (Some((_, haste)), None) = (asked.wish, &asked.waker) else { return };
        let language = Language::of_environment();
        match haste {
            Haste::Drain => crate::say_err!(
                "mega-task: {}",
                language.pick([
                    "it pauses before anything goes out, when the list is read (again: at once)",
                    "读完名单后、发送之前暂停（再次发送信号则立即结束）",
                ])
            ),
            Haste::Now => {
                crate::say_err!(
                    "mega-task: {}",
                    language.pick(["nothing went out", "没有发送任何消息"])
                );
                std::process::exit(exit::PAUSED.into());
            }
        }
    }

    pub fn wish(&self) -> Option<(Wish, Haste)> {
        self.0.lock().wish
    }

    /// Who is woken by the next wish.
    pub(super) fn wakes(&self, waker: &Arc<Waker>) {
        self.0.lock().waker = Some(Arc::clone(waker));
    }

    /// One that signals ask from now on: of TERM, INT and USR1 those in `ends` end it, and the others pause it. To be
    /// called before anything that takes its time.
    pub fn of_signals(ends: &'static [c_int], hangup: Hangup) -> Result<Control, String> {
        let control = Control::default();
        let listens = control.listen(ends, hangup);
        listens.map_err(|error| format!("cannot listen to signals: {error}"))?;
        Ok(control)
    }

    /// A thread of its own waits for them.
    fn listen(&self, ends: &'static [c_int], hangup: Hangup) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let control = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP if hangup == Hangup::Ignored => continue,
                    SIGHUP => control.hang_up(),
                    _ if ends.contains(&signal) => control.ask(Wish::End),
                    _ => control.ask(Wish::Pause),
                }
                control.before_it_begins();
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_wish_is_an_urgent_one() {
        let control = Control::default();
        assert_eq!(control.wish(), None);
        control.ask(Wish::Pause);
        assert_eq!(control.wish(), Some((Wish::Pause, Haste::Drain)));
        control.ask(Wish::End);
        assert_eq!(control.wish(), Some((Wish::End, Haste::Now)));
    }

    #[test]
    fn a_hangup_is_a_wish_and_never_an_urgent_one() {
        let control = Control::default();
        control.hang_up();
        control.hang_up();
        assert_eq!(control.wish(), Some((Wish::Pause, Haste::Drain)));
        control.ask(Wish::Pause);
        control.hang_up();
        assert_eq!(control.wish(), Some((Wish::Pause, Haste::Now)));
        assert!(is_ignored(signal_hook::consts::SIGPIPE) && !is_ignored(SIGTERM));
    }
}
