//! What a process of mega says when it ends, the daemon and the commands alike: the one table.

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
/// `status`, as LSB wants it: dead, and its pidfile is there.
pub const DEAD_WITH_PIDFILE: u8 = 1;
/// `status`: it does not run.
pub const NOT_RUNNING: u8 = 3;
/// `status`: something is there that does not answer, or that is not to be believed.
pub const UNKNOWN: u8 = 4;
/// `start`, `stop`, `restart`: who asks may not, as LSB wants it.
pub const NOT_PERMITTED: u8 = 4;
/// The daemon: the queue could not be made durable, and going on would have been less than was
/// promised.
pub const SYNC_FAILED: u8 = 74;
