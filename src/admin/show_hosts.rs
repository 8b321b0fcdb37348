//! SHOW HOSTS: every host of every configured database, and whether it is used.

use super::context::ConsoleContext;
use super::table::{Cell, ResultTable, cell, maybe, milliseconds};
use crate::cluster::{Fleet, HostView, Role, Standing};
use crate::database::Upstream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) const COLUMNS: [&str; 14] = [
    "database",
    "host",
    "address",
    "role",
    "standing",
    "reason",
    "lag_ms",
    "lag_bytes",
    "lsn",
    "timeline",
    "in_flight",
    "latency_ms",
    "probe_ms",
    "circuit",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    for (database, upstream) in upstreams(context) {
        let fleet = upstream.cluster.fleet().clone();
        for (index, view) in fleet.hosts.iter().enumerate() {
            table.push(row(&database, &fleet, index, view));
        }
    }
}

/// Every entry of the configuration with its hosts, by name.
pub(super) fn upstreams(context: &ConsoleContext) -> Vec<(String, Arc<Upstream>)> {
    let all = context.directory.upstreams();
    let mut list: Vec<_> = all.iter().map(|(name, upstream)| (name.clone(), upstream.clone())).collect();
    list.sort_by(|(a, _), (b, _)| a.cmp(b));
    list
}

fn row(database: &str, fleet: &Fleet, index: usize, view: &HostView) -> Vec<Cell> {
    let settings = &view.host.settings;
    let latency_us = view.host.latency_us.load(Ordering::Relaxed);
    let is_replica = view.role == Role::Replica;
    vec![
        cell(database),
        cell(&settings.name),
        cell(address(view)),
        cell(view.role.label()),
        cell(view.standing.label()),
        cell(reason(fleet, index, view)),
        maybe(view.lag.filter(|_| is_replica).map(milliseconds)),
        maybe(view.lag_bytes.filter(|_| is_replica)),
        maybe(view.sample.map(|sample| sample.lsn)),
        maybe(view.sample.map(|sample| sample.timeline).filter(|timeline| timeline.0 > 0)),
        cell(view.host.in_flight.load(Ordering::Relaxed)),
        maybe((latency_us > 0).then(|| milliseconds(Duration::from_micros(latency_us)))),
        maybe(view.probe_latency.map(milliseconds)),
        cell(view.host.circuit.label()),
    ]
}

/// `10.0.0.1:5432`, `[::1]:5432`, `/run/postgresql:5432`.
pub(super) fn address(view: &HostView) -> String {
    let settings = &view.host.settings;
    let v6 = settings.address.contains(':') && !settings.address.starts_with('/');
    if v6 { format!("[{}]:{}", settings.address, settings.port) } else { format!("{}:{}", settings.address, settings.port) }
}

/// Why it is used, or why not, in words.
pub(super) fn reason(fleet: &Fleet, index: usize, view: &HostView) -> &'static str {
    match view.standing {
        Standing::Eligible if fleet.primary == Some(index) => "takes writes",
        standing => standing.meaning(),
    }
}
