//! cancel: ends queued messages of a wrong campaign, or counts them. The daemon carries the order out whether
//! anybody waits for it or not.

use super::language::Language;
use super::state::Target;
use super::steer::ask;
use super::when;
use crate::exit;
use crate::queue::Which;
use crate::traffic::steer::{Cancel, Cancelling};
use crate::wire::question::Question;
use clap::Args;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// How often it is asked how far the order has come.
const GLANCE: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Options {
    /// Those with this template's key
    #[arg(long)]
    key: Option<String>,
    /// Those to openids that begin so
    #[arg(long, value_name = "PREFIX")]
    openid: Option<String>,
    /// Those accepted since: 2026-11-24, "2026-11-24 10:00", or so long ago: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<u64>,
    /// Those accepted before: the same
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<u64>,
    /// Count those that would be ended, and end none
    #[arg(long)]
    dry_run: bool,
    /// Return as soon as the order is safe; status shows how far it has come
    #[arg(long)]
    no_wait: bool,
}

pub fn cancel(target: &Target, options: Options) -> Result<u8, String> {
    let Options { key, openid, since, until, dry_run, no_wait } = options;
    let language = Language::of_environment();
    let which = Which { key, openid, since, until };
    if which.is_any() {
        return Err(language
            .pick([
                "which messages? Give --key, --openid, --since or --until",
                "取消哪些消息？请给出 --key、--openid、--since 或 --until",
            ])
            .into());
    }
    let order = Cancel { which, dry_run, number: None };
    let mut told: Cancelling = ask(target, Question::Cancel, &order)?;
    if no_wait && !dry_run {
        let name = &target.name;
        crate::say!(
            "{}",
            language.pick([
                format!("they are being cancelled; how far that has come: mega {name} status"),
                format!("正在取消；查看进度：mega {name} status"),
            ])
        );
        return Ok(exit::OK);
    }
    let shows = stderr().is_terminal();
    while !told.done {
        if shows {
            progress(&told, language);
        }
        std::thread::sleep(GLANCE);
        let again = Cancel { number: Some(told.number), ..Cancel::default() };
        told = ask(target, Question::Cancel, &again).map_err(|why| {
            let goes_on = language.pick([
                "; the order stands, a restart included",
                "；该指令仍然有效，重启之后也会继续",
            ]);
            if dry_run { why } else { why + goes_on }
        })?;
    }
    if shows {
        progress(&told, language);
        eprintln!();
    }
    let count = told.count;
    let text = match dry_run {
        true => [format!("{count} would be cancelled"), format!("将取消 {count} 条")],
        false => [
            format!(
                "{count} cancelled (see: failed --class cancelled; requeue --class cancelled takes it back)"
            ),
            format!(
                "已取消 {count} 条（查看：failed --class cancelled；撤回：requeue --class cancelled）"
            ),
        ],
    };
    crate::say!("{}", language.pick(text));
    Ok(exit::OK)
}

fn progress(told: &Cancelling, language: Language) {
    let Cancelling { scanned, total, count, .. } = told;
    let text = language.pick([
        format!("{scanned} of {total} looked at, {count} found"),
        format!("已查看 {scanned} / {total}，找到 {count} 条"),
    ]);
    eprint!("\r{text} ");
    // Of no matter where it cannot be shown.
    let _ = stderr().flush();
}
