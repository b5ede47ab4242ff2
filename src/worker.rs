//! A worker: takes one job at a time, renders its template, posts it to WeChat and reports what
//! that meant. Blocking, with one keep-alive connection of its own; holds no lock meanwhile.

use crate::template::Table;
use crate::traffic::Event;
use crate::traffic::job::{Job, Outcome, Reason, Verdict};
use crate::wechat::client::{Answer, Client, Hosts, Trouble};
use crate::wechat::errcode::{self, Class, Errcodes};
use crate::wechat::json::answer_for_client;
use crate::wechat::token::{NoToken, Tokens};
use crossbeam_channel::{Receiver, Sender, never, select_biased};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every worker shares.
pub struct Shop {
    pub table: Arc<Table>,
    pub tokens: Tokens,
    pub hosts: Arc<Hosts>,
    pub errcodes: Arc<Errcodes>,
}

/// Where jobs come from and outcomes go.
#[derive(Clone)]
pub struct Counter {
    pub sends: Receiver<Job>,
    pub pushes: Receiver<Job>,
    /// See `traffic::Channels`.
    pub halted: Arc<AtomicBool>,
    pub outcomes: Sender<Event>,
}

pub fn run(shop: &Shop, counter: &Counter) {
    let mut worker =
        Worker { shop, client: Client::new(Arc::clone(&shop.hosts)), body: Vec::new() };
    let (mut sends, mut pushes) = (counter.sends.clone(), counter.pushes.clone());
    loop {
        // An idle worker wakes up to renew the token, so that no message has to wait for it.
        let renewal = shop.tokens.renew_in();
        let job = select_biased! {
            recv(sends) -> job => job.map_err(|_| sends = never()),
            recv(pushes) -> job => job.map_err(|_| pushes = never()),
            default(renewal) => { shop.tokens.renew_if_due(&mut worker.client); continue }
        };
        let Ok(job) = job else {
            // The spool drops both ends at the same time.
            return;
        };
        let verdict = match counter.halted.load(Ordering::Relaxed) {
            true => None,
            false => Some(worker.deliver_safely(&job)),
        };
        if let Some(Verdict::Rate(_) | Verdict::Config(_)) = verdict {
            counter.halted.store(true, Ordering::Relaxed);
        }
        if counter.outcomes.send(Event::Outcome(Box::new(Outcome { job, verdict }))).is_err() {
            return;
        }
        shop.tokens.renew_if_due(&mut worker.client);
    }
}

struct Worker<'a> {
    shop: &'a Shop,
    client: Client,
    /// The rendered message; kept to spare an allocation per job.
    body: Vec<u8>,
}

impl Worker<'_> {
    /// A panic, wherever it comes from, is an outcome too.
    fn deliver_safely(&mut self, job: &Job) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| self.deliver(job))).unwrap_or_else(|_| {
            self.client = Client::new(Arc::clone(&self.shop.hosts));
            Verdict::Failed(Reason::text("internal error while it was sent, see the log"))
        })
    }

    fn deliver(&mut self, job: &Job) -> Verdict {
        let message = &job.message;
        let Some(template) = self.shop.table.get(message.key()) else {
            return Verdict::Failed(Reason::text(crate::wire::command::NO_TEMPLATE));
        };
        self.body.clear();
        let openid = String::from_utf8_lossy(message.openid());
        let id = message.client_msg_id();
        if let Err(error) =
            template.render(&openid, message.data(), Some(id.as_str()), &mut self.body)
        {
            return Verdict::Failed(Reason::text(format!("invalid data: {error}")));
        }
        match self.attempt(job) {
            // The refresh is shared by all workers that were refused; then one more try.
            Verdict::TokenRefused(_) => self.attempt(job),
            verdict => verdict,
        }
    }

    fn attempt(&mut self, job: &Job) -> Verdict {
        let token = match self.shop.tokens.get(&mut self.client) {
            Ok(token) => token,
            Err(NoToken { class, errcode, text }) => {
                let reason = Reason { errcode, text, answer: None };
                return match class {
                    Class::Rate => Verdict::Rate(reason),
                    Class::Config => Verdict::Config(reason),
                    _ => Verdict::Later(reason),
                };
            }
        };
        let path = format!("/cgi-bin/message/template/send?access_token={token}");
        match self.client.post(&path, &self.body) {
            Ok(answer) => {
                let verdict = self.judge(job, answer);
                if matches!(verdict, Verdict::TokenRefused(_)) {
                    self.shop.tokens.refuse(&token);
                }
                verdict
            }
            Err(Trouble { text, ambiguous: true }) => Verdict::Unclear(Reason::text(text)),
            Err(Trouble { text, ambiguous: false }) => Verdict::Later(Reason::text(text)),
        }
    }

    fn judge(&self, job: &Job, answer: Answer) -> Verdict {
        let Some(errcode) = answer.errcode else {
            return Verdict::Unclear(Reason::text("WeChat's answer has no errcode"));
        };
        let class = self.shop.errcodes.class(errcode);
        if class == Class::Ok {
            return Verdict::Delivered { duplicate: errcode == errcode::DUPLICATE };
        }
        let answer = answer.into_object();
        let errmsg = answer.get("errmsg").and_then(Value::as_str).unwrap_or_default();
        let reason = Reason {
            errcode: Some(errcode),
            text: format!("{errcode} {errmsg}"),
            answer: job.waiting.as_ref().map(|_| answer_for_client(answer, job.message.openid())),
        };
        match class {
            Class::Ok => Verdict::Delivered { duplicate: false },
            // WeChat's words about the token are not about the client's message.
            Class::Token => Verdict::TokenRefused(Reason { answer: None, ..reason }),
            Class::Later => Verdict::Later(reason),
            Class::Once => Verdict::Once(reason),
            Class::Rate => Verdict::Rate(reason),
            Class::OpenidRate => Verdict::OpenidRate(reason),
            Class::Permanent => Verdict::Failed(reason),
            Class::Config => Verdict::Config(reason),
        }
    }
}
