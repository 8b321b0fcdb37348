//! The task that keeps the fleet: events in, snapshots out, one probe task per host.

use super::control_pools::ControlPools;
use super::fleet::{FleetEvent, FleetState};
use super::probe::{Probe, ProbeBell};
use super::sampler::Sampler;
use super::snapshot::{Fleet, Host, Standing};
use crate::config::{DatabaseSettings, HealthSettings};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval_at};

/// Events that may wait for the keeper.
pub(super) const EVENTS_MAX: usize = 1024;

/// Idle control connections are looked for this often.
const REAP_INTERVAL: Duration = Duration::from_secs(10);

/// What a session saw of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostReport {
    /// It could not connect: the host leaves at once, and returns with the next probe over a new connection.
    ConnectFailed,
    /// A connection broke: probed at once.
    Broken,
    /// A connection came about: probed at once if the host is out.
    Ok,
    /// Its name stands for other addresses now: probed at once, where the name leads.
    Moved,
}

/// What happened in the fleet, counted since the start.
#[derive(Debug, Default)]
pub struct FleetCounters {
    /// Probes that failed.
    pub probe_failures: AtomicU64,
    /// Times that another host became the primary.
    pub primary_changes: AtomicU64,
    /// Times that a host was fenced: it claimed to be primary beside another one.
    pub fenced: AtomicU64,
    /// Times that a host of another cluster was refused.
    pub wrong_system: AtomicU64,
}

/// A wish to the keeper.
pub(super) enum KeeperRequest {
    Report { host_id: u32, report: HostReport, at: Instant },
    Drain { host_id: u32, drained: bool, done: oneshot::Sender<()> },
    Apply { settings: Arc<DatabaseSettings>, hosts: Vec<Arc<Host>>, done: oneshot::Sender<()> },
}

/// What the keeper shares with everybody.
pub(super) struct KeeperShared {
    pub(super) fleet: Arc<ArcSwap<Fleet>>,
    pub(super) generation: watch::Sender<u64>,
    pub(super) sampler: Arc<Sampler>,
    pub(super) pools: Arc<ControlPools>,
    pub(super) counters: Arc<FleetCounters>,
}

/// The keeper itself.
pub(super) struct Keeper {
    shared: KeeperShared,
    state: FleetState,
    health: HealthSettings,
    probes: HashMap<u32, RunningProbe>,
    probe_events: mpsc::Sender<FleetEvent>,
    /// The primary that was published last, which outlives the time without one.
    last_primary: Option<u32>,
    /// When it began.
    began: Instant,
}

struct RunningProbe {
    host: Arc<Host>,
    bell: Arc<ProbeBell>,
    task: AbortHandle,
}

impl Drop for RunningProbe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Keeps the fleet until `stopped` or until nobody can ask for anything any more.
    pub(super) async fn run(
        shared: KeeperShared,
        settings: Arc<DatabaseSettings>,
        hosts: Vec<Arc<Host>>,
        mut requests: mpsc::Receiver<KeeperRequest>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let (probe_events, mut events) = mpsc::channel(EVENTS_MAX);
        let state = FleetState::new(hosts.clone(), settings.health.clone());
        let health = settings.health.clone();
        let mut keeper =
            Keeper { shared, state, health, probes: HashMap::new(), probe_events, last_primary: None, began: Instant::now() };
        keeper.start_probes(&hosts, false);
        keeper.publish();
        // Together with the probes: a thread that has little to do is woken as seldom as can be.
        let mut tick = interval_at(keeper.began.into(), keeper.health.probe_interval.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut reaped = Instant::now();
        loop {
            tokio::select! {
                event = events.recv() => if let Some(event) = event { keeper.event(event) },
                request = requests.recv() => match request {
                    Some(request) => keeper.request(request),
                    None => return,
                },
                _ = tick.tick() => {
                    keeper.event(FleetEvent::Tick);
                    if reaped.elapsed() >= REAP_INTERVAL {
                        keeper.shared.pools.reap();
                        reaped = Instant::now();
                    }
                }
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    fn count(&self, event: &FleetEvent) {
        let (host_id, failed) = match event {
            FleetEvent::Sampled { host_id, .. } => (*host_id, false),
            FleetEvent::Failed { host_id, .. } => (*host_id, true),
            _ => return,
        };
        let fleet = self.shared.fleet.load();
        let Some(view) = fleet.index_of(host_id).and_then(|index| fleet.hosts.get(index)) else { return };
        view.host.counters.probes.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.shared.counters.probe_failures.fetch_add(1, Ordering::Relaxed);
            view.host.counters.probe_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn event(&mut self, event: FleetEvent) {
        self.count(&event);
        if let FleetEvent::Failed { host_id, error, .. } = &event {
            self.log_failure(*host_id, error);
        }
        if matches!(event, FleetEvent::Tick) {
            self.probes.values().for_each(|probe| probe.host.decay_latency());
        }
        self.state.apply(event, Instant::now());
        self.publish();
    }

    fn request(&mut self, request: KeeperRequest) {
        match request {
            KeeperRequest::Report { host_id, report, at } => self.report(host_id, report, at),
            KeeperRequest::Drain { host_id, drained, done } => {
                self.event(FleetEvent::Drained { host_id, drained });
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            KeeperRequest::Apply { settings, hosts, done } => {
                self.apply(&settings, hosts);
                let _ = done.send(());
            }
        }
    }

    fn report(&mut self, host_id: u32, report: HostReport, at: Instant) {
        let Some(probe) = self.probes.get(&host_id) else { return };
        match report {
            HostReport::ConnectFailed => {
                probe.bell.refuse();
                self.event(FleetEvent::ConnectFailed { host_id, at });
            }
            HostReport::Broken => probe.bell.suspect(),
            HostReport::Ok => probe.bell.ring(),
            HostReport::Moved => {
                self.shared.pools.forget(host_id);
                probe.bell.lead_elsewhere();
            }
        }
    }

    fn apply(&mut self, settings: &DatabaseSettings, hosts: Vec<Arc<Host>>) {
        let health_changed = self.health != settings.health;
        self.health = settings.health.clone();
        self.probes.retain(|id, _| hosts.iter().any(|host| host.id == *id));
        self.start_probes(&hosts, health_changed);
        self.event(FleetEvent::Configured { hosts, health: self.health.clone() });
    }

    /// Starts the probes that are missing, and anew those whose way to the host changed.
    fn start_probes(&mut self, hosts: &[Arc<Host>], all: bool) {
        for host in hosts {
            if let Some(probe) = self.probes.get_mut(&host.id) {
                let same_way =
                    probe.host.settings.tls == host.settings.tls && probe.host.settings.control == host.settings.control;
                probe.host = host.clone();
                if same_way && !all {
                    continue;
                }
                self.shared.pools.forget(host.id);
            }
            let bell = Arc::new(ProbeBell::default());
            let probe = Probe {
                host_id: host.id,
                name: host.settings.name.clone(),
                role: host.settings.control.user.clone(),
                target: self.shared.pools.target(host, self.health.probe_timeout),
                health: self.health.clone(),
                events: self.probe_events.clone(),
                began: self.began,
                bell: bell.clone(),
                sign: host.circuit.clone(),
            };
            let task = tokio::spawn(probe.run()).abort_handle();
            self.probes.insert(host.id, RunningProbe { host: host.clone(), bell, task });
        }
    }

    fn publish(&mut self) {
        let before = self.shared.fleet.load_full();
        let fleet = Arc::new(self.state.snapshot(Instant::now()));
        self.shared.fleet.store(fleet.clone());
        self.shared.sampler.observe(&fleet);
        self.shared.generation.send_replace(fleet.generation);
        self.note_changes(&before, &fleet);
    }

    fn note_changes(&mut self, before: &Fleet, after: &Fleet) {
        let counters = &self.shared.counters;
        for view in &after.hosts {
            let old = before.hosts.iter().find(|old| old.host.id == view.host.id);
            if old.is_some_and(|old| old.standing == view.standing && old.role == view.role) {
                continue;
            }
            let (host, standing, role) = (view.host.settings.name.as_str(), view.standing.label(), view.role);
            let (lag, lag_bytes) = (view.lag, view.lag_bytes);
            match view.standing {
                Standing::Fenced => {
                    counters.fenced.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(host, ?role, "host claims to be primary and is fenced off: nothing is sent to it");
                }
                Standing::WrongSystem => {
                    counters.wrong_system.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(host, ?role, "host belongs to another cluster: nothing is sent to it");
                }
                Standing::Eligible => tracing::info!(host, ?role, "host is in use"),
                _ => tracing::info!(host, standing, ?role, ?lag, lag_bytes, "host is not in use"),
            }
        }
        let Some(primary) = after.primary_view() else { return };
        if self.last_primary != Some(primary.host.id) {
            if self.last_primary.is_some() {
                counters.primary_changes.fetch_add(1, Ordering::Relaxed);
            }
            self.last_primary = Some(primary.host.id);
            tracing::info!(host = %primary.host.settings.name, timeline = ?after.era.map(|era| era.timeline), "writes go here");
        }
    }

    fn log_failure(&self, host_id: u32, error: &str) {
        let fleet = self.shared.fleet.load();
        let view = fleet.index_of(host_id).and_then(|index| fleet.hosts.get(index));
        if let Some(view) = view.filter(|view| view.standing != Standing::Unreachable) {
            tracing::warn!(host = %view.host.settings.name, error, "probe failed");
        }
    }
}
