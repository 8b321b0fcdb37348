//! Who may come in: the access list, certificates, the kernel's word on who is at the other end of a Unix socket, and how
//! often log-ins may fail.
//!
//! Spec: PostgreSQL `src/backend/libpq/auth.c` and `hba.c`, whose texts are used.

use super::startup::ClientIdentity;
use crate::auth::{FailureLimit, FailureLimits, TransportSecurity};
use crate::config::{
    AccessMethod, AccessQuery, AccessRule, AuthMethod, CertName, ClientCertRule, ConnectionKind, FrontSettings,
    REPLICATION_KEYWORD, format_rate,
};
use crate::database::SeatLimit;
use crate::metrics::LoginFailureReason;
use crate::net::stream::Peer;
use crate::net::tls::certificate_names;
use crate::types::{Rate, SqlState};
use crate::wire::reply::Report;
use std::time::Duration;

/// Where the kernel's user ids have names.
const PASSWD: &str = "/etc/passwd";

/// A connection that wants in.
#[derive(Clone, Copy, Debug)]
pub struct Entrance<'a> {
    /// The role that it names.
    pub user: &'a str,
    /// The database that it names.
    pub database: &'a str,
    /// It is for physical replication, which has no database.
    pub physical: bool,
    /// Where it is.
    pub peer: &'a Peer,
    /// How safe it is.
    pub security: &'a TransportSecurity,
    /// What is known of it besides.
    pub identity: &'a ClientIdentity,
}

/// A connection that a rule lets try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// What it has to prove; `None`: what the database asks for.
    pub method: Option<AuthMethod>,
    /// It has proven who it is: by a certificate, or by the user that its process runs as.
    pub proven: bool,
}

/// Why a connection may not come in, for the metric and for the client.
pub type Denied = (LoginFailureReason, Report);

impl Entrance<'_> {
    fn query(&self) -> AccessQuery<'_> {
        let connection = match (self.peer, self.security) {
            (Peer::Unix, _) => ConnectionKind::Unix,
            (Peer::Tcp(_), TransportSecurity::Tls { .. }) => ConnectionKind::Tls,
            (Peer::Tcp(_), _) => ConnectionKind::Plain,
        };
        let database = (!self.physical).then_some(self.database);
        AccessQuery { connection, address: self.peer.ip(), database, user: self.user }
    }

    /// The connection in PostgreSQL's words.
    fn describe(&self) -> String {
        let host = self.peer.ip().map_or("[local]".to_owned(), |ip| ip.to_canonical().to_string());
        let encryption = match self.security {
            TransportSecurity::Tls { .. } => "SSL encryption",
            _ => "no encryption",
        };
        match self.physical {
            true => format!("replication connection for host \"{host}\", user \"{}\", {encryption}", self.user),
            false => {
                format!("connection for host \"{host}\", user \"{}\", database \"{}\", {encryption}", self.user, self.database)
            }
        }
    }
}

/// Holds a connection against the access list.
///
/// # Errors
/// No rule lets it in, or the one that decides wants a proof that it does not have.
pub async fn admit(settings: &FrontSettings, entrance: &Entrance<'_>) -> Result<Admitted, Denied> {
    if settings.access.is_empty() {
        return Ok(Admitted::default());
    }
    let query = entrance.query();
    decide(settings, entrance, settings.access.iter().enumerate().find(|(_, rule)| rule.matches(&query))).await
}

/// Holds a connection to the console against the rules that name it; `None` if none does, and the console's own rules decide alone.
///
/// # Errors
/// As [`admit`].
pub async fn admit_to_console(settings: &FrontSettings, entrance: &Entrance<'_>) -> Result<Option<Admitted>, Denied> {
    let rules = || settings.access.iter().enumerate().filter(|(_, rule)| rule.names_database(entrance.database));
    if rules().next().is_none() {
        return Ok(None);
    }
    let query = entrance.query();
    let found = rules().find(|(_, rule)| rule.matches(&query));
    decide(settings, entrance, found).await.map(Some)
}

async fn decide(
    settings: &FrontSettings,
    entrance: &Entrance<'_>,
    found: Option<(usize, &AccessRule)>,
) -> Result<Admitted, Denied> {
    let Some((index, rule)) = found else {
        tracing::info!(peer = %entrance.peer, user = entrance.user, database = entrance.database, "no access rule matches");
        return Err(refusal(LoginFailureReason::AccessRule, format!("no access rule allows {}", entrance.describe())));
    };
    let outcome = prove(settings, entrance, rule).await;
    if outcome.is_err() {
        let (user, database) = (entrance.user, entrance.database);
        tracing::info!(peer = %entrance.peer, user, database, rule = index + 1, says = %rule, "an access rule refused a connection");
    }
    outcome
}

async fn prove(settings: &FrontSettings, entrance: &Entrance<'_>, rule: &AccessRule) -> Result<Admitted, Denied> {
    let (user, identity) = (entrance.user, entrance.identity);
    if rule.method == AccessMethod::Reject {
        return Err(refusal(LoginFailureReason::AccessRule, format!("an access rule rejects {}", entrance.describe())));
    }
    if rule.wants_certificate() {
        let Some(certificate) = &identity.certificate else {
            let text = "connection requires a valid client certificate";
            return Err(refusal(LoginFailureReason::WrongIdentity, text.to_owned()));
        };
        let by_name = rule.method == AccessMethod::Cert || rule.client_cert == ClientCertRule::VerifyFull;
        let names = certificate_names(certificate, rule.cert_name);
        if by_name && !stands_for(settings, rule, &names, user) {
            tracing::info!(peer = %entrance.peer, user, ?names, field = field(rule.cert_name), "the certificate names somebody else");
            let text = format!("certificate authentication failed for user \"{user}\"");
            return Err(refusal(LoginFailureReason::WrongIdentity, text));
        }
    }
    if rule.method == AccessMethod::Peer {
        let names = match identity.uid {
            Some(uid) => system_names(uid).await,
            None => Vec::new(),
        };
        if !stands_for(settings, rule, &names, user) {
            tracing::info!(user, ?names, "the process at the other end runs as somebody else");
            return Err(refusal(LoginFailureReason::WrongIdentity, format!("Peer authentication failed for user \"{user}\"")));
        }
    }
    let proven = matches!(rule.method, AccessMethod::Cert | AccessMethod::Peer);
    Ok(Admitted { method: rule.password_method(), proven })
}

fn stands_for(settings: &FrontSettings, rule: &AccessRule, names: &[String], role: &str) -> bool {
    match &rule.map {
        None => names.iter().any(|name| name == role),
        Some(wanted) => {
            let map = settings.user_maps.iter().find(|map| map.name == *wanted);
            map.is_some_and(|map| names.iter().any(|name| map.allows(name, role)))
        }
    }
}

fn field(name: CertName) -> &'static str {
    use crate::config::NamedChoice;
    name.name()
}

fn refusal(reason: LoginFailureReason, text: String) -> Denied {
    (reason, Report::fatal(SqlState::INVALID_AUTHORIZATION, text))
}

/// What the system calls a user: the name in its list of users, and in any case the number.
async fn system_names(uid: u32) -> Vec<String> {
    let list = tokio::fs::read_to_string(PASSWD).await.unwrap_or_default();
    let named = list.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.take(1).chain([uid.to_string()]).collect()
}

/// The limits on failed log-ins.
pub fn failure_limits(settings: &FrontSettings) -> FailureLimits {
    FailureLimits {
        per_address: settings.failed_logins_per_address,
        per_user: settings.failed_logins_per_user,
        window: settings.failed_login_window,
    }
}

/// What a client is told whose log-in is not even tried.
pub fn too_many_failures((limit, wait): (FailureLimit, Duration), user: &str) -> Denied {
    let (whose, setting) = match limit {
        FailureLimit::Address => ("from your address".to_owned(), "failed_logins_per_address"),
        FailureLimit::User => (format!("for user \"{user}\""), "failed_logins_per_user"),
    };
    let report = Report::fatal(SqlState::CONFIGURATION_LIMIT_EXCEEDED, format!("too many failed log-ins {whose}"))
        .hint(format!("Try again in {} s; limits.{setting} says how many may fail.", wait.as_secs() + 1));
    (LoginFailureReason::TooManyFailures, report)
}

/// Whose log-ins are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRateLimit {
    /// Those from the client's address.
    Address(Rate),
    /// Those of its user.
    User(Rate),
}

/// What a client is told that logs in too soon after others.
pub fn too_many_logins((limit, wait): (LoginRateLimit, Duration), user: &str) -> Denied {
    let (reason, whose, setting, rate) = match limit {
        LoginRateLimit::Address(rate) => {
            (LoginFailureReason::AddressRate, "from your address".to_owned(), "login_rate_per_address", rate)
        }
        LoginRateLimit::User(rate) => (LoginFailureReason::UserRate, format!("of user \"{user}\""), "login_rate_per_user", rate),
    };
    let hint = format!("Try again in {:.3} s; limits.{setting} is {}.", wait.as_secs_f64(), format_rate(&rate));
    (reason, Report::fatal(SqlState::CONFIGURATION_LIMIT_EXCEEDED, format!("too many log-ins {whose}")).hint(hint))
}

/// What a client is told for whom there is no place.
pub fn no_seat(limit: SeatLimit, user: &str, database: &str) -> Denied {
    let (reason, text, hint) = match limit {
        SeatLimit::Role => (
            LoginFailureReason::TooManyClients,
            format!("too many connections for role \"{user}\""),
            "Raise max_clients of this user, or max_clients_per_user.",
        ),
        SeatLimit::Database => (
            LoginFailureReason::TooManyDatabaseClients,
            format!("too many connections for database \"{database}\""),
            "Raise max_clients of this database.",
        ),
    };
    (reason, Report::fatal(SqlState::TOO_MANY_CONNECTIONS, text).hint(hint))
}

/// The database by which a role is looked up: physical replication has none, and needs no right to connect to one.
pub fn lookup_database(physical: bool, server_name: String) -> String {
    if physical { REPLICATION_KEYWORD.to_owned() } else { server_name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> FrontSettings {
        let file = format!(
            "{text}\n[tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'ca'\n[databases.app]\nprimary = 'postgres://u@h'\n"
        );
        crate::config::parse(&file, "t.toml", &|_| None).unwrap().settings.front
    }

    async fn check(
        settings: &FrontSettings,
        user: &str,
        peer: Peer,
        security: TransportSecurity,
        uid: Option<u32>,
    ) -> Result<Admitted, String> {
        let identity = ClientIdentity { certificate: None, uid };
        let entrance = Entrance { user, database: "app", physical: false, peer: &peer, security: &security, identity: &identity };
        admit(settings, &entrance).await.map_err(|(_, report)| {
            assert_eq!(report.state, SqlState::INVALID_AUTHORIZATION);
            report.message
        })
    }

    #[tokio::test]
    async fn the_first_rule_decides() {
        let settings = settings(
            "listen = ['127.0.0.1:1', 'unix:/run/x']\n[[access]]\nconnection = 'unix'\nmethod = 'peer'\n[[access]]\nusers = 'mallory'\nmethod = 'reject'\n\
             [[access]]\naddresses = '10.0.0.0/8'\nmethod = 'scram'\n[[access]]\nconnection = 'tls'\nusers = 'al*'\nmethod = 'cert'",
        );
        let tcp = |text: &str| Peer::Tcp(text.parse().unwrap());
        let tls = TransportSecurity::Tls { endpoint_hash: None };
        let plain = TransportSecurity::Plaintext;
        let scram = Ok(Admitted { method: Some(AuthMethod::Scram), proven: false });
        assert_eq!(check(&settings, "al", tcp("10.1.1.1:5"), plain.clone(), None).await, scram);
        assert_eq!(
            check(&settings, "mallory", tcp("10.1.1.1:5"), plain.clone(), None).await,
            Err("an access rule rejects connection for host \"10.1.1.1\", user \"mallory\", database \"app\", no encryption"
                .into())
        );
        assert_eq!(
            check(&settings, "al", tcp("192.0.2.1:5"), plain, None).await,
            Err("no access rule allows connection for host \"192.0.2.1\", user \"al\", database \"app\", no encryption".into())
        );
        assert_eq!(
            check(&settings, "al", tcp("192.0.2.1:5"), tls, None).await,
            Err("connection requires a valid client certificate".into())
        );
        let unix = TransportSecurity::UnixSocket;
        let proven = Ok(Admitted { method: Some(AuthMethod::Trust), proven: true });
        assert_eq!(check(&settings, "root", Peer::Unix, unix.clone(), Some(0)).await, proven);
        assert_eq!(check(&settings, "0", Peer::Unix, unix.clone(), Some(0)).await, proven);
        let failed = Err("Peer authentication failed for user \"al\"".to_owned());
        assert_eq!(check(&settings, "al", Peer::Unix, unix.clone(), Some(0)).await, failed);
        assert_eq!(check(&settings, "al", Peer::Unix, unix, None).await, failed);
    }
}
