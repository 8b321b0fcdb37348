//! Checked settings: every value present, every reference resolved. The rest of pgyard sees only these.
//!
//! Shapes of the TOML file and their defaults live in `file`; nothing here knows of TOML.

use super::access::{AccessRule, UserMap};
use super::clients::ClientSettings;
use super::peers::PeerSettings;
use super::sharding::ShardingSettings;
use crate::types::{Rate, Secret};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Hosts that one database entry may have: the choice among them is made on a set of bits.
pub const HOSTS_MAX: usize = 64;

/// Everything that a running pgyard is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where clients connect. Default `127.0.0.1:6432`. Not reloadable.
    pub listen: Vec<ListenAddress>,
    /// Where /metrics, /readyz and the status page are served. Default `127.0.0.1:9632`; `None` is off. Not reloadable.
    pub http: Option<SocketAddr>,
    /// Relay threads, one run-time each. Default: the number of cores. Not reloadable.
    pub workers: usize,
    /// Whether what a relay thread sends in a turn goes in one system call, where the kernel allows it. Default: yes. Not reloadable.
    pub io_uring: bool,
    /// TLS towards clients; `None` answers SSLRequest with `N`. Certificates are re-read at a reload.
    pub tls: Option<ClientTlsSettings>,
    /// Logging. Level and slow-query threshold are reloadable, the format is not.
    pub log: LogSettings,
    /// Limits at the front door. Reloadable.
    pub front: FrontSettings,
    /// Who may use the console. Reloadable.
    pub admin: AdminSettings,
    /// How long SIGTERM waits for running transactions. Default 30s. Reloadable.
    pub drain_timeout: Duration,
    /// The databases that clients may name; `*` stands for any other. Reloadable.
    pub databases: Vec<Arc<DatabaseSettings>>,
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A directory in which the socket `.s.PGSQL.<port>` is made.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port in the socket's name.
        port: u16,
    },
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsSettings {
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM roots that client certificates must chain to; `None` asks for no client certificate.
    pub client_ca: Option<PathBuf>,
    /// Refuse clients that do not use TLS (except on Unix sockets). Default false.
    pub required: bool,
    /// With `client_ca`: whether clients may come without a certificate, for the access list to decide. Default false.
    pub client_cert_optional: bool,
    /// What the files held when the settings were read, so that changed files are a change.
    pub content: u64,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A tracing filter: `info`, `debug`, `pgyard::session=debug`. Default `info`.
    pub filter: String,
    /// Text or JSON lines. Default text.
    pub format: LogFormat,
    /// Statements that take at least this long are logged with route and host. Default: off.
    pub min_duration: Option<Duration>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Limits at the front door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontSettings {
    /// Clients at once. Default 10000.
    pub max_clients: usize,
    /// Clients from one address at once; 0 is no limit. Default 0.
    pub max_clients_per_address: usize,
    /// Connections that have not logged in yet, at once. Default 1000.
    pub max_logging_in: usize,
    /// Time from accept to the end of log-in. Default 15s.
    pub login_timeout: Duration,
    /// Largest message after log-in that must be held whole (Parse, Bind, Query). Default 1GiB, PostgreSQL's own limit. Bytes.
    pub max_message: usize,
    /// TCP keep-alive idle time of client and server connections. Default 60s.
    pub tcp_keepalive: Duration,
    /// Log-ins that may fail in `failed_login_window` from one address; 0 is no limit. Default 100.
    pub failed_logins_per_address: usize,
    /// Log-ins that may fail in `failed_login_window` for one user; 0 is no limit. Default 100.
    pub failed_logins_per_user: usize,
    /// Default 1min.
    pub failed_login_window: Duration,
    /// Log-ins from one address, failed or not. Default: no limit.
    pub login_rate_per_address: Option<Rate>,
    /// Log-ins of one user that succeed. Default: no limit.
    pub login_rate_per_user: Option<Rate>,
    /// Who may come in from where; empty is anybody. The first rule that matches decides, and none is a refusal.
    pub access: Vec<AccessRule>,
    /// User-name maps that rules name.
    pub user_maps: Vec<UserMap>,
    /// The other pgyard processes behind the same address.
    pub peers: PeerSettings,
    /// Relay threads that are used even when fewer could carry the load. Default 1.
    pub workers_min: usize,
}

/// Who may use the console (the database `pgyard`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Console users with their secrets. Empty: only Unix sockets and loopback addresses, as `pgyard`, without a password.
    pub users: Vec<AdminUser>,
}

/// A console user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUser {
    /// The name to log in with.
    pub name: String,
    /// A password, a SCRAM verifier or an MD5 hash.
    pub secret: Secret,
}

/// One database that clients may name, with the hosts that serve it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseSettings {
    /// The name clients use; `*` is any name not listed.
    pub name: String,
    /// The name on the servers; `None` is the client's.
    pub server_name: Option<String>,
    /// The hosts; at least one.
    pub hosts: Vec<HostSettings>,
    /// How clients prove who they are.
    pub auth: AuthSettings,
    /// Users with settings of their own.
    pub users: Vec<UserSettings>,
    /// How many clients, and how many statements of theirs.
    pub clients: ClientSettings,
    /// Server connections.
    pub pool: PoolSettings,
    /// Where statements go.
    pub routing: RoutingSettings,
    /// Probes, lag and circuit.
    pub health: HealthSettings,
    /// Its shards, and where its tables are; such a database has no hosts of its own.
    pub sharding: Option<Arc<ShardingSettings>>,
}

impl DatabaseSettings {
    /// Its hosts, or those of its shards.
    pub fn all_hosts(&self) -> impl Iterator<Item = &HostSettings> {
        let shards = self.sharding.iter().flat_map(|sharding| sharding.shards.iter().chain(&sharding.coordinator));
        self.hosts.iter().chain(shards.flat_map(|shard| &shard.hosts))
    }
}

/// One PostgreSQL instance.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSettings {
    /// Its name in logs, metrics and the console. Default: `host:port`. Unique in its database.
    pub name: String,
    /// A DNS name, an IP address or the directory of a Unix socket (starts with `/`).
    pub address: String,
    /// The port. Default 5432.
    pub port: u16,
    /// What it is, or `Auto` (default): what its probe says. A fixed role is only checked against the probe.
    pub role: RoleSetting,
    /// Share of reads under `weighted` balancing. Default 1.
    pub weight: u32,
    /// TLS towards this host.
    pub tls: ServerTlsSettings,
    /// The role that probes, looks up verifiers and reads the catalogue.
    pub control: ControlCredentials,
}

/// The control plane's own log-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlCredentials {
    /// Role name.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Secret>,
    /// The database that probes connect to.
    pub database: String,
}

/// A host's role as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleSetting {
    /// What the probe finds.
    Auto,
    /// Never used for reads as a replica; a warning while its probe says it is in recovery.
    Primary,
    /// Never written to, even if promoted.
    Replica,
}

/// TLS towards a server, after libpq's `sslmode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// libpq's `sslmode`. Default `prefer`.
    pub mode: ServerTlsMode,
    /// PEM roots for verify-ca and verify-full; `None` is the system's.
    pub ca: Option<PathBuf>,
    /// PEM client certificate and key to show to the server.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What the files held when the settings were read, so that changed files are a change.
    pub content: u64,
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// Never.
    Disable,
    /// If the server does not let in without.
    Allow,
    /// If the server offers it.
    Prefer,
    /// Always, without looking at the certificate.
    Require,
    /// Always, with a trusted chain.
    VerifyCa,
    /// Always, with a trusted chain and the host's name.
    VerifyFull,
}

/// How clients of one database prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// What is asked of clients. Default `Auto`.
    pub method: AuthMethod,
    /// The query that looks up a role not listed under `users`, `$1` = role name, `$2` = database; its columns are those of
    /// the default query: name, verifier, may log in, expired, may connect. `None` turns look-up off.
    pub lookup_query: Option<String>,
    /// How long a looked-up verifier is trusted before it is asked for again. Default 10s.
    pub lookup_cache: Duration,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256 or MD5, as the stored secret allows.
    Auto,
    /// SCRAM-SHA-256 only.
    Scram,
    /// MD5 only; for old drivers.
    Md5,
    /// The password in clear, over TLS only.
    Plain,
    /// Nothing. A warning says so at start.
    Trust,
}

/// A user with settings of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserSettings {
    /// The role's name.
    pub name: String,
    /// Password, SCRAM verifier or MD5 hash that clients prove; `None`: looked up.
    pub secret: Option<Secret>,
    /// The password for servers, where it differs from `secret` or `secret` is only a verifier.
    pub server_password: Option<Secret>,
    /// Overrides the database's pool size.
    pub pool_size: Option<usize>,
    /// Overrides the database's pool mode.
    pub pool_mode: Option<PoolMode>,
    /// Overrides the database's consistency.
    pub consistency: Option<Consistency>,
    /// Overrides the database's longest queue.
    pub max_waiting: Option<usize>,
    /// Overrides the database's longest wait.
    pub checkout_timeout: Option<Duration>,
    /// Overrides the database's clients per user; 0 is no limit.
    pub max_clients: Option<usize>,
    /// Overrides the database's statements per user; the inner `None` is no limit.
    pub statement_rate: Option<Option<Rate>>,
}

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

/// Server connections of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// Default `Transaction`.
    pub mode: PoolMode,
    /// Server connections per (host, database, role). Default 20.
    pub size: usize,
    /// Kept open even if idle. Default 0.
    pub min_idle: usize,
    /// Server connections per host, all pools together. Default 100.
    pub max_per_host: usize,
    /// Longest wait for a server connection, then 53300. Default 5s.
    pub checkout_timeout: Duration,
    /// Sessions waiting for a server connection, per pool. Default 10000.
    pub max_waiting: usize,
    /// Time to open and log in a server connection. Default 5s.
    pub connect_timeout: Duration,
    /// An idle server connection is closed after this. Default 10min; zero is never.
    pub idle_timeout: Duration,
    /// A server connection is closed at its next return after this. Default 1h; zero is never.
    pub max_age: Duration,
    /// Under session pooling each session gets a server connection of its own, which is closed with it. Default false.
    pub fresh_connections: bool,
    /// Named prepared statements kept per server connection. Default 500.
    pub max_prepared: usize,
    /// A transaction that waits for its client longer than this is rolled back. Zero (default) is never.
    pub idle_transaction_timeout: Duration,
    /// A statement that runs longer than this is cancelled. Zero (default) is never.
    pub query_timeout: Duration,
}

/// Where statements go.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingSettings {
    /// How a replica is chosen. Default `RoundRobin`.
    pub balance: Balance,
    /// Whether the primary serves reads. Default `Fallback`.
    pub reads_on_primary: ReadsOnPrimary,
    /// What a read may miss. Default `Session`.
    pub consistency: Consistency,
    /// Requests up to this are kept to be sent again. Default 64KiB. Bytes.
    pub retry_buffer: usize,
    /// Unnamed statements kept prepared on the servers. Default `Off`.
    pub reuse_unnamed: ReuseUnnamed,
    /// How long a write waits for a primary. Default 15s.
    pub failover_wait: Duration,
    /// Statements that wait for a host at once. Default 10000.
    pub max_held: usize,
    /// Bytes of the requests that wait for a host, together. Default 64MiB.
    pub max_held_bytes: usize,
    /// False sends everything to the primary. Default true.
    pub split: bool,
}

/// How one of several eligible replicas is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The fewest statements in flight.
    LeastConnections,
    /// In turn, in proportion to `weight`.
    Weighted,
    /// By chance.
    Random,
    /// By the client's address.
    IpHash,
    /// The better of two by peak-EWMA latency.
    PeakEwma,
}

/// Whether the primary serves reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadsOnPrimary {
    /// When no replica is eligible.
    Fallback,
    /// As one of the hosts in rotation.
    Always,
    /// Never; reads wait for a replica.
    Never,
}

/// What a read on a replica may miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Anything within `max_lag`.
    Eventual,
    /// Never the session's own writes.
    Session,
    /// Never the session's own writes, nor what it has already read.
    Monotonic,
    /// Never a write that this process has acknowledged.
    Global,
}

/// Whether unnamed statements are kept prepared on servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReuseUnnamed {
    /// No.
    Off,
    /// Yes; PostgreSQL may choose a generic plan.
    On,
    /// Yes, with `plan_cache_mode = force_custom_plan`.
    CustomPlans,
}

/// Probes, lag and circuit of one database's hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    /// Default 100ms.
    pub probe_interval: Duration,
    /// Default 1s.
    pub probe_timeout: Duration,
    /// Default 1s; `None` is no limit.
    pub max_lag: Option<Duration>,
    /// Default: no limit. Bytes.
    pub max_lag_bytes: Option<u64>,
    /// At most one sampler query in this time. Default 10ms.
    pub sampler_interval: Duration,
    /// First wait of an open circuit. Default 100ms.
    pub backoff_min: Duration,
    /// Longest wait of an open circuit. Default 2s.
    pub backoff_max: Duration,
    /// Names of hosts are looked up again after this. Default 10s; zero is never.
    pub dns_interval: Duration,
    /// The catalogue is read again after this. Default 60s.
    pub catalogue_interval: Duration,
}
