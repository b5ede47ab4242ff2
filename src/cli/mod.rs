//! The command line: which configuration is meant, and which command. Runs in short-lived processes
//! beside the daemon, except for `start`, which becomes it.

mod cancel;
mod control;
mod failed;
mod find;
mod health;
mod language;
mod queue;
mod request;
mod requeue;
mod state;
mod status;
mod steer;
mod template;
mod when;

use crate::config::Config;
use crate::daemon::step_down;
use crate::exit;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};

/// A daemon that delivers WeChat template messages for legacy PHP clients, and keeps each of them
/// on disk until its outcome is known.
#[derive(Parser)]
#[command(name = "mega", version, subcommand_required = true, arg_required_else_help = true)]
struct Line {
    /// Which configuration: conf/NAME.ini under the installation's root ("demo" is built in)
    name: Option<String>,
    /// A configuration file anywhere, instead of NAME
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The installation's root, the folder that holds conf/ (default: found from the executable,
    /// else the current folder)
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the daemon; returns when it listens
    Start(Start),
    /// Stop the daemon; returns when it has ended
    Stop(Stop),
    /// Stop it, if it runs, and start it
    Restart,
    /// Reload templates, log.log_level and server.allow[]
    Reload,
    /// Say whether it runs, and how it is (exit code 0 running, 1 dead but a pidfile is there, 3 not
    /// running, 4 not to be told)
    Status(status::Options),
    /// One line for monitoring, as Nagios plugins print it (exit code 0 ok, 1 warning, 2 critical, 3 unknown)
    Health(health::Health),
    /// Stop delivering and go on taking messages in, until resume; survives a restart
    Pause(steer::Pause),
    /// Deliver again after a pause
    Resume,
    /// Refuse requests, deliver what is queued, and stop; goes on when the command is interrupted
    Drain(steer::Drain),
    /// End queued messages of a wrong campaign before their turn: they count as failed, and requeue queues them
    /// again
    Cancel(cancel::Options),
    /// Log more or less from now on, until a restart or reload: debug, info, notice, warning, error, critical,
    /// alert or emergency
    LogLevel { level: String },
    /// Read the configuration, say what is wrong with it, and show what would apply
    Check,
    /// Manage the templates in the database
    #[command(subcommand)]
    Template(template::Template),
    /// Show the pushes that ended undelivered, one JSON line each
    Failed(failed::Failed),
    /// Queue failed messages again, each under the id that WeChat knows it by; can be stopped and asked for again
    /// at any time, and queues none twice
    Requeue(requeue::Requeue),
    /// Say where a message is, or what became of it: looks through queue, ledger and message log (exit code 1 if it
    /// is nowhere)
    Find(find::Find),
    /// Look into the queue's folder
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Queue a message: answered as soon as it is safe on disk
    Push(request::Message),
    /// Send a message and wait for WeChat's answer
    Send(request::Message),
    /// Make the daemon reload one template from the database
    Tset {
        /// The template's key
        key: String,
    },
}

#[derive(Args)]
struct Start {
    /// Stay in the foreground, and log to stderr too when that is a terminal
    #[arg(short, long)]
    foreground: bool,
}

#[derive(Args)]
struct Stop {
    /// Do not wait for calls to WeChat that are under way
    #[arg(long)]
    now: bool,
}

/// Runs the process's command line and returns its exit code.
pub fn main() -> u8 {
    let line = Line::parse();
    match line.run() {
        Ok(code) => code,
        Err(why) => {
            eprintln!("mega: {why}");
            exit::FAILED
        }
    }
}

impl Line {
    fn run(self) -> Result<u8, String> {
        if matches!(self.command, Command::Start(_) | Command::Restart) {
            crate::daemon::close_inherited();
        }
        let mut config = self.load()?;
        for warning in &config.warnings {
            eprintln!("mega: warning: {warning}");
        }
        match self.command {
            Command::Start(Start { foreground }) => {
                config.setting.daemonize &= !foreground;
                control::start(config)
            }
            Command::Stop(Stop { now }) => {
                let haste = if now { control::Haste::Now } else { control::Haste::Wait };
                control::stop(&config, haste)
            }
            Command::Restart => control::restart(config),
            Command::Reload => control::reload(&config),
            Command::Status(options) => status::run(&options, || control::status(&config)),
            Command::Health(options) => {
                Ok(health::health(&config.name, &options, control::status(&config)))
            }
            Command::Pause(options) => steer::pause(&config, options),
            Command::Resume => steer::resume(&config),
            Command::Drain(options) => steer::drain(&config, &options),
            Command::Cancel(options) => cancel::cancel(&config, options),
            Command::LogLevel { level } => steer::log_level(&config, level),
            Command::Check => {
                for caution in config.cautions() {
                    eprintln!("mega: warning: {caution}");
                }
                crate::say!("{}", config.describe());
                crate::say!("; {}: no problem found", config.file.display());
                Ok(exit::OK)
            }
            Command::Template(command) => template::run(&config, command),
            Command::Failed(options) => {
                step_down(&config)?;
                failed::failed(&config, &options)
            }
            Command::Requeue(options) => requeue::requeue(&config, &options),
            Command::Find(options) => {
                step_down(&config)?;
                find::find(&config, &options)
            }
            Command::Queue(command) => {
                step_down(&config)?;
                queue::run(&config, &command)
            }
            Command::Push(message) => request::push(&config, &message),
            Command::Send(message) => request::send(&config, &message),
            Command::Tset { key } => request::tset(&config, &key),
        }
    }

    fn load(&self) -> Result<Config, String> {
        let loaded = match (&self.config, &self.name) {
            (Some(file), _) => {
                let file =
                    std::path::absolute(file).map_err(|e| format!("{}: {e}", file.display()))?;
                let folder = file.parent().unwrap_or(Path::new("/"));
                let in_conf = folder.file_name().is_some_and(|name| name == "conf");
                let beside = if in_conf { folder.parent().unwrap_or(folder) } else { folder };
                Config::load(&file, &self.root_or(|| beside.to_owned())?)
            }
            (None, Some(name)) => {
                if name.contains('/') {
                    return Err(format!("{name} is not a name (for a file use -c {name})"));
                }
                let root = self.root_or(installation)?;
                let file = root.join("conf").join(format!("{name}.ini"));
                match name.as_str() {
                    "demo" if !file.exists() => Config::demo(&root),
                    _ => Config::load(&file, &root),
                }
            }
            (None, None) => {
                let example = "mega wechat start, or mega -c FILE start";
                return Err(format!("which configuration? Give its name or a file: {example}"));
            }
        };
        loaded.map_err(|error| error.to_string())
    }

    fn root_or(&self, otherwise: impl FnOnce() -> PathBuf) -> Result<PathBuf, String> {
        let root = self.root.clone().unwrap_or_else(otherwise);
        std::path::absolute(&root).map_err(|error| format!("{}: {error}", root.display()))
    }
}

/// The closest folder above the executable that holds conf/, else the current folder.
fn installation() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let above = executable.ancestors().skip(1).take(4).find(|folder| folder.join("conf").is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
