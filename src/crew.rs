//! The workers as main has them: hires them and lets them go, at the start and in a reload. One that is let go ends
//! what it has in its hands first; which one it is, is left to them. Does no work of its own.

use crate::traffic::{Channels, most_workers};
use crate::worker::{self, Shared};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread;

/// A worker renders, posts and parses; TLS needs the most of this.
const STACK: usize = 512 * 1024;

pub struct Crew {
    shared: Arc<Shared>,
    links: worker::Links,
    dismissals: Sender<()>,
    /// To take a dismissal back that nobody has found yet.
    unfound: Receiver<()>,
    nudges: Sender<()>,
    workers: usize,
    most: usize,
    /// So many were hired since the start: what they are called by.
    hired: usize,
}

/// Workers that have not begun. Without a word they end.
pub struct Hired {
    begin: Sender<()>,
    new: usize,
    /// Those who were let go and stay.
    staying: usize,
    /// So many workers there are to be.
    workers: usize,
}

impl Crew {
    /// Nobody yet; `workers`: how many the daemon is started with.
    pub fn new(shared: Shared, channels: &Channels, workers: usize) -> Crew {
        let (dismissals, unfound) = channels.dismissals.clone();
        let links = worker::Links {
            sends: channels.sends.clone(),
            pushes: channels.pushes.clone(),
            dismissals: unfound.clone(),
            nudges: channels.nudges.1.clone(),
            round: channels.round.clone(),
            outcomes: channels.events.clone(),
        };
        let (shared, most) = (Arc::new(shared), most_workers(workers));
        let nudges = channels.nudges.0.clone();
        Crew { shared, links, dismissals, unfound, nudges, workers: 0, most, hired: 0 }
    }

    /// There is room for so many workers.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Finds as many as it takes to be `workers`; they begin with `begin`.
    pub fn hire(&mut self, workers: usize) -> io::Result<Hired> {
        let wanted = workers.saturating_sub(self.workers);
        let (begin, word) = bounded(wanted);
        let mut hired = Hired { begin, new: 0, staying: 0, workers };
        while hired.staying < wanted && self.unfound.try_recv().is_ok() {
            hired.staying += 1;
        }
        while hired.staying + hired.new < wanted {
            if let Err(error) = self.hire_one(word.clone()) {
                self.send_away(hired);
                return Err(error);
            }
            hired.new += 1;
        }
        Ok(hired)
    }

    fn hire_one(&mut self, word: Receiver<()>) -> io::Result<()> {
        self.hired += 1;
        let (shared, links) = (Arc::clone(&self.shared), self.links.clone());
        let builder = thread::Builder::new().name(format!("worker-{}", self.hired));
        // Not joined: one may be in the middle of a call that nobody waits for any longer.
        builder.stack_size(STACK).spawn(move || {
            if word.recv().is_ok() {
                worker::run(&shared, &links);
            }
        })?;
        Ok(())
    }

    /// Those who were hired begin; those who are too many are let go; and one looks at what has changed.
    pub fn begin(&mut self, hired: Hired) {
        for _ in 0..hired.new {
            // They wait for it, and there is room for a word to each.
            let _ = hired.begin.try_send(());
        }
        self.let_go(self.workers.saturating_sub(hired.workers));
        self.workers = hired.workers;
        // One that nobody has found yet will do.
        let _ = self.nudges.try_send(());
    }

    /// They are not needed after all.
    pub fn send_away(&mut self, hired: Hired) {
        self.let_go(hired.staying);
    }

    fn let_go(&self, count: usize) {
        for _ in 0..count {
            if self.dismissals.try_send(()).is_err() {
                log::error!("a dismissal finds no room: there is one worker more than configured");
            }
        }
    }
}
