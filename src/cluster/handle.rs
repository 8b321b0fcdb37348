//! What the layers above hold of a cluster.

use super::catalogue::{CatalogueSource, Catalogues};
use super::control::ServerTlsLookup;
use super::control_pools::{ControlError, ControlPools, control_host};
use super::keeper::{EVENTS_MAX, FleetCounters, HostReport, Keeper, KeeperRequest, KeeperShared};
use super::lookup::RoleLookup;
use super::sampler::{Sampler, SamplerTask};
use super::snapshot::{Fleet, Host, MAX_HOSTS};
use crate::config::{DatabaseSettings, HostSettings};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Hands out host ids: one for the whole process, so that no id is used twice.
#[derive(Debug, Default)]
pub struct HostIds(AtomicU32);

/// What a cluster needs beside its settings.
#[derive(Clone)]
pub struct ClusterContext {
    /// The run-time of the control plane.
    pub control: tokio::runtime::Handle,
    /// TLS towards hosts.
    pub tls: ServerTlsLookup,
    /// Where host ids come from.
    pub host_ids: Arc<HostIds>,
}

/// The hosts of one configured database, probed and judged. Shared by all threads; dropping the last handle stops its tasks.
pub struct Cluster {
    context: ClusterContext,
    settings: Arc<ArcSwap<DatabaseSettings>>,
    fleet: Arc<ArcSwap<Fleet>>,
    generation: watch::Receiver<u64>,
    requests: mpsc::Sender<KeeperRequest>,
    shared_pools: Arc<ControlPools>,
    sampler: Arc<Sampler>,
    lookup: Arc<RoleLookup>,
    counters: Arc<FleetCounters>,
    stopped: watch::Sender<bool>,
}

impl Cluster {
    /// Starts the tasks on the control run-time. The fleet is empty of knowledge until the first probes have answered.
    /// Hosts beyond [`MAX_HOSTS`] are left out, with an error in the log.
    pub fn start(settings: Arc<DatabaseSettings>, context: ClusterContext) -> Arc<Cluster> {
        let fleet = Arc::new(ArcSwap::from_pointee(Fleet::empty()));
        let pools = Arc::new(ControlPools::new(context.tls.clone()));
        let (sampler, counters) = (Arc::new(Sampler::default()), Arc::new(FleetCounters::default()));
        let (generation, generations) = watch::channel(0);
        let (stopped, stop) = watch::channel(false);
        let (requests, wishes) = mpsc::channel(EVENTS_MAX);
        let hosts = hosts_of(&settings, &Fleet::empty(), &context.host_ids);
        let shared = KeeperShared {
            fleet: fleet.clone(),
            generation,
            sampler: sampler.clone(),
            pools: pools.clone(),
            counters: counters.clone(),
        };
        let lookup = RoleLookup::new(
            settings.auth.clone(),
            fleet.clone(),
            pools.clone(),
            context.control.clone(),
            settings.pool.connect_timeout,
        );
        context.control.spawn(Keeper::run(shared, settings.clone(), hosts, wishes, stop.clone()));
        let settings = Arc::new(ArcSwap::new(settings));
        let cluster = Cluster {
            context,
            settings,
            fleet,
            generation: generations,
            requests,
            shared_pools: pools,
            sampler,
            lookup: Arc::new(lookup),
            counters,
            stopped,
        };
        cluster.start_sampler(stop);
        Arc::new(cluster)
    }

    fn start_sampler(&self, mut stop: watch::Receiver<bool>) {
        let (pools, settings, interval) = (self.shared_pools.clone(), self.settings.clone(), self.settings.clone());
        let task = SamplerTask {
            sampler: self.sampler.clone(),
            fleet: self.fleet.clone(),
            target: Box::new(move |view| pools.target(&view.host, settings.load().health.probe_timeout)),
            changes: self.generation.clone(),
            interval: Box::new(move || interval.load().health.sampler_interval),
            timeout: self.settings.load().health.probe_timeout,
        };
        self.context.control.spawn(async move {
            tokio::select! {
                () = task.run() => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
        });
    }

    /// The picture of now. Cheap; hold it for one decision, not across an await.
    pub fn fleet(&self) -> arc_swap::Guard<Arc<Fleet>> {
        self.fleet.load()
    }

    /// Where the picture of now stands, for those who keep the last one at hand.
    pub fn fleet_cell(&self) -> &Arc<ArcSwap<Fleet>> {
        &self.fleet
    }

    /// The settings of now.
    pub fn settings(&self) -> arc_swap::Guard<Arc<DatabaseSettings>> {
        self.settings.load()
    }

    /// Tells what a session saw of a host. Never waits: when reports pile up, one more says nothing new.
    pub fn report(&self, host_id: u32, report: HostReport) {
        let news = match report {
            HostReport::Ok => {
                let fleet = self.fleet.load();
                fleet.index_of(host_id).is_some_and(|index| fleet.primary != Some(index) && !fleet.eligible.contains(&index))
            }
            HostReport::ConnectFailed | HostReport::Broken | HostReport::Moved => true,
        };
        if news {
            // A full queue holds enough reports to have the host probed.
            let _ = self.requests.try_send(KeeperRequest::Report { host_id, report, at: Instant::now() });
        }
    }

    /// Takes a host out of use, for new statements. False if there is no such host.
    pub async fn drain(&self, host_id: u32) -> bool {
        self.set_drained(host_id, true).await
    }

    /// Puts a drained host back. False if there is no such host.
    pub async fn undrain(&self, host_id: u32) -> bool {
        self.set_drained(host_id, false).await
    }

    async fn set_drained(&self, host_id: u32, drained: bool) -> bool {
        let (done, finished) = oneshot::channel();
        let known = self.fleet.load().index_of(host_id).is_some();
        known && self.requests.send(KeeperRequest::Drain { host_id, drained, done }).await.is_ok() && finished.await.is_ok()
    }

    /// Goes on under new settings. Hosts whose address stays keep their id, their counters and what is known of them; others
    /// come and go. Returns when the fleet shows it. Calls must not overlap.
    pub async fn apply(&self, settings: Arc<DatabaseSettings>) {
        let hosts = hosts_of(&settings, &self.fleet.load(), &self.context.host_ids);
        self.lookup.configure(settings.auth.clone());
        self.settings.store(settings.clone());
        let (done, finished) = oneshot::channel();
        if self.requests.send(KeeperRequest::Apply { settings, hosts, done }).await.is_ok() {
            // An error means that the cluster was stopped meanwhile.
            let _ = finished.await;
        }
    }

    /// Closes the control connections to a database that nobody uses.
    pub fn leave_alone(&self, database: &str) {
        self.shared_pools.leave_alone(database);
    }

    /// Waits until the fleet is newer than `generation` (that of the snapshot in which nothing suitable was found), and
    /// answers the new generation. `None` when the cluster has been stopped. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for_change(&self, generation: u64) -> Option<u64> {
        let mut generations = self.generation.clone();
        generations.wait_for(|newest| *newest > generation).await.ok().map(|newest| *newest)
    }

    /// Floors for sessions that wrote.
    pub fn sampler(&self) -> &Arc<Sampler> {
        &self.sampler
    }

    /// A control connection to a database on the primary. To be called on the control run-time.
    ///
    /// # Errors
    /// There is no primary, or it can't be reached within `wait`.
    pub async fn primary_connection(&self, database: &str, wait: Duration) -> Result<deadpool_postgres::Client, ControlError> {
        let fleet = self.fleet.load_full();
        let host = match control_host(&fleet) {
            Some((host, true)) => host,
            _ => return Err(ControlError::NoHost),
        };
        self.shared_pools.connection(&host, Some(database), wait).await
    }

    /// Roles and their verifiers.
    pub fn lookup(&self) -> &Arc<RoleLookup> {
        &self.lookup
    }

    /// What happened so far.
    pub fn counters(&self) -> &FleetCounters {
        &self.counters
    }

    /// The catalogues of this cluster's databases, read through its control connections. To be called once.
    pub fn catalogues<T: Send + Sync + 'static>(&self, source: CatalogueSource<T>) -> Catalogues<T> {
        let interval = self.settings.clone();
        let context = super::catalogue::CatalogueContext {
            fleet: self.fleet.clone(),
            pools: self.shared_pools.clone(),
            control: self.context.control.clone(),
            interval: Arc::new(move || interval.load().health.catalogue_interval),
            connect_timeout: self.settings.load().pool.connect_timeout,
            stopped: self.stopped.subscribe(),
        };
        Catalogues::new(source, context)
    }

    /// Ends all tasks. What was published last stays readable.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl HostIds {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The hosts of `settings`; those at an address that `before` knows go on.
fn hosts_of(settings: &DatabaseSettings, before: &Fleet, ids: &HostIds) -> Vec<Arc<Host>> {
    if settings.hosts.len() > MAX_HOSTS {
        tracing::error!(database = %settings.name, hosts = settings.hosts.len(), "only the first {MAX_HOSTS} hosts are used");
    }
    let host = |new: &HostSettings| {
        let same = |old: &&HostSettings| old.address == new.address && old.port == new.port;
        let known = before.hosts.iter().map(|view| &view.host).find(|host| same(&&host.settings));
        Arc::new(match known {
            Some(host) => host.with_settings(new.clone()),
            None => Host::new(ids.next(), new.clone()),
        })
    };
    settings.hosts.iter().take(MAX_HOSTS).map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::LookupError;
    use crate::cluster::fixtures;
    use crate::cluster::snapshot::Standing;

    /// A host of which every connect is refused: nothing listens on port 1.
    fn refusing(address: &str) -> HostSettings {
        HostSettings { address: address.to_owned(), port: 1, ..fixtures::host_settings(address) }
    }

    fn database(addresses: &[&str]) -> Arc<DatabaseSettings> {
        Arc::new(fixtures::database(addresses.iter().map(|address| refusing(address)).collect()))
    }

    fn start(addresses: &[&str]) -> Arc<Cluster> {
        let control = tokio::runtime::Handle::current();
        let context = ClusterContext { control, tls: Arc::new(|_| None), host_ids: Arc::default() };
        Cluster::start(database(addresses), context)
    }

    /// Waits for a fleet of which `seen` holds.
    async fn until(cluster: &Cluster, seen: impl Fn(&Fleet) -> bool) -> Arc<Fleet> {
        let waiting = async {
            loop {
                let fleet = cluster.fleet.load_full();
                if seen(&fleet) {
                    return fleet;
                }
                cluster.wait_for_change(fleet.generation).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap()
    }

    fn standings(fleet: &Fleet) -> Vec<(u32, Standing)> {
        fleet.hosts.iter().map(|view| (view.host.id, view.standing)).collect()
    }

    #[tokio::test]
    async fn hosts_that_refuse_are_unreachable_and_a_reload_keeps_ids() {
        use Standing::{Drained, Unreachable};
        let cluster = start(&["127.0.0.1", "127.0.0.2"]);
        let all_out = |fleet: &Fleet| fleet.hosts.iter().all(|view| view.standing == Unreachable) && !fleet.hosts.is_empty();
        let fleet = until(&cluster, all_out).await;
        assert_eq!(standings(&fleet), [(0, Unreachable), (1, Unreachable)]);
        assert!(cluster.counters().probe_failures.load(Ordering::Relaxed) >= 2);

        cluster.apply(database(&["127.0.0.3", "127.0.0.2"])).await;
        assert_eq!(cluster.fleet().hosts.iter().map(|view| view.host.id).collect::<Vec<_>>(), [2, 1]);
        let fleet = until(&cluster, all_out).await;
        assert_eq!(standings(&fleet), [(2, Unreachable), (1, Unreachable)]);

        assert!(cluster.drain(1).await);
        assert_eq!(standings(&cluster.fleet()), [(2, Unreachable), (1, Drained)]);
        assert!(cluster.undrain(1).await);
        assert_eq!(standings(&cluster.fleet()), [(2, Unreachable), (1, Unreachable)]);
        assert!(!cluster.drain(0).await, "it left with the reload");
    }

    #[tokio::test]
    async fn stopping_ends_all_waiting() {
        let cluster = start(&["127.0.0.1"]);
        until(&cluster, |fleet| fleet.generation > 1).await;
        let waiter = tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.wait_for_change(u64::MAX - 1).await }
        });
        cluster.stop();
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap(), None);
        assert_eq!(cluster.fleet().hosts.len(), 1, "the last picture stays");
        cluster.report(0, HostReport::ConnectFailed);
        assert!(!cluster.drain(0).await);
    }

    #[tokio::test]
    async fn a_look_up_says_why_it_cannot_be() {
        let cluster = start(&["127.0.0.1"]);
        assert_eq!(cluster.lookup().find("alice", "app").await, Err(LookupError::Off));
        let mut settings = DatabaseSettings::clone(&cluster.settings());
        settings.auth.lookup_query = Some("select".to_owned());
        cluster.apply(Arc::new(settings)).await;
        let answer = cluster.lookup().find("alice", "app").await;
        assert_eq!(answer, Err(LookupError::Unavailable("no host is available".to_owned())));
    }
}
