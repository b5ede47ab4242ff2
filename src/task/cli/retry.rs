//! retry: makes a task of those of another who failed, unless a task before has them.

use super::launch::{Pace, Sight, adjust, begin, listens};
use crate::cli::language::Language;
use crate::clock;
use crate::task::ask;
use crate::task::control::Hangup;
use crate::task::exit::Refused;
use crate::task::home::{Draft, Home, Name, Place};
use crate::task::journal::{Journal, Look, Pick, Stage};
use crate::task::list::{Keeper, Kept};
use crate::task::{plan, results};
use clap::Args;

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

pub fn retry(home: &Home, options: &Retry, language: Language) -> Result<u8, Refused> {
    let control = listens(Hangup::Pauses)?;
    let old = home.task(&Name::new(&options.name)?)?;
    if let Some(to) = &options.to {
        ask::check_address(to)?;
    }
    let lock = old.lock()?;
    let mut journal = Journal::open(&old.journal())?;
    let mut plan = journal.plan()?;
    let is_free = |name: &Name| home.task(name).is_err();
    let name = (1..)
        .map(|n| Name::new(&format!("{}-retry-{n}", old.name)))
        .find(|name| name.as_ref().map_or(true, is_free))
        .expect("invariant: some number is free")?;
    plan.result.set_file_name(format!("{name}.result.csv"));
    let codes = Some(&options.errcode[..]).filter(|codes| !codes.is_empty());
    let pick = Pick { codes, unknown: options.resend_unknown };
    // What was given to a task that was never begun is nobody's.
    let mut gone = journal.retries()?;
    gone.retain(|name| Name::new(name).map_or(true, |name| is_free(&name)));
    let draft = home.draft(&name)?;
    plan.total = journal.give(name.as_str(), &pick, &gone)?;
    if plan.total == 0 {
        let has = journal.who_has(&pick)?;
        return Err(they_have(home, &old.name, &has));
    }
    results::is_free(&plan.result)?;
    keep_given(&old, &journal, &draft)?;
    plan.id = plan::own_part()?;
    (plan.created, plan.at) = (clock::now_ms(), None);
    plan.of = Some(old.name.as_str().to_owned());
    adjust(&mut plan, options.to.as_deref(), &options.pace);
    begin(home, draft, &plan, &options.sight, Some(lock), &control, language)
}

/// Why there is nobody to retry: other tasks have them, if anybody is meant.
pub fn they_have(home: &Home, name: &Name, tasks: &[String]) -> Refused {
    let nobody = [
        format!("nobody of the task {name} failed so: there is nobody to send to"),
        format!("任务 {name} 中没有这样失败的人：没有可发送的人"),
    ];
    let advice = |task: &String| {
        if task.is_empty() {
            return [
                "a task that was removed had them".to_owned(),
                "他们属于一个已删除的任务".to_owned(),
            ];
        }
        let place = Name::new(task).and_then(|task| home.task(&task)).ok();
        let state = place.and_then(|place| Look::at(&place.journal()).ok()?.state().ok());
        let what = match state {
            Some(state) => match state.stage {
                Stage::Finished if state.progress.failed > 0 => "retry",
                Stage::Finished | Stage::Ended => "show",
                Stage::Ready | Stage::Running | Stage::Paused => "resume",
            },
            None => "show",
        };
        [
            format!("{task} has them: mega-task {what} {task}"),
            format!("他们在 {task} 中：mega-task {what} {task}"),
        ]
    };
    let advice: Vec<[String; 2]> = tasks.iter().map(advice).collect();
    match advice.is_empty() {
        true => Refused::nothing(nobody),
        false => Refused::nothing([0, 1].map(|language| {
            let each = advice.iter().map(|texts| texts[language].clone());
            each.collect::<Vec<_>>().join(["; ", "；"][language])
        })),
    }
}

/// Puts those whom the draft was given into its list.
fn keep_given(old: &Place, journal: &Journal, draft: &Draft) -> Result<(), String> {
    let written = |error| format!("cannot write to {}: {error}", draft.place.folder.display());
    let unread = |error| format!("cannot read the list in {}: {error}", old.folder.display());
    let mut keeper = Keeper::create(&draft.place.folder).map_err(written)?;
    let mut list = Kept::open(&old.folder, 0).map_err(unread)?;
    journal.given(draft.place.name.as_str(), |failure| {
        let person = list.at(failure.offset).map_err(unread)?;
        keeper.keep(&person).map_err(written)
    })?;
    keeper.finish().map_err(written)
}
