//! What a running task is asked to do by signals, or by whoever runs it: a word that the sending thread looks at,
//! and a way to wake it.

use mio::Waker;
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
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

#[derive(Default)]
struct Asked {
    wish: Option<(Wish, Haste)>,
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

    pub fn wish(&self) -> Option<(Wish, Haste)> {
        self.0.lock().wish
    }

    /// Who is woken by the next wish.
    pub(super) fn wakes(&self, waker: &Arc<Waker>) {
        self.0.lock().waker = Some(Arc::clone(waker));
    }

    /// Of TERM, INT and USR1 those in `ends` end it, and the others pause it: a thread of its own waits for them.
    pub fn listen(&self, ends: &'static [c_int]) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        let control = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                control.ask(if ends.contains(&signal) { Wish::End } else { Wish::Pause });
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
}
