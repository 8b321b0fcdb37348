//! Settings with a shape of their own: addresses to listen on, worker threads, the log filter, the look-up query.

use super::access::{AddressRange, NamePattern};
use super::codec::{Codec, Complaint, Count, RawValue};
use super::defaults::{DEFAULT_LISTEN_PORT, DEFAULT_LOOKUP_QUERY};
use super::file::suggest::closest;
use super::settings::{ListenAddress, Settings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// One address or several.
pub(super) struct ListenAddresses;

/// One address, or off.
pub(super) struct HttpAddress;

/// A number of threads, or `auto`.
pub(super) struct Workers;

/// A filter for `tracing`.
pub(super) struct LogFilter;

/// A query, or off.
pub(super) struct LookupQuery;

/// Ranges of addresses; none is every address.
pub(super) struct AddressRanges;

/// Names with `*`; none is every name.
pub(super) struct NamePatterns;

/// The name of a user map, or none.
pub(super) struct MapName;

impl Codec for AddressRanges {
    type Value = Vec<AddressRange>;

    fn kind() -> String {
        "address, range or list of these".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        read_list(raw, AddressRange::parse)
    }

    fn show(value: &Self::Value) -> String {
        show_list(value)
    }
}

impl Codec for NamePatterns {
    type Value = Vec<NamePattern>;

    fn kind() -> String {
        "name or list of names".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        read_list(raw, |text| match text {
            // What these mean in pg_hba.conf must not be taken for a name: a rule that refuses would refuse nobody.
            "all" => Err("for all, leave the key out or write \"*\"".to_owned()),
            "sameuser" | "samerole" | "samegroup" => {
                Err("write the names: this word of pg_hba.conf is not known here".to_owned())
            }
            text if text.starts_with(['+', '@', '/']) => {
                Err("write the names: groups, files and regular expressions are not known here".to_owned())
            }
            text => NamePattern::parse(text),
        })
    }

    fn show(value: &Self::Value) -> String {
        show_list(value)
    }
}

impl Codec for MapName {
    type Value = Option<String>;

    fn kind() -> String {
        "name".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        match raw {
            RawValue::Text(name) if !name.is_empty() => Ok(Some(name.clone())),
            other => Err(Complaint::new(
                format!("{} is not the name of a map", other.describe()),
                "write the NAME of [user_maps.NAME]",
            )),
        }
    }

    fn show(value: &Self::Value) -> String {
        value.clone().unwrap_or_else(|| "none".to_owned())
    }
}

fn read_list<T>(raw: &RawValue, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Complaint> {
    let one = std::slice::from_ref(raw);
    let entries = if let RawValue::List(entries) = raw { entries.as_slice() } else { one };
    if entries.is_empty() {
        return Err(Complaint::new("the list is empty", "leave the key out if it is for all"));
    }
    let read = |entry: &RawValue| match entry {
        RawValue::Text(text) => parse(text).map_err(|help| Complaint::new(format!("`{text}` can't be used"), help)),
        other => Err(Complaint::new(format!("{} is not text", other.describe()), "write texts in quotes")),
    };
    entries.iter().map(read).collect()
}

fn show_list<T: ToString>(values: &[T]) -> String {
    match values {
        [] => "all".to_owned(),
        values => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix { directory, port } if *port == DEFAULT_LISTEN_PORT => write!(f, "unix:{}", directory.display()),
            ListenAddress::Unix { directory, port } => write!(f, "unix:{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

impl Codec for ListenAddresses {
    type Value = Vec<ListenAddress>;

    fn kind() -> String {
        "address or list of addresses".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        let mut addresses: Vec<ListenAddress> = Vec::new();
        let one = std::slice::from_ref(raw);
        let entries = if let RawValue::List(entries) = raw { entries.as_slice() } else { one };
        for entry in entries {
            let RawValue::Text(text) = entry else {
                return Err(Complaint::new(format!("{} is not an address", entry.describe()), LISTEN_HELP));
            };
            let address = parse_listen(text)?;
            if addresses.contains(&address) {
                return Err(Complaint::new(format!("`{address}` is listed twice"), "take one of them out"));
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Complaint::new("there is no address to listen on", LISTEN_HELP));
        }
        Ok(addresses)
    }

    fn show(value: &Self::Value) -> String {
        value.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Codec for HttpAddress {
    type Value = Option<SocketAddr>;

    fn kind() -> String {
        "address or `false`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        match raw {
            raw if raw.is_off() => Ok(None),
            RawValue::Text(text) => parse_tcp(text, 9632).map(Some),
            other => Err(Complaint::new(
                format!("{} is not an address", other.describe()),
                "write \"127.0.0.1:9632\", or false to serve no HTTP",
            )),
        }
    }

    fn show(value: &Self::Value) -> String {
        value.map_or("off".to_owned(), |address| address.to_string())
    }
}

impl Codec for Workers {
    type Value = usize;

    fn kind() -> String {
        "integer or `\"auto\"`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<usize, Complaint> {
        if *raw == RawValue::Text("auto".to_owned()) {
            return Ok(Settings::default().workers);
        }
        Count::<1, 1024>::read(raw)
            .map_err(|complaint| Complaint { help: format!("{}, or \"auto\"", complaint.help), ..complaint })
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Codec for LogFilter {
    type Value = String;

    fn kind() -> String {
        "text".to_owned()
    }

    fn read(raw: &RawValue) -> Result<String, Complaint> {
        let help = "write one of \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a filter such as \"info,pgyard::session=debug\"";
        let RawValue::Text(text) = raw else {
            return Err(Complaint::new(format!("{} is not a log level", raw.describe()), help));
        };
        for directive in text.split(',').map(str::trim) {
            // A bare word that is no level would be taken for a module, and silence everything else.
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).to_ascii_lowercase();
            if !LEVELS.contains(&level.as_str()) {
                let help = closest(&level, &LEVELS).map_or(help.to_owned(), |name| format!("did you mean \"{name}\"?"));
                return Err(Complaint::new(format!("`{directive}` is not a log level"), help));
            }
        }
        match text.parse::<tracing_subscriber::filter::EnvFilter>() {
            Ok(_) => Ok(text.clone()),
            Err(error) => Err(Complaint::new(format!("`{text}` is not a log filter: {error}"), help)),
        }
    }

    fn show(value: &String) -> String {
        value.clone()
    }
}

impl Codec for LookupQuery {
    type Value = Option<String>;

    fn kind() -> String {
        "SQL or `false`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        match raw {
            raw if raw.is_off() => Ok(None),
            RawValue::Boolean(true) => Ok(Some(DEFAULT_LOOKUP_QUERY.to_owned())),
            RawValue::Text(text) if text == "default" => Ok(Some(DEFAULT_LOOKUP_QUERY.to_owned())),
            RawValue::Text(text) if text.contains("$1") => Ok(Some(text.clone())),
            RawValue::Text(_) => Err(Complaint::new(
                "the query does not use `$1`, the name of the role to look up",
                "write such as \"SELECT * FROM pgyard.lookup($1, $2)\"",
            )),
            other => {
                Err(Complaint::new(format!("{} is not a query", other.describe()), "write a query, or false for no look-up"))
            }
        }
    }

    fn show(value: &Self::Value) -> String {
        match value {
            Some(query) if query == DEFAULT_LOOKUP_QUERY => "default".to_owned(),
            Some(query) => query.clone(),
            None => "off".to_owned(),
        }
    }
}

const LISTEN_HELP: &str = "write \"127.0.0.1:6432\", \"[::]:6432\", \"unix:/run/pgyard\", or a list of these";

/// Reads `ip:port`, `ip`, `localhost:port`, `unix:/directory` or `unix:/directory/.s.PGSQL.port`.
fn parse_listen(text: &str) -> Result<ListenAddress, Complaint> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
    let Some(path) = path else {
        return parse_tcp(text, DEFAULT_LISTEN_PORT).map(ListenAddress::Tcp);
    };
    // `unix:///run/x` is how some write it.
    let path = if path.starts_with("//") { path.trim_start_matches('/').to_owned() } else { path.to_owned() };
    let path = if text.starts_with("unix://") { format!("/{path}") } else { path };
    if !path.starts_with('/') {
        return Err(Complaint::new(format!("`{text}` is not an absolute directory"), "write such as \"unix:/run/pgyard\""));
    }
    let (directory, port) = match path.rsplit_once("/.s.PGSQL.") {
        Some((directory, port)) => match port.parse() {
            Ok(port) => (PathBuf::from(directory), port),
            Err(_) => return Err(Complaint::new(format!("`{port}` is not a port"), "the socket is named such as .s.PGSQL.6432")),
        },
        None => (PathBuf::from(path), DEFAULT_LISTEN_PORT),
    };
    // The kernel's limit of a socket's name (sockaddr_un) includes the closing zero.
    if directory.join(format!(".s.PGSQL.{port}")).as_os_str().len() > 107 {
        let message = format!("the directory `{}` is too long", directory.display());
        return Err(Complaint::new(message, "a Unix socket's path has at most 107 bytes: choose a shorter directory"));
    }
    Ok(ListenAddress::Unix { directory: normal(&directory), port })
}

fn normal(directory: &Path) -> PathBuf {
    directory.components().collect()
}

fn parse_tcp(text: &str, default_port: u16) -> Result<SocketAddr, Complaint> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return parse_tcp(&format!("127.0.0.1:{port}"), default_port);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let help = match (host, port.parse::<u16>()) {
        ("" | "*", Ok(port)) => format!("write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for every address"),
        (_, Err(_)) if !host.is_empty() => format!("the port is a number from 0 to 65535, such as \"{host}:{default_port}\""),
        _ => format!("write an IP address and a port, such as \"127.0.0.1:{default_port}\" (names are not looked up here)"),
    };
    Err(Complaint::new(format!("`{text}` is not an address to listen on"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<C: Codec>(raw: RawValue, expect: &str) {
        let got = C::read(&raw).map_or_else(|complaint| complaint.message, |value| C::show(&value));
        assert_eq!(got, expect, "{raw:?}");
    }

    fn text(text: &str) -> RawValue {
        RawValue::Text(text.to_owned())
    }

    #[test]
    fn addresses() {
        check::<ListenAddresses>(text("127.0.0.1:6432"), "127.0.0.1:6432");
        check::<ListenAddresses>(text("localhost:7000"), "127.0.0.1:7000");
        check::<ListenAddresses>(text("0.0.0.0"), "0.0.0.0:6432");
        check::<ListenAddresses>(text("[::1]:6432"), "[::1]:6432");
        check::<ListenAddresses>(text("::"), "[::]:6432");
        check::<ListenAddresses>(text("unix:/run/pgyard"), "unix:/run/pgyard");
        check::<ListenAddresses>(text("unix:///run/pgyard/"), "unix:/run/pgyard");
        check::<ListenAddresses>(text("/run/x/.s.PGSQL.5432"), "unix:/run/x/.s.PGSQL.5432");
        check::<ListenAddresses>(RawValue::List(vec![text("127.0.0.1:1"), text("unix:/a")]), "127.0.0.1:1, unix:/a");
        check::<ListenAddresses>(RawValue::List(vec![text("127.0.0.1:1"), text("127.0.0.1:1")]), "`127.0.0.1:1` is listed twice");
        check::<ListenAddresses>(RawValue::List(vec![]), "there is no address to listen on");
        check::<ListenAddresses>(text("unix:run"), "`unix:run` is not an absolute directory");
        check::<ListenAddresses>(text("/x/.s.PGSQL.abc"), "`abc` is not a port");
        check::<ListenAddresses>(text("db.example:6432"), "`db.example:6432` is not an address to listen on");
        check::<ListenAddresses>(RawValue::Integer(6432), "`6432` is not an address");
        assert!(ListenAddresses::read(&text(&format!("unix:/{}", "a".repeat(120)))).is_err());
        assert!(parse_tcp("*:6432", 1).unwrap_err().help.contains("0.0.0.0:6432"));
        assert!(parse_tcp("10.0.0.1:99999", 6432).unwrap_err().help.contains("10.0.0.1:6432"));
        check::<HttpAddress>(RawValue::Boolean(false), "off");
        check::<HttpAddress>(text("0.0.0.0:80"), "0.0.0.0:80");
        check::<HttpAddress>(RawValue::Integer(80), "`80` is not an address");
    }

    #[test]
    fn filters_queries_and_workers() {
        check::<LogFilter>(text("info,pgyard::session=debug"), "info,pgyard::session=debug");
        check::<LogFilter>(text("inof"), "`inof` is not a log level");
        check::<LogFilter>(text("info,pgyard"), "`pgyard` is not a log level");
        check::<LogFilter>(RawValue::Integer(1), "`1` is not a log level");
        check::<LookupQuery>(RawValue::Boolean(false), "off");
        check::<LookupQuery>(text("default"), "default");
        check::<LookupQuery>(text("select f($1)"), "select f($1)");
        check::<LookupQuery>(text("select 1"), "the query does not use `$1`, the name of the role to look up");
        check::<Workers>(RawValue::Integer(3), "3");
        check::<Workers>(RawValue::Integer(0), "`0` is out of range");
        assert!(Workers::read(&text("auto")).unwrap() >= 1);
    }
}
