//! The one table of troubles that a status has as texts: what `status`, `health`, `doctor` and `/metrics` know
//! them by. Not among them is `suspended`, which has causes. Pure data.

pub struct Trouble {
    /// Of the field of a status, null where all is well, and of the label in `/metrics`.
    pub name: &'static str,
    pub kind: Kind,
    /// What stands before the reason, for people, in English and in Chinese.
    pub says: [&'static str; 2],
    /// What to do, likewise.
    pub todo: [&'static str; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Clients are turned away.
    TurnsAway,
    /// Nothing is delivered, and only somebody can put it right.
    Stops,
    /// What becomes of messages is not kept.
    Unrecorded,
    /// Somebody has ordered it.
    Ordered,
    /// Nothing stops for it.
    Other,
}

macro_rules! troubles {
    ($($name:literal $kind:ident $says:expr, $todo:expr;)*) => {
        &[$(Trouble { name: $name, kind: Kind::$kind, says: $says, todo: $todo },)*]
    };
}

pub const TROUBLES: &[Trouble] = troubles! {
    "full" TurnsAway ["nothing is taken in", "不再接收消息"],
        ["free space on the disk, or raise queue.queue_max_bytes: pushes are refused",
         "腾出磁盘空间，或增大 queue.queue_max_bytes：push 正被拒绝"];
    "crowded" TurnsAway ["no client is let in", "不再接受新的连接"],
        ["raise setting.max_conn (see also LimitNOFILE), or find the client that does not close its connections",
         "增大 setting.max_conn（另见 LimitNOFILE），或查找不关闭连接的客户端"];
    "paused" Ordered ["nothing is sent", "不发送消息"],
        ["sending goes on after: mega NAME resume", "恢复发送：mega NAME resume"];
    "draining" Ordered ["requests are refused", "拒绝新请求"],
        ["taken back by: mega NAME drain --cancel", "撤销：mega NAME drain --cancel"];
    "blocked" Stops ["no push is delivered", "不再发送 push"],
        ["see the ledger: sending goes on by itself when it can be written", "检查失败库：可写入后自动恢复发送"];
    "ledger" Unrecorded ["failed messages are not recorded", "失败消息无法记录"],
        ["see the disk and server.ledger_file", "检查磁盘与 server.ledger_file"];
    "message_log" Other ["the message log", "消息日志"],
        ["free space where log.message_log is", "腾出 log.message_log 所在磁盘的空间"];
    "log" Other ["the log", "日志"],
        ["free space where log.log_file is", "腾出 log.log_file 所在磁盘的空间"];
    "database" Other ["the database does not answer", "数据库无应答"],
        ["see to the templates' database", "检查模板数据库"];
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Cause, Stats};

    /// Whether an alert asks for this label, alone or among others.
    fn is_asked_for(label: &str, name: &str) -> bool {
        const ALERTS: &str = include_str!("../../scripts/alerts.yml");
        let after = ALERTS.split(label).skip(1).filter_map(|rest| rest.split('"').nth(1));
        after.flat_map(|names| names.split('|')).any(|known| known == name)
    }

    #[test]
    fn each_has_its_alert() {
        for trouble in TROUBLES {
            assert!(is_asked_for("what=", trouble.name), "no alert for {}", trouble.name);
        }
        assert!(is_asked_for("what=", "stopping") && !is_asked_for("what=", "nothing"));
        // One of them has an alert of its own, which leaves it out here; the other takes all the rest.
        for cause in Cause::ALL {
            let name = cause.name();
            assert_eq!(is_asked_for("cause=", name), name == "daily_limit");
        }
        assert!(is_asked_for("cause!=", "daily_limit"));
    }

    #[test]
    fn each_is_a_field_of_a_status_and_null_while_all_is_well() {
        let troubles = Stats::default().troubles();
        for trouble in TROUBLES {
            assert_eq!(
                troubles.get(trouble.name),
                Some(&serde_json::Value::Null),
                "{}",
                trouble.name
            );
        }
    }
}
