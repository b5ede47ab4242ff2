//! The reload, on the main thread: reads the file anew, has the store load the templates, and hands both to everybody,
//! all or nothing. What can fail comes first, and the templates last of that; from then on nothing can. One reload at
//! a time: who asks meanwhile gets the next, since the file may have changed after this one has read it.

use crate::config::{Config, Difference};
use crate::crew::{Crew, Hired};
use crate::traffic::batch::{Reply, ReplyTo};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{Changed, Configure, Event, Reload};
use crate::wechat::client::Network;
use crate::wechat::errcode::Errcodes;
use crate::wechat::live::{Live, Terms};
use crate::wechat::token::Tokens;
use crate::wire::command;
use crate::{daemon, logger, notice, trial};
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const STOPPING: &str = "the daemon is stopping: the next one reads its configuration anew";

/// What the reload hears of.
pub enum News {
    /// Somebody asks for one: a client, or a signal.
    Asked(Option<ReplyTo>),
    /// The templates are loaded, or cannot be.
    Loaded(Result<Changed, String>),
    /// The spool goes by the new configuration, as everybody else does.
    Done,
}

/// Everybody who goes by the configuration.
pub struct Links {
    pub live: Arc<Live>,
    pub tokens: Arc<Tokens>,
    pub mailbox: Mailbox,
    pub store: Sender<Reload>,
    pub spool: Sender<Event>,
    /// To main itself.
    pub news: Arc<dyn Fn(News) + Send + Sync>,
}

/// What became of a reload, as the client is told in JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub changed: Vec<Setting>,
    /// What differs in the file and the daemon does not go by.
    pub restart: Vec<Setting>,
    pub templates: usize,
    pub templates_changed: usize,
    /// Keys of templates that are in the database no more, nor in use.
    #[serde(default)]
    pub templates_gone: Vec<String>,
    /// What the file says that has no effect, or not the one it may be meant to have.
    pub warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub key: String,
    pub old: String,
    pub new: String,
    /// Why a restart is needed for this value, where it is not for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

pub struct Reloads {
    /// What the daemon goes by, in the file's own values.
    config: Arc<Config>,
    crew: Crew,
    links: Links,
    under_way: Option<UnderWay>,
    /// Who asks for the next one.
    asking: Vec<Option<ReplyTo>>,
    stopping: bool,
}

struct UnderWay {
    asked: Vec<Option<ReplyTo>>,
    config: Arc<Config>,
    /// The same, with what the machine does not allow taken back.
    allowed: Arc<Config>,
    terms: Terms,
    hired: Option<Hired>,
    report: Report,
}

impl Reloads {
    /// `config`: as it was read, `crew` has as many workers as it says.
    pub fn new(config: Config, crew: Crew, links: Links) -> Reloads {
        let config = Arc::new(config);
        Reloads { config, crew, links, under_way: None, asking: Vec::new(), stopping: false }
    }

    /// What the daemon goes by.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn hear(&mut self, news: News) {
        match news {
            News::Asked(to) if self.stopping => self.refuse(vec![to], STOPPING),
            News::Asked(to) => {
                self.asking.push(to);
                self.begin();
            }
            News::Loaded(Ok(changed)) => self.apply(changed),
            News::Loaded(Err(why)) => self.give_up(&format!("cannot load the templates: {why}")),
            News::Done => {
                self.tell();
                self.begin();
            }
        }
    }

    /// Nobody waits for a reload any longer.
    pub fn stop(&mut self) {
        self.stopping = true;
        let mut asked = std::mem::take(&mut self.asking);
        asked.extend(self.under_way.iter_mut().flat_map(|it| std::mem::take(&mut it.asked)));
        self.refuse(asked, STOPPING);
    }

    fn begin(&mut self) {
        while self.under_way.is_none() && !self.asking.is_empty() {
            let asked = std::mem::take(&mut self.asking);
            match self.prepare() {
                Err(why) => self.refuse(asked, &why),
                Ok(under_way) => {
                    let (config, news) = (Arc::clone(&under_way.config), self.links.news.clone());
                    self.under_way = Some(UnderWay { asked, ..under_way });
                    let done = Box::new(move |loaded| news(News::Loaded(loaded)));
                    // There is room: none is under way. A store that has ended ends the daemon.
                    if self.links.store.try_send(Reload { config, done }).is_err() {
                        self.give_up("the templates' thread does not answer");
                    }
                }
            }
        }
    }

    /// Everything that can fail but for the templates. Nothing has changed when it returns.
    fn prepare(&mut self) -> Result<UnderWay, String> {
        let mut fresh = self.config.read_again().map_err(|error| error.to_string())?;
        logger::hide(fresh.wechat.app_secret.expose());
        logger::hide(&fresh.pdo.password);
        let mut config = self.config.take_over(&fresh);
        let (wanted, most) = (config.setting.task_worker_num, self.crew.most());
        if wanted > most {
            config.setting.task_worker_num = self.config.setting.task_worker_num;
        }
        let mut report = Report {
            changed: self.config.differences(&config).into_iter().map(Setting::from).collect(),
            restart: config.differences(&fresh).into_iter().map(Setting::from).collect(),
            warnings: std::mem::take(&mut fresh.warnings),
            ..Report::default()
        };
        for setting in &mut report.restart {
            if setting.key == "setting.task_worker_num" {
                setting.why = Some(format!("without one there may be {most}"));
            }
        }
        if config.server.allow.is_empty() && !self.config.server.allow.is_empty() {
            report.warnings.push(
                "server.allow[] has no line any more: from now on everybody who reaches the port may connect"
                    .to_owned(),
            );
        }
        let network = match config.has_the_network_of(&self.config) {
            true => self.links.live.terms().network,
            false => Network::open(&config)?,
        };
        let terms = Terms { network, errcodes: Arc::new(Errcodes::new(&config.errcode)) };
        let mut allowed = config.clone();
        report.warnings.extend(reserve_descriptors(&mut allowed));
        let hired = self
            .crew
            .hire(config.setting.task_worker_num)
            .map_err(|error| format!("cannot start more workers: {error}"))?;
        let (config, allowed) = (Arc::new(config), Arc::new(allowed));
        Ok(UnderWay { asked: Vec::new(), config, allowed, terms, hired: Some(hired), report })
    }

    /// The templates are in the table: everybody else follows.
    fn apply(&mut self, changed: Changed) {
        let Some(under_way) = &mut self.under_way else { return };
        let Changed { templates, changed, gone } = changed;
        (under_way.report.templates, under_way.report.templates_changed) = (templates, changed);
        if !gone.is_empty() {
            under_way.report.warnings.push(format!(
                "templates gone from the database: {}: messages in the queue that name one will fail",
                gone.join(", ")
            ));
        }
        under_way.report.templates_gone = gone;
        let (config, terms) = (&under_way.config, &under_way.terms);
        logger::set_level(config.log.log_level);
        self.links.tokens.configure(config, Arc::clone(&terms.errcodes));
        self.links.live.replace(terms.clone());
        self.links.mailbox.send(Mail::Configure(Arc::clone(&under_way.allowed)));
        if let Some(hired) = under_way.hired.take() {
            self.crew.begin(hired);
        }
        self.config = Arc::clone(config);
        let news = self.links.news.clone();
        let done = Box::new(move || news(News::Done));
        // There is room for one. A spool that has ended needs no configuration.
        let _ = self
            .links
            .spool
            .try_send(Event::Configure(Configure { config: Arc::clone(config), done }));
    }

    fn give_up(&mut self, why: &str) {
        if let Some(mut under_way) = self.under_way.take() {
            if let Some(hired) = under_way.hired.take() {
                self.crew.send_away(hired);
            }
            self.refuse(under_way.asked, why);
        }
        self.begin();
    }

    /// Everybody goes by the new configuration.
    fn tell(&mut self) {
        let Some(UnderWay { asked, report, .. }) = self.under_way.take() else { return };
        let Report { templates, templates_changed, .. } = report;
        notice!(
            "reloaded; templates: {templates} (changed: {templates_changed}), settings changed: {}",
            report.changed.len()
        );
        for Setting { key, old, new, .. } in &report.changed {
            notice!("reloaded: {key}: {old} -> {new}");
        }
        for setting in &report.restart {
            log::warn!("{} has changed and needs a restart", setting.key);
        }
        for warning in &report.warnings {
            log::warn!("{warning}");
        }
        match serde_json::to_string(&report) {
            Ok(text) => self.answer(asked, command::OK, &text),
            Err(error) => self.answer(asked, command::FAILED, &error.to_string()),
        }
    }

    fn refuse(&self, asked: Vec<Option<ReplyTo>>, why: &str) {
        if !asked.is_empty() {
            why.lines().for_each(|line| log::error!("not reloaded, nothing has changed: {line}"));
        }
        self.answer(asked, command::FAILED, why);
    }

    fn answer(&self, asked: Vec<Option<ReplyTo>>, code: u16, text: &str) {
        let reply = |to| Reply { to, code, message: text.to_owned().into(), close: false };
        let replies: Vec<Reply> = asked.into_iter().flatten().map(reply).collect();
        if !replies.is_empty() {
            self.links.mailbox.send(Mail::Replies { replies, batches: Vec::new() });
        }
    }
}

/// Clients may take so many descriptors that the workers' connections, the segments and the logs
/// never want for one; where that is fewer than `max_conn`, says so.
pub fn reserve_descriptors(config: &mut Config) -> Option<String> {
    let setting = &mut config.setting;
    let reserve = trial::descriptors(setting);
    let limit = daemon::raise_open_files_limit((setting.max_conn + reserve) as u64) as usize;
    let clients = limit.saturating_sub(reserve).max(1);
    let wanted = setting.max_conn;
    setting.max_conn = wanted.min(clients);
    (clients < wanted).then(|| {
        format!(
            "{clients} clients may connect instead of setting.max_conn = {wanted}: the limit of open \
             files is {limit} (raise it with ulimit -n, or LimitNOFILE in the systemd unit)"
        )
    })
}

impl From<Difference> for Setting {
    fn from(difference: Difference) -> Setting {
        let Difference { name, old, new, .. } = difference;
        Setting { key: name, old, new, why: None }
    }
}
