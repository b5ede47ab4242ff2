//! Where the log goes, and what each place has not taken. A place that takes nothing costs a count a line,
//! holds up nobody, and is told how many lines are missing as soon as it takes one again.

use super::Options;
use super::entry::{Entry, Look};
use super::stderr::Stderr;
use super::syslog::{SOCKET, Syslog};
use crate::config::{LogFile, LogFormat};
use crate::day_file::DayFile;
use chrono::{DateTime, Local};
use std::io;

#[derive(Default)]
pub struct Outputs {
    channel: String,
    places: Vec<Place>,
}

struct Place {
    to: To,
    look: Look,
    /// Lines that are missing there, and why the last one is.
    missing: u64,
    why: String,
    /// All that ever were.
    lost: u64,
}

enum To {
    Days(DayFile),
    Stderr(Stderr),
    System(Syslog),
}

impl Outputs {
    pub fn open(options: Options) -> io::Result<Outputs> {
        let mut places = Vec::new();
        let mut add = |to, look| {
            places.push(Place { to, look, missing: 0, why: String::new(), lost: 0 });
        };
        let to_stderr = options.stderr || options.log_file == LogFile::Stderr;
        if let Some(path) = options.log_file.path() {
            let today = Local::now().date_naive();
            let file = DayFile::open(path.to_owned(), options.max_files, today)?;
            add(To::Days(file), Look::As(options.format));
        }
        if to_stderr {
            let stderr = Stderr::find();
            let look = match options.format {
                LogFormat::Json => Look::As(LogFormat::Json),
                _ if stderr.is_the_journal() => Look::Untimed,
                format => Look::As(format),
            };
            add(To::Stderr(stderr), look);
        }
        if let Some(name) = &options.syslog {
            add(To::System(Syslog::new(SOCKET.into(), name)), Look::Bare);
        }
        Ok(Outputs { channel: options.prefix, places })
    }

    pub fn write(&mut self, entry: &Entry) {
        for place in &mut self.places {
            place.write(entry, &self.channel);
        }
    }

    pub fn trouble(&mut self) -> Option<String> {
        let channel = &self.channel;
        let troubles = self.places.iter_mut().filter_map(|place| {
            // One that is said to be in trouble is asked whether it still is.
            place.catch_up(channel, Local::now()).err()?;
            let Place { to, missing, why, .. } = place;
            Some(format!("{missing} lines could not be written to {}: {why}", to.shown()))
        });
        let troubles: Vec<String> = troubles.collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        self.places.iter().map(|place| (place.to.name(), place.lost)).collect()
    }
}

impl Place {
    fn write(&mut self, entry: &Entry, channel: &str) {
        let caught_up = self.catch_up(channel, entry.time);
        if let Err(error) = caught_up.and_then(|()| self.put(entry, channel)) {
            self.missing += 1;
            self.lost += 1;
            self.why = error.to_string();
        }
    }

    /// Says how many lines are missing, if any are.
    fn catch_up(&mut self, channel: &str, time: DateTime<Local>) -> io::Result<()> {
        if self.missing > 0 {
            self.put(&Entry::missing(self.missing, time), channel)?;
            self.missing = 0;
        }
        Ok(())
    }

    fn put(&mut self, entry: &Entry, channel: &str) -> io::Result<()> {
        let mut line = entry.line(self.look, channel);
        match &mut self.to {
            To::Days(file) => {
                line.push('\n');
                file.try_write(entry.time.date_naive(), line.as_bytes())
            }
            To::Stderr(stderr) => stderr.write(entry.severity(), &line),
            To::System(system) => system.write(entry, &line),
        }
    }
}

impl To {
    /// As `/metrics` calls it.
    fn name(&self) -> &'static str {
        match self {
            To::Days(_) => "file",
            To::Stderr(_) => "stderr",
            To::System(_) => "syslog",
        }
    }

    fn shown(&self) -> String {
        match self {
            To::Days(file) => file.current().display().to_string(),
            To::Stderr(_) => "stderr".to_owned(),
            To::System(_) => SOCKET.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn what_a_place_does_not_take_is_counted_and_said_to_it_when_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("log");
        let to = To::System(Syslog::new(socket.clone(), "mega"));
        let place = Place { to, look: Look::Bare, missing: 0, why: String::new(), lost: 0 };
        let mut outputs = Outputs { channel: "mega".into(), places: vec![place] };
        (0..3).for_each(|_| outputs.write(&entry("nobody hears this")));
        let trouble = outputs.trouble().unwrap();
        assert!(trouble.starts_with("3 lines could not be written to /dev/log: "), "{trouble}");
        let system = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        assert_eq!((outputs.trouble(), outputs.lost()), (None, vec![("syslog", 3)]));
        outputs.write(&entry("hello"));
        let heard = || {
            let mut bytes = [0; 1024];
            let count = system.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        assert!(heard().ends_with(": WARNING 3 lines before this one could not be written"));
        assert!(heard().ends_with(": WARNING hello"));
    }
}
