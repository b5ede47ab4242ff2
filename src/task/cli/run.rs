//! run and resume: make a task, or take one up again, and run it here or in the background.

use super::check::{self, Source};
use super::retry::they_have;
use crate::cli::language::Language;
use crate::clock;
use crate::daemon::PidFile;
use crate::task::ask;
use crate::task::control::{Control, Hangup};
use crate::task::event::{End, Event, Progress, Remade, Watch};
use crate::task::exit::{self, Refused};
use crate::task::home::{Draft, Home, Name, Place};
use crate::task::journal::{Journal, Pick, Stage};
use crate::task::legacy;
use crate::task::list::{self, Input};
use crate::task::plan::{self, Encoding, Plan, Verb};
use crate::task::results::{self, Results};
use crate::task::run::{self, Orders, Unknown};
use crate::task::watch::{Bar, Json, Lines, Log};
use crate::task::words;
use chrono::Local;
use clap::Args;
use signal_hook::consts::SIGUSR1;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is waited for a task in the background to begin.
const BEGIN: Duration = Duration::from_secs(10);

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
pub struct Pace {
    /// Messages without an answer at most; twice mega's workers keeps all of them busy [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: Option<u32>,
    /// Connections that share them [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: Option<u32>,
    /// Messages a second at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
}

#[derive(Args)]
pub struct Sight {
    /// Seconds between two lines where there is no terminal
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Tell what happens as JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Run in the background; show and log tell of it
    #[arg(long)]
    detach: bool,
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

/// Signals count from now on: whatever comes before the first message may take its time.
pub fn listens(hangup: Hangup) -> Result<Control, String> {
    let control = Control::default();
    let listens = control.listen(&[SIGUSR1], hangup);
    listens.map_err(|error| format!("cannot listen to signals: {error}"))?;
    Ok(control)
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

/// What is said anew of a task.
pub fn adjust(plan: &mut Plan, to: Option<&str>, pace: &Pace) {
    if let Some(to) = to {
        plan.to = to.into();
    }
    plan.window = pace.window.map_or(plan.window, |window| window as usize);
    plan.connections = pace.connections.map_or(plan.connections, |many| many as usize);
    // More connections than messages would have nothing to do.
    plan.connections = plan.connections.min(plan.window);
    plan.rate = pace.rate.or(plan.rate);
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

/// A draft with its list becomes a task, and runs. `of` is the lock of the task that its people come from: let go when
/// the new one is there, and another retry can see it.
pub fn begin(
    home: &Home,
    draft: Draft,
    plan: &Plan,
    sight: &Sight,
    of: Option<PidFile>,
    control: &Control,
    language: Language,
) -> Result<u8, Refused> {
    drop(Journal::create(&draft.place.journal(), plan)?);
    // A task that could not write its results is none.
    Results::create(&plan.result, plan.encoding)?;
    let (place, lock) = match home.settle(draft) {
        Ok(settled) => settled,
        Err(refused) => {
            // It has no more than its header, and the next task of this name takes it all the same.
            let _ = std::fs::remove_file(&plan.result);
            return Err(refused);
        }
    };
    drop(of);
    if sight.detach && control.wish().is_some() {
        crate::say_err!("{}", words::end(&End::Paused, place.name.as_str(), language));
        return Ok(exit::PAUSED);
    }
    if sight.detach {
        drop(lock);
        return detach(&place, Unknown::Report, language);
    }
    Ok(go(&place, &lock, Unknown::Report, watch(&place, sight, language)?, control, language)?)
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
    if options.sight.detach {
        drop(lock);
        return detach(&place, unknown, language);
    }
    Ok(go(&place, &lock, unknown, watch(&place, &options.sight, language)?, &control, language)?)
}

/// Who shows it: a bar where there is a terminal.
fn watch(place: &Place, sight: &Sight, language: Language) -> Result<Vec<Box<dyn Watch>>, String> {
    let (name, every) = (place.name.as_str(), Duration::from_secs(sight.every));
    Ok(vec![match (sight.json, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(Json::new(name, every)),
        (false, true) => Box::new(Bar::new(name, language)),
        (false, false) => Box::new(Lines::new(name, every, language)),
    }])
}

/// How the run went, for the summary.
#[derive(Default)]
struct Course {
    began: Progress,
    ended: Progress,
    remade: Option<Remade>,
}

/// Runs it in this process, which has it.
fn go(
    place: &Place,
    _lock: &PidFile,
    unknown: Unknown,
    mut watchers: Vec<Box<dyn Watch>>,
    control: &Control,
    language: Language,
) -> Result<u8, String> {
    let journal = Journal::open(&place.journal())?;
    let plan = journal.plan()?;
    let quiet = watchers.is_empty();
    watchers.push(Box::new(Log::open(&place.log(), language)?));
    let mut watched = Watched { watchers, course: Course::default() };
    let began = Instant::now();
    let watch = &mut watched;
    let end = run::run(Orders { place, plan: &plan, journal, control, watch, unknown, language })?;
    let Course { began: before, ended, remade } = watched.course;
    if !quiet {
        let done = ended.done().saturating_sub(before.done());
        let name = place.name.as_str();
        crate::say_err!("{}", words::end(&end, name, language));
        let summary = words::summary(name, &ended, began.elapsed(), done, plan.verb, language);
        crate::say_err!("{summary}");
        if let Some(remade) = &remade {
            crate::say_err!("{}", words::remade(remade, language));
        }
        let result = remade.as_ref().map_or(&plan.result, |remade| &remade.new).display();
        crate::say_err!(
            "{}",
            language.pick([format!("results: {result}"), format!("结果：{result}")])
        );
    }
    Ok(exit::of(&end, &ended))
}

/// The watchers, and what the summary needs.
struct Watched {
    watchers: Vec<Box<dyn Watch>>,
    course: Course,
}

impl Watch for Watched {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Started(progress) => self.course.began = (*progress).clone(),
            Event::Ended(_, progress) => self.course.ended = (*progress).clone(),
            Event::Remade(remade) => self.course.remade = Some((*remade).clone()),
            _ => {}
        }
        self.watchers.hear(event);
    }

    fn tick(&mut self, progress: &Progress) {
        self.watchers.tick(progress);
    }
}

/// Runs it in a process of its own, and returns when that has the task.
fn detach(place: &Place, unknown: Unknown, language: Language) -> Result<u8, Refused> {
    let failed =
        |error: std::io::Error| format!("cannot start the task in the background: {error}");
    let log = crate::file::append(&place.log()).map_err(failed)?;
    let home = place.folder.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("resume").arg(place.name.as_str()).arg("--background").arg("--home").arg(home);
    if unknown == Unknown::Resend {
        command.arg("--resend-unknown");
    }
    let nothing = Stdio::null;
    command.stdin(nothing()).stdout(nothing()).stderr(log);
    let mut child = command.spawn().map_err(failed)?;
    let deadline = Instant::now() + BEGIN;
    while Instant::now() < deadline {
        // Its end is seen first: a short task may be done already.
        if let Some(status) = child.try_wait().map_err(failed)? {
            let code = status.code().unwrap_or(1);
            let log = place.log();
            return match u8::try_from(code) {
                Ok(exit::FAILED) | Err(_) => Err(Refused::new(
                    exit::FAILED,
                    [
                        format!("the task ended at once: {status} (see {})", log.display()),
                        format!("任务立即结束：{status}（见 {}）", log.display()),
                    ],
                )),
                Ok(code) => Ok(code),
            };
        }
        if place
            .runs()
            .is_some_and(|process| process.pid.as_raw_nonzero().get() as u32 == child.id())
        {
            let (name, pid) = (&place.name, child.id());
            let hint = format!("mega-task show {name}, pause {name}");
            crate::say!(
                "{}",
                language.pick([
                    format!("{name} runs in the background: process {pid} ({hint})"),
                    format!("{name} 在后台运行：进程 {pid}（{hint}）"),
                ])
            );
            return Ok(exit::OK);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = place.log();
    Err(Refused::new(
        exit::FAILED,
        [
            format!("the task has not begun after {BEGIN:?} (see {})", log.display()),
            format!("任务在 {BEGIN:?} 后仍未开始（见 {}）", log.display()),
        ],
    ))
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
