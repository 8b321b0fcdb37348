//! What the HTTP listener is told by the rest of pgyard: plain values. Durations become seconds in JSON.

use serde::{Serialize, Serializer};
use std::time::Duration;

/// Where the HTTP listener learns what to say. No method may wait for anything: they read live snapshots.
pub trait HealthSource: Send + Sync {
    /// Whether clients can be served now.
    fn readiness(&self) -> Readiness;
    /// Whether the start is done: every listener is bound and every host was probed once or has failed to answer.
    fn started(&self) -> bool;
    /// Everything that can be well or not.
    fn components(&self) -> Vec<ComponentHealth>;
    /// What people look at.
    fn status(&self) -> StatusReport;
}

/// Whether clients can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Every database has a primary or an eligible replica.
    Ready,
    /// Some cannot.
    NotReady {
        /// Why, in sentences that are safe to show: `database app: no host is reachable`.
        reasons: Vec<String>,
    },
}

/// One component and how it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComponentHealth {
    /// What it is: `app/replica-1`.
    pub name: String,
    /// Whether it does its work.
    pub healthy: bool,
    /// How long it took to answer last, if it has.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds")]
    pub latency: Option<Duration>,
    /// What is to be said of it, safe to show.
    pub detail: String,
}

/// Everything that the status page shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusReport {
    /// pgyard's version.
    pub version: String,
    /// Time since the start.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// The databases, in the order of the configuration.
    pub databases: Vec<DatabaseStatus>,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatabaseStatus {
    /// The name that clients use.
    pub name: String,
    /// Replicas further behind than this get no reads; `None` is no limit.
    #[serde(rename = "max_lag_seconds", serialize_with = "optional_seconds")]
    pub max_lag: Option<Duration>,
    /// Its hosts.
    pub hosts: Vec<HostStatus>,
    /// Its pools.
    pub pools: Vec<PoolStatus>,
    /// Its clients.
    pub clients: ClientCounts,
    /// Requests so far, by where and why.
    pub routes: Vec<RouteStatus>,
    /// How long requests have taken since the start.
    pub durations: DurationQuantiles,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Where it is: `10.0.0.1:5432`.
    pub address: String,
    /// `primary`, `replica` or `unknown`.
    pub role: String,
    /// Whether it takes statements.
    pub eligible: bool,
    /// Why, or why not: the standing's label.
    pub standing: String,
    /// Time behind the primary, if known.
    #[serde(rename = "lag_seconds", serialize_with = "optional_seconds")]
    pub lag: Option<Duration>,
    /// Bytes behind the primary, if known.
    pub lag_bytes: Option<u64>,
    /// Flushed (primary) or replayed (replica), as PostgreSQL prints it.
    pub lsn: Option<String>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Round trip of the last good probe.
    #[serde(rename = "probe_latency_seconds", serialize_with = "optional_seconds")]
    pub probe_latency: Option<Duration>,
    /// `closed`, `open` or `half_open`.
    pub circuit: String,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolStatus {
    /// The host it connects to.
    pub host: String,
    /// The role it connects as.
    pub user: String,
    /// Connections it may open.
    pub size_limit: usize,
    /// Connections in use.
    pub active: usize,
    /// Connections not in use.
    pub idle: usize,
    /// Clients waiting.
    pub waiting: usize,
    /// How long the longest has waited.
    #[serde(rename = "oldest_wait_seconds", serialize_with = "seconds")]
    pub oldest_wait: Duration,
}

/// The clients of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientCounts {
    /// Logged in.
    pub connected: u64,
    /// Waiting for a server connection or a primary.
    pub waiting: u64,
    /// Bound to one server connection.
    pub pinned: u64,
}

/// Requests that took one route for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// `primary` or `replica`.
    pub route: String,
    /// Why: the label of `pgyard_queries_total`.
    pub reason: String,
    /// What the reason means, in a sentence.
    pub meaning: String,
    /// Requests so far.
    pub count: u64,
}

/// How long requests took; `None` while there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DurationQuantiles {
    /// Half of them took at most this.
    #[serde(rename = "p50_seconds", serialize_with = "optional_seconds")]
    pub p50: Option<Duration>,
    /// 99 of 100 took at most this.
    #[serde(rename = "p99_seconds", serialize_with = "optional_seconds")]
    pub p99: Option<Duration>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}
