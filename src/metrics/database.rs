//! What is counted per database, on the way of every statement.

use super::catalogue::{self, CounterMetric};
use super::registry::Shown;
use super::{
    ByteDirection, Counter, DurationHistogram, Gauge, HistogramSnapshot, PinCause, QueryReason, QueryRoute, RateOutcome,
    RateScope, Registry, RetryReason, TimeoutKind,
};
use std::time::Duration;

const ROUTES: usize = QueryRoute::ALL.len();

/// The instruments of one database. Sessions share one; no call looks anything up.
#[derive(Clone, Debug)]
pub struct DatabaseMetrics {
    /// Clients logged in.
    pub clients: Gauge,
    /// Clients waiting for a server connection or a primary.
    pub clients_waiting: Gauge,
    /// Texts whose facts were cached.
    pub facts_cache_hits: Counter,
    /// Texts that were analysed.
    pub facts_cache_misses: Counter,
    queries: [[Counter; QueryReason::ALL.len()]; ROUTES],
    transactions: [Counter; ROUTES],
    transaction_duration: [DurationHistogram; ROUTES],
    query_duration: [DurationHistogram; ROUTES],
    checkout_duration: [DurationHistogram; ROUTES],
    retries: [Counter; RetryReason::ALL.len()],
    bytes: [Counter; ByteDirection::ALL.len()],
    pinned: [Gauge; PinCause::ALL.len()],
    timeouts: [Counter; TimeoutKind::ALL.len()],
    rate_limited: [[Counter; RateOutcome::ALL.len()]; RateScope::ALL.len()],
}

impl DatabaseMetrics {
    /// The instruments of `database`; the same ones for the same name.
    pub fn new(registry: &Registry, database: &str) -> Self {
        let counter = |metric: &CounterMetric<1>| registry.counter(metric, &[database]);
        DatabaseMetrics {
            clients: registry.gauge(&catalogue::CLIENTS, &[database]),
            clients_waiting: registry.gauge(&catalogue::CLIENTS_WAITING, &[database]),
            facts_cache_hits: counter(&catalogue::FACTS_CACHE_HITS),
            facts_cache_misses: counter(&catalogue::FACTS_CACHE_MISSES),
            queries: QueryRoute::ALL.map(|route| QueryReason::ALL.map(|reason| query_counter(registry, database, route, reason))),
            transactions: QueryRoute::ALL.map(|route| registry.counter(&catalogue::TRANSACTIONS, &[database, route.label()])),
            transaction_duration: QueryRoute::ALL
                .map(|route| registry.histogram(&catalogue::TRANSACTION_DURATION, &[database, route.label()])),
            query_duration: QueryRoute::ALL
                .map(|route| registry.histogram(&catalogue::QUERY_DURATION, &[database, route.label()])),
            checkout_duration: QueryRoute::ALL
                .map(|route| registry.histogram(&catalogue::CHECKOUT_DURATION, &[database, route.label()])),
            retries: RetryReason::ALL.map(|reason| registry.counter(&catalogue::RETRIES, &[database, reason.label()])),
            bytes: ByteDirection::ALL.map(|direction| registry.counter(&catalogue::BYTES, &[database, direction.label()])),
            timeouts: TimeoutKind::ALL.map(|kind| registry.counter(&catalogue::TIMEOUTS, &[database, kind.label()])),
            rate_limited: RateScope::ALL.map(|scope| {
                let labels = |outcome: RateOutcome| [database, scope.label(), outcome.label()];
                RateOutcome::ALL.map(|outcome| registry.counter(&catalogue::STATEMENTS_RATE_LIMITED, &labels(outcome)))
            }),
            pinned: PinCause::ALL.map(|cause| registry.gauge(&catalogue::CLIENTS_PINNED, &[database, cause.label()])),
        }
    }

    /// Requests sent to `route` for `reason`.
    #[inline]
    pub fn query(&self, route: QueryRoute, reason: QueryReason) -> &Counter {
        &self.queries[route as usize][reason as usize]
    }

    /// Counts one answered request and its duration.
    #[inline]
    pub fn record_query(&self, route: QueryRoute, reason: QueryReason, duration: Duration) {
        self.query(route, reason).increment();
        self.query_duration(route).record(duration);
    }

    /// Transactions ended on `route`.
    #[inline]
    pub fn transactions(&self, route: QueryRoute) -> &Counter {
        &self.transactions[route as usize]
    }

    /// Counts one ended transaction and its duration.
    #[inline]
    pub fn record_transaction(&self, route: QueryRoute, duration: Duration) {
        self.transactions(route).increment();
        self.transaction_duration(route).record(duration);
    }

    /// How long transactions took on `route`.
    #[inline]
    pub fn transaction_duration(&self, route: QueryRoute) -> &DurationHistogram {
        &self.transaction_duration[route as usize]
    }

    /// How long requests took on `route`.
    #[inline]
    pub fn query_duration(&self, route: QueryRoute) -> &DurationHistogram {
        &self.query_duration[route as usize]
    }

    /// How long sessions waited for a server connection of `route`.
    #[inline]
    pub fn checkout_duration(&self, route: QueryRoute) -> &DurationHistogram {
        &self.checkout_duration[route as usize]
    }

    /// Requests sent again for `reason`.
    #[inline]
    pub fn retries(&self, reason: RetryReason) -> &Counter {
        &self.retries[reason as usize]
    }

    /// Bytes that went in `direction`.
    #[inline]
    pub fn bytes(&self, direction: ByteDirection) -> &Counter {
        &self.bytes[direction as usize]
    }

    /// Statements and transactions that took too long.
    pub fn timeouts(&self, kind: TimeoutKind) -> &Counter {
        &self.timeouts[kind as usize]
    }

    /// Requests beyond a rate of statements.
    pub fn rate_limited(&self, scope: RateScope, outcome: RateOutcome) -> &Counter {
        &self.rate_limited[scope as usize][outcome as usize]
    }

    /// Clients pinned for `cause`.
    #[inline]
    pub fn pinned(&self, cause: PinCause) -> &Gauge {
        &self.pinned[cause as usize]
    }

    /// Requests so far by route and reason, those that are not 0. For people, not for the way of a statement.
    pub fn queries_by_reason(&self) -> Vec<(QueryRoute, QueryReason, u64)> {
        let every = QueryRoute::ALL.into_iter().flat_map(|route| QueryReason::ALL.map(|reason| (route, reason)));
        every.map(|(route, reason)| (route, reason, self.query(route, reason).get())).filter(|row| row.2 > 0).collect()
    }

    /// Durations of all requests, whatever their route. For people, not for the way of a statement.
    pub fn all_query_durations(&self) -> HistogramSnapshot {
        let mut all = self.query_duration(QueryRoute::Primary).snapshot();
        all.merge(&self.query_duration(QueryRoute::Replica).snapshot());
        all
    }
}

fn query_counter(registry: &Registry, database: &str, route: QueryRoute, reason: QueryReason) -> Counter {
    let possible = route == QueryRoute::Primary || reason.possible_on_replica();
    // An impossible one is still a series: if it ever counts, that must be seen.
    let shown = if possible { Shown::Always } else { Shown::OnceUsed };
    registry.counter_shown(&catalogue::QUERIES, &[database, route.label(), reason.label()], shown)
}
