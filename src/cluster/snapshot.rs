//! One immutable picture of the fleet. Swapped atomically; readers never wait.

use super::circuit::CircuitSign;
use crate::config::HostSettings;
use crate::types::{Floor, Lsn, SystemId, Timeline};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Hosts that one snapshot can hold: [`crate::cluster::HostSet`] has a bit for each.
pub const MAX_HOSTS: usize = crate::config::HOSTS_MAX;

/// All hosts of a cluster at one instant.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Grows with each snapshot.
    pub generation: u64,
    /// Every configured host, in the order of the configuration. Indexes into this are valid for one snapshot only.
    pub hosts: Box<[HostView]>,
    /// Index of the host that writes go to.
    pub primary: Option<usize>,
    /// Indexes of replicas in rotation, in order.
    pub eligible: Box<[usize]>,
    /// The timeline that every eligible host is on; `None` until the first primary has been seen. Stays while there is no primary.
    pub era: Option<Era>,
}

/// A primary's reign: from the moment when it was first seen as the primary of its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    /// The cluster's system identifier; 0 when the control role may not read it.
    pub system: SystemId,
    /// The primary's timeline.
    pub timeline: Timeline,
    /// Its flush LSN in the first sample of this timeline. Everything that survived from older timelines lies before it: a
    /// promotion flushes its end-of-recovery record before it accepts writes. (The insert LSN may lie beyond what an idle
    /// primary ever sends, and a floor made of it would not be met.)
    pub first_lsn: Lsn,
}

impl Era {
    /// Whether a replica of this era that has replayed up to `replayed` shows everything up to `floor`.
    pub fn shows(&self, replayed: Lsn, floor: &Floor) -> bool {
        if floor.system != self.system {
            return false;
        }
        match floor.timeline.cmp(&self.timeline) {
            std::cmp::Ordering::Equal => replayed >= floor.lsn,
            std::cmp::Ordering::Less => replayed >= self.first_lsn,
            std::cmp::Ordering::Greater => false,
        }
    }
}

impl Fleet {
    /// A fleet of which nothing is known yet.
    pub fn empty() -> Self {
        Fleet { generation: 0, hosts: Box::default(), primary: None, eligible: Box::default(), era: None }
    }

    /// The index of the host with this id in this snapshot.
    pub fn index_of(&self, host_id: u32) -> Option<usize> {
        self.hosts.iter().position(|view| view.host.id == host_id)
    }

    /// The host that writes go to.
    pub fn primary_view(&self) -> Option<&HostView> {
        self.primary.and_then(|index| self.hosts.get(index))
    }
}

/// One host in a snapshot.
#[derive(Clone, Debug)]
pub struct HostView {
    /// What does not change from snapshot to snapshot.
    pub host: Arc<Host>,
    /// What the last good probe said it is.
    pub role: Role,
    /// Whether it takes reads (for the primary: writes), or why not.
    pub standing: Standing,
    /// The last sample, if it is recent enough to mean anything.
    pub sample: Option<Sample>,
    /// Bytes behind the primary; `None` when not known.
    pub lag_bytes: Option<u64>,
    /// Time behind the primary; `None` when not known.
    pub lag: Option<Duration>,
    /// Started probes' round trip.
    pub probe_latency: Option<Duration>,
}

/// What is counted of a host since it was configured.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Probes sent.
    pub probes: AtomicU64,
    /// Probes that failed.
    pub probe_failures: AtomicU64,
    /// Sampler queries.
    pub sampler_queries: AtomicU64,
    /// Server connections opened for clients.
    pub connects: AtomicU64,
    /// Server connections that could not be opened.
    pub connect_failures: AtomicU64,
    /// Of these, the ones that led to another server than the probe's.
    pub strangers: AtomicU64,
}

/// A host's identity and the counters that outlive snapshots.
#[derive(Debug)]
pub struct Host {
    /// Process-wide, never reused: labels pools and in-flight counters. A reload that keeps the address keeps the id.
    pub id: u32,
    /// The configured settings.
    pub settings: HostSettings,
    /// Statements under way on it, and those that wait for one of its connections. Shared with the host's earlier self after a reload.
    pub in_flight: Arc<AtomicU32>,
    /// Peak-EWMA latency in microseconds, written by sessions at the end of a statement ([`Host::record_latency`]).
    pub latency_us: Arc<AtomicU64>,
    /// Where its circuit stands.
    pub circuit: Arc<CircuitSign>,
    /// What was counted of it. Shared with the host's earlier self after a reload.
    pub counters: Arc<HostCounters>,
    /// A hash of the address, the same in every process: `ip_hash` places clients by it.
    pub placement: u64,
}

impl Host {
    /// A host that has not been used yet.
    pub fn new(id: u32, settings: HostSettings) -> Self {
        let placement = foldhash::fast::FixedState::with_seed(0).hash_one((&settings.address, settings.port));
        Host {
            id,
            settings,
            in_flight: Arc::default(),
            latency_us: Arc::default(),
            counters: Arc::default(),
            circuit: Arc::default(),
            placement,
        }
    }

    /// The same host (same address) under new settings: id and counters go on.
    pub fn with_settings(&self, settings: HostSettings) -> Self {
        let (in_flight, latency_us, counters) = (self.in_flight.clone(), self.latency_us.clone(), self.counters.clone());
        Host { in_flight, latency_us, counters, circuit: self.circuit.clone(), ..Host::new(self.id, settings) }
    }

    /// Takes a statement's time into the peak-EWMA: a peak counts at once, improvement by eighths.
    pub fn record_latency(&self, elapsed: Duration) {
        let sample = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let old = self.latency_us.load(Ordering::Relaxed);
        let new = if sample >= old { sample } else { old - (old - sample).div_ceil(8) };
        self.latency_us.store(new, Ordering::Relaxed);
    }

    /// Forgets an eighth of the latency. Called with each tick, so that a host that one slow statement made unattractive is
    /// tried again although nobody sends to it.
    pub fn decay_latency(&self) {
        let old = self.latency_us.load(Ordering::Relaxed);
        self.latency_us.store(old - old.div_ceil(8), Ordering::Relaxed);
    }
}

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not probed yet, or never successfully.
    Unknown,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Replica,
}

impl Role {
    /// As the console and the metrics show it.
    pub fn label(self) -> &'static str {
        match self {
            Role::Unknown => "unknown",
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// Whether a host is used. The label is a metric label and the reason shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Takes statements.
    Eligible,
    /// No probe has answered yet.
    NotProbed,
    /// The circuit is open: connecting or probing fails.
    Unreachable,
    /// The last sample is too old.
    StaleSample,
    /// Over `max_lag`.
    LagTime,
    /// Over `max_lag_bytes`.
    LagBytes,
    /// There is no lag to know yet (no primary seen so far).
    LagUnknown,
    /// On another timeline than the primary, or fenced after a fail-over.
    WrongTimeline,
    /// Claims to be primary while another host is.
    Fenced,
    /// Another system identifier: not of this cluster.
    WrongSystem,
    /// Its role is not the configured one.
    WrongRole,
    /// Taken out by `DRAIN`.
    Drained,
}

impl Standing {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Standing::Eligible => "eligible",
            Standing::NotProbed => "not_probed",
            Standing::Unreachable => "unreachable",
            Standing::StaleSample => "stale_sample",
            Standing::LagTime => "lag_time",
            Standing::LagBytes => "lag_bytes",
            Standing::LagUnknown => "lag_unknown",
            Standing::WrongTimeline => "wrong_timeline",
            Standing::Fenced => "fenced",
            Standing::WrongSystem => "wrong_system",
            Standing::WrongRole => "wrong_role",
            Standing::Drained => "drained",
        }
    }

    /// Whether nothing is to be expected of it: connecting or probing fails, or no probe was answered for too long.
    pub fn is_silent(self) -> bool {
        matches!(self, Standing::Unreachable | Standing::StaleSample)
    }

    /// What it means, in a few words for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Standing::Eligible => "in rotation",
            Standing::NotProbed => "not probed yet",
            Standing::Unreachable => "unreachable",
            Standing::StaleSample => "does not answer its probe",
            Standing::LagTime => "over max_lag",
            Standing::LagBytes => "over max_lag_bytes",
            Standing::LagUnknown => "lag not known yet",
            Standing::WrongTimeline => "not on the primary's timeline",
            Standing::Fenced => "claims to be primary and is fenced off",
            Standing::WrongSystem => "belongs to another cluster",
            Standing::WrongRole => "not in its configured role",
            Standing::Drained => "drained",
        }
    }
}

/// One answer of one probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was asked for.
    pub asked: Instant,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `pg_control_system()`.
    pub system: SystemId,
    /// The timeline of what it writes or receives; of a replica that receives nothing, the control file's. 0 is not known.
    pub timeline: Timeline,
    /// Where a replica's log comes from.
    pub receiver: WalReceiver,
    /// Flush LSN of a primary, replay LSN of a replica.
    pub lsn: Lsn,
    /// `pg_postmaster_start_time()` in microseconds since 2000-01-01: which server answered.
    pub started_us: i64,
    /// What its sessions begin with.
    pub defaults: ServerDefaults,
}

/// What sessions of a server begin with: two of the same mark begin alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerDefaults {
    /// `pg_conf_load_time()` in microseconds since 2000-01-01: when the configuration files were read last.
    pub loaded_us: i64,
    /// A hash of `pg_db_role_setting`; 0 where it can't be asked for.
    pub of_roles: i64,
}

/// The WAL receiver of a replica.
///
/// Spec: PostgreSQL documentation, "pg_stat_wal_receiver".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalReceiver {
    /// There is none: a primary, or a replica that is not streaming.
    None,
    /// It streams this timeline (`received_tli`).
    Streaming(Timeline),
    /// There is one, but the control role may not see its timeline.
    Hidden,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_maps_floors_of_older_timelines_to_its_beginning() {
        let era = Era { system: SystemId(7), timeline: Timeline(2), first_lsn: Lsn(100) };
        let floor = |system, timeline, lsn| Floor { system: SystemId(system), timeline: Timeline(timeline), lsn: Lsn(lsn) };
        let check = |replayed, floor, expect| assert_eq!(era.shows(Lsn(replayed), &floor), expect, "{replayed} {floor:?}");
        check(150, floor(7, 2, 150), true);
        check(149, floor(7, 2, 150), false);
        // Of the old timeline: what survived lies before the new one's beginning, however high the old position was.
        check(100, floor(7, 1, 5000), true);
        check(99, floor(7, 1, 10), false);
        check(9999, floor(7, 3, 1), false);
        check(9999, floor(8, 2, 1), false);
    }

    #[test]
    fn latency_peaks_at_once_and_fades() {
        let host = Host::new(1, crate::cluster::fixtures::host_settings("a"));
        host.record_latency(Duration::from_micros(800));
        host.record_latency(Duration::from_micros(0));
        assert_eq!(host.latency_us.load(Ordering::Relaxed), 700);
        host.record_latency(Duration::from_micros(900));
        assert_eq!(host.latency_us.load(Ordering::Relaxed), 900);
        for _ in 0..100 {
            host.decay_latency();
        }
        assert_eq!(host.latency_us.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reload_keeps_id_counters_and_placement() {
        let old = Host::new(4, crate::cluster::fixtures::host_settings("a"));
        old.in_flight.fetch_add(3, Ordering::Relaxed);
        let mut settings = old.settings.clone();
        settings.weight = 9;
        let new = old.with_settings(settings);
        old.in_flight.fetch_sub(1, Ordering::Relaxed);
        assert_eq!((new.id, new.settings.weight, new.in_flight.load(Ordering::Relaxed)), (4, 9, 2));
        assert_eq!(new.placement, old.placement);
        assert_ne!(new.placement, Host::new(5, crate::cluster::fixtures::host_settings("b")).placement);
    }
}
