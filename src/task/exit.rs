//! What `mega-task` says when it ends: the one table.

use super::event::{End, Progress};

/// Everybody was sent to; or the command did what it was asked.
pub const OK: u8 = 0;
/// It could not; the error says why. A task that was begun can be resumed.
pub const FAILED: u8 = 1;
// 2 is a wrong command line.
/// Everybody is answered, and some failed or are unknown.
pub const SOME_FAILED: u8 = 3;
pub const PAUSED: u8 = 4;
pub const ENDED: u8 = 5;
/// The list or the template: nothing went out.
pub const REFUSED: u8 = 6;

pub fn of(end: &End, progress: &Progress) -> u8 {
    match end {
        End::Finished if progress.failed + progress.unknown > 0 => SOME_FAILED,
        End::Finished => OK,
        End::Paused => PAUSED,
        End::Ended => ENDED,
        End::Broken(_) => FAILED,
    }
}
