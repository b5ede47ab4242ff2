//! run and resume: make a task, or take one up again, and run it here or in the background.

use super::check::{self, Source};
use super::launch::{Pace, Sight, adjust, begin, go, launch, listens};
use super::retry::they_have;
use crate::cli::language::Language;
use crate::clock;
use crate::task::ask;
use crate::task::control::{Control, Hangup};
use crate::task::exit::{self, Refused};
use crate::task::home::{Draft, Home, Name};
use crate::task::journal::{Journal, Pick, Stage};
use crate::task::legacy;
use crate::task::list::{self, Input};
use crate::task::plan::{self, Encoding, Plan, Verb};
use crate::task::results;
use crate::task::run::Unknown;
use chrono::Local;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Run {
    /// Where mega listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9501")]
    to: String,
    /// The template's key
    #[arg(long)]
    key: String,
    /// The people: openids a line, CSV with a header, or xlsx; - is standard input
    #[arg(long, value_name = "LIST")]
    file: PathBuf,
    /// Which column is the openid [default: openid, touser or open_id]
    #[arg(long, value_name = "NAME")]
    openid_column: Option<String>,
    /// Variables of everybody, a JSON object; a person's own win
    #[arg(long, value_name = "JSON", default_value = "{}")]
    data: String,
    /// The task's name [default: the list's and the time]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    pace: Pace,
    /// Queue the messages: an answer says that mega has it, not that WeChat has
    #[arg(long)]
    push: bool,
    /// Begin then: 2026-11-25T09:00+08:00, or local "2026-11-25 09:00"
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Where the results go [default: NAME.result.csv here]
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Write the results in GBK instead of UTF-8
    #[arg(long)]
    gbk: bool,
    /// The template's text, where mega cannot be asked for it
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Send although the list lacks variables of the template
    #[arg(long)]
    allow_missing: bool,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sight: Sight,
}

#[derive(Args)]
pub struct Resume {
    name: String,
    /// Where mega listens now
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    #[command(flatten)]
    pace: Pace,
    /// Send again to those of whom nobody knows whether WeChat has the message
    #[arg(long)]
    resend_unknown: bool,
    /// Where the results go now, all of them
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    #[command(flatten)]
    sight: Sight,
    /// How --detach starts it: without a terminal
    #[arg(long, hide = true)]
    background: bool,
}

pub fn run(home: &Home, options: &Run, language: Language) -> Result<u8, Refused> {
    // Where nothing is to go out, a signal ends it as any other command.
    let control = if options.dry_run { Control::default() } else { listens(Hangup::Pauses)? };
    let name = name_of(options)?;
    let plan = plan_of(options, &name)?;
    results::is_free(&plan.result)?;
    let source = Source { file: options.template.as_deref(), lenient: options.allow_missing };
    let text = check::template(&source, &plan.to, &plan.key)?;
    let draft = home.draft(&name)?;
    let survey = import(options, text.as_deref(), &draft)?;
    check::tell(&survey, language);
    check::fit(&survey, text.as_deref(), &plan.data, &source)?;
    let plan = Plan { total: survey.people, ..plan };
    if options.dry_run {
        check::dry_run(&plan, &draft.place.folder, text.as_deref(), language)?;
        return Ok(exit::OK);
    }
    begin(home, draft, &plan, &options.sight, None, &control, language)
}

fn name_of(options: &Run) -> Result<Name, Refused> {
    if let Some(name) = &options.name {
        return Name::new(name);
    }
    let stem = options.file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.filter(|stem| *stem != "-").unwrap_or("task");
    Name::new(&format!("{stem}-{}", Local::now().format("%Y%m%d-%H%M%S")))
}

fn plan_of(options: &Run, name: &Name) -> Result<Plan, Refused> {
    let Run { to, key, data, pace, result, gbk, .. } = options;
    if key.is_empty() || key.contains(|c: char| c == ' ' || c.is_control()) {
        return Err(Refused::wrong([
            format!("--key {key:?} is no template's key: it holds no spaces"),
            format!("--key {key:?} 不是模板键：不能含空格"),
        ]));
    }
    ask::check_address(to)?;
    let result = result.clone().unwrap_or_else(|| format!("{name}.result.csv").into());
    let result = absolute(&result)?;
    let mut plan = Plan {
        to: to.clone(),
        key: key.clone(),
        data: plan::common_data(data)?,
        verb: if options.push { Verb::Push } else { Verb::Send },
        window: plan::WINDOW,
        connections: plan::CONNECTIONS,
        rate: None,
        at: options.at.as_deref().map(appointment).transpose()?,
        result,
        encoding: if *gbk { Encoding::Gbk } else { Encoding::Utf8 },
        source: options.file.display().to_string(),
        total: 0,
        id: plan::own_part()?,
        created: clock::now_ms(),
        of: None,
    };
    adjust(&mut plan, None, pace);
    Ok(plan)
}

fn absolute(result: &Path) -> Result<PathBuf, Refused> {
    let unfit = |error| format!("--result {}: {error}", result.display());
    let absolute = std::path::absolute(result).map_err(unfit);
    absolute.map_err(|why| Refused::wrong([why.clone(), why]))
}

/// A time to come, in Unix ms.
fn appointment(text: &str) -> Result<u64, Refused> {
    let unfit = |why: [&str; 2]| {
        let [english, chinese] = why;
        Refused::wrong([
            format!(
                "--at {text:?} {english}; give a time to come: 2026-11-25T09:00+08:00, or local \"2026-11-25 09:00\""
            ),
            format!(
                "--at {text:?} {chinese}；请给出将来的时间：2026-11-25T09:00+08:00，或本地时间 \"2026-11-25 09:00\""
            ),
        ])
    };
    match crate::cli::when::parse(text) {
        Ok(at) if at > clock::now_ms() => Ok(at),
        // Elsewhere that means so long ago.
        Ok(_) if crate::cli::when::seconds(text).is_some() => {
            Err(unfit(["is a span and no time", "是时长而不是时刻"]))
        }
        Ok(_) => Err(unfit(["is over", "已经过去"])),
        Err(_) => Err(unfit(["is no time", "不是时间"])),
    }
}

fn import(options: &Run, text: Option<&str>, draft: &Draft) -> Result<list::Survey, Refused> {
    let input = match options.file.to_str() {
        Some("-") => Input::Stdin,
        _ => Input::File(&options.file),
    };
    let openid_column = options.openid_column.clone();
    let reading = list::Options { openid_column, wanted: check::wanted(text) };
    list::import(input, &reading, &draft.place.folder)
        .map_err(|error| Refused::unfit(error.texts().clone()))
}

pub fn resume(home: &Home, options: &Resume, language: Language) -> Result<u8, Refused> {
    let control = listens(if options.background { Hangup::Ignored } else { Hangup::Pauses })?;
    let place = home.task(&Name::new(&options.name)?)?;
    legacy::not_a_rows(&place)?;
    let lock = place.lock()?;
    let journal = Journal::open(&place.journal())?;
    let (state, mut plan) = (journal.state()?, journal.plan()?);
    let unknown = if options.resend_unknown { Unknown::Resend } else { Unknown::Report };
    let some = unknown == Unknown::Resend && state.progress.unknown > 0;
    let name = &place.name;
    match state.stage {
        Stage::Ended => {
            return Err(Refused::nothing([
                format!("the task {name} was ended for good"),
                format!("任务 {name} 已被结束"),
            ]));
        }
        Stage::Finished if !some => {
            return Err(Refused::nothing([
                format!("the task {name} is finished: nobody is left"),
                format!("任务 {name} 已完成：没有剩余的人"),
            ]));
        }
        _ => {}
    }
    if some {
        let has = journal.who_has(&Pick { codes: Some(&[]), unknown: true })?;
        if !has.is_empty() {
            return Err(they_have(home, name, &has));
        }
    }
    if let Some(to) = &options.to {
        ask::check_address(to)?;
    }
    if let Some(result) = &options.result {
        // It is not there, and so is made with the lines of all who are answered.
        let result = absolute(result)?;
        if result != plan.result && result.symlink_metadata().is_ok() {
            return Err(results::taken(&result));
        }
        plan.result = result;
    }
    adjust(&mut plan, options.to.as_deref(), &options.pace);
    journal.set_plan(&plan)?;
    drop(journal);
    if options.background {
        // The shell that started it is no concern of its; where it leads a session already, neither.
        let _ = rustix::process::setsid();
        return Ok(go(&place, &lock, unknown, Vec::new(), &control, language)?);
    }
    launch(&place, lock, unknown, &options.sight, &control, language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appointment_is_a_time_to_come() {
        let soon = clock::now_ms() / 1_000 * 1_000 + 86_400_000;
        let local = clock::local(soon);
        for format in ["%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%d %H:%M:%S"] {
            let text = local.format(format).to_string();
            assert_eq!(appointment(&text), Ok(soon), "{text}");
        }
        let minute = local.format("%Y-%m-%dT%H:%M%:z").to_string();
        assert_eq!(appointment(&minute), Ok(soon / 60_000 * 60_000));
        for (text, why) in [
            ("2h", "is a span and no time"),
            ("2026-01-24", "is over"),
            ("2026-01-24T09:00+08:00", "is over"),
            ("tomorrow", "is no time"),
        ] {
            let refused = appointment(text).unwrap_err();
            assert_eq!(refused.code, exit::WRONG);
            assert!(refused.why[0].starts_with(&format!("--at {text:?} {why}; ")), "{refused:?}");
            assert!(!refused.why[0].contains("ago"), "{refused:?}");
        }
    }
}
