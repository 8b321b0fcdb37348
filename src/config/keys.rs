//! The table of keys: for each, how it is read, how it is printed, whether a reload applies it, and what it means.
//!
//! Reading the file, `SHOW CONFIG`, the list of changes at a reload and the tables of `docs/configuration.md` all walk these tables, so
//! that a setting cannot be in one and missing in another.

use super::access::{AccessMethod, AccessRule, CertName, ClientCertRule, ConnectionKind};
use super::codec::{Bytes, BytesOrOff, Choice, Codec, Complaint, Count, Flag, Inherited, RawValue, Span, SpanOrNever, SpanOrOff};
use super::listen::{AddressRanges, HttpAddress, ListenAddresses, LogFilter, LookupQuery, MapName, NamePatterns, Workers};
use super::rate::RateOrOff;
use super::settings::{DatabaseSettings, Settings, UserSettings};
use super::sharding::ShardingSettings;

/// One key that settings of type `S` are read from.
pub(super) struct Key<S: 'static> {
    /// Its name in its section.
    pub(super) name: &'static str,
    /// Its type in the words of the documentation.
    pub(super) kind: fn() -> String,
    /// Whether a reload applies it.
    pub(super) reload: bool,
    /// What it means, for the documentation.
    pub(super) meaning: &'static str,
    /// The default in words, where the value says too little or depends on the machine.
    pub(super) default_words: Option<&'static str>,
    /// Reads a value into the settings.
    pub(super) read: fn(&mut S, &RawValue) -> Result<(), Complaint>,
    /// Prints the value.
    pub(super) show: fn(&S) -> String,
}

macro_rules! key {
    (@reload reload) => { true };
    (@reload restart) => { false };
    (@words) => { None };
    (@words $words:literal) => { Some($words) };
    ($reload:ident $name:literal: $codec:ty = $($field:ident).+, $meaning:literal $(, default $words:literal)?) => {
        Key {
            name: $name,
            kind: <$codec>::kind,
            reload: key!(@reload $reload),
            meaning: $meaning,
            default_words: key!(@words $($words)?),
            read: |settings, raw| {
                settings.$($field).+ = <$codec>::read(raw)?;
                Ok(())
            },
            show: |settings| <$codec>::show(&settings.$($field).+),
        }
    };
}

/// Keys at the top of the file.
pub(super) const TOP: &[Key<Settings>] = &[
    key!(restart "listen": ListenAddresses = listen,
        "Where clients connect: `\"ip:port\"`, `\"unix:/directory\"` (the socket is `.s.PGSQL.6432` in it), or a list of these."),
    key!(restart "http": HttpAddress = http, "Where `/metrics`, `/readyz` and the status page are served; `false` is nowhere."),
    key!(restart "workers": Workers = workers, "Threads that relay.", default "number of cores"),
    key!(restart "io_uring": Flag = io_uring,
        "What a thread sends at once goes by one system call, where the kernel has io_uring and allows it; `false` never uses it."),
    key!(reload "workers_min": Count<1, 1024> = front.workers_min,
        "Threads that are used even when fewer could carry the load. More spread a light load wider, at more CPU for each statement."),
    key!(reload "drain_timeout": Span<0> = drain_timeout,
        "How long SIGTERM waits for running transactions; what still runs then is closed."),
];

/// Keys of `[log]`.
pub(super) const LOG: &[Key<Settings>] = &[
    key!(reload "level": LogFilter = log.filter,
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter by module such as `\"info,pgyard::session=debug\"`."),
    key!(restart "format": Choice<super::LogFormat> = log.format, "Lines for people or JSON for collectors."),
    key!(reload "min_duration": SpanOrOff<0> = log.min_duration,
        "Statements that take at least this long are logged with their route and host."),
];

/// Keys of `[limits]`.
pub(super) const LIMITS: &[Key<Settings>] = &[
    key!(reload "max_clients": Count<1, 10_000_000> = front.max_clients, "Clients at once."),
    key!(reload "max_clients_per_address": Count<0, 10_000_000> = front.max_clients_per_address,
        "Clients from one address at once; 0 is no limit."),
    key!(reload "max_logging_in": Count<1, 1_000_000> = front.max_logging_in,
        "Connections at once that have not logged in yet."),
    key!(reload "login_timeout": Span<10> = front.login_timeout, "Time from the connection to the end of the log-in."),
    key!(reload "max_message": Bytes<65_536, 1_073_741_824> = front.max_message,
        "Largest message that has to be held whole (a statement, its parameters). PostgreSQL's own limit is the default."),
    key!(reload "tcp_keepalive": Span<1000> = front.tcp_keepalive,
        "Idle time before TCP keep-alives, towards clients and servers."),
    key!(reload "failed_logins_per_address": Count<0, 1_000_000> = front.failed_logins_per_address,
        "Log-ins that may fail within `failed_login_window` from one address; then it is refused for a while. 0 is no limit."),
    key!(reload "failed_logins_per_user": Count<0, 1_000_000> = front.failed_logins_per_user,
        "Log-ins that may fail within `failed_login_window` for one user, from all addresses; 0 is no limit."),
    key!(reload "failed_login_window": Span<1000> = front.failed_login_window,
        "The time for the two limits above: failures are forgiven evenly over it."),
    key!(reload "login_rate_per_address": RateOrOff = front.login_rate_per_address,
        "Log-ins from one address, failed or not, such as `\"10/s\"` or `\"10/s burst 100\"`; one beyond it gets SQLSTATE 53400. The console's are not counted."),
    key!(reload "login_rate_per_user": RateOrOff = front.login_rate_per_user,
        "Log-ins of one user, from all addresses. Only those with the right password are counted, so that nobody can use up another's."),
];

/// Keys of `[[access]]`.
pub(super) const ACCESS: &[Key<AccessRule>] = &[
    key!(reload "connection": Choice<ConnectionKind> = connection, "Which connections the rule is for; `plain` is TCP without TLS."),
    key!(reload "addresses": AddressRanges = addresses, "The clients' addresses; clients on Unix sockets have none.", default "all"),
    key!(reload "databases": NamePatterns = databases,
        "Names of databases, `*` for any text. `replication` is physical replication, which no other name covers; `pgyard` the console.", default "all"),
    key!(reload "users": NamePatterns = users, "Names of roles, `*` for any text.", default "all"),
    key!(reload "method": Choice<AccessMethod> = method,
        "What the client must prove: as `auth` in `[defaults]` (`auto`: the database's `auth`); `cert`: a certificate with the role's name; \
         `peer`: its process runs as the user of that name; `reject`: refused."),
    key!(reload "client_cert": Choice<ClientCertRule> = client_cert,
        "A certificate besides the method: `verify-ca`: one that `client_ca` issued; `verify-full`: it has the role's name."),
    key!(reload "cert_name": Choice<CertName> = cert_name,
        "Where the certificate's name is: common name, whole subject (`CN=alice,O=ops`), or a DNS name, e-mail address or URI of subjectAltName."),
    key!(reload "map": MapName = map, "The `[user_maps.NAME]` that says which roles a certificate's or a process's name may take."),
];

/// Keys of `[peers]`.
pub(super) const PEERS: &[Key<Settings>] = &[
    key!(reload "id": Count<1, 255> = front.peers.id, "This process's number, which no other process behind the same address has.",
        default "required"),
];

/// Keys of `[peers]` besides `PEERS`.
pub(super) const PEER_LIST: &[PlainKey] = &[plain(
    "addresses",
    "table",
    "none",
    "Where each process listens, by its number: `2 = \"10.0.0.2:6432\"`. Its own may stand there too.",
)];

/// Keys of `[defaults]` and of each `[databases.NAME]`.
pub(super) const DATABASE: &[Key<DatabaseSettings>] = &[
    key!(reload "auth": Choice<super::AuthMethod> = auth.method,
        "What clients must prove. `auto`: SCRAM-SHA-256 or MD5, as the stored secret allows; `plain`: the password, over TLS only; `trust`: nothing."),
    key!(reload "lookup_query": LookupQuery = auth.lookup_query,
        "Looks up roles that are not under `users`; `false` turns it off.", default "see [Look-up](#look-up-of-roles)"),
    key!(reload "lookup_cache": Span<0> = auth.lookup_cache, "How long a looked-up password verifier is used before it is asked for again."),
    key!(reload "max_clients": Count<0, 10_000_000> = clients.max_clients,
        "Clients of the database at once, then a client gets SQLSTATE 53300; 0 is no limit but that of `[limits]`."),
    key!(reload "max_clients_per_user": Count<0, 10_000_000> = clients.max_clients_per_user,
        "Clients of one role in the database at once, then SQLSTATE 53300; 0 is no limit."),
    key!(reload "statement_rate_per_user": RateOrOff = clients.statement_rate_per_user,
        "Statements of one role in the database, such as `\"100/s\"` or `\"100/s burst 500\"`. One beyond it gets SQLSTATE 53400; in a transaction it waits instead."),
    key!(reload "statement_rate_per_address": RateOrOff = clients.statement_rate_per_address,
        "The same from one address (of IPv6 a /64 network), all roles together."),
    key!(reload "pool_mode": Choice<super::PoolMode> = pool.mode,
        "When a server connection goes back to its pool: at the end of each transaction, or when the client leaves."),
    key!(reload "fresh_connections": Flag = pool.fresh_connections,
        "With `pool_mode = \"session\"`: each session gets a new server connection, which is closed with it, so that nothing of an earlier session can be noticed. Otherwise it is cleared with `DISCARD ALL` and used again."),
    key!(reload "pool_size": Count<1, 100_000> = pool.size, "Server connections per host, database and role."),
    key!(reload "min_idle": Count<0, 100_000> = pool.min_idle, "Server connections kept open though idle, per pool."),
    key!(reload "max_per_host": Count<1, 1_000_000> = pool.max_per_host, "Server connections per host, all pools together. Where they are too few, all roles get an even share."),
    key!(reload "checkout_timeout": Span<1> = pool.checkout_timeout,
        "Longest wait for a server connection, then the client gets SQLSTATE 53300."),
    key!(reload "max_waiting": Count<0, 10_000_000> = pool.max_waiting, "Sessions waiting for a server connection, per pool; one more gets SQLSTATE 53300 at once."),
    key!(reload "connect_timeout": Span<10> = pool.connect_timeout, "Time to open a server connection and log in."),
    key!(reload "idle_timeout": SpanOrNever = pool.idle_timeout, "An idle server connection is closed after this."),
    key!(reload "max_age": SpanOrNever = pool.max_age, "A server connection is closed after this (or up to a fifth earlier, so that not all end together), when nobody uses it."),
    key!(reload "max_prepared": Count<0, 1_000_000> = pool.max_prepared, "Named prepared statements kept per server connection."),
    key!(reload "idle_transaction_timeout": SpanOrNever = pool.idle_transaction_timeout,
        "A transaction that waits for its client longer than this is rolled back."),
    key!(reload "query_timeout": SpanOrNever = pool.query_timeout, "A statement that runs longer than this is cancelled."),
    key!(reload "split": Flag = routing.split, "`false` sends everything to the primary."),
    key!(reload "balance": Choice<super::Balance> = routing.balance, "How one of several eligible replicas is chosen. `round_robin` gives each as many reads; the one with the fewest statements under way goes first, at most four reads ahead of the others. Where the chosen one has no free connection, a read goes to the eligible host with the fewest statements under way and waiting; under `weighted` and `ip_hash` it waits."),
    key!(reload "reads_on_primary": Choice<super::ReadsOnPrimary> = routing.reads_on_primary,
        "Whether the primary serves reads: when no replica is eligible, as one of the hosts in turn, or never (reads then wait)."),
    key!(reload "consistency": Choice<super::Consistency> = routing.consistency,
        "What a read must not miss: nothing; the session's own writes; those and what it has read already; every write that this process acknowledged."),
    key!(reload "retry_buffer": Bytes<0, 1_073_741_824> = routing.retry_buffer,
        "Requests up to this are kept so that they can be sent again to another host."),
    key!(reload "reuse_unnamed": Choice<super::ReuseUnnamed> = routing.reuse_unnamed,
        "Keeps unnamed statements prepared on the servers; `custom_plans` forbids generic plans for them."),
    key!(reload "failover_wait": Span<0> = routing.failover_wait, "How long a write waits for a primary."),
    key!(reload "max_held": Count<0, 10_000_000> = routing.max_held, "Statements that wait for a primary (or another host) at once."),
    key!(reload "max_held_bytes": Bytes<0, 1_099_511_627_776> = routing.max_held_bytes, "Bytes of their requests, together."),
    key!(reload "max_lag": SpanOrOff<1> = health.max_lag, "A replica further behind than this gets no reads."),
    key!(reload "max_lag_bytes": BytesOrOff = health.max_lag_bytes, "A replica more bytes behind than this gets no reads."),
    key!(reload "probe_interval": Span<10> = health.probe_interval, "How often each host is asked for its role and position."),
    key!(reload "probe_timeout": Span<10> = health.probe_timeout, "A probe not answered in this time has failed."),
    key!(reload "sampler_interval": Span<1> = health.sampler_interval,
        "After writes the primary is asked for its position at most this often."),
    key!(reload "backoff_min": Span<1> = health.backoff_min, "First wait before a failed host is tried again."),
    key!(reload "backoff_max": Span<1> = health.backoff_max, "Longest wait before a failed host is tried again."),
    key!(reload "dns_interval": SpanOrNever = health.dns_interval,
        "The hosts' names are looked up again after this. New connections look them up anyway; this is for those that are open when a name comes to lead elsewhere."),
    key!(reload "catalogue_interval": Span<100> = health.catalogue_interval,
        "Functions, views and tables are read again after this (and after DDL through pgyard)."),
];

/// Keys of `[databases.NAME.users.ROLE]` that override those of the database.
pub(super) const USER: &[Key<UserSettings>] = &[
    key!(reload "pool_size": Inherited<Count<1, 100_000>> = pool_size, "Overrides `pool_size`."),
    key!(reload "pool_mode": Inherited<Choice<super::PoolMode>> = pool_mode, "Overrides `pool_mode`."),
    key!(reload "consistency": Inherited<Choice<super::Consistency>> = consistency, "Overrides `consistency`."),
    key!(reload "max_waiting": Inherited<Count<0, 10_000_000>> = max_waiting, "Overrides `max_waiting`."),
    key!(reload "checkout_timeout": Inherited<Span<1>> = checkout_timeout, "Overrides `checkout_timeout`."),
    key!(reload "max_clients": Inherited<Count<0, 10_000_000>> = max_clients, "Overrides `max_clients_per_user`."),
    key!(reload "statement_rate": Inherited<RateOrOff> = statement_rate, "Overrides `statement_rate_per_user`."),
];

/// A key that is not read by a codec: hosts, secrets, files.
pub(super) struct PlainKey {
    /// Its name in its section.
    pub(super) name: &'static str,
    /// Its type in the words of the documentation.
    pub(super) kind: &'static str,
    /// The default in words.
    pub(super) default: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
}

const fn plain(name: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> PlainKey {
    PlainKey { name, kind, default, meaning }
}

/// Keys of `[tls]`.
pub(super) const TLS: &[PlainKey] = &[
    plain("certificate", "path", "required", "PEM certificate chain that pgyard shows to clients. Read again at a reload."),
    plain("key", "path", "required", "PEM private key of the certificate. Read again at a reload."),
    plain("client_ca", "path", "none", "PEM roots; with them, clients must show a certificate that chains to one."),
    plain("required", "`true` or `false`", "`false`", "Refuse clients without TLS, except on Unix sockets."),
    plain(
        "client_cert",
        "`\"required\"`, `\"optional\"`",
        "`\"required\"`",
        "With `client_ca`: whether each client must show a certificate, or only those of whom a rule under `[[access]]` wants one.",
    ),
];

/// Keys of `[admin.users.NAME]`.
pub(super) const ADMIN_USER: &[PlainKey] = &[
    plain("password", "text", "one of the two", "A password, a SCRAM verifier or an MD5 hash."),
    plain("password_file", "path", "one of the two", "A file with the same."),
];

/// How hosts are reached; in `[defaults]`, `[databases.NAME]` and host tables, the nearest wins.
pub(super) const CONNECTION: &[PlainKey] = &[
    plain("user", "text", "the first host's", "The role that probes, looks up roles and reads the catalogue."),
    plain("password", "text", "the first host's", "Its password."),
    plain("password_file", "path", "none", "A file with its password."),
    plain("database", "text", "the client's", "The name of the database on the servers."),
    plain(
        "sslmode",
        "`\"disable\"`, `\"allow\"`, `\"prefer\"`, `\"require\"`, `\"verify-ca\"`, `\"verify-full\"`",
        "`\"prefer\"`",
        "As libpq's.",
    ),
    plain("sslrootcert", "path", "the system's", "PEM roots for `verify-ca` and `verify-full`; `\"system\"` is the system's."),
    plain("sslcert", "path", "none", "PEM client certificate to show to servers."),
    plain("sslkey", "path", "none", "Its PEM private key."),
];

/// Keys of `[databases.NAME]` besides `DATABASE` and `CONNECTION`.
pub(super) const HOSTS: &[PlainKey] = &[
    plain(
        "primary",
        "host",
        "none",
        "The host that is the primary today; other hosts take user, password, database and TLS from it.",
    ),
    plain("replicas", "list of hosts", "none", "The other hosts."),
    plain("hosts", "list of hosts", "none", "All hosts, instead of `primary` and `replicas`."),
    plain("users", "table", "none", "Roles with settings of their own; see below."),
];

/// Keys of `[databases.NAME]` of a sharded database, besides `SHARDS`.
pub(super) const SHARDING: &[Key<ShardingSettings>] = &[
    key!(reload "gather_memory": Bytes<65_536, 1_099_511_627_776> = gather_memory,
    "Bytes of the shards' rows that one statement may hold, where its answer must be put together from them; beyond, it ends with SQLSTATE 54000."),
];

/// Keys of `[databases.NAME]` of a sharded database: its shards and the places of its tables.
pub(super) const SHARDS: &[PlainKey] = &[
    plain(
        "shards",
        "list of tables",
        "none",
        "The shards, each below a line `[[databases.NAME.shards]]`; such a database has no hosts of its own.",
    ),
    plain(
        "sharded_tables",
        "list of tables",
        "none",
        "Tables whose rows are spread by a key, below lines `[[databases.NAME.sharded_tables]]`.",
    ),
    plain(
        "tables",
        "table",
        "none",
        "Tables that are whole somewhere: `\"reference\"` (every shard has all rows), or a shard's name.",
    ),
    plain(
        "unlisted_tables",
        "`\"refuse\"`, `\"reference\"`, a shard's name",
        "`\"refuse\"`",
        "Where tables are that no key lists; `refuse`: statements that name one fail.",
    ),
    plain(
        "served_by",
        "a sharded database's name",
        "none",
        "Clients that name this database are served by that one: its rows have moved there. `pgyard reshard` writes it.",
    ),
    plain(
        "coordinator",
        "table",
        "none",
        "The database that answers what the shards can't answer one by one: `[databases.NAME.coordinator]` with hosts like a shard's. `pgyard coordinator` fills it.",
    ),
];

/// Keys of `[[databases.NAME.shards]]` besides `HOSTS` and `CONNECTION`.
pub(super) const SHARD: &[PlainKey] = &[plain(
    "name",
    "text",
    "required",
    "Its name in the settings, in metrics, logs and the console, and in `SET pgyard.shard`.",
)];

/// Keys of `[[databases.NAME.sharded_tables]]`.
pub(super) const SHARDED_TABLES: &[PlainKey] = &[
    plain("tables", "text or list", "required", "Their names, with their schema unless it is `public`."),
    plain("key", "text or list", "required", "The key columns, in this order."),
    plain(
        "key_type",
        "text or list",
        "the tables'",
        "The key columns' types: `int2`, `int4`, `int8`, `text`, `varchar`, `bpchar`, `uuid`, `numeric`, `bytea`, `date`, `timestamp`, `timestamptz`. Ranges and lists need it.",
    ),
    plain(
        "scheme",
        "`\"hash\"`, `\"range\"`, `\"list\"`, `\"ring\"`",
        "`\"hash\"`",
        "`hash`: PostgreSQL's own hash partitioning, where the shard with number i in the list is the partition with remainder i. `ring`: consistent hashing.",
    ),
    plain("ranges", "list of tables", "for `range`", "`{ shard, from, to }`, or `{ shard, default = true }`."),
    plain("lists", "list of tables", "for `list`", "`{ shard, values }`, or `{ shard, default = true }`."),
    plain("weights", "table", "1 for each", "For `ring`: each shard's share, `{ s0 = 1, s1 = 2 }`; 0 is none."),
    plain("virtual_nodes", "integer", "`128`", "For `ring`: points for each unit of weight."),
];

/// Keys of a range.
pub(super) const RANGE: &[PlainKey] = &[
    plain("shard", "text", "required", "Where these keys are."),
    plain("from", "value or list", "the lowest", "The first key; a list where the key has several columns."),
    plain("to", "value or list", "the highest", "The first key that is too high."),
    plain("default", "`true` or `false`", "`false`", "It takes all keys that no other range takes, NULL too."),
];

/// Keys of a list.
pub(super) const LIST: &[PlainKey] = &[
    plain("shard", "text", "required", "Where these keys are."),
    plain("values", "list", "none", "The keys; lists where the key has several columns."),
    plain("default", "`true` or `false`", "`false`", "It takes all keys that no list has, NULL too."),
];

/// Keys of a host that is written as a table, besides `CONNECTION`.
pub(super) const HOST: &[PlainKey] = &[
    plain("url", "text", "none", "A URL; the keys beside it add to it."),
    plain("host", "text", "required", "A DNS name, an IP address, or the directory of a Unix socket."),
    plain("port", "integer", "`5432`", "Its port."),
    plain("name", "text", "`host:port`", "Its name in logs, metrics and the console."),
    plain(
        "role",
        "`\"auto\"`, `\"primary\"`, `\"replica\"`",
        "`\"auto\"`",
        "`auto`: what its probe finds. `primary`: never read from as a replica. `replica`: never written to, even if it is promoted.",
    ),
    plain("weight", "integer", "`1`", "Its share of reads under `balance = \"weighted\"`; 0 is none."),
];

/// Keys of `[databases.NAME.users.ROLE]` besides `USER`.
pub(super) const USER_SECRETS: &[PlainKey] = &[
    plain("password", "text", "looked up", "Password, SCRAM verifier or MD5 hash that clients prove."),
    plain("password_file", "path", "none", "A file with the same."),
    plain("server_password", "text", "the client's", "Password for the servers, where it differs or `password` is a verifier."),
    plain("server_password_file", "path", "none", "A file with the same."),
];

/// The names in a table of keys.
pub(super) fn names<S>(keys: &[Key<S>]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

/// The names in a table of plain keys.
pub(super) fn plain_names(keys: &[PlainKey]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}
