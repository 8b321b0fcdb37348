//! The pools of one role in one database, one per host.

use super::directory::Database;
use crate::auth::ServerCredential;
use crate::cluster::{Cluster, Host, HostReport};
use crate::config::PoolMode;
use crate::pool::{Connector, IdentityCheck, Pool, PoolKey, PoolLimits};
use crate::server::{ConnectError, ParameterSet, ReportedParameters};
use crate::types::TokenBucket;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Combinations of start-up parameters whose welcome is remembered, per role.
const WELCOMES_MAX: usize = 16;

/// What a server of a role last reported at log-in, by what was asked for: the welcome for the next client.
#[derive(Debug, Default)]
struct Welcomes {
    known: Vec<(ParameterSet, Arc<ReportedParameters>)>,
    /// How often they were forgotten.
    age: u64,
}

/// A role's server connections.
#[derive(Debug)]
pub struct RolePools {
    /// The role.
    pub role: Arc<str>,
    database: Weak<Database>,
    credential: Arc<ArcSwap<ServerCredential>>,
    pools: Arc<ArcSwap<Vec<Arc<Pool>>>>,
    making: Mutex<()>,
    /// Its statements, where their rate is limited.
    pub(super) statements: Mutex<TokenBucket>,
    /// Sessions of it ask for `currval()` outside the transaction that made it.
    asks_for_sequences: AtomicBool,
    /// Counts how often what new server sessions begin with has changed.
    defaults: Arc<AtomicU32>,
    welcomes: Mutex<Welcomes>,
}

impl RolePools {
    pub(super) fn new(role: Arc<str>, database: Weak<Database>, credential: ServerCredential) -> Arc<Self> {
        Arc::new(RolePools {
            role,
            database,
            credential: Arc::new(ArcSwap::from_pointee(credential)),
            pools: Arc::default(),
            making: Mutex::default(),
            statements: Mutex::default(),
            asks_for_sequences: AtomicBool::new(false),
            defaults: Arc::default(),
            welcomes: Mutex::default(),
        })
    }

    /// Replaces what proves the role to servers: a client has just logged in with it. Says whether it changed.
    pub fn set_credential(&self, credential: ServerCredential) -> bool {
        if **self.credential.load() == credential {
            return false;
        }
        self.credential.store(Arc::new(credential));
        true
    }

    /// Whether a session of it has asked for `currval()` or `lastval()` so far.
    pub fn asks_for_sequences(&self) -> bool {
        self.asks_for_sequences.load(Ordering::Relaxed)
    }

    /// One does.
    pub fn note_asking_for_sequences(&self) {
        self.asks_for_sequences.store(true, Ordering::Relaxed);
    }

    /// Where its pools stand, for those who keep the last ones at hand.
    pub fn pools_cell(&self) -> &Arc<ArcSwap<Vec<Arc<Pool>>>> {
        &self.pools
    }

    /// The pool for a host; made when it is asked for first. `None` when the database is gone.
    pub fn pool(&self, host: &Arc<Host>) -> Option<Arc<Pool>> {
        let found = |pools: &[Arc<Pool>]| pools.iter().find(|pool| pool.key.host_id == host.id).cloned();
        if let Some(pool) = found(&self.pools.load()) {
            return Some(pool);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pools = self.pools.load().as_ref().clone();
        if let Some(pool) = found(&pools) {
            return Some(pool);
        }
        let pool = self.make(host)?;
        pools.push(pool.clone());
        self.pools.store(Arc::new(pools));
        Some(pool)
    }

    fn make(&self, host: &Arc<Host>) -> Option<Arc<Pool>> {
        let database = self.database.upgrade()?;
        let upstream = database.upstream();
        let key = PoolKey {
            host_id: host.id,
            host: host.settings.name.as_str().into(),
            database: database.name.clone(),
            role: self.role.clone(),
        };
        let connector = Connector {
            target: upstream.target_cell(host)?,
            database: database.server_name(),
            role: self.role.to_string(),
            credential: self.credential.clone(),
            keys: upstream.keys().clone(),
            identity: Some(identity_check(&upstream.cluster, host.id)),
            defaults: self.defaults.clone(),
        };
        let (cluster, host_id, counters) = (Arc::downgrade(&upstream.cluster), host.id, host.counters.clone());
        let observer = Box::new(move |outcome: Result<(), &ConnectError>| {
            let count = if outcome.is_ok() { &counters.connects } else { &counters.connect_failures };
            count.fetch_add(1, Ordering::Relaxed);
            let Some(cluster) = cluster.upgrade() else { return };
            match outcome {
                Ok(()) => cluster.report(host_id, HostReport::Ok),
                Err(error) if error.is_host_well() => {}
                Err(error @ ConnectError::Stranger(_)) => {
                    tracing::warn!(%error, "a new server connection is not used");
                    counters.strangers.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => cluster.report(host_id, HostReport::ConnectFailed),
            }
        });
        let pool = Pool::new(key, connector, upstream.permits(host), self.limits(&database), upstream.workers(), observer);
        Some(pool)
    }

    /// The limits that the settings give this role.
    pub fn limits(&self, database: &Database) -> PoolLimits {
        let settings = database.settings();
        let user = settings.users.iter().find(|user| *user.name == *self.role);
        PoolLimits {
            size: user.and_then(|user| user.pool_size).unwrap_or(settings.pool.size),
            min_idle: settings.pool.min_idle,
            max_waiting: user.and_then(|user| user.max_waiting).unwrap_or(settings.pool.max_waiting),
            checkout_timeout: user.and_then(|user| user.checkout_timeout).unwrap_or(settings.pool.checkout_timeout),
            idle_timeout: settings.pool.idle_timeout,
            max_age: settings.pool.max_age,
        }
    }

    /// When this role's sessions give their connection back.
    pub fn mode(&self, database: &Database) -> PoolMode {
        let settings = database.settings();
        let user = settings.users.iter().find(|user| *user.name == *self.role);
        user.and_then(|user| user.pool_mode).unwrap_or(settings.pool.mode)
    }

    /// All pools.
    pub fn pools(&self) -> Arc<Vec<Arc<Pool>>> {
        self.pools.load_full()
    }

    /// Keeps the pools of these hosts and closes the others.
    pub(super) fn retain_hosts(&self, keep: impl Fn(u32) -> bool) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, gone): (Vec<_>, Vec<_>) = self.pools.load().iter().cloned().partition(|pool| keep(pool.key.host_id));
        if !gone.is_empty() {
            self.pools.store(Arc::new(kept));
            gone.iter().for_each(Pool::close);
        }
    }

    fn welcomes(&self) -> MutexGuard<'_, Welcomes> {
        self.welcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a server reports at log-in to this role with these parameters, if one was asked before; else what
    /// [`RolePools::set_welcome`] wants to know.
    pub fn welcome(&self, parameters: &ParameterSet) -> Result<Arc<ReportedParameters>, u64> {
        let welcomes = self.welcomes();
        let found = welcomes.known.iter().find(|(asked, _)| asked == parameters);
        found.map(|(_, reported)| reported.clone()).ok_or(welcomes.age)
    }

    /// Notes what a server reports at log-in to this role with these parameters, unless all was forgotten since it was asked.
    pub fn set_welcome(&self, parameters: ParameterSet, reported: Arc<ReportedParameters>, age: u64) {
        let mut welcomes = self.welcomes();
        if welcomes.age != age {
            return;
        }
        welcomes.known.retain(|(asked, _)| *asked != parameters);
        if welcomes.known.len() == WELCOMES_MAX {
            welcomes.known.remove(0);
        }
        welcomes.known.push((parameters, reported));
    }

    /// Forgets what servers reported: their settings may have changed.
    pub fn forget_welcomes(&self) {
        let mut welcomes = self.welcomes();
        welcomes.known.clear();
        welcomes.age += 1;
    }

    /// How often what new server sessions begin with has changed.
    pub fn defaults(&self) -> u32 {
        self.defaults.load(Ordering::Acquire)
    }

    /// What new server sessions begin with has changed on these hosts: older connections serve nobody any more, once they are free.
    pub fn defaults_changed(&self, on: impl Fn(u32) -> bool) {
        self.defaults.fetch_add(1, Ordering::AcqRel);
        self.forget_welcomes();
        self.pools().iter().filter(|pool| on(pool.key.host_id)).for_each(Pool::renew);
    }
}

/// Asks the cluster whether a server is the one that the host's probe knows. Without a cluster nobody asks any more.
fn identity_check(cluster: &Arc<Cluster>, host_id: u32) -> IdentityCheck {
    let cluster = Arc::downgrade(cluster);
    Arc::new(move |started_us| {
        let cluster = cluster.upgrade();
        Box::pin(async move {
            match cluster {
                Some(cluster) => cluster.knows_server(host_id, started_us).await,
                None => true,
            }
        })
    })
}
