//! A worker: takes one job at a time, renders its template, posts it to WeChat and reports what
//! that meant. Blocking, with one keep-alive connection of its own; holds no lock meanwhile.

use crate::template::Table;
use crate::traffic::Event;
use crate::traffic::job::{Job, Outcome, Reason, Verdict};
use crate::wechat::answer::Answer;
use crate::wechat::client::{Client, Network, Reached, Trouble};
use crate::wechat::errcode::{self, Class, Errcodes};
use crate::wechat::json::answer_for_client;
use crate::wechat::refresh::{Lack, NoToken, Refusal, Token};
use crate::wechat::token::Tokens;
use crossbeam_channel::{Receiver, Sender, never, select_biased};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// So much room is kept for the next message.
const KEPT_BYTES: usize = 8 * 1024;

/// What every worker shares.
pub struct Shop {
    pub table: Arc<Table>,
    pub tokens: Arc<Tokens>,
    pub network: Arc<Network>,
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
        Worker { shop, client: Client::new(Arc::clone(&shop.network)), body: Vec::new() };
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
            self.client = Client::new(Arc::clone(&self.shop.network));
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
        if let Err(error) = template.render(&openid, message.data(), Some(&id), &mut self.body) {
            return Verdict::Failed(Reason::text(format!("invalid data: {error}")));
        }
        let verdict = match self.attempt(job) {
            Attempt::Came(verdict) => verdict,
            // The refresh is shared by all workers that were refused; then one more try.
            Attempt::TokenRefused(_) => match self.attempt(job) {
                Attempt::Came(verdict) => verdict,
                // This one, too, was replaced meanwhile.
                Attempt::TokenRefused(reason) => Verdict::Unreachable(reason),
            },
        };
        self.body.shrink_to(KEPT_BYTES);
        verdict
    }

    fn attempt(&mut self, job: &Job) -> Attempt {
        let token = match self.shop.tokens.get(&mut self.client) {
            Ok(token) => token,
            Err(NoToken { lack, errcode, text }) => {
                let reason = Reason { errcode, text, answer: None };
                return Attempt::Came(match lack {
                    Lack::Rate => Verdict::Rate(reason),
                    Lack::Config => Verdict::Config(reason),
                    Lack::NotNow => Verdict::Unreachable(reason),
                });
            }
        };
        let path = format!("/cgi-bin/message/template/send?access_token={}", token.text);
        match self.client.post(&path, &self.body) {
            Ok(answer) => self.judge(job, answer, &token),
            Err(Trouble { text, reached }) => {
                let reason = Reason::text(text);
                Attempt::Came(match reached {
                    Reached::No => Verdict::Unreachable(reason),
                    Reached::Perhaps => Verdict::Unclear(reason),
                })
            }
        }
    }

    fn judge(&self, job: &Job, answer: Answer, token: &Arc<Token>) -> Attempt {
        let Some(errcode) = answer.errcode else {
            let reason = Reason::text("WeChat's answer has no errcode");
            return Attempt::Came(Verdict::Unclear(reason));
        };
        let class = self.shop.errcodes.class(errcode);
        if matches!(class, Class::Ok | Class::Once | Class::OpenidRate | Class::Permanent) {
            token.accept();
        }
        if class == Class::Ok {
            let duplicate = errcode == errcode::DUPLICATE;
            return Attempt::Came(Verdict::Delivered { duplicate });
        }
        let answer = answer.into_object();
        let errmsg = answer.get("errmsg").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{errcode} {errmsg}");
        let answer = match class {
            // WeChat's words about the token are not about the client's message.
            Class::Token => None,
            _ => job.waiting.as_ref().map(|_| answer_for_client(answer, job.message.openid())),
        };
        let reason = Reason { errcode: Some(errcode), text, answer };
        Attempt::Came(match class {
            Class::Ok => Verdict::Delivered { duplicate: false },
            Class::Token => match self.shop.tokens.refuse(token, errcode, &reason.text) {
                Refusal::OfThisToken => return Attempt::TokenRefused(reason),
                Refusal::OfTheAccount => Verdict::Config(reason),
            },
            Class::Later => Verdict::Later(reason),
            Class::Once => Verdict::Once(reason),
            Class::Rate => Verdict::Rate(reason),
            Class::OpenidRate => Verdict::OpenidRate(reason),
            Class::Permanent => Verdict::Failed(reason),
            Class::Config => Verdict::Config(reason),
        })
    }
}

/// What one call came to.
enum Attempt {
    Came(Verdict),
    /// With another token the same call may succeed.
    TokenRefused(Reason),
}
