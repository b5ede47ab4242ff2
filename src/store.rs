//! The store thread: owns the one database connection. Loads templates into the table, one for each tset and all of
//! them for a reload, keeps them in a file for a start without the database, and asks a database that does not
//! answer again until it does. Answers through the mailbox; never touches the queue.

use crate::clock::unix_seconds;
use crate::config::{Config, Pdo};
use crate::stats::Stats;
use crate::template::{
    self, Change, Database, DatabaseError, Insert, Instead, Kept, Loaded, Old, Row, Table, Terms,
};
use crate::traffic::batch::Reply;
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::traffic::{Changed, Reload, Tset};
use crate::wire::command;
use crossbeam_channel::{Receiver, Sender, after, never, select_biased};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long it is waited before a database that does not answer is asked again: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub struct Store {
    table: Arc<Table>,
    pdo: Pdo,
    /// None: it has not answered since the start, and the templates are those that were kept.
    database: Option<Box<dyn Database>>,
    /// It did not answer.
    trouble: Option<Trouble>,
    kept: Kept,
    /// The table has what the file has not.
    unkept: bool,
    stats: Arc<Stats>,
}

struct Trouble {
    why: String,
    again: Instant,
    pause: Duration,
}

/// Where orders come from, and where what follows from them goes.
pub struct Links {
    pub tsets: Receiver<Tset>,
    pub reloads: Receiver<Reload>,
    pub mailbox: Mailbox,
    pub history: Sender<Vec<Change>>,
}

/// Connects, and takes what the database has: one more than fit, so that somebody learns of those that do not.
pub fn load(pdo: &Pdo, table_size: usize) -> Result<(Box<dyn Database>, Vec<Row>), DatabaseError> {
    let mut database = template::open(pdo)?;
    let rows = database.load(table_size.saturating_add(1))?;
    Ok((database, rows))
}

impl Store {
    /// Loads all templates: from the database, or, where it does not answer, from the file in which they were kept.
    pub fn open(config: &Config, stats: Arc<Stats>) -> Result<Store, String> {
        let terms = Terms::of(config);
        let Terms { table_size, template_size, filling } = terms;
        let mut store = Store {
            table: Arc::new(Table::new(table_size, template_size, filling)),
            pdo: config.pdo.clone(),
            database: None,
            trouble: None,
            kept: Kept::of(config),
            unkept: false,
            stats,
        };
        match load(&store.pdo, table_size) {
            Ok((database, rows)) => {
                store.database = Some(database);
                store.take(rows, terms);
                store.keep();
            }
            Err(error) => match store.kept.instead_of(&error) {
                Instead::Use(old) => store.fall_back(old, &error, terms),
                Instead::Create => {
                    let created = template::create(&store.pdo);
                    store.database = Some(created.map_err(|error| error.to_string())?);
                    store.take(Vec::new(), terms);
                    store.keep();
                }
                Instead::Refuse(why) => return Err(format!("cannot load the templates: {why}")),
            },
        }
        Ok(store)
    }

    fn fall_back(&mut self, old: Old, error: &DatabaseError, terms: Terms) {
        let path = self.kept.path.display();
        log::warn!(
            "cannot load the templates: {error}; those kept in {path} are used until the database answers: it is \
             asked again and again"
        );
        tell(self.table.replace_all(old.rows, terms));
        self.stats.database.lock().loaded = Some(old.loaded);
        self.fails(&error.to_string());
    }

    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }

    /// Works until nobody can order anything any more.
    pub fn run(mut self, links: &Links) {
        loop {
            let (tsets, reloads) = (&links.tsets, &links.reloads);
            // One write for all that came at once.
            if self.unkept && tsets.is_empty() {
                self.keep();
            }
            let again = self.trouble.as_ref().map_or_else(never, |trouble| {
                after(trouble.again.saturating_duration_since(Instant::now()))
            });
            select_biased! {
                recv(reloads) -> reload => match reload {
                    Ok(Reload { config, done }) => done(self.reload(&config, &links.history)),
                    Err(_) => return,
                },
                recv(tsets) -> tset => match tset {
                    Ok(Tset { to, key }) => {
                        let (code, message) = self.tset(&key, &links.history);
                        let close = code == command::FAILED;
                        let reply = Reply { to, code, message: message.into(), close };
                        let replies = vec![reply];
                        links.mailbox.send(Mail::Replies { replies, batches: Vec::new() });
                    }
                    Err(_) => return,
                },
                recv(again) -> _ => self.ask_again(&links.history),
            }
        }
    }

    /// Makes what the configuration's database has the table's content, by the configuration's terms. Where it
    /// fails, nothing has changed.
    fn reload(
        &mut self,
        config: &Config,
        history: &Sender<Vec<Change>>,
    ) -> Result<Changed, String> {
        let terms = Terms::of(config);
        let loaded = match &mut self.database {
            Some(database) if config.pdo == self.pdo => {
                database.load(terms.table_size.saturating_add(1)).map(|rows| (None, rows))
            }
            _ => load(&config.pdo, terms.table_size).map(|(database, rows)| (Some(database), rows)),
        };
        let (mut database, rows) = loaded.map_err(|error| {
            if config.pdo == self.pdo {
                self.fails(&error.to_string());
            }
            error.to_string()
        })?;
        let asked = database.as_mut().or(self.database.as_mut());
        let asked = asked.expect("invariant: one of them has loaded the rows");
        let rows = all_in_use(&self.table, asked.as_mut(), rows, terms)?;
        if database.is_some() {
            self.database = database;
            self.pdo = config.pdo.clone();
            self.kept.turn_to(&self.pdo);
        }
        let changes = self.take(rows, terms);
        let gone = changes.iter().filter(|change| change.now.is_none());
        let gone = gone.map(|change| change.key.clone()).collect();
        let changed = Changed { templates: self.table.len(), changed: changes.len(), gone };
        pass_on(history, changes);
        Ok(changed)
    }

    /// The database was in trouble, and it is time to see whether it is back.
    fn ask_again(&mut self, history: &Sender<Vec<Change>>) {
        let terms = self.table.terms();
        let asked = match &mut self.database {
            // What is in memory is what was asked for; whoever changes a text says so.
            Some(database) => database.find(b"").map(|_| None),
            None => load(&self.pdo, terms.table_size).map(Some),
        };
        match asked {
            Err(error) => self.fails(&error.to_string()),
            Ok(None) => self.answers(),
            Ok(Some((mut database, rows))) => {
                match all_in_use(&self.table, database.as_mut(), rows, terms) {
                    Ok(rows) => {
                        self.database = Some(database);
                        let changes = self.take(rows, terms);
                        pass_on(history, changes);
                    }
                    Err(why) => self.fails(&why),
                }
            }
        }
    }

    fn tset(&mut self, key: &[u8], history: &Sender<Vec<Change>>) -> (u16, String) {
        let Some(database) = &mut self.database else {
            let why = self.trouble.as_ref().map(|trouble| trouble.why.clone());
            return (command::FAILED, why.unwrap_or_default());
        };
        let row = match database.find(key) {
            Ok(row) => row,
            Err(error) => {
                log::error!("tset: {error}");
                self.fails(&error.to_string());
                return (command::FAILED, error.to_string());
            }
        };
        self.answers();
        let Some(row) = row else {
            return (command::BAD_REQUEST, command::NO_TEMPLATE.into());
        };
        let (insert, loaded) = self.table.reload(&row);
        match insert {
            Insert::Stored => {
                log::info!("template {:?} reloaded", row.key);
                let changes = tell(loaded);
                self.unkept |= !changes.is_empty();
                pass_on(history, changes);
                (command::OK, String::new())
            }
            Insert::OverTableSize => (command::BAD_REQUEST, command::OVER_TABLE_SIZE.into()),
            Insert::OverTemplateSize => (command::BAD_REQUEST, command::OVER_TEMPLATE_SIZE.into()),
        }
    }

    /// Fills the table with all that the database has, and says what has changed.
    fn take(&mut self, rows: Vec<Row>, terms: Terms) -> Vec<Change> {
        let changes = tell(self.table.replace_all(rows, terms));
        crate::notice!("{} templates loaded", self.table.len());
        self.stats.database.lock().loaded = Some(unix_seconds());
        self.unkept = true;
        self.answers();
        changes
    }

    /// Keeps the table in its file. Where that fails the templates are still in memory.
    fn keep(&mut self) {
        self.unkept = false;
        let loaded = self.stats.database.lock().loaded.unwrap_or_default();
        if let Err(error) = self.kept.write(&self.table, loaded) {
            log::warn!(
                "the templates cannot be kept in {}: {error} (a start while the database is away would \
                 not have them)",
                self.kept.path.display()
            );
        }
    }

    fn answers(&mut self) {
        if self.trouble.take().is_some() {
            crate::notice!("the templates' database answers again");
            self.stats.database.lock().answers();
        }
    }

    fn fails(&mut self, why: &str) {
        let (why, now) = (why.to_owned(), Instant::now());
        self.stats.database.lock().fails(&why);
        let pause = match &mut self.trouble {
            // Somebody else has asked meanwhile.
            Some(trouble) if now < trouble.again => return trouble.why = why,
            Some(trouble) => (trouble.pause * 2).min(LONGEST_PAUSE),
            None => {
                log::warn!("the templates' database does not answer: {why}");
                FIRST_PAUSE
            }
        };
        self.trouble = Some(Trouble { why, again: now + pause, pause });
    }
}

/// The rows that a load brought, and with them those of templates in use that it had no room for: what is in use
/// stays so as long as the database has it, or nothing changes.
fn all_in_use(
    table: &Table,
    database: &mut dyn Database,
    mut rows: Vec<Row>,
    terms: Terms,
) -> Result<Vec<Row>, String> {
    if rows.len() > terms.table_size {
        for key in table.missing_in(&rows) {
            rows.extend(database.find(&key).map_err(|error| error.to_string())?);
        }
    }
    table.keeping(rows, terms)
}

fn tell(loaded: Loaded) -> Vec<Change> {
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    loaded.changes
}

/// Hands changes to the ledger, which may be too busy for them: no message waits for a history.
fn pass_on(history: &Sender<Vec<Change>>, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    if let Err(error) = history.try_send(changes) {
        let count = error.into_inner().len();
        log::warn!("the ledger is busy: {count} changed templates are not kept in the history");
    }
}
