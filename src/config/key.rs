//! One row of the table of keys: what a value may be, and how that is said. Pure.

use super::units::{BYTES, TIME, show};
use std::fmt;

pub struct Key {
    pub section: &'static str,
    /// With `[]` at its end where the key may be repeated.
    pub name: &'static str,
    /// As it would stand in the file; NAME is the file's name without `.ini`.
    pub default: &'static str,
    pub allowed: Allowed,
    pub taken_over: TakenOver,
    pub meaning: &'static str,
}

/// When a running daemon goes by a value that was changed in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOver {
    ByReload,
    ByRestart,
}

/// What a value may be. Numbers are inclusive bounds: a count, bytes, or milliseconds.
pub enum Allowed {
    Flag,
    Count(u64, u64),
    Bytes(u64, u64),
    PowerOfTwo(u64, u64),
    Time(u64, u64),
    Sync(u64, u64),
    /// The function lists the names of the enum, so that they are written once.
    Word(fn() -> String),
    Address,
    AddressOrOff,
    Network,
    Path,
    OptionalPath,
    Text,
    /// It becomes part of an SQL table name, where nothing can be escaped by a placeholder.
    Identifier,
    Dsn,
    Hosts,
    OneOf(&'static [&'static str]),
    Proxy,
    PathOrStderr,
    /// Where, or whether at the usual place.
    PathOrFlag,
    /// There is no default; the text says where the operator finds the value.
    Required(&'static str),
    /// The protocol's own value, which the original's file states.
    Only(&'static str),
    /// The original had it; here it means nothing.
    Ignored,
}

impl Key {
    pub fn is_list(&self) -> bool {
        self.name.ends_with("[]")
    }

    /// The default for the configuration called `name`.
    pub fn default_for(&self, name: &str) -> String {
        self.default.replace("NAME", name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

/// Reads on after "must be".
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |n: &u64| show(*n, BYTES);
        let time = |n: &u64| show(*n, TIME);
        use Allowed::*;
        match self {
            Flag => f.write_str("on or off"),
            Count(min, max) => write!(f, "{min} to {max}"),
            Bytes(min, max) => write!(f, "{} to {} bytes", bytes(min), bytes(max)),
            PowerOfTwo(min, max) => {
                write!(f, "a power of two, {} to {} bytes", bytes(min), bytes(max))
            }
            Time(min, max) => write!(f, "{} to {}", time(min), time(max)),
            Sync(min, max) => write!(f, "always, never, or {} to {}", time(min), time(max)),
            Word(names) => f.write_str(&names()),
            Address => f.write_str("ADDRESS:PORT, IPv6 as [::1]:9501"),
            AddressOrOff => f.write_str("ADDRESS:PORT, or off"),
            Network => f.write_str("an address or a network such as 10.0.0.0/8"),
            Path => f.write_str("a path"),
            OptionalPath => f.write_str("a path, or empty"),
            Text => f.write_str("any text"),
            Identifier => f.write_str("at most 40 letters, digits and _"),
            Dsn => f.write_str(
                "\"mysql:host=..;port=..;dbname=..;unix_socket=..;charset=..\" or \"sqlite:PATH\"",
            ),
            Hosts => f.write_str("host names or https URLs; http to loopback only"),
            Required(text) | Only(text) => f.write_str(text),
            OneOf(words) => f.write_str(&words.join(" or ")),
            Proxy => f.write_str("none, or a URL such as http://10.0.0.1:3128"),
            PathOrStderr => f.write_str("a path, or - for stderr"),
            PathOrFlag => f.write_str("a path, on (beside the log), or off"),
            Ignored => f.write_str("anything, it is ignored"),
        }
    }
}
