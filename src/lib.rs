//! mega: takes "send this WeChat template message to this user" over TCP, keeps it safe on disk, and
//! delivers it through WeChat's HTTPS API with N blocking workers.
//!
//! # Threads and channels
//!
//! ```text
//!  clients ──TCP──▶ reactor ──batches──▶ spool ──jobs──▶ worker-1..N ──HTTPS──▶ WeChat
//!  (PHP)   ◀──────  (mio)  ◀──mailbox──  (queue) ◀──events── outcomes ──┘
//!                    │   ▲                │  ├──chores, syncs──▶ janitor, syncer ──events──┘
//!                    └tsets─▶ store ─┘    └──ends──▶ ledger ──events──┘
//!  main: signals, reloads, supervises the others, joins them in order
//! ```
//!
//! | thread | module | owns | never does |
//! |---|---|---|---|
//! | main | `server`, `reload`, `crew` | signals, start, reload and stop in order | work |
//! | reactor | `reactor` | the poll, every socket and its buffers | block |
//! | spool | `spool` | the queue, alone | touch a socket |
//! | store | `store` | the one database connection | touch the queue |
//! | worker-N | `worker` | one keep-alive HTTP connection | hold a lock while it waits for WeChat |
//! | janitor, syncer | `queue::janitor` | slow file work | decide anything |
//! | ledger | `ledger` | what became of each message | decide anything, hold up the spool |
//!
//! What travels between them, and every channel's capacity with its reason, is in `traffic`, below all
//! threads: no thread's module imports another's.
//!
//! # The path of a push
//!
//! 1. `reactor`: bytes arrive; `wire::frame` finds the frame, `wire::command` decodes it, the desk
//!    checks key and JSON and copies it into the turn's batch.
//! 2. `spool`: appends the batch to the queue, syncs as the policy asks, mails the results.
//! 3. `reactor`: writes the results, one write for each client.
//! 4. `spool`: takes the message from the queue and hands it out as a job, as far as the gate allows.
//! 5. `worker`: renders the template and posts it; the outcome goes back to the spool.
//! 6. `spool`: books it by the table in `class`: marks the record done, queues a retry, or gives
//!    the message to the ledger and marks it done when the ledger has it.
//! 7. `janitor`: deletes the segment when all its records are done.
//!
//! A send takes the same way past the disk: it lives in the spool's memory, because a client is
//! waiting, and its outcome goes back through the mailbox.
//!
//! # The path of a reload
//!
//! 1. `reload` (main): reads the file and prepares all that can fail. An error ends it here, or in the next step.
//! 2. `store`: loads the templates and puts them into the table. From here on nothing can fail.
//! 3. `reload`: workers find the new terms in `wechat::live` and `wechat::token`, the reactor by a letter, the spool
//!    by an event; `crew` hires workers or lets them go.
//! 4. `spool`: goes by the new configuration and says so; whoever asked for the reload is answered.
//!
//! # Lexicon
//!
//! *frame*: one unit of the wire. *command*: what a frame says. *request*: a send or push on its way
//! to the spool. *message*: a request the spool has accepted. *record*: a message's bytes in a
//! *segment*, one file of the queue. *job*: a message in a worker's hands. *verdict*: what an attempt
//! came to, by its *class*; *outcome*: the job with its verdict. *round*: what was handed out between two
//! closings of the gate. *template*: the compiled text that a message is rendered with. *database*: where the
//! templates are kept; *store*: the thread that asks it. *spool*: the thread between reactor and workers.
//! *gate*: whether anything is sent. *probe*: the one message that finds out whether a closed gate may open.
//! *terms*: what a part of the daemon takes from the configuration, and a reload replaces. *chore*: slow file
//! work. *facts*: what a running daemon leaves for commands to find it by. *place*: how to reach a daemon.
//! *ledger*: what became of each message. *history*: the texts that a template had, in the ledger's file.
//! *id*: what a client gives its message, and a repeat is known by. *task*: one template for a list of *people*.
//! *doubt*: what is told about a template's text and refuses nothing.
//!
//! # Invariants
//!
//! Each module numbers its own: Q1-Q6 in `queue`, S1-S3 in `spool`, R1-R3 in `reactor`, M1 in
//! `queue::disk`, T1-T3 in `wechat::refresh`. Those that matter to a user:
//!
//! - A push answered 200 is in the queue's file, and with `sync = always` on the disk (Q1, S1).
//! - Only a known outcome ends a message (Q1, Q2); a repeat carries the same client_msg_id.
//! - Every send is answered exactly once (S2).
//! - WeChat is asked for a token at most once in ten seconds (T1, in `wechat::refresh`); a new start asks at once
//!   only for a stable one, which no second call replaces.

mod class;
pub mod cli;
mod client;
mod clock;
mod config;
mod crew;
mod daemon;
mod day_file;
mod doctor;
mod exit;
mod file;
mod ledger;
mod linger;
mod logger;
mod metrics;
pub mod output;
mod queue;
mod reactor;
mod reload;
mod server;
mod signal;
mod spool;
mod sqlite;
mod stats;
mod store;
pub mod task;
mod template;
mod traffic;
mod trial;
mod user;
mod wechat;
pub mod wire;
mod worker;
