//! Becoming a daemon: forks, the pipe that tells the parent "ready" or why not, the pidfile, the
//! user to run as. Called before any thread exists; does nothing later but release the pidfile.

mod pidfile;
mod privileges;

pub use pidfile::{PidFile, Probe, probe};
pub use privileges::{Owner, make_folder, raise_open_files_limit};

use daemonize::{Daemonize, Outcome};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// What the parent exits with when the daemon could not start.
const FAILED: u8 = 1;

/// How the daemon tells whoever started it that it is ready, or why it is not: once.
pub struct Notifier {
    /// None in the foreground.
    parent: Option<File>,
    said: bool,
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
        match &mut self.parent {
            Some(parent) => {
                // A parent that was killed needs no news.
                let _ = parent.write_all(&[&[verdict], text.as_bytes()].concat());
            }
            None => {
                tell(verdict, text);
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
fn tell(verdict: u8, text: &str) -> u8 {
    if verdict == READY {
        crate::say!("{text}");
        return 0;
    }
    eprintln!("mega: {text}");
    FAILED
}

/// Runs `child` in this very process.
pub fn foreground(child: impl FnOnce(Notifier) -> u8) -> u8 {
    child(Notifier { parent: None, said: false })
}

/// Forks twice and runs `child` in the daemon, with stderr going to a file if one is given. The
/// parent returns when the child has said what became of it.
pub fn daemonize(stderr: Option<&Path>, child: impl FnOnce(Notifier) -> u8) -> u8 {
    match prepare(stderr) {
        Ok((daemonize, reader, writer)) => match daemonize.execute() {
            Outcome::Parent(forked) => {
                drop(writer);
                match forked {
                    Ok(_) => listen(reader, stderr),
                    Err(error) => tell(REFUSED, &format!("cannot become a daemon: {error}")),
                }
            }
            Outcome::Child(forked) => {
                drop(reader);
                let notifier = Notifier { parent: Some(writer), said: false };
                match forked {
                    Ok(_) => child(notifier),
                    Err(error) => {
                        notifier.failed(&format!("cannot become a daemon: {error}"));
                        FAILED
                    }
                }
            }
        },
        Err(why) => tell(REFUSED, &why),
    }
}

type Prepared = (Daemonize<()>, File, File);

fn prepare(stderr: Option<&Path>) -> Result<Prepared, String> {
    let pipe = pipe_with(PipeFlags::CLOEXEC);
    let (reader, writer) = pipe.map_err(|error| format!("cannot become a daemon: {error}"))?;
    let mut daemonize = Daemonize::new().umask(0o027).working_directory("/");
    if let Some(path) = stderr {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|error| {
            format!("cannot open {} (setting.log_file): {error}", path.display())
        })?;
        daemonize = daemonize.stderr(file);
    }
    Ok((daemonize, reader.into(), writer.into()))
}

/// The parent's part: waits for the daemon's word, however long recovery takes.
fn listen(mut reader: File, stderr: Option<&Path>) -> u8 {
    let mut said = Vec::new();
    // An error here means what an early end means.
    let _ = reader.read_to_end(&mut said);
    match said.split_first() {
        Some((verdict, text)) => tell(*verdict, &String::from_utf8_lossy(text)),
        None => {
            let see = match stderr {
                Some(path) => format!("{} and the log", path.display()),
                None => "the log".into(),
            };
            tell(REFUSED, &format!("the daemon died while it was starting, see {see}"))
        }
    }
}
