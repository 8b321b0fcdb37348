//! Everything that a running pgyard holds: settings, databases, clients, the front door.

use super::arguments::ServeArguments;
use super::reload::ReloadError;
use crate::auth::KeyCache;
use crate::cluster::{Cluster, ClusterContext, HostIds, ServerTlsLookup};
use crate::config::{AuthMethod, DatabaseSettings, HostSettings, Settings};
use crate::database::{Clients, Database, Directory, ShardedDatabase, Upstream};
use crate::metrics::{FrontMetrics, Registry};
use crate::net::tls::{ClientTls, ServerTls, TlsError};
use crate::session::{ConsoleHandler, Front, FrontParts, SessionLimits};
use crate::sharded::ShardedSessions;
use crate::twophase::InFlight;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

/// Derived SCRAM keys that are remembered.
const KEYS_MAX: usize = 4096;

/// How a running pgyard was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It goes on.
    No,
    /// Running transactions may end.
    Drain,
    /// At once.
    Now,
}

/// A running pgyard.
pub struct Yard {
    /// What it was told, as of the last reload.
    pub settings: ArcSwap<Settings>,
    /// Where a reload reads the settings again; `None` for the demo.
    pub source: Option<ServeArguments>,
    /// The databases.
    pub directory: Arc<Directory>,
    /// The clients.
    pub clients: Arc<Clients>,
    /// The metrics.
    pub registry: Registry,
    /// When it started.
    pub started: Instant,
    /// How it was told to end.
    pub ending: watch::Sender<Ending>,
    /// Commits over several shards that are under way.
    pub in_flight: Arc<InFlight>,
    pub(super) keys: Arc<KeyCache>,
    pub(super) context: ClusterContext,
    /// One reload at a time.
    pub(super) reloading: Mutex<()>,
}

impl Yard {
    /// Starts the clusters of `settings` on the control run-time.
    pub fn new(settings: Settings, source: Option<ServeArguments>, control: Handle) -> Arc<Yard> {
        warn_of_risks(&settings);
        let registry = Registry::new(settings.workers);
        let tls: ServerTlsLookup = Arc::new(control_tls);
        let context = ClusterContext { control, tls, host_ids: Arc::new(HostIds::default()) };
        let keys = Arc::new(KeyCache::new(KEYS_MAX));
        let upstreams: HashMap<String, Arc<Upstream>> = with_hosts(&settings)
            .iter()
            .map(|database| (database.name.clone(), upstream(database, &settings, &context, &keys)))
            .collect();
        let directory = Arc::new(Directory::new(upstreams, registry.clone()));
        set_sharded(&directory, &registry, &settings);
        Arc::new(Yard {
            directory,
            clients: Arc::new(Clients::default()),
            registry,
            started: Instant::now(),
            ending: watch::Sender::new(Ending::No),
            in_flight: Arc::default(),
            keys,
            context,
            source,
            settings: ArcSwap::from_pointee(settings),
            reloading: Mutex::default(),
        })
    }

    /// The front door, with the console and the sessions of sharded databases behind it.
    ///
    /// # Errors
    /// The TLS files can't be used.
    pub fn front(&self, console: Box<dyn ConsoleHandler>) -> Result<Arc<Front>, TlsError> {
        let settings = self.settings.load();
        let tls = settings.tls.as_ref().map(ClientTls::load).transpose()?;
        Ok(Arc::new(Front::new(FrontParts {
            directory: self.directory.clone(),
            clients: self.clients.clone(),
            settings: settings.front.clone(),
            admin: settings.admin.clone(),
            tls,
            limits: session_limits(&settings),
            keys: self.keys.clone(),
            metrics: FrontMetrics::new(&self.registry),
            console,
            sharded: Box::new(ShardedSessions::new(self.in_flight.clone())),
            workers: settings.workers,
        })))
    }

    /// Asks pgyard to end; a request is never taken back.
    pub fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|now| {
            let more = ending > *now;
            *now = (*now).max(ending);
            more
        });
    }

    /// Makes the upstreams of new settings: kept ones go on, new ones start.
    pub(super) async fn upstreams_for(&self, settings: &Settings) -> Result<HashMap<String, Arc<Upstream>>, ReloadError> {
        let known = self.directory.upstreams();
        let mut upstreams = HashMap::new();
        for database in &with_hosts(settings) {
            let next = match known.get(&database.name) {
                Some(upstream) => {
                    upstream.cluster.apply(database.clone()).await;
                    upstream.apply(database.clone());
                    upstream.clone()
                }
                None => upstream(database, settings, &self.context, &self.keys),
            };
            upstreams.insert(database.name.clone(), next);
        }
        Ok(upstreams)
    }
}

/// The databases that have hosts: those that are not sharded, and the shards of the others.
fn with_hosts(settings: &Settings) -> Vec<Arc<DatabaseSettings>> {
    let of = |database: &Arc<DatabaseSettings>| match &database.sharding {
        None => vec![database.clone()],
        Some(sharding) => sharding.shards.iter().chain(&sharding.coordinator).map(shard_settings).collect(),
    };
    settings.databases.iter().flat_map(of).collect()
}

/// A shard's settings as its sessions need them: how long a transaction may wait for its client is the whole session's affair, which may
/// be working on another shard.
fn shard_settings(shard: &Arc<DatabaseSettings>) -> Arc<DatabaseSettings> {
    let mut settings = DatabaseSettings::clone(shard);
    settings.pool.idle_transaction_timeout = std::time::Duration::ZERO;
    Arc::new(settings)
}

/// Tells the directory which databases are sharded. Those whose shards stay go on.
pub(super) fn set_sharded(directory: &Directory, registry: &Registry, settings: &Settings) {
    let make = |database: &Arc<DatabaseSettings>| {
        let sharding = database.sharding.as_ref()?;
        let shards: Vec<Arc<Database>> = sharding.shards.iter().filter_map(|shard| directory.find(&shard.name)).collect();
        if shards.is_empty() || shards.len() != sharding.shards.len() {
            return None;
        }
        let coordinator = sharding.coordinator.as_ref().and_then(|own| directory.find(&own.name));
        let same = |known: &Arc<ShardedDatabase>| {
            known.coordinator.as_ref().map(Arc::as_ptr) == coordinator.as_ref().map(Arc::as_ptr)
                && known.shards.len() == shards.len()
                && known.shards.iter().zip(&shards).all(|(one, two)| Arc::ptr_eq(one, two))
        };
        match directory.sharded_itself(&database.name).filter(same) {
            Some(known) => {
                known.apply(database.clone(), sharding.clone());
                Some(known)
            }
            None => Some(ShardedDatabase::new(database.clone(), sharding.clone(), (shards, coordinator), registry)),
        }
    };
    directory.set_sharded(settings.databases.iter().filter_map(make).collect());
}

fn upstream(
    database: &Arc<DatabaseSettings>,
    settings: &Settings,
    context: &ClusterContext,
    keys: &Arc<KeyCache>,
) -> Arc<Upstream> {
    let cluster = Cluster::start(database.clone(), context.clone());
    Upstream::new(cluster, database.clone(), keys.clone(), settings.workers, settings.front.tcp_keepalive)
}

/// What sessions must know of the settings.
pub(super) fn session_limits(settings: &Settings) -> SessionLimits {
    SessionLimits { max_message: settings.front.max_message, min_duration: settings.log.min_duration }
}

fn control_tls(host: &HostSettings) -> Option<Arc<rustls::ClientConfig>> {
    match ServerTls::load(&host.tls) {
        Ok(tls) => tls.config().cloned(),
        Err(error) => {
            tracing::error!(host = host.name, %error, "tls settings of a host can't be loaded");
            None
        }
    }
}

pub(super) fn warn_of_risks(settings: &Settings) {
    for database in settings.databases.iter().filter(|database| database.auth.method == AuthMethod::Trust) {
        tracing::warn!(
            database = database.name,
            "auth = \"trust\": ANYONE who can reach pgyard logs in to this database as any role, without a password"
        );
    }
    let open = |address: &crate::config::ListenAddress| match address {
        crate::config::ListenAddress::Tcp(address) => !address.ip().is_loopback(),
        crate::config::ListenAddress::Unix { .. } => false,
    };
    if settings.tls.is_none() && settings.listen.iter().any(open) {
        tracing::warn!("clients can connect from other machines and [tls] is not set: what they send can be read on the way");
    }
}
