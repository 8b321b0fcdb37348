//! Reads the SQL catalogue of the databases in use, and knows whether what was read still holds.
//!
//! What a catalogue is, is the caller's: a query's rows as text go in, a value comes out.

use super::control_pools::{ControlError, ControlPools, control_host};
use super::snapshot::Fleet;
use crate::types::Backoff;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::{StreamExt, pin_mut};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

/// A row as text.
pub type TextRow = Vec<Option<String>>;

/// Builds a catalogue from the rows of its query.
pub type CatalogueBuild<T> = Arc<dyn Fn(Vec<TextRow>) -> Result<T, String> + Send + Sync>;

/// Largest catalogue taken, as text. Bytes.
const CATALOGUE_BYTES_MAX: usize = 256 << 20;

/// Longest time that one reading may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Shortest time between two readings of one database, so that a migration does not keep a server busy with them.
const LOAD_GAP: Duration = Duration::from_millis(50);

/// Databases whose catalogue is kept. Sessions of further ones get no catalogue, so that all they do goes to the primary.
const DATABASES_MAX: usize = 1024;

/// To show a view, PostgreSQL waits for those who change what is below it. A reading gives up long before PostgreSQL looks for deadlocks
/// (`deadlock_timeout`, 1 s): none of those others shall fail for it. It is tried again.
const BEFORE_READING: &str = "SET LOCAL lock_timeout = '200ms';";

/// What is read, and how.
pub struct CatalogueSource<T> {
    /// The query; its rows come as text.
    pub query: &'static str,
    /// Makes the catalogue.
    pub build: CatalogueBuild<T>,
}

/// The catalogue of one database: what was read last, and whether it still holds.
#[derive(Debug)]
pub struct CatalogueSlot<T> {
    current: ArcSwapOption<T>,
    /// Changes that passed through.
    changes: AtomicU64,
    /// One more than the changes that the last reading surely contains; 0 before the first.
    contained: AtomicU64,
    wake: Notify,
    loaded: watch::Sender<u64>,
    failures: AtomicU64,
    /// The primary has no such database.
    missing: AtomicBool,
    /// Nobody uses it any more.
    forgotten: AtomicBool,
}

impl<T> CatalogueSlot<T> {
    /// Readings so far: those that succeeded and those that failed.
    pub fn readings(&self) -> (u64, u64) {
        (*self.loaded.borrow(), self.failures.load(Ordering::Relaxed))
    }

    fn new() -> Self {
        CatalogueSlot {
            current: ArcSwapOption::const_empty(),
            changes: AtomicU64::new(0),
            contained: AtomicU64::new(0),
            wake: Notify::new(),
            loaded: watch::Sender::new(0),
            failures: AtomicU64::new(0),
            missing: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        }
    }

    /// Whether the primary said last that it has no such database.
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Acquire)
    }

    /// A slot that nobody fills.
    fn unfilled() -> Arc<Self> {
        Arc::new(CatalogueSlot::new())
    }

    /// What was read last. Use it for reads only while [`CatalogueSlot::is_current`].
    pub fn get(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }

    /// Where it stands, for those who keep the last one at hand.
    pub fn cell(&self) -> &ArcSwapOption<T> {
        &self.current
    }

    /// Whether a catalogue has been read and every change that was marked is in it.
    pub fn is_current(&self) -> bool {
        self.contained.load(Ordering::Acquire) > self.changes.load(Ordering::Acquire)
    }

    /// DDL passed through. To be called before its statement is sent *and* again after its transaction has committed: only a
    /// reading that begins after the commit can see it. Answers the change's number, for [`CatalogueSlot::contains`].
    pub fn mark_changed(&self) -> u64 {
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        change
    }

    /// The number of the last change that was marked; 0 if there was none.
    pub fn last_change(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether a change that was marked is in what was read last.
    pub fn contains(&self, change: u64) -> bool {
        self.contained.load(Ordering::Acquire) > change
    }

    /// Reads again without doubting what is there.
    pub fn refresh(&self) {
        self.wake.notify_one();
    }

    /// Waits until some reading has ended, or there is nothing to read: for the first session of a database. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn first_loaded(&self) {
        let mut loaded = self.loaded.subscribe();
        // The sender lives in the slot: it cannot be gone.
        let _ = loaded.wait_for(|count| *count > 0 || self.is_missing()).await;
    }

    /// Waits until what was read last holds. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn current(&self) {
        let mut loaded = self.loaded.subscribe();
        // The sender lives in the slot: it cannot be gone.
        let _ = loaded.wait_for(|_| self.is_current()).await;
    }

    /// Waits until a change that was marked is in what was read last; not for those that are marked meanwhile. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn containing(&self, change: u64) {
        let mut loaded = self.loaded.subscribe();
        // The sender lives in the slot: it cannot be gone.
        let _ = loaded.wait_for(|_| self.contains(change)).await;
    }

    /// The changes that a reading which begins now will contain.
    fn begin(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// A reading that began at `begun` ended with `catalogue`. A replica's proves only what nobody has changed yet.
    fn finish(&self, begun: u64, catalogue: Arc<T>, from_primary: bool) {
        self.current.store(Some(catalogue));
        if from_primary || begun == 0 {
            self.contained.fetch_max(begun + 1, Ordering::AcqRel);
        }
        self.loaded.send_modify(|count| *count += 1);
    }
}

/// The catalogues of all databases of a cluster.
pub struct Catalogues<T> {
    source: CatalogueSource<T>,
    slots: Mutex<HashMap<String, Arc<CatalogueSlot<T>>>>,
    context: CatalogueContext,
}

/// What the readers need of the cluster.
#[derive(Clone)]
pub(super) struct CatalogueContext {
    pub(super) fleet: Arc<ArcSwap<Fleet>>,
    pub(super) pools: Arc<ControlPools>,
    pub(super) control: tokio::runtime::Handle,
    pub(super) interval: Arc<dyn Fn() -> Duration + Send + Sync>,
    pub(super) connect_timeout: Duration,
    pub(super) stopped: watch::Receiver<bool>,
}

impl<T: Send + Sync + 'static> Catalogues<T> {
    pub(super) fn new(source: CatalogueSource<T>, context: CatalogueContext) -> Self {
        Catalogues { source, slots: Mutex::default(), context }
    }

    /// The slot of a database by its name on the servers. The first call begins to read.
    pub fn slot(&self, database: &str) -> Arc<CatalogueSlot<T>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(database) {
            return slot.clone();
        }
        if slots.len() >= DATABASES_MAX {
            tracing::warn!(database, "too many databases: its statements all go to the primary");
            return CatalogueSlot::unfilled();
        }
        let slot = Arc::new(CatalogueSlot::new());
        slots.insert(database.to_owned(), slot.clone());
        let reader = CatalogueReader {
            database: database.to_owned(),
            slot: slot.clone(),
            query: self.source.query,
            build: self.source.build.clone(),
            context: self.context.clone(),
        };
        self.context.control.spawn(reader.run());
        slot
    }

    /// Reads the catalogue of a database no more: nobody uses it.
    pub fn forget(&self, database: &str) {
        if let Some(slot) = self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(database) {
            slot.forgotten.store(true, Ordering::Release);
            slot.wake.notify_one();
        }
    }

    /// Reads all of them again.
    pub fn refresh(&self) {
        for slot in self.slots.lock().unwrap_or_else(PoisonError::into_inner).values() {
            slot.refresh();
        }
    }
}

/// The task that keeps one slot.
struct CatalogueReader<T> {
    database: String,
    slot: Arc<CatalogueSlot<T>>,
    query: &'static str,
    build: CatalogueBuild<T>,
    context: CatalogueContext,
}

impl<T: Send + Sync + 'static> CatalogueReader<T> {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut stopped = self.context.stopped.clone();
        loop {
            let pause = match self.load().await {
                Ok(from_primary) => {
                    backoff.reset();
                    self.slot.missing.store(false, Ordering::Release);
                    sleep(LOAD_GAP).await;
                    match (self.slot.is_current(), from_primary) {
                        (true, _) => (self.context.interval)(),
                        (false, true) => Duration::ZERO,
                        (false, false) => Duration::from_millis(500),
                    }
                }
                Err(error) => {
                    self.slot.failures.fetch_add(1, Ordering::Relaxed);
                    self.note_failure(&error);
                    backoff.next_delay(rand::random())
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.slot.wake.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            if self.slot.forgotten.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// That a database is not there is said once, for it may stay so.
    fn note_failure(&self, error: &CatalogueError) {
        let missing = matches!(error, CatalogueError::NoDatabase);
        let was_missing = self.slot.missing.swap(missing, Ordering::AcqRel);
        if missing {
            // Whoever waits for the first reading waits in vain.
            self.slot.loaded.send_modify(|_| {});
        }
        // That there is no host, and why, is said of the hosts.
        let no_host = matches!(error, CatalogueError::Control(ControlError::NoHost));
        match no_host || missing && was_missing {
            true => tracing::debug!(database = %self.database, %error, "reading the catalogue failed"),
            false => tracing::warn!(database = %self.database, %error, "reading the catalogue failed"),
        }
    }

    /// One reading; whether the primary gave it.
    async fn load(&self) -> Result<bool, CatalogueError> {
        let begun = self.slot.begin();
        let fleet = self.context.fleet.load_full();
        let (host, is_primary) = control_host(&fleet).ok_or(ControlError::NoHost)?;
        let wait = self.context.connect_timeout;
        let reading = async {
            let connection = self.context.pools.connection(&host, Some(&self.database), wait).await?;
            text_rows(&connection, self.query, CATALOGUE_BYTES_MAX).await
        };
        let read = timeout(LOAD_TIMEOUT, reading).await.unwrap_or(Err(ControlError::Timeout(LOAD_TIMEOUT)));
        let rows = read.map_err(|error| match error.database_error().map(|said| said.code()) {
            // A replica may not have replayed it yet.
            Some(&SqlState::INVALID_CATALOG_NAME) if is_primary => CatalogueError::NoDatabase,
            _ => CatalogueError::Control(error),
        })?;
        // Of tens of thousands of objects it takes long enough to keep probes and health checks waiting on their thread.
        let build = self.build.clone();
        let built =
            tokio::task::spawn_blocking(move || build(rows)).await.map_err(|error| CatalogueError::Build(error.to_string()))?;
        let catalogue = built.map_err(CatalogueError::Build)?;
        self.slot.finish(begun, Arc::new(catalogue), is_primary);
        Ok(is_primary)
    }
}

/// A reading that failed.
#[derive(Debug, thiserror::Error)]
enum CatalogueError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the primary has no such database")]
    NoDatabase,
    #[error("the rows make no catalogue: {0}")]
    Build(String),
}

/// The rows of a query by the simple protocol, as text.
async fn text_rows(client: &tokio_postgres::Client, query: &str, bytes_max: usize) -> Result<Vec<TextRow>, ControlError> {
    let stream = client.simple_query_raw(&format!("{BEFORE_READING}{query}")).await?;
    pin_mut!(stream);
    let (mut rows, mut bytes) = (Vec::new(), 0usize);
    while let Some(message) = stream.next().await {
        if let SimpleQueryMessage::Row(row) = message? {
            let row: TextRow = (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect();
            bytes += row.iter().flatten().map(String::len).sum::<usize>();
            if bytes > bytes_max {
                return Err(ControlError::TooLarge(bytes_max));
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_during_a_reading_is_not_in_it() {
        let slot = CatalogueSlot::new();
        assert!(!slot.is_current(), "nothing has been read");
        slot.finish(slot.begin(), Arc::new(1), true);
        assert!(slot.is_current());
        let first = slot.mark_changed();
        assert!(!slot.is_current() && !slot.contains(first));
        let begun = slot.begin();
        let second = slot.mark_changed();
        slot.finish(begun, Arc::new(2), true);
        assert!(slot.contains(first) && !slot.contains(second));
        assert!(!slot.is_current(), "the second change came while it was read");
        slot.finish(slot.begin(), Arc::new(3), true);
        assert!(slot.is_current());
        assert_eq!(slot.get().as_deref(), Some(&3));
    }

    #[test]
    fn a_replica_proves_only_what_nobody_changed() {
        let slot = CatalogueSlot::new();
        slot.finish(slot.begin(), Arc::new(1), false);
        assert!(slot.is_current());
        slot.mark_changed();
        slot.finish(slot.begin(), Arc::new(2), false);
        assert!(!slot.is_current(), "it may not have replayed the change");
        assert_eq!(slot.get().as_deref(), Some(&2));
    }

    #[test]
    fn readings_that_end_out_of_order_do_not_take_knowledge_back() {
        let slot = CatalogueSlot::new();
        let early = slot.begin();
        slot.mark_changed();
        slot.finish(slot.begin(), Arc::new(2), true);
        slot.finish(early, Arc::new(1), true);
        assert!(slot.is_current());
    }
}
