//! For what reasons somebody is told no: requests that are not taken in, and clients that are shown the door.

macro_rules! refusals {
    ($($name:ident $word:literal $meaning:expr;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($name,)*
        }

        impl Refusal {
            pub const ALL: &[Refusal] = &[$(Refusal::$name),*];

            /// As `status --json` and `/metrics` call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Refusal::$name => $word,)*
                }
            }

            /// For people, in English and in Chinese.
            pub fn meaning(self) -> [&'static str; 2] {
                match self {
                    $(Refusal::$name => $meaning,)*
                }
            }
        }
    };
}

refusals! {
    QueueFull "queue_full" ["`queue.queue_max_bytes` is reached", "达到 `queue.queue_max_bytes`"];
    NoRoom "no_room" ["no room on the disk for the queue's next segment", "磁盘没有空间容纳队列的下一个段"];
    SendsFull "sends_full" ["too many sends wait", "等待中的 send 过多"];
    Ids "ids" ["an id, while too many wait (`queue.ids_max`) or those in the queue are being read", "带 id 的请求：等待中的 id 过多（`queue.ids_max`），或正在读取队列中的 id"];
    Memory "memory" ["`setting.memory_limit` is reached", "达到 `setting.memory_limit`"];
    Suspended "suspended" ["a send while sending is suspended", "暂停发送期间的 send"];
    Stopping "stopping" ["the daemon is stopping", "守护进程正在停止"];
    Draining "draining" ["the daemon is being drained", "守护进程正在排空队列"];
    TooLarge "too_large" ["a push that fits into no segment", "消息大于队列的一个段"];
    NoTemplate "no_template" ["there is no such template", "没有该模板"];
    BadData "bad_data" ["the variables are not a JSON object", "变量不是 JSON 对象"];
    BadFrame "bad_frame" ["bytes that are no command; the client is closed", "无法识别的命令；断开该客户端"];
    FrameTooLong "frame_too_long" ["a frame over `setting.package_max_length`; the client is closed", "帧超过 `setting.package_max_length`；断开该客户端"];
    NotAllowed "not_allowed" ["a client that is not among `server.allow[]`", "客户端不在 `server.allow[]` 中"];
    MaxConn "max_conn" ["a client beyond `setting.max_conn`", "客户端数超过 `setting.max_conn`"];
    ClosedForMemory "closed_for_memory" ["a client closed because of `setting.memory_limit`", "因 `setting.memory_limit` 断开的客户端"];
    ClosedForTime "closed_for_time" ["a client closed after `setting.heartbeat_idle_time` in the middle of something", "超过 `setting.heartbeat_idle_time` 仍未完成而断开的客户端"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manuals_show_this_table_and_no_other_row() {
        for (language, manual, head) in [
            (0, include_str!("../../README.md"), "| reason | what was turned down |"),
            (1, include_str!("../../README.zh-CN.md"), "| 原因 | 被拒绝的是什么 |"),
        ] {
            let after = manual.split_once(head).expect("the table's head").1;
            let rows = after.lines().skip(2).take_while(|line| line.starts_with('|'));
            let row = |it: &Refusal| format!("| `{}` | {} |", it.name(), it.meaning()[language]);
            let table: Vec<String> = Refusal::ALL.iter().map(row).collect();
            assert_eq!(rows.collect::<Vec<_>>(), table);
        }
    }

    #[test]
    fn each_stands_where_its_number_says() {
        for (n, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, n);
            assert!(refusal.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(refusal.meaning().iter().all(|words| !words.is_empty()));
        }
    }
}
