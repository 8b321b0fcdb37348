//! The hosts of one configured database entry: its cluster, the caps per host, and how each host is spoken to. An entry `*`
//! has one upstream for all the databases that clients name.

use super::writes::WriteBook;
use crate::auth::KeyCache;
use crate::cluster::{Balancer, CatalogueSlot, CatalogueSource, Catalogues, Cluster, Host};
use crate::config::{DatabaseSettings, ReuseUnnamed, ServerTlsSettings};
use crate::net::tls::{ServerTls, TlsError};
use crate::pool::HostPermits;
use crate::server::ServerTarget;
use crate::sql::{CATALOGUE_QUERY, Catalogue, CatalogueRow};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What a host's connections share.
#[derive(Clone, Debug)]
struct HostAccess {
    /// Shared with the host's pools: a reload replaces it for their next connections.
    target: Arc<ArcSwap<ServerTarget>>,
    /// What the target was made of.
    tls: ServerTlsSettings,
    permits: Arc<HostPermits>,
}

/// The hosts of one configured database entry.
pub struct Upstream {
    /// Who is primary, who is how fresh.
    pub cluster: Arc<Cluster>,
    settings: ArcSwap<DatabaseSettings>,
    balancer: ArcSwap<Balancer>,
    catalogues: Catalogues<Catalogue>,
    writes: Mutex<HashMap<String, Weak<WriteBook>>>,
    builtin: Arc<Catalogue>,
    access: Mutex<HashMap<u32, HostAccess>>,
    keys: Arc<KeyCache>,
    workers: usize,
    keepalive: Duration,
}

impl Upstream {
    /// The upstream of a started cluster.
    pub fn new(
        cluster: Arc<Cluster>,
        settings: Arc<DatabaseSettings>,
        keys: Arc<KeyCache>,
        workers: usize,
        keepalive: Duration,
    ) -> Arc<Self> {
        let balancer = ArcSwap::from_pointee(Balancer::new(settings.routing.balance, rand::random()));
        let build = |rows: Vec<Vec<Option<String>>>| read_catalogue(rows);
        let catalogues = cluster.catalogues(CatalogueSource { query: CATALOGUE_QUERY, build: Arc::new(build) });
        let settings = ArcSwap::new(settings);
        let (access, builtin) = (Mutex::default(), Arc::new(Catalogue::builtin()));
        let writes = Mutex::default();
        Arc::new(Upstream { cluster, settings, balancer, catalogues, writes, builtin, access, keys, workers, keepalive })
    }

    /// The entry's settings.
    pub fn settings(&self) -> arc_swap::Guard<Arc<DatabaseSettings>> {
        self.settings.load()
    }

    /// Where the settings stand, for those who keep the last ones at hand.
    pub fn settings_cell(&self) -> &ArcSwap<DatabaseSettings> {
        &self.settings
    }

    /// Where the balancer stands, for those who keep the last one at hand.
    pub fn balancer_cell(&self) -> &ArcSwap<Balancer> {
        &self.balancer
    }

    /// How replicas are chosen.
    pub fn balancer(&self) -> arc_swap::Guard<Arc<Balancer>> {
        self.balancer.load()
    }

    /// The catalogue of a database by its name on the servers; the first call begins to read it.
    pub fn catalogue(&self, database: &str) -> Arc<CatalogueSlot<Catalogue>> {
        self.catalogues.slot(database)
    }

    /// Nobody uses the database with this name on the servers any more.
    pub(super) fn forget_catalogue(&self, database: &str) {
        self.catalogues.forget(database);
    }

    /// The writes of a database by its name on the servers: one book for all the names that clients have for it.
    pub fn writes(&self, database: &str) -> Arc<WriteBook> {
        let mut books = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = books.get(database).and_then(Weak::upgrade) {
            return known;
        }
        books.retain(|_, book| book.strong_count() > 0);
        let book = Arc::default();
        books.insert(database.to_owned(), Arc::downgrade(&book));
        book
    }

    /// What is known of every PostgreSQL: for the time until a catalogue was read.
    pub fn builtin(&self) -> Arc<Catalogue> {
        self.builtin.clone()
    }

    /// SCRAM keys derived before.
    pub fn keys(&self) -> &Arc<KeyCache> {
        &self.keys
    }

    /// Relay threads.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Applies new settings to what is not the cluster's own. The next connections are made as they say, with changed TLS files too; what
    /// can't be loaded leaves the host as it was.
    pub fn apply(&self, settings: Arc<DatabaseSettings>) {
        if self.balancer.load().balance() != settings.routing.balance {
            self.balancer.store(Arc::new(Balancer::new(settings.routing.balance, rand::random())));
        }
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = self.cluster.fleet();
        access.retain(|id, _| fleet.hosts.iter().any(|view| view.host.id == *id));
        for (id, known) in access.iter_mut() {
            known.permits.set_maximum(settings.pool.max_per_host);
            let Some(host) = fleet.hosts.iter().map(|view| &view.host).find(|host| host.id == *id) else { continue };
            let before = known.target.load_full();
            let tls = if known.tls == host.settings.tls { Ok(before.tls.clone()) } else { ServerTls::load(&host.settings.tls) };
            match tls {
                Ok(tls) => {
                    known.tls = host.settings.tls.clone();
                    known.target.store(Arc::new(self.make_target(host, &settings, tls)));
                }
                Err(error) => {
                    tracing::error!(host = host.settings.name, %error, "changed tls settings of a host can't be loaded: the old ones stay")
                }
            }
        }
        self.settings.store(settings);
    }

    fn make_target(&self, host: &Host, settings: &DatabaseSettings, tls: Arc<ServerTls>) -> ServerTarget {
        ServerTarget {
            address: host.settings.address.clone(),
            port: host.settings.port,
            tls,
            keepalive: self.keepalive,
            options: match settings.routing.reuse_unnamed {
                ReuseUnnamed::CustomPlans => "-c plan_cache_mode=force_custom_plan".to_owned(),
                ReuseUnnamed::Off | ReuseUnnamed::On => String::new(),
            },
            connect_timeout: settings.pool.connect_timeout,
        }
    }

    fn host_access(&self, host: &Host) -> Result<HostAccess, TlsError> {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = access.get(&host.id) {
            return Ok(found.clone());
        }
        let settings = self.settings.load();
        let target = self.make_target(host, &settings, ServerTls::load(&host.settings.tls)?);
        let made = HostAccess {
            target: Arc::new(ArcSwap::from_pointee(target)),
            tls: host.settings.tls.clone(),
            permits: Arc::new(HostPermits::new(settings.pool.max_per_host)),
        };
        access.insert(host.id, made.clone());
        Ok(made)
    }

    /// How to reach a host; `None`, with a line in the log, when its TLS files can't be loaded.
    pub fn target(&self, host: &Host) -> Option<Arc<ServerTarget>> {
        self.target_cell(host).map(|target| target.load_full())
    }

    /// As [`Upstream::target`], following reloads.
    pub fn target_cell(&self, host: &Host) -> Option<Arc<ArcSwap<ServerTarget>>> {
        match self.host_access(host) {
            Ok(access) => Some(access.target),
            Err(error) => {
                tracing::error!(host = host.settings.name, %error, "tls settings of a host can't be loaded");
                None
            }
        }
    }

    /// The cap on a host's connections.
    pub fn permits(&self, host: &Host) -> Arc<HostPermits> {
        let fallback = || Arc::new(HostPermits::new(self.settings.load().pool.max_per_host));
        self.host_access(host).map_or_else(|_| fallback(), |access| access.permits)
    }
}

fn read_catalogue(rows: Vec<Vec<Option<String>>>) -> Result<Catalogue, String> {
    let rows: Result<Vec<CatalogueRow>, _> = rows.into_iter().map(CatalogueRow::try_from).collect();
    rows.map(Catalogue::from_rows).map_err(|row| format!("a catalogue row has {} columns", row.len()))
}
