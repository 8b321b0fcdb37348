//! Settings from a command line alone: a primary, its replicas, and everything else by default.

use super::codec::RawValue;
use super::codec::{Codec, Complaint};
use super::file::resolve_host;
use super::listen::{HttpAddress, ListenAddresses};
use super::problem::{ConfigReport, Problem, ProblemKind, ProblemPlace, Severity};
use super::secrets::{FilePolicy, PemContent, check_file};
use super::settings::{DatabaseSettings, HostSettings, Settings};
use super::url::{HostDraft, parse_host};
use std::sync::Arc;

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuickOptions {
    /// The primary's URL. Its user probes, looks up clients' passwords and reads the catalogue; its database is what probes connect to.
    pub primary: String,
    /// The replicas, as URLs or `host:port`; they take what they lack from the primary's URL.
    pub replicas: Vec<String>,
    /// Addresses to listen on, as in the file. Empty: the default.
    pub listen: Vec<String>,
    /// The HTTP address, as in the file; `off` is none. `None`: the default.
    pub http: Option<String>,
}

/// Settings that serve every database of the given hosts, clients logging in as any role by its own password.
///
/// # Errors
/// Every problem of every option.
pub fn quick(options: &QuickOptions) -> Result<Settings, ConfigReport> {
    let mut problems = Vec::new();
    let mut settings = Settings::default();
    if !options.listen.is_empty() {
        let raw = RawValue::List(options.listen.iter().cloned().map(RawValue::Text).collect());
        keep(&mut problems, "--listen", ListenAddresses::read(&raw)).into_iter().for_each(|listen| settings.listen = listen);
    }
    if let Some(http) = &options.http {
        let read = HttpAddress::read(&RawValue::Text(http.clone()));
        keep(&mut problems, "--http", read).into_iter().for_each(|http| settings.http = http);
    }
    if settings.http.is_some_and(|http| http.port() != 0 && settings.listen.contains(&super::ListenAddress::Tcp(http))) {
        let complaint = Complaint::new("--http is the same address as --listen", "give it another port");
        problems.push(problem("--http", complaint));
    }
    let hosts = read_hosts(options, &mut problems);
    let database = DatabaseSettings { name: "*".to_owned(), hosts, ..DatabaseSettings::default() };
    settings.databases = vec![Arc::new(database)];
    if problems.is_empty() { Ok(settings) } else { Err(ConfigReport { problems }) }
}

/// One host out of a URL, as the file reads it: `postgres://user:password@host:5432/database?sslmode=require`.
///
/// # Errors
/// What is wrong with the URL; neither it nor its password is in the message.
pub fn from_url(url: &str) -> Result<HostSettings, ConfigReport> {
    let host = parse_host(&literal(url), &|_| None).and_then(|draft| resolve_host(draft, "postgres"));
    host.map_err(|complaint| ConfigReport { problems: vec![problem("URL", complaint)] })
}

fn read_hosts(options: &QuickOptions, problems: &mut Vec<Problem>) -> Vec<HostSettings> {
    let mut drafts: Vec<(String, HostDraft)> = Vec::new();
    let arguments = std::iter::once(("--primary".to_owned(), &options.primary))
        .chain(options.replicas.iter().enumerate().map(|(at, url)| (format!("--replica (number {})", at + 1), url)));
    for (argument, url) in arguments {
        if let Some(draft) = keep(problems, &argument, parse_host(&literal(url), &|_| None)) {
            drafts.push((argument, draft));
        }
    }
    let donor = drafts.first().map(|(_, draft)| draft.connection.clone()).unwrap_or_default();
    let mut hosts: Vec<HostSettings> = Vec::new();
    for (argument, mut draft) in drafts {
        // The database of the primary's URL is where probes go; clients name their own.
        draft.connection.inherit(&donor);
        let resolved = resolve_host(draft, "postgres").and_then(|host| {
            check_files(&host)?;
            let twin =
                |other: &HostSettings| (other.address == host.address && other.port == host.port) || other.name == host.name;
            if hosts.iter().any(twin) {
                return Err(Complaint::new(format!("{} is given twice", host.name), "leave one of them out"));
            }
            Ok(host)
        });
        hosts.extend(keep(problems, &argument, resolved));
    }
    hosts
}

/// A shell has filled in its variables already: `${` in an argument is meant as it stands.
fn literal(url: &str) -> String {
    url.replace("${", "$${")
}

fn check_files(host: &HostSettings) -> Result<(), Complaint> {
    let certificate = host.tls.certificate.as_ref();
    let files = [
        (host.tls.ca.as_ref(), PemContent::Certificate),
        (certificate.map(|(certificate, _)| certificate), PemContent::Certificate),
        (certificate.map(|(_, key)| key), PemContent::PrivateKey),
    ];
    for (path, content) in files {
        if let Some(path) = path {
            check_file(path, content, FilePolicy::Read)?;
        }
    }
    Ok(())
}

fn keep<T>(problems: &mut Vec<Problem>, argument: &str, result: Result<T, Complaint>) -> Option<T> {
    result.map_err(|complaint| problems.push(problem(argument, complaint))).ok()
}

fn problem(argument: &str, complaint: Complaint) -> Problem {
    Problem {
        severity: Severity::Error,
        kind: ProblemKind::BadValue,
        place: ProblemPlace::Argument(argument.to_owned()),
        message: complaint.message,
        help: Some(complaint.help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_LOOKUP_QUERY;

    fn options(primary: &str, replicas: &[&str]) -> QuickOptions {
        let replicas = replicas.iter().map(ToString::to_string).collect();
        QuickOptions { primary: primary.to_owned(), replicas, ..QuickOptions::default() }
    }

    #[test]
    fn serves_any_database_by_look_up() {
        let settings = quick(&QuickOptions {
            listen: vec!["127.0.0.1:7000".into(), "unix:/tmp".into()],
            http: Some("off".into()),
            ..options("postgres://yard:p%40@10.0.0.1/app?sslmode=require", &["postgres://10.0.0.2?weight=2", "10.0.0.3:5433"])
        })
        .unwrap();
        assert_eq!((settings.listen.len(), settings.http), (2, None));
        let database = &settings.databases[0];
        assert_eq!((database.name.as_str(), &database.server_name), ("*", &None));
        assert_eq!(database.auth.lookup_query.as_deref(), Some(DEFAULT_LOOKUP_QUERY));
        let names: Vec<&str> = database.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5433"]);
        for host in &database.hosts {
            assert_eq!((host.control.user.as_str(), host.control.database.as_str()), ("yard", "app"));
            assert_eq!(host.control.password.as_ref().map(|password| password.reveal()), Some("p@"));
            assert_eq!(host.tls.mode, crate::config::ServerTlsMode::Require);
        }
        assert_eq!(database.hosts[1].weight, 2);
    }

    #[test]
    fn reports_every_option() {
        let bad = QuickOptions {
            listen: vec!["nowhere:x".into()],
            http: Some("what".into()),
            ..options(
                "mysql://u:hunter2@h",
                &["postgres://u@b:hunter2/", "postgres://h?sslcert=/nonexistent&sslkey=/nonexistent"],
            )
        };
        let report = quick(&bad).unwrap_err().to_string();
        for expect in [
            "--listen: error",
            "--http: error",
            "--primary: error",
            "--replica (number 1): error",
            "number 2): error",
            "5 errors",
        ] {
            assert!(report.contains(expect), "{expect} is not in\n{report}");
        }
        assert!(!report.contains("hunter2"), "{report}");
        let twice = quick(&options("postgres://u@h", &["h"])).unwrap_err().to_string();
        assert!(twice.contains("h:5432 is given twice"), "{twice}");
        let userless = quick(&options("h", &[])).unwrap_err().to_string();
        assert!(userless.contains("no user is given"), "{userless}");
    }

    #[test]
    fn one_host() {
        let host = from_url("postgres://u:a${b}c@[::1]:6000/d").unwrap();
        assert_eq!((host.name.as_str(), host.address.as_str(), host.port), ("[::1]:6000", "::1", 6000));
        assert_eq!(host.control.password.unwrap().reveal(), "a${b}c");
        assert!(from_url("postgres://u:hunter2@h:x").unwrap_err().to_string().starts_with("URL: error: the port"));
    }
}
