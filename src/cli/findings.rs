//! How findings are shown to people: a line each, in their language.

use super::language::Language;
use crate::trial::{Finding, Level};

/// How many findings there are of each kind.
pub struct Tally {
    pub wrong: usize,
    pub warnings: usize,
}

impl Tally {
    pub fn of(findings: &[Finding]) -> Tally {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Tally { wrong: count(Level::Wrong), warnings: count(Level::Warning) }
    }

    pub fn words(&self) -> String {
        let language = Language::of_environment();
        let english = |count| match count {
            1 => "1 warning".to_owned(),
            count => format!("{count} warnings"),
        };
        let texts = match (self.wrong, self.warnings) {
            (0, 0) => ["no problem found".to_owned(), "没有发现问题".to_owned()],
            (0, warnings) => [english(warnings), format!("{warnings} 个警告")],
            (wrong, warnings) => [
                format!("{wrong} wrong, {}", english(warnings)),
                format!("{wrong} 个错误，{warnings} 个警告"),
            ],
        };
        language.pick(texts)
    }
}

/// What a level is called.
pub fn level(level: Level) -> &'static str {
    Language::of_environment().pick(match level {
        Level::Ok => ["ok", "正常"],
        Level::Warning => ["warning", "警告"],
        Level::Wrong => ["wrong", "错误"],
    })
}

/// `warning: server.listen[]: what; what to do`.
pub fn line(finding: &Finding) -> String {
    let language = Language::of_environment();
    let colon = language.pick([": ", "："]);
    format!("{}{colon}{}", level(finding.level), finding.line(|texts| language.pick(texts)))
}
