//! The daemon's wiring, on the main thread: opens everything, spawns the named threads, passes
//! signals on, and joins them in order. Does no work of its own.

use crate::config::Config;
use crate::crew::Crew;
use crate::daemon::{self, Notifier, Owner, Presence, presence};
use crate::exit;
use crate::ledger::{self, Ledger};
use crate::metrics::{self, Metrics};
use crate::queue::disk::Folder;
use crate::queue::{self, Chore, Queue};
use crate::reactor::{self, Links, Reactor};
use crate::reload::{self, News, Reloads, reserve_descriptors};
use crate::signal::{self, Signal};
use crate::spool::{Spool, SyncFailed};
use crate::stats::Stats;
use crate::store::{self, Store};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::steer::Halt;
use crate::traffic::{self, Channels, Event};
use crate::wechat::client::Network;
use crate::wechat::errcode::Errcodes;
use crate::wechat::live::{Live, Terms};
use crate::wechat::token::Tokens;
use crate::worker::Shared;
use crate::{day_file, logger, notice};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

/// What the main thread waits for.
enum Happening {
    Signal(Signal),
    Reload(News),
    /// An administrator's order to stop, and whose it is.
    Halt(Halt, String),
    /// The spool has ended: stopped, with so many messages left, or because it had to.
    SpoolEnded(Result<u64, SyncFailed>),
    /// Nothing is left of what the daemon was to deliver before it stops.
    Drained,
    /// A thread that should never end by itself.
    Died(&'static str),
}

/// The daemon's life after the last fork; returns its exit code.
pub fn run(
    mut config: Config,
    owner: &Owner,
    listeners: Vec<TcpListener>,
    notifier: Notifier,
) -> u8 {
    let configured = config.clone();
    // Only root can raise this limit.
    let fewer = reserve_descriptors(&mut config);
    let config = Arc::new(config);
    let mut presence = match settle(&config, owner) {
        Ok(presence) => presence,
        Err(why) => return fail(notifier, why),
    };
    match open(&config, configured, listeners, &mut presence) {
        Ok(running) => {
            let warnings = fewer.into_iter().chain(presence.publish().err());
            warnings.for_each(|warning| log::warn!("{warning}"));
            notifier.ready(&running.greeting);
            notice!("{}", running.greeting);
            running.supervise(&mut presence)
        }
        Err(why) => {
            log::error!("{why}");
            // Who is told that it did not start finds nothing of it.
            drop(presence);
            fail(notifier, why)
        }
    }
}

/// Everything after this is done as the user the daemon runs as.
fn settle(config: &Config, owner: &Owner) -> Result<Presence, String> {
    daemon::settle(config, owner)?;
    if let (true, Some(stderr)) = (config.setting.daemonize, &config.setting.log_file) {
        daemon::redirect_stderr(stderr)?;
    }
    Presence::begin(config).map_err(|locked| locked.to_string())
}

fn fail(notifier: Notifier, why: String) -> u8 {
    notifier.failed(&why);
    exit::FAILED
}

struct Running {
    greeting: String,
    happenings: Receiver<Happening>,
    mailbox: Mailbox,
    reloads: Reloads,
    /// Answers as long as it is held: until the process ends.
    _metrics: Option<Metrics>,
    reactor: thread::JoinHandle<()>,
    janitors: [thread::JoinHandle<()>; 2],
    ledger: thread::JoinHandle<()>,
}

/// Opens everything and spawns the threads. `configured`: the configuration as it was read.
fn open(
    config: &Arc<Config>,
    configured: Config,
    listeners: Vec<TcpListener>,
    presence: &mut Presence,
) -> Result<Running, String> {
    let setting = &config.setting;
    open_log(config)?;
    let (admin, monitor) = presence.listen()?;
    let listen = addresses(&listeners)?;
    let mut queue = open_queue(config)?;
    let mut ledger = open_ledger(config)?;
    settle_doubt(&mut ledger, &mut queue)?;
    let decided = ledger.kept();
    let stats = Arc::new(Stats::default());
    ledger.show(&stats);
    let store = Store::open(config, Arc::clone(&stats))?;
    let table = store.table();
    ledger.catch_up(&table);
    let network = Network::open(config)?;
    let errcodes = Arc::new(Errcodes::new(&config.errcode));
    let tokens = Arc::new(Tokens::of_daemon(config, Arc::clone(&errcodes)));

    let why = |error: std::io::Error| format!("cannot start: {error}");
    let (poll, waker) = reactor::poll().map_err(why)?;
    let (mailbox, letters) = Mailbox::new(waker);
    let (tsets, tsets_in) = bounded(traffic::TSETS);
    let (store_reloads, reloads_in) = bounded(traffic::RELOADS);
    let (asks, asks_in) = bounded(traffic::ASKS);
    let (changes, changes_in) = bounded(traffic::CHANGES);
    let (happens, happenings) = unbounded();
    let news = {
        let happens = happens.clone();
        // A main thread that has ended takes the process with it.
        Arc::new(move |news| drop(happens.send(Happening::Reload(news))))
    };
    let channels = Channels::new(setting.task_worker_num);
    let links = Links {
        config: Arc::clone(config),
        table: Arc::clone(&table),
        stats: Arc::clone(&stats),
        tokens: Arc::clone(&tokens),
        spool: channels.events.clone(),
        store: tsets,
        reload: {
            let news = Arc::clone(&news);
            Box::new(move |to| news(News::Asked(Some(to))))
        },
        stop: {
            let happens = happens.clone();
            // A main thread that has ended takes the process with it.
            Box::new(move |halt, by| drop(happens.send(Happening::Halt(halt, by))))
        },
        ledger: asks,
        listen: listen.clone(),
    };
    let metrics = metrics::Links {
        config: Arc::clone(config),
        stats: Arc::clone(&stats),
        table: Arc::clone(&table),
        tokens: Arc::clone(&tokens),
    };
    let metrics = config.metrics.listen.map(|listen| Metrics::open(listen, metrics)).transpose()?;
    let mut reactor = Reactor::new(poll, letters, listeners, admin, links).map_err(why)?;
    monitor.map_or(Ok(()), |monitor| reactor.hear_monitors(monitor)).map_err(why)?;

    let live = Arc::new(Live::new(Terms { network, errcodes }));
    let shared = Shared { table, tokens: Arc::clone(&tokens), live: Arc::clone(&live) };
    let mut crew = Crew::new(shared, &channels, setting.task_worker_num);
    let hired = crew.hire(setting.task_worker_num).map_err(why)?;
    crew.begin(hired);
    let janitors = spawn_janitors(&channels, &happens).map_err(why)?;
    let links = store::Links {
        tsets: tsets_in,
        reloads: reloads_in,
        mailbox: mailbox.clone(),
        history: changes,
    };
    spawn("store", &happens, move || {
        store.run(&links);
        Ended::AsPlanned
    })
    .map_err(why)?;
    let links = ledger::Links {
        notes: channels.notes.clone(),
        blocks: channels.blocks.clone(),
        asks: asks_in,
        changes: changes_in,
        spool: channels.events.clone(),
        mailbox: mailbox.clone(),
        stats: Arc::clone(&stats),
    };
    let ledger = spawn("ledger", &happens, move || {
        ledger.run(links);
        Ended::AsPlanned
    })
    .map_err(why)?;
    let links = reload::Links {
        live,
        tokens,
        mailbox: mailbox.clone(),
        store: store_reloads,
        spool: channels.events.clone(),
        news,
    };
    let reloads = Reloads::new(configured, crew, links);
    let inside = channels.inside();
    // The ledger ends when nobody can tell it anything any more, and not before the spool has said how it ended.
    let last = inside.notes.clone();
    let mut spool =
        Spool::new(Arc::clone(config), queue, inside, mailbox.clone(), stats).map_err(why)?;
    spool.remember(decided);
    let drained = happens.clone();
    spool.when_drained(move || {
        // A main thread that has ended takes the process with it.
        let _ = drained.send(Happening::Drained);
    });
    let ended = happens.clone();
    spawn("spool", &happens, move || {
        // A main thread that has ended takes the process with it.
        let _ = ended.send(Happening::SpoolEnded(spool.run()));
        drop(last);
        Ended::AsPlanned
    })
    .map_err(why)?;
    let reactor = spawn("reactor", &happens, move || match reactor.run() {
        Ok(()) => Ended::AsPlanned,
        Err(error) => {
            log::error!("the reactor cannot go on: {error}");
            Ended::Early
        }
    })
    .map_err(why)?;
    signal::listen(move |signal| {
        // Nobody listens any more when the daemon is ending.
        let _ = happens.send(Happening::Signal(signal));
    })
    .map_err(why)?;
    let listen: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
    let (name, pid) = (&config.name, std::process::id());
    let greeting = format!("mega {name} started, pid {pid}, listening on {}", listen.join(", "));
    Ok(Running {
        greeting,
        happenings,
        mailbox,
        reloads,
        _metrics: metrics,
        reactor,
        janitors,
        ledger,
    })
}

impl Running {
    fn supervise(mut self, presence: &mut Presence) -> u8 {
        let mut stopping = false;
        loop {
            let happening = match self.happenings.recv_timeout(presence::GLANCE) {
                Ok(happening) => happening,
                Err(RecvTimeoutError::Timeout) => {
                    let again = presence.look();
                    let admin = again.admin.map(Mail::Admin);
                    let monitor = again.monitor.map(Mail::Monitor);
                    admin.into_iter().chain(monitor).for_each(|mail| self.mailbox.send(mail));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return exit::FAILED,
            };
            match happening {
                Happening::Signal(Signal::Terminate) => self.terminate(&mut stopping),
                Happening::Halt(Halt { now }, by) => {
                    notice!("told to stop by {by}");
                    if !stopping {
                        self.terminate(&mut stopping);
                    }
                    if now {
                        self.terminate(&mut stopping);
                    }
                }
                Happening::Drained if stopping => {}
                Happening::Drained => {
                    stopping = true;
                    notice!("nothing is left: stopping");
                    self.stop();
                }
                Happening::Signal(Signal::ReopenLogs) => day_file::reopen_all(),
                Happening::Signal(Signal::Reload) => self.reloads.hear(News::Asked(None)),
                Happening::Reload(news) => {
                    let before = Arc::clone(self.reloads.config());
                    self.reloads.hear(news);
                    if !Arc::ptr_eq(&before, self.reloads.config()) {
                        presence.configure(self.reloads.config());
                    }
                }
                Happening::SpoolEnded(ended) => return self.end(ended),
                Happening::Died(name) => {
                    crate::critical!("the thread {name} has ended; so does the daemon");
                    return exit::FAILED;
                }
            }
        }
    }

    /// The first request to stop waits for WeChat, the second does not.
    fn terminate(&mut self, stopping: &mut bool) {
        if std::mem::replace(stopping, true) {
            log::warn!("asked to stop a second time: not waiting for WeChat any longer");
            return self.mailbox.send(Mail::Stop { now: true });
        }
        notice!("stopping");
        self.stop();
    }

    fn stop(&mut self) {
        self.reloads.stop();
        self.mailbox.send(Mail::Stop { now: false });
    }

    fn end(self, ended: Result<u64, SyncFailed>) -> u8 {
        let left = ended.as_ref().map_or(0, |left| *left);
        self.mailbox.send(Mail::Quit { left });
        // A panic of theirs is in the log already.
        let _ = self.reactor.join();
        let _ = self.ledger.join();
        match ended {
            Ok(left) => {
                // The spool has dropped their channels, so they end with their last chores. A panic of
                // theirs is in the log already.
                for janitor in self.janitors {
                    let _ = janitor.join();
                }
                notice!("stopped, {left} messages left in the queue");
                exit::OK
            }
            Err(SyncFailed(error)) => {
                crate::critical!(
                    "the queue cannot be made durable: {error}; the daemon ends rather than \
                     promise what it cannot keep (check the disk, then start again)"
                );
                exit::SYNC_FAILED
            }
        }
    }
}

/// How a thread came to its end.
enum Ended {
    AsPlanned,
    /// The daemon cannot do without it.
    Early,
}

/// A thread whose early end, a panic included, ends the daemon.
fn spawn(
    name: &'static str,
    happens: &Sender<Happening>,
    body: impl FnOnce() -> Ended + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    struct Report(&'static str, Option<Sender<Happening>>);
    impl Drop for Report {
        fn drop(&mut self) {
            // A main thread that has ended takes the process with it.
            let _ = self.1.take().map(|happens| happens.send(Happening::Died(self.0)));
        }
    }
    let report = Report(name, Some(happens.clone()));
    thread::Builder::new().name(name.into()).spawn(move || {
        let mut report = report;
        if let Ended::AsPlanned = body() {
            report.1 = None;
        }
    })
}

/// The janitor and the syncer: the one is not to wait for the other.
fn spawn_janitors(
    channels: &Channels,
    happens: &Sender<Happening>,
) -> std::io::Result<[thread::JoinHandle<()>; 2]> {
    let spawn = |name, chores: &Receiver<Chore>| {
        let (chores, events) = (chores.clone(), channels.events.clone());
        spawn(name, happens, move || {
            for chore in chores {
                // A spool that has ended needs no news; the chore is done all the same.
                let _ = events.send(Event::Chore(chore.run()));
            }
            Ended::AsPlanned
        })
    };
    Ok([spawn("janitor", &channels.chores)?, spawn("syncer", &channels.syncs)?])
}

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, String> {
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    addresses.map_err(|error| format!("cannot listen: {error}"))
}

fn open_log(config: &Config) -> Result<(), String> {
    let options = logger::Options {
        log_file: config.log.log_file.clone(),
        format: config.log.log_format,
        level: config.log.log_level,
        prefix: config.log.log_prefix.clone(),
        max_files: config.log.log_max_files,
        syslog: config.log.syslog.then(|| format!("mega-{}", config.name)),
        stderr: !config.setting.daemonize && rustix::termios::isatty(rustix::stdio::stderr()),
        secrets: vec![config.wechat.app_secret.expose().into(), config.pdo.password.clone()],
    };
    logger::init(options).map_err(|error| {
        let path = config.log.log_file.path().map(|path| path.display().to_string());
        format!("cannot open the log {}: {error} (see log.log_file)", path.unwrap_or_default())
    })?;
    logger::panic_hook();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    if let Err(error) = std::fs::File::open(&config.file)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let file = config.file.display();
        log::warn!("{file}: {error}: a reload will not see changes of it (see setting.user)");
    }
    Ok(())
}

fn open_queue(config: &Config) -> Result<Queue, String> {
    let path = &config.server.queue_file_path;
    let shown = path.display();
    let disk =
        Folder::lock(path).map_err(|error| format!("cannot open the queue {shown}: {error}"))?;
    let least = queue::segment_size_for(config.setting.package_max_length);
    let options = queue::Options {
        segment_size: config.queue.segment_size.max(least.next_power_of_two()),
        max_bytes: config.queue.queue_max_bytes,
        retry_cap: config.queue.retry_cap,
    };
    let opened = Queue::open(Arc::new(disk), options, crate::clock::now_ms());
    let queue = opened.map_err(|error| format!("cannot open the queue {shown}: {error}"))?;
    notice!("queue opened, {} messages are waiting", queue.depth());
    Ok(queue)
}

/// What the end of the last run has left open between ledger and queue: finished segments stay until the
/// ledger has recorded what the queue holds, and confirms it.
fn settle_doubt(ledger: &mut Ledger, queue: &mut Queue) -> Result<(), String> {
    let in_doubt = ledger.in_doubt();
    queue.keep_finished(!in_doubt.is_empty());
    let held = queue.holding(&in_doubt);
    ledger.settle(held.map_err(|error| format!("cannot read the queue: {error}"))?);
    Ok(())
}

fn open_ledger(config: &Config) -> Result<Ledger, String> {
    Ledger::open(config).map_err(|error| {
        let path = config.log.message_log.as_ref().map(|path| path.display().to_string());
        format!(
            "cannot open the message log {}: {error} (see log.message_log)",
            path.unwrap_or_default()
        )
    })
}
