//! What calls to WeChat go by, and a reload replaces: one for all workers, each of which looks at a number between
//! two jobs and takes the new one when it has changed.

use super::client::Network;
use super::errcode::Errcodes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Live {
    /// How often they were replaced.
    generation: AtomicU64,
    terms: RwLock<Terms>,
}

#[derive(Clone)]
pub struct Terms {
    pub network: Arc<Network>,
    pub errcodes: Arc<Errcodes>,
}

impl Live {
    pub fn new(terms: Terms) -> Live {
        Live { generation: AtomicU64::new(0), terms: RwLock::new(terms) }
    }

    /// Calls that begin later go by these.
    pub fn replace(&self, terms: Terms) {
        *self.terms.write() = terms;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Asked for before `terms`, so that none is missed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn terms(&self) -> Terms {
        self.terms.read().clone()
    }
}
