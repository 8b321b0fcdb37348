//! The way to a running pgyard: which one is meant, and a connection to its console.

use crate::app::arguments::TargetArguments;
use crate::cluster::Host;
use crate::cluster::control::{ControlConnection, ControlTarget, describe_error};
use crate::config::{self, ConfigReport, HostSettings, ListenAddress, Settings};
use crate::net::tls::ServerTls;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

/// The console of a pgyard that was started without a file.
const DEFAULT_URL: &str = "postgres://pgyard@127.0.0.1:6432/pgyard";
/// The console's database, and its user where the configuration names none.
const CONSOLE: &str = "pgyard";
/// To connect and log in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The URL, or the file that should lead to one, is wrong.
    #[error("{0}")]
    Config(#[from] ConfigReport),
    /// The file does not lead to a console that can be used.
    #[error("{0}; name the console with --admin postgres://user:password@host:port/pgyard")]
    NoWay(String),
    /// Nobody answers.
    #[error(
        "no pgyard answers at {address}: {error}\nIs it running? Name its console with --admin URL (or PGYARD_ADMIN), or its configuration with --config FILE."
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What happened.
        error: String,
    },
    /// The console said no.
    #[error("{0}")]
    Refused(String),
    /// No run-time could be made.
    #[error("the command could not start: {0}")]
    Runtime(#[from] std::io::Error),
}

/// A connection to a console.
pub(super) struct ConsoleConnection {
    /// Where it leads, for people.
    pub(super) address: String,
    connection: ControlConnection,
}

/// Runs `work` with a connection to the pgyard that is meant.
pub(super) fn with_console<T>(
    target: &TargetArguments,
    work: impl AsyncFnOnce(ConsoleConnection) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { work(open_console(target).await?).await })
}

/// A connection to the console of the pgyard that is meant.
pub(super) async fn open_console(target: &TargetArguments) -> Result<ConsoleConnection, CommandError> {
    ConsoleConnection::open(console_host(target)?).await
}

impl ConsoleConnection {
    async fn open(host: HostSettings) -> Result<Self, CommandError> {
        let tls = ServerTls::load(&host.tls).map_err(|error| CommandError::NoWay(error.to_string()))?;
        let lookup: crate::cluster::ServerTlsLookup = Arc::new(move |_| tls.config().cloned());
        let address = host.name.clone();
        let target = ControlTarget::new(&Host::new(0, host), &lookup, CONNECT_TIMEOUT).with_database(CONSOLE);
        let unreachable = |error: String| CommandError::Unreachable { address: address.clone(), error };
        match tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await {
            Ok(Ok(connection)) => Ok(ConsoleConnection { address, connection }),
            Ok(Err(error)) if error.as_db_error().is_some() => Err(refused(&error)),
            Ok(Err(error)) => Err(unreachable(describe_error(&error))),
            Err(_) => Err(unreachable(format!("not within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// The rows that a console command answers.
    pub(super) async fn rows(&self, command: &str) -> Result<Vec<SimpleQueryRow>, CommandError> {
        let messages = self.connection.client.simple_query(command).await.map_err(|error| refused(&error))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

/// What the console said, with what it advised.
fn refused(error: &tokio_postgres::Error) -> CommandError {
    let Some(told) = error.as_db_error() else { return CommandError::Refused(describe_error(error)) };
    let more = [told.detail(), told.hint()].into_iter().flatten();
    CommandError::Refused(more.fold(told.message().to_owned(), |text, line| format!("{text}\n{line}")))
}

/// A cell of a row by its column's name; empty where there is no value.
pub(super) fn value<'a>(row: &'a SimpleQueryRow, column: &str) -> &'a str {
    row.try_get(column).ok().flatten().unwrap_or_default()
}

/// A text as a literal of the console's.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier of the console's.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn console_host(target: &TargetArguments) -> Result<HostSettings, CommandError> {
    match (&target.admin, &target.config) {
        (Some(url), _) => Ok(config::from_url(&completed(url))?),
        (None, Some(file)) => {
            let loaded = config::load(file, &|name| std::env::var(name).ok())?;
            config::from_url(&url_of(&loaded.settings).map_err(CommandError::NoWay)?).map_err(CommandError::from)
        }
        (None, None) => Ok(config::from_url(DEFAULT_URL)?),
    }
}

/// The URL with the console's user and pgyard's port, where it names none.
fn completed(url: &str) -> String {
    let given = if url.contains("://") { url.to_owned() } else { format!("postgres://{url}") };
    let Ok(mut parsed) = url::Url::parse(&given) else { return given };
    let named = |key: &str| parsed.query_pairs().any(|(name, _)| name == key);
    let (port_named, user_named) = (named("port"), named("user"));
    // What cannot be set stays as it was given, and is complained of where it is read.
    if parsed.port().is_none() && !port_named {
        let _ = parsed.set_port(Some(config::DEFAULT_LISTEN_PORT));
    }
    if parsed.username().is_empty() && !user_named {
        let _ = parsed.set_username(CONSOLE);
    }
    parsed.into()
}

/// Where a pgyard with these settings has its console, seen from its own machine.
fn url_of(settings: &Settings) -> Result<String, String> {
    let mut url = url::Url::parse(DEFAULT_URL).map_err(|error| error.to_string())?;
    let broken = |()| "the configuration leads to no address".to_owned();
    match settings.listen.first() {
        None => {}
        Some(ListenAddress::Tcp(address)) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            url.set_ip_host(ip).or_else(|()| url.set_host(Some(&host_text(ip))).map_err(|_| ())).map_err(broken)?;
            url.set_port(Some(address.port())).map_err(broken)?;
            if settings.tls.as_ref().is_some_and(|tls| tls.required) {
                // It is this machine's own pgyard: encryption is asked for, its certificate names another host.
                url.set_query(Some("sslmode=require"));
            }
        }
        Some(ListenAddress::Unix { directory, port }) => {
            let host: String = url::form_urlencoded::byte_serialize(directory.display().to_string().as_bytes()).collect();
            url.set_host(Some(&host)).map_err(|error| error.to_string())?;
            url.set_port(Some(*port)).map_err(broken)?;
        }
    }
    if let Some(user) = settings.admin.users.first() {
        let secret = user.secret.reveal();
        if secret.starts_with("SCRAM-SHA-256$") || (secret.starts_with("md5") && secret.len() == 35) {
            return Err(format!(
                "the configuration has only a verifier for the console's user \"{}\", not its password",
                user.name
            ));
        }
        url.set_username(&user.name).map_err(broken)?;
        url.set_password(Some(secret)).map_err(broken)?;
    }
    Ok(url.into())
}

fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> (String, u16, String, Option<String>) {
        let host = config::from_url(&completed(url)).unwrap();
        let password = host.control.password.map(|password| password.reveal().to_owned());
        (host.address, host.port, host.control.user, password)
    }

    #[test]
    fn urls_are_completed() {
        let check = |url: &str, address: &str, port, user: &str, password: Option<&str>| {
            assert_eq!(host(url), (address.to_owned(), port, user.to_owned(), password.map(str::to_owned)), "{url}");
        };
        check("postgres://10.0.0.1/pgyard", "10.0.0.1", 6432, "pgyard", None);
        check("10.0.0.1", "10.0.0.1", 6432, "pgyard", None);
        check("10.0.0.1:7000", "10.0.0.1", 7000, "pgyard", None);
        check("postgres://ops:p%40ss@yard.example:5432/pgyard", "yard.example", 5432, "ops", Some("p@ss"));
        check("postgres://[::1]/pgyard", "::1", 6432, "pgyard", None);
        check("postgres://%2Frun%2Fpgyard", "/run/pgyard", 6432, "pgyard", None);
        assert!(config::from_url(&completed("http://10.0.0.1")).is_err());
    }

    #[test]
    fn a_configuration_leads_to_its_console() {
        let check = |head: &str, tail: &str, address: &str, port, user: &str, password: Option<&str>| {
            let text = format!("{head}\n[databases.app]\nprimary = 'postgres://u@a'\n{tail}");
            let settings = config::parse(&text, "test.toml", &|_| None).unwrap().settings;
            let expect = (address.to_owned(), port, user.to_owned(), password.map(str::to_owned));
            assert_eq!(host(&url_of(&settings).unwrap()), expect, "{text}");
        };
        check("", "", "127.0.0.1", 6432, "pgyard", None);
        check("listen = '0.0.0.0:7000'", "", "127.0.0.1", 7000, "pgyard", None);
        check("listen = '[::]:7000'", "", "::1", 7000, "pgyard", None);
        check("listen = 'unix:/run/pgyard'", "", "/run/pgyard", 6432, "pgyard", None);
        check("listen = '10.0.0.1:1'", "[admin.users]\nops = 'a/b@c'", "10.0.0.1", 1, "ops", Some("a/b@c"));
        let verifier = "[databases.app]\nprimary = 'postgres://u@a'\n[admin.users]\nops = 'md50123456789abcdef0123456789abcdef'";
        let settings = config::parse(verifier, "test.toml", &|_| None).unwrap().settings;
        assert!(url_of(&settings).unwrap_err().contains("only a verifier"));
    }

    #[test]
    fn nobody_there_is_said_with_advice() {
        let target = TargetArguments { admin: Some("postgres://127.0.0.1:1/pgyard".into()), config: None };
        let error = with_console(&target, async |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("no pgyard answers at 127.0.0.1:1") && error.contains("Is it running?"), "{error}");
        let target = TargetArguments { admin: Some("mysql://127.0.0.1:1/pgyard".into()), config: None };
        assert!(with_console(&target, async |_| Ok(())).is_err());
    }

    #[test]
    fn texts_and_names_are_quoted() {
        assert_eq!(literal("select 'a'"), "'select ''a'''");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
