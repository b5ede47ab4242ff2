//! The command line: which configuration is meant, and which command. Runs in short-lived processes
//! beside the daemon, except for `start`, which becomes it.

mod cancel;
mod check;
mod control;
mod doctor;
mod failed;
mod find;
mod findings;
mod health;
pub(crate) mod language;
mod paths;
mod queue;
mod reload;
mod request;
mod requeue;
mod state;
mod status;
mod steer;
mod template;
pub(crate) mod when;
mod which;

use crate::exit;
use clap::{Args, CommandFactory, Parser, Subcommand};
use paths::Paths;
use std::path::PathBuf;
use which::Which;

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
    /// Read the configuration and the templates again, and say what has changed; if anything is wrong, nothing has
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
    /// End queued messages of a wrong campaign before their turn: they are listed by failed --class cancelled, and
    /// requeue queues them again
    Cancel(cancel::Options),
    /// Log more or less from now on, until a restart or reload: debug, info, notice, warning, error, critical,
    /// alert or emergency
    LogLevel { level: String },
    /// Try what a start would do, say what is wrong with the configuration, and show what would apply; changes
    /// nothing (exit code 1 if something is wrong)
    Check(check::Check),
    /// Check, and ask the world: token, clock, names, certificates, disks, limits, the running daemon; a line each,
    /// with what to do (exit code 0 fine or with warnings, 1 something is wrong)
    Doctor(doctor::Doctor),
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
    /// Stay in the foreground, and log to stderr: instead of the log that is not configured, or beside it
    /// when stderr is a terminal
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
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) if error.use_stderr() && asks_health() => {
            let text = error.to_string();
            let what = text.lines().next().unwrap_or_default();
            return health::unknown(what.strip_prefix("error: ").unwrap_or(what));
        }
        Err(error) => error.exit(),
    };
    let asks_health = matches!(line.command, Command::Health(_));
    match line.run() {
        Ok(code) => code,
        Err(why) if asks_health => health::unknown(&why),
        Err(why) => {
            crate::complain!("{why}");
            exit::FAILED
        }
    }
}

/// Whether the command line, which cannot be understood, is meant for a monitor: the first command in it is `health`.
fn asks_health() -> bool {
    let line = Line::command();
    let known = |word: &String| line.get_subcommands().any(|known| known.get_name() == word);
    std::env::args().skip(1).find(known).is_some_and(|word| word == "health")
}

impl Line {
    fn run(self) -> Result<u8, String> {
        if matches!(self.command, Command::Start(_) | Command::Restart) {
            crate::daemon::close_inherited();
        }
        let which = self.which()?;
        let config = which.config();
        // These show them among the rest.
        if !matches!(self.command, Command::Check(_) | Command::Doctor(_)) {
            let warnings = config.iter().flat_map(|config| &config.warnings);
            warnings.for_each(|warning| crate::complain!("warning: {warning}"));
        }
        let read = || config.as_ref().map_err(String::clone);
        // The running daemon is reached whatever is wrong with the file.
        let target = || {
            if let Err(why) = &config {
                crate::complain!("warning: {why}");
            }
            which.target(config.as_ref().ok())
        };
        match self.command {
            Command::Start(_) | Command::Restart if which.is_closed() => {
                let why = config.err().unwrap_or_default();
                control::denied(&control::goes_on(&which.target(None), why))
            }
            Command::Start(Start { foreground }) => {
                let mut config = config?;
                if foreground {
                    config.stay_in_foreground();
                }
                control::start(&which, config)
            }
            Command::Stop(Stop { now }) => {
                let haste = if now { control::Haste::Now } else { control::Haste::Wait };
                control::stop(&target(), haste)
            }
            Command::Restart => match config {
                Ok(config) => control::restart(&which, config),
                Err(why) => Err(control::goes_on(&which.target(None), why)),
            },
            Command::Reload => match &config {
                Ok(config) => control::reload(&which.target(Some(config))),
                Err(why) => Err(format!("{why}\nnothing was reloaded")),
            },
            Command::Status(options) => {
                let target = target();
                status::run(&options, || control::status(&target))
            }
            Command::Health(options) => {
                let target = target();
                let asked = control::status(&target);
                // A name that nobody has given anything is misspelt rather than dead.
                match (&config, &asked) {
                    (Err(why), status::Asked::Not { .. }) if !which.exists() => Err(why.clone()),
                    _ => Ok(health::health(&target.name, &options, asked)),
                }
            }
            Command::Pause(options) => steer::pause(&target(), options),
            Command::Resume => steer::resume(&target()),
            Command::Drain(options) => steer::drain(&target(), &options),
            Command::Cancel(options) => cancel::cancel(&target(), options),
            Command::LogLevel { level } => steer::log_level(&target(), level),
            Command::Check(options) => check::check(read()?, &options),
            Command::Doctor(options) => match &config {
                Ok(config) => doctor::doctor(config, &options),
                Err(why) => doctor::without_configuration(why, &which.target(None), &options),
            },
            Command::Template(command) => template::run(read()?, command),
            Command::Failed(options) => {
                let target = target();
                failed::failed(&Paths::find(read(), &target)?, &target, &options)
            }
            Command::Requeue(options) => requeue::requeue(&target(), &options),
            Command::Find(options) => find::find(&Paths::find(read(), &target())?, &options),
            Command::Queue(command) => queue::run(&Paths::find(read(), &target())?, &command),
            Command::Push(message) => request::push(&target(), &message),
            Command::Send(message) => request::send(&target(), &message),
            Command::Tset { key } => request::tset(&target(), &key),
        }
    }

    fn which(&self) -> Result<Which, String> {
        match (&self.config, &self.name) {
            (Some(file), _) => Which::of_file(file, self.root.as_deref()),
            (None, Some(name)) => Which::named(name, self.root.as_deref()),
            (None, None) => {
                let example = "mega wechat start, or mega -c FILE start";
                Err(format!("which configuration? Give its name or a file: {example}"))
            }
        }
    }
}
