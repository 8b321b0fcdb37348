//! What /metrics reads of hosts and pools at the moment it is asked.

use super::yard::Yard;
use crate::cluster::{HostView, Role, Standing};
use crate::metrics::{HostReading, PoolReading, catalogue};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// The word for a host's role.
pub fn role_label(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

/// Registers the collector. It holds pgyard weakly: the registry is part of it.
pub fn register(yard: &Arc<Yard>) {
    let weak: Weak<Yard> = Arc::downgrade(yard);
    yard.registry.on_scrape(Box::new(move |scrape| {
        let Some(yard) = weak.upgrade() else { return };
        scrape.gauge(&catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        scrape.gauge(&catalogue::UPTIME, &[], yard.started.elapsed().as_secs_f64());
        for (name, upstream) in yard.directory.upstreams().iter() {
            upstream.cluster.fleet().hosts.iter().for_each(|view| host(name, view).write(scrape));
            let counters = upstream.cluster.counters();
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            scrape.counter(&catalogue::PRIMARY_CHANGES, &[name], count(&counters.primary_changes));
            scrape.counter(&catalogue::HOSTS_FENCED, &[name], count(&counters.fenced));
            scrape.counter(&catalogue::HOSTS_REFUSED, &[name], count(&counters.wrong_system));
        }
        for database in yard.directory.all() {
            let (read, failed) = database.catalogue_readings();
            scrape.counter(&catalogue::CATALOGUE_RELOADS, &[&*database.name, "ok"], read);
            scrape.counter(&catalogue::CATALOGUE_RELOADS, &[&*database.name, "failed"], failed);
            let (statements, bytes, refused) = database.held.figures();
            scrape.gauge(&catalogue::STATEMENTS_HELD, &[&*database.name], statements as f64);
            scrape.gauge(&catalogue::STATEMENTS_HELD_BYTES, &[&*database.name], bytes as f64);
            scrape.counter(&catalogue::STATEMENTS_HELD_REFUSED, &[&*database.name], refused);
            for role in database.roles() {
                for pool in role.pools().iter() {
                    let stats = pool.stats();
                    PoolReading {
                        database: &database.name,
                        host: &pool.key.host,
                        user: &role.role,
                        size_limit: stats.size,
                        active: stats.open - stats.idle - stats.connecting,
                        idle: stats.idle,
                        waiting: stats.waiting,
                        oldest_wait: stats.oldest_wait,
                        timeouts: stats.timeouts,
                        overflows: stats.overflows,
                    }
                    .write(scrape);
                }
            }
        }
    }));
}

fn host<'a>(database: &'a str, view: &'a HostView) -> HostReading<'a> {
    let counters = &view.host.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    HostReading {
        database,
        host: &view.host.settings.name,
        up: view.sample.is_some() && view.standing != Standing::Unreachable,
        role: role_label(view.role),
        eligible: view.standing == Standing::Eligible,
        reason: view.standing.label(),
        lag: view.lag,
        lag_bytes: view.lag_bytes,
        probe_latency: view.probe_latency,
        circuit: view.host.circuit.label(),
        in_flight: view.host.in_flight.load(Ordering::Relaxed),
        probes: count(&counters.probes),
        probe_failures: count(&counters.probe_failures),
        sampler_queries: count(&counters.sampler_queries),
        connects: count(&counters.connects),
        connect_failures: count(&counters.connect_failures),
        strangers: count(&counters.strangers),
    }
}
