//! `[defaults]` and `[databases.NAME]`: hosts, users and settings of each database.

use super::host::{self, HostSource};
use super::reader::{Origins, Reader, Section, Span};
use super::unknown::check_unknown;
use super::{check, section, sharding};
use crate::config::codec::Complaint;
use crate::config::keys::{self, names, plain_names};
use crate::config::problem::ProblemKind;
use crate::config::settings::{DatabaseSettings, HOSTS_MAX, HostSettings, Settings, UserSettings};
use crate::config::url::Connection;
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeValue;

/// What every database starts from.
#[derive(Default)]
struct Template {
    settings: DatabaseSettings,
    connection: Connection,
    origins: Origins,
}

/// Reads all databases, in the order of the file.
pub(super) fn read_all(reader: &mut Reader, top: Section, front: &Settings) -> Vec<Arc<DatabaseSettings>> {
    let mut template = Template::default();
    if let Some(defaults) = section(reader, top, "defaults", "[defaults]") {
        let known: Vec<&str> =
            names(keys::DATABASE).chain(plain_names(keys::CONNECTION)).filter(|name| *name != "database").collect();
        check_unknown(reader, defaults, &known);
        reader.read_keys(defaults, keys::DATABASE, &mut template.settings, &mut template.origins);
        template.connection = host::read_connection(reader, defaults);
    }
    let mut databases = Vec::new();
    let header = top.key_span("databases").unwrap_or(0..0);
    if let Some(section) = section(reader, top, "databases", "[databases.NAME]") {
        for (name, span, value) in section.entries() {
            let title = format!("[databases.{}]", quoted(name));
            let Some(table) = reader.table_of(value, &title) else { continue };
            let section = Section { table, title: &title };
            databases.push(read_one(reader, section, name, span, &template));
        }
        if section.table.is_empty() {
            missing(reader, header);
        }
        sharding::check_served(reader, section, &databases);
    } else if top.get("databases").is_none() {
        missing(reader, header);
    }
    check::listeners(reader, top, front, &databases);
    databases.into_iter().map(Arc::new).collect()
}

fn missing(reader: &mut Reader, span: Span) {
    let help = "write a section such as\n[databases.app]\nprimary = \"postgres://pgyard:${PGPASSWORD}@10.0.0.1/app\"\nreplicas = [\"10.0.0.2\"]";
    reader.error(ProblemKind::MissingKey, span, Complaint::new("there is no database", help));
}

/// The name as it stands in a section's title.
fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}

fn read_one(reader: &mut Reader, section: Section, name: &str, span: Span, template: &Template) -> DatabaseSettings {
    let sharding = plain_names(keys::SHARDS).chain(names(keys::SHARDING));
    let own = plain_names(keys::HOSTS).chain(plain_names(keys::CONNECTION)).chain(sharding);
    check_unknown(reader, section, &own.chain(names(keys::DATABASE)).collect::<Vec<_>>());
    let mut settings = DatabaseSettings { name: name.to_owned(), ..template.settings.clone() };
    let mut origins = template.origins.clone();
    reader.read_keys(section, keys::DATABASE, &mut settings, &mut origins);
    let mut connection = host::read_connection(reader, section);
    let own_database = connection.database.clone();
    connection.inherit(&template.connection);
    settings.users = read_users(reader, section);
    settings.clients.note_rates(&settings.users);
    let parent = sharding::Parent { section, settings: &settings, connection: &connection };
    settings.sharding = sharding::read(reader, &parent, &mut origins);
    if settings.sharding.is_none() {
        let sources = read_hosts(reader, section, &span);
        settings.server_name = server_name(reader, name, own_database, &sources);
        // Where the first host could not be read, the others' user may have been lost with it: that is no problem of theirs.
        if connection.user.is_some() || !reader.has_errors_in(&written_hosts(section)) {
            settings.hosts = resolve_hosts(reader, sources, connection, &settings);
        }
    }
    check::database(reader, &settings, &check::Places { origins: &origins, header: span, section });
    settings
}

/// Where the hosts of a database are written.
fn written_hosts(section: Section) -> Vec<Span> {
    ["primary", "replicas", "hosts"].iter().filter_map(|key| section.get(key).map(Spanned::span)).collect()
}

pub(super) fn read_hosts(reader: &mut Reader, section: Section, span: &Span) -> Vec<HostSource> {
    let (primary, replicas, hosts) = (section.get("primary"), section.get("replicas"), section.get("hosts"));
    if let (Some(_), Some(hosts_span)) = (primary.or(replicas), section.key_span("hosts")) {
        let complaint = Complaint::new("`hosts` stands beside `primary` or `replicas`", "put all hosts under `hosts`, or none");
        reader.error(ProblemKind::Contradiction, hosts_span, complaint);
    }
    if let Some(value) = primary
        && matches!(value.get_ref(), DeValue::Array(_))
    {
        let complaint =
            Complaint::new("a database has one primary", "name the others under replicas = [...], or all under hosts = [...]");
        reader.error(ProblemKind::Contradiction, value.span(), complaint);
        return Vec::new();
    }
    let mut found: Vec<HostSource> = primary.and_then(|value| host::read(reader, value)).into_iter().collect();
    let mut empty = false;
    for (key, list) in [("replicas", replicas), ("hosts", hosts)] {
        let Some(list) = list else { continue };
        let DeValue::Array(values) = list.get_ref() else {
            let complaint = Complaint::new(format!("{key} has to be a list"), format!("put brackets around it: {key} = [...]"));
            reader.error(ProblemKind::BadValue, list.span(), complaint);
            continue;
        };
        empty |= values.is_empty();
        found.extend(values.iter().filter_map(|value| host::read(reader, value)));
    }
    let written = primary.or(replicas).or(hosts).is_some();
    if found.is_empty() && (!written || (empty && primary.is_none())) {
        let help = "write primary = \"postgres://pgyard:${PGPASSWORD}@10.0.0.1/app\", or hosts = [...] with several of these";
        reader.error(ProblemKind::MissingKey, span.clone(), Complaint::new(format!("{} has no hosts", section.title), help));
    }
    if found.len() > HOSTS_MAX {
        let text = format!("{} has {} hosts; at most {HOSTS_MAX} can be watched", section.title, found.len());
        let help = "spread them over several entries under databases, or leave hosts out";
        reader.error(ProblemKind::Contradiction, span.clone(), Complaint::new(text, help));
    }
    found
}

/// The database's name on the servers, where it is not the client's. All hosts of a database serve the same one.
pub(super) fn server_name(reader: &mut Reader, name: &str, own: Option<String>, sources: &[HostSource]) -> Option<String> {
    let mut chosen = own.clone();
    for source in sources {
        let Some(database) = &source.draft.connection.database else { continue };
        match &chosen {
            Some(other) if other != database => {
                let message = format!("this host serves `{database}`, but the database on the servers is `{other}`");
                let help = "all hosts of a database hold the same one: make another [databases.NAME] for the other";
                reader.error(ProblemKind::Contradiction, source.span.clone(), Complaint::new(message, help));
            }
            Some(_) => {}
            None => chosen = Some(database.clone()),
        }
    }
    // Under `*` the name in a URL only says what probes connect to: clients get the database that they name.
    let chosen = if name == "*" { own } else { chosen };
    chosen.filter(|chosen| chosen != name)
}

pub(super) fn resolve_hosts(
    reader: &mut Reader,
    sources: Vec<HostSource>,
    connection: Connection,
    settings: &DatabaseSettings,
) -> Vec<HostSettings> {
    let donor = sources.first().map(|source| source.draft.connection.clone()).unwrap_or_default();
    let fallback = if settings.name == "*" { "postgres" } else { &settings.name };
    let probed = settings.server_name.as_deref().unwrap_or(fallback).to_owned();
    let mut hosts: Vec<HostSettings> = Vec::new();
    for HostSource { mut draft, span } in sources {
        draft.connection.inherit(&connection);
        draft.connection.inherit(&donor);
        let Some(mut host) = reader.accept(ProblemKind::MissingKey, &span, host::resolve(draft, &probed)) else { continue };
        let pair = host.tls.certificate.as_ref();
        let files = [host.tls.ca.as_ref(), pair.map(|(certificate, _)| certificate), pair.map(|(_, key)| key)];
        host.tls.content = reader.content_of(files.into_iter().flatten());
        if let Some(twin) = hosts.iter().find(|other| other.address == host.address && other.port == host.port) {
            let message = format!("{}:{} is listed twice (as `{}` before)", host.address, host.port, twin.name);
            reader.error(ProblemKind::Contradiction, span, Complaint::new(message, "take one of them out"));
        } else if hosts.iter().any(|other| other.name == host.name) {
            let message = format!("two hosts are named `{}`", host.name);
            reader.error(ProblemKind::Contradiction, span, Complaint::new(message, "give each a name of its own"));
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn read_users(reader: &mut Reader, database: Section) -> Vec<UserSettings> {
    let title = "[databases.NAME.users.ROLE]";
    let Some(users) = section(reader, database, "users", title) else { return Vec::new() };
    let known: Vec<&str> = plain_names(keys::USER_SECRETS).chain(names(keys::USER)).collect();
    let mut found = Vec::new();
    for (name, _, value) in users.entries() {
        let mut user = UserSettings { name: name.to_owned(), ..UserSettings::default() };
        read_user(reader, value, &known, &mut user);
        found.push(user);
    }
    found
}

fn read_user(reader: &mut Reader, value: &Spanned<DeValue>, known: &[&str], user: &mut UserSettings) {
    let title = format!("[databases.NAME.users.{}]", quoted(&user.name));
    match value.get_ref() {
        // `alice = "password"` is a short form.
        DeValue::String(_) => user.secret = reader.secret_value(value, "password"),
        DeValue::Table(table) => {
            let section = Section { table, title: &title };
            check_unknown(reader, section, known);
            user.secret = reader.secret_of(section, "password", "password_file");
            user.server_password = reader.secret_of(section, "server_password", "server_password_file");
            reader.read_keys(section, keys::USER, user, &mut Origins::new());
        }
        _ => {
            // It may be a password that lost its quotes.
            reader.hide(value);
            let complaint = Complaint::new(
                format!("{title} has to be a section or a password"),
                "write { password = \"${NAME}\", pool_size = 5 }",
            );
            reader.error(ProblemKind::BadValue, value.span(), complaint);
        }
    }
}
