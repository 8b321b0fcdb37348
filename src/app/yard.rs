//! Everything that a running pgyard holds: settings, databases, clients, the front door.

use super::arguments::ServeArguments;
use super::reload::ReloadError;
use crate::auth::KeyCache;
use crate::cluster::{Cluster, ClusterContext, HostIds, ServerTlsLookup};
use crate::config::{AuthMethod, DatabaseSettings, HostSettings, Settings};
use crate::database::{Clients, Directory, Upstream};
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
        let upstreams: HashMap<String, Arc<Upstream>> = settings
            .databases
            .iter()
            .map(|database| (database.name.clone(), upstream(database, &settings, &context, &keys)))
            .collect();
        Arc::new(Yard {
            directory: Arc::new(Directory::new(upstreams, registry.clone())),
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
        for database in &settings.databases {
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
