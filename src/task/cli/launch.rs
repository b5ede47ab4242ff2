//! How a task is launched, in this process or in the background: what all commands that do it have in common.

use crate::cli::language::Language;
use crate::daemon::PidFile;
use crate::task::control::{Control, Hangup};
use crate::task::event::{End, Event, Progress, Remade, Watch};
use crate::task::exit::{self, Refused};
use crate::task::home::{Draft, Home, Place};
use crate::task::journal::Journal;
use crate::task::plan::Plan;
use crate::task::results::Results;
use crate::task::run::{self, Orders, Unknown};
use crate::task::watch::{Bar, Json, Lines, Log};
use crate::task::words;
use clap::Args;
use signal_hook::consts::SIGUSR1;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is waited for a task in the background to begin.
const BEGIN: Duration = Duration::from_secs(10);

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

/// Signals count from now on: USR1 is `mega-task end`.
pub fn listens(hangup: Hangup) -> Result<Control, String> {
    Control::of_signals(&[SIGUSR1], hangup)
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
    launch(&place, lock, Unknown::Report, sight, control, language)
}

/// Runs it, here or in the background.
pub fn launch(
    place: &Place,
    lock: PidFile,
    unknown: Unknown,
    sight: &Sight,
    control: &Control,
    language: Language,
) -> Result<u8, Refused> {
    if sight.detach {
        drop(lock);
        return detach(place, unknown, language);
    }
    Ok(go(place, &lock, unknown, watch(place, sight, language)?, control, language)?)
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
pub fn go(
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
