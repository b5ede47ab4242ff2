//! `failed`: shows and counts the pushes that ended undelivered, and dismisses those that need no care any
//! more. Reads the ledger's file, and needs no daemon.

use super::control::{ask_ledger, is_running, status_of};
use super::language::Language;
use super::paths::Paths;
use super::state::{Target, if_running};
use super::when;
use crate::class::{Class, TABLE};
use crate::exit;
use crate::ledger;
use crate::ledger::database::Database;
use crate::ledger::failed::{State, count, page};
use crate::ledger::filter::Filter;
use crate::ledger::order::{Answer, OLD_LIST, Request, STEP};
use crate::output::line;
use crate::wechat::meaning;
use crate::wire::question::Question;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use std::io::stdout;
use std::time::Duration;

/// Rows that are read at a time: no look at the file lasts long enough to be in the daemon's way.
const PAGE: usize = 500;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Failed {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filters: Filters,
    /// Print how many there are of each errcode and what it means, and not the messages
    #[arg(long)]
    count: bool,
    /// Those that were requeued or dismissed since, too
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Take failures off the list: they are shown with --all only, and not requeued
    Dismiss {
        #[command(flatten)]
        filters: Filters,
        /// All there are
        #[arg(long)]
        everything: bool,
    },
}

#[derive(Args)]
pub struct Filters {
    /// Those with this errcode only
    #[arg(long, allow_negative_numbers = true)]
    errcode: Option<i64>,
    /// Those to this openid only
    #[arg(long)]
    openid: Option<String>,
    /// Those with this template's key only
    #[arg(long)]
    key: Option<String>,
    /// Those that ended with this class only, such as permanent or unknown
    #[arg(long, value_parser = classes())]
    class: Option<String>,
    /// Those that failed since: 2026-11-24, "2026-11-24 10:00", or so long ago: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<u64>,
    /// Those that failed before: the same
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<u64>,
    /// So many at most, the oldest first
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Those that a failure can have.
fn classes() -> PossibleValuesParser {
    let failures = TABLE.iter().filter(|row| row.class != Class::Ok);
    PossibleValuesParser::new(failures.map(|row| row.name).chain([OLD_LIST]))
}

impl Filters {
    pub fn filter(&self) -> Filter {
        Filter {
            errcode: self.errcode,
            openid: self.openid.clone(),
            key: self.key.clone(),
            class: self.class.clone(),
            since: self.since,
            until: self.until,
            id: None,
        }
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    fn are_none(&self) -> bool {
        let Filters { errcode, openid, key, class, since, until, limit } = self;
        let texts = [openid, key, class].iter().all(|text| text.is_none());
        texts && errcode.is_none() && since.or(*until).is_none() && limit.is_none()
    }
}

pub fn failed(paths: &Paths, target: &Target, options: &Failed) -> Result<u8, String> {
    if let Some(Action::Dismiss { filters, everything }) = &options.action {
        return dismiss(paths, target, filters, *everything);
    }
    let shown = show(paths, options);
    tell_unrecorded(target);
    shown
}

/// What has failed and is not in the file yet, only the running daemon knows.
fn tell_unrecorded(target: &Target) {
    let Ok(Some(mut client)) = if_running(target, PATIENCE) else { return };
    let Ok(status) = status_of(&mut client) else { return };
    if let Some(count @ 1..) = status["unrecorded"].as_u64() {
        let why = status["ledger"].as_str().unwrap_or("they are being written");
        crate::complain!(
            "{}",
            Language::of_environment().pick([
                format!(
                    "{count} more have failed and are not recorded yet, and so not shown: {why}"
                ),
                format!("另有 {count} 条已失败但尚未记录，此处未列出：{why}"),
            ])
        );
    }
}

fn show(paths: &Paths, options: &Failed) -> Result<u8, String> {
    let path = &paths.ledger;
    let Some(read) = Database::read_only(path)? else { return Ok(exit::OK) };
    let why = |error: rusqlite::Error| format!("the ledger {}: {error}", path.display());
    let every = [State::Failed, State::Moving, State::Requeued, State::Dismissed];
    let states = if options.all { &every[..] } else { &every[..2] };
    let filter = options.filters.filter();
    if options.count {
        let language = Language::of_environment();
        for (errcode, class, count) in count(&read, &filter, states).map_err(why)? {
            crate::say!("{}", counted(errcode, &class, count, language));
        }
        return Ok(exit::OK);
    }
    let (mut from, mut left) = (0, options.filters.limit());
    let mut out = stdout().lock();
    loop {
        let rows = page(&read, &filter, states, from..=i64::MAX, left.min(PAGE)).map_err(why)?;
        let Some(last) = rows.last() else { return Ok(exit::OK) };
        (from, left) = (last.seq + 1, left - rows.len());
        for row in &rows {
            if line(&mut out, format_args!("{}", row.to_json(when::shown))).is_err() {
                // Whoever reads has seen enough.
                return Ok(exit::OK);
            }
        }
    }
}

/// One line of `--count`.
fn counted(errcode: Option<i64>, class: &str, count: u64, language: Language) -> String {
    let name = errcode.map_or_else(|| class.to_owned(), |errcode| errcode.to_string());
    let meaning = meaning::of_end(errcode, class).map_or("", |text| language.pick(text));
    format!("{name:>8} {count:>8}  {meaning}").trim_end().to_owned()
}

fn dismiss(
    paths: &Paths,
    target: &Target,
    filters: &Filters,
    everything: bool,
) -> Result<u8, String> {
    if filters.are_none() && !everything {
        return Err("which ones? Give a filter, or --everything".into());
    }
    let step = |request: &Request| match is_running(target) {
        true => ask_ledger(target, Question::Dismiss, request),
        false => ledger::dismiss(&mut Database::new(&paths.ledger), request),
    };
    let count = steps(filters, step, |_| {})?.count;
    crate::say!("{count} dismissed");
    Ok(exit::OK)
}

/// What the steps of one order came to.
#[derive(Default)]
pub struct Total {
    pub count: usize,
    pub too_large: usize,
    /// Why it ended before its time.
    pub stopped: Option<String>,
}

/// How long the daemon has to say what it has not recorded.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often an order is tried on that gets nowhere, and how long it waits in between.
pub const FRUITLESS: usize = 10;
pub const PAUSE: Duration = Duration::from_millis(200);

/// Takes step after step until nothing is left that failed before the first one.
pub fn steps(
    filters: &Filters,
    mut step: impl FnMut(&Request) -> Result<Answer, String>,
    mut progress: impl FnMut(usize),
) -> Result<Total, String> {
    let (mut total, mut fruitless) = (Total::default(), 0);
    let mut request = Request { filter: filters.filter(), by: whoami(), ..Request::default() };
    loop {
        request.limit = STEP.min(filters.limit().saturating_sub(total.count));
        if request.limit == 0 {
            return Ok(total);
        }
        let answer = step(&request)?;
        total.count += answer.count;
        total.too_large += answer.too_large;
        (request.after, request.bound) = (answer.after, Some(answer.bound));
        progress(total.count);
        if answer.done {
            return Ok(total);
        }
        let Some(why) = answer.stopped else { continue };
        fruitless = if answer.count > 0 { 0 } else { fruitless + 1 };
        if fruitless == FRUITLESS {
            total.stopped = Some(why);
            return Ok(total);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Who gives the order, for the record.
pub fn whoami() -> String {
    let user = crate::user::name(rustix::process::getuid());
    match std::env::var("SUDO_USER") {
        Ok(before) if !before.is_empty() => format!("{before} as {user}"),
        _ => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_says_what_its_errcode_means() {
        use Language::{Chinese, English};
        let line = counted(Some(43004), "", 12, English);
        assert!(line.starts_with("   43004       12  the user does not follow"), "{line}");
        assert!(counted(Some(43004), "", 12, Chinese).contains("用户未关注公众号"));
        assert_eq!(counted(Some(123_456), "", 1, English), "  123456        1");
        assert!(counted(None, "unknown", 1, Chinese).starts_with(" unknown        1  微信可能"));
        assert!(counted(Some(123_456), "once", 1, English).contains("set its class in [errcode]"));
    }

    #[test]
    fn an_order_goes_on_until_it_gets_nowhere_or_is_done() {
        let filters = || Filters {
            errcode: None,
            openid: None,
            key: None,
            class: None,
            since: None,
            until: None,
            limit: Some(1_000),
        };
        let answer = |count, done, stopped| Answer {
            count,
            after: 5,
            bound: 9,
            done,
            too_large: 0,
            stopped,
        };
        let mut asked = Vec::new();
        let total = steps(
            &filters(),
            |request| {
                asked.push((request.after, request.bound, request.limit));
                Ok(answer(STEP.min(request.limit), false, None))
            },
            |_| {},
        );
        assert_eq!(total.unwrap().count, 1_000);
        assert_eq!(asked, [(0, None, 512), (5, Some(9), 488)]);
        let full = || Some("queue full".to_owned());
        let total = steps(&filters(), |_| Ok(answer(0, false, full())), |_| {}).unwrap();
        assert_eq!((total.count, total.stopped), (0, full()));
    }
}
