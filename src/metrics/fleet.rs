//! What is read of hosts and pools at scrape time.

use super::{Scrape, catalogue};
use std::time::Duration;

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
    /// Probes sent.
    pub probes: u64,
    /// Probes that failed.
    pub probe_failures: u64,
    /// Sampler queries.
    pub sampler_queries: u64,
    /// Server connections opened for clients.
    pub connects: u64,
    /// Server connections that could not be opened.
    pub connect_failures: u64,
    /// Of these, the ones that led to another server than the probe's.
    pub strangers: u64,
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
        scrape.counter(&catalogue::PROBES, labels, self.probes);
        scrape.counter(&catalogue::PROBE_FAILURES, labels, self.probe_failures);
        scrape.counter(&catalogue::SAMPLER_QUERIES, labels, self.sampler_queries);
        scrape.counter(&catalogue::SERVER_CONNECTS, labels, self.connects);
        scrape.counter(&catalogue::SERVER_CONNECT_FAILURES, labels, self.connect_failures);
        scrape.counter(&catalogue::SERVER_STRANGERS, labels, self.strangers);
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
    /// Waits that ended with `checkout_timeout`.
    pub timeouts: u64,
    /// Clients turned away because too many were waiting.
    pub overflows: u64,
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
        scrape.counter(&catalogue::POOL_TIMEOUTS, labels, self.timeouts);
        scrape.counter(&catalogue::POOL_OVERFLOWS, labels, self.overflows);
    }
}
