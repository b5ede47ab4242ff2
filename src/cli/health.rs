//! `health`: one line and an exit code as monitoring plugins have them (Nagios, Icinga, Zabbix, Sensu), with
//! performance data behind the bar. The words of such plugins are English everywhere.

use super::status::Asked;
use super::when::seconds;
use crate::exit;
use crate::output::printable;
use crate::stats::{Kind, TROUBLES};
use clap::Args;
use serde_json::Value;
use std::str::FromStr;

const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// Messages that must have ended in five minutes before their share of failures says anything.
const TELLING: f64 = 20.0;

#[derive(Args)]
pub struct Health {
    /// How long the next message may have waited: 90s, 5m, 2h; for a warning, and for critical
    #[arg(long, value_name = "WARN[,CRIT]", default_value = "5m,30m")]
    max_age: Limits<Age>,
    /// How many messages may be in the queue; without it any number
    #[arg(long, value_name = "WARN[,CRIT]")]
    max_depth: Option<Limits<Depth>>,
    /// How many of a hundred messages that ended in the last five minutes may have failed
    #[arg(long, value_name = "WARN[,CRIT]", default_value = "20,50")]
    max_failed_share: Limits<Share>,
}

/// From where on it is a warning, and from where on critical.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits<T> {
    warning: T,
    critical: Option<T>,
}

/// Seconds, messages, per cent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Age(u64);
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Depth(u64);
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Share(f64);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Age, String> {
        seconds(text).map(Age).ok_or_else(|| format!("{text} is no time: 90s, 5m, 2h, 1d"))
    }
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Depth, String> {
        text.parse().map(Depth).map_err(|_| format!("{text} is no number of messages"))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let share = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
        let share = share.filter(|share| (0.0..=100.0).contains(share));
        share.map(Share).ok_or_else(|| format!("{text} is no share: a number from 0 to 100"))
    }
}

impl<T: FromStr<Err = String> + PartialOrd> FromStr for Limits<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Limits<T>, String> {
        let (warning, critical) = match text.split_once(',') {
            Some((warning, critical)) => (warning.parse()?, Some(critical.parse()?)),
            None => (text.parse()?, None),
        };
        if critical.as_ref().is_some_and(|critical| warning > *critical) {
            return Err(format!("{text}: the limit of critical lies below that of a warning"));
        }
        Ok(Limits { warning, critical })
    }
}

/// What was found, the worst first in the end.
#[derive(Default)]
struct Findings(Vec<(u8, String)>);

impl Findings {
    fn add(&mut self, code: u8, text: String) {
        self.0.push((code, text));
    }

    /// Above one of two limits, if there are some.
    fn compare(&mut self, value: f64, warning: f64, critical: Option<f64>, text: String) {
        if critical.is_some_and(|critical| value > critical) {
            self.add(CRITICAL, text);
        } else if value > warning {
            self.add(WARNING, text);
        }
    }
}

/// Prints the line and returns its code.
pub fn health(name: &str, options: &Health, asked: Asked) -> u8 {
    let (code, line) = match asked {
        Asked::Runs(status) => judge(options, &status),
        Asked::Unheard { note, .. } => (UNKNOWN, note),
        Asked::Not { code: exit::UNKNOWN, why } => (UNKNOWN, why),
        Asked::Not { why, .. } => (CRITICAL, why),
    };
    report(name, code, &line)
}

/// What is told where nobody could be asked: a monitor takes any other exit code for a fault of the daemon.
pub fn unknown(why: &str) -> u8 {
    report("?", UNKNOWN, why)
}

fn report(name: &str, code: u8, line: &str) -> u8 {
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(code)];
    crate::say!("MEGA {name} {word} - {}", printable(line));
    code
}

/// The code, and what stands behind the word.
fn judge(options: &Health, status: &Value) -> (u8, String) {
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let rate = |name: &str| status["rates_5m"][name].as_f64().unwrap_or_default();
    let mut findings = Findings::default();
    troubles(status, &mut findings);

    let age = number("oldest_seconds");
    let Limits { warning: Age(warning), critical } = options.max_age;
    let critical = critical.map(|Age(seconds)| seconds as f64);
    findings.compare(
        age as f64,
        warning as f64,
        critical,
        format!("the next message has waited {age} s"),
    );
    let age_limits = limits(Some(warning as f64), critical);

    let depth = number("queue_depth");
    let warning = options.max_depth.map(|limits| limits.warning.0 as f64);
    let critical = options.max_depth.and_then(|limits| limits.critical).map(|it| it.0 as f64);
    let text = format!("{depth} messages are queued");
    findings.compare(depth as f64, warning.unwrap_or(f64::INFINITY), critical, text);
    let depth_limits = limits(warning, critical);

    let (delivered, failed) = (rate("delivered"), rate("failed"));
    let ended = delivered + failed;
    let share = if ended > 0.0 { (failed * 1_000.0 / ended).round() / 10.0 } else { 0.0 };
    let Limits { warning: Share(warning), critical } = options.max_failed_share;
    let critical = critical.map(|Share(share)| share);
    if ended * 300.0 >= TELLING {
        findings.compare(
            share,
            warning,
            critical,
            format!("{share} % have failed in five minutes"),
        );
    }
    let share_limits = limits(Some(warning), critical);

    let Findings(mut findings) = findings;
    // A stable sort: of the same weight, in the order in which they were found.
    findings.sort_by_key(|(code, _)| u8::MAX - code);
    let code = findings.first().map_or(OK, |(code, _)| *code);
    let texts: Vec<String> = findings.into_iter().map(|(_, text)| text).collect();
    let text = match texts.as_slice() {
        [] => format!("{depth} messages are queued, {delivered} a second are delivered"),
        texts => texts.join("; "),
    };
    let (accepted_all, delivered_all, failed_all) =
        (number("accepted"), number("delivered"), number("failed") + number("unrecorded"));
    // The bar would begin the figures.
    let text = text.replace('|', "/");
    let figures = format!(
        "queued={depth}{depth_limits};0 oldest={age}s{age_limits};0 failed_share={share}%{share_limits};0;100 \
         accepted={accepted_all}c delivered={delivered_all}c failed={failed_all}c in_flight={}",
        number("in_flight")
    );
    (code, format!("{text} | {figures}"))
}

fn limits(warning: Option<f64>, critical: Option<f64>) -> String {
    let shown = |limit: Option<f64>| limit.map_or(String::new(), |limit| limit.to_string());
    format!(";{};{}", shown(warning), shown(critical))
}

/// What the daemon itself calls a trouble. What stops delivery until somebody puts it right, and what turns clients
/// away, is critical; what passes by itself is a warning.
fn troubles(status: &Value, findings: &mut Findings) {
    if let Some(why) = status["suspended"].as_str() {
        let code = match status["suspended_cause"].as_str() {
            Some("rate" | "daily_limit") => WARNING,
            _ => CRITICAL,
        };
        findings.add(code, format!("sending is suspended: {why}"));
    }
    for trouble in TROUBLES {
        if let Some(why) = status[trouble.name].as_str() {
            let code = match trouble.kind {
                Kind::TurnsAway | Kind::Stops => CRITICAL,
                Kind::Unrecorded | Kind::Ordered | Kind::Other => WARNING,
            };
            findings.add(code, format!("{}: {why}", trouble.says[0]));
        }
    }
    if status["damaged"].as_u64() > Some(0) {
        findings.add(WARNING, "the queue's files are damaged, see the log".into());
    }
    if status["stopping"] == true {
        findings.add(WARNING, "it is stopping".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options() -> Health {
        Health {
            max_age: "5m,30m".parse().unwrap(),
            max_depth: None,
            max_failed_share: "20,50".parse().unwrap(),
        }
    }

    fn judged(status: Value) -> (u8, String) {
        let (code, line) = judge(&options(), &status);
        (code, line.split(" | ").next().unwrap().to_owned())
    }

    #[test]
    fn limits_are_one_number_or_two() {
        let limits: Limits<Age> = "90s,2h".parse().unwrap();
        assert_eq!(limits, Limits { warning: Age(90), critical: Some(Age(7_200)) });
        assert_eq!("5%".parse(), Ok(Limits { warning: Share(5.0), critical: None }));
        assert_eq!("7".parse(), Ok(Limits { warning: Depth(7), critical: None }));
        assert!("10s,5s".parse::<Limits<Age>>().unwrap_err().contains("lies below"));
        assert!("5m,5m".parse::<Limits<Age>>().is_ok() && "9,10".parse::<Limits<Share>>().is_ok());
        assert!("x".parse::<Limits<Age>>().unwrap_err().contains("no time"));
        assert!("1,-1".parse::<Limits<Depth>>().unwrap_err().contains("no number"));
        assert!("101".parse::<Limits<Share>>().unwrap_err().contains("no share"));
    }

    #[test]
    fn a_limit_is_passed_by_more_than_it_and_the_worst_comes_first() {
        let aged = |seconds: u64| judged(json!({"oldest_seconds": seconds})).0;
        assert_eq!([0, 300, 301, 1_800, 1_801].map(aged), [OK, OK, WARNING, WARNING, CRITICAL]);
        let status = json!({"damaged": 1, "full": "disk", "oldest_seconds": 400});
        assert_eq!(
            judged(status),
            (
                CRITICAL,
                "nothing is taken in: disk; the queue's files are damaged, see the log; \
             the next message has waited 400 s"
                    .to_owned()
            )
        );
    }

    #[test]
    fn what_only_somebody_can_put_right_is_critical() {
        for (cause, code) in [
            ("rate", WARNING),
            ("daily_limit", WARNING),
            ("config", CRITICAL),
            ("unreachable", CRITICAL),
        ] {
            let status = json!({"suspended": "why", "suspended_cause": cause});
            assert_eq!(judged(status), (code, "sending is suspended: why".into()), "{cause}");
        }
        for (name, code) in [
            ("full", CRITICAL),
            ("crowded", CRITICAL),
            ("blocked", CRITICAL),
            ("ledger", WARNING),
            ("database", WARNING),
        ] {
            assert_eq!(judged(json!({name: "why"})).0, code, "{name}");
        }
        assert_eq!(judged(json!({"stopping": true})), (WARNING, "it is stopping".into()));
        assert_eq!(judged(json!({"stopping": false, "damaged": 0, "full": null})).0, OK);
    }

    #[test]
    fn a_share_counts_when_enough_have_ended() {
        let share = |delivered: f64, failed: f64| {
            judged(json!({"rates_5m": {"delivered": delivered, "failed": failed}}))
        };
        assert_eq!(share(0.8, 0.2).0, OK);
        assert_eq!(share(0.79, 0.21), (WARNING, "21 % have failed in five minutes".into()));
        assert_eq!(share(0.4, 0.6).0, CRITICAL);
        assert_eq!(share(0.0, 0.06).0, OK, "eighteen messages");
        assert_eq!(share(0.0, 0.07).0, CRITICAL);
    }

    #[test]
    fn figures_stand_behind_the_bar_as_plugins_have_them() {
        let mut options = options();
        options.max_depth = Some("10".parse().unwrap());
        let status = json!({
            "queue_depth": 12, "oldest_seconds": 3, "accepted": 5, "delivered": 4, "failed": 1,
            "in_flight": 2, "full": "a|b",
        });
        let (code, line) = judge(&options, &status);
        assert_eq!(code, CRITICAL);
        assert_eq!(
            line,
            "nothing is taken in: a/b; 12 messages are queued | queued=12;10;;0 oldest=3s;300;1800;0 \
             failed_share=0%;20;50;0;100 accepted=5c delivered=4c failed=1c in_flight=2"
        );
    }
}
