//! To wait a moment without sleeping, where to sleep and be woken would take longer.

use std::time::{Duration, Instant};

/// Looks between two offers of the processor.
const LOOKS: usize = 32;

/// Looks until there is something, or until `limit` is over. Whoever else could use the processor
/// meanwhile, may. A function of its own also when it is compiled, so that `scripts/bench` can leave out
/// what is waited for.
#[inline(never)]
pub fn linger<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::yield_now();
    }
}
