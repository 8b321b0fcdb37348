//! The databases that clients may name.

use super::gate::TransactionGate;
use super::held::HeldStatements;
use super::rates::AddressBook;
use super::role::RolePools;
use super::seats::{ClientSeat, ClientSeats, SeatLimit, SeatLimits};
use super::served::ShardedBook;
use super::sharded::ShardedDatabase;
use super::statements::Statements;
use super::upstream::Upstream;
use super::writes::WriteBook;
use crate::auth::ServerCredential;
use crate::cluster::CatalogueSlot;
use crate::config::DatabaseSettings;
use crate::metrics::{DatabaseMetrics, Registry};
use crate::pool::Pool;
use crate::server::ParameterSets;
use crate::sql::Catalogue;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// Databases that `*` may bring into being, so that a client can't fill the memory with names.
const WILDCARD_DATABASES_MAX: usize = 1000;

/// One database as clients name it.
pub struct Database {
    /// Unique in this process.
    pub id: u64,
    /// The name clients use.
    pub name: Arc<str>,
    upstream: Arc<Upstream>,
    catalogue: Arc<CatalogueSlot<Catalogue>>,
    builtin: Arc<Catalogue>,
    /// What is counted of it.
    pub metrics: Arc<DatabaseMetrics>,
    /// The writes of its sessions, and of those that know the same database by another name.
    pub writes: Arc<WriteBook>,
    /// Its statements that wait for a host.
    pub held: Arc<HeldStatements>,
    /// The statements that came from each address, where their rate is limited.
    pub(super) addresses: AddressBook,
    seats: Arc<ClientSeats>,
    /// Its prepared statements.
    pub statements: Statements,
    /// The parameter sets of its sessions.
    pub parameters: Arc<ParameterSets>,
    roles: Mutex<HashMap<Arc<str>, Arc<RolePools>>>,
    /// Somebody asks which tables are written.
    counts_tables: AtomicBool,
    siblings: Siblings,
    paused: watch::Sender<bool>,
    /// The same, for those who only look.
    is_paused: AtomicBool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every database of the directory.
type Siblings = Arc<Mutex<Vec<Weak<Database>>>>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Database {
    /// The hosts that serve it.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Its settings.
    pub fn settings(&self) -> arc_swap::Guard<Arc<DatabaseSettings>> {
        self.upstream.settings()
    }

    /// Its name on the servers.
    pub fn server_name(&self) -> String {
        self.settings().server_name.clone().unwrap_or_else(|| self.name.to_string())
    }

    /// The catalogue as it was last read; the built-in one until then.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.get().unwrap_or_else(|| self.builtin.clone())
    }

    /// Where the catalogue stands, for those who keep the last one at hand.
    pub fn catalogue_slot(&self) -> &Arc<CatalogueSlot<Catalogue>> {
        &self.catalogue
    }

    /// Readings of the catalogue so far: those that succeeded and those that failed.
    pub fn catalogue_readings(&self) -> (u64, u64) {
        self.catalogue.readings()
    }

    /// Waits until the catalogue was read once, at most `limit`.
    pub async fn catalogue_loaded(&self, limit: std::time::Duration) {
        // Without a catalogue everything goes to the primary, which is right too.
        let _ = tokio::time::timeout(limit, self.catalogue.first_loaded()).await;
    }

    /// Whether the catalogue has been read, and no DDL has passed since.
    pub fn catalogue_is_current(&self) -> bool {
        self.catalogue.is_current()
    }

    /// DDL is about to pass, or has been committed: the catalogue is read again, and until then nothing is taken for a read.
    /// Answers the change's number.
    pub fn catalogue_changed(&self) -> u64 {
        let change = self.catalogue.mark_changed();
        self.writes.catalogue_changed();
        change
    }

    /// Whether it matters which tables a statement uses. What was written before counts for all of them.
    pub fn counts_tables(&self) -> bool {
        self.counts_tables.load(Ordering::Relaxed)
    }

    /// From now on it matters which tables a statement uses.
    pub fn count_tables(&self) {
        self.counts_tables.store(true, Ordering::Relaxed);
    }

    /// The number of the last change of the catalogue that passed through.
    pub fn last_change(&self) -> u64 {
        self.catalogue.last_change()
    }

    /// New sessions of its servers begin otherwise than before: connections that were opened until now serve nobody any more, once
    /// they are free. So do those of the other databases there.
    pub fn defaults_changed(&self) {
        for database in self.known().iter().filter(|database| Arc::ptr_eq(&database.upstream, &self.upstream)) {
            database.roles().iter().for_each(|role| role.defaults_changed(|_| true));
        }
    }

    /// Every database of the directory.
    fn known(&self) -> Vec<Arc<Database>> {
        self.siblings.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Closes the connections that nobody uses to the database of this name on the servers, whatever clients call it. Those in use
    /// are closed when they are free.
    pub fn leave_alone(&self, server_name: &str) {
        for database in self.known().iter().filter(|database| database.server_name() == server_name) {
            database.upstream.cluster.leave_alone(server_name);
            database.roles().iter().for_each(|role| role.pools().iter().for_each(Pool::renew));
        }
    }

    /// Something has happened to the database of this name on the servers: its catalogue is read again.
    pub fn look_again(&self, server_name: &str) {
        let known = self.known();
        known.iter().filter(|database| database.server_name() == server_name).for_each(|database| database.catalogue.refresh());
    }

    /// Whether the catalogue has been read since this change.
    pub fn catalogue_contains(&self, change: u64) -> bool {
        self.catalogue.contains(change)
    }

    fn roles_locked(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<RolePools>>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools of a role that has just proven itself with `credential`.
    pub fn role(self: &Arc<Self>, role: &str, credential: ServerCredential) -> Arc<RolePools> {
        let mut roles = self.roles_locked();
        if let Some(found) = roles.get(role) {
            found.set_credential(credential);
            return found.clone();
        }
        let name: Arc<str> = role.into();
        let made = RolePools::new(name.clone(), Arc::downgrade(self), credential);
        roles.insert(name, made.clone());
        made
    }

    /// The pools of a role that has logged in before.
    pub fn role_named(&self, role: &str) -> Option<Arc<RolePools>> {
        self.roles_locked().get(role).cloned()
    }

    /// Every role that has logged in.
    pub fn roles(&self) -> Vec<Arc<RolePools>> {
        let mut roles: Vec<_> = self.roles_locked().values().cloned().collect();
        roles.sort_by(|a, b| a.role.cmp(&b.role));
        roles
    }

    /// A place for a client of this role.
    ///
    /// # Errors
    /// As many clients as may be are there.
    pub fn take_seat(&self, role: &str) -> Result<ClientSeat, SeatLimit> {
        let settings = self.settings();
        let own = settings.users.iter().find(|user| user.name == role).and_then(|user| user.max_clients);
        let of_role = own.unwrap_or(settings.clients.max_clients_per_user);
        self.seats.take(role, SeatLimits { database: settings.clients.max_clients, role: of_role })
    }

    /// Holds new requests back, or lets them go on.
    pub fn set_paused(&self, paused: bool) {
        self.is_paused.store(paused, Ordering::Release);
        self.paused.send_replace(paused);
    }

    /// Whether new requests are held back.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// Waits until requests are not held back.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn resumed(&self) {
        let mut paused = self.paused.subscribe();
        // The sender lives as long as `self`.
        let _ = paused.wait_for(|paused| !paused).await;
    }

    /// Closes idle connections that are too old and opens those that are wanted.
    pub fn maintain(&self) {
        for role in self.roles() {
            role.pools().iter().for_each(|pool| pool.maintain());
        }
    }

    fn apply(&self) {
        let fleet = self.upstream.cluster.fleet();
        for role in self.roles() {
            role.retain_hosts(|id| fleet.hosts.iter().any(|view| view.host.id == id));
            role.forget_welcomes();
            let limits = role.limits(self);
            role.pools().iter().for_each(|pool| pool.set_limits(limits.clone()));
        }
    }

    fn close(&self) {
        for role in self.roles() {
            role.retain_hosts(|_| false);
        }
    }
}

/// All databases.
pub struct Directory {
    upstreams: ArcSwap<HashMap<String, Arc<Upstream>>>,
    databases: ArcSwap<HashMap<Arc<str>, Arc<Database>>>,
    sharded: ArcSwap<ShardedBook>,
    /// How often the sharded databases were replaced.
    sharded_changes: AtomicU64,
    gates: Mutex<HashMap<Arc<str>, Arc<TransactionGate>>>,
    siblings: Siblings,
    making: Mutex<()>,
    registry: Registry,
}

impl Directory {
    /// The databases behind these upstreams; `*` among them serves any other name.
    pub fn new(upstreams: HashMap<String, Arc<Upstream>>, registry: Registry) -> Self {
        let directory = Directory {
            upstreams: ArcSwap::from_pointee(upstreams),
            databases: ArcSwap::default(),
            sharded: ArcSwap::default(),
            sharded_changes: AtomicU64::new(1),
            gates: Mutex::default(),
            siblings: Siblings::default(),
            making: Mutex::default(),
            registry,
        };
        let names: Vec<String> = directory.upstreams.load().keys().filter(|name| *name != "*").cloned().collect();
        names.iter().for_each(|name| drop(directory.find(name)));
        directory
    }

    /// The database with this name; made when `*` serves it and it is asked for first.
    pub fn find(&self, name: &str) -> Option<Arc<Database>> {
        if let Some(database) = self.databases.load().get(name) {
            return Some(database.clone());
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.databases.load();
        if let Some(database) = known.get(name) {
            return Some(database.clone());
        }
        let upstreams = self.upstreams.load();
        let upstream = match upstreams.get(name) {
            Some(own) => own,
            None if known.len() < WILDCARD_DATABASES_MAX => upstreams.get("*")?,
            None => return None,
        };
        let database = self.make(name, upstream);
        let mut databases = known.as_ref().clone();
        databases.insert(database.name.clone(), database.clone());
        self.databases.store(Arc::new(databases));
        Some(database)
    }

    fn make(&self, name: &str, upstream: &Arc<Upstream>) -> Arc<Database> {
        let server_name = upstream.settings().server_name.clone().unwrap_or_else(|| name.to_owned());
        let made = Arc::new(Database {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            upstream: upstream.clone(),
            catalogue: upstream.catalogue(&server_name),
            builtin: upstream.builtin(),
            metrics: Arc::new(DatabaseMetrics::new(&self.registry, name)),
            writes: upstream.writes(&server_name),
            counts_tables: AtomicBool::new(false),
            held: Arc::default(),
            addresses: AddressBook::default(),
            seats: Arc::default(),
            statements: Statements::default(),
            parameters: Arc::default(),
            roles: Mutex::default(),
            paused: watch::Sender::new(false),
            siblings: self.siblings.clone(),
            is_paused: AtomicBool::new(false),
        });
        let mut siblings = self.siblings.lock().unwrap_or_else(PoisonError::into_inner);
        siblings.retain(|sibling| sibling.strong_count() > 0);
        siblings.push(Arc::downgrade(&made));
        made
    }

    /// Forgets a database that `*` brought into being and that turned out not to exist.
    pub fn forget_unused(&self, name: &str) {
        self.forget(|database| *database.name == *name && database.roles_locked().is_empty());
    }

    /// Forgets databases that `*` brought into being and that the primary has no more, once no client is left in them.
    pub fn forget_missing(&self) {
        let is_gone = |database: &Database| database.catalogue.is_missing() && database.seats.is_empty();
        if self.databases.load().values().any(|database| is_gone(database)) {
            self.forget(is_gone);
        }
    }

    /// Forgets such of the databases that `*` brought into being.
    fn forget(&self, is_gone: impl Fn(&Database) -> bool) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let upstreams = self.upstreams.load();
        let (gone, kept): (HashMap<_, _>, HashMap<_, _>) = self
            .databases
            .load()
            .iter()
            .map(|(name, database)| (name.clone(), database.clone()))
            .partition(|(name, database)| !upstreams.contains_key(&**name) && is_gone(database));
        if gone.is_empty() {
            return;
        }
        for database in gone.values() {
            tracing::info!(database = &*database.name, "forgetting a database that is not there");
            database.close();
            let shares = |other: &Arc<Database>| Arc::ptr_eq(&other.catalogue, &database.catalogue);
            if !kept.values().any(shares) {
                database.upstream.forget_catalogue(&database.server_name());
            }
            self.registry.forget(&[("database", &*database.name)]);
        }
        self.databases.store(Arc::new(kept));
    }

    /// Every database that a client has named or the configuration lists.
    pub fn all(&self) -> Vec<Arc<Database>> {
        let mut all: Vec<_> = self.databases.load().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The sharded database that serves clients who name this one.
    pub fn sharded(&self, name: &str) -> Option<Arc<ShardedDatabase>> {
        self.sharded.load().served.get(name).cloned()
    }

    /// The sharded database of this name, whoever serves its clients.
    pub fn sharded_itself(&self, name: &str) -> Option<Arc<ShardedDatabase>> {
        self.sharded.load().own.get(name).cloned()
    }

    /// How often the sharded databases were replaced: a session that has seen the same number is where it should be.
    pub fn sharded_changes(&self) -> u64 {
        self.sharded_changes.load(Ordering::Acquire)
    }

    /// The gate before the transactions of clients who name this database.
    pub fn gate(&self, name: &str) -> Arc<TransactionGate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(name.into()).or_default().clone()
    }

    /// Every sharded database.
    pub fn all_sharded(&self) -> Vec<Arc<ShardedDatabase>> {
        let mut all: Vec<_> = self.sharded.load().own.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Replaces the sharded databases. Clients of one whose settings say so are served by another.
    pub fn set_sharded(&self, sharded: Vec<Arc<ShardedDatabase>>) {
        self.sharded.store(Arc::new(ShardedBook::of(sharded)));
        self.sharded_changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether this is the database of one shard, which clients can't name.
    pub fn is_shard(&self, name: &str) -> bool {
        self.sharded.load().has_shard(name)
    }

    /// Closes all connections to servers, as far as nobody uses them.
    pub fn close(&self) {
        self.all().iter().for_each(|database| database.close());
    }

    /// Every upstream by the name of its entry.
    pub fn upstreams(&self) -> Arc<HashMap<String, Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// Replaces the upstreams after a reload. Databases whose entry is gone are closed; sessions in them end with their next
    /// request.
    pub fn apply(&self, upstreams: HashMap<String, Arc<Upstream>>) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut databases = self.databases.load().as_ref().clone();
        databases.retain(|name, database| {
            let serves = upstreams.get(&**name).or_else(|| upstreams.get("*"));
            let stays = serves.is_some_and(|upstream| Arc::ptr_eq(upstream, &database.upstream));
            if stays {
                database.apply()
            } else {
                database.close()
            }
            stays
        });
        self.upstreams.store(Arc::new(upstreams));
        self.databases.store(Arc::new(databases));
    }
}
