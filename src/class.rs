//! The one table of what an attempt can come to: for sending as a whole, for a push, and for a send whose
//! client waits. Names, statistics, `[errcode]` and README's table come from it. Pure data.

use serde::{Deserialize, Serialize};

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Ok,
    Token,
    Later,
    Once,
    Rate,
    OpenidRate,
    Permanent,
    Config,
    Unreachable,
    Unclear,
    Data,
    Internal,
    Unknown,
    Cancelled,
}

/// What it says about sending as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// WeChat has answered, and the answer speaks of this message alone.
    Opens,
    /// One failure of a run that closes the gate when it is so long.
    Fails { in_a_row: u32 },
    /// Nobody's message would fare better now.
    Closes(Fault),
    /// WeChat was not asked.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A limit of the account.
    Rate,
    /// The account or the configuration.
    Config,
    /// Nobody answers, or nothing that is of use.
    Unreachable,
}

/// What becomes of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Done,
    Fails,
    /// Again later, `retry_max` attempts in all.
    Again,
    /// Again later, two attempts in all.
    AgainOnce,
    /// As `Again`, while WeChat would recognise the repeat.
    AgainUnclear,
    /// First in line again, and no attempt is charged.
    Back,
}

/// What becomes of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    Done,
    Answered,
    /// Tried again while its client waits.
    Again,
    /// Tried once more, if its client waits so long.
    AgainOnce,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub class: Class,
    pub name: &'static str,
    /// `[errcode]` may give a code this class.
    pub given: bool,
    pub gate: Gate,
    pub push: Push,
    pub send: Send,
    /// For people: an example, and what happens to a push, in English and in Chinese.
    pub example: [&'static str; 2],
    pub fate: [&'static str; 2],
}

const UNANSWERED: Gate = Gate::Fails { in_a_row: 3 };

macro_rules! rows {
    ($($class:ident $name:literal $given:literal $gate:expr, $push:ident, $send:ident,
        $example:expr, $fate:expr;)*) => {
        &[$(Row {
            class: Class::$class,
            name: $name,
            given: $given,
            gate: $gate,
            push: Push::$push,
            send: Send::$send,
            example: $example,
            fate: $fate,
        },)*]
    };
}

/// In the order of `Class`.
pub const TABLE: &[Row] = rows! {
    Ok "ok" true Gate::Opens, Done, Done,
        ["0", "0"], ["done", "完成"];
    Token "token" true UNANSWERED, Back, Again,
        ["40001, 42001", "40001、42001"],
        ["one new token for all workers, then again at once", "全部发送线程共用一个新 token，随即重试"];
    Later "later" true Gate::Fails { in_a_row: 10 }, Again, Again,
        ["-1", "-1"],
        ["again after 1 s, 2 s, 4 s ... up to `retry_cap`, `retry_max` times in all; ten in a row stop sending, too",
         "1 秒、2 秒、4 秒……后重试，间隔不超过 `retry_cap`，总共 `retry_max` 次；连续十次也会暂停发送"];
    Once "once" true Gate::Opens, AgainOnce, AgainOnce,
        ["43101, unknown codes, HTTP 413", "43101、未列出的代码、HTTP 413"], ["tried once more; an unknown code for many people and no success between stops sending, as config", "再试一次；许多人得到同一未列出的代码而其间无一成功时，如 config 暂停发送"];
    Rate "rate" true Gate::Closes(Fault::Rate), Back, Answered,
        ["45009, HTTP 429", "45009、HTTP 429"],
        ["nobody sends until the limit's next window; nothing is charged an attempt",
         "到限额的下一个窗口之前全部暂停，不计次数"];
    OpenidRate "openid_rate" true Gate::Opens, Again, Answered,
        ["43117", "43117"], ["this message later", "只推迟这条消息"];
    Permanent "permanent" true Gate::Opens, Fails, Answered,
        ["40003, 43004", "40003、43004"], ["failed at once", "立即失败"];
    Config "config" true Gate::Closes(Fault::Config), Back, Answered,
        ["40164, 48001, 50002", "40164、48001、50002"],
        ["sending stops, one message probes every 30 s, goes on by itself",
         "暂停发送，每 30 秒用一条消息试探，好转后自动继续"];
    Unreachable "unreachable" false UNANSWERED, Back, Again,
        ["no connection, DNS, TLS", "连接不上、DNS、TLS"],
        ["first in line again, no attempt is charged; several in a row stop sending until a probe gets through",
         "排回队首，不计次数；连续多次则暂停发送，直到试探成功"];
    Unclear "unclear" false UNANSWERED, AgainUnclear, Again,
        ["timeouts, HTTP 5xx, an HTTP 4xx that is not WeChat's JSON", "超时、HTTP 5xx、内容并非微信 JSON 的 HTTP 4xx"],
        ["as later, while WeChat would recognise the repeat; several in a row stop sending, and probes are charged no attempt",
         "同 later，但只在微信能识别重复的时间内重试；连续多次则暂停发送，试探不计次数"];
    Data "data" false Gate::Silent, Fails, Answered,
        ["the template is gone, or (refuse) the data lacks a variable",
         "模板已不存在，或（refuse）数据缺少变量"], ["failed at once", "立即失败"];
    Internal "internal" false Gate::Silent, AgainUnclear, Answered,
        ["a fault of mega", "mega 自身的故障"], ["as later", "同 later"];
    Unknown "unknown" false Gate::Silent, Fails, Answered,
        ["unclear for ten minutes", "十分钟仍不明"],
        ["failed: WeChat may have it, and would not recognise a repeat",
         "失败：微信可能已收到，且不再识别重复"];
    Cancelled "cancelled" false Gate::Silent, Fails, Answered,
        ["`mega NAME cancel`", "`mega NAME cancel`"],
        ["ended by an operator before its turn; `requeue` queues it again", "由操作员在发送前取消；可用 `requeue` 重新入队"];
};

impl Class {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }
}

const fn given() -> usize {
    let (mut count, mut n) = (0, 0);
    while n < TABLE.len() {
        count += TABLE[n].given as usize;
        n += 1;
    }
    count
}

/// Those that `[errcode]` may name: the first rows.
pub const GIVEN: [(&str, Class); given()] = {
    let mut names = [("", Class::Ok); given()];
    let mut n = 0;
    while n < names.len() {
        assert!(TABLE[n].given);
        names[n] = (TABLE[n].name, TABLE[n].class);
        n += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_row() {
        for (n, row) in TABLE.iter().enumerate() {
            assert_eq!(row.class as usize, n);
            assert_eq!(row.class.row().name, row.name);
            assert_eq!(serde_json::to_value(row.class).unwrap(), row.name);
        }
        assert_eq!(TABLE.last().unwrap().class, Class::Cancelled);
    }

    #[test]
    fn only_what_was_not_sent_or_concerns_everybody_charges_no_attempt() {
        for row in TABLE {
            let alone = matches!(row.gate, Gate::Opens | Gate::Silent);
            assert!(!alone || row.push != Push::Back, "{} would come back for ever", row.name);
            let closes = matches!(row.gate, Gate::Closes(_));
            assert!(
                !closes || (row.push, row.send) == (Push::Back, Send::Answered),
                "{}",
                row.name
            );
            assert_eq!(row.push == Push::Done, row.send == Send::Done, "{}", row.name);
        }
    }

    #[test]
    fn both_manuals_show_this_table() {
        for (language, manual) in
            [include_str!("../README.md"), include_str!("../README.zh-CN.md")].iter().enumerate()
        {
            for row in TABLE {
                let line = format!(
                    "| {} | {} | {} |",
                    row.name, row.example[language], row.fate[language]
                );
                assert!(manual.lines().any(|l| l == line), "not in the manual: {line}");
            }
        }
    }
}
