//! reload: has the running daemon read its configuration and its templates again, and says what came of it.

use super::language::Language;
use crate::client::Client;
use crate::exit;
use crate::output::printable;
use crate::reload::{Report, Setting};
use crate::wire::command;
use crate::wire::question::Question;

/// Asks a daemon that listens.
pub fn reload(client: &mut Client, name: &str) -> Result<u8, String> {
    let language = Language::of_environment();
    let answer = client.ask(Question::Reload, b"").and_then(|()| client.read());
    let answer = answer.map_err(|error| {
        format!("the daemon does not say what came of it: {error} (see its log)")
    })?;
    if answer.code != command::OK {
        let failed = ["not reloaded, nothing has changed", "未重载，什么都没有改变"];
        return Err(format!("{name}: {}:\n{}", language.pick(failed), answer.message));
    }
    let report: Report = serde_json::from_str(&answer.message)
        .map_err(|error| format!("its answer is garbled: {error}"))?;
    for warning in &report.warnings {
        crate::complain!("{}: {warning}", language.pick(["warning", "警告"]));
    }
    show(name, &report, language).iter().for_each(|line| crate::say!("{line}"));
    Ok(exit::OK)
}

fn show(name: &str, report: &Report, language: Language) -> Vec<String> {
    let Report { changed, restart, templates, templates_changed, templates_gone, .. } = report;
    let settings = changed.len();
    let mut lines = vec![language.pick([
        format!(
            "mega {name} reloaded; templates: {templates} (changed: {templates_changed}), settings changed: {settings}"
        ),
        format!("mega {name} 已重载；模板：{templates}（有改动：{templates_changed}），设置有改动：{settings}"),
    ])];
    lines.extend(templates_gone.iter().map(|key| {
        let key = printable(key);
        language.pick([format!("  template removed: {key}"), format!("  模板已移除：{key}")])
    }));
    lines.extend(changed.iter().map(|setting| line(setting, language)));
    if !restart.is_empty() {
        lines.push(language.pick([
            format!("not in effect before a restart (mega {name} restart):"),
            format!("以下改动须重启才生效（mega {name} restart）："),
        ]));
        lines.extend(restart.iter().map(|setting| line(setting, language)));
    }
    lines
}

fn line(setting: &Setting, language: Language) -> String {
    let Setting { key, old, new, why } = setting;
    let shown = |value: &str| match value {
        "" => language.pick(["(none)", "（无）"]).to_owned(),
        value => value.to_owned(),
    };
    let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("  {key}: {} -> {}{why}", shown(old), shown(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, old: &str, new: &str, why: Option<&str>) -> Setting {
        let [key, old, new] = [key, old, new].map(str::to_owned);
        Setting { key, old, new, why: why.map(str::to_owned) }
    }

    #[test]
    fn what_changed_and_what_did_not_is_shown_apart() {
        let mut report = Report { templates: 3, templates_changed: 1, ..Report::default() };
        assert_eq!(
            show("w", &report, Language::English),
            ["mega w reloaded; templates: 3 (changed: 1), settings changed: 0"]
        );
        report.changed = vec![setting("wechat.proxy", "***", "", None)];
        report.restart = vec![setting("setting.task_worker_num", "8", "99", Some("64"))];
        assert_eq!(
            show("w", &report, Language::Chinese),
            [
                "mega w 已重载；模板：3（有改动：1），设置有改动：1",
                "  wechat.proxy: *** -> （无）",
                "以下改动须重启才生效（mega w restart）：",
                "  setting.task_worker_num: 8 -> 99 (64)",
            ]
        );
    }
}
