//! Drives the real executables: one module for each theme. Nothing sleeps for luck: everything
//! waits with a deadline, and a failure prints the command, the log and the folder.

mod support;

mod abuse;
mod bench;
mod broken_disk;
mod cli;
mod clients;
mod crash;
mod database;
mod delivery;
mod disk;
mod failed;
mod hostile;
mod ledger;
mod outage;
mod outcomes;
mod php;
mod restart;
mod root;
mod sandbox;
mod status;
mod steering;
mod torture;
mod transcripts;
mod wechat;
