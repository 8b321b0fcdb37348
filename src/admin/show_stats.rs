//! SHOW STATS: totals and averages since the start. PgBouncer's columns, and queries by route and retries.

use super::context::ConsoleContext;
use super::table::{Cell, ResultTable, cell};
use crate::metrics::{ByteDirection, DatabaseMetrics, QueryRoute, RetryReason};
use std::time::Duration;

pub(super) const COLUMNS: [&str; 18] = [
    "database",
    "total_xact_count",
    "total_query_count",
    "total_received",
    "total_sent",
    "total_xact_time",
    "total_query_time",
    "total_wait_time",
    "avg_xact_count",
    "avg_query_count",
    "avg_recv",
    "avg_sent",
    "avg_xact_time",
    "avg_query_time",
    "avg_wait_time",
    "primary_query_count",
    "replica_query_count",
    "retry_count",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    let uptime = context.started.elapsed();
    for database in context.directory.all() {
        table.push(row(&database.name, &Totals::of(&database.metrics), uptime));
    }
}

/// What a database has done since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    transactions: u64,
    primary_queries: u64,
    replica_queries: u64,
    received: u64,
    sent: u64,
    transaction_time: Duration,
    query_time: Duration,
    wait_time: Duration,
    retries: u64,
}

impl Totals {
    fn of(metrics: &DatabaseMetrics) -> Totals {
        let routes = || QueryRoute::ALL.into_iter();
        let queries = |route| metrics.query_duration(route).snapshot().count();
        Totals {
            transactions: routes().map(|route| metrics.transactions(route).get()).sum(),
            primary_queries: queries(QueryRoute::Primary),
            replica_queries: queries(QueryRoute::Replica),
            received: metrics.bytes(ByteDirection::ClientIn).get(),
            sent: metrics.bytes(ByteDirection::ClientOut).get(),
            transaction_time: routes().map(|route| metrics.transaction_duration(route).snapshot().sum()).sum(),
            query_time: metrics.all_query_durations().sum(),
            wait_time: routes().map(|route| metrics.checkout_duration(route).snapshot().sum()).sum(),
            retries: RetryReason::ALL.into_iter().map(|reason| metrics.retries(reason).get()).sum(),
        }
    }
}

fn row(name: &str, totals: &Totals, uptime: Duration) -> Vec<Cell> {
    let queries = totals.primary_queries + totals.replica_queries;
    let per_second = |count: u64| cell(count / uptime.as_secs().max(1));
    let each = |time: Duration, count: u64| cell(time.as_micros() / u128::from(count.max(1)));
    vec![
        cell(name),
        cell(totals.transactions),
        cell(queries),
        cell(totals.received),
        cell(totals.sent),
        cell(totals.transaction_time.as_micros()),
        cell(totals.query_time.as_micros()),
        cell(totals.wait_time.as_micros()),
        per_second(totals.transactions),
        per_second(queries),
        per_second(totals.received),
        per_second(totals.sent),
        each(totals.transaction_time, totals.transactions),
        each(totals.query_time, queries),
        each(totals.wait_time, queries),
        cell(totals.primary_queries),
        cell(totals.replica_queries),
        cell(totals.retries),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{QueryReason, Registry};

    #[test]
    fn totals_and_averages() {
        let metrics = DatabaseMetrics::new(&Registry::new(1), "app");
        let ms = Duration::from_millis;
        metrics.record_query(QueryRoute::Primary, QueryReason::Write, ms(3));
        metrics.record_query(QueryRoute::Replica, QueryReason::Read, ms(1));
        metrics.record_query(QueryRoute::Replica, QueryReason::Read, ms(2));
        metrics.record_transaction(QueryRoute::Primary, ms(8));
        metrics.record_transaction(QueryRoute::Replica, ms(2));
        metrics.checkout_duration(QueryRoute::Replica).record(ms(6));
        metrics.bytes(ByteDirection::ClientIn).add(1000);
        metrics.retries(RetryReason::ReplicaLost).increment();
        let row: Vec<String> = row("app", &Totals::of(&metrics), ms(10_000)).into_iter().flatten().collect();
        let expect = "app 2 3 1000 0 10000 6000 6000 0 0 100 0 5000 2000 2000 1 2 1";
        assert_eq!(row.join(" "), expect);
        assert_eq!(row.len(), COLUMNS.len());
        // Nothing has happened yet, and no time has passed.
        super::row("app", &Totals::default(), Duration::ZERO);
    }
}
