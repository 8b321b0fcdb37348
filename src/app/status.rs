//! What the HTTP listener shows: readiness, components, the status page.

use super::scrape::role_label;
use super::yard::{Ending, Yard};
use crate::cluster::{Fleet, HostView, Standing};
use crate::database::Database;
use crate::http::{
    ClientCounts, ComponentHealth, DatabaseStatus, DurationQuantiles, HealthSource, HostStatus, PoolStatus, Readiness,
    RouteStatus, StatusReport,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// pgyard as the HTTP listener sees it.
pub struct YardHealth(pub Arc<Yard>);

impl HealthSource for YardHealth {
    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if *self.0.ending.borrow() != Ending::No {
            reasons.push("pgyard is draining".to_owned());
        }
        let upstreams = self.0.directory.upstreams();
        let mut names: Vec<&String> = upstreams.keys().collect();
        names.sort();
        for name in names {
            let fleet = upstreams[name].cluster.fleet();
            if fleet.primary.is_none() && fleet.eligible.is_empty() {
                let hosts: Vec<String> = fleet.hosts.iter().map(describe).collect();
                reasons.push(format!("database {name}: neither a primary nor an eligible replica ({})", hosts.join(", ")));
            }
        }
        if reasons.is_empty() { Readiness::Ready } else { Readiness::NotReady { reasons } }
    }

    fn started(&self) -> bool {
        let probed =
            |fleet: &Fleet| !fleet.hosts.is_empty() && fleet.hosts.iter().all(|view| view.standing != Standing::NotProbed);
        self.0.directory.upstreams().values().all(|upstream| probed(&upstream.cluster.fleet()))
    }

    fn components(&self) -> Vec<ComponentHealth> {
        let mut components = Vec::new();
        for (name, upstream) in self.0.directory.upstreams().iter() {
            for view in &upstream.cluster.fleet().hosts {
                components.push(ComponentHealth {
                    name: format!("{name}/{}", view.host.settings.name),
                    healthy: view.standing == Standing::Eligible,
                    latency: view.probe_latency,
                    detail: format!("{}, {}", role_label(view.role), view.standing.label()),
                });
            }
        }
        components.sort_by(|a, b| a.name.cmp(&b.name));
        components
    }

    fn status(&self) -> StatusReport {
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.0.started.elapsed(),
            databases: self.0.directory.all().iter().map(|database| status(database)).collect(),
        }
    }
}

fn describe(view: &HostView) -> String {
    format!("{}: {}", view.host.settings.name, view.standing.label())
}

fn status(database: &Database) -> DatabaseStatus {
    let metrics = &database.metrics;
    let durations = metrics.all_query_durations();
    let routes = metrics.queries_by_reason().into_iter().map(|(route, reason, count)| RouteStatus {
        route: route.label().to_owned(),
        reason: reason.label().to_owned(),
        meaning: reason.meaning().to_owned(),
        count,
    });
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    DatabaseStatus {
        name: database.name.to_string(),
        max_lag: database.settings().health.max_lag,
        hosts: database.upstream().cluster.fleet().hosts.iter().map(host).collect(),
        pools: pools(database),
        clients: ClientCounts {
            connected: positive(metrics.clients.get()),
            waiting: positive(metrics.clients_waiting.get()),
            pinned: crate::metrics::PinCause::ALL.into_iter().map(|cause| positive(metrics.pinned(cause).get())).sum(),
        },
        routes: routes.collect(),
        durations: DurationQuantiles { p50: durations.quantile(0.5), p99: durations.quantile(0.99) },
    }
}

fn host(view: &HostView) -> HostStatus {
    let settings = &view.host.settings;
    HostStatus {
        name: settings.name.clone(),
        address: format!("{}:{}", settings.address, settings.port),
        role: role_label(view.role).to_owned(),
        eligible: view.standing == Standing::Eligible,
        standing: view.standing.label().to_owned(),
        lag: view.lag,
        lag_bytes: view.lag_bytes,
        lsn: view.sample.map(|sample| sample.lsn.to_string()),
        in_flight: view.host.in_flight.load(Ordering::Relaxed),
        circuit: view.host.circuit.label().to_owned(),
        probe_latency: view.probe_latency,
    }
}

fn pools(database: &Database) -> Vec<PoolStatus> {
    let roles = database.roles();
    let pools = roles.iter().flat_map(|role| role.pools().iter().cloned().collect::<Vec<_>>());
    let status = pools.map(|pool| {
        let stats = pool.stats();
        PoolStatus {
            host: pool.key.host.to_string(),
            user: pool.key.role.to_string(),
            size_limit: stats.size,
            active: stats.open - stats.idle - stats.connecting,
            idle: stats.idle,
            waiting: stats.waiting,
            oldest_wait: stats.oldest_wait,
        }
    });
    status.collect()
}
