//! What is counted per host and per pool, and what is read of them at scrape time.

use super::{Counter, Registry, Scrape, catalogue};
use std::time::Duration;

/// The counters of one host.
#[derive(Clone, Debug)]
pub struct HostMetrics {
    /// Probes sent.
    pub probes: Counter,
    /// Probes that failed.
    pub probe_failures: Counter,
    /// Sampler queries.
    pub sampler_queries: Counter,
    /// Server connections opened for clients.
    pub connects: Counter,
    /// Server connections that could not be opened.
    pub connect_failures: Counter,
}

impl HostMetrics {
    /// The counters of `host`; the same ones for the same names.
    pub fn new(registry: &Registry, database: &str, host: &str) -> Self {
        let labels = &[database, host];
        HostMetrics {
            probes: registry.counter(&catalogue::PROBES, labels),
            probe_failures: registry.counter(&catalogue::PROBE_FAILURES, labels),
            sampler_queries: registry.counter(&catalogue::SAMPLER_QUERIES, labels),
            connects: registry.counter(&catalogue::SERVER_CONNECTS, labels),
            connect_failures: registry.counter(&catalogue::SERVER_CONNECT_FAILURES, labels),
        }
    }
}

/// A host as a collector finds it.
#[derive(Clone, Copy, Debug)]
pub struct HostReading<'a> {
    /// The database it serves.
    pub database: &'a str,
    /// Its name.
    pub host: &'a str,
    /// Whether its last probe was answered.
    pub up: bool,
    /// `primary`, `replica` or `unknown`.
    pub role: &'static str,
    /// Whether it takes statements.
    pub eligible: bool,
    /// Why, or why not: the standing's label.
    pub reason: &'static str,
    /// Time behind the primary, if known.
    pub lag: Option<Duration>,
    /// Bytes behind the primary, if known.
    pub lag_bytes: Option<u64>,
    /// Round trip of the last good probe.
    pub probe_latency: Option<Duration>,
    /// `closed`, `open` or `half_open`.
    pub circuit: &'static str,
    /// Requests in flight.
    pub in_flight: u32,
}

impl HostReading<'_> {
    /// Adds it to a scrape. Lag is shown for replicas only.
    pub fn write(&self, scrape: &mut Scrape) {
        let HostReading { database, host, .. } = *self;
        let labels = &[database, host];
        let flag = |value: bool| if value { 1.0 } else { 0.0 };
        scrape.gauge(&catalogue::HOST_UP, labels, flag(self.up));
        scrape.gauge(&catalogue::HOST_ROLE, &[database, host, self.role], 1.0);
        scrape.gauge(&catalogue::HOST_ELIGIBLE, &[database, host, self.reason], flag(self.eligible));
        scrape.gauge(&catalogue::HOST_CIRCUIT, &[database, host, self.circuit], 1.0);
        scrape.gauge(&catalogue::HOST_IN_FLIGHT, labels, f64::from(self.in_flight));
        if let Some(latency) = self.probe_latency {
            scrape.gauge(&catalogue::PROBE_LATENCY, labels, latency.as_secs_f64());
        }
        if self.role == "primary" {
            return;
        }
        if let Some(lag) = self.lag {
            scrape.gauge(&catalogue::REPLICA_LAG_SECONDS, labels, lag.as_secs_f64());
        }
        if let Some(bytes) = self.lag_bytes {
            scrape.gauge(&catalogue::REPLICA_LAG_BYTES, labels, bytes as f64);
        }
    }
}

/// The counters of one pool.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    /// Waits that ended with `checkout_timeout`.
    pub timeouts: Counter,
    /// Clients turned away because too many were waiting.
    pub overflows: Counter,
}

impl PoolMetrics {
    /// The counters of the pool of `user` on `host`; the same ones for the same names.
    pub fn new(registry: &Registry, database: &str, host: &str, user: &str) -> Self {
        let labels = &[database, host, user];
        PoolMetrics {
            timeouts: registry.counter(&catalogue::POOL_TIMEOUTS, labels),
            overflows: registry.counter(&catalogue::POOL_OVERFLOWS, labels),
        }
    }
}

/// A pool as a collector finds it.
#[derive(Clone, Copy, Debug)]
pub struct PoolReading<'a> {
    /// The database it serves.
    pub database: &'a str,
    /// The host it connects to.
    pub host: &'a str,
    /// The role it connects as.
    pub user: &'a str,
    /// Connections it may open.
    pub size_limit: usize,
    /// Connections in use.
    pub active: usize,
    /// Connections not in use.
    pub idle: usize,
    /// Clients waiting.
    pub waiting: usize,
    /// How long the longest waits; zero if none does.
    pub oldest_wait: Duration,
}

impl PoolReading<'_> {
    /// Adds it to a scrape.
    pub fn write(&self, scrape: &mut Scrape) {
        let labels = &[self.database, self.host, self.user];
        scrape.gauge(&catalogue::POOL_SIZE_LIMIT, labels, self.size_limit as f64);
        scrape.gauge(&catalogue::POOL_ACTIVE, labels, self.active as f64);
        scrape.gauge(&catalogue::POOL_IDLE, labels, self.idle as f64);
        scrape.gauge(&catalogue::POOL_WAITING, labels, self.waiting as f64);
        scrape.gauge(&catalogue::POOL_OLDEST_WAIT, labels, self.oldest_wait.as_secs_f64());
    }
}
