//! list, show and log: what there is, for people and for scripts. Only looks, also at a task that runs.

use crate::cli::language::Language;
use crate::output::{printable, printable_lines};
use crate::task::exit::{self, Refused};
use crate::task::home::{Home, Name, Place};
use crate::task::journal::{Look, Stage, State};
use crate::task::plan::Plan;
use crate::task::watch::counts;
use crate::task::words;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Args)]
pub struct List {
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Show {
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One task as it is now.
struct Task {
    name: Name,
    plan: Plan,
    state: State,
    pid: Option<i32>,
}

impl Task {
    fn look(place: &Place) -> Result<Task, String> {
        let wrong = |why: String| format!("{}: {why}", place.journal().display());
        let look = Look::at(&place.journal()).map_err(wrong)?;
        let pid = place.runs().map(|process| process.pid.as_raw_nonzero().get());
        let (plan, state) = (look.plan().map_err(wrong)?, look.state().map_err(wrong)?);
        Ok(Task { name: place.name.clone(), plan, state, pid })
    }

    fn stage(&self, language: Language) -> String {
        match self.pid {
            Some(pid) => language.pick([format!("running ({pid})"), format!("运行中（{pid}）")]),
            None => words::stage(self.state.stage, language).into(),
        }
    }

    /// Why it waits, if it runs and does.
    fn waits(&self) -> Option<&str> {
        self.state.waits.as_deref().filter(|_| self.pid.is_some())
    }

    fn json(&self) -> Value {
        let Task { name, plan, state, pid } = self;
        let stage = match (pid, state.stage) {
            (Some(_), _) => "running",
            (None, Stage::Running) => "interrupted",
            (None, stage) => stage.name(),
        };
        let mut json = counts(&state.progress);
        json["task"] = name.as_str().into();
        json["stage"] = stage.into();
        json["pid"] = json!(pid);
        json["waits"] = json!(self.waits());
        json["to"] = plan.to.as_str().into();
        json["key"] = plan.key.as_str().into();
        json["list"] = plan.source.as_str().into();
        json["result"] = plan.result.display().to_string().into();
        json["created"] = words::time(plan.created).into();
        json["changed"] = words::time(state.changed.unix).into();
        json["took_ms"] = state.took.into();
        json
    }
}

pub fn list(home: &Home, options: &List, language: Language) -> Result<u8, String> {
    let mut code = exit::OK;
    for place in home.tasks()? {
        match Task::look(&place) {
            Ok(task) if options.json => crate::say!("{}", task.json()),
            Ok(task) => {
                let counts = words::counts(&task.state.progress, language);
                let (name, stage) = (printable(task.name.as_str()), task.stage(language));
                let changed = words::time(task.state.changed.unix);
                crate::say!("{name}  {stage}  {counts}  {changed}");
            }
            Err(why) => {
                crate::say_err!("mega-task: {why}");
                code = exit::FAILED;
            }
        }
    }
    Ok(code)
}

pub fn show(home: &Home, options: &Show, language: Language) -> Result<u8, Refused> {
    let task = Task::look(&home.task(&Name::new(&options.name)?)?)?;
    if options.json {
        crate::say!("{}", task.json());
        return Ok(exit::OK);
    }
    let Task { name, plan, state, .. } = &task;
    let pick = |english: &str, chinese: &str, text: String| {
        crate::say!("{}{}", language.pick([english, chinese]), printable(&text));
    };
    pick("task     ", "任务      ", format!("{name}, {}", task.stage(language)));
    pick("counts   ", "计数      ", words::counts(&state.progress, language));
    if let Some(why) = task.waits() {
        pick("waits    ", "等待      ", why.into());
    }
    pick("to       ", "目标      ", format!("{} {}", plan.to, plan.key));
    pick("list     ", "名单      ", plan.source.clone());
    pick("result   ", "结果      ", plan.result.display().to_string());
    pick("created  ", "创建于    ", words::time(plan.created));
    pick("changed  ", "更新于    ", words::time(state.changed.unix));
    pick("took     ", "用时      ", words::span(Duration::from_millis(state.took)));
    let failures = words::failures(&state.progress, language);
    failures.iter().for_each(|line| crate::say!("{line}"));
    Ok(exit::OK)
}

pub fn log(place: &Place) -> Result<u8, String> {
    let path = place.log();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    crate::say!("{}", printable_lines(text.trim_end()));
    Ok(exit::OK)
}
