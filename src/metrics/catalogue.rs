//! The table of all metrics. Nothing else is rendered; `docs/metrics.md` is this table.

/// What a metric is, without its type-level kind and label count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricEntry {
    /// The full name, unit and `_total` included.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// What it is measured in.
    pub unit: MetricUnit,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition format.
    pub const fn word(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// What a metric is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A plain number of things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// 0 or 1.
    Flag,
}

impl MetricUnit {
    /// The word of the documentation.
    pub const fn word(self) -> &'static str {
        match self {
            MetricUnit::Count => "count",
            MetricUnit::Seconds => "seconds",
            MetricUnit::Bytes => "bytes",
            MetricUnit::Flag => "0 or 1",
        }
    }
}

/// A counter of the catalogue, with `N` labels.
#[derive(Debug)]
pub struct CounterMetric<const N: usize>(pub(super) MetricEntry);

/// A gauge of the catalogue, with `N` labels.
#[derive(Debug)]
pub struct GaugeMetric<const N: usize>(pub(super) MetricEntry);

/// A histogram of durations of the catalogue, with `N` labels.
#[derive(Debug)]
pub struct HistogramMetric<const N: usize>(pub(super) MetricEntry);

macro_rules! catalogue {
    ($($id:ident: $kind:ident $type:ident $unit:ident $name:literal $labels:tt $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $id: $type<{ <[&str]>::len(&$labels) }> = $type(MetricEntry {
                name: $name,
                kind: MetricKind::$kind,
                unit: MetricUnit::$unit,
                labels: &$labels,
                help: $help,
            });
        )+

        /// Every metric, in the order of the documentation.
        pub static ALL: &[&MetricEntry] = &[$(&$id.0),+];
    };
}

catalogue! {
    QUERIES: Counter CounterMetric Count "pgyard_queries_total" ["database", "route", "reason"]
        "Requests sent to a server (a simple query, or a pipeline up to its Sync), by the kind of host and why it was chosen. route=\"primary\" with reason=\"freshness\" counts reads that no replica was fresh enough for.";
    TRANSACTIONS: Counter CounterMetric Count "pgyard_transactions_total" ["database", "route"]
        "Transactions ended, single statements included.";
    TRANSACTION_DURATION: Histogram HistogramMetric Seconds "pgyard_transaction_duration_seconds" ["database", "route"]
        "From the start of a transaction to its end, single statements included.";
    QUERY_DURATION: Histogram HistogramMetric Seconds "pgyard_query_duration_seconds" ["database", "route"]
        "From a request's first byte to its ReadyForQuery, the wait for a server connection included.";
    CHECKOUT_DURATION: Histogram HistogramMetric Seconds "pgyard_checkout_duration_seconds" ["database", "route"]
        "Waits for a server connection.";
    RETRIES: Counter CounterMetric Count "pgyard_retries_total" ["database", "reason"]
        "Requests that were sent again without the client's knowledge.";
    BYTES: Counter CounterMetric Bytes "pgyard_client_bytes_total" ["database", "direction"]
        "Bytes received from and sent to clients after their log-in.";
    CLIENTS: Gauge GaugeMetric Count "pgyard_clients" ["database"]
        "Clients logged in.";
    CLIENTS_WAITING: Gauge GaugeMetric Count "pgyard_clients_waiting" ["database"]
        "Clients waiting for a server connection or for a primary.";
    STATEMENTS_HELD: Gauge GaugeMetric Count "pgyard_statements_held" ["database"]
        "Statements waiting for a primary or another host.";
    STATEMENTS_HELD_BYTES: Gauge GaugeMetric Bytes "pgyard_statements_held_bytes" ["database"]
        "Bytes that were read from the clients of these statements.";
    STATEMENTS_HELD_REFUSED: Counter CounterMetric Count "pgyard_statements_held_refused_total" ["database"]
        "Statements turned away at once because max_held or max_held_bytes were waiting.";
    STATEMENTS_RATE_LIMITED: Counter CounterMetric Count "pgyard_statements_rate_limited_total" ["database", "scope", "outcome"]
        "Requests beyond a rate of statements.";
    TIMEOUTS: Counter CounterMetric Count "pgyard_timeouts_total" ["database", "kind"]
        "Statements and transactions that pgyard ended because they took too long.";
    PRIMARY_CHANGES: Counter CounterMetric Count "pgyard_primary_changes_total" ["database"]
        "Times that another host became the primary.";
    HOSTS_FENCED: Counter CounterMetric Count "pgyard_hosts_fenced_total" ["database"]
        "Times that a host was fenced off because it claimed to be primary beside another one.";
    HOSTS_REFUSED: Counter CounterMetric Count "pgyard_hosts_refused_total" ["database"]
        "Times that a host was refused because it belongs to another cluster.";
    CLIENTS_PINNED: Gauge GaugeMetric Count "pgyard_clients_pinned" ["database", "cause"]
        "Clients bound to one server connection. A client with two causes counts under both.";
    FACTS_CACHE_HITS: Counter CounterMetric Count "pgyard_facts_cache_hits_total" ["database"]
        "Query texts whose analysis was in the cache.";
    FACTS_CACHE_MISSES: Counter CounterMetric Count "pgyard_facts_cache_misses_total" ["database"]
        "Query texts that were analysed.";

    SHARDED_STATEMENTS: Counter CounterMetric Count "pgyard_sharded_statements_total" ["database", "kind"]
        "Statements of a sharded database: confined to one shard, gathered, finished by a shard over all partial answers, written on several, everywhere, or refused.";
    TWO_PHASE_COMMITS: Counter CounterMetric Count "pgyard_two_phase_commits_total" ["database"]
        "Transactions that wrote on several shards and were committed in two phases.";
    TWO_PHASE_RECOVERED: Counter CounterMetric Count "pgyard_two_phase_recovered_total" ["database", "outcome"]
        "Prepared transactions that a session left behind and that were committed or rolled_back afterwards.";

    HOST_UP: Gauge GaugeMetric Flag "pgyard_host_up" ["database", "host"]
        "Whether the last probe was answered.";
    HOST_ROLE: Gauge GaugeMetric Flag "pgyard_host_role" ["database", "host", "role"]
        "1, with what the last good probe said that the host is: primary, replica or unknown.";
    HOST_ELIGIBLE: Gauge GaugeMetric Flag "pgyard_host_eligible" ["database", "host", "reason"]
        "Whether the host takes statements; one series per host, with the reason why or why not.";
    REPLICA_LAG_SECONDS: Gauge GaugeMetric Seconds "pgyard_replica_lag_seconds" ["database", "host"]
        "Age of the oldest change on the primary that the replica has not replayed; 0 if it has all. Absent while it is not known.";
    REPLICA_LAG_BYTES: Gauge GaugeMetric Bytes "pgyard_replica_lag_bytes" ["database", "host"]
        "Write-ahead log that the primary has flushed and the replica has not replayed. Absent while it is not known.";
    HOST_CIRCUIT: Gauge GaugeMetric Flag "pgyard_host_circuit" ["database", "host", "state"]
        "1, with the state of the host's circuit: closed, open or half_open.";
    HOST_IN_FLIGHT: Gauge GaugeMetric Count "pgyard_host_in_flight" ["database", "host"]
        "Requests that the host works on, and those that wait for one of its connections.";
    PROBE_LATENCY: Gauge GaugeMetric Seconds "pgyard_probe_latency_seconds" ["database", "host"]
        "Round trip of the last good probe.";
    PROBES: Counter CounterMetric Count "pgyard_probes_total" ["database", "host"]
        "Probes sent.";
    PROBE_FAILURES: Counter CounterMetric Count "pgyard_probe_failures_total" ["database", "host"]
        "Probes that failed or timed out.";
    SAMPLER_QUERIES: Counter CounterMetric Count "pgyard_sampler_queries_total" ["database", "host"]
        "Log positions asked for on behalf of sessions that wrote; one query serves all that wait.";
    CATALOGUE_RELOADS: Counter CounterMetric Count "pgyard_catalogue_reloads_total" ["database", "result"]
        "Reads of the servers' catalogue of functions, views and tables: ok or failed.";
    SERVER_CONNECTS: Counter CounterMetric Count "pgyard_server_connects_total" ["database", "host"]
        "Server connections opened for clients.";
    SERVER_CONNECT_FAILURES: Counter CounterMetric Count "pgyard_server_connect_failures_total" ["database", "host"]
        "Server connections for clients that could not be opened.";
    SERVER_STRANGERS: Counter CounterMetric Count "pgyard_server_strangers_total" ["database", "host"]
        "Server connections that were closed because they led to another server than the host's probe: several stand behind its name.";

    POOL_SIZE_LIMIT: Gauge GaugeMetric Count "pgyard_pool_size_limit" ["database", "host", "user"]
        "Server connections that the pool may open.";
    POOL_ACTIVE: Gauge GaugeMetric Count "pgyard_pool_active" ["database", "host", "user"]
        "Server connections in use.";
    POOL_IDLE: Gauge GaugeMetric Count "pgyard_pool_idle" ["database", "host", "user"]
        "Server connections not in use.";
    POOL_WAITING: Gauge GaugeMetric Count "pgyard_pool_waiting" ["database", "host", "user"]
        "Clients waiting for a connection of this pool.";
    POOL_OLDEST_WAIT: Gauge GaugeMetric Seconds "pgyard_pool_oldest_wait_seconds" ["database", "host", "user"]
        "How long the client that waits longest has waited.";
    POOL_TIMEOUTS: Counter CounterMetric Count "pgyard_pool_timeouts_total" ["database", "host", "user"]
        "Clients that waited longer than checkout_timeout.";
    POOL_OVERFLOWS: Counter CounterMetric Count "pgyard_pool_overflows_total" ["database", "host", "user"]
        "Clients turned away at once because max_waiting were waiting.";

    CONNECTIONS: Counter CounterMetric Count "pgyard_connections_total" []
        "Client connections accepted.";
    CONNECTIONS_REFUSED: Counter CounterMetric Count "pgyard_connections_refused_total" ["reason"]
        "Client connections closed before their log-in for a limit of the front door.";
    CLIENTS_LOGGING_IN: Gauge GaugeMetric Count "pgyard_clients_logging_in" []
        "Client connections that have not logged in yet.";
    LOGINS: Counter CounterMetric Count "pgyard_logins_total" []
        "Clients that logged in.";
    LOGIN_FAILURES: Counter CounterMetric Count "pgyard_login_failures_total" ["reason"]
        "Clients that did not.";
    CANCEL_REQUESTS: Counter CounterMetric Count "pgyard_cancel_requests_total" ["outcome"]
        "Cancel requests of clients, by what became of them.";
    WORKERS_IN_USE: Gauge GaugeMetric Count "pgyard_workers_in_use" []
        "Relay threads that take sessions: as few as can carry the load.";
    SESSIONS_MOVED: Counter CounterMetric Count "pgyard_sessions_moved_total" []
        "Sessions that went on on another relay thread.";
    PANICS: Counter CounterMetric Count "pgyard_panics_total" []
        "Sessions ended by a fault of pgyard. Please report any.";

    BUILD_INFO: Gauge GaugeMetric Flag "pgyard_build_info" ["version"]
        "1, with the version.";
    UPTIME: Gauge GaugeMetric Seconds "pgyard_uptime_seconds" []
        "Time since the start.";
    CONFIG_RELOADS: Counter CounterMetric Count "pgyard_config_reloads_total" ["result"]
        "Reloads of the configuration: ok or failed.";
    HTTP_REQUESTS: Counter CounterMetric Count "pgyard_http_requests_total" ["path", "status"]
        "Requests to this HTTP listener; unknown paths are counted as other.";
    HTTP_REFUSED: Counter CounterMetric Count "pgyard_http_connections_refused_total" []
        "HTTP connections refused because too many were open.";
    SERIES: Gauge GaugeMetric Count "pgyard_metrics_series" []
        "Series that are kept from scrape to scrape.";
    SERIES_REFUSED: Counter CounterMetric Count "pgyard_metrics_series_refused_total" []
        "Series that are not shown because the limit was reached.";
}

/// The tables of `docs/metrics.md`, in Markdown: the metrics, and the values of labels with a fixed vocabulary.
pub fn markdown_tables() -> String {
    let mut table = String::from("| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for entry in ALL {
        let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, unit) = (entry.kind.word(), entry.unit.word());
        table.push_str(&format!("| `{}` | {kind} | {unit} | {} | {} |\n", entry.name, labels.join(", "), entry.help));
    }
    table + &super::labels::markdown_tables()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_follow_prometheus_conventions() {
        let mut names = HashSet::new();
        for MetricEntry { name, kind, unit, labels, help } in ALL.iter().copied() {
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("pgyard_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_seconds"), *unit == MetricUnit::Seconds, "{name}");
            assert_eq!(base.ends_with("_bytes"), *unit == MetricUnit::Bytes, "{name}");
            assert!(!["_sum", "_count", "_bucket"].iter().any(|suffix| base.ends_with(suffix)), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}: {help}");
            assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{name}");
            for label in *labels {
                assert!(*label != "le" && label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: {label}");
            }
        }
    }

    /// Run with `PGYARD_WRITE_DOCS=1` to write the tables into the document.
    #[test]
    fn the_documentation_has_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (start, end) = ("<!-- tables -->\n", "<!-- end of tables -->");
        let (before, rest) = document.split_once(start).unwrap();
        let (tables, after) = rest.split_once(end).unwrap();
        if std::env::var_os("PGYARD_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{start}{}{end}{after}", markdown_tables())).unwrap();
        } else {
            assert_eq!(tables, markdown_tables(), "docs/metrics.md is out of date");
        }
    }
}
