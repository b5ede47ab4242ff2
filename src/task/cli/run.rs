//! run, resume and retry: make a task, or take one up again, and run it here or in the background.

use super::Refused;
use super::check::{self, Source};
use crate::cli::language::Language;
use crate::clock;
use crate::daemon::PidFile;
use crate::task::control::{Control, Hangup};
use crate::task::event::{End, Event, Progress, Status, Watch};
use crate::task::home::{Draft, Home, Name, Place};
use crate::task::journal::{Journal, Stage};
use crate::task::legacy;
use crate::task::list::{self, Input, Keeper, Kept};
use crate::task::plan::{self, Encoding, Plan, Verb};
use crate::task::run::{self, Orders, Unknown};
use crate::task::watch::{Bar, Json, Lines, Log};
use crate::task::{exit, words};
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
struct Pace {
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
struct Sight {
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
    #[command(flatten)]
    sight: Sight,
    /// How --detach starts it: without a terminal
    #[arg(long, hide = true)]
    background: bool,
}

#[derive(Args)]
pub struct Retry {
    name: String,
    /// Only those that failed with one of these codes
    #[arg(long, value_name = "CODE,...", value_delimiter = ',', allow_hyphen_values = true)]
    errcode: Vec<i64>,
    /// Those of whom nobody knows whether WeChat has the message, too
    #[arg(long)]
    resend_unknown: bool,
    /// Where mega listens now
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    sight: Sight,
}

/// Signals count from now on: whatever comes before the first message may take its time.
fn listens(hangup: Hangup) -> Result<Control, String> {
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
    let source = Source { file: options.template.as_deref(), lenient: options.allow_missing };
    let text = check::template(&source, &plan.to, &plan.key)?;
    let draft = home.draft(&name)?;
    let survey = import(options, text.as_deref(), &draft, language)?;
    check::tell(&survey, language);
    check::fit(&survey, text.as_deref(), &plan.data, &source)?;
    let plan = Plan { total: survey.people, ..plan };
    if options.dry_run {
        check::dry_run(&plan, &draft.place.folder, text.as_deref(), language)?;
        return Ok(exit::OK);
    }
    begin(home, draft, &plan, &options.sight, &control, language)
}

fn name_of(options: &Run) -> Result<Name, String> {
    if let Some(name) = &options.name {
        return Name::new(name);
    }
    let stem = options.file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.filter(|stem| *stem != "-").unwrap_or("task");
    Name::new(&format!("{stem}-{}", Local::now().format("%Y%m%d-%H%M%S")))
}

fn plan_of(options: &Run, name: &Name) -> Result<Plan, String> {
    let Run { to, key, data, pace, result, gbk, .. } = options;
    if key.is_empty() || key.contains(|c: char| c == ' ' || c.is_control()) {
        return Err(format!("{key:?} is no template's key: it holds no spaces"));
    }
    let result = result.clone().unwrap_or_else(|| format!("{name}.result.csv").into());
    let result = std::path::absolute(&result)
        .map_err(|error| format!("--result {}: {error}", result.display()))?;
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
    };
    adjust(&mut plan, None, pace);
    Ok(plan)
}

fn time(text: &str) -> Result<u64, String> {
    crate::cli::when::parse(text).map_err(|why| format!("--at: {why}"))
}

/// Unix ms. What is over is no appointment: a span like 2h is one of the past.
fn appointment(text: &str) -> Result<u64, String> {
    let at = time(text)?;
    match at > clock::now_ms() {
        true => Ok(at),
        false => Err(format!(
            "--at: {text} is over; give a time to come: 2026-11-25T09:00+08:00 or \"2026-11-25 09:00\""
        )),
    }
}

/// What is said anew of a task.
fn adjust(plan: &mut Plan, to: Option<&str>, pace: &Pace) {
    if let Some(to) = to {
        plan.to = to.into();
    }
    plan.window = pace.window.map_or(plan.window, |window| window as usize);
    plan.connections = pace.connections.map_or(plan.connections, |many| many as usize);
    // More connections than messages would have nothing to do.
    plan.connections = plan.connections.min(plan.window);
    plan.rate = pace.rate.or(plan.rate);
}

fn import(
    options: &Run,
    text: Option<&str>,
    draft: &Draft,
    language: Language,
) -> Result<list::Survey, Refused> {
    let input = match options.file.to_str() {
        Some("-") => Input::Stdin,
        _ => Input::File(&options.file),
    };
    let openid_column = options.openid_column.clone();
    let reading = list::Options { openid_column, wanted: check::wanted(text) };
    list::import(input, &reading, &draft.place.folder)
        .map_err(|error| Refused { code: exit::REFUSED, why: language.pick(error.texts().clone()) })
}

/// A draft with its list becomes a task, and runs.
fn begin(
    home: &Home,
    draft: Draft,
    plan: &Plan,
    sight: &Sight,
    control: &Control,
    language: Language,
) -> Result<u8, Refused> {
    drop(Journal::create(&draft.place.journal(), plan)?);
    let (place, lock) = home.settle(draft)?;
    if sight.detach && control.wish().is_some() {
        crate::say_err!("{}", words::end(&End::Paused, place.name.as_str(), language));
        return Ok(exit::PAUSED);
    }
    if sight.detach {
        drop(lock);
        return Ok(detach(&place, Unknown::Report)?);
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
    match state.stage {
        Stage::Ended => return Err(format!("the task {} was ended for good", place.name).into()),
        Stage::Finished if !some => {
            return Err(format!("the task {} is finished: nobody is left", place.name).into());
        }
        _ => {}
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
        return Ok(detach(&place, unknown)?);
    }
    Ok(go(&place, &lock, unknown, watch(&place, &options.sight, language)?, &control, language)?)
}

pub fn retry(home: &Home, options: &Retry, language: Language) -> Result<u8, Refused> {
    let control = listens(Hangup::Pauses)?;
    let old = home.task(&Name::new(&options.name)?)?;
    let _lock = old.lock()?;
    let journal = Journal::open(&old.journal())?;
    let mut plan = journal.plan()?;
    let name = (1..)
        .map(|n| Name::new(&format!("{}-retry-{n}", old.name)))
        .find(|name| name.as_ref().map_or(true, |name| home.task(name).is_err()))
        .expect("invariant: some number is free")?;
    let draft = home.draft(&name)?;
    plan.total = failed_people(&old, &journal, options, &draft)?;
    if plan.total == 0 {
        return Err(format!(
            "nobody of the task {} failed so: there is nobody to send to",
            old.name
        )
        .into());
    }
    plan.id = plan::own_part()?;
    (plan.created, plan.at) = (clock::now_ms(), None);
    plan.result.set_file_name(format!("{name}.result.csv"));
    adjust(&mut plan, options.to.as_deref(), &options.pace);
    begin(home, draft, &plan, &options.sight, &control, language)
}

/// Puts those that failed into the list of the draft.
fn failed_people(
    old: &Place,
    journal: &Journal,
    options: &Retry,
    draft: &Draft,
) -> Result<u64, String> {
    let written = |error| format!("cannot write to {}: {error}", draft.place.folder.display());
    let unread = |error| format!("cannot read the list in {}: {error}", old.folder.display());
    let mut keeper = Keeper::create(&draft.place.folder).map_err(written)?;
    let mut list = Kept::open(&old.folder, 0).map_err(unread)?;
    let mut total = 0;
    journal.failures(|failure| {
        let of_code = || failure.errcode.is_some_and(|code| options.errcode.contains(&code));
        let wanted = match failure.status {
            Status::Failed => options.errcode.is_empty() || of_code(),
            Status::Unknown => options.resend_unknown,
            Status::Sent => false,
        };
        if wanted {
            let person = list.at(failure.offset).map_err(unread)?;
            keeper.keep(&person).map_err(written)?;
            total += 1;
        }
        Ok(())
    })?;
    keeper.finish().map_err(written)?;
    Ok(total)
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
    watchers.push(Box::new(Log::open(&place.log())?));
    let mut watched = Watched { watchers, course: Course::default() };
    let began = Instant::now();
    let watch = &mut watched;
    let end = run::run(Orders { place, plan: &plan, journal, control, watch, unknown, language })?;
    let Course { began: before, ended } = watched.course;
    if !quiet {
        let done = ended.done().saturating_sub(before.done());
        let name = place.name.as_str();
        crate::say_err!("{}", words::end(&end, name, language));
        crate::say_err!("{}", words::summary(name, &ended, began.elapsed(), done, language));
        let result = plan.result.display();
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
            _ => {}
        }
        self.watchers.hear(event);
    }

    fn tick(&mut self, progress: &Progress) {
        self.watchers.tick(progress);
    }
}

/// Runs it in a process of its own, and returns when that has the task.
fn detach(place: &Place, unknown: Unknown) -> Result<u8, String> {
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
                Ok(exit::FAILED) | Err(_) => {
                    Err(format!("the task ended at once: {status} (see {})", log.display()))
                }
                Ok(code) => Ok(code),
            };
        }
        if place
            .runs()
            .is_some_and(|process| process.pid.as_raw_nonzero().get() as u32 == child.id())
        {
            let (name, pid) = (&place.name, child.id());
            crate::say!(
                "{name} runs in the background: process {pid} (mega-task show {name}, pause {name})"
            );
            return Ok(exit::OK);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the task has not begun after {BEGIN:?} (see {})", place.log().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_have_its_zone_behind_the_minutes() {
        assert_eq!(time("2026-11-25T09:00+08:00"), Ok(1_795_568_400_000));
        assert_eq!(time("2026-11-25T09:00:00+08:00"), Ok(1_795_568_400_000));
        assert!(time("tomorrow").unwrap_err().starts_with("--at: "));
    }

    #[test]
    fn what_is_over_is_no_appointment() {
        let soon = crate::cli::when::shown(clock::now_ms() + 60_000);
        assert_eq!(appointment(&soon), time(&soon));
        for over in ["2h", "2026-11-24", "2026-11-24T09:00+08:00"] {
            assert!(appointment(over).unwrap_err().contains("is over"), "{over}");
        }
    }
}
