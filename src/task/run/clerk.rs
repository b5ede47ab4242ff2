//! The clerk: a thread that owns the journal and the result file, so that nobody who sends waits for a disk. One
//! block at a time: first its rows, then the journal that says how many they are (J1).

use crate::task::event::Failure;
use crate::task::journal::{Journal, State};
use crate::task::results::Results;
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What became of some people, and who may be sent to next.
pub struct Block {
    pub number: u64,
    /// The clerk puts `result_bytes` in.
    pub state: State,
    /// Lines of the result file.
    pub rows: String,
    pub failures: Vec<Failure>,
}

pub struct Clerk {
    to: Option<Sender<Block>>,
    from: Receiver<Result<Block, String>>,
    thread: Option<JoinHandle<Journal>>,
    /// It has a block in hand.
    busy: bool,
}

impl Clerk {
    /// `waker` is woken after each block.
    pub fn start(
        mut journal: Journal,
        mut results: Results,
        waker: Arc<Waker>,
    ) -> Result<Clerk, String> {
        // One block at a time: neither side ever waits for room.
        let (to, blocks) = bounded::<Block>(1);
        let (done, from) = bounded(1);
        let thread = std::thread::Builder::new().name("clerk".into()).spawn(move || {
            for mut block in blocks {
                let kept = results.keep(&block.rows).and_then(|()| {
                    block.state.result_bytes = results.bytes();
                    journal.keep(&block.state, &block.failures)
                });
                if done.send(kept.map(|()| block)).is_err() {
                    break;
                }
                // The other side looks by itself some tenths of a second later.
                let _ = waker.wake();
            }
            journal
        });
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Clerk { to: Some(to), from, thread: Some(thread), busy: false })
    }

    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// To be called while it is not busy.
    pub fn give(&mut self, block: Block) -> Result<(), String> {
        let to = self.to.as_ref().ok_or("the clerk was dismissed")?;
        to.try_send(block).map_err(|_| "the clerk's thread has died".to_owned())?;
        self.busy = true;
        Ok(())
    }

    /// The block that is done, if one is.
    pub fn take(&mut self) -> Result<Option<Block>, String> {
        match self.from.try_recv() {
            Ok(block) => {
                self.busy = false;
                block.map(Some)
            }
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(None),
            Err(_) => Err("the clerk's thread has died".into()),
        }
    }

    /// Waits for the block in hand.
    pub fn wait(&mut self) -> Result<Block, String> {
        self.busy = false;
        self.from.recv().map_err(|_| "the clerk's thread has died".to_owned())?
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            // It has said already what went wrong, or its panic has.
            let _ = thread.join();
        }
    }
}
