//! The way to the reactor for every other thread: a channel and the waker that makes the reactor
//! look into it. The channel is not bounded by itself; what can be in it is, by the requests that
//! the reactor lets through.

use super::batch::{Batch, Reply};
use crate::config::Config;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

pub enum Mail {
    /// Results for clients, and batches that have been worked off.
    Replies { replies: Vec<Reply>, batches: Vec<Batch> },
    /// The administration socket was removed: this one stands in its place.
    Admin(std::os::unix::net::UnixListener),
    /// The same of the one for those who may only look.
    Monitor(std::os::unix::net::UnixListener),
    /// Go by this configuration from now on.
    Configure(Arc<Config>),
    /// The answer to an order to steer: the next may be given.
    Steered(Reply),
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
    /// The reactor looks into the channel before it sleeps: nobody needs to wake it.
    awake: Arc<AtomicBool>,
}

/// The reactor's end.
pub struct Letters {
    receiver: Receiver<Mail>,
    awake: Arc<AtomicBool>,
}

impl Mailbox {
    pub fn new(waker: Waker) -> (Mailbox, Letters) {
        let (sender, receiver) = unbounded();
        let awake = Arc::new(AtomicBool::new(false));
        let letters = Letters { receiver, awake: Arc::clone(&awake) };
        (Mailbox { sender, waker: Arc::new(waker), awake }, letters)
    }

    pub fn send(&self, mail: Mail) {
        // A reactor that has ended needs no mail.
        let sent = self.sender.send(mail).is_ok();
        // The letter is in the channel before the flag is looked at; see `rest`.
        fence(Ordering::SeqCst);
        if sent && !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::Relaxed)
        {
            // The kernel has no way to refuse this short of a closed descriptor.
            let _ = self.waker.wake();
        }
    }
}

impl Letters {
    /// Everything that has arrived.
    pub fn read(&self) -> impl Iterator<Item = Mail> {
        self.receiver.try_iter()
    }

    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// The reactor is about to sleep: what comes after this call wakes it. False if something has
    /// come already.
    pub fn rest(&self) -> bool {
        self.awake.store(false, Ordering::Relaxed);
        // The flag is down before the channel is looked at: either this sees the letter, or its
        // sender sees the flag.
        fence(Ordering::SeqCst);
        self.receiver.is_empty()
    }

    /// The reactor is up again.
    pub fn rise(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    fn letter(left: u64) -> Mail {
        Mail::Quit { left }
    }

    #[test]
    fn only_a_reactor_that_rests_is_woken() {
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (mailbox, letters) = Mailbox::new(waker);
        let mut events = Events::with_capacity(4);
        let mut woken = || {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        };
        letters.rise();
        mailbox.send(letter(1));
        assert!(!woken() && !letters.rest());
        assert_eq!(letters.read().count(), 1);
        assert!(letters.rest());
        mailbox.send(letter(2));
        mailbox.send(letter(3));
        assert!(woken() && !woken());
        assert_eq!(letters.read().count(), 2);
    }

    /// A few nanoseconds for each.
    fn dawdle(count: u32) {
        for n in 0..count {
            std::hint::black_box(n);
        }
    }

    /// Each letter is sent in the moment in which the reactor may be going to sleep. Without the
    /// fences, or without the second look, one of them stays unseen.
    #[test]
    fn no_letter_is_slept_over() {
        const LETTERS: u32 = 500_000;
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (mailbox, letters) = Mailbox::new(waker);
        let seen = Arc::new(AtomicU32::new(0));
        let sender = {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                for n in 0..LETTERS {
                    while seen.load(Ordering::Acquire) < n {
                        std::hint::spin_loop();
                    }
                    dawdle(n % 61);
                    mailbox.send(letter(u64::from(n)));
                }
                // With its waker the last call to wake up would be gone.
                mailbox
            })
        };
        let mut events = Events::with_capacity(4);
        while seen.load(Ordering::Relaxed) < LETTERS {
            // Both come to the moment in every order there is.
            dawdle(seen.load(Ordering::Relaxed) % 97);
            if letters.rest() {
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "slept over letter {}", seen.load(Ordering::Relaxed));
            }
            letters.rise();
            for _ in letters.read() {
                seen.fetch_add(1, Ordering::Release);
            }
        }
        sender.join().unwrap();
    }
}
