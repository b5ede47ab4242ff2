//! Becoming a daemon: forks, the pipe that tells the parent "ready" or why not, the user to run as,
//! the pidfile, the administration socket. Called before any thread exists.
//!
//! Root does as little as possible: it binds the ports, puts right whose mega's own files are where
//! only root can write, and becomes the user. Everything else is opened after that, so that whatever
//! the user plants in its folders reaches what the user could reach anyway.

pub mod admin;
mod domains;
mod facts;
mod groups;
mod listeners;
mod own;
mod pidfile;
mod place;
pub mod presence;
mod privileges;
mod process;
pub mod survey;
mod way;

pub use domains::is_the_queues;
pub use facts::path as facts_path;
pub use listeners::{InUse, Listeners, bound};
pub use own::change_hands;
pub use pidfile::{Locked, PidFile, Probe, probe};
pub use place::Place;
pub use presence::Presence;
pub use privileges::{Owner, group_id, raise_open_files_limit};
pub use process::Process;

use crate::config::Config;
use crate::exit;
use crate::file;
use daemonize::{Daemonize, Outcome};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// There is a second socket, for those who may only look.
pub fn has_monitors(config: &Config) -> bool {
    groups::monitors(config).is_some()
}

/// Becomes whom the daemon is to run as, with everything it will write to in that user's hands.
pub fn settle(config: &Config, owner: &Owner) -> Result<(), String> {
    if rustix::process::geteuid().is_root() && !owner.ids().0.is_root() {
        own::hand_over(config, owner)?;
    }
    owner.become_it()?;
    own::check(config, owner)
}

/// For a command of root that looks at what the service user can replace: does so as that user.
pub fn step_down(config: &Config) -> Result<(), String> {
    match rustix::process::geteuid().is_root() {
        true => Owner::of(config)?.become_it(),
        false => Ok(()),
    }
}

/// The same for a command that creates files of mega's own.
pub fn step_down_to_write(config: &Config) -> Result<(), String> {
    match rustix::process::geteuid().is_root() && config.setting.user.is_some() {
        true => settle(config, &Owner::of(config)?),
        false => Ok(()),
    }
}

/// Closes what the caller had open: a daemon keeps nobody's lock, pipe or file. To be called before
/// this process opens anything itself.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<RawFd> = numbers.filter(|number| *number > 2).collect();
    // The folder's own descriptor was among them, and is closed by now.
    let open = |number: &RawFd| Path::new(&format!("/proc/self/fd/{number}")).is_symlink();
    for number in numbers.into_iter().filter(open) {
        // SAFETY: the descriptor is open, and as this process has opened nothing yet, nobody else
        // here owns it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// From now on stderr is this file.
pub fn redirect_stderr(path: &Path) -> Result<(), String> {
    let redirected = file::append(path)
        .and_then(|file| rustix::stdio::dup2_stderr(file).map_err(std::io::Error::from));
    redirected
        .map_err(|error| format!("cannot open {} (setting.log_file): {error}", path.display()))
}

/// How the daemon tells whoever started it that it is ready, or why it is not: once.
pub struct Notifier {
    tells: Tells,
    said: bool,
}

/// Whom it tells.
enum Tells {
    /// Who started it, and goes on in the foreground no longer.
    Parent(File),
    /// The terminal; and what is added where it does not start.
    Terminal(Option<String>),
}

const READY: u8 = b'+';
const REFUSED: u8 = b'-';

impl Notifier {
    pub fn ready(mut self, line: &str) {
        self.say(READY, line);
    }

    pub fn failed(mut self, why: &str) {
        self.say(REFUSED, why);
    }

    fn say(&mut self, verdict: u8, text: &str) {
        self.said = true;
        match &mut self.tells {
            Tells::Parent(parent) => {
                // A parent that was killed needs no news.
                let _ = parent.write_all(&[&[verdict], text.as_bytes()].concat());
            }
            Tells::Terminal(regret) => {
                tell(verdict, text, regret.as_deref());
            }
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if !self.said {
            self.say(REFUSED, "the daemon gave up while it was starting");
        }
    }
}

/// Tells the human, and returns the exit code.
fn tell(verdict: u8, text: &str, regret: Option<&str>) -> u8 {
    if verdict == READY {
        crate::say!("{text}");
        return exit::OK;
    }
    eprintln!("mega: {text}");
    regret.into_iter().for_each(|regret| eprintln!("{regret}"));
    exit::FAILED
}

/// Runs `child` in this very process; `regret` is added to why it does not start.
pub fn foreground(regret: Option<String>, child: impl FnOnce(Notifier) -> u8) -> u8 {
    child(Notifier { tells: Tells::Terminal(regret), said: false })
}

/// Forks twice and runs `child` in the daemon; `stderr` is the file where more may be found. The
/// parent returns when the child has said what became of it; `died` is called if it could not, and
/// `regret` added where it did not start.
pub fn daemonize(
    stderr: Option<&Path>,
    regret: Option<String>,
    child: impl FnOnce(Notifier) -> u8,
    died: impl FnOnce(),
) -> u8 {
    match prepare() {
        Ok((daemonize, reader, writer)) => match daemonize.execute() {
            Outcome::Parent(forked) => {
                drop(writer);
                match forked {
                    Ok(_) => listen(reader, stderr, regret.as_deref(), died),
                    Err(error) => {
                        let why = format!("cannot become a daemon: {error}");
                        tell(REFUSED, &why, regret.as_deref())
                    }
                }
            }
            Outcome::Child(forked) => {
                drop(reader);
                let notifier = Notifier { tells: Tells::Parent(writer), said: false };
                match forked {
                    Ok(_) => child(notifier),
                    Err(error) => {
                        notifier.failed(&format!("cannot become a daemon: {error}"));
                        exit::FAILED
                    }
                }
            }
        },
        Err(why) => tell(REFUSED, &why, regret.as_deref()),
    }
}

type Prepared = (Daemonize<()>, File, File);

fn prepare() -> Result<Prepared, String> {
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    let (reader, writer) = pipe.map_err(|error| format!("cannot become a daemon: {error}"))?;
    let daemonize = Daemonize::new().umask(0o027).working_directory("/");
    Ok((daemonize, reader.into(), writer.into()))
}

/// The parent's part: waits for the daemon's word, however long recovery takes.
fn listen(
    mut reader: File,
    stderr: Option<&Path>,
    regret: Option<&str>,
    died: impl FnOnce(),
) -> u8 {
    let mut said = Vec::new();
    // An error here means what an early end means.
    let _ = reader.read_to_end(&mut said);
    match said.split_first() {
        Some((verdict, text)) => tell(*verdict, &String::from_utf8_lossy(text), regret),
        None => {
            let written = |path: &&Path| path.metadata().is_ok_and(|file| file.len() > 0);
            let see = match stderr.filter(written) {
                Some(path) => format!("{} and the log", path.display()),
                None => "the log".into(),
            };
            let why = format!("the daemon died while it was starting, see {see}");
            let code = tell(REFUSED, &why, regret);
            died();
            code
        }
    }
}
