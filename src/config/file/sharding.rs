//! `[[databases.NAME.shards]]`, `[[databases.NAME.sharded_tables]]` and `[databases.NAME.tables]`.

mod schemes;
mod tables;

use super::database::{read_hosts, resolve_hosts, server_name};
use super::reader::{Origins, Reader, Section, Span};
use super::unknown::check_unknown;
use super::{check, host};
use crate::config::codec::{Complaint, RawValue};
use crate::config::keys::{self, plain_names};
use crate::config::problem::ProblemKind;
use crate::config::settings::DatabaseSettings;
use crate::config::sharding::{COORDINATOR, ShardingSettings, shard_database_name};
use crate::config::url::Connection;
use crate::shard::map::SHARDS_MAX;
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeValue;

/// What a shard cannot be called, because it means something else where shards are named.
const RESERVED: [&str; 3] = ["refuse", "reference", COORDINATOR];

/// The database that is sharded.
pub(super) struct Parent<'t, 'i, 'a> {
    pub(super) section: Section<'t, 'i>,
    /// Its settings, but for the shards.
    pub(super) settings: &'a DatabaseSettings,
    /// How its hosts are reached.
    pub(super) connection: &'a Connection,
}

/// Reads the shards of a database and the places of its tables, if it is sharded.
pub(super) fn read(reader: &mut Reader, parent: &Parent, origins: &mut Origins) -> Option<Arc<ShardingSettings>> {
    let section = parent.section;
    let Some(value) = section.get("shards") else {
        let lost =
            plain_names(keys::SHARDS).chain(keys::names(keys::SHARDING)).filter_map(|key| Some((key, section.key_span(key)?)));
        for (key, span) in lost {
            let complaint =
                Complaint::new(format!("{key} has no effect without shards"), "add [[databases.NAME.shards]], or take it out");
            reader.error(ProblemKind::Contradiction, span, complaint);
        }
        return None;
    };
    let mut sharding = ShardingSettings::default();
    reader.read_keys(section, keys::SHARDING, &mut sharding, origins);
    for key in ["primary", "replicas", "hosts"] {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{key}` stands beside `shards`: a database has hosts of its own, or shards");
            let help = "write the hosts of each shard below its line [[databases.NAME.shards]]";
            reader.error(ProblemKind::Contradiction, span, Complaint::new(message, help));
        }
    }
    if parent.settings.name == "*" {
        let help = "write a section [databases.NAME] for each sharded database";
        reader.error(ProblemKind::Contradiction, value.span(), Complaint::new("`*` cannot be sharded", help));
    }
    let names = read_shards(reader, parent, value, &mut sharding);
    if !names.is_empty() {
        sharding.map = Arc::new(tables::read(reader, section, names));
    }
    sharding.coordinator = read_coordinator(reader, parent);
    sharding.served_by = reader.text_of(section, "served_by").map(|(name, _)| name);
    Some(Arc::new(sharding))
}

/// Sees that what serves another database's clients is there, sharded, and served by itself.
pub(super) fn check_served(reader: &mut Reader, section: Section, databases: &[DatabaseSettings]) {
    let served = |database: &DatabaseSettings| database.sharding.as_ref().and_then(|sharding| sharding.served_by.clone());
    for database in databases {
        let Some(name) = served(database) else { continue };
        let other = databases.iter().find(|other| other.name == name && other.sharding.is_some());
        let message = match other {
            None => format!("clients of `{}` are served by `{name}`, which is no sharded database", database.name),
            Some(other) if served(other).is_some() => {
                format!("clients of `{}` are served by `{name}`, whose clients are served by yet another", database.name)
            }
            Some(_) => continue,
        };
        let help = "name a sharded database of this file, or take served_by out";
        let span = section.key_span(&database.name).unwrap_or(0..0);
        reader.error(ProblemKind::Contradiction, span, Complaint::new(message, help));
    }
}

/// Reads `[databases.NAME.coordinator]`.
fn read_coordinator(reader: &mut Reader, parent: &Parent) -> Option<Arc<DatabaseSettings>> {
    let value = parent.section.get(COORDINATOR)?;
    let title = format!("[databases.{}.{COORDINATOR}]", parent.settings.name);
    let DeValue::Table(table) = value.get_ref() else {
        let help = format!("write {title}, and below it primary = \"postgres://...\"");
        let complaint = Complaint::new(format!("{COORDINATOR} has to be a table"), help);
        reader.error(ProblemKind::BadValue, value.span(), complaint);
        return None;
    };
    let section = Section { table, title: &title };
    let hosts = plain_names(keys::HOSTS).filter(|name| *name != "users");
    check_unknown(reader, section, &hosts.chain(plain_names(keys::CONNECTION)).collect::<Vec<_>>());
    Some(Arc::new(read_shard(reader, parent, section, (COORDINATOR, value.span()))))
}

/// Reads each shard into a database of its own; answers their names.
fn read_shards(reader: &mut Reader, parent: &Parent, value: &Spanned<DeValue>, sharding: &mut ShardingSettings) -> Vec<String> {
    let help = "begin each shard with a line [[databases.NAME.shards]], and write name and primary below it";
    let entries = tables_of(reader, value, "shards", help);
    if entries.is_empty() || entries.len() > SHARDS_MAX {
        let message = format!("shards has {} entries: from 1 to {SHARDS_MAX} are possible", entries.len());
        reader.error(ProblemKind::BadValue, value.span(), Complaint::new(message, help));
    }
    let title = format!("[[databases.{}.shards]]", parent.settings.name);
    let hosts = plain_names(keys::HOSTS).filter(|name| *name != "users");
    let known: Vec<&str> = plain_names(keys::SHARD).chain(hosts).chain(plain_names(keys::CONNECTION)).collect();
    let mut names: Vec<String> = Vec::new();
    for (table, span) in entries {
        let section = Section { table, title: &title };
        check_unknown(reader, section, &known);
        // A shard without a usable name still has its place, so that the numbers of the others are right.
        let name = read_name(reader, section, &span, &names);
        let shard = read_shard(reader, parent, section, (&name, span));
        let twin = shard.hosts.iter().find_map(|host| {
            let same = |other: &&Arc<DatabaseSettings>| {
                let at = |host: &crate::config::HostSettings| (host.address.clone(), host.port);
                other.server_name == shard.server_name && other.hosts.iter().any(|other| at(other) == at(host))
            };
            sharding.shards.iter().find(same).map(|other| (host.name.clone(), other.name.clone()))
        });
        if let Some((host, other)) = twin {
            let message = format!("`{host}` serves the same database for two shards, also for `{other}`");
            let help = "every shard has a database of its own: name another one behind the host, or another host";
            reader.error(ProblemKind::Contradiction, section.key_span("primary").unwrap_or(0..0), Complaint::new(message, help));
        }
        names.push(name);
        sharding.shards.push(Arc::new(shard));
    }
    names
}

fn read_name(reader: &mut Reader, section: Section, span: &Span, others: &[String]) -> String {
    let Some((name, span)) = reader.text_of(section, "name") else {
        if section.get("name").is_none() {
            let complaint = Complaint::new("this shard has no `name`", "write such as name = \"s0\"");
            reader.error(ProblemKind::MissingKey, span.clone(), complaint);
        }
        return String::new();
    };
    if others.contains(&name) {
        let complaint = Complaint::new(format!("two shards are called `{name}`"), "give each a name of its own");
        reader.error(ProblemKind::Contradiction, span, complaint);
    } else if RESERVED.contains(&name.as_str()) || !name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) {
        let complaint = Complaint::new(
            format!("a shard can't be called `{name}`"),
            "use letters, digits, `_`, `-` and `.`, and not the words refuse, reference and coordinator",
        );
        reader.error(ProblemKind::BadValue, span, complaint);
    }
    name
}

/// A shard's settings: those of the database with the shard's hosts.
fn read_shard(reader: &mut Reader, parent: &Parent, section: Section, (name, span): (&str, Span)) -> DatabaseSettings {
    let database = &parent.settings.name;
    let mut shard = DatabaseSettings { name: shard_database_name(database, name), server_name: None, ..parent.settings.clone() };
    let mut connection = host::read_connection(reader, section);
    let own = connection.database.clone();
    connection.inherit(parent.connection);
    let sources = read_hosts(reader, section, &span);
    let named = server_name(reader, &shard.name, own, &sources).or_else(|| parent.connection.database.clone());
    shard.server_name = Some(named.unwrap_or_else(|| database.clone()));
    connection.database.clone_from(&shard.server_name);
    let keys = ["primary", "replicas", "hosts"];
    let written: Vec<Span> = keys.iter().filter_map(|key| section.get(key).map(Spanned::span)).collect();
    if connection.user.is_some() || !reader.has_errors_in(&written) {
        shard.hosts = resolve_hosts(reader, sources, connection, &shard);
    }
    check::hosts(reader, &shard, &check::Places { origins: &Origins::new(), header: span, section });
    shard
}

/// The entries of a list of tables, each with the place of its first key.
fn tables_of<'t, 'i>(
    reader: &mut Reader,
    value: &'t Spanned<DeValue<'i>>,
    key: &str,
    help: &str,
) -> Vec<(&'t toml::de::DeTable<'i>, Span)> {
    let DeValue::Array(entries) = value.get_ref() else {
        reader.error(ProblemKind::BadValue, value.span(), Complaint::new(format!("{key} has to be a list of tables"), help));
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let DeValue::Table(table) = entry.get_ref() else {
            reader.error(
                ProblemKind::BadValue,
                entry.span(),
                Complaint::new(format!("an entry of {key} has to be a table"), help),
            );
            continue;
        };
        let first = Section { table, title: "" }.entries().first().map(|(_, span, _)| span.clone());
        found.push((table, first.unwrap_or(entry.span())));
    }
    found
}

/// The texts of a key that is a text or a list of texts, each with its place.
fn texts_of(reader: &mut Reader, section: Section, key: &str) -> Vec<(String, Span)> {
    let Some(value) = section.get(key) else { return Vec::new() };
    let values: Vec<&Spanned<DeValue>> = match value.get_ref() {
        DeValue::Array(values) => values.iter().collect(),
        _ => vec![value],
    };
    let mut texts = Vec::new();
    for value in &values {
        match reader.raw(value) {
            Some(RawValue::Text(text)) if !text.is_empty() => texts.push((text, value.span())),
            Some(_) => {
                let complaint =
                    Complaint::new(format!("{key} has to be a text or a list of texts"), format!("write {key} = \"...\""));
                reader.error(ProblemKind::BadValue, value.span(), complaint);
            }
            None => {}
        }
    }
    if values.is_empty() {
        reader.error(
            ProblemKind::BadValue,
            value.span(),
            Complaint::new(format!("{key} is empty"), format!("write {key} = \"...\"")),
        );
    }
    texts
}
