//! What `mega-task` says when it ends: the one table, and why a command did not do what it was asked.

use super::event::{End, Progress};

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
/// As clap has it.
pub const WRONG: u8 = 2;
pub const SOME_FAILED: u8 = 3;
pub const PAUSED: u8 = 4;
pub const ENDED: u8 = 5;
pub const REFUSED: u8 = 6;
pub const NOTHING: u8 = 7;

/// Each code and what it means. Only after 1 and 4 does it help to resume.
const TABLE: [(u8, &str); 8] = [
    (OK, "everybody was sent to, or the command did what it was asked"),
    (FAILED, "it could not go on; once begun, it can be resumed"),
    (WRONG, "wrong command line; nothing was done"),
    (SOME_FAILED, "finished, and some failed or are unknown"),
    (PAUSED, "paused; it can be resumed"),
    (ENDED, "ended for good"),
    (
        REFUSED,
        "refused: list, template, name, result file or row; nothing was sent, nothing is left behind",
    ),
    (
        NOTHING,
        "nothing is left to do: it is finished, ended or not running, or nobody is to be retried",
    ),
];

/// The table as `--help` shows it.
pub fn help() -> String {
    let lines = TABLE.iter().map(|(code, meaning)| format!("  {code}  {meaning}\n"));
    format!("Exit codes:\n{}", lines.collect::<String>().trim_end())
}

pub fn of(end: &End, progress: &Progress) -> u8 {
    match end {
        End::Finished if progress.failed + progress.unknown > 0 => SOME_FAILED,
        End::Finished => OK,
        End::Paused => PAUSED,
        End::Ended => ENDED,
        End::Broken(_) => FAILED,
    }
}

/// Why a command did not do it: its exit code, and what people read of it in English and in Chinese.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: u8,
    pub why: [String; 2],
}

impl Refused {
    pub fn new(code: u8, why: [impl Into<String>; 2]) -> Refused {
        Refused { code, why: why.map(Into::into) }
    }

    /// The command line cannot be meant so.
    pub fn wrong(why: [impl Into<String>; 2]) -> Refused {
        Refused::new(WRONG, why)
    }

    /// List, template, name, result file or row.
    pub fn unfit(why: [impl Into<String>; 2]) -> Refused {
        Refused::new(REFUSED, why)
    }

    /// There is nothing left to do.
    pub fn nothing(why: [impl Into<String>; 2]) -> Refused {
        Refused::new(NOTHING, why)
    }
}

/// What the system or a database says is the same in every language.
impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused::new(FAILED, [why.clone(), why])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_once_and_the_help_shows_it() {
        let help = help();
        for (code, (at, meaning)) in (0..).zip(TABLE) {
            assert_eq!(code, at, "{meaning}");
            assert!(help.contains(&format!("  {code}  {meaning}")), "{help}");
        }
    }

    #[test]
    fn an_end_has_the_code_of_what_became_of_people() {
        let all = Progress { total: 2, sent: 2, ..Progress::default() };
        let some = Progress { sent: 1, unknown: 1, ..all.clone() };
        for (end, progress, code) in [
            (End::Finished, &all, 0),
            (End::Finished, &some, 3),
            (End::Paused, &some, 4),
            (End::Ended, &some, 5),
            (End::Broken("disk".into()), &all, 1),
        ] {
            assert_eq!(of(&end, progress), code, "{end:?}");
        }
        assert_eq!(Refused::from("disk".to_owned()).code, 1);
    }
}
