//! Follows the hosts: when one was restarted or went away, its idle connections are dead and are closed before anybody uses
//! them. Sessions that wait for a host which does not answer are sent to others.

use super::yard::Yard;
use crate::cluster::{Host, ServerDefaults, Standing};
use crate::database::{RolePools, Upstream};
use crate::pool::Pool;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pools are looked after this often.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// A host must have been silent for this long before sessions are sent away from it: its probe's connection alone may have ended.
const SILENCE_MIN: Duration = Duration::from_millis(30);
/// Sessions that chose the host just before it fell silent are found within this.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Longest wait for news of one cluster before the list of clusters is looked at again.
const NEWS_WAIT: Duration = Duration::from_millis(250);

/// Looks after all pools until pgyard ends.
pub async fn maintain(yard: Arc<Yard>) {
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    loop {
        ticks.tick().await;
        yard.directory.forget_missing();
        yard.directory.all().iter().for_each(|database| database.maintain());
    }
}

/// What was known of a host when it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostSight {
    started_us: Option<i64>,
    reachable: bool,
    defaults: Option<ServerDefaults>,
}

/// Follows the hosts of one upstream until its cluster stops.
pub async fn follow(yard: Arc<Yard>, upstream: Arc<Upstream>) {
    let mut seen: HashMap<u32, HostSight> = HashMap::new();
    let mut silent: HashMap<u32, Instant> = HashMap::new();
    let mut generation = 0;
    while let Some(newer) = upstream.cluster.wait_for_change(generation).await {
        generation = newer;
        let fleet = upstream.cluster.fleet().clone();
        for view in &fleet.hosts {
            let before = seen.get(&view.host.id).copied();
            let started_us = view.sample.map(|sample| sample.started_us).or(before.and_then(|sight| sight.started_us));
            let defaults = view.sample.map(|sample| sample.defaults).or(before.and_then(|sight| sight.defaults));
            let now = HostSight { started_us, reachable: view.standing != Standing::Unreachable, defaults };
            seen.insert(view.host.id, now);
            if view.standing.is_silent() {
                let since = *silent.entry(view.host.id).or_insert_with(Instant::now);
                if (SILENCE_MIN..SILENCE_MAX).contains(&since.elapsed()) {
                    send_away(&yard, &upstream, &view.host);
                }
            } else {
                silent.remove(&view.host.id);
            }
            let Some(before) = before else { continue };
            let restarted = before.started_us.is_some() && before.started_us != now.started_us;
            if restarted || (before.reachable && !now.reachable) {
                tracing::info!(host = view.host.settings.name, restarted, "closing idle connections to a host");
                for_pools(&yard, &upstream, view.host.id, Pool::renew);
            }
            if before.defaults.is_some() && before.defaults != now.defaults {
                note_defaults(&yard, &upstream, &view.host, (before.defaults, now.defaults));
            }
        }
        seen.retain(|id, _| fleet.index_of(*id).is_some());
        silent.retain(|id, _| fleet.index_of(*id).is_some());
    }
}

/// New sessions of a host begin otherwise. What its files say its present sessions follow by themselves; what is said for roles
/// and databases only new ones do.
fn note_defaults(
    yard: &Yard,
    upstream: &Arc<Upstream>,
    host: &Host,
    (before, now): (Option<ServerDefaults>, Option<ServerDefaults>),
) {
    let of_roles = |defaults: Option<ServerDefaults>| defaults.map(|defaults| defaults.of_roles);
    let renews = of_roles(before) != of_roles(now);
    tracing::info!(host = host.settings.name, renews, "what new sessions of a host begin with has changed");
    for role in roles(yard, upstream) {
        match renews {
            true => role.defaults_changed(|id| id == host.id),
            false => role.forget_welcomes(),
        }
    }
}

/// A host does not answer: who waits for one of its connections looks elsewhere, and so do reads that it works on.
fn send_away(yard: &Yard, upstream: &Arc<Upstream>, host: &Host) {
    for_pools(yard, upstream, host.id, |pool| pool.turn_away());
    yard.clients.tell_host_is_silent(&host.settings.address, host.settings.port);
}

pub(super) fn for_pools(yard: &Yard, upstream: &Arc<Upstream>, host_id: u32, act: impl Fn(&Arc<Pool>)) {
    for role in roles(yard, upstream) {
        role.pools().iter().filter(|pool| pool.key.host_id == host_id).for_each(&act);
    }
}

/// The roles of all databases on these hosts.
fn roles(yard: &Yard, upstream: &Arc<Upstream>) -> Vec<Arc<RolePools>> {
    let databases = yard.directory.all();
    databases.iter().filter(|database| Arc::ptr_eq(database.upstream(), upstream)).flat_map(|database| database.roles()).collect()
}

/// Starts to follow every upstream, also those that a reload brings.
pub async fn follow_all(yard: Arc<Yard>) {
    let mut followed: Vec<Arc<Upstream>> = Vec::new();
    loop {
        let upstreams = yard.directory.upstreams();
        followed.retain(|upstream| upstreams.values().any(|known| Arc::ptr_eq(known, upstream)));
        for upstream in upstreams.values() {
            if !followed.iter().any(|known| Arc::ptr_eq(known, upstream)) {
                followed.push(upstream.clone());
                tokio::spawn(follow(yard.clone(), upstream.clone()));
                tokio::spawn(super::names::follow_names(yard.clone(), Arc::downgrade(upstream)));
            }
        }
        tokio::time::sleep(NEWS_WAIT).await;
    }
}
