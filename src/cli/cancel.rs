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
use std::time::{Duration, Instant};

/// How often it is asked how far the order has come.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a daemon that is being restarted is waited for.
const RESTARTS: Duration = Duration::from_secs(60);

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
    if which.has_empty() {
        return Err(language
            .pick([
                "--key and --openid must not be empty: that would mean all messages",
                "--key 和 --openid 不能为空：那将意味着全部消息",
            ])
            .into());
    }
    let order = Cancel { which, dry_run, number: None };
    let begun: Cancelling = ask(target, Question::Cancel, &order)?;
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
    let ended = follow(target, begun, language)?;
    crate::say!("{}", language.pick(outcome(ended.as_ref(), dry_run)));
    Ok(exit::OK)
}

/// Waits until the order is carried out, over restarts of the daemon too. None: it is, and nobody knows any more of
/// how many.
fn follow(
    target: &Target,
    mut told: Cancelling,
    language: Language,
) -> Result<Option<Cancelling>, String> {
    let shows = stderr().is_terminal();
    let (mut said, mut away) = (String::new(), None);
    while !told.done {
        if shows {
            progress(&told, language);
        }
        std::thread::sleep(GLANCE);
        let again = Cancel { number: Some(told.number), ..Cancel::default() };
        match ask::<Option<Cancelling>>(target, Question::Cancel, &again) {
            Ok(Some(now)) => (told, away) = (now, None),
            Ok(None) if told.dry_run => {
                let text = [
                    "the count was cut off by a restart of the daemon; count again",
                    "统计被守护进程的重启打断，请重新统计",
                ];
                return Err(language.pick(text).into());
            }
            Ok(None) => return Ok(None),
            Err(why) => {
                let since = *away.get_or_insert_with(Instant::now);
                if told.dry_run {
                    return Err(why);
                }
                if since.elapsed() >= RESTARTS {
                    let goes_on = language.pick([
                        "; the order stands, and goes on when the daemon is started",
                        "；该指令仍然有效，守护进程启动后会继续",
                    ]);
                    return Err(why + goes_on);
                }
                told.waits = Some(why);
            }
        }
        if let Some(why) = told.waits.take().filter(|why| *why != said) {
            eprintln!("{}", language.pick([format!("it waits: {why}"), format!("等待中：{why}")]));
            said = why;
        }
    }
    if shows {
        progress(&told, language);
        eprintln!();
    }
    Ok(Some(told))
}

/// What the operator is told at the end.
fn outcome(ended: Option<&Cancelling>, dry_run: bool) -> [String; 2] {
    let count = ended.map_or(0, |ended| ended.count);
    if dry_run {
        return [format!("{count} would be cancelled"), format!("将取消 {count} 条")];
    }
    let see = [
        "(see: failed --class cancelled; requeue --class cancelled takes it back)",
        "（查看：failed --class cancelled；撤回：requeue --class cancelled）",
    ];
    let told = match ended {
        None => [
            "cancelled; the daemon was restarted meanwhile, and how many is not known any more"
                .into(),
            "已取消；期间守护进程重启过，条数不再可知".into(),
        ],
        Some(ended) if ended.at_least => [
            format!("at least {count} cancelled: the daemon was killed meanwhile"),
            format!("至少已取消 {count} 条：期间守护进程被强制终止过"),
        ],
        Some(_) => [format!("{count} cancelled"), format!("已取消 {count} 条")],
    };
    let [english, chinese] = told;
    [format!("{english} {}", see[0]), format!("{chinese}{}", see[1])]
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
