//! A worker: takes one job at a time, renders its template, posts it to WeChat and reports what
//! that meant. Blocking, with one keep-alive connection of its own; holds no lock meanwhile.

use crate::template::Table;
use crate::traffic::Event;
use crate::traffic::class::{Class, Gate};
use crate::traffic::job::{Job, Outcome, Reason, Round, Verdict};
use crate::wechat::client::{Answer, Client, Hosts, Trouble};
use crate::wechat::errcode::{self, Errcodes};
use crate::wechat::json::answer_for_client;
use crate::wechat::token::{NoToken, Tokens};
use crossbeam_channel::{Receiver, Sender, never, select_biased};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker rests after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// What every worker uses.
pub struct Shared {
    pub table: Arc<Table>,
    pub tokens: Tokens,
    pub hosts: Arc<Hosts>,
    pub errcodes: Arc<Errcodes>,
}

/// Where jobs come from and outcomes go.
#[derive(Clone)]
pub struct Links {
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    pub round: Round,
    pub outcomes: Sender<Event>,
}

/// Works until there are no more jobs. A panic, wherever it comes from, ends no worker: the job it held has an
/// outcome, and the work goes on with a new connection.
pub fn run(shared: &Shared, links: &Links) {
    let mut held = None;
    loop {
        let worked = catch_unwind(AssertUnwindSafe(|| work(shared, links, &mut held)));
        if worked.is_ok() {
            return;
        }
        if let Some(job) = held.take() {
            let reason = Reason::text("internal error while it was sent, see the log");
            let verdict = Some(Verdict::Refused(Class::Internal, reason));
            let outcome = Outcome { job, verdict, called: None };
            if links.outcomes.send(Event::Outcome(Box::new(outcome))).is_err() {
                return;
            }
        }
        // One that panics at once, time after time, leaves the processor to the others.
        std::thread::sleep(PANIC_PAUSE);
    }
}

/// Takes jobs until the spool has dropped its ends; `held` is the one in hand.
fn work(shared: &Shared, links: &Links, held: &mut Option<Job>) {
    let client = Client::new(Arc::clone(&shared.hosts));
    let mut worker = Worker { shared, client, body: Vec::new(), called: None };
    let (mut sends, mut pushes) = (links.sends.clone(), links.pushes.clone());
    loop {
        // An idle worker wakes up to renew the token, so that no message has to wait for it.
        let renewal = shared.tokens.renew_in();
        let job = select_biased! {
            recv(sends) -> job => job.map_err(|_| sends = never()),
            recv(pushes) -> job => job.map_err(|_| pushes = never()),
            default(renewal) => { shared.tokens.renew_if_due(&mut worker.client); continue }
        };
        // The spool drops both ends at the same time.
        let Ok(job) = job else { return };
        let job = held.insert(job);
        let verdict = (!links.round.has_ended(job)).then(|| worker.deliver(job));
        let closes = verdict.as_ref().map(|verdict| verdict.class().row().gate);
        if let Some(Gate::Closes(_)) = closes {
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
    client: Client,
    /// The rendered message; kept to spare an allocation per job.
    body: Vec<u8>,
    /// How many ms the job's last call took.
    called: Option<u32>,
}

impl Worker<'_> {
    fn deliver(&mut self, job: &Job) -> Verdict {
        let message = &job.message;
        let Some(template) = self.shared.table.get(message.key()) else {
            return Verdict::Refused(Class::Data, Reason::text(crate::wire::command::NO_TEMPLATE));
        };
        self.body.clear();
        let openid = String::from_utf8_lossy(message.openid());
        let id = message.client_msg_id();
        let id = Some(id.as_str());
        if let Err(error) = template.render(&openid, message.data(), id, &mut self.body) {
            return Verdict::Refused(Class::Data, Reason::text(format!("invalid data: {error}")));
        }
        match self.attempt(job) {
            // The refresh is shared by all workers that were refused; then one more try.
            Verdict::Refused(Class::Token, _) => self.attempt(job),
            verdict => verdict,
        }
    }

    fn attempt(&mut self, job: &Job) -> Verdict {
        let token = match self.shared.tokens.get(&mut self.client) {
            Ok(token) => token,
            Err(NoToken { class, errcode, text }) => {
                return Verdict::Refused(class, Reason { errcode, text, answer: None });
            }
        };
        let path = format!("/cgi-bin/message/template/send?access_token={token}");
        let began = Instant::now();
        let answer = self.client.post(&path, &self.body);
        self.called = Some(began.elapsed().as_millis() as u32);
        match answer {
            Ok(answer) => {
                let verdict = self.judge(job, answer);
                if verdict.class() == Class::Token {
                    self.shared.tokens.refuse(&token);
                }
                verdict
            }
            Err(Trouble { text, ambiguous }) => {
                let class = if ambiguous { Class::Unclear } else { Class::Unreachable };
                Verdict::Refused(class, Reason::text(text))
            }
        }
    }

    fn judge(&self, job: &Job, answer: Answer) -> Verdict {
        let Some(errcode) = answer.errcode else {
            return Verdict::Refused(
                Class::Unclear,
                Reason::text("WeChat's answer has no errcode"),
            );
        };
        let class = self.shared.errcodes.class(errcode);
        if class == Class::Ok {
            let duplicate = errcode == errcode::DUPLICATE;
            return Verdict::Delivered { duplicate, msgid: answer.msgid() };
        }
        let answer = answer.into_object();
        let errmsg = answer.get("errmsg").and_then(Value::as_str).unwrap_or_default();
        let reason = Reason {
            errcode: Some(errcode),
            text: format!("{errcode} {errmsg}"),
            answer: job.waiting.as_ref().map(|_| answer_for_client(answer, job.message.openid())),
        };
        // WeChat's words about the token are not about the client's message.
        let answer = reason.answer.filter(|_| class != Class::Token);
        Verdict::Refused(class, Reason { answer, ..reason })
    }
}
