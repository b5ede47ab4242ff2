//! What a status tells of troubles, and of the disks, which may become one. Part of the page.

use super::Page;
use crate::cli::language::Language;
use crate::cli::status::words::count;
use crate::stats::{Kind, TROUBLES};

/// As the daemon says that the queue has no room.
pub(super) const QUEUE_FULL: &str = "queue.queue_max_bytes is reached";

/// A disk with less than this free is a trouble, in per cent.
const SCARCE: f64 = 5.0;

/// A disk that some of the daemon's folders are on.
pub(super) struct Disk<'a> {
    pub names: Vec<&'a str>,
    device: Option<u64>,
    /// Bytes.
    pub free: u64,
    pub total: u64,
}

impl<'a> Page<'a> {
    /// Folders on one disk are one thing.
    pub(super) fn on_disks(&self) -> Vec<Disk<'a>> {
        let mut shown: Vec<Disk> = Vec::new();
        for (name, disk) in self.status["disk"].as_object().into_iter().flatten() {
            let number = |name: &str| disk[name].as_u64();
            let (Some(free), Some(total)) = (number("free_bytes"), number("total_bytes")) else {
                continue;
            };
            let device = number("device");
            match shown.iter_mut().find(|other| other.device == device) {
                Some(disk) => disk.names.push(name),
                None => shown.push(Disk { names: vec![name], device, free, total }),
            }
        }
        shown
    }

    fn trouble(&mut self, name: [&'static str; 2], why: &str) {
        let (name, colon) = (self.say(name), self.say([": ", "："]));
        self.lines.push(format!("! {name}{colon}{why}"));
    }

    /// Orders to cancel that are under way.
    fn cancels(&mut self) {
        let orders = self.status["cancels"].as_array().map(Vec::as_slice).unwrap_or_default();
        for order in orders.iter().filter(|order| order["done"] == false) {
            let number = |name: &str| count(order[name].as_u64().unwrap_or_default());
            let (scanned, total, found) = (number("scanned"), number("total"), number("count"));
            let by = order["by"].as_str().unwrap_or_default();
            let text = self.language.pick([
                format!("{scanned} of {total} looked at, {found} found, by {by}"),
                format!("已查看 {scanned} / {total}，找到 {found} 条，由 {by} 发起"),
            ]);
            let name = match order["dry_run"] == true {
                true => ["counting what to cancel", "统计待取消的消息"],
                false => ["cancelling messages", "正在取消消息"],
            };
            self.trouble(name, &text);
        }
    }

    /// What operators have ordered, and goes on.
    fn steered(&mut self) {
        if let Some(why) = self.line_of("/paused") {
            let why = self.paused().unwrap_or(why);
            let since = self.ahead("/paused_since").map_or(0, |ahead| (-ahead).max(0) as u64);
            let since = self.span(since);
            let text = self
                .language
                .pick([format!("{why}, for {since}"), format!("{why}，已持续 {since}")]);
            self.trouble(["nothing is delivered", "不发送消息"], &text);
        }
        if let Some(why) = self.line_of("/draining") {
            let by = self.line_of("/draining_by").unwrap_or_default();
            let why = self.language.pick([why, format!("由 {by} 下令")]);
            let left = self.count("/queue_depth");
            let text = self.language.pick([
                format!("{why}: requests are refused, {left} messages are left"),
                format!("{why}：拒绝新请求，还剩 {left} 条消息"),
            ]);
            self.trouble(["draining", "正在排空"], &text);
        }
        self.cancels();
    }

    /// Who paused sending, where the page's language is not the daemon's.
    fn paused(&self) -> Option<String> {
        let by = self.line_of("/paused_by").filter(|_| self.language == Language::Chinese)?;
        Some(match self.line_of("/paused_why").filter(|why| !why.is_empty()) {
            Some(why) => format!("由 {by} 暂停：{why}"),
            None => format!("由 {by} 暂停"),
        })
    }

    /// The daemon's own words for a reason, likewise.
    fn reason(&self, trouble: &str) -> Option<String> {
        if self.language != Language::Chinese {
            return None;
        }
        let (clients, limit) = (self.number("/clients"), self.number("/clients_limit"));
        match trouble {
            "full" if self.text("/full") == Some(QUEUE_FULL) => {
                Some("达到 queue.queue_max_bytes".into())
            }
            "crowded" if clients >= limit => {
                Some(format!("已连接 {clients} 个客户端，setting.max_conn = {limit}"))
            }
            "crowded" => Some("setting.memory_limit 已无空间容纳更多客户端".into()),
            "blocked" => Some(format!("{} 条失败消息等待记录", self.count("/unrecorded"))),
            _ => None,
        }
    }

    fn cause(&self, name: &'a str) -> &'a str {
        match name {
            "rate" => self.say(["a limit of the account", "账号限额"]),
            "config" => self.say(["the account or the configuration", "账号或配置有误"]),
            "unreachable" => self.say(["no usable answer from WeChat", "微信没有可用的应答"]),
            "daily_limit" => self.say(["the day's limit", "每日限额"]),
            other => other,
        }
    }

    /// What somebody should look at.
    pub(super) fn troubles(&mut self) {
        self.steered();
        if let Some(why) = self.line_of("/suspended") {
            let cause = self.text("/suspended_cause").unwrap_or_default();
            let why = match (self.language, cause) {
                (Language::Chinese, "daily_limit") => {
                    format!(
                        "已达到 daily_limit = {}，到 UTC+8 零点为止",
                        self.count("/daily_limit")
                    )
                }
                _ => why,
            };
            let cause = self.cause(cause);
            self.trouble(["sending is suspended", "已暂停发送"], &why);
            let since = self.ahead("/suspended_since").map_or(0, |ahead| (-ahead).max(0) as u64);
            let probe = self.ahead("/next_probe").map(|ahead| self.span(ahead.max(0) as u64));
            let since = self.span(since);
            let text = match (self.language, probe) {
                (Language::English, Some(probe)) => {
                    format!("{cause}, for {since}; asks again in {probe}")
                }
                (Language::English, None) => format!("{cause}, for {since}; is asking right now"),
                (Language::Chinese, Some(probe)) => {
                    format!("{cause}，已持续 {since}；{probe}后再试探")
                }
                (Language::Chinese, None) => format!("{cause}，已持续 {since}；正在试探"),
            };
            self.lines.push(format!("  {text}"));
        }
        // What was ordered is told above.
        for trouble in TROUBLES.iter().filter(|trouble| trouble.kind != Kind::Ordered) {
            if let Some(why) = self.line_of(&format!("/{}", trouble.name)) {
                let why = self.reason(trouble.name).unwrap_or(why);
                self.trouble(trouble.says, &why);
            }
        }
        if self.number("/damaged") > 0 {
            let (damaged, lost) = (self.count("/damaged"), self.count("/pushes/lost"));
            let text = match self.language {
                Language::English => {
                    format!("{damaged} parts cannot be read, {lost} messages lost; see the log")
                }
                Language::Chinese => format!("{damaged} 处无法读取，丢失 {lost} 条消息；查看日志"),
            };
            self.trouble(["the queue's files are damaged", "队列文件损坏"], &text);
        }
        for Disk { names, free, total, .. } in self.on_disks() {
            if (free as f64) * 100.0 < SCARCE * total as f64 {
                let words = self.say(["is nearly full", "即将用尽"]);
                self.trouble(["the disk", "磁盘"], &format!("{} {words}", names.join(", ")));
            }
        }
        if self.status["stopping"] == true {
            let text = self.say(["no requests are taken any more", "不再接收请求"]);
            self.trouble(["stopping", "正在停止"], text);
        }
    }
}
