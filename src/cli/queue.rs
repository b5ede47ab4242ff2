//! `queue check` and `queue dump`: what is in the queue's folder, as JSON lines. Changes nothing, and
//! needs no daemon.

use super::paths::Paths;
use crate::exit;
use crate::queue::disk::Folder;
use crate::queue::inspect::inspect;
use clap::Subcommand;
use serde_json::Value;
use std::io::{BufWriter, Write, stdout};

#[derive(Subcommand)]
pub enum Queue {
    /// Show each segment: how many records are ready and done, and what is damaged (exit code 1)
    Check,
    /// Show each record
    Dump {
        /// Those that are not done only
        #[arg(long)]
        ready: bool,
    },
}

pub fn run(paths: &Paths, command: &Queue) -> Result<u8, String> {
    let path = &paths.queue;
    let failed = |why: String| format!("cannot read the queue {}: {why}", path.display());
    let disk = Folder::read_only(path).map_err(|error| failed(error.to_string()))?;
    let mut out = Lines(BufWriter::new(stdout()), false);
    let mut rest = Lines(BufWriter::new(stdout()), false);
    let mut damaged = false;
    let each = |record: Value| match command {
        Queue::Dump { ready: true } if record["state"] == "done" => {}
        Queue::Dump { .. } => out.print(&record),
        Queue::Check => {}
    };
    inspect(&disk, each, |name, segment, summary| {
        damaged |= !summary.damage.is_empty() && !name.ends_with(".bad");
        if let Queue::Check = command {
            rest.print(&summary.to_json(name, segment));
        }
    })
    .map_err(|error| failed(error.to_string()))?;
    Ok(if damaged { exit::FAILED } else { exit::OK })
}

/// Standard output, until whoever reads it goes away.
struct Lines(BufWriter<std::io::Stdout>, bool);

impl Lines {
    fn print(&mut self, value: &Value) {
        self.1 = self.1 || writeln!(self.0, "{value}").is_err();
    }
}
