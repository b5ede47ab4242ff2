//! What people read of tasks, in English and in Chinese. Pure.

use super::event::{End, Loss, Progress, Remade, Why};
use super::journal::Stage;
use super::plan::Verb;
use crate::cli::language::Language;
use crate::clock;
use crate::output::printable;
use crate::wechat::meaning;
use crate::wire::not_now::IDS_FULL;
use chrono::SecondsFormat;
use std::time::Duration;

/// Of those whom mega refused, and not WeChat.
const REFUSED: [&str; 2] =
    ["mega refused it; see errmsg in the result file", "被 mega 拒绝；见结果文件中的 errmsg"];

/// RFC 3339, local, to the second.
pub fn time(ms: u64) -> String {
    clock::local(ms).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// The time that it is.
pub fn now() -> String {
    time(clock::unix_seconds() * 1_000)
}

/// Why nothing goes out, in mega's own words where they are.
pub fn why(why: &Why, language: Language) -> String {
    match why {
        Why::Appointed(at) => {
            let at = time(*at);
            language.pick([format!("it begins at {at}"), format!("{at} 开始")])
        }
        Why::Unreachable(why) => {
            language.pick([format!("mega is not reached: {why}"), format!("无法连接 mega：{why}")])
        }
        Why::Refused(words) if words.contains(IDS_FULL) => language.pick([
            format!("{words}: mega takes more in as soon as some of them end"),
            format!("{words}：其中一部分发送完后 mega 即继续接收"),
        ]),
        Why::Refused(words) => words.clone(),
        Why::Limit(errcode) => format!("{errcode} {}", meaning(*errcode, language)),
        Why::Unclear(why) => language.pick([
            format!("no usable answer: {why} (asked for again under the same ids)"),
            format!("应答无法判断：{why}（将以相同 id 重新发送）"),
        ]),
    }
}

/// An answer says nothing of what became of somebody.
pub fn unclear(why: &str, language: Language) -> String {
    let why = printable(why);
    language.pick([
        format!("no usable answer: {why} (asked for again; told once a minute)"),
        format!("应答无法判断：{why}（将重新发送；每分钟最多提示一次）"),
    ])
}

/// Where the results are from now on, and why.
pub fn remade(remade: &Remade, language: Language) -> String {
    let Remade { loss, old, new, rows } = remade;
    let [old, new] = [old, new].map(|path| printable(&path.display().to_string()));
    let why = match loss {
        Loss::Nothing => ["was removed or moved away".into(), "被删除或移走".into()],
        Loss::Another => ["is another file now".into(), "已是另一个文件".into()],
        Loss::Size(found) => [
            format!("was changed: it has {found} bytes, and not those that the task wrote"),
            format!("被改动：现有 {found} 字节，与任务写入的不符"),
        ],
    };
    let why = language.pick(why);
    language.pick([
        format!("the result file {old} {why}; results are in {new} now, {rows} lines of it made anew without their times"),
        format!("结果文件 {old} {why}；结果现在写入 {new}，其中 {rows} 行为重新生成，没有时间"),
    ])
}

/// What a code means and what to do, or nothing.
pub fn meaning(errcode: i64, language: Language) -> &'static str {
    meaning::of(errcode).map_or("", |pair| language.pick(pair))
}

pub fn stage(stage: Stage, language: Language) -> &'static str {
    language.pick(match stage {
        Stage::Ready => ["ready", "未开始"],
        Stage::Running => ["interrupted", "已中断"],
        Stage::Paused => ["paused", "已暂停"],
        Stage::Finished => ["finished", "已完成"],
        Stage::Ended => ["ended", "已结束"],
    })
}

/// What is to be done after such an end, if anything.
pub fn end(end: &End, name: &str, language: Language) -> String {
    match end {
        End::Finished => language.pick(["finished", "已完成"]).into(),
        End::Ended => language.pick(["ended", "已结束"]).into(),
        End::Paused => language.pick([
            format!("paused (mega-task resume {name} goes on)"),
            format!("已暂停（mega-task resume {name} 继续）"),
        ]),
        End::Broken(why) => language.pick([
            format!("stopped: {why} (when that is mended, mega-task resume {name} goes on)"),
            format!("已停止：{why}（排除故障后用 mega-task resume {name} 继续）"),
        ]),
    }
}

/// `3 sent, 1 failed, 0 unknown of 10`
pub fn counts(progress: &Progress, language: Language) -> String {
    let Progress { total, sent, failed, unknown, .. } = progress;
    language.pick([
        format!("{sent} sent, {failed} failed, {unknown} unknown of {total}"),
        format!("共 {total}，成功 {sent}，失败 {failed}，未知 {unknown}"),
    ])
}

/// `1:02:03`
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match hours {
        0 => format!("{minutes}:{:02}", seconds % 60),
        _ => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
    }
}

/// How many failed by code, what that means and what to do: a line each, the most frequent first.
pub fn failures(progress: &Progress, language: Language) -> Vec<String> {
    let mut codes: Vec<_> = progress.errcodes.iter().collect();
    codes.sort_by_key(|(code, count)| (std::cmp::Reverse(**count), **code));
    let line = |(code, count): (&Option<i64>, &u64)| {
        let (shown, meaning) = match code {
            Some(code) => (code.to_string(), meaning(*code, language)),
            None => ("-".to_owned(), language.pick(REFUSED)),
        };
        format!("{count:>9}  {shown:>6}  {meaning}").trim_end().to_owned()
    };
    codes.into_iter().map(line).collect()
}

/// What is said at the end of a run.
pub fn summary(
    name: &str,
    progress: &Progress,
    took: Duration,
    done: u64,
    verb: Verb,
    language: Language,
) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let counts = counts(progress, language);
    let took = span(took);
    let mut lines = vec![language.pick([
        format!("{name}: {counts}; {took}, {rate:.0} a second"),
        format!("{name}：{counts}；用时 {took}，每秒 {rate:.0} 条"),
    ])];
    lines.extend(failures(progress, language));
    if verb == Verb::Push {
        lines.push(
            language
                .pick([
                    "sent means queued here: mega has them, not WeChat yet; what fails later is shown by mega NAME failed, \
                     on mega's machine",
                    "此处“成功”表示已进入 mega 的队列，尚未由微信接收；之后的失败在 mega 所在机器上用 mega NAME failed 查看",
                ])
                .into(),
        );
    }
    if progress.failed > 0 {
        lines.push(language.pick([
            format!("mega-task retry {name} makes a task of those that failed (--errcode CODE,... of some)"),
            format!("mega-task retry {name} 为失败者新建任务（--errcode CODE,... 只取部分）"),
        ]));
    }
    if progress.unknown > 0 {
        lines.push(language.pick([
            format!("unknown: WeChat may have them; mega-task resume {name} --resend-unknown sends to them again"),
            format!("未知：微信可能已收到；mega-task resume {name} --resend-unknown 重新发送"),
        ]));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_megas_own_words_and_what_they_leave_open_is_said() {
        let told = |words: &str| why(&Why::Refused(words.into()), Language::English);
        assert_eq!(told("queue full: no room"), "queue full: no room");
        let full = "queue full: 10 ids are remembered (queue.ids_max)";
        assert_eq!(told(full), format!("{full}: mega takes more in as soon as some of them end"));
    }

    #[test]
    fn a_summary_says_what_failed_why_and_what_to_do() {
        let progress = Progress {
            total: 10,
            sent: 5,
            failed: 3,
            unknown: 1,
            front: 9,
            errcodes: [(Some(43004), 2), (None, 1)].into(),
        };
        let told =
            summary("t", &progress, Duration::from_secs(3), 9, Verb::Send, Language::English);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "t: 5 sent, 3 failed, 1 unknown of 10; 0:03, 3 a second");
        assert!(lines[1].contains("2   43004  the user does not follow the account"), "{told}");
        assert!(lines[2].contains("mega refused it"), "{told}");
        assert!(!told.contains("queued"), "{told}");
        assert!(lines[3].contains("retry t") && lines[4].contains("--resend-unknown"), "{told}");
        let told =
            summary("t", &progress, Duration::from_secs(3), 9, Verb::Push, Language::Chinese);
        assert!(told.contains("用户未关注公众号"), "{told}");
        assert!(told.contains("mega NAME failed") && told.contains("队列"), "{told}");
        assert_eq!(span(Duration::from_secs(3_725)), "1:02:05");
    }
}
