//! SHOW LAG: how far behind each replica is, and what is allowed.

use super::context::ConsoleContext;
use super::show_hosts::upstreams;
use super::table::{ResultTable, cell, maybe, milliseconds};
use crate::cluster::Role;

pub(super) const COLUMNS: [&str; 9] =
    ["database", "host", "standing", "lag_ms", "max_lag_ms", "lag_bytes", "max_lag_bytes", "lsn", "sample_age_ms"];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    for (database, upstream) in upstreams(context) {
        let fleet = upstream.cluster.fleet().clone();
        let health = upstream.settings().health.clone();
        for view in fleet.hosts.iter().filter(|view| view.role != Role::Primary) {
            table.push(vec![
                cell(&database),
                cell(&view.host.settings.name),
                cell(view.standing.label()),
                maybe(view.lag.map(milliseconds)),
                maybe(health.max_lag.map(milliseconds)),
                maybe(view.lag_bytes),
                maybe(health.max_lag_bytes),
                maybe(view.sample.map(|sample| sample.lsn)),
                maybe(view.sample.map(|sample| milliseconds(sample.asked.elapsed()))),
            ]);
        }
    }
}
