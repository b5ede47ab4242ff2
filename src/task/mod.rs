//! Batches: one template, a list of people, and what became of each of them. For `mega-task`, over the public
//! protocol; nothing of it runs in the daemon.
//!
//! - `list`: reads what people keep their lists in, and keeps the people of one task.

pub mod list;
