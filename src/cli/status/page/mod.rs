//! A status as people read it: troubles first, then a line or a few for each thing. Pure.

mod troubles;

use super::words::{bytes, count, cut, ms, padded, rate, right, span};
use crate::cli::language::Language;
use crate::output::printable;
use crate::stats::Refusal;
use crate::wechat::meaning;
use serde_json::Value;
use troubles::Disk;

/// Columns of the names on the left, and of a number of the table.
const NAMES: usize = 12;
const NUMBER: usize = 11;

/// What is shown of those that may be many.
const REFUSALS: usize = 3;
const FAILURES: usize = 5;
const KEY: usize = 32;

/// What happened in a second since the last look.
pub struct Present {
    pub accepted: f64,
    pub delivered: f64,
    pub failed: f64,
}

pub struct Page<'a> {
    pub status: &'a Value,
    pub language: Language,
    /// Seconds since 1970.
    pub now: i64,
    pub present: Option<Present>,
    lines: Vec<String>,
}

impl<'a> Page<'a> {
    pub fn new(status: &'a Value, language: Language, now: i64) -> Page<'a> {
        Page { status, language, now, present: None, lines: Vec::new() }
    }

    pub fn lines(mut self) -> Vec<String> {
        self.head();
        // First, so that no small screen cuts them off.
        self.troubles();
        self.queue();
        self.table();
        self.wechat();
        self.templates();
        self.ends();
        self.disks();
        self.lines
    }

    fn say(&self, words: [&'static str; 2]) -> &'static str {
        self.language.pick(words)
    }

    fn line(&mut self, name: [&'static str; 2], text: String) {
        let name = padded(self.say(name), NAMES);
        self.lines.push(format!("{name}{text}"));
    }

    fn number(&self, path: &str) -> u64 {
        self.status.pointer(path).and_then(Value::as_u64).unwrap_or_default()
    }

    fn real(&self, path: &str) -> f64 {
        self.status.pointer(path).and_then(Value::as_f64).unwrap_or_default()
    }

    fn count(&self, path: &str) -> String {
        count(self.number(path))
    }

    fn text(&self, path: &str) -> Option<&'a str> {
        self.status.pointer(path).and_then(Value::as_str)
    }

    /// A text that somebody else may have written, as one line.
    fn line_of(&self, path: &str) -> Option<String> {
        self.text(path).map(printable)
    }

    fn listed(&self, parts: &[String]) -> String {
        parts.join(self.say([", ", "，"]))
    }

    fn span(&self, seconds: u64) -> String {
        span(seconds, self.language)
    }

    /// How many seconds a time lies ahead; below zero it is past.
    fn ahead(&self, path: &str) -> Option<i64> {
        let time = chrono::DateTime::parse_from_rfc3339(self.text(path)?).ok()?;
        Some(time.timestamp() - self.now)
    }

    fn head(&mut self) {
        let name = self.text("/name").unwrap_or_default();
        let (pid, version) = (self.number("/pid"), self.text("/version").unwrap_or_default());
        let up = self.span(self.number("/uptime_seconds"));
        let listen = self.status["listen"].as_array().map(Vec::as_slice).unwrap_or_default();
        let listen: Vec<&str> = listen.iter().filter_map(Value::as_str).collect();
        let listen = listen.join(", ");
        self.lines.push(match self.language {
            Language::English => {
                format!("mega {name} is running: pid {pid}, for {up}, {version}, at {listen}")
            }
            Language::Chinese => {
                format!("mega {name} 正在运行：pid {pid}，已运行 {up}，{version}，监听 {listen}")
            }
        });
    }

    fn queue(&mut self) {
        let oldest = self.status["oldest_seconds"].as_u64().map(|seconds| self.span(seconds));
        let (queued, retrying) = (self.count("/queue_depth"), self.number("/retrying"));
        let (ready, in_flight) = (self.count("/ready"), self.count("/in_flight"));
        let end = self.end();
        let mut parts = vec![format!("{queued} {}", self.say(["messages", "条消息"]))];
        if let Some(oldest) = oldest {
            parts.push(format!("{} {oldest}", self.say(["the next has waited", "队首已等待"])));
        }
        if retrying > 0 {
            parts.push(format!("{} {}", count(retrying), self.say(["go out again", "条待重发"])));
        }
        parts.extend(end);
        let parts = self.listed(&parts);
        self.line(["queue", "队列"], parts);
        let workers = self.count("/workers");
        let busy = |path| format!("{:.0} %", self.real(path) * 100.0);
        let (one, five) = (busy("/rates_1m/busy"), busy("/rates_5m/busy"));
        let text = match self.language {
            Language::English => format!(
                "{in_flight} of {workers} at work, {ready} ready; busy {one} (1 min), {five} (5 min)"
            ),
            Language::Chinese => format!(
                "{workers} 个中 {in_flight} 个在发送，{ready} 条就绪；繁忙 {one}（1 分钟）、{five}（5 分钟）"
            ),
        };
        self.line(["workers", "发送线程"], text);
    }

    /// When the queue will be empty, if it goes on like this.
    fn end(&self) -> Option<String> {
        let (queued, limit) = (self.number("/queue_depth"), self.number("/daily_limit"));
        let stands = ["suspended", "paused"].iter().any(|name| self.status[*name].is_string());
        if queued == 0 || stands {
            return None;
        }
        if limit > 0 && queued > limit.saturating_sub(self.number("/sent_today")) {
            return Some(self.say(["more than may go out today", "超过今日可发的数量"]).into());
        }
        match self.status["backlog_seconds"].as_u64() {
            Some(seconds) => {
                Some(format!("{} {}", self.say(["empty in", "预计清空还需"]), self.span(seconds)))
            }
            None => Some(self.say(["does not become shorter", "没有变短"]).into()),
        }
    }

    fn table(&mut self) {
        let mut head: Vec<&str> = vec![
            self.say(["1 min", "1 分钟"]),
            self.say(["5 min", "5 分钟"]),
            self.say(["pushes", "push 累计"]),
            self.say(["sends", "send 累计"]),
        ];
        if self.present.is_some() {
            head.insert(0, self.say(["now", "当前"]));
        }
        let head = head.iter().map(|word| right(word, NUMBER)).collect::<String>();
        self.line(["per second", "每秒"], head);
        for (name, key) in [
            (["accepted", "接收"], "accepted"),
            (["delivered", "送达"], "delivered"),
            (["failed", "失败"], "failed"),
        ] {
            let not_recorded = if key == "failed" { self.number("/unrecorded") } else { 0 };
            let now = self.present.as_ref().map(|present| match key {
                "accepted" => present.accepted,
                "delivered" => present.delivered,
                _ => present.failed,
            });
            let numbers = now.map(rate).into_iter().chain([
                rate(self.real(&format!("/rates_1m/{key}"))),
                rate(self.real(&format!("/rates_5m/{key}"))),
                count(self.number(&format!("/pushes/{key}")) + not_recorded),
                self.count(&format!("/sends/{key}")),
            ]);
            let numbers = numbers.map(|number| right(&number, NUMBER)).collect::<String>();
            let name = padded(self.say(name), NAMES - 2);
            self.lines.push(format!("  {name}{numbers}"));
        }
        let more = [
            ("/pushes/found", ["found at the start", "启动时已有"]),
            ("/unrecorded", ["failed, not yet recorded", "已失败但尚未记录"]),
            ("/pushes/cancelled", ["cancelled", "已取消"]),
            ("/pushes/requeued", ["requeued", "重新入队"]),
            ("/retried", ["retried", "重试"]),
            ("/duplicates", ["WeChat had already", "微信已有"]),
            ("/repeated", ["repeats of an id", "重复的 id"]),
            ("/sends/given_up", ["sends given up", "放弃的 send"]),
            ("/sends_waiting", ["sends wait", "等待中的 send"]),
        ];
        let more: Vec<String> = more
            .iter()
            .filter(|(path, _)| self.number(path) > 0)
            .map(|(path, words)| format!("{} {}", self.count(path), self.say(*words)))
            .collect();
        if !more.is_empty() {
            let more = self.listed(&more);
            self.line(["", ""], more);
        }
    }

    fn wechat(&mut self) {
        let quantile = |name: &str| {
            let ms_ = self.status.pointer(&format!("/latency_ms/{name}")).and_then(Value::as_f64);
            ms_.map_or("-".into(), |it| ms(it, self.language))
        };
        let (half, most) = (quantile("p50"), quantile("p99"));
        let calls = self.count("/token_calls_today");
        let age = self.status["token_age_seconds"].as_u64().map(|age| self.span(age));
        let text = match (self.language, age) {
            (Language::English, Some(age)) => {
                format!("p50 {half}, p99 {most} (5 min); token {age} old, {calls} fetched today")
            }
            (Language::English, None) => {
                format!("p50 {half}, p99 {most} (5 min); no token, {calls} calls for one today")
            }
            (Language::Chinese, Some(age)) => {
                format!("p50 {half}，p99 {most}（5 分钟）；token 已用 {age}，今日获取 {calls} 次")
            }
            (Language::Chinese, None) => {
                format!("p50 {half}，p99 {most}（5 分钟）；没有 token，今日获取 {calls} 次")
            }
        };
        self.line(["WeChat", "微信"], text);
        let (sent, limit) = (self.count("/sent_today"), self.number("/daily_limit"));
        let of = match limit {
            0 => String::new(),
            limit => {
                let share = self.number("/sent_today") as f64 * 100.0 / limit as f64;
                format!(" / {} ({share:.0} %)", count(limit))
            }
        };
        self.line(["sent today", "今日已发"], format!("{sent}{of}"));
    }

    fn templates(&mut self) {
        let busiest =
            self.status["busiest_templates"].as_array().map(Vec::as_slice).unwrap_or_default();
        let each = busiest.iter().map(|it| {
            let key = cut(&printable(it["key"].as_str().unwrap_or_default()), KEY);
            format!("{key} {}", count(it["requests"].as_u64().unwrap_or_default()))
        });
        let each: Vec<String> = each.collect();
        let loaded = self.ahead("/templates_loaded").map(|ahead| self.span((-ahead).max(0) as u64));
        let loaded = loaded.unwrap_or_default();
        let number = self.count("/templates");
        self.line(
            ["templates", "模板"],
            match self.language {
                Language::English => format!("{number}, loaded {loaded} ago"),
                Language::Chinese => format!("{number} 个，{loaded}前加载"),
            },
        );
        for pair in each.chunks(2) {
            self.line(["", ""], pair.join("; "));
        }
    }

    fn ends(&mut self) {
        let failures = self.status["failures"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (n, failure) in failures.iter().take(FAILURES).enumerate() {
            let errcode = failure["errcode"].as_i64();
            let class = failure["class"].as_str().unwrap_or_default();
            let what = errcode.map_or(class.to_owned(), |errcode| errcode.to_string());
            let meaning = meaning::of_end(errcode, class).map_or("", |words| self.say(words));
            let number = count(failure["count"].as_u64().unwrap_or_default());
            let name = if n == 0 { ["failures", "失败原因"] } else { ["", ""] };
            self.line(name, format!("{number} × {what} {meaning}").trim_end().to_owned());
        }
        let refusals = Refusal::ALL.iter().map(|refusal| {
            (self.number(&format!("/refusals/{}", refusal.name())), self.say(refusal.meaning()))
        });
        let mut refusals: Vec<(u64, &str)> = refusals.filter(|(count, _)| *count > 0).collect();
        refusals.sort_unstable_by_key(|(count, _)| u64::MAX - count);
        for (n, (number, meaning)) in refusals.iter().take(REFUSALS).enumerate() {
            let name = if n == 0 { ["refused", "拒绝"] } else { ["", ""] };
            self.line(name, format!("{} × {}", count(*number), meaning.replace('`', "")));
        }
    }

    fn disks(&mut self) {
        let text = |disk: &Disk| {
            format!("{}: {} / {}", disk.names.join(", "), bytes(disk.free), bytes(disk.total))
        };
        let text: Vec<String> = self.on_disks().iter().map(text).collect();
        if !text.is_empty() {
            self.line(["disk, free", "磁盘空余"], text.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::troubles::QUEUE_FULL;
    use super::*;
    use crate::stats::Stats;
    use serde_json::json;
    use unicode_width::UnicodeWidthStr;

    fn status() -> Value {
        let mut status = Stats::default().to_json();
        let more = json!({
            "name": "wechat", "pid": 7, "version": "1.0", "uptime_seconds": 61,
            "listen": ["127.0.0.1:9501"], "templates": 3, "workers": 8, "in_flight": 8, "ready": 32,
            "queue_depth": 1_234_567, "oldest_seconds": 3_700, "retrying": 4,
            "backlog_seconds": 600, "sent_today": 900, "daily_limit": 1_000, "stopping": true,
            "suspended": "48001 api unauthorized", "suspended_cause": "config",
            "suspended_since": "1970-01-01T00:01:40+00:00", "next_probe": "1970-01-01T00:03:50+00:00",
            "full": "no room", "ledger": "locked", "database": "gone", "damaged": 1,
            "busiest_templates": [{"key": "k".repeat(60), "requests": 5}],
            "failures": [{"class": "permanent", "errcode": 43004, "count": 12},
                         {"class": "data", "errcode": null, "count": 1}],
            "disk": {
                "queue": {"free_bytes": 1 << 20, "total_bytes": 1 << 30, "device": 1},
                "ledger": {"free_bytes": 1 << 29, "total_bytes": 1 << 30, "device": 2},
                "log": {"free_bytes": 1 << 20, "total_bytes": 1 << 30, "device": 1},
            },
        });
        let Value::Object(more) = more else { unreachable!() };
        status.as_object_mut().unwrap().extend(more);
        status["refusals"]["no_template"] = 3.into();
        status
    }

    fn shown(status: &Value, language: Language) -> String {
        Page::new(status, language, 220).lines().join("\n")
    }

    #[test]
    fn everything_is_told_in_both_languages() {
        let status = status();
        for (language, words) in [
            (
                Language::English,
                [
                    "mega wechat is running: pid 7, for 1 min 1 s",
                    "1,234,567 messages, the next has waited 1 h 1 min, 4 go out again",
                    "8 of 8 at work, 32 ready",
                    "900 / 1,000 (90 %)",
                    "12 × 43004 the user does not follow the account",
                    "1 × data the message cannot be made",
                    "3 × there is no such template",
                    "! sending is suspended: 48001 api unauthorized\n  the account or the configuration, for 2 min; asks again in 10 s",
                    "! nothing is taken in: no room",
                    "! the disk: queue, log is nearly full",
                    "! stopping",
                ],
            ),
            (
                Language::Chinese,
                [
                    "mega wechat 正在运行：pid 7，已运行 1 分 1 秒",
                    "1,234,567 条消息，队首已等待 1 小时 1 分，4 条待重发",
                    "8 个中 8 个在发送",
                    "900 / 1,000 (90 %)",
                    "12 × 43004 用户未关注公众号",
                    "1 × data 无法生成消息",
                    "3 × 没有该模板",
                    "! 已暂停发送：48001 api unauthorized\n  账号或配置有误，已持续 2 分；10 秒后再试探",
                    "! 不再接收消息：no room",
                    "! 磁盘：queue, log 即将用尽",
                    "! 正在停止",
                ],
            ),
        ] {
            let text = shown(&status, language);
            for words in words {
                assert!(text.contains(words), "no {words:?} in\n{text}");
            }
        }
    }

    #[test]
    fn where_the_words_are_ours_no_english_is_in_a_chinese_page() {
        let mut status = status();
        for (name, value) in [
            ("paused", json!("paused by ann: lunch")),
            ("paused_by", json!("ann")),
            ("paused_why", json!("lunch")),
            ("draining", json!("drained by bob")),
            ("draining_by", json!("bob")),
            ("suspended", json!("daily_limit = 1000 is reached, until midnight UTC+8")),
            ("suspended_cause", json!("daily_limit")),
            ("blocked", json!("1024 messages that have failed wait to be recorded")),
            ("unrecorded", json!(1024)),
            ("crowded", json!("setting.max_conn clients are connected")),
            ("clients", json!(60)),
            ("clients_limit", json!(60)),
            ("full", json!(QUEUE_FULL)),
        ] {
            status[name] = value;
        }
        let text = shown(&status, Language::Chinese);
        for words in [
            "! 不发送消息：由 ann 暂停：lunch，已持续",
            "! 正在排空：由 bob 下令：拒绝新请求",
            "! 已暂停发送：已达到 daily_limit = 1,000，到 UTC+8 零点为止",
            "! 不再发送 push：1,024 条失败消息等待记录",
            "! 不再接受新的连接：已连接 60 个客户端，setting.max_conn = 60",
            "! 不再接收消息：达到 queue.queue_max_bytes",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        assert!(!text.contains(" by ") && !text.contains("reached"), "{text}");
    }

    #[test]
    fn failures_that_are_not_recorded_yet_have_failed_all_the_same() {
        let mut status = status();
        status["pushes"]["failed"] = 10.into();
        status["unrecorded"] = 1_063.into();
        let text = shown(&status, Language::English);
        let row = text.lines().find(|line| line.starts_with("  failed")).unwrap();
        assert!(row.contains("1,073") && text.contains("1,063 failed, not yet recorded"), "{text}");
    }

    #[test]
    fn what_is_not_there_is_not_mentioned_and_lines_are_short() {
        let status = Stats::default().to_json();
        for language in [Language::English, Language::Chinese] {
            let text = shown(&status, language);
            assert!(!text.contains('!') && !text.contains('×'), "{text}");
            assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        }
    }

    #[test]
    fn the_end_of_the_backlog_is_told_as_far_as_it_is_known() {
        let mut status = json!({"queue_depth": 10, "backlog_seconds": 90});
        let end = |status: &Value| Page::new(status, Language::English, 0).end();
        assert_eq!(end(&status).unwrap(), "empty in 1 min 30 s");
        status["daily_limit"] = 15.into();
        assert_eq!(end(&status).unwrap(), "empty in 1 min 30 s");
        status["sent_today"] = 6.into();
        assert_eq!(end(&status).unwrap(), "more than may go out today");
        status["daily_limit"] = 0.into();
        status["backlog_seconds"] = Value::Null;
        assert_eq!(end(&status).unwrap(), "does not become shorter");
        status["suspended"] = "busy".into();
        assert_eq!(end(&status), None);
        assert_eq!(end(&json!({"queue_depth": 0, "backlog_seconds": 0})), None);
    }
}
