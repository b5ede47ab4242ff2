//! What a changed file means to a daemon that runs: which settings differ, which of them a reload takes over, and
//! which need a restart. The table of keys says which is which; pure.

use super::key::Key;
use super::{Config, Log, Queue, Server, Setting, Wechat, keys};
use std::fmt;

/// A setting that is another than before. Secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As it stands in a file: `server.table_size`, `errcode.43101`.
    pub name: String,
    pub old: String,
    pub new: String,
}

/// Of a secret nothing is shown but that it is another.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { name, old, new, .. } = self;
        let shown =
            |value: &str| if value.is_empty() { "(none)".to_owned() } else { value.to_owned() };
        write!(f, "{name}: {} -> {}", shown(old), shown(new))
    }
}

impl Config {
    /// What `fresh` has otherwise, in the order of the table of keys.
    pub fn differences(&self, fresh: &Config) -> Vec<Difference> {
        keys::ALL.iter().flat_map(|key| self.differing(fresh, key)).collect()
    }

    fn differing(&self, fresh: &Config, key: &'static Key) -> Vec<Difference> {
        let difference = |name: String, old: String, new: String| Difference { name, old, new };
        if key.section == "errcode" {
            let class = |config: &Config, code: i64| {
                let given = config.errcode.iter().find(|(given, _)| *given == code);
                given.map_or(String::new(), |(_, class)| class.name().to_owned())
            };
            let mut codes: Vec<i64> =
                self.errcode.iter().chain(&fresh.errcode).map(|(code, _)| *code).collect();
            codes.sort_unstable();
            codes.dedup();
            let changed =
                codes.into_iter().map(|code| (code, class(self, code), class(fresh, code)));
            return changed
                .filter(|(_, old, new)| old != new)
                .map(|(code, old, new)| difference(format!("errcode.{code}"), old, new))
                .collect();
        }
        let values = |config: &Config| {
            let values: Vec<String> =
                config.settings(key).into_iter().map(|(_, value)| value).collect();
            values.join(", ")
        };
        let (old, new) = (values(self), values(fresh));
        match old != new || self.secret(key) != fresh.secret(key) {
            true => vec![difference(key.to_string(), old, new)],
            false => Vec::new(),
        }
    }

    /// The value itself where it is never shown.
    fn secret(&self, key: &Key) -> Option<&str> {
        match (key.section, key.name) {
            ("pdo", "password") => Some(&self.pdo.password),
            ("wechat", "app_secret") => Some(self.wechat.app_secret.expose()),
            ("wechat", "proxy") => self.wechat.proxy.as_deref(),
            _ => None,
        }
    }

    /// WeChat is reached in the same way as with `other`.
    pub fn has_the_network_of(&self, other: &Config) -> bool {
        let way = |config: &Config| {
            let Wechat { api_hosts, connect_timeout, timeout, proxy, ca_file, .. } =
                config.wechat.clone();
            (api_hosts, connect_timeout, timeout, proxy, ca_file)
        };
        // A file may have another content under the same name.
        way(self) == way(other) && self.wechat.ca_file.is_none()
    }

    /// This configuration with all of `fresh` that a reload takes over.
    pub fn take_over(&self, fresh: &Config) -> Config {
        Config {
            server: Server {
                allow: fresh.server.allow.clone(),
                table_size: fresh.server.table_size,
                template_size: fresh.server.template_size,
                ..self.server.clone()
            },
            setting: Setting {
                task_worker_num: fresh.setting.task_worker_num,
                max_conn: fresh.setting.max_conn,
                heartbeat_idle_time: fresh.setting.heartbeat_idle_time,
                buffer_output_size: fresh.setting.buffer_output_size,
                memory_limit: fresh.setting.memory_limit,
                unavailable_code: fresh.setting.unavailable_code,
                stop_timeout: fresh.setting.stop_timeout,
                ..self.setting.clone()
            },
            queue: Queue {
                ids_max: fresh.queue.ids_max,
                send_first: fresh.queue.send_first,
                retry_max: fresh.queue.retry_max,
                retry_base: fresh.queue.retry_base,
                retry_cap: fresh.queue.retry_cap,
                ..self.queue.clone()
            },
            pdo: fresh.pdo.clone(),
            wechat: Wechat {
                app_id: self.wechat.app_id.clone(),
                token_source: self.wechat.token_source,
                ..fresh.wechat.clone()
            },
            errcode: fresh.errcode.clone(),
            log: Log { log_level: fresh.log.log_level, ..self.log.clone() },
            warnings: fresh.warnings.clone(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::describe::tests::{ALL_SET, read};
    use super::super::key::{Allowed, TakenOver};
    use super::*;

    const LEAST: &str = "[wechat]\napp_id = a\napp_secret = s\n";

    fn names(differences: &[Difference]) -> Vec<String> {
        differences.iter().map(|difference| difference.name.clone()).collect()
    }

    fn needs_restart(difference: &Difference) -> bool {
        let (section, name) = difference.name.split_once('.').unwrap();
        keys::find(section, name).unwrap().taken_over == TakenOver::ByRestart
    }

    #[test]
    fn every_key_that_differs_is_named_and_none_that_does_not() {
        let (old, new) = (read(LEAST), read(ALL_SET));
        let differing = names(&old.differences(&new));
        let changeable =
            keys::ALL.iter().filter(|k| !matches!(k.allowed, Allowed::Ignored | Allowed::Only(_)));
        for key in changeable.filter(|key| key.section != "errcode") {
            assert!(differing.contains(&key.to_string()), "{key}");
        }
        assert_eq!(old.differences(&old), []);
    }

    #[test]
    fn what_a_reload_takes_over_is_what_the_table_says() {
        let (old, new) = (read(LEAST), read(ALL_SET));
        let taken = old.take_over(&new);
        assert!(old.differences(&taken).iter().all(|it| !needs_restart(it)));
        let left = taken.differences(&new);
        assert!(left.iter().all(needs_restart), "{left:?}");
        assert!(!left.is_empty());
    }

    #[test]
    fn a_secret_that_changed_is_told_and_not_shown() {
        let with = |secret: &str, password: &str, proxy: &str| {
            read(&format!(
                "[wechat]\napp_id = a\napp_secret = {secret}\nproxy = {proxy}\n[pdo]\npassword = {password}"
            ))
        };
        let old = with("hunter2", "hunter3", "http://u:hunter4@h:1");
        let told = old.differences(&with("hunter5", "hunter6", "http://u:hunter7@h:1"));
        let told: Vec<String> = told.iter().map(Difference::to_string).collect();
        let masked = [
            "pdo.password: *** -> ***",
            "wechat.app_secret: *** -> ***",
            "wechat.proxy: *** -> ***",
        ];
        assert_eq!(told, masked);
        let gone = old.differences(&with("hunter2", "", "none"));
        let told: Vec<String> = gone.iter().map(Difference::to_string).collect();
        assert_eq!(told, ["pdo.password: *** -> (none)", "wechat.proxy: *** -> none"]);
    }

    #[test]
    fn errcodes_are_told_one_by_one() {
        let with = |codes: &str| read(&format!("{LEAST}[errcode]\n{codes}"));
        let told = with("1 = rate\n2 = later").differences(&with("2 = once\n3 = rate"));
        let told: Vec<String> = told.iter().map(Difference::to_string).collect();
        let expected =
            ["errcode.1: rate -> (none)", "errcode.2: later -> once", "errcode.3: (none) -> rate"];
        assert_eq!(told, expected);
    }
}
