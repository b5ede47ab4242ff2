//! A worker: takes one job at a time, renders its template, posts it to WeChat and reports what
//! that meant. Blocking, with one keep-alive connection of its own; holds no lock meanwhile.

use crate::class::Class;
use crate::template::Table;
use crate::traffic::Event;
use crate::traffic::job::{Job, Outcome, Reason, Round, Verdict};
use crate::wechat::answer::{Answer, errmsg};
use crate::wechat::client::{Client, Reached, Trouble};
use crate::wechat::errcode;
use crate::wechat::json::answer_for_client;
use crate::wechat::live::{Live, Terms};
use crate::wechat::refresh::{Lack, NoToken, Refusal, Token};
use crate::wechat::token::Tokens;
use crossbeam_channel::{Receiver, Sender, never, select_biased};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So much room is kept for the next message.
const KEPT_BYTES: usize = 8 * 1024;

/// How long a worker rests after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// What every worker uses.
pub struct Shared {
    pub table: Arc<Table>,
    pub tokens: Arc<Tokens>,
    pub live: Arc<Live>,
}

/// Where jobs come from and outcomes go.
#[derive(Clone)]
pub struct Links {
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    /// Who takes one out ends.
    pub dismissals: Receiver<()>,
    /// Who takes one out looks at what has changed.
    pub nudges: Receiver<()>,
    pub round: Round,
    pub outcomes: Sender<Event>,
}

/// Works until there are no more jobs, or it is let go.
pub fn run(shared: &Shared, links: &Links) {
    supervise(&links.outcomes, PANIC_PAUSE, |held| work(shared, links, held));
}

/// A panic, wherever it comes from, ends no worker: the job it held has an outcome, and the work begins anew.
fn supervise(outcomes: &Sender<Event>, pause: Duration, mut work: impl FnMut(&mut Option<Job>)) {
    let mut held = None;
    while catch_unwind(AssertUnwindSafe(|| work(&mut held))).is_err() {
        if let Some(job) = held.take() {
            let reason = Reason::text("internal error while it was sent, see the log");
            let verdict = Some(Verdict::Refused(Class::Internal, reason));
            let outcome = Outcome { job, verdict, called: None };
            if outcomes.send(Event::Outcome(Box::new(outcome))).is_err() {
                return;
            }
        }
        // One that panics at once, time after time, leaves the processor to the others.
        std::thread::sleep(pause);
    }
}

/// Takes jobs until the spool has dropped its ends, or until it is let go; `held` is the one in hand.
fn work(shared: &Shared, links: &Links, held: &mut Option<Job>) {
    let mut worker = Worker::new(shared);
    let (mut sends, mut pushes) = (links.sends.clone(), links.pushes.clone());
    // However many jobs lie ready; nearly always there is none, and to see that costs next to nothing.
    while links.dismissals.is_empty() || links.dismissals.try_recv().is_err() {
        // An idle worker wakes up to renew the token, so that no message has to wait for it.
        let renewal = shared.tokens.renew_in();
        let job = select_biased! {
            recv(sends) -> job => job.map_err(|_| sends = never()),
            recv(pushes) -> job => job.map_err(|_| pushes = never()),
            recv(links.dismissals) -> _ => return,
            recv(links.nudges) -> nudge => match nudge {
                // The token may have to be renewed sooner.
                Ok(()) => continue,
                Err(_) => return,
            },
            default(renewal) => {
                worker.keep_up();
                shared.tokens.renew_if_due(&mut worker.client);
                continue
            }
        };
        // The spool drops both ends at the same time.
        let Ok(job) = job else { return };
        worker.keep_up();
        let job = held.insert(job);
        let verdict = (!links.round.has_ended(job)).then(|| worker.deliver(job));
        if verdict.as_ref().is_some_and(Verdict::ends_round) {
            links.round.end(job.round);
        }
        let Some(job) = held.take() else { return };
        let outcome = Outcome { job, verdict, called: worker.called.take() };
        if links.outcomes.send(Event::Outcome(Box::new(outcome))).is_err() {
            return;
        }
        shared.tokens.renew_if_due(&mut worker.client);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    terms: Terms,
    /// Which terms these are.
    generation: u64,
    client: Client,
    /// The rendered message; kept to spare an allocation per job.
    body: Vec<u8>,
    /// How long the job's last call took.
    called: Option<Duration>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Worker<'a> {
        let generation = shared.live.generation();
        let terms = shared.live.terms();
        let client = Client::new(Arc::clone(&terms.network));
        Worker { shared, terms, generation, client, body: Vec::new(), called: None }
    }

    /// Goes by what a reload has brought. A connection that was made under other terms is given up.
    fn keep_up(&mut self) {
        let generation = self.shared.live.generation();
        if generation == self.generation {
            return;
        }
        let terms = self.shared.live.terms();
        if !Arc::ptr_eq(&terms.network, &self.terms.network) {
            self.client = Client::new(Arc::clone(&terms.network));
        }
        (self.terms, self.generation) = (terms, generation);
    }

    fn deliver(&mut self, job: &Job) -> Verdict {
        let message = &job.message;
        let Some(template) = self.shared.table.get(message.key()) else {
            return Verdict::Refused(Class::Data, Reason::text(crate::wire::command::NO_TEMPLATE));
        };
        self.body.clear();
        let openid = String::from_utf8_lossy(message.openid());
        let id = message.client_msg_id();
        let id = Some(id.as_str());
        // What it was checked for at the door may have changed since: the template, and the configuration.
        if let Err(unfit) = template.render(&openid, message.data(), id, &mut self.body) {
            return Verdict::Refused(Class::Data, Reason::text(unfit.to_string()));
        }
        let verdict = match self.attempt(job) {
            Attempt::Came(verdict) => verdict,
            // The refresh is shared by all workers that were refused; then one more try.
            Attempt::TokenRefused(_) => match self.attempt(job) {
                Attempt::Came(verdict) => verdict,
                // This one, too, was replaced meanwhile.
                Attempt::TokenRefused(reason) => Verdict::Refused(Class::Unreachable, reason),
            },
        };
        self.body.shrink_to(KEPT_BYTES);
        verdict
    }

    fn attempt(&mut self, job: &Job) -> Attempt {
        let token = match self.shared.tokens.get(&mut self.client) {
            Ok(token) => token,
            Err(NoToken { lack, errcode, text }) => {
                let reason = Reason { errcode, text, answer: None };
                return Attempt::Came(match lack {
                    Lack::Rate => Verdict::Refused(Class::Rate, reason),
                    Lack::Config => Verdict::Refused(Class::Config, reason),
                    Lack::NotNow => Verdict::Refused(Class::Unreachable, reason),
                });
            }
        };
        let path = format!("/cgi-bin/message/template/send?access_token={}", token.text);
        let began = Instant::now();
        let answer = self.client.post(&path, &self.body);
        self.called = Some(began.elapsed());
        match answer {
            Ok(answer) => self.judge(job, answer, &token),
            Err(Trouble { text, reached }) => {
                let reason = Reason::text(text);
                Attempt::Came(match reached {
                    Reached::No => Verdict::Refused(Class::Unreachable, reason),
                    Reached::Perhaps => Verdict::Refused(Class::Unclear, reason),
                    Reached::Refused => Verdict::Refused(Class::Once, reason),
                    Reached::Limited => Verdict::Refused(Class::Rate, reason),
                })
            }
        }
    }

    fn judge(&self, job: &Job, answer: Answer, token: &Arc<Token>) -> Attempt {
        let Some(errcode) = answer.errcode else {
            let reason = Reason::text("WeChat's answer has no errcode");
            return Attempt::Came(Verdict::Refused(Class::Unclear, reason));
        };
        let class = self.terms.errcodes.class(errcode);
        if matches!(class, Class::Ok | Class::Once | Class::OpenidRate | Class::Permanent) {
            token.accept();
        }
        if class == Class::Ok {
            let duplicate = errcode == errcode::DUPLICATE;
            return Attempt::Came(Verdict::Delivered { duplicate, msgid: answer.msgid() });
        }
        let answer = answer.into_object();
        let errmsg = errmsg(&answer).unwrap_or_default();
        let text = format!("{errcode} {errmsg}");
        let answer = match class {
            // WeChat's words about the token are not about the client's message.
            Class::Token => None,
            _ => job.waiting.as_ref().map(|_| answer_for_client(answer, job.message.openid())),
        };
        let reason = Reason { errcode: Some(errcode), text, answer };
        match class {
            Class::Token => match self.shared.tokens.refuse(token, errcode, &reason.text) {
                Refusal::OfThisToken => Attempt::TokenRefused(reason),
                Refusal::OfTheAccount => Attempt::Came(Verdict::Refused(Class::Config, reason)),
            },
            class => Attempt::Came(Verdict::Refused(class, reason)),
        }
    }
}

/// What one call came to.
enum Attempt {
    Came(Verdict),
    /// With another token the same call may succeed.
    TokenRefused(Reason),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::queue::{Mark, Message, New};
    use crate::template::Filling;
    use crate::traffic::Channels;
    use crate::traffic::batch::{ConnId, ReplyTo};
    use crate::traffic::job::Waiting;
    use crate::wechat::client::Network;
    use crate::wechat::errcode::Errcodes;
    use crate::wechat::refresh::{Fetch, Need, Refresh};
    use crossbeam_channel::unbounded;
    use std::time::{Duration, Instant};

    fn shared() -> Shared {
        let config = Config::demo(std::path::Path::new("/nowhere")).unwrap();
        let errcodes = Arc::new(Errcodes::new(&config.errcode));
        Shared {
            table: Arc::new(Table::new(1, 1024, Filling::of(&config.wechat))),
            tokens: Arc::new(Tokens::new(&config, Arc::clone(&errcodes))),
            live: Arc::new(Live::new(Terms { network: Network::open(&config).unwrap(), errcodes })),
        }
    }

    fn token() -> Arc<Token> {
        let now = Instant::now();
        let mut refresh = Refresh::new(crate::config::TokenSource::Stable);
        let Need::Fetch(Fetch::Plain) = refresh.need(now) else { panic!() };
        refresh.granted(Fetch::Plain, "token", 7200, now);
        let Need::Use(token) = refresh.need(now) else { panic!() };
        token
    }

    fn job(waits: bool) -> Job {
        let new = New { openid: "用".as_bytes(), key: b"key", data: b"null" };
        let message = Message::in_memory(1, 2, 3, new, b"");
        let until = Instant::now() + Duration::from_secs(10);
        let to = ReplyTo { conn: ConnId { slot: 0, generation: 0 }, opaque: 0, weight: 0 };
        Job {
            message,
            waiting: waits.then_some(Waiting { to, client: None, until, before: Mark::default() }),
            probe: false,
            round: 0,
        }
    }

    fn judged(answer: &[u8], waits: bool) -> Attempt {
        let shared = shared();
        let worker = Worker::new(&shared);
        worker.judge(&job(waits), Answer::new(answer.to_vec()).unwrap(), &token())
    }

    #[test]
    fn every_class_has_its_verdict() {
        let name = |code: i64| {
            let answer = format!(r#"{{"errcode":{code},"errmsg":"words"}}"#);
            match judged(answer.as_bytes(), false) {
                Attempt::TokenRefused(reason) => format!("token {}", reason.text),
                Attempt::Came(verdict) => verdict.class().name().to_owned(),
            }
        };
        for (code, verdict) in [
            (0, "ok"),
            (40241, "ok"),
            (40001, "token 40001 words"),
            (-1, "later"),
            (43101, "once"),
            (99999, "once"),
            (45009, "rate"),
            (43117, "openid_rate"),
            (43004, "permanent"),
            (40164, "config"),
        ] {
            assert_eq!(name(code), verdict, "{code}");
        }
        let unclear = judged(b"{}", false);
        assert!(matches!(unclear, Attempt::Came(Verdict::Refused(Class::Unclear, _))));
    }

    #[test]
    fn a_repeat_that_wechat_recognised_is_told_apart() {
        for (code, is) in [(0, false), (40241, true)] {
            let answer = format!(r#"{{"errcode":{code}}}"#);
            match judged(answer.as_bytes(), false) {
                Attempt::Came(Verdict::Delivered { duplicate, .. }) => assert_eq!(duplicate, is),
                _ => panic!("{code} is a success"),
            }
        }
    }

    #[test]
    fn a_client_that_waits_gets_wechats_words_and_nobody_else_does() {
        let answer = b"{\"errcode\":40003,\"errmsg\":\"bad \xff id\"}";
        for (waits, words) in [
            (true, Some(r#"{"errcode":40003,"errmsg":"bad \ufffd id","openid":"\u7528"}"#)),
            (false, None),
        ] {
            match judged(answer, waits) {
                Attempt::Came(Verdict::Refused(Class::Permanent, reason)) => {
                    assert_eq!(reason.text, "40003 bad \u{fffd} id");
                    assert_eq!(reason.errcode, Some(40003));
                    assert_eq!(reason.answer.as_deref(), words);
                }
                _ => panic!("40003 is for good"),
            }
        }
    }

    #[test]
    fn what_somebody_in_wechats_place_says_is_one_short_line_that_steers_no_terminal() {
        let words = format!("\u{1b}[2J\u{202e}\n[2026-01-01 00:00:00] {}", "A".repeat(3_000));
        let answer = serde_json::json!({"errcode": 40164, "errmsg": words}).to_string();
        let Attempt::Came(Verdict::Refused(Class::Config, reason)) =
            judged(answer.as_bytes(), false)
        else {
            panic!("40164 is the account's")
        };
        assert!(reason.text.starts_with(r"40164 \u001b[2J\u202e\n[2026-"), "{}", reason.text);
        assert!(reason.text.chars().count() < 350, "{}", reason.text);
    }

    #[test]
    fn a_refused_token_is_no_answer_to_a_client() {
        match judged(br#"{"errcode":42001,"errmsg":"expired"}"#, true) {
            Attempt::TokenRefused(reason) => assert_eq!(reason.answer, None),
            Attempt::Came(verdict) => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn one_that_is_let_go_ends_however_many_jobs_lie_ready_and_takes_none_with_it() {
        let channels = Channels::new(1);
        let links = Links {
            sends: channels.sends.clone(),
            pushes: channels.pushes.clone(),
            dismissals: channels.dismissals.1.clone(),
            nudges: channels.nudges.1.clone(),
            round: channels.round.clone(),
            outcomes: channels.events.clone(),
        };
        let dismiss = channels.dismissals.0.clone();
        let inside = channels.inside();
        (0..3).for_each(|_| inside.pushes.try_send(job(false)).unwrap());
        (0..2).for_each(|_| dismiss.try_send(()).unwrap());
        run(&shared(), &links);
        assert_eq!((links.pushes.len(), links.dismissals.len()), (3, 1));
        assert!(inside.events.is_empty());
    }

    #[test]
    fn a_panic_is_an_outcome_and_the_worker_goes_on() {
        let (outcomes, outcomes_out) = unbounded();
        let mut times = 0;
        supervise(&outcomes, Duration::ZERO, |held| {
            times += 1;
            match times {
                1 => panic!("while it held nothing"),
                2 => {
                    let new = New { openid: b"o", key: b"k", data: b"" };
                    let message = Message::in_memory(1, 7, 0, new, b"");
                    *held = Some(Job { message, waiting: None, probe: true, round: 0 });
                    panic!("while it held a job");
                }
                _ => assert!(held.is_none()),
            }
        });
        assert_eq!(times, 3);
        let Ok(Event::Outcome(outcome)) = outcomes_out.try_recv() else { panic!("no outcome") };
        assert_eq!(outcome.job.message.id(), 7);
        assert_eq!(outcome.verdict.unwrap().class(), Class::Internal);
        assert!(outcomes_out.is_empty());
    }
}
