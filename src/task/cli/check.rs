//! What is looked at before anything goes out: the list, and whether it has what the template wants; and what a run
//! would send, for `--dry-run`.

use crate::cli::language::Language;
use crate::config::{Escape, MissingVariables};
use crate::output::printable;
use crate::task::ask::{self, Told};
use crate::task::exit::Refused;
use crate::task::list::{Format, Kept, Survey, missing};
use crate::task::plan::Plan;
use crate::task::words;
use crate::template::{Filling, Template};
use std::path::Path;
use std::time::Duration;

/// As many messages are shown.
const SHOWN: usize = 3;

/// An answer of WeChat's takes about so long, for an estimate.
const ANSWER: Duration = Duration::from_millis(100);

/// Where the text of the template comes from.
pub struct Source<'a> {
    pub file: Option<&'a Path>,
    /// Without a text, and with variables missing, it is sent all the same.
    pub lenient: bool,
}

/// The text, if there is one to be had.
pub fn template(source: &Source, to: &str, key: &str) -> Result<Option<String>, Refused> {
    if let Some(path) = source.file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Refused::unfit([
                format!("cannot read the template {path}: {error}"),
                format!("读不了模板 {path}：{error}"),
            ])
        })?;
        return Ok(Some(text));
    }
    match ask::template(to, key) {
        Ok(Told::Text(text)) => Ok(Some(text)),
        Ok(Told::NoTemplate) => Err(Refused::unfit([
            format!("mega at {to} has no template {key:?} (see mega NAME template list)"),
            format!("{to} 的 mega 没有模板 {key:?}（用 mega NAME template list 查看）"),
        ])),
        Ok(Told::Unknown) if source.lenient => Ok(None),
        Ok(Told::Unknown) => Err(Refused::unfit([
            format!(
                "mega at {to} is too old to tell the template's text: give --template FILE (or --allow-missing to \
                 send without a look at the variables)"
            ),
            format!(
                "{to} 的 mega 版本太旧，查不到模板内容：请用 --template FILE 指定（或用 --allow-missing 不检查变量直接发送）"
            ),
        ])),
        Err(why) => Err(why),
    }
}

fn compile(text: &str) -> Template {
    Template::compile(text, Filling { escape: Escape::Json, missing: MissingVariables::Keep })
}

/// The variables of the template, as far as it is known.
pub fn wanted(text: Option<&str>) -> Vec<String> {
    let of = |text| compile(text).variables().iter().map(|&name| name.to_owned()).collect();
    text.map(of).unwrap_or_default()
}

/// Refuses a list without people, and one that lacks what the template wants.
pub fn fit(
    survey: &Survey,
    text: Option<&str>,
    data: &str,
    source: &Source,
) -> Result<(), Refused> {
    if survey.people == 0 {
        return Err(Refused::unfit([
            "there is nobody to send to in the list",
            "名单中没有可发送的人",
        ]));
    }
    let common: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(data).unwrap_or_default();
    let mut columns = survey.columns.clone();
    columns.extend(common.keys().cloned());
    let wanted = wanted(text);
    let lacks = missing(&columns, &wanted);
    if lacks.is_empty() || source.lenient {
        return Ok(());
    }
    let lacks: Vec<String> = lacks.iter().map(|name| format!("${{{name}}}")).collect();
    let (lacks, none) = (lacks.join(", "), survey.columns.is_empty());
    let has = |nothing: &str| if none { nothing.into() } else { survey.columns.join(", ") };
    let (english, chinese) = (has("no variables"), has("任何变量"));
    let has_not = if none { "没有" } else { "只有 " };
    Err(Refused::unfit([
        format!(
            "the template wants {lacks}, which neither the list nor --data has: the list has {english} \
             (--allow-missing sends all the same)"
        ),
        format!(
            "模板需要 {lacks}，名单和 --data 中都没有：名单{has_not}{chinese}（--allow-missing 仍然发送）"
        ),
    ]))
}

/// What was found in the list.
pub fn tell(survey: &Survey, language: Language) {
    let Survey { lines, people, duplicates, malformed, empty, format, .. } = survey;
    let (repeats, bad, empties) = (duplicates.count, malformed.count, empty.count);
    let read = language.pick(kind(format));
    crate::say_err!(
        "{}",
        language.pick([
            format!("list ({read}): {lines} lines, {people} people, {repeats} duplicates left out, {bad} malformed left out"),
            format!("名单（{read}）：{lines} 行，{people} 人，去掉重复 {repeats} 个，去掉格式错误 {bad} 行"),
        ])
    );
    for it in &duplicates.first {
        let openid = printable(&it.openid);
        crate::say_err!(
            "  {}",
            language.pick([
                format!("line {}: {openid} was in line {}", it.line, it.before),
                format!("第 {} 行：{openid} 已在第 {} 行", it.line, it.before),
            ])
        );
    }
    for it in &malformed.first {
        let why = printable(&language.pick(it.why.texts()));
        crate::say_err!(
            "  {}",
            language
                .pick([format!("line {}: {why}", it.line), format!("第 {} 行：{why}", it.line),])
        );
    }
    if empties > 0 {
        crate::say_err!(
            "{}",
            language.pick([
                format!(
                    "{empties} lines have nothing for a variable of the template: WeChat shows it empty (correct them, \
                     or go on)"
                ),
                format!("有 {empties} 行缺少模板变量的值：微信中该处将显示为空（请改正，或继续）"),
            ])
        );
    }
    for it in &empty.first {
        let variable = printable(&it.variable);
        crate::say_err!(
            "  {}",
            language.pick([
                format!("line {}: ${{{variable}}} is empty", it.line),
                format!("第 {} 行：${{{variable}}} 为空", it.line),
            ])
        );
    }
}

/// What the list was taken for.
fn kind(format: &Format) -> [String; 2] {
    match format {
        Format::Plain(encoding) => {
            let name = encoding.name();
            [format!("openids, {name}"), format!("每行一个 openid，{name}")]
        }
        Format::Csv { separator, encoding } => {
            let (separator, name) = (separator.escape_debug(), encoding.name());
            [format!("CSV with '{separator}', {name}"), format!("CSV，以“{separator}”分隔，{name}")]
        }
        Format::Xlsx(sheet) => {
            let sheet = printable(sheet);
            [format!("xlsx, sheet {sheet}"), format!("xlsx，工作表 {sheet}")]
        }
    }
}

/// The first messages as WeChat would get them, and how long all would take.
pub fn dry_run(
    plan: &Plan,
    folder: &Path,
    text: Option<&str>,
    language: Language,
) -> Result<(), Refused> {
    let unread = |error| {
        Refused::unfit([format!("cannot read the list: {error}"), format!("读不了名单：{error}")])
    };
    let mut list = Kept::open(folder, 0).map_err(unread)?;
    let template = text.map(compile);
    let (mut data, mut out) = (String::new(), Vec::new());
    for _ in 0..SHOWN {
        let Some(person) = list.person().map_err(unread)? else { break };
        plan.put_data(&mut data, &person.data);
        let message = match &template {
            Some(template) => {
                let rendered = template.render(&person.openid, data.as_bytes(), None, &mut out);
                let line = person.line;
                rendered.map_err(|unfit| {
                    Refused::unfit([
                        format!("line {line}: {unfit}"),
                        format!("第 {line} 行：{unfit}"),
                    ])
                })?;
                String::from_utf8_lossy(&out).into_owned()
            }
            None => data.clone(),
        };
        crate::say!("{} {}: {}", person.line, printable(&person.openid), printable(&message));
    }
    crate::say!("{}", expected(plan, language));
    Ok(())
}

fn expected(plan: &Plan, language: Language) -> String {
    let total = plan.total;
    let fastest = plan.window as f64 / ANSWER.as_secs_f64();
    let (rate, why) = match plan.rate {
        Some(rate) if f64::from(rate) < fastest => {
            (f64::from(rate), language.pick(["--rate", "--rate"]))
        }
        _ => (
            fastest,
            language.pick([
                "if an answer takes 0.1 s and mega has enough workers",
                "按每个应答 0.1 秒、工作线程足够计",
            ]),
        ),
    };
    let span = words::span(Duration::from_secs_f64(total as f64 / rate));
    language.pick([
        format!(
            "{total} messages would take about {span}: {rate:.0} a second ({why}); nothing was sent"
        ),
        format!("共 {total} 条，预计用时 {span}：每秒 {rate:.0} 条（{why}）；没有发送任何消息"),
    ])
}
