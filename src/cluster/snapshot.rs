//! One immutable picture of the fleet. Swapped atomically; readers never wait.

use crate::types::{Lsn, SystemId, Timeline};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

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

/// A host's identity and the counters that outlive snapshots.
#[derive(Debug)]
pub struct Host {
    /// Process-wide, never reused: labels pools and in-flight counters.
    pub id: u32,
    /// The configured settings.
    pub settings: crate::config::HostSettings,
    /// Statements in flight, for least_connections and peak_ewma.
    pub in_flight: AtomicU32,
    /// Peak-EWMA latency in microseconds, written by sessions at the end of a statement.
    pub latency_us: AtomicU64,
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
    /// The timeline of what it writes or receives.
    pub timeline: Timeline,
    /// Flush LSN of a primary, replay LSN of a replica.
    pub lsn: Lsn,
    /// `pg_postmaster_start_time()` in microseconds since 2000-01-01: which server answered.
    pub started_us: i64,
}
