//! Settings as a flat list of keys and values, for `SHOW CONFIG` and for comparing two configurations. Secrets are masked.

use super::choice::NamedChoice;
use super::keys::{self, Key};
use super::settings::{DatabaseSettings, HostSettings, Settings, UserSettings};
use super::sharding::{COORDINATOR, ShardingSettings};
use crate::types::Secret;
use std::path::PathBuf;

/// One key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// Such as `databases.app.max_lag`.
    pub(super) key: String,
    /// Such as `1s`; a secret is `***`.
    pub(super) value: String,
    /// As the value.
    pub(super) default: String,
    /// Whether a reload applies a change.
    pub(super) reload: bool,
    /// The secret behind `***`, to compare.
    pub(super) secret: Option<Secret>,
    /// What comes and goes as a whole: the database, host or user that the key is of.
    pub(super) owner: Option<String>,
}

/// Every setting: key, value, default, whether a reload applies a change. Secrets are shown as `***`.
pub fn settings_table(settings: &Settings) -> Vec<(String, String, String, bool)> {
    flatten(settings).into_iter().map(|shown| (shown.key, shown.value, shown.default, shown.reload)).collect()
}

/// Every setting, in the order of the documentation.
pub(super) fn flatten(settings: &Settings) -> Vec<Shown> {
    let mut list = Vec::new();
    let defaults = Settings::default();
    for (prefix, keys) in [("", keys::TOP), ("log.", keys::LOG), ("limits.", keys::LIMITS)] {
        add_keys(&mut list, prefix, keys, (settings, &defaults), None);
    }
    let tls = settings.tls.as_ref();
    let path = |path: Option<&PathBuf>| path.map_or("none".to_owned(), |path| path.display().to_string());
    add(&mut list, "tls.certificate", path(tls.map(|tls| &tls.certificate)), "none", None);
    add(&mut list, "tls.key", path(tls.map(|tls| &tls.key)), "none", None);
    add(&mut list, "tls.client_ca", path(tls.and_then(|tls| tls.client_ca.as_ref())), "none", None);
    let optional = tls.is_some_and(|tls| tls.client_cert_optional);
    add(&mut list, "tls.client_cert", (if optional { "optional" } else { "required" }).to_owned(), "required", None);
    note_content(&mut list, "tls.certificate", tls.map_or(0, |tls| tls.content));
    add(&mut list, "tls.required", tls.is_some_and(|tls| tls.required).to_string(), "false", None);
    add_front(&mut list, settings, &defaults);
    for user in &settings.admin.users {
        let owner = format!("admin.users.{}", user.name);
        add_secret(&mut list, "password", Some(&user.secret), &owner);
    }
    for database in &settings.databases {
        add_database(&mut list, database);
    }
    list
}

/// The access list with its maps, a line for each rule, and the peers.
fn add_front(list: &mut Vec<Shown>, settings: &Settings, defaults: &Settings) {
    for (index, rule) in settings.front.access.iter().enumerate() {
        let key = format!("access.{}", index + 1);
        add(list, &key, rule.to_string(), "", Some(&key));
    }
    for map in &settings.front.user_maps {
        let entries: Vec<String> = map.entries.iter().map(|(from, role)| format!("{from} = {role}")).collect();
        let key = format!("user_maps.{}", map.name);
        add(list, &key, entries.join(", "), "", Some(&key));
    }
    add_keys(list, "peers.", keys::PEERS, (settings, defaults), None);
    for peer in &settings.front.peers.others {
        let key = format!("peers.addresses.{}", peer.id);
        add(list, &key, format!("{}:{}", peer.address, peer.port), "", Some(&key));
    }
}

/// Lets a change of what files hold count as a change of the key that names them.
fn note_content(list: &mut [Shown], key: &str, content: u64) {
    if let Some(shown) = list.iter_mut().find(|shown| shown.key == key) {
        shown.secret = Some(Secret::new(content.to_string()));
    }
}

fn add_database(list: &mut Vec<Shown>, database: &DatabaseSettings) {
    let owner = format!("databases.{}", database.name);
    let server_name = database.server_name.clone().unwrap_or_else(|| "the client's".to_owned());
    add(list, &format!("{owner}.database"), server_name, "the client's", Some(&owner));
    add_keys(list, &format!("{owner}."), keys::DATABASE, (database, &DatabaseSettings::default()), Some(&owner));
    for host in &database.hosts {
        add_host(list, host, &format!("{owner}.hosts.{}", host.name));
    }
    if let Some(sharding) = &database.sharding {
        add_sharding(list, sharding, &owner);
    }
    for user in &database.users {
        let owner = format!("{owner}.users.{}", user.name);
        add_secret(list, "password", user.secret.as_ref(), &owner);
        add_secret(list, "server_password", user.server_password.as_ref(), &owner);
        add_keys(list, &format!("{owner}."), keys::USER, (user, &UserSettings::default()), Some(&owner));
    }
}

/// The shards in their order, with their hosts, and where each table is.
fn add_sharding(list: &mut Vec<Shown>, sharding: &ShardingSettings, owner: &str) {
    add_keys(list, &format!("{owner}."), keys::SHARDING, (sharding, &ShardingSettings::default()), Some(owner));
    let map = &sharding.map;
    add(list, &format!("{owner}.shards"), map.shards.join(", "), "", Some(owner));
    let unlisted = map.unlisted.as_ref().map_or("refuse".to_owned(), |place| sharding.describe_place(place));
    add(list, &format!("{owner}.unlisted_tables"), unlisted, "refuse", Some(owner));
    add(list, &format!("{owner}.served_by"), sharding.served_by.clone().unwrap_or_default(), "", Some(owner));
    let shards = map.shards.iter().zip(&sharding.shards).map(|(name, shard)| (format!("shards.{name}"), shard));
    for (place, shard) in shards.chain(sharding.coordinator.iter().map(|own| (COORDINATOR.to_owned(), own))) {
        let owner = format!("{owner}.{place}");
        add(list, &format!("{owner}.database"), shard.server_name.clone().unwrap_or_default(), "", Some(&owner));
        for host in &shard.hosts {
            add_host(list, host, &format!("{owner}.hosts.{}", host.name));
        }
    }
    let mut tables: Vec<_> = map.tables.iter().collect();
    tables.sort_by_key(|(table, _)| *table);
    for (table, place) in tables {
        let owner = format!("{owner}.tables.{}.{}", table.schema, table.name);
        add(list, &owner, sharding.describe_place(place), "", Some(&owner));
    }
}

fn add_host(list: &mut Vec<Shown>, host: &HostSettings, owner: &str) {
    let path = |path: Option<&PathBuf>, none: &str| path.map_or(none.to_owned(), |path| path.display().to_string());
    let certificate = host.tls.certificate.as_ref();
    let rows = [
        ("host", host.address.clone(), ""),
        ("port", host.port.to_string(), "5432"),
        ("role", host.role.name().to_owned(), "auto"),
        ("weight", host.weight.to_string(), "1"),
        ("user", host.control.user.clone(), ""),
        ("database", host.control.database.clone(), ""),
        ("sslmode", host.tls.mode.name().to_owned(), "prefer"),
        ("sslrootcert", path(host.tls.ca.as_ref(), "system"), "system"),
        ("sslcert", path(certificate.map(|(certificate, _)| certificate), "none"), "none"),
        ("sslkey", path(certificate.map(|(_, key)| key), "none"), "none"),
    ];
    for (name, value, default) in rows {
        add(list, &format!("{owner}.{name}"), value, default, Some(owner));
    }
    let named = if certificate.is_some() { "sslcert" } else { "sslrootcert" };
    note_content(list, &format!("{owner}.{named}"), host.tls.content);
    add_secret(list, "password", host.control.password.as_ref(), owner);
}

fn add_keys<S>(list: &mut Vec<Shown>, prefix: &str, keys: &[Key<S>], (settings, defaults): (&S, &S), owner: Option<&str>) {
    for key in keys {
        list.push(Shown {
            key: format!("{prefix}{}", key.name),
            value: (key.show)(settings),
            default: (key.show)(defaults),
            reload: key.reload,
            secret: None,
            owner: owner.map(str::to_owned),
        });
    }
}

fn add(list: &mut Vec<Shown>, key: &str, value: String, default: &str, owner: Option<&str>) {
    let owner = owner.map(str::to_owned);
    list.push(Shown { key: key.to_owned(), value, default: default.to_owned(), reload: true, secret: None, owner });
}

fn add_secret(list: &mut Vec<Shown>, name: &str, secret: Option<&Secret>, owner: &str) {
    list.push(Shown {
        key: format!("{owner}.{name}"),
        value: secret.map_or("none".to_owned(), |_| "***".to_owned()),
        default: "none".to_owned(),
        reload: true,
        secret: secret.cloned(),
        owner: Some(owner.to_owned()),
    });
}
