//! The tables of `docs/configuration.md`, made from the table of keys and the defaults.

use super::access::AccessRule;
use super::keys::{self, Key, PlainKey};
use super::settings::{DatabaseSettings, Settings, UserSettings};
use super::sharding::ShardingSettings;

/// The tables of the reference in Markdown, each with the name by which the document marks its place.
pub fn reference_tables() -> Vec<(&'static str, String)> {
    let settings = Settings::default();
    let database = DatabaseSettings::default();
    vec![
        ("top", keyed(keys::TOP, &settings)),
        ("log", keyed(keys::LOG, &settings)),
        ("limits", keyed(keys::LIMITS, &settings)),
        ("tls", listed(&[keys::TLS])),
        ("access", keyed(keys::ACCESS, &AccessRule::default())),
        ("peers", keyed(keys::PEERS, &settings) + &plain_rows(&[keys::PEER_LIST])),
        ("admin", listed(&[keys::ADMIN_USER])),
        ("databases", listed(&[keys::HOSTS, keys::CONNECTION])),
        ("sharding", listed(&[keys::SHARDS]) + &rows(keys::SHARDING, &ShardingSettings::default())),
        ("shard", listed(&[keys::SHARD])),
        ("sharded_tables", listed(&[keys::SHARDED_TABLES])),
        ("range", listed(&[keys::RANGE])),
        ("list", listed(&[keys::LIST])),
        ("host", listed(&[keys::HOST, keys::CONNECTION])),
        ("defaults", keyed(keys::DATABASE, &database)),
        ("users", listed(&[keys::USER_SECRETS]) + &rows(keys::USER, &UserSettings::default())),
    ]
}

const HEADER: &str = "| key | type | default | reload | meaning |\n|---|---|---|---|---|\n";

fn keyed<S>(keys: &[Key<S>], defaults: &S) -> String {
    format!("{HEADER}{}", rows(keys, defaults))
}

fn rows<S>(keys: &[Key<S>], defaults: &S) -> String {
    let row = |key: &Key<S>| {
        let kind = (key.kind)();
        let value = (key.show)(defaults);
        let bare = kind == "integer" || kind.starts_with("`true`");
        let default = match key.default_words {
            Some(words) => words.to_owned(),
            None if value.contains(' ') => value,
            None if bare => format!("`{value}`"),
            None => format!("`\"{value}\"`"),
        };
        line(key.name, &kind, &default, key.reload, key.meaning)
    };
    keys.iter().map(row).collect()
}

fn listed(tables: &[&[PlainKey]]) -> String {
    format!("{HEADER}{}", plain_rows(tables))
}

fn plain_rows(tables: &[&[PlainKey]]) -> String {
    let keys = tables.iter().flat_map(|table| table.iter());
    keys.map(|key| line(key.name, key.kind, key.default, true, key.meaning)).collect()
}

fn line(name: &str, kind: &str, default: &str, reload: bool, meaning: &str) -> String {
    let reload = if reload { "yes" } else { "**restart**" };
    format!("| `{name}` | {kind} | {default} | {reload} | {meaning} |\n")
}
