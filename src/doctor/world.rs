//! WeChat as it is seen from here: names, connections, certificates, clocks, and whether the account gets a
//! token. Each on a thread of its own.

use super::Patient;
use crate::clock::unix_seconds;
use crate::config::TokenSource;
use crate::trial::{Finding, plain};
use crate::wechat::client::{Client, Network};
use crate::wechat::errcode::Errcodes;
use crate::wechat::meaning;
use crate::wechat::probe;
use crate::wechat::token::Tokens;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// A clock that is off by more seconds is worth a warning, and is wrong.
const SKEW_WARNING: u64 = 5;
const SKEW_WRONG: u64 = 60;

/// A certificate that ends sooner is worth a warning: whoever renews it should have done so.
const CERTIFICATE_DAYS: i64 = 14;

const DAY: i64 = 86_400;

/// A name that takes longer keeps every new connection waiting.
const SLOW_NAME: Duration = Duration::from_secs(1);

/// The host's addresses, or the proxy's, which looks up the rest.
pub fn names(patient: &Patient, host: &str) -> Vec<Finding> {
    let wechat = &patient.config.wechat;
    let url = wechat.proxy.as_deref().unwrap_or(host);
    let uri: Uri = url.parse().unwrap_or_default();
    let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let subject = format!("dns {name}");
    if name.parse::<IpAddr>().is_ok() {
        return vec![Finding::ok(subject, ["an address, no name to look up", "是地址，无需解析"])];
    }
    let began = Instant::now();
    let found = (name, uri.port_u16().unwrap_or(443)).to_socket_addrs();
    let took = began.elapsed();
    let todo = [
        "see /etc/resolv.conf and /etc/hosts; getent hosts shows what this machine finds",
        "检查 /etc/resolv.conf 与 /etc/hosts；用 getent hosts 查看解析结果",
    ];
    let ms = took.as_millis();
    vec![match found {
        Ok(addresses) => {
            let addresses: Vec<String> =
                addresses.map(|address| address.ip().to_string()).collect();
            let addresses = addresses.join(", ");
            let what = [format!("{addresses} ({ms} ms)"), format!("{addresses}（{ms} 毫秒）")];
            match took < SLOW_NAME {
                true => Finding::ok(subject, what),
                false => Finding::warning(subject, what, todo),
            }
        }
        Err(error) => {
            let what = [
                format!("cannot be looked up: {error} ({ms} ms)"),
                format!("无法解析：{error}（{ms} 毫秒）"),
            ];
            Finding::wrong(subject, what, todo)
        }
    }]
}

/// Whether it answers, until when it is certified, and what time it has.
pub fn host(patient: &Patient, host: &str) -> Vec<Finding> {
    let began = Instant::now();
    let met = match probe::meet(&patient.config, host) {
        Ok(met) => met,
        Err(why) => return vec![Finding::wrong(host, plain(why), CONNECT)],
    };
    let ms = began.elapsed().as_millis();
    let mut found = vec![match met.answered {
        Ok(()) => Finding::ok(host, [format!("answers ({ms} ms)"), format!("有应答（{ms} 毫秒）")]),
        Err(why) => Finding::wrong(host, plain(why), CONNECT),
    }];
    found.extend(met.certified_until.map(|end| certificate(host, end, unix_seconds() as i64)));
    found.extend(met.ahead.map(|ahead| clock(host, ahead)));
    found
}

const CONNECT: [&str; 2] = [
    "see whether a firewall, wechat.proxy or wechat.ca_file is in the way; curl -v shows more",
    "检查防火墙、wechat.proxy 与 wechat.ca_file；用 curl -v 查看详情",
];

fn certificate(host: &str, end: i64, now: i64) -> Finding {
    let subject = format!("certificate {host}");
    let days = (end - now).div_euclid(DAY);
    let what = [format!("valid for {days} more days"), format!("还有 {days} 天有效")];
    let todo = [
        "WeChat's own are renewed in time: see who answers in its place, and what time it is here",
        "微信自己的证书会按时更新：检查是谁在代为应答，以及本机时间",
    ];
    match days {
        ..0 => {
            let what = [format!("ended {} days ago", -days), format!("已过期 {} 天", -days)];
            Finding::wrong(subject, what, todo)
        }
        0..CERTIFICATE_DAYS => Finding::warning(subject, what, todo),
        _ => Finding::ok(subject, what),
    }
}

fn clock(host: &str, ahead: i64) -> Finding {
    let subject = format!("clock {host}");
    let seconds = ahead.unsigned_abs();
    let what = match ahead {
        0 => ["as WeChat's".to_owned(), "与微信一致".to_owned()],
        1.. => [
            format!("this machine's clock is {seconds} s behind WeChat's"),
            format!("本机时钟比微信慢 {seconds} 秒"),
        ],
        _ => [
            format!("this machine's clock is {seconds} s ahead of WeChat's"),
            format!("本机时钟比微信快 {seconds} 秒"),
        ],
    };
    let todo = [
        "let chrony or systemd-timesyncd set the clock: timedatectl set-ntp true",
        "用 chrony 或 systemd-timesyncd 校时：timedatectl set-ntp true",
    ];
    if seconds > SKEW_WRONG {
        return Finding::wrong(subject, what, todo);
    }
    match seconds > SKEW_WARNING {
        true => Finding::warning(subject, what, todo),
        false => Finding::ok(subject, what),
    }
}

/// One call with the configured account, at most.
pub fn token(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    if patient.premises.running.is_some() && config.wechat.token_source == TokenSource::Classic {
        let what = [
            "not fetched: the daemon runs, and a new classic token would end the one it uses",
            "未获取：守护进程正在运行，新的 classic token 会使它正在用的失效",
        ];
        return vec![Finding::ok("token", what)];
    }
    let network = match Network::open(config) {
        Ok(network) => network,
        Err(why) => return vec![Finding::wrong("token", plain(why), CONNECT)],
    };
    let tokens = Tokens::new(config, Arc::new(Errcodes::new(&config.errcode)));
    let began = Instant::now();
    vec![match tokens.get(&mut Client::new(network)) {
        Ok(_) => {
            let ms = began.elapsed().as_millis();
            let what = [
                format!("the account gets one ({ms} ms)"),
                format!("账号可以获取 token（{ms} 毫秒）"),
            ];
            Finding::ok("token", what)
        }
        Err(why) => {
            let todo = why.errcode.and_then(meaning::of).unwrap_or(CONNECT);
            Finding::wrong("token", plain(why.text), todo)
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Level::{Ok, Warning, Wrong};

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_either_way() {
        for (seconds, level) in
            [(0, Ok), (5, Ok), (6, Warning), (60, Warning), (61, Wrong), (86_400, Wrong)]
        {
            for ahead in [seconds, -seconds] {
                assert_eq!(clock("h", ahead).level, level, "{ahead}");
            }
        }
        assert!(clock("h", 7).what[0].contains("behind"));
        assert!(clock("h", -7).what[0].contains("ahead"));
    }

    #[test]
    fn a_certificate_is_judged_by_the_days_it_has_left() {
        for (seconds, level) in [(-1, Wrong), (0, Warning), (14 * DAY - 1, Warning), (14 * DAY, Ok)]
        {
            assert_eq!(certificate("h", 1_000_000_000 + seconds, 1_000_000_000).level, level);
        }
        assert!(certificate("h", 0, 3 * DAY).what[0].contains("3 days ago"));
    }
}
