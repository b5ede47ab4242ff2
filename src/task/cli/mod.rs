//! The command line of `mega-task`. Runs tasks, and looks at those that there are.

mod check;
mod run;
mod show;
mod steer;

use super::exit;
use super::home::{Home, Name};
use super::legacy;
use crate::cli::language::Language;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Sends one template to a list of people through mega, shows how far it is, and says who was not reached and why.
#[derive(Parser)]
#[command(name = "mega-task", version, subcommand_required = true, arg_required_else_help = true)]
struct Line {
    /// Where tasks are kept [default: MEGA_TASK_HOME, else /var/lib/mega-task for root, else
    /// ~/.local/state/mega-task]
    #[arg(long, value_name = "FOLDER", global = true)]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send to a list of people (exit code 0 everybody was sent to, 1 it could not go on, 3 some failed, 4 paused,
    /// 5 ended, 6 list or template refused and nothing sent)
    Run(Box<run::Run>),
    /// Go on with a task that was paused, or whose process was killed
    Resume(run::Resume),
    /// Make a task of those that failed, NAME-retry-N, and run it
    Retry(run::Retry),
    /// Pause a running task when what is out is answered
    Pause(Which),
    /// End a task for good; those that are left are not sent to
    End(Which),
    /// Show all tasks
    List(show::List),
    /// Show one task: how far it is, what failed and why, and why it waits
    Show(show::Show),
    /// Print what happened when
    Log(Which),
    /// Drive a row of mega_task, as the demo's yii task did
    #[command(subcommand)]
    Legacy(legacy::Command),
}

#[derive(Args)]
struct Which {
    name: String,
}

/// Why a command did nothing, with its exit code.
struct Refused {
    code: u8,
    why: String,
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused { code: exit::FAILED, why }
    }
}

/// Runs the process's command line and returns its exit code.
pub fn main() -> u8 {
    let line = Line::parse();
    let language = Language::of_environment();
    match line.run(language) {
        Ok(code) => code,
        Err(Refused { code, why }) => {
            crate::say_err!("mega-task: {why}");
            code
        }
    }
}

impl Line {
    fn run(self, language: Language) -> Result<u8, Refused> {
        let home = Home::find(self.home.as_deref())?;
        let task = |which: &Which| home.task(&Name::new(&which.name)?);
        match self.command {
            Command::Run(options) => run::run(&home, &options, language),
            Command::Resume(options) => run::resume(&home, &options, language),
            Command::Retry(options) => run::retry(&home, &options, language),
            Command::Pause(which) => Ok(steer::pause(&task(&which)?)?),
            Command::End(which) => Ok(steer::end(&task(&which)?)?),
            Command::List(options) => Ok(show::list(&home, &options, language)?),
            Command::Show(options) => Ok(show::show(&home, &options, language)?),
            Command::Log(which) => Ok(show::log(&task(&which)?)?),
            Command::Legacy(command) => Ok(legacy::command(&home, &command)?),
        }
    }
}
