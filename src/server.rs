//! The daemon's wiring, on the main thread: opens everything, spawns the named threads, passes
//! signals on, and joins them in order. Does no work of its own.

use crate::config::Config;
use crate::daemon::{self, Notifier, Owner, PidFile, admin, groups};
use crate::exit;
use crate::ledger::{self, Ledger};
use crate::queue::disk::Folder;
use crate::queue::{self, Chore, Queue};
use crate::reactor::{self, Links, Reactor};
use crate::signal::{self, Signal};
use crate::spool::{Spool, SyncFailed};
use crate::stats::Stats;
use crate::store;
use crate::template::{self, Database, DatabaseError, Table};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{self, Channels, Event, Order};
use crate::wechat::client::Network;
use crate::wechat::errcode::Errcodes;
use crate::wechat::token::Tokens;
use crate::worker::{self, Shared};
use crate::{day_file, logger, notice};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ipnet::IpNet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Descriptors that are neither clients nor workers: the files of the queue, logs, the database.
const DESCRIPTORS: usize = 256;

/// A worker renders, posts and parses; TLS needs the most of this.
const WORKER_STACK: usize = 512 * 1024;

/// What the main thread waits for.
enum Happening {
    Signal(Signal),
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
    // Only root can raise this limit.
    let fewer = reserve_descriptors(&mut config);
    let config = Arc::new(config);
    let pid_file = match settle(&config, owner) {
        Ok(pid_file) => pid_file,
        Err(why) => return fail(notifier, why),
    };
    let code = match open(&config, listeners) {
        Ok(running) => {
            fewer.inspect(|warning| log::warn!("{warning}"));
            notifier.ready(&running.greeting);
            notice!("{}", running.greeting);
            running.supervise(&config)
        }
        Err(why) => {
            log::error!("{why}");
            fail(notifier, why)
        }
    };
    // Their absence says "stopped" to everybody who looks; a failure leaves a stale file, which is
    // no obstacle.
    let _ = std::fs::remove_file(config.admin_socket());
    let _ = std::fs::remove_file(config.monitor_socket());
    pid_file.release();
    code
}

/// Everything after this is done as the user the daemon runs as.
fn settle(config: &Config, owner: &Owner) -> Result<PidFile, String> {
    daemon::settle(config, owner)?;
    if let (true, Some(stderr)) = (config.setting.daemonize, &config.setting.log_file) {
        daemon::redirect_stderr(stderr)?;
    }
    PidFile::lock(&config.setting.pid_file).map_err(|locked| locked.to_string())
}

/// Clients may take so many descriptors that the workers' connections, the segments and the logs
/// never want for one; where that is fewer than `max_conn`, says so.
fn reserve_descriptors(config: &mut Config) -> Option<String> {
    let setting = &mut config.setting;
    let reserve = 2 * setting.task_worker_num + DESCRIPTORS;
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

fn fail(notifier: Notifier, why: String) -> u8 {
    notifier.failed(&why);
    exit::FAILED
}

struct Running {
    greeting: String,
    happenings: Receiver<Happening>,
    mailbox: Mailbox,
    store: Sender<Order>,
    /// Who may connect, as of the last reload.
    allow: Vec<IpNet>,
    reactor: thread::JoinHandle<()>,
    janitors: [thread::JoinHandle<()>; 2],
    ledger: thread::JoinHandle<()>,
}

/// Opens everything and spawns the threads.
fn open(config: &Arc<Config>, listeners: Vec<TcpListener>) -> Result<Running, String> {
    let setting = &config.setting;
    let admin = admin::bind(config)?;
    open_log(config)?;
    groups::admit_admins(config)?;
    let monitor = groups::bind_monitor(config)?;
    let listen = addresses(&listeners)?;
    let mut queue = open_queue(config)?;
    let mut ledger = open_ledger(config)?;
    settle_doubt(&mut ledger, &mut queue)?;
    let decided = ledger.kept();
    let (table, database) = load_templates(config)?;
    let network = Network::open(config)?;
    let errcodes = Arc::new(Errcodes::new(&config.errcode));
    let tokens = Arc::new(Tokens::new(config, Arc::clone(&errcodes)));

    let why = |error: std::io::Error| format!("cannot start: {error}");
    let (poll, waker) = reactor::poll().map_err(why)?;
    let (mailbox, letters) = Mailbox::new(waker);
    let (orders, orders_in) = bounded(traffic::ORDERS);
    let (asks, asks_in) = bounded(traffic::ASKS);
    let (happens, happenings) = unbounded();
    let stats = Arc::new(Stats::default());
    stats.templates_loaded();
    let channels = Channels::new(setting.task_worker_num);
    let links = Links {
        config: Arc::clone(config),
        table: Arc::clone(&table),
        stats: Arc::clone(&stats),
        tokens: Arc::clone(&tokens),
        spool: channels.events.clone(),
        store: orders.clone(),
        ledger: asks,
        listen: listen.clone(),
    };
    let mut reactor = Reactor::new(poll, letters, listeners, admin, links).map_err(why)?;
    monitor.map_or(Ok(()), |monitor| reactor.hear_monitors(monitor)).map_err(why)?;

    let shared = Shared { table: Arc::clone(&table), tokens, network, errcodes };
    spawn_workers(setting.task_worker_num, shared, &channels).map_err(why)?;
    let janitors = spawn_janitors(&channels, &happens).map_err(why)?;
    let size = config.server.table_size;
    let store_mailbox = mailbox.clone();
    let store_stats = Arc::clone(&stats);
    spawn("store", &happens, move || {
        store::run(database, &table, size, &orders_in, &store_mailbox, &store_stats);
        Ended::AsPlanned
    })
    .map_err(why)?;
    let links = ledger::Links {
        notes: channels.notes.clone(),
        blocks: channels.blocks.clone(),
        asks: asks_in,
        spool: channels.events.clone(),
        mailbox: mailbox.clone(),
        stats: Arc::clone(&stats),
    };
    let ledger = spawn("ledger", &happens, move || {
        ledger.run(links);
        Ended::AsPlanned
    })
    .map_err(why)?;
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
    let allow = config.server.allow.clone();
    Ok(Running { greeting, happenings, mailbox, store: orders, allow, reactor, janitors, ledger })
}

impl Running {
    fn supervise(mut self, config: &Config) -> u8 {
        let mut stopping = false;
        while let Ok(happening) = self.happenings.recv() {
            match happening {
                Happening::Signal(Signal::Terminate) if stopping => {
                    log::warn!("asked to stop a second time: not waiting for WeChat any longer");
                    self.mailbox.send(Mail::Stop { now: true });
                }
                Happening::Signal(Signal::Terminate) => {
                    stopping = true;
                    notice!("stopping");
                    self.mailbox.send(Mail::Stop { now: false });
                }
                Happening::Drained if stopping => {}
                Happening::Drained => {
                    stopping = true;
                    notice!("nothing is left: stopping");
                    self.mailbox.send(Mail::Stop { now: false });
                }
                Happening::Signal(Signal::ReopenLogs) => day_file::reopen_all(),
                Happening::Signal(Signal::Reload) => self.reload(config),
                Happening::SpoolEnded(ended) => return self.end(ended),
                Happening::Died(name) => {
                    crate::critical!("the thread {name} has ended; so does the daemon");
                    return exit::FAILED;
                }
            }
        }
        exit::FAILED
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

    /// Templates, who may connect, and how much is logged. Other keys need a restart.
    fn reload(&mut self, config: &Config) {
        if self.store.try_send(Order::ReloadAll).is_err() {
            log::error!("templates not reloaded: the database is busy");
        }
        match Config::load(&config.file, &config.root) {
            Ok(fresh) => {
                logger::set_level(fresh.log.log_level);
                if fresh.server.allow.is_empty() && !self.allow.is_empty() {
                    log::warn!(
                        "server.allow[] has no line any more: from now on everybody who reaches the \
                         port may connect"
                    );
                }
                self.allow.clone_from(&fresh.server.allow);
                self.mailbox.send(Mail::Allow(fresh.server.allow));
                notice!("configuration reloaded: log.log_level and server.allow[]");
            }
            Err(error) => log::error!("configuration not reloaded: {error}"),
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

fn spawn_workers(workers: usize, shared: Shared, channels: &Channels) -> std::io::Result<()> {
    let shared = Arc::new(shared);
    for number in 1..=workers {
        let shared = Arc::clone(&shared);
        let links = worker::Links {
            sends: channels.sends.clone(),
            pushes: channels.pushes.clone(),
            round: channels.round.clone(),
            outcomes: channels.events.clone(),
        };
        let builder = thread::Builder::new().name(format!("worker-{number}"));
        // Not joined: one may be in the middle of a call that nobody waits for any longer.
        builder.stack_size(WORKER_STACK).spawn(move || worker::run(&shared, &links))?;
    }
    Ok(())
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
        level: config.log.log_level,
        prefix: config.log.log_prefix.clone(),
        max_files: config.log.log_max_files,
        stderr: !config.setting.daemonize && rustix::termios::isatty(rustix::stdio::stderr()),
        secrets: vec![config.wechat.app_secret.expose().into(), config.pdo.password.clone()],
    };
    logger::init(options).map_err(|error| {
        format!("cannot open the log {}: {error}", config.log.log_file.display())
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

fn load_templates(config: &Config) -> Result<(Arc<Table>, Box<dyn Database>), String> {
    let server = &config.server;
    let table = Table::new(server.table_size, server.template_size, config.wechat.template_escape);
    let failed = |error: DatabaseError| format!("cannot load the templates: {error}");
    let mut database = template::open(&config.pdo).map_err(failed)?;
    store::load_all(database.as_mut(), &table, server.table_size).map_err(failed)?;
    Ok((Arc::new(table), database))
}

/// How long `stop` may take at most, before the one who waits gives up.
pub fn stop_limit(config: &Config) -> Duration {
    config.setting.stop_timeout + Duration::from_secs(5)
}
