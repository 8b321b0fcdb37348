//! The access list: who may come in from where, by which proof. After PostgreSQL's `pg_hba.conf` and `pg_ident.conf`.
//!
//! Rules are values; whether one matches a connection, and whether one leaves nothing for another, is computed here and nowhere else.
//!
//! Spec: PostgreSQL documentation, "The pg_hba.conf File" and "User Name Maps".

use super::settings::AuthMethod;
use std::fmt;
use std::net::IpAddr;

/// What a physical replication connection counts as, instead of a database. As in `pg_hba.conf`.
pub const REPLICATION_KEYWORD: &str = "replication";

/// One rule of the access list; the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRule {
    /// Which kind of connection it is for. Default `Any`.
    pub connection: ConnectionKind,
    /// Addresses that it is for; none is every address, and Unix sockets too.
    pub addresses: Vec<AddressRange>,
    /// Databases that it is for; none is every database, but no physical replication.
    pub databases: Vec<NamePattern>,
    /// Roles that it is for; none is every role.
    pub users: Vec<NamePattern>,
    /// What is asked of the client. Default `Auto`.
    pub method: AccessMethod,
    /// Whether a certificate is asked for besides. Default `Off`.
    pub client_cert: ClientCertRule,
    /// Where in the certificate the name is. Default the common name.
    pub cert_name: CertName,
    /// The user-name map that turns the certificate's or the system's name into roles; `None`: they are the same.
    pub map: Option<String>,
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Every kind.
    #[default]
    Any,
    /// TCP with TLS.
    Tls,
    /// TCP without TLS.
    Plain,
    /// A Unix socket.
    Unix,
}

/// What a rule asks of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMethod {
    /// The database's `auth`.
    #[default]
    Auto,
    /// SCRAM-SHA-256.
    Scram,
    /// MD5.
    Md5,
    /// The password in clear, over TLS or a Unix socket.
    Plain,
    /// Nothing.
    Trust,
    /// A certificate that names the role.
    Cert,
    /// A Unix socket whose other end runs as the user that the role is called after.
    Peer,
    /// The connection is refused.
    Reject,
}

/// What a rule wants of the client's certificate besides its method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertRule {
    /// Nothing.
    #[default]
    Off,
    /// There must be one, and its chain lead to `client_ca`.
    VerifyCa,
    /// It must name the role too.
    VerifyFull,
}

/// A field of a certificate that can name somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertName {
    /// The subject's common name.
    #[default]
    Cn,
    /// The whole subject, as RFC 4514 writes it: `CN=alice,OU=ops`.
    Dn,
    /// A DNS name of subjectAltName.
    Dns,
    /// An e-mail address of subjectAltName.
    Email,
    /// A URI of subjectAltName, such as a SPIFFE identity.
    Uri,
}

/// Addresses that begin with the same bits: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    prefix: u8,
}

/// A name, in which one `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    before: String,
    /// What follows the `*`; `None`: there is none, and the name must be the same.
    after: Option<String>,
}

/// A user-name map: the roles that may be taken by names from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMap {
    /// Its name.
    pub name: String,
    /// A name from elsewhere, and a role that it may take.
    pub entries: Vec<(NamePattern, NamePattern)>,
}

/// A connection that is held against the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessQuery<'a> {
    /// Its kind; never `Any`.
    pub connection: ConnectionKind,
    /// Where it comes from; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The database it names; `None` is physical replication.
    pub database: Option<&'a str>,
    /// The role it names.
    pub user: &'a str,
}

impl AccessRule {
    /// Whether the rule is for this connection.
    pub fn matches(&self, query: &AccessQuery<'_>) -> bool {
        let kind = self.connection == ConnectionKind::Any || self.connection == query.connection;
        let address = self.addresses.is_empty()
            || query.address.is_some_and(|address| self.addresses.iter().any(|range| range.contains(address)));
        let database = match query.database {
            Some(name) => self.databases.is_empty() || self.databases.iter().any(|pattern| pattern.matches(name)),
            None => self.databases.iter().any(NamePattern::is_replication),
        };
        let user = self.users.is_empty() || self.users.iter().any(|pattern| pattern.matches(query.user));
        kind && address && database && user
    }

    /// Whether the rule is for the database by its own name, and not because it is for many.
    pub fn names_database(&self, name: &str) -> bool {
        self.databases.iter().any(|pattern| pattern.after.is_none() && pattern.before == name)
    }

    /// Whether every connection that `later` is for is also for this rule, so that `later` never decides.
    pub fn covers(&self, later: &AccessRule) -> bool {
        let kind = self.connection == ConnectionKind::Any || self.connection == later.connection;
        let addresses = self.addresses.is_empty()
            || (!later.addresses.is_empty()
                && later.addresses.iter().all(|range| self.addresses.iter().any(|own| own.covers(range))));
        let every = |own: &[NamePattern], theirs: &[NamePattern]| {
            own.is_empty() || (!theirs.is_empty() && theirs.iter().all(|name| own.iter().any(|pattern| pattern.covers(name))))
        };
        let replication = |rule: &AccessRule| rule.databases.iter().any(NamePattern::is_replication);
        let databases = every(&self.databases, &later.databases) && (replication(self) || !replication(later));
        kind && addresses && databases && every(&self.users, &later.users)
    }

    /// The password method that it asks for; `None` is the database's own.
    pub fn password_method(&self) -> Option<AuthMethod> {
        match self.method {
            AccessMethod::Auto | AccessMethod::Reject => None,
            AccessMethod::Scram => Some(AuthMethod::Scram),
            AccessMethod::Md5 => Some(AuthMethod::Md5),
            AccessMethod::Plain => Some(AuthMethod::Plain),
            AccessMethod::Trust | AccessMethod::Cert | AccessMethod::Peer => Some(AuthMethod::Trust),
        }
    }

    /// Whether it looks at the client's certificate.
    pub fn wants_certificate(&self) -> bool {
        self.method == AccessMethod::Cert || self.client_cert != ClientCertRule::Off
    }
}

impl AddressRange {
    /// Reads `10.0.0.0/8`, `192.0.2.1`, `2001:db8::/32`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| {
            "write an IP address or a range, such as \"192.0.2.1\", \"10.0.0.0/8\" or \"fd00::/8\" (names are not looked up)"
                .to_owned()
        })?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or_else(|| format!("behind the slash is the number of bits that count, from 0 to {longest}"))?,
        };
        let range = AddressRange { address: masked(address, prefix), prefix };
        if range.address != address {
            return Err(format!("only the first {prefix} bits count: write \"{range}\""));
        }
        Ok(range)
    }

    /// Whether an address is in the range. IPv4 addresses that come as IPv6 are IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    fn covers(&self, other: &AddressRange) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into()),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = if self.address.is_ipv4() { 32 } else { 128 };
        match self.prefix {
            prefix if prefix == longest => self.address.fmt(f),
            prefix => write!(f, "{}/{prefix}", self.address),
        }
    }
}

impl NamePattern {
    /// Reads a name, in which one `*` may stand for any text.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pattern = match text.split_once('*') {
            None => NamePattern { before: text.to_owned(), after: None },
            Some((before, after)) => NamePattern { before: before.to_owned(), after: Some(after.to_owned()) },
        };
        match &pattern.after {
            Some(after) if after.contains('*') => Err("one `*` may stand in a name".to_owned()),
            None if text.is_empty() => Err("write a name, or \"*\" for every name".to_owned()),
            _ => Ok(pattern),
        }
    }

    /// The text that `*` stands for in `name`, or an empty one without `*`; `None` where the name does not fit.
    pub fn capture<'a>(&self, name: &'a str) -> Option<&'a str> {
        match &self.after {
            None => (self.before == name).then_some(""),
            Some(after) => name.strip_prefix(self.before.as_str())?.strip_suffix(after.as_str()),
        }
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        self.capture(name).is_some()
    }

    /// Whether it has a `*`.
    pub fn is_wild(&self) -> bool {
        self.after.is_some()
    }

    fn is_replication(&self) -> bool {
        self.after.is_none() && self.before == REPLICATION_KEYWORD
    }

    /// Whether each name that fits `other` fits this too.
    fn covers(&self, other: &NamePattern) -> bool {
        match (&self.after, &other.after) {
            (None, None) => self.before == other.before,
            (None, Some(_)) => false,
            (Some(_), None) => self.matches(&other.before),
            (Some(own), Some(theirs)) => other.before.starts_with(&self.before) && theirs.ends_with(own.as_str()),
        }
    }

    /// The name that comes out when `*` stands for `captured`.
    fn filled(&self, captured: &str) -> String {
        match &self.after {
            None => self.before.clone(),
            Some(after) => format!("{}{captured}{after}", self.before),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            None => f.write_str(&self.before),
            Some(after) => write!(f, "{}*{after}", self.before),
        }
    }
}

impl UserMap {
    /// Whether somebody called `name` elsewhere may take `role`.
    pub fn allows(&self, name: &str, role: &str) -> bool {
        self.entries.iter().any(|(from, to)| from.capture(name).is_some_and(|captured| to.filled(captured) == role))
    }
}

impl fmt::Display for AccessRule {
    /// The rule on one line, for logs and `SHOW CONFIG`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::NamedChoice;
        write!(f, "{}", self.connection.name())?;
        listed(f, "from", &self.addresses)?;
        listed(f, "database", &self.databases)?;
        listed(f, "user", &self.users)?;
        write!(f, ": {}", self.method.name())?;
        if self.client_cert != ClientCertRule::Off {
            write!(f, ", client_cert {}", self.client_cert.name())?;
        }
        if self.cert_name != CertName::Cn {
            write!(f, ", cert_name {}", self.cert_name.name())?;
        }
        self.map.as_ref().map_or(Ok(()), |map| write!(f, ", map {map}"))
    }
}

fn listed<T: fmt::Display>(f: &mut fmt::Formatter<'_>, what: &str, values: &[T]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        match index {
            0 => write!(f, " {what} {value}")?,
            _ => write!(f, ",{value}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    fn names(texts: &[&str]) -> Vec<NamePattern> {
        texts.iter().map(|text| NamePattern::parse(text).unwrap()).collect()
    }

    fn rule(connection: ConnectionKind, addresses: &[&str], databases: &[&str], users: &[&str]) -> AccessRule {
        let addresses = addresses.iter().map(|text| range(text)).collect();
        AccessRule { connection, addresses, databases: names(databases), users: names(users), ..AccessRule::default() }
    }

    #[test]
    fn addresses() {
        let check = |text: &str, address: &str, expect: bool| {
            assert_eq!(range(text).contains(address.parse().unwrap()), expect, "{text} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "fd00::1", true);
        check("::/0", "10.0.0.1", false);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("fd00::/8", "fdff::1", true);
        for bad in ["", "db1", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/x", "::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(AddressRange::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(range("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(range("::1").to_string(), "::1");
    }

    #[test]
    fn names_and_maps() {
        let check = |pattern: &str, name: &str, expect: Option<&str>| {
            assert_eq!(NamePattern::parse(pattern).unwrap().capture(name), expect, "{pattern} {name}");
        };
        check("alice", "alice", Some(""));
        check("alice", "alic", None);
        check("*", "", Some(""));
        check("app_*", "app_one", Some("one"));
        check("*@example.com", "al@example.com", Some("al"));
        check("a*a", "a", None);
        check("a*a", "aa", Some(""));
        assert!(NamePattern::parse("a*b*").is_err() && NamePattern::parse("").is_err());
        let entry = |from: &str, to: &str| (NamePattern::parse(from).unwrap(), NamePattern::parse(to).unwrap());
        let map = UserMap { name: "m".into(), entries: vec![entry("*@example.com", "*"), entry("deploy", "app")] };
        assert!(map.allows("alice@example.com", "alice") && map.allows("deploy", "app"));
        for (name, role) in [("alice@example.com", "bob"), ("deploy", "deploy"), ("app", "app"), ("x@evil.com", "x")] {
            assert!(!map.allows(name, role), "{name} {role}");
        }
    }

    #[test]
    fn a_rule_matches_what_it_says() {
        let query = |connection, address: Option<&str>, database, user| AccessQuery {
            connection,
            address: address.map(|text| text.parse().unwrap()),
            database,
            user,
        };
        let check = |rule: &AccessRule, query: &AccessQuery, expect| assert_eq!(rule.matches(query), expect, "{rule} {query:?}");
        use ConnectionKind::{Any, Plain, Tls, Unix};
        let open = rule(Any, &[], &[], &[]);
        check(&open, &query(Plain, Some("192.0.2.1"), Some("d"), "u"), true);
        check(&open, &query(Unix, None, Some("d"), "u"), true);
        check(&open, &query(Tls, Some("::1"), None, "u"), false);
        let replication = rule(Tls, &["10.0.0.0/8"], &["replication"], &["repl"]);
        check(&replication, &query(Tls, Some("10.1.1.1"), None, "repl"), true);
        check(&replication, &query(Plain, Some("10.1.1.1"), None, "repl"), false);
        check(&replication, &query(Tls, Some("10.1.1.1"), Some("d"), "repl"), false);
        check(&rule(Any, &["0.0.0.0/0"], &[], &[]), &query(Unix, None, Some("d"), "u"), false);
        check(&rule(Any, &[], &["app*"], &["al*"]), &query(Tls, Some("::1"), Some("apple"), "alice"), true);
        check(&rule(Any, &[], &["app*"], &["al*"]), &query(Tls, Some("::1"), Some("pear"), "alice"), false);
    }

    #[test]
    fn rules_that_leave_nothing_are_seen() {
        use ConnectionKind::{Any, Plain, Tls};
        let check = |first: &AccessRule, then: &AccessRule, expect| assert_eq!(first.covers(then), expect, "{first} / {then}");
        let open = rule(Any, &[], &[], &[]);
        let narrow = rule(Tls, &["10.1.0.0/16"], &["app"], &["alice"]);
        check(&open, &narrow, true);
        check(&narrow, &open, false);
        check(&rule(Plain, &[], &[], &[]), &narrow, false);
        check(&rule(Tls, &["10.0.0.0/8"], &["a*"], &["*"]), &narrow, true);
        check(&rule(Tls, &["10.1.1.0/24"], &[], &[]), &narrow, false);
        check(&open, &rule(Any, &[], &["replication"], &[]), false);
        check(&rule(Any, &[], &["*", "replication"], &[]), &rule(Any, &[], &["replication"], &[]), true);
        check(&rule(Any, &["0.0.0.0/0"], &[], &[]), &open, false);
    }

    proptest! {
        #[test]
        fn what_a_rule_covers_it_matches(address: u32, prefix in 0..=32u8, name in "[ab]{0,4}", text in "[ab]{0,2}\\*?[ab]{0,2}") {
            let whole = AddressRange { address: masked(IpAddr::V4(address.into()), prefix), prefix };
            prop_assert!(whole.contains(IpAddr::V4(address.into())));
            if let (Ok(pattern), Ok(exact)) = (NamePattern::parse(&text), NamePattern::parse(&name)) {
                prop_assert_eq!(pattern.covers(&exact), pattern.matches(&name));
            }
        }
    }
}
