//! The daemon's wiring, on the main thread: opens everything, spawns the named threads, passes
//! signals on, and joins them in order. Does no work of its own.

use crate::config::{Config, Dsn};
use crate::daemon::{self, Notifier, Owner, PidFile};
use crate::ledger::{self, Ledger};
use crate::queue::disk::Folder;
use crate::queue::{self, Queue, janitor};
use crate::reactor::{self, Links, Reactor};
use crate::signal::{self, Signal};
use crate::spool::{Spool, SyncFailed};
use crate::stats::Stats;
use crate::store;
use crate::template::{self, Database, DatabaseError, Table};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{self, Channels, Event, Order};
use crate::wechat::client::Hosts;
use crate::wechat::errcode::Errcodes;
use crate::wechat::token::Tokens;
use crate::worker::{self, Shared};
use crate::{day_file, logger, notice};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What the process says when it ends. The command line adds those of its own.
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    /// The queue could not be made durable, and going on would have been less than was promised.
    pub const SYNC_FAILED: u8 = 74;
}

/// Descriptors that are neither clients nor workers: the files of the queue, logs, the database.
const DESCRIPTORS: usize = 256;

/// A worker renders, posts and parses; TLS needs the most of this.
const WORKER_STACK: usize = 512 * 1024;

/// What the main thread waits for.
enum Happening {
    Signal(Signal),
    /// The spool has ended: stopped, with so many messages left, or because it had to.
    SpoolEnded(Result<u64, SyncFailed>),
    /// A thread that should never end by itself.
    Died(&'static str),
}

/// The administration socket stands beside the pidfile.
pub fn admin_path(config: &Config) -> PathBuf {
    config.setting.pid_file.with_extension("sock")
}

/// The daemon's life after the last fork; returns its exit code.
pub fn run(mut config: Config, listeners: Vec<TcpListener>, notifier: Notifier) -> u8 {
    let fewer = reserve_descriptors(&mut config);
    let config = Arc::new(config);
    let pid_file = match PidFile::lock(&config.setting.pid_file) {
        Ok(pid_file) => pid_file,
        Err(locked) => return fail(notifier, locked.to_string()),
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
    let _ = std::fs::remove_file(admin_path(&config));
    pid_file.release();
    code
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
    reactor: thread::JoinHandle<()>,
    janitor: thread::JoinHandle<()>,
    ledger: thread::JoinHandle<()>,
}

/// Opens everything and spawns the threads.
fn open(config: &Arc<Config>, listeners: Vec<TcpListener>) -> Result<Running, String> {
    let setting = &config.setting;
    let admin = bind_admin(config)?;
    if let Some(owner) = owner(config)? {
        hand_over(config, &owner)?;
    }
    open_log(config)?;
    let listen = addresses(&listeners)?;
    let (disk, mut queue) = open_queue(config)?;
    let mut ledger = open_ledger(config)?;
    let in_doubt = ledger.in_doubt();
    // Until what they came to is recorded; the ledger confirms it.
    queue.keep_finished(!in_doubt.is_empty());
    ledger.settle(queue.holding(&in_doubt));
    let (table, database) = load_templates(config)?;

    let why = |error: std::io::Error| format!("cannot start: {error}");
    let (poll, waker) = reactor::poll().map_err(why)?;
    let (mailbox, letters) = Mailbox::new(waker);
    let (orders, orders_in) = bounded(traffic::ORDERS);
    let (asks, asks_in) = bounded(traffic::ASKS);
    let (happens, happenings) = unbounded();
    let stats = Arc::new(Stats::default());
    let channels = Channels::new(setting.task_worker_num);
    let links = Links {
        config: Arc::clone(config),
        table: Arc::clone(&table),
        stats: Arc::clone(&stats),
        spool: channels.events.clone(),
        store: orders.clone(),
        ledger: asks,
        listen: listen.clone(),
    };
    let reactor = Reactor::new(poll, letters, listeners, admin, links).map_err(why)?;

    spawn_workers(config, &table, &channels).map_err(why)?;
    let janitor = spawn_janitor(disk, &channels).map_err(why)?;
    let size = config.server.table_size;
    let store_mailbox = mailbox.clone();
    spawn("store", &happens, move || {
        store::run(database, &table, size, &orders_in, &store_mailbox);
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
    let ledger = spawn("ledger", &happens, move || ledger.run(links)).map_err(why)?;
    let inside = channels.inside();
    // The ledger ends when nobody can tell it anything any more, and not before the spool has said how it ended.
    let last = inside.notes.clone();
    let spool =
        Spool::new(Arc::clone(config), queue, inside, mailbox.clone(), stats).map_err(why)?;
    let (ended, died) = (happens.clone(), happens.clone());
    spawn("spool", &died, move || {
        let _ = ended.send(Happening::SpoolEnded(spool.run()));
        drop(last);
    })
    .map_err(why)?;
    let reactor = spawn("reactor", &happens, move || {
        if let Err(error) = reactor.run() {
            log::error!("the reactor cannot go on: {error}");
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
    Ok(Running { greeting, happenings, mailbox, store: orders, reactor, janitor, ledger })
}

impl Running {
    fn supervise(self, config: &Config) -> u8 {
        let mut stopping = false;
        for happening in &self.happenings {
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
                Happening::Signal(Signal::ReopenLogs) => day_file::reopen_all(),
                Happening::Signal(Signal::Reload) => self.reload(config),
                Happening::SpoolEnded(ended) => return self.end(ended),
                Happening::Died("reactor") if stopping => {}
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
                // The spool has dropped its channel, so the janitor ends with its last chore.
                let _ = self.janitor.join();
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
    fn reload(&self, config: &Config) {
        if self.store.try_send(Order::ReloadAll).is_err() {
            log::error!("templates not reloaded: the database is busy");
        }
        match Config::load(&config.file, &config.root) {
            Ok(fresh) => {
                logger::set_level(fresh.log.log_level);
                self.mailbox.send(Mail::Allow(fresh.server.allow));
                notice!("configuration reloaded: log.log_level and server.allow[]");
            }
            Err(error) => log::error!("configuration not reloaded: {error}"),
        }
    }
}

fn spawn(
    name: &'static str,
    died: &Sender<Happening>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    struct Report(&'static str, Sender<Happening>);
    impl Drop for Report {
        /// Also when the thread panics.
        fn drop(&mut self) {
            let _ = self.1.send(Happening::Died(self.0));
        }
    }
    let report = Report(name, died.clone());
    thread::Builder::new().name(name.into()).spawn(move || {
        let _report = report;
        body();
    })
}

fn spawn_workers(
    config: &Arc<Config>,
    table: &Arc<Table>,
    channels: &Channels,
) -> std::io::Result<()> {
    let errcodes = Arc::new(Errcodes::new(&config.errcode));
    let shared = Arc::new(Shared {
        table: Arc::clone(table),
        tokens: Tokens::new(config, Arc::clone(&errcodes)),
        hosts: Hosts::new(config),
        errcodes,
    });
    for number in 1..=config.setting.task_worker_num {
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

fn spawn_janitor(disk: Folder, channels: &Channels) -> std::io::Result<thread::JoinHandle<()>> {
    let (chores, events) = (channels.chores.clone(), channels.events.clone());
    thread::Builder::new().name("janitor".into()).spawn(move || {
        for chore in chores {
            // A spool that has ended needs no news; the chore is done all the same.
            let _ = events.send(Event::Chore(janitor::run(&disk, chore)));
        }
    })
}

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, String> {
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    addresses.map_err(|error| format!("cannot listen: {error}"))
}

fn bind_admin(config: &Config) -> Result<UnixListener, String> {
    let path = admin_path(config);
    // The pidfile's lock is ours, so whatever is there is left over.
    let _ = std::fs::remove_file(&path);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    bound.map_err(|error| {
        format!("cannot create the administration socket {}: {error}", path.display())
    })
}

/// The user that the daemon is to run as, if it is not the one who starts it.
pub fn owner(config: &Config) -> Result<Option<Owner>, String> {
    let group = config.setting.group.as_deref();
    config.setting.user.as_deref().map(|user| Owner::find(user, group)).transpose()
}

/// Gives the daemon's own files to the user it runs as, and becomes that user.
fn hand_over(config: &Config, owner: &Owner) -> Result<(), String> {
    let queue = &config.server.queue_file_path;
    daemon::make_folder(queue, Some(owner))?;
    let mut owned = vec![config.setting.pid_file.clone(), admin_path(config), queue.clone()];
    if let Dsn::Sqlite(database) = &config.pdo.dsn
        && database.exists()
    {
        owned.push(database.clone());
    }
    for part in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{part}", config.server.ledger_file.display()));
        owned.extend(path.exists().then_some(path));
    }
    // Nothing else in these folders is touched: a log may stand among those of others.
    owned.extend(entries(queue, |name| name.contains(".seg"))?);
    for log in [Some(&config.log.log_file), config.log.message_log.as_ref()].into_iter().flatten() {
        let stem = log.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(folder) = log.parent() {
            daemon::make_folder(folder, Some(owner))?;
            owned.extend(entries(folder, |name| name.starts_with(&format!("{stem}-")))?);
        }
    }
    for path in owned {
        owner.give(&path)?;
    }
    owner.become_it()
}

fn entries(folder: &Path, ours: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, String> {
    let read = std::fs::read_dir(folder);
    let read = read.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let paths = read.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| ours(&name.to_string_lossy()));
    Ok(paths.filter(named).collect())
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
    Ok(())
}

fn open_queue(config: &Config) -> Result<(Folder, Queue), String> {
    let path = &config.server.queue_file_path;
    let shown = path.display();
    daemon::make_folder(path, None)?;
    let disk =
        Folder::lock(path).map_err(|error| format!("cannot open the queue {shown}: {error}"))?;
    let least = queue::segment_size_for(config.setting.package_max_length);
    let options = queue::Options {
        segment_size: config.queue.segment_size.max(least.next_power_of_two()),
        max_bytes: config.queue.queue_max_bytes,
    };
    let opened = Queue::open(&disk, options, crate::clock::now_ms());
    let queue = opened.map_err(|error| format!("cannot open the queue {shown}: {error}"))?;
    notice!("queue opened, {} messages are waiting", queue.depth());
    Ok((disk, queue))
}

fn open_ledger(config: &Config) -> Result<Ledger, String> {
    Ledger::open(config).map_err(|error| {
        let path = config.log.message_log.as_deref().unwrap_or(Path::new(""));
        format!("cannot open the message log {}: {error} (see log.message_log)", path.display())
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
