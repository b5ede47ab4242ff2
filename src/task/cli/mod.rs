//! The command line of `mega-task`. Runs tasks, and looks at those that there are.

mod check;
mod launch;
mod retry;
mod run;
mod show;
mod steer;

use super::exit::{self, Refused};
use super::home::{Home, Name};
use super::legacy;
use crate::cli::language::Language;
use clap::{Args, Parser, Subcommand};
use rustix::fs::Mode;
use std::path::PathBuf;

/// Sends one template to a list of people through mega, shows how far it is, and says who was not reached and why.
#[derive(Parser)]
#[command(name = "mega-task", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = exit::help())]
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
    /// Send to a list of people
    Run(Box<run::Run>),
    /// Go on with a task that was paused, or whose process was killed
    Resume(run::Resume),
    /// Make a task of those that failed, NAME-retry-N, and run it
    Retry(retry::Retry),
    /// Pause a running task when what is out is answered
    Pause(Which),
    /// End a task for good; those that are left are not sent to
    End(Which),
    /// Remove a task that is finished, ended or was never begun, with its list and journal; its result file stays
    Remove(Which),
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

/// Runs the process's command line and returns its exit code.
pub fn main() -> u8 {
    // Lists, journals and results are about people.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let line = Line::parse();
    let language = Language::of_environment();
    match line.run(language) {
        Ok(code) => code,
        Err(Refused { code, why }) => {
            crate::say_err!("mega-task: {}", language.pick(why));
            code
        }
    }
}

impl Line {
    fn run(self, language: Language) -> Result<u8, Refused> {
        let home = Home::find(self.home.as_deref())?;
        let task = |which: &Which| home.task(&Name::new(&which.name)?);
        if home.is_open_to_others() {
            let folder = home.folder().display();
            crate::say_err!(
                "mega-task: {}",
                language.pick([
                    format!("others can see in {folder} what tasks there are (chmod 700 {folder})"),
                    format!("他人可以看到 {folder} 中有哪些任务（chmod 700 {folder}）"),
                ])
            );
        }
        match self.command {
            Command::Run(options) => run::run(&home, &options, language),
            Command::Resume(options) => run::resume(&home, &options, language),
            Command::Retry(options) => retry::retry(&home, &options, language),
            Command::Pause(which) => steer::pause(&task(&which)?, language),
            Command::End(which) => steer::end(&task(&which)?, language),
            Command::Remove(which) => steer::remove(&home, &task(&which)?, language),
            Command::List(options) => Ok(show::list(&home, &options, language)?),
            Command::Show(options) => show::show(&home, &options, language),
            Command::Log(which) => Ok(show::log(&task(&which)?)?),
            Command::Legacy(command) => legacy::command(&home, &command, language),
        }
    }
}
