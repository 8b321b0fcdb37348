//! Which series exist, and the text of a scrape.

use super::catalogue::{self, CounterMetric, GaugeMetric, HistogramMetric, MetricEntry};
use super::cells::Cells;
use super::exposition::{self, SeriesValue};
use super::histogram::DurationHistogram;
use super::instruments::{Counter, Gauge};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Series kept at once, unless said otherwise.
const SERIES_LIMIT: usize = 50_000;

/// Counters and gauges that share a block of cells, so that one costs eight bytes a worker and not a cache line.
const CHUNK_CELLS: usize = 256;

/// Label values, in the order of the entry's labels.
pub(super) type LabelValues = Box<[Box<str>]>;

type Collector = Arc<dyn Fn(&mut Scrape) + Send + Sync>;

/// All series of one process. Clones are the same registry.
///
/// Making and removing instruments takes a lock and is for the set-up of hosts, pools and databases. The instruments themselves
/// take none.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<RegistryInner>,
}

struct RegistryInner {
    workers: usize,
    series_limit: usize,
    series: Mutex<SeriesTable>,
    collectors: Mutex<Vec<Collector>>,
    /// Not a series of the table: it must count when the table is full.
    refused: Counter,
}

struct SeriesTable {
    families: BTreeMap<&'static str, BTreeMap<LabelValues, Series>>,
    count: usize,
    chunk: Arc<Cells>,
    chunk_used: usize,
}

#[derive(Clone)]
struct Series {
    instrument: Instrument,
    shown: Shown,
}

#[derive(Clone)]
enum Instrument {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(DurationHistogram),
}

/// When a series is rendered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// From its start, so that the first increment is seen as one.
    Always,
    /// Once it has counted: for what should never be counted.
    OnceUsed,
}

impl Registry {
    /// A registry for `workers` threads that call [`super::set_worker`] with 0 to `workers` - 1.
    pub fn new(workers: usize) -> Self {
        Self::with_series_limit(workers, SERIES_LIMIT)
    }

    /// As [`Registry::new`], with another limit of series than 50,000.
    pub fn with_series_limit(workers: usize, series_limit: usize) -> Self {
        let chunk = Arc::new(Cells::new(workers, CHUNK_CELLS));
        let refused = Counter::new(Arc::clone(&chunk), 0);
        let table = SeriesTable { families: BTreeMap::new(), count: 0, chunk, chunk_used: 1 };
        let registry = Registry {
            inner: Arc::new(RegistryInner {
                workers,
                series_limit,
                series: Mutex::new(table),
                collectors: Mutex::new(Vec::new()),
                refused,
            }),
        };
        let started = Instant::now();
        registry.on_scrape(Box::new(move |scrape| {
            scrape.gauge(&catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
            scrape.gauge(&catalogue::UPTIME, &[], started.elapsed().as_secs_f64());
        }));
        registry
    }

    /// The counter with these label values, made if there is none yet.
    pub fn counter<const N: usize>(&self, metric: &CounterMetric<N>, labels: &[&str; N]) -> Counter {
        self.counter_shown(metric, labels, Shown::Always)
    }

    pub(super) fn counter_shown<const N: usize>(&self, metric: &CounterMetric<N>, labels: &[&str; N], shown: Shown) -> Counter {
        let make = |table: &mut SeriesTable| Instrument::Counter(table.new_cell(self.inner.workers, Counter::new));
        match self.get_or_make(&metric.0, labels, shown, make) {
            Instrument::Counter(counter) => counter,
            // The entry's type fixes its kind, so this does not happen; an instrument that nobody sees is the mild answer.
            Instrument::Gauge(_) | Instrument::Histogram(_) => Counter::new(Arc::new(Cells::new(0, 1)), 0),
        }
    }

    /// The gauge with these label values, made if there is none yet.
    pub fn gauge<const N: usize>(&self, metric: &GaugeMetric<N>, labels: &[&str; N]) -> Gauge {
        let make = |table: &mut SeriesTable| Instrument::Gauge(table.new_cell(self.inner.workers, Gauge::new));
        match self.get_or_make(&metric.0, labels, Shown::Always, make) {
            Instrument::Gauge(gauge) => gauge,
            Instrument::Counter(_) | Instrument::Histogram(_) => Gauge::new(Arc::new(Cells::new(0, 1)), 0),
        }
    }

    /// The histogram with these label values, made if there is none yet.
    pub fn histogram<const N: usize>(&self, metric: &HistogramMetric<N>, labels: &[&str; N]) -> DurationHistogram {
        let workers = self.inner.workers;
        match self.get_or_make(&metric.0, labels, Shown::Always, |_| Instrument::Histogram(DurationHistogram::new(workers))) {
            Instrument::Histogram(histogram) => histogram,
            Instrument::Counter(_) | Instrument::Gauge(_) => DurationHistogram::new(0),
        }
    }

    /// Removes every series that has all of these labels with these values: a host, pool or database is gone. Handles that are
    /// still held go on working, unseen; the next one asked for starts at 0.
    pub fn forget(&self, labels: &[(&str, &str)]) {
        let mut table = self.table();
        for entry in catalogue::ALL {
            let positions: Option<Vec<(usize, &str)>> =
                labels.iter().map(|(name, value)| Some((entry.labels.iter().position(|label| label == name)?, *value))).collect();
            let (Some(positions), Some(family)) = (positions, table.families.get_mut(entry.name)) else { continue };
            let before = family.len();
            family.retain(|values, _| !positions.iter().all(|(position, value)| *values[*position] == **value));
            let removed = before - family.len();
            table.count -= removed;
        }
    }

    /// Calls `collector` at every scrape, for the life of the registry: one that reads the live state of everything, not one
    /// per host. It must not wait for anything.
    pub fn on_scrape(&self, collector: Box<dyn Fn(&mut Scrape) + Send + Sync>) {
        self.inner.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::from(collector));
    }

    /// All series in Prometheus' text format, version 0.0.4. Every metric of the catalogue has its HELP and TYPE, also without series.
    pub fn render(&self) -> String {
        let mut scrape = Scrape::default();
        // Collectors run without the lock, so that they may use the registry.
        let collectors = self.inner.collectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        collectors.iter().for_each(|collector| collector(&mut scrape));
        self.collect_own(&mut scrape);
        exposition::render(&scrape.families)
    }

    /// Adds the registry's own series; where a collector gave the same one, the registry's counts.
    fn collect_own(&self, scrape: &mut Scrape) {
        let (own, count) = {
            let table = self.table();
            (table.families.clone(), table.count)
        };
        for (name, series) in own {
            let family = scrape.families.entry(name).or_default();
            for (labels, Series { instrument, shown }) in series {
                let value = match instrument {
                    Instrument::Counter(counter) => match (counter.get(), shown) {
                        (0, Shown::OnceUsed) => continue,
                        (count, _) => SeriesValue::Count(count),
                    },
                    Instrument::Gauge(gauge) => SeriesValue::Number(gauge.get() as f64),
                    Instrument::Histogram(histogram) => SeriesValue::Histogram(histogram.snapshot()),
                };
                family.insert(labels, value);
            }
        }
        scrape.gauge(&catalogue::SERIES, &[], count as f64);
        scrape.counter(&catalogue::SERIES_REFUSED, &[], self.inner.refused.get());
    }

    fn get_or_make(
        &self,
        entry: &MetricEntry,
        labels: &[&str],
        shown: Shown,
        make: impl FnOnce(&mut SeriesTable) -> Instrument,
    ) -> Instrument {
        let values: LabelValues = labels.iter().map(|value| Box::from(*value)).collect();
        let mut table = self.table();
        if let Some(series) = table.families.get(entry.name).and_then(|family| family.get(&values)) {
            return series.instrument.clone();
        }
        let instrument = make(&mut table);
        if table.count >= self.inner.series_limit {
            self.inner.refused.increment();
            return instrument;
        }
        table.count += 1;
        table.families.entry(entry.name).or_default().insert(values, Series { instrument: instrument.clone(), shown });
        instrument
    }

    fn table(&self) -> MutexGuard<'_, SeriesTable> {
        self.inner.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("workers", &self.inner.workers).field("series", &self.table().count).finish()
    }
}

impl SeriesTable {
    /// A cell that nobody has had. A chunk is freed when none of its cells is in use any more.
    fn new_cell<T>(&mut self, workers: usize, wrap: fn(Arc<Cells>, usize) -> T) -> T {
        if self.chunk_used == self.chunk.count() {
            self.chunk = Arc::new(Cells::new(workers, CHUNK_CELLS));
            self.chunk_used = 0;
        }
        self.chunk_used += 1;
        wrap(Arc::clone(&self.chunk), self.chunk_used - 1)
    }
}

/// What collectors add to one scrape. The last value given for a series counts.
#[derive(Debug, Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, BTreeMap<LabelValues, SeriesValue>>,
}

impl Scrape {
    /// A gauge's value now.
    pub fn gauge<const N: usize>(&mut self, metric: &GaugeMetric<N>, labels: &[&str; N], value: f64) {
        self.insert(&metric.0, labels, SeriesValue::Number(value));
    }

    /// A counter that is kept elsewhere.
    pub fn counter<const N: usize>(&mut self, metric: &CounterMetric<N>, labels: &[&str; N], value: u64) {
        self.insert(&metric.0, labels, SeriesValue::Count(value));
    }

    fn insert(&mut self, entry: &MetricEntry, labels: &[&str], value: SeriesValue) {
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        self.families.entry(entry.name).or_default().insert(labels, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::strict_parser::parse;
    use super::super::{DatabaseMetrics, FrontMetrics, HostReading, PoolReading, ShardedMetrics};
    use super::super::{PinCause, QueryReason, QueryRoute, set_worker};
    use super::*;
    use std::time::Duration;

    const HOST: HostReading<'static> = HostReading {
        database: "app",
        host: "replica-1",
        up: true,
        role: "replica",
        eligible: false,
        reason: "lag_time",
        lag: Some(Duration::from_millis(1500)),
        lag_bytes: Some(1 << 24),
        probe_latency: Some(Duration::from_micros(250)),
        circuit: "closed",
        in_flight: 3,
        probes: 5,
        probe_failures: 1,
        sampler_queries: 0,
        connects: 2,
        connect_failures: 0,
        strangers: 0,
    };

    const POOL: PoolReading<'static> = PoolReading {
        database: "app",
        host: "replica-1",
        user: "alice",
        size_limit: 20,
        active: 4,
        idle: 2,
        waiting: 1,
        oldest_wait: Duration::from_millis(7),
        timeouts: 1,
        overflows: 0,
    };

    /// A registry with every bundle and reading.
    fn populated() -> Registry {
        let registry = Registry::new(2);
        DatabaseMetrics::new(&registry, "app");
        ShardedMetrics::new(&registry, "app");
        FrontMetrics::new(&registry);
        registry.on_scrape(Box::new(|scrape| {
            HOST.write(scrape);
            POOL.write(scrape);
            scrape.counter(&catalogue::CATALOGUE_RELOADS, &["app", "ok"], 1);
            scrape.counter(&catalogue::HTTP_REQUESTS, &["/", "200"], 1);
            scrape.counter(&catalogue::HTTP_REFUSED, &[], 0);
            for metric in [&catalogue::STATEMENTS_HELD, &catalogue::STATEMENTS_HELD_BYTES] {
                scrape.gauge(metric, &["app"], 0.0);
            }
            let fleet = [&catalogue::PRIMARY_CHANGES, &catalogue::HOSTS_FENCED, &catalogue::HOSTS_REFUSED];
            for metric in fleet.into_iter().chain([&catalogue::STATEMENTS_HELD_REFUSED]) {
                scrape.counter(metric, &["app"], 0);
            }
        }));
        registry
    }

    #[test]
    fn every_metric_of_the_catalogue_is_rendered_and_no_other() {
        let families = parse(&populated().render()).unwrap();
        let names: Vec<&str> = families.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = catalogue::ALL.iter().map(|entry| entry.name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for entry in catalogue::ALL {
            let family = &families[entry.name];
            assert_eq!((family.kind.as_str(), family.help.as_str()), (entry.kind.word(), entry.help));
            assert!(!family.samples.is_empty(), "{} has no series", entry.name);
            for (_, labels) in family.samples.keys() {
                let named: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
                assert_eq!(named, entry.labels, "{}", entry.name);
            }
        }
    }

    #[test]
    fn an_empty_registry_still_describes_everything() {
        assert_eq!(parse(&Registry::new(0).render()).unwrap().len(), catalogue::ALL.len());
    }

    #[test]
    fn what_threads_count_is_what_a_scrape_shows() {
        let registry = populated();
        let app = DatabaseMetrics::new(&registry, "app");
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let app = &app;
                scope.spawn(move || {
                    set_worker(worker);
                    for _ in 0..1000 {
                        app.record_query(QueryRoute::Replica, QueryReason::Read, Duration::from_micros(100));
                        app.query(QueryRoute::Primary, QueryReason::Lock).increment();
                    }
                    std::mem::forget(app.pinned(PinCause::Listen).hold());
                });
            }
        });
        let families = parse(&registry.render()).unwrap();
        let query = |route, reason| {
            families["pgyard_queries_total"]
                .value("pgyard_queries_total", &[("database", "app"), ("route", route), ("reason", reason)])
        };
        assert_eq!(query("replica", "read"), Some(4000.0));
        assert_eq!(query("primary", "lock"), Some(4000.0));
        assert_eq!(query("primary", "read"), Some(0.0));
        assert_eq!(query("replica", "lock"), None);
        let duration = &families["pgyard_query_duration_seconds"];
        let replica = [("database", "app"), ("route", "replica")];
        let at =
            |bound| duration.value("pgyard_query_duration_seconds_bucket", &[replica[0], replica[1], ("le", bound)]).unwrap();
        assert_eq!((at("0.000064"), at("0.000128"), at("+Inf")), (0.0, 4000.0, 4000.0));
        assert_eq!(duration.value("pgyard_query_duration_seconds_sum", &replica), Some(0.4));
        let pinned =
            families["pgyard_clients_pinned"].value("pgyard_clients_pinned", &[("database", "app"), ("cause", "listen")]);
        assert_eq!(pinned, Some(4.0));
        assert_eq!(app.queries_by_reason().len(), 2);
        assert_eq!(app.all_query_durations().count(), 4000);
    }

    #[test]
    fn an_impossible_reason_shows_when_it_counts() {
        let registry = populated();
        DatabaseMetrics::new(&registry, "app").query(QueryRoute::Replica, QueryReason::Write).increment();
        assert!(registry.render().contains("{database=\"app\",route=\"replica\",reason=\"write\"} 1\n"));
    }

    #[test]
    fn lag_is_shown_as_it_was_read_and_not_for_a_primary() {
        let registry = Registry::new(1);
        registry.on_scrape(Box::new(|scrape| {
            HOST.write(scrape);
            HostReading { host: "primary", role: "primary", eligible: true, reason: "eligible", ..HOST }.write(scrape);
            HostReading { host: "new", role: "unknown", lag: None, lag_bytes: None, ..HOST }.write(scrape);
        }));
        let families = parse(&registry.render()).unwrap();
        let lag = &families["pgyard_replica_lag_seconds"];
        assert_eq!(lag.value("pgyard_replica_lag_seconds", &[("database", "app"), ("host", "replica-1")]), Some(1.5));
        assert_eq!(lag.samples.len(), 1);
        assert_eq!(families["pgyard_replica_lag_bytes"].samples.len(), 1);
        let eligible = |host, reason| {
            let labels = [("database", "app"), ("host", host), ("reason", reason)];
            families["pgyard_host_eligible"].value("pgyard_host_eligible", &labels)
        };
        assert_eq!(eligible("replica-1", "lag_time"), Some(0.0));
        assert_eq!(eligible("primary", "eligible"), Some(1.0));
    }

    #[test]
    fn strange_label_values_stay_what_and_apart() {
        let registry = Registry::new(0);
        let strange = ["", "a\\b", "a\\\\b", "a\\\"b", "a\"b", "a\nb", "a\\nb", "a\rb", "é{}=,\u{1F600}", "a\\"];
        for (index, value) in strange.into_iter().enumerate() {
            registry.counter(&catalogue::FACTS_CACHE_HITS, &[value]).add(index as u64 + 1);
        }
        let families = parse(&registry.render()).unwrap();
        for (index, value) in strange.into_iter().enumerate() {
            let found = families["pgyard_facts_cache_hits_total"].value("pgyard_facts_cache_hits_total", &[("database", value)]);
            assert_eq!(found, Some(index as f64 + 1.0), "{value:?}");
        }
    }

    #[test]
    fn the_crates_own_recorder_renders_the_same() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let registry = Registry::new(1);
        ::metrics::with_local_recorder(&recorder, || {
            for (database, count) in [("app", 3), ("with \"quotes\" and \n", 5), ("été", 7)] {
                let labels = [("database", database.to_owned())];
                ::metrics::counter!("pgyard_facts_cache_hits_total", &labels).increment(count);
                registry.counter(&catalogue::FACTS_CACHE_HITS, &[database]).add(count);
                ::metrics::gauge!("pgyard_clients", &labels).set(count as f64);
                registry.gauge(&catalogue::CLIENTS, &[database]).add(count as i64);
            }
        });
        let sorted = |text: String| {
            let wanted = |line: &&str| line.starts_with("pgyard_facts_cache_hits_total") || line.starts_with("pgyard_clients{");
            let mut lines: Vec<String> = text.lines().filter(wanted).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let ours = sorted(registry.render());
        assert_eq!(ours.len(), 6);
        assert_eq!(ours, sorted(recorder.handle().render()));
    }

    #[test]
    fn the_same_labels_are_the_same_instrument_until_forgotten() {
        let registry = populated();
        let connects = |database, host| registry.counter(&catalogue::SERVER_CONNECTS, &[database, host]);
        let first = connects("app", "replica-1");
        first.add(2);
        assert_eq!(connects("app", "replica-1").get(), 2);
        connects("app", "replica-2").add(9);
        connects("other", "replica-1").add(9);

        let before = registry.table().count;
        registry.forget(&[("host", "replica-1"), ("database", "app")]);
        registry.forget(&[("no such label", "replica-2")]);
        assert_eq!(registry.table().count, before - 1);
        first.increment();
        assert_eq!(connects("app", "replica-1").get(), 0);
        let text = registry.render();
        assert!(text.contains("pgyard_server_connects_total{database=\"app\",host=\"replica-2\"} 9\n"), "{text}");
        assert!(text.contains("pgyard_server_connects_total{database=\"other\",host=\"replica-1\"} 9\n"));
    }

    #[test]
    fn over_the_limit_series_count_unseen_and_the_scrape_says_so() {
        let registry = Registry::with_series_limit(1, 2);
        let counters: Vec<Counter> =
            ["a", "b", "c", "d"].map(|name| registry.counter(&catalogue::FACTS_CACHE_HITS, &[name])).into();
        counters.iter().for_each(Counter::increment);
        assert!(counters.iter().all(|counter| counter.get() == 1));
        let families = parse(&registry.render()).unwrap();
        let value = |name: &str| families[name].value(name, &[]);
        assert_eq!(families["pgyard_facts_cache_hits_total"].samples.len(), 2);
        assert_eq!(value("pgyard_metrics_series"), Some(2.0));
        assert_eq!(value("pgyard_metrics_series_refused_total"), Some(2.0));
    }

    #[test]
    fn more_counters_than_a_chunk_has_cells_do_not_share_any() {
        let registry = Registry::new(1);
        let counters: Vec<Counter> =
            (0..600).map(|n: u64| registry.counter(&catalogue::FACTS_CACHE_HITS, &[&n.to_string()])).collect();
        counters.iter().zip(0..).for_each(|(counter, n)| counter.add(n));
        assert!(counters.iter().zip(0..).all(|(counter, n)| counter.get() == n));
    }

    #[test]
    fn a_collector_may_use_the_registry() {
        let registry = Registry::new(1);
        let inner = registry.clone();
        registry.on_scrape(Box::new(move |_| inner.counter(&catalogue::FACTS_CACHE_HITS, &["late"]).increment()));
        assert!(registry.render().contains("pgyard_facts_cache_hits_total{database=\"late\"} 1\n"));
        assert!(registry.render().contains("pgyard_facts_cache_hits_total{database=\"late\"} 2\n"));
    }
}
