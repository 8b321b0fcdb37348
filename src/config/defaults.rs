//! The defaults: the one place in the code where they are written. The tables of `docs/configuration.md` are made from these values.

use super::peers::PeerSettings;
use super::settings::{
    AdminSettings, AuthMethod, AuthSettings, Balance, Consistency, FrontSettings, HealthSettings, ListenAddress, LogFormat,
    LogSettings, PoolMode, PoolSettings, ReadsOnPrimary, ReuseUnnamed, RoutingSettings, ServerTlsMode, ServerTlsSettings,
    Settings,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port that is listened on, and that names a Unix socket, unless another is given.
pub const DEFAULT_LISTEN_PORT: u16 = 6432;

/// The port of a PostgreSQL host unless another is given.
pub const DEFAULT_SERVER_PORT: u16 = 5432;

/// Looks up role `$1` that logs in to database `$2`. Columns: its name, its verifier (null if it has no password), whether it may log in,
/// whether its password has expired, whether it may connect to the database.
///
/// It reads `pg_authid`, so it needs a superuser; `docs/configuration.md` has a function for other roles. A database that does not
/// exist counts as one that may be connected to: the server's own error says it better.
pub const DEFAULT_LOOKUP_QUERY: &str = "\
SELECT r.rolname, r.rolpassword, r.rolcanlogin, coalesce(r.rolvaliduntil < now(), false), \
coalesce((SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') FROM pg_catalog.pg_database d WHERE d.datname = $2), true) \
FROM pg_catalog.pg_authid r WHERE r.rolname = $1";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: vec![ListenAddress::Tcp(loopback(DEFAULT_LISTEN_PORT))],
            http: Some(loopback(9632)),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            io_uring: true,
            tls: None,
            log: LogSettings::default(),
            front: FrontSettings::default(),
            admin: AdminSettings { users: Vec::new() },
            drain_timeout: Duration::from_secs(30),
            databases: Vec::new(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { filter: "info".to_owned(), format: LogFormat::Text, min_duration: None }
    }
}

impl Default for FrontSettings {
    fn default() -> Self {
        FrontSettings {
            max_clients: 10_000,
            max_clients_per_address: 0,
            max_logging_in: 1000,
            login_timeout: Duration::from_secs(15),
            max_message: 1 << 30,
            tcp_keepalive: Duration::from_secs(60),
            failed_logins_per_address: 100,
            failed_logins_per_user: 100,
            failed_login_window: Duration::from_secs(60),
            login_rate_per_address: None,
            login_rate_per_user: None,
            access: Vec::new(),
            user_maps: Vec::new(),
            peers: PeerSettings::default(),
            workers_min: 1,
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        AuthSettings {
            method: AuthMethod::Auto,
            lookup_query: Some(DEFAULT_LOOKUP_QUERY.to_owned()),
            lookup_cache: Duration::from_secs(10),
        }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        PoolSettings {
            mode: PoolMode::Transaction,
            size: 20,
            min_idle: 0,
            max_per_host: 100,
            checkout_timeout: Duration::from_secs(5),
            max_waiting: 10_000,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_age: Duration::from_secs(3600),
            fresh_connections: false,
            max_prepared: 500,
            idle_transaction_timeout: Duration::ZERO,
            query_timeout: Duration::ZERO,
        }
    }
}

impl Default for RoutingSettings {
    fn default() -> Self {
        RoutingSettings {
            balance: Balance::RoundRobin,
            reads_on_primary: ReadsOnPrimary::Fallback,
            consistency: Consistency::Session,
            retry_buffer: 64 << 10,
            reuse_unnamed: ReuseUnnamed::Off,
            failover_wait: Duration::from_secs(15),
            max_held: 10_000,
            max_held_bytes: 64 << 20,
            split: true,
        }
    }
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings {
            probe_interval: Duration::from_millis(100),
            probe_timeout: Duration::from_secs(1),
            max_lag: Some(Duration::from_secs(1)),
            max_lag_bytes: None,
            sampler_interval: Duration::from_millis(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            dns_interval: Duration::from_secs(10),
            catalogue_interval: Duration::from_secs(60),
        }
    }
}

impl Default for ServerTlsSettings {
    fn default() -> Self {
        ServerTlsSettings { mode: ServerTlsMode::Prefer, ca: None, certificate: None, content: 0 }
    }
}
