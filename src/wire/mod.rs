//! The wire protocol legacy PHP clients speak: bytes to types and back. Pure functions on any
//! thread: no I/O, no clock, no allocation that the peer decides.

pub mod command;
pub mod frame;
pub mod not_now;
pub mod question;
