//! The way to the reactor for every other thread: a channel and the waker that makes the reactor
//! look into it. The channel is not bounded by itself; what can be in it is, by the requests that
//! the reactor lets through.

use super::batch::{Batch, Reply};
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub enum Mail {
    /// Results for clients, and batches that have been worked off.
    Replies { replies: Vec<Reply>, batches: Vec<Batch> },
    /// Only these networks may connect from now on.
    Allow(Vec<ipnet::IpNet>),
    /// Close the listeners, refuse requests, tell the spool to stop; `now`: without waiting for
    /// what workers hold.
    Stop { now: bool },
    /// The spool has ended with so many messages left: write what can be written, and end.
    Quit { left: u64 },
}

#[derive(Clone)]
pub struct Mailbox {
    sender: Sender<Mail>,
    waker: Arc<Waker>,
    /// A wake-up is on its way already.
    woken: Arc<AtomicBool>,
}

/// The reactor's end.
pub struct Letters {
    receiver: Receiver<Mail>,
    woken: Arc<AtomicBool>,
}

impl Mailbox {
    pub fn new(waker: Waker) -> (Mailbox, Letters) {
        let (sender, receiver) = unbounded();
        let woken = Arc::new(AtomicBool::new(false));
        let letters = Letters { receiver, woken: Arc::clone(&woken) };
        (Mailbox { sender, waker: Arc::new(waker), woken }, letters)
    }

    pub fn send(&self, mail: Mail) {
        // A reactor that has ended needs no mail.
        if self.sender.send(mail).is_ok() && !self.woken.swap(true, Ordering::AcqRel) {
            // The kernel has no way to refuse this short of a closed descriptor.
            let _ = self.waker.wake();
        }
    }
}

impl Letters {
    /// Everything that has arrived. What comes after this call wakes the reactor again.
    pub fn read(&self) -> impl Iterator<Item = Mail> {
        self.woken.store(false, Ordering::Release);
        self.receiver.try_iter()
    }
}
