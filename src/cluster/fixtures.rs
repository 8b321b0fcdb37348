//! Settings and snapshots for tests of this layer and those above.

use super::snapshot::{Era, Fleet, Host, HostView, Role, Sample, ServerDefaults, Standing, WalReceiver};
use crate::config::{
    AuthMethod, AuthSettings, Balance, Consistency, ControlCredentials, DatabaseSettings, HealthSettings, HostSettings, PoolMode,
    PoolSettings, ReadsOnPrimary, ReuseUnnamed, RoleSetting, RoutingSettings, ServerTlsMode, ServerTlsSettings,
};
use crate::types::{Lsn, SystemId, Timeline};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A host called `name`, at the address `name`.
pub fn host_settings(name: &str) -> HostSettings {
    HostSettings {
        name: name.to_owned(),
        address: name.to_owned(),
        port: 5432,
        role: RoleSetting::Auto,
        weight: 1,
        tls: ServerTlsSettings { mode: ServerTlsMode::Disable, ca: None, certificate: None, content: 0 },
        control: ControlCredentials { user: "yard".to_owned(), password: None, database: "postgres".to_owned() },
    }
}

/// A database over these hosts, with the defaults.
pub fn database(hosts: Vec<HostSettings>) -> DatabaseSettings {
    let second = Duration::from_secs(1);
    DatabaseSettings {
        sharding: None,
        name: "app".to_owned(),
        server_name: None,
        hosts,
        auth: AuthSettings { method: AuthMethod::Auto, lookup_query: None, lookup_cache: second * 10 },
        users: Vec::new(),
        clients: Default::default(),
        pool: PoolSettings {
            fresh_connections: false,
            mode: PoolMode::Transaction,
            size: 20,
            min_idle: 0,
            max_per_host: 100,
            checkout_timeout: second * 5,
            max_waiting: 10_000,
            connect_timeout: second * 5,
            idle_timeout: second * 600,
            max_age: second * 3600,
            max_prepared: 500,
            idle_transaction_timeout: Duration::ZERO,
            query_timeout: Duration::ZERO,
        },
        routing: RoutingSettings {
            balance: Balance::RoundRobin,
            reads_on_primary: ReadsOnPrimary::Fallback,
            consistency: Consistency::Session,
            retry_buffer: 64 << 10,
            reuse_unnamed: ReuseUnnamed::Off,
            failover_wait: second * 15,
            max_held: 10_000,
            max_held_bytes: 64 << 20,
            split: true,
        },
        health: health(),
    }
}

/// The defaults.
pub fn health() -> HealthSettings {
    HealthSettings {
        probe_interval: Duration::from_millis(100),
        probe_timeout: Duration::from_secs(1),
        max_lag: Some(Duration::from_secs(1)),
        max_lag_bytes: None,
        sampler_interval: Duration::from_millis(10),
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(2),
        dns_interval: Duration::ZERO,
        catalogue_interval: Duration::from_secs(60),
    }
}

/// What a host of system 7 on timeline 1 says.
pub fn sample(in_recovery: bool, lsn: u64) -> Sample {
    Sample {
        asked: Instant::now(),
        in_recovery,
        system: SystemId(7),
        timeline: Timeline(1),
        receiver: if in_recovery { WalReceiver::Streaming(Timeline(1)) } else { WalReceiver::None },
        lsn: Lsn(lsn),
        started_us: 1,
        defaults: ServerDefaults::default(),
    }
}

/// A primary (index 0, at LSN 1000 of timeline 1, system 7) with a replica for each given replay LSN, all in rotation.
pub fn fleet(replayed: &[u64]) -> Fleet {
    let view = |id: u32, role: Role, sample: Sample| HostView {
        host: Arc::new(Host::new(id, host_settings(&format!("host{id}")))),
        role,
        standing: Standing::Eligible,
        sample: Some(sample),
        lag_bytes: Some(0),
        lag: Some(Duration::ZERO),
        probe_latency: None,
    };
    let mut hosts = vec![view(0, Role::Primary, sample(false, 1000))];
    hosts.extend((1..).zip(replayed).map(|(id, lsn)| view(id, Role::Replica, sample(true, *lsn))));
    let era = Some(Era { system: SystemId(7), timeline: Timeline(1), first_lsn: Lsn(1) });
    Fleet { generation: 1, eligible: (1..hosts.len()).collect(), hosts: hosts.into(), primary: Some(0), era }
}
