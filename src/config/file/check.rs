//! Settings that exclude each other, and settings that are legal but dangerous.

use super::reader::{Origins, Reader, Section, Span};
use crate::config::choice::NamedChoice;
use crate::config::codec::Complaint;
use crate::config::duration::format_duration;
use crate::config::problem::ProblemKind;
use crate::config::settings::{
    AuthMethod, Balance, DatabaseSettings, ListenAddress, ReadsOnPrimary, RoleSetting, ServerTlsMode, Settings,
};
use crate::types::Secret;

/// Where the keys of a database stand.
pub(super) struct Places<'t, 'i> {
    pub(super) origins: &'t Origins,
    /// The name in the section's header.
    pub(super) header: Span,
    pub(super) section: Section<'t, 'i>,
}

impl Places<'_, '_> {
    /// The place of the first of `keys` that is written somewhere, else the database's header.
    fn of(&self, keys: &[&str]) -> Span {
        let written = keys.iter().find_map(|key| self.origins.get(key).cloned());
        written.unwrap_or_else(|| self.header.clone())
    }

    fn of_user(&self, name: &str) -> Span {
        let users = self.section.get("users").and_then(|users| users.get_ref().as_table());
        let key = users.and_then(|users| users.get_key_value(name)).map(|(key, _)| key.span());
        key.unwrap_or_else(|| self.header.clone())
    }
}

/// Checks what does not depend on databases.
pub(super) fn front(reader: &mut Reader, settings: &Settings, origins: &Origins, top: Section) {
    let clash = settings.http.filter(|http| http.port() != 0 && settings.listen.contains(&ListenAddress::Tcp(*http)));
    if let Some(http) = clash {
        let span = origins.get("http").or(origins.get("listen")).cloned().unwrap_or(0..0);
        contradiction(reader, span, format!("http and listen are both {http}"), "give one of them another port");
    }
    let front = &settings.front;
    if front.max_clients_per_address > front.max_clients {
        let span = origins.get("max_clients_per_address").cloned().unwrap_or(0..0);
        reader.warn(span, "max_clients_per_address is over max_clients and has no effect", "lower it, or raise max_clients");
    }
    if settings.tls.as_ref().is_some_and(|tls| tls.required)
        && !settings.listen.iter().any(|address| matches!(address, ListenAddress::Tcp(_)))
    {
        let span = top.key_span("tls").unwrap_or(0..0);
        reader.warn(span, "[tls] has no effect: pgyard listens on Unix sockets only", "take [tls] out, or listen on an address");
    }
}

/// Checks listeners against how clients log in.
pub(super) fn listeners(reader: &mut Reader, top: Section, settings: &Settings, databases: &[DatabaseSettings]) {
    let span = top.get("listen").map_or(0..0, toml::Spanned::span);
    let open = settings.listen.iter().find(|address| matches!(address, ListenAddress::Tcp(tcp) if !tcp.ip().is_loopback()));
    let tcp = settings.listen.iter().any(|address| matches!(address, ListenAddress::Tcp(_)));
    let auth_span = |name: &str| {
        let databases = top.get("databases").and_then(|value| value.get_ref().as_table());
        let own = databases.and_then(|databases| databases.get(name)).and_then(|value| value.get_ref().as_table());
        let defaults = top.get("defaults").and_then(|value| value.get_ref().as_table());
        let value = own.and_then(|table| table.get("auth")).or_else(|| defaults.and_then(|table| table.get("auth")));
        value.map_or(0..0, toml::Spanned::span)
    };
    for database in databases {
        let span = auth_span(&database.name);
        match database.auth.method {
            AuthMethod::Trust => {
                let message = match open {
                    Some(address) => {
                        format!("anybody who reaches {address} gets into `{}` as any role: auth is \"trust\"", database.name)
                    }
                    None => format!("anybody on this machine gets into `{}` as any role: auth is \"trust\"", database.name),
                };
                reader.warn(span, message, "take auth out: by default, clients log in with their PostgreSQL passwords");
            }
            AuthMethod::Plain if settings.tls.is_none() && tcp && top.get("tls").is_none() => {
                let help = "add [tls] with certificate and key, or use auth = \"scram\"";
                contradiction(reader, span, "auth \"plain\" sends passwords in clear and needs TLS, but there is no [tls]", help);
            }
            _ => {}
        }
    }
    if let (Some(address), None) = (open, top.get("tls")) {
        reader.warn(
            span,
            format!("clients connect to {address} without TLS: what they send can be read on the network"),
            "add [tls] with certificate and key, or listen on 127.0.0.1 or a Unix socket",
        );
    }
}

/// Checks one database.
pub(super) fn database(reader: &mut Reader, settings: &DatabaseSettings, places: &Places) {
    if settings.name == "pgyard" {
        let help = "the console is the database `pgyard`: choose another name, and set database = \"pgyard\" if it is called so on the servers";
        contradiction(reader, places.header.clone(), "the database name `pgyard` is reserved", help);
    }
    if settings.name.is_empty() {
        contradiction(
            reader,
            places.header.clone(),
            "a database's name is empty",
            "write [databases.app], or [databases.\"*\"] for any name",
        );
    }
    pool(reader, settings, places);
    hosts(reader, settings, places);
    health(reader, settings, places);
    users(reader, settings, places);
}

fn pool(reader: &mut Reader, settings: &DatabaseSettings, places: &Places) {
    let pool = &settings.pool;
    let smallest = settings.users.iter().filter_map(|user| user.pool_size).min();
    if pool.min_idle > pool.size {
        let message = format!("min_idle ({}) is more than pool_size ({})", pool.min_idle, pool.size);
        contradiction(reader, places.of(&["min_idle", "pool_size"]), message, "lower min_idle, or raise pool_size");
    } else if let Some(size) = smallest.filter(|size| pool.min_idle > *size) {
        let message = format!("min_idle ({}) is more than the pool_size of a user ({size})", pool.min_idle);
        contradiction(reader, places.of(&["min_idle"]), message, "lower min_idle, or raise the user's pool_size");
    }
    if pool.size > pool.max_per_host {
        let message =
            format!("pool_size ({}) is more than max_per_host ({}): the pool is never full", pool.size, pool.max_per_host);
        reader.warn(places.of(&["pool_size", "max_per_host"]), message, "lower pool_size, or raise max_per_host");
    }
    if !pool.max_age.is_zero() && !pool.idle_timeout.is_zero() && pool.idle_timeout > pool.max_age {
        let message = "idle_timeout is longer than max_age and has no effect";
        reader.warn(places.of(&["idle_timeout", "max_age"]), message, "shorten idle_timeout");
    }
}

/// Checks the hosts of a database or of a shard.
pub(super) fn hosts(reader: &mut Reader, settings: &DatabaseSettings, places: &Places) {
    let hosts = &settings.hosts;
    let routing = &settings.routing;
    let fixed: Vec<&str> = hosts.iter().filter(|host| host.role == RoleSetting::Primary).map(|host| host.name.as_str()).collect();
    if fixed.len() > 1 {
        let message = format!("two hosts are said to be the primary: `{}` and `{}`", fixed[0], fixed[1]);
        let help = "keep role = \"primary\" on one; or leave role out: what a host is, is found by asking it";
        contradiction(reader, places.header.clone(), message, help);
    }
    if !hosts.is_empty() && hosts.iter().all(|host| host.role == RoleSetting::Replica) {
        let message = format!("every host of `{}` is said to be a replica: nothing can be written", settings.name);
        reader.warn(places.header.clone(), message, "leave role out: what a host is, is found by asking it");
    }
    if hosts.len() == 1 && routing.split && routing.reads_on_primary == ReadsOnPrimary::Never {
        let help = "add replicas, or take reads_on_primary out";
        contradiction(
            reader,
            places.of(&["reads_on_primary"]),
            "reads_on_primary is \"never\", but there is only one host",
            help,
        );
    }
    let weighted = routing.balance == Balance::Weighted;
    if weighted && !hosts.is_empty() && hosts.iter().all(|host| host.weight == 0) {
        contradiction(
            reader,
            places.of(&["balance"]),
            "every host has weight 0: none would serve reads",
            "give one a weight of 1",
        );
    }
    if !weighted && let Some(host) = hosts.iter().find(|host| host.weight != 1) {
        let message = format!("the weight of `{}` has no effect: balance is not \"weighted\"", host.name);
        reader.warn(places.of(&["balance"]), message, "write balance = \"weighted\", or take the weight out");
    }
    for host in hosts.iter().filter(|host| host.tls.ca.is_some()) {
        let message = match host.tls.mode {
            ServerTlsMode::Disable => format!("sslrootcert of `{}` has no effect: sslmode is \"disable\"", host.name),
            ServerTlsMode::Allow | ServerTlsMode::Prefer => {
                format!(
                    "sslrootcert of `{}` protects nobody: with sslmode \"{}\" TLS may be left out",
                    host.name,
                    host.tls.mode.name()
                )
            }
            ServerTlsMode::Require | ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull => continue,
        };
        reader.warn(places.header.clone(), message, "write sslmode \"verify-full\" (or \"verify-ca\")");
    }
}

fn health(reader: &mut Reader, settings: &DatabaseSettings, places: &Places) {
    let health = &settings.health;
    if health.backoff_min > health.backoff_max {
        let message = "backoff_min is longer than backoff_max";
        contradiction(reader, places.of(&["backoff_min", "backoff_max"]), message, "swap them");
    }
    if let Some(max_lag) = health.max_lag.filter(|max_lag| *max_lag < health.probe_interval * 2) {
        let message = format!(
            "max_lag ({}) is less than two probe intervals ({} each): replicas will come and go without being late",
            format_duration(max_lag),
            format_duration(health.probe_interval)
        );
        reader.warn(places.of(&["max_lag", "probe_interval"]), message, "raise max_lag, or shorten probe_interval");
    }
    if health.max_lag.is_none() && health.max_lag_bytes.is_none() && settings.hosts.len() > 1 && settings.routing.split {
        let message = "max_lag is off: a replica that is hours behind still serves reads";
        reader.warn(places.of(&["max_lag"]), message, "set max_lag or max_lag_bytes");
    }
    if settings.routing.failover_wait.is_zero() {
        let message = "failover_wait is 0: every write fails while there is no primary, even for a moment";
        reader.warn(places.of(&["failover_wait"]), message, "the default is \"15s\"");
    }
}

fn users(reader: &mut Reader, settings: &DatabaseSettings, places: &Places) {
    let auth = &settings.auth;
    let trusted = auth.method == AuthMethod::Trust;
    if auth.lookup_query.is_none() && settings.users.is_empty() && !trusted {
        let message = format!("nobody can log in to `{}`: look-up is off and it has no users", settings.name);
        contradiction(reader, places.of(&["lookup_query"]), message, "add [databases.NAME.users.ROLE], or take lookup_query out");
    }
    for user in &settings.users {
        let span = places.of_user(&user.name);
        secret(reader, user.secret.as_ref(), &span, Some(auth.method));
        if user.secret.is_none() && auth.lookup_query.is_none() && !trusted {
            let message = format!("`{}` cannot log in: it has no password, and look-up is off", user.name);
            contradiction(
                reader,
                span.clone(),
                message,
                "write password = \"${NAME}\" or password_file, or take lookup_query out",
            );
        }
        if user.server_password.as_ref().is_some_and(|password| form(password) != SecretForm::Password) {
            let message = format!("the server_password of `{}` is a hash", user.name);
            contradiction(reader, span.clone(), message, "servers ask for the password itself");
        }
        if user.name.is_empty() {
            contradiction(reader, span, "a user's name is empty", "write [databases.NAME.users.alice]");
        }
    }
}

/// What a stored secret is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecretForm {
    Password,
    Md5,
    Scram,
    BrokenScram,
}

fn form(secret: &Secret) -> SecretForm {
    let text = secret.reveal();
    let hexadecimal = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if text.strip_prefix("md5").is_some_and(hexadecimal) {
        return SecretForm::Md5;
    }
    let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") else { return SecretForm::Password };
    // SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>
    let whole = rest.split_once('$').is_some_and(|(start, keys)| {
        let base64 = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        let start =
            start.split_once(':').is_some_and(|(count, salt)| count.parse::<u32>().is_ok_and(|count| count > 0) && base64(salt));
        start && keys.split_once(':').is_some_and(|(stored, server)| base64(stored) && base64(server))
    });
    if whole { SecretForm::Scram } else { SecretForm::BrokenScram }
}

/// Checks a stored secret against what clients are asked for.
pub(super) fn secret(reader: &mut Reader, secret: Option<&Secret>, span: &Span, method: Option<AuthMethod>) {
    let Some(secret) = secret else { return };
    match (form(secret), method) {
        (SecretForm::BrokenScram, _) => contradiction(
            reader,
            span.clone(),
            "the SCRAM verifier is not whole",
            "it is SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>, as in pg_authid.rolpassword",
        ),
        (SecretForm::Md5, Some(AuthMethod::Scram)) => contradiction(
            reader,
            span.clone(),
            "auth is \"scram\", but the stored secret is an MD5 hash",
            "store a SCRAM verifier or the password, or write auth = \"auto\"",
        ),
        (SecretForm::Scram, Some(AuthMethod::Md5)) => contradiction(
            reader,
            span.clone(),
            "auth is \"md5\", but the stored secret is a SCRAM verifier",
            "store an MD5 hash or the password, or write auth = \"auto\"",
        ),
        _ => {}
    }
}

fn contradiction(reader: &mut Reader, span: Span, message: impl Into<String>, help: impl Into<String>) {
    reader.error(ProblemKind::Contradiction, span, Complaint::new(message, help));
}
