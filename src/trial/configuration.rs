//! What a configuration allows that its operator may not have meant, by its values alone and by the file's
//! own mode. On whatever thread asks; opens nothing.

use super::{Finding, paths, plain};
use crate::config::{Config, Dsn};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

/// Those that were found when the file was read: each names its line and its key.
pub fn warnings(config: &Config) -> Vec<Finding> {
    let todo = ["correct the line, or remove it", "改正或删除该行"];
    config.warnings.iter().map(|text| Finding::warning("", plain(text), todo)).collect()
}

/// What can be said beside those.
pub fn cautions(config: &Config) -> Vec<Finding> {
    let mode = std::fs::metadata(&config.file).map_or(0, |file| file.permissions().mode());
    let root = rustix::process::geteuid().is_root();
    let mut findings = exposed(config, mode, root);
    findings.extend(account(config));
    findings.extend(collisions(config));
    findings.extend(charset_of(config));
    findings.extend(paths::shared(config));
    findings.extend(paths::too_long(config));
    findings
}

/// What others on this machine or in the network can reach.
fn exposed(config: &Config, mode: u32, root: bool) -> Vec<Finding> {
    let file = config.file.display();
    let mut findings = Vec::new();
    if mode & 0o004 != 0 {
        findings.push(Finding::warning(
            "wechat.app_secret, pdo.password",
            [
                format!("everybody on this machine can read the secrets in {file}"),
                format!("本机所有用户都能读取 {file} 中的密钥"),
            ],
            plain(format!("chmod 640 {file}")),
        ));
    }
    if mode & 0o002 != 0 {
        findings.push(Finding::warning(
            "configuration",
            [
                format!("everybody on this machine can change {file}"),
                format!("本机所有用户都能修改 {file}"),
            ],
            plain(format!("chmod 640 {file}")),
        ));
    }
    let public = config.server.listen.iter().filter(|address| !address.ip().is_loopback());
    for address in public.filter(|_| config.server.allow.is_empty()) {
        findings.push(Finding::warning(
            "server.listen[]",
            [
                format!("everybody who reaches {address} may send messages"),
                format!("任何能访问 {address} 的人都可以发送消息"),
            ],
            ["name the clients' networks in server.allow[]", "在 server.allow[] 中写明客户端网段"],
        ));
    }
    if root && config.setting.user.is_none() {
        findings.push(Finding::warning(
            "setting.user",
            ["mega would run as root, which it does not need", "mega 将以 root 运行，并无必要"],
            ["name a user of its own in setting.user", "在 setting.user 中指定专用用户"],
        ));
    }
    findings
}

/// WeChat's own account ids and secrets have a form; where a fake WeChat is asked, anything goes.
fn account(config: &Config) -> Vec<Finding> {
    let wechat = &config.wechat;
    if !wechat.api_hosts.iter().any(|host| host.ends_with(".weixin.qq.com")) {
        return Vec::new();
    }
    let is_hex =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let id = wechat.app_id.strip_prefix("wx").is_some_and(|rest| rest.len() == 16 && is_hex(rest));
    let secret = wechat.app_secret.expose();
    let secret = secret.len() == 32 && is_hex(secret);
    let todo = [
        "copy it from mp.weixin.qq.com, Settings > Basic configuration",
        "从 mp.weixin.qq.com 的「设置与开发 > 基本配置」复制",
    ];
    let mut findings = Vec::new();
    if !id {
        let what = ["it is not wx and 16 hexadecimal digits", "应为 wx 加 16 位十六进制数字"];
        findings.push(Finding::warning("wechat.app_id", what, todo));
    }
    if !secret {
        let what = ["it is not 32 hexadecimal digits", "应为 32 位十六进制数字"];
        findings.push(Finding::warning("wechat.app_secret", what, todo));
    }
    findings
}

/// The daemon speaks utf8mb4 to the database, whatever stands there.
fn charset_of(config: &Config) -> Option<Finding> {
    let Dsn::Mysql { charset, .. } = &config.pdo.dsn else { return None };
    // MySQL's first utf8 is what the original's files have, and holds less.
    let known = ["utf8mb4", "utf8", "utf8mb3"];
    (!known.iter().any(|name| charset.eq_ignore_ascii_case(name))).then(|| {
        let what = [
            format!("charset={charset} cannot hold every character, and is not gone by"),
            format!("charset={charset} 容纳不了所有字符，不会采用"),
        ];
        let todo = ["write charset=utf8mb4", "改为 charset=utf8mb4"];
        Finding::warning("pdo.dsn", what, todo)
    })
}

/// Addresses of which only one can be bound.
fn collisions(config: &Config) -> Vec<Finding> {
    let listen = config.server.listen.iter().map(|address| ("server.listen[]", address));
    let metrics = config.metrics.listen.iter().map(|address| ("metrics.listen", address));
    let all: Vec<_> = listen.chain(metrics).collect();
    let mut findings = Vec::new();
    for (place, (key, address)) in all.iter().enumerate() {
        let earlier = all[..place].iter().find(|(_, other)| overlap(address, other));
        findings.extend(earlier.map(|(_, other)| {
            let what = [
                format!("{address} cannot be bound beside server.listen[] = {other}"),
                format!("{address} 与 server.listen[] = {other} 冲突，无法同时监听"),
            ];
            Finding::wrong(*key, what, ["choose another port", "换一个端口"])
        }));
    }
    findings
}

/// An IPv6 socket for all addresses takes the port of all IPv4 addresses, too (ipv6(7), bindv6only).
pub fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers = |all: &SocketAddr, it: &SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || it.is_ipv4())
    };
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    one.port() != 0 && one.port() == other.port() && same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::config;

    fn subjects(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn each_danger_is_named_and_nothing_else() {
        let exposed = |more: &str, mode, root| subjects(exposed(&config(more), mode, root));
        assert!(exposed("", 0o640, false).is_empty());
        assert_eq!(exposed("", 0o644, false), ["wechat.app_secret, pdo.password"]);
        assert_eq!(exposed("", 0o642, false), ["configuration"]);
        // The account behind a server on this machine may be a real one.
        let loopback = exposed("api_hosts = http://127.0.0.1:1", 0o644, false);
        assert_eq!(loopback, ["wechat.app_secret, pdo.password"]);
        let public = "[server]\nlisten[] = 127.0.0.1:1\nlisten[] = [::]:2\n";
        let found = super::exposed(&config(public), 0o640, false);
        assert!(found.len() == 1 && found[0].what[0].contains("[::]:2"), "{found:?}");
        assert!(exposed(&format!("{public}allow[] = 10.0.0.0/8"), 0o640, false).is_empty());
        assert_eq!(exposed("", 0o640, true), ["setting.user"]);
        assert!(exposed("[setting]\nuser = nobody", 0o640, true).is_empty());
    }

    #[test]
    fn an_account_of_wechats_has_a_form_and_one_of_a_fake_has_none() {
        let account = |more: &str| subjects(account(&config(more)));
        assert_eq!(account(""), ["wechat.app_id", "wechat.app_secret"]);
        assert!(account("api_hosts = http://127.0.0.1:1").is_empty());
        let good = "app_id = wx10c4b54cf0aae125\napp_secret = e01207cc547f62d73f5099aae83a9f15";
        assert!(account(good).is_empty());
        assert_eq!(account("app_id = wx10c4b54cf0aae125"), ["wechat.app_secret"]);
    }

    #[test]
    fn only_a_charset_that_the_originals_files_have_is_taken_for_utf8mb4() {
        let of = |charset: &str| {
            charset_of(&config(&format!(
                "[pdo]\ndsn = \"mysql:host=h;dbname=d;charset={charset}\""
            )))
        };
        assert!(["utf8", "UTF8MB4", "utf8mb3"].iter().all(|name| of(name).is_none()));
        assert!(of("latin1").is_some_and(|found| found.what[0].starts_with("charset=latin1")));
        assert!(charset_of(&config("")).is_none());
    }

    #[test]
    fn addresses_collide_by_port_and_by_what_they_cover() {
        let collide = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(overlap(&one, &other), overlap(&other, &one));
            overlap(&one, &other)
        };
        assert!(collide("127.0.0.1:1", "127.0.0.1:1"));
        assert!(collide("127.0.0.1:1", "0.0.0.0:1"));
        assert!(collide("127.0.0.1:1", "[::]:1") && collide("[::1]:1", "[::]:1"));
        assert!(!collide("[::1]:1", "0.0.0.0:1") && !collide("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0") && !collide("127.0.0.1:1", "0.0.0.0:2"));
    }
}
