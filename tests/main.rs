//! Drives the real executables: one module for each theme. Nothing sleeps for luck: everything
//! waits with a deadline, and a failure prints the command, the log and the folder.

mod support;

mod abuse;
mod bench;
mod broken_disk;
mod check;
mod cli;
mod clients;
mod control;
mod crash;
mod database;
mod delivery;
mod disk;
mod doctor;
mod failed;
mod hostile;
mod ids;
mod ledger;
mod logs;
mod metrics;
mod outage;
mod outcomes;
mod php;
mod reload;
mod restart;
mod root;
mod sandbox;
mod status;
mod steering;
mod task;
mod task_kills;
mod task_legacy;
mod task_options;
mod task_signals;
mod task_strangers;
mod templates;
mod torture;
mod transcripts;
mod wechat;
