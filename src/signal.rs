//! Signals as events for main: a small thread waits for them. Installed after the last fork.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// TERM, INT or QUIT: drain and end; a second one: at once.
    Terminate,
    /// USR1: templates and the reloadable part of the configuration.
    Reload,
    /// HUP: the log files were moved away.
    ReopenLogs,
}

/// Calls `on` for each signal, on a thread of its own. Rust's runtime ignores SIGPIPE already.
pub fn listen(on: impl Fn(Signal) + Send + 'static) -> std::io::Result<()> {
    // XFSZ is caught so that a limit of file sizes is an error code, as a full disk is.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP, SIGXFSZ])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            on(match signal {
                SIGUSR1 => Signal::Reload,
                SIGHUP => Signal::ReopenLogs,
                SIGXFSZ => continue,
                _ => Signal::Terminate,
            });
        }
    })?;
    Ok(())
}
