//! Hosts as text: `postgres://user:password@host:5432/database?sslmode=require`, `host:5432`, `[::1]`, `/run/postgresql`.
//!
//! URLs are read as libpq reads them, with one host each. Messages never contain the user, the password or a whole URL.
//!
//! Spec: PostgreSQL documentation, "Connection URIs".

use super::choice::NamedChoice;
use super::codec::{Codec, Complaint, Count, RawValue};
use super::environment::{Environment, Sealed};
use super::file::suggest::closest;
use super::settings::{RoleSetting, ServerTlsMode};
use crate::types::Secret;
use std::path::PathBuf;

/// How hosts are reached, as far as it was written; what is missing comes from further up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Connection {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<String>,
    pub(super) sslmode: Option<ServerTlsMode>,
    /// `Some(None)` is the system's roots.
    pub(super) sslrootcert: Option<Option<PathBuf>>,
    pub(super) sslcert: Option<PathBuf>,
    pub(super) sslkey: Option<PathBuf>,
}

/// A host as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostDraft {
    pub(super) address: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) name: Option<String>,
    pub(super) role: Option<RoleSetting>,
    pub(super) weight: Option<u32>,
    pub(super) connection: Connection,
    /// What was written but has no effect.
    pub(super) remarks: Vec<Complaint>,
}

impl Connection {
    /// Takes what is missing from `donor`. A password goes only with its user.
    pub(super) fn inherit(&mut self, donor: &Connection) {
        if self.user.is_none() || self.user == donor.user || donor.user.is_none() {
            self.password = self.password.take().or_else(|| donor.password.clone());
        }
        self.user = self.user.take().or_else(|| donor.user.clone());
        self.database = self.database.take().or_else(|| donor.database.clone());
        self.sslmode = self.sslmode.or(donor.sslmode);
        self.sslrootcert = self.sslrootcert.take().or_else(|| donor.sslrootcert.clone());
        if self.sslcert.is_none() && self.sslkey.is_none() {
            self.sslcert.clone_from(&donor.sslcert);
            self.sslkey.clone_from(&donor.sslkey);
        }
    }
}

/// Reads a host that is written as one text.
pub(super) fn parse_host(text: &str, environment: &Environment) -> Result<HostDraft, Complaint> {
    let mut sealed = Sealed::new(text.trim(), environment)?;
    if let Some(value) = sealed.only_variable() {
        // A whole URL out of a variable such as DATABASE_URL is a URL like any other; nothing in it is filled in again.
        sealed = Sealed::new(&value.replace("${", "$${"), environment)?;
    }
    let text = sealed.text.clone();
    if text.is_empty() {
        return Err(Complaint::new("the host is empty", HOST_HELP));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" => parse_url(rest, &sealed),
            "jdbc:postgresql" => Err(Complaint::new(
                "this is a JDBC URL",
                "leave `jdbc:` out, and write user and password before the host: \"postgres://user:password@host/database\"",
            )),
            "unix" => Err(Complaint::new(
                "a host's socket directory is written without `unix:`",
                "write the directory: \"/run/postgresql\"",
            )),
            _ => Err(Complaint::new("the URL is not one of PostgreSQL", HOST_HELP)),
        };
    }
    if text.split_whitespace().count() > 1 || text.contains('=') {
        return Err(Complaint::new(
            "this looks like a connection string of keywords",
            "write a URL, \"postgres://user:password@host/database\", or a table, { host = \"10.0.0.1\", user = \"pgyard\" }",
        ));
    }
    let mut draft = HostDraft::default();
    if text.contains('@') {
        return Err(Complaint::new("a host with a user has to be a URL", HOST_HELP));
    }
    set_host_and_port(&mut draft, &text, &sealed)?;
    Ok(draft)
}

const HOST_HELP: &str = "write \"postgres://user:password@host:5432/database\", \"host:5432\", or \"/run/postgresql\"";

/// Reads what follows `postgres://`.
fn parse_url(rest: &str, sealed: &Sealed) -> Result<HostDraft, Complaint> {
    let mut draft = HostDraft::default();
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let host_and_port = match authority.rsplit_once('@') {
        Some((credentials, host_and_port)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            draft.connection.user = Some(decode(user, sealed)?).filter(|user| !user.is_empty());
            draft.connection.password = match password {
                Some(password) => Some(decode(password, sealed)?).filter(|password| !password.is_empty()).map(Secret::new),
                None => None,
            };
            host_and_port
        }
        // Only a password can have brought the `@` behind the first slash.
        None if tail.contains('@') && authority.contains(':') => {
            return Err(Complaint::new(
                "the URL's password contains `/`, `?` or `#`",
                "percent-encode it: `/` is %2F, `?` is %3F, `#` is %23, `@` is %40; or use `password`, `password_file` or ${VARIABLE}",
            ));
        }
        None => authority,
    };
    if !host_and_port.is_empty() {
        set_host_and_port(&mut draft, host_and_port, sealed)?;
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    if tail.contains('#') {
        return Err(Complaint::new("the URL has a `#`", "percent-encode it: `#` is %23"));
    }
    let database = decode(path.trim_start_matches('/'), sealed)?;
    draft.connection.database = Some(database).filter(|database| !database.is_empty());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Complaint::new(
                format!("`{}` in the URL has no value", sealed_name(pair)),
                "write name=value after the `?`",
            ));
        };
        set_parameter(&mut draft, &decode(name, sealed)?, decode(value, sealed)?)?;
    }
    if draft.address.is_none() {
        return Err(Complaint::new("the URL names no host", HOST_HELP));
    }
    Ok(draft)
}

/// A parameter's name is safe to show; what stands behind a placeholder is not.
fn sealed_name(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

/// Names that a URL may have after its `?`.
const PARAMETERS: [&str; 12] =
    ["host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "name", "weight", "role"];

/// Parameters of libpq and of drivers that mean nothing here, with the reason.
const WITHOUT_EFFECT: [(&str, &str); 17] = [
    ("application_name", "pgyard names its own connections `pgyard`, and clients' connections as the client does"),
    ("fallback_application_name", "pgyard names its own connections `pgyard`"),
    ("connect_timeout", "set `connect_timeout` of the database instead"),
    ("target_session_attrs", "roles are probed"),
    ("load_balance_hosts", "set `balance` of the database instead"),
    ("channel_binding", "it is chosen by the server"),
    ("gssencmode", "GSS encryption is not used"),
    ("keepalives", "set `limits.tcp_keepalive` instead"),
    ("keepalives_idle", "set `limits.tcp_keepalive` instead"),
    ("keepalives_interval", "set `limits.tcp_keepalive` instead"),
    ("keepalives_count", "set `limits.tcp_keepalive` instead"),
    ("client_encoding", "clients choose their own"),
    ("sslnegotiation", "TLS is asked for in the classic way"),
    ("pgbouncer", "it is a setting of a driver"),
    ("schema", "it is a setting of a driver"),
    ("connection_limit", "set `pool_size` of the database instead"),
    ("pool_timeout", "set `checkout_timeout` of the database instead"),
];

fn set_parameter(draft: &mut HostDraft, name: &str, value: String) -> Result<(), Complaint> {
    let connection = &mut draft.connection;
    match name {
        "host" => draft.address = Some(check_address(value)?),
        "port" => draft.port = Some(parse_port(&value)?),
        "user" => connection.user = Some(value),
        "password" => connection.password = Some(Secret::new(value)),
        "dbname" => connection.database = Some(value),
        "sslmode" => connection.sslmode = Some(parse_sslmode(&value)?),
        "sslrootcert" => connection.sslrootcert = Some((value != "system").then(|| PathBuf::from(value))),
        "sslcert" => connection.sslcert = Some(PathBuf::from(value)),
        "sslkey" => connection.sslkey = Some(PathBuf::from(value)),
        "name" => draft.name = Some(value),
        "weight" => draft.weight = Some(parse_weight(&RawValue::Text(value))?),
        "role" => draft.role = Some(super::codec::Choice::<RoleSetting>::read(&RawValue::Text(value))?),
        "options" => {
            return Err(Complaint::new(
                "`options` in the URL cannot be passed on to clients' connections",
                "set them for the role: ALTER ROLE ... SET ...",
            ));
        }
        _ => {
            let known = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name);
            let Some((_, reason)) = known else {
                let name = sealed_name(name);
                let help = match closest(&name, &PARAMETERS) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known are {}", PARAMETERS.join(", ")),
                };
                return Err(Complaint::new(format!("unknown parameter `{name}` in the URL"), help));
            };
            draft.remarks.push(Complaint::new(format!("`{name}` in the URL has no effect: {reason}"), "leave it out"));
        }
    }
    Ok(())
}

/// Reads libpq's `sslmode`.
pub(super) fn parse_sslmode(value: &str) -> Result<ServerTlsMode, Complaint> {
    ServerTlsMode::from_name(value).ok_or_else(|| {
        let names: Vec<&str> = ServerTlsMode::CHOICES.iter().map(|(name, _)| *name).collect();
        let meant = closest(value, &names).map_or(String::new(), |name| format!("did you mean \"{name}\"? "));
        let listed = names.join("\", \"");
        Complaint::new(format!("`{value}` is not an sslmode"), format!("{meant}It is one of \"{listed}\""))
    })
}

/// Reads a weight.
pub(super) fn parse_weight(raw: &RawValue) -> Result<u32, Complaint> {
    Count::<0, 1_000_000>::read(raw).map(|weight| u32::try_from(weight).unwrap_or(u32::MAX))
}

/// Reads a port.
pub(super) fn parse_port(text: &str) -> Result<u16, Complaint> {
    let port = text.parse().ok().filter(|port| *port != 0);
    // What stands where a port should be may be a password that was not encoded: it is not shown.
    port.ok_or_else(|| {
        Complaint::new(
            "the port is not a number from 1 to 65535",
            "write such as \"host:5432\"; an IPv6 address stands in brackets, and a `:` in a password is %3A",
        )
    })
}

fn set_host_and_port(draft: &mut HostDraft, text: &str, sealed: &Sealed) -> Result<(), Complaint> {
    if text.contains(',') {
        return Err(Complaint::new(
            "there are several hosts in one text",
            "write each as a host of its own: hosts = [\"10.0.0.1\", \"10.0.0.2\"]",
        ));
    }
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let Some((host, tail)) = inner.split_once(']') else {
            return Err(Complaint::new("the `[` of an IPv6 address is never closed", "write such as \"[fe80::1]:5432\""));
        };
        (host, tail.strip_prefix(':').or((!tail.is_empty()).then_some(tail)))
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() || text.starts_with('/') {
        (text, None)
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let host = decode(host, sealed)?;
    if !host.is_empty() {
        draft.address = Some(check_address(host)?);
    }
    draft.port = match port {
        Some(port) if !port.is_empty() => Some(parse_port(&decode(port, sealed)?)?),
        _ => None,
    };
    Ok(())
}

/// A name, an address or a directory, or a complaint.
pub(super) fn check_address(host: String) -> Result<String, Complaint> {
    let host = host.trim_matches(['[', ']']).to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.starts_with('/') || host.parse::<std::net::IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(plain)) {
        return Ok(host);
    }
    // `%` is the zone of a link-local IPv6 address.
    if host.contains(':') && host.chars().all(|c| plain(c) || c == ':' || c == '%') && host.contains('%') {
        return Ok(host);
    }
    Err(Complaint::new("the host is not a name, an address or a directory", HOST_HELP))
}

/// Decodes `%41`, then fills in variables (whose values are taken as they are).
fn decode(text: &str, sealed: &Sealed) -> Result<String, Complaint> {
    let bad = || Complaint::new("a `%` in the URL is not followed by two hexadecimal digits", "a literal `%` is written %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &tail[2..];
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Complaint::new("the URL's percent-encoding is not UTF-8", "encode as UTF-8"))?;
    if text.contains('\0') {
        return Err(Complaint::new("the URL contains a zero byte", "leave %00 out"));
    }
    Ok(sealed.open(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PASSWORD" => Some("p@ss/w:rd?%41".to_owned()),
            "URL" => Some("postgres://u:p%40@h/d".to_owned()),
            "HOST" => Some("db.example".to_owned()),
            "PORT" => Some("7777".to_owned()),
            _ => None,
        }
    }

    /// user|password|host|port|database
    fn check(text: &str, expect: &str) {
        let got = match parse_host(text, &environment) {
            Ok(draft) => format!(
                "{}|{}|{}|{}|{}",
                draft.connection.user.unwrap_or_default(),
                draft.connection.password.map_or(String::new(), |password| password.reveal().to_owned()),
                draft.address.unwrap_or_default(),
                draft.port.map_or(String::new(), |port| port.to_string()),
                draft.connection.database.unwrap_or_default(),
            ),
            Err(complaint) => complaint.message,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn reads_hosts() {
        check("postgres://u:p@h:1/d", "u|p|h|1|d");
        check("postgresql://h", "||h||");
        check("POSTGRES://u@h/", "u||h||");
        check("postgres://u:p%40%2F@h/d%20e", "u|p@/|h||d e");
        check("postgres://u:p@q@h/d", "u|p@q|h||d");
        check("postgres://u:a:b@h/d", "u|a:b|h||d");
        check("postgres://[::1]:5433/d", "||::1|5433|d");
        check("postgres://[fe80::1%25eth0]/d", "||fe80::1%eth0||d");
        check("postgres://u@/d?host=/run/postgresql", "u||/run/postgresql||d");
        check("postgres:///d?host=h&port=3&user=u&password=p", "u|p|h|3|d");
        check("postgres://u@%2Frun%2Fpostgresql/d", "u||/run/postgresql||d");
        check("postgres://u:${PASSWORD}@h/d", "u|p@ss/w:rd?%41|h||d");
        check("postgres://u@${HOST}:${PORT}/d", "u||db.example|7777|d");
        check("${URL}", "u|p@|h||d");
        check("h", "||h||");
        check("h:5433", "||h|5433|");
        check("10.0.0.1", "||10.0.0.1||");
        check("::1", "||::1||");
        check("[::1]:5433", "||::1|5433|");
        check("/run/postgresql", "||/run/postgresql||");
        check("my-host.internal_1:5432", "||my-host.internal_1|5432|");
    }

    #[test]
    fn refuses_without_showing_secrets() {
        check("", "the host is empty");
        check("mysql://h/d", "the URL is not one of PostgreSQL");
        check("jdbc:postgresql://h/d", "this is a JDBC URL");
        check("host=h user=u password=hunter2", "this looks like a connection string of keywords");
        check("u:hunter2@h", "a host with a user has to be a URL");
        check("postgres://u:hun/ter2@h/d", "the URL's password contains `/`, `?` or `#`");
        check("postgres://u:hun#ter2@h/d", "the URL's password contains `/`, `?` or `#`");
        check("postgres://h:hunter2/d", "the port is not a number from 1 to 65535");
        check("postgres://h:0/d", "the port is not a number from 1 to 65535");
        check("postgres://h1,h2/d", "there are several hosts in one text");
        check("postgres://u@/d", "the URL names no host");
        check("postgres://h/d?host", "`host` in the URL has no value");
        check("postgres://h/d?sslmod=require", "unknown parameter `sslmod` in the URL");
        check("postgres://h/d?sslmode=always", "`always` is not an sslmode");
        check("postgres://h/d?options=-csearch_path%3Dx", "`options` in the URL cannot be passed on to clients' connections");
        check("postgres://h/%zz", "a `%` in the URL is not followed by two hexadecimal digits");
        check("postgres://h/%4", "a `%` in the URL is not followed by two hexadecimal digits");
        check("postgres://h/%ff", "the URL's percent-encoding is not UTF-8");
        check("postgres://h/%00", "the URL contains a zero byte");
        check("[::1", "the `[` of an IPv6 address is never closed");
        check("h!", "the host is not a name, an address or a directory");
        check("${NONE}", "the environment variable `NONE` is not set");
        check("postgres://h/d?weight=-1", "`-1` is out of range");
        check("postgres://h/d#x", "the URL has a `#`");
    }

    #[test]
    fn reads_parameters() {
        let draft = parse_host(
            "postgres://h/d?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k&name=r2&weight=3&role=replica",
            &environment,
        )
        .unwrap();
        assert_eq!(draft.connection.sslmode, Some(ServerTlsMode::VerifyFull));
        assert_eq!(draft.connection.sslrootcert, Some(Some(PathBuf::from("/ca"))));
        assert_eq!((draft.connection.sslcert, draft.connection.sslkey), (Some("/c".into()), Some("/k".into())));
        assert_eq!((draft.name.as_deref(), draft.weight, draft.role), (Some("r2"), Some(3), Some(RoleSetting::Replica)));
        let draft = parse_host("postgres://h/d?sslmode=allow&sslrootcert=system&connect_timeout=3", &environment).unwrap();
        assert_eq!(draft.remarks.len(), 1);
        assert_eq!(draft.connection.sslmode, Some(ServerTlsMode::Allow));
        assert_eq!(draft.connection.sslrootcert, Some(None));
    }

    #[test]
    fn a_password_is_inherited_with_its_user_only() {
        let donor = parse_host("postgres://a:pa@h/d?sslmode=require", &environment).unwrap().connection;
        let inherited = |text: &str| {
            let mut connection = parse_host(text, &environment).unwrap().connection;
            connection.inherit(&donor);
            (connection.user.unwrap(), connection.password.is_some(), connection.sslmode.unwrap())
        };
        assert_eq!(inherited("h2"), ("a".into(), true, ServerTlsMode::Require));
        assert_eq!(inherited("postgres://a@h2"), ("a".into(), true, ServerTlsMode::Require));
        assert_eq!(inherited("postgres://b@h2?sslmode=disable"), ("b".into(), false, ServerTlsMode::Disable));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(postgres://)?[a:@/?#%4\\[\\]=&\u{e4}${}A,. ]{0,30}") {
            let _ = parse_host(&text, &environment);
        }
    }
}
