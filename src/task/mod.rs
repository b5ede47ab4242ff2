//! Batches: one template, a list of people, and what became of each of them. For `mega-task`, over the public
//! protocol; nothing of it runs in the daemon.
//!
//! - `list`: reads what people keep their lists in, and keeps the people of one task.
//! - `event`: what a task tells of itself, and `control`: what it is asked to do.
//! - `home`: a task's folder; `plan`, what it is to do; `journal`, how far it has come; `results`, what became of whom.
//! - `run`: sends; `reply` says what an answer comes to, `ask` asks for the template.
//! - `watch`: shows a running task, in `words` that people read.
//! - `cli`: the command line, with the codes of `exit`.
//! - `legacy`: drives a row of the table that an installation's pages read.

mod ask;
mod cli;
mod control;
mod event;
mod exit;
mod home;
mod journal;
mod legacy;
mod list;
mod plan;
mod reply;
mod results;
mod run;
mod watch;
mod words;

pub use cli::main;
pub use control::{Control, Haste, Wish};
pub use event::{End, Event, Failure, Progress, Status, Watch, Why};
