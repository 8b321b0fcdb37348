//! The SQL that makes a coordinator, from the shards and the map. Pure.

use crate::config::{DatabaseSettings, ServerTlsMode};
use crate::shard::{QualifiedName, Scheme, ShardMap, TablePlace};
use std::collections::BTreeMap;

/// Prefix of everything in the coordinator that is named after a shard: foreign servers and schemas.
const PREFIX: &str = "pgyard_";

/// The comment by which objects are known that a synchronisation made, so that the next one may drop them.
pub const MARK: &str = "pgyard coordinator";

/// Rows that a foreign scan fetches at once.
const FETCH_SIZE: usize = 10_000;

/// How the coordinator's server reaches a shard.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardServer {
    /// The shard's name in the map.
    pub name: String,
    /// Its hosts with their ports: whichever takes writes is used.
    pub hosts: Vec<(String, u16)>,
    /// The database on it.
    pub database: String,
    /// libpq's `sslmode`.
    pub ssl_mode: &'static str,
    /// The role that reads, with its password: what each of the coordinator's users may read is decided by grants in the coordinator.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<String>,
}

impl std::fmt::Debug for ShardServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("ShardServer").field("name", &self.name).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl ShardServer {
    /// A shard as its settings say. The role that probes its hosts reads for the coordinator too.
    pub fn of(name: &str, shard: &DatabaseSettings) -> Self {
        let first = shard.hosts.first();
        let ssl_mode = first.map_or("prefer", |host| match host.tls.mode {
            ServerTlsMode::Disable => "disable",
            ServerTlsMode::Allow => "allow",
            ServerTlsMode::Prefer => "prefer",
            // The files that prove a server's name are on pgyard's machine, not on the coordinator's.
            ServerTlsMode::Require | ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull => "require",
        });
        ShardServer {
            name: name.to_owned(),
            hosts: shard.hosts.iter().map(|host| (host.address.clone(), host.port)).collect(),
            database: shard.server_name.clone().unwrap_or_else(|| shard.name.clone()),
            ssl_mode,
            user: first.map(|host| host.control.user.clone()).unwrap_or_default(),
            password: first.and_then(|host| host.control.password.as_ref()).map(|password| password.reveal().to_owned()),
        }
    }
}

/// What a coordinator consists of.
#[derive(Clone, Debug)]
pub struct CoordinatorLayout<'a> {
    /// The shards in the map's order.
    pub shards: &'a [ShardServer],
    /// Where tables are.
    pub map: &'a ShardMap,
    /// The tables that the first shard has and whose rows anybody may see whom grants allow to.
    pub tables: &'a [QualifiedName],
}

/// A name as SQL writes it.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A constant as SQL writes it, whatever `standard_conforming_strings` says.
pub fn quote_text(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A table's full name as SQL writes it.
pub fn quote_table(table: &QualifiedName) -> String {
    format!("{}.{}", quote_name(&table.schema), quote_name(&table.name))
}

impl CoordinatorLayout<'_> {
    /// Makes the foreign servers and how users reach them. What was there under their names goes away, with all foreign tables.
    pub fn servers(&self) -> Vec<String> {
        let mut statements = vec!["CREATE EXTENSION IF NOT EXISTS postgres_fdw".to_owned()];
        for shard in self.shards {
            let server = quote_name(&server_name(&shard.name));
            let hosts: Vec<&str> = shard.hosts.iter().map(|(host, _)| host.as_str()).collect();
            let ports: Vec<String> = shard.hosts.iter().map(|(_, port)| port.to_string()).collect();
            let several = if hosts.len() > 1 { ", target_session_attrs 'read-write'" } else { "" };
            statements.push(format!("DROP SERVER IF EXISTS {server} CASCADE"));
            statements.push(format!(
                "CREATE SERVER {server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host {}, port {}, dbname {}, sslmode {}{several}, \
                 use_remote_estimate 'true', updatable 'false', fetch_size '{FETCH_SIZE}', async_capable 'true')",
                quote_text(&hosts.join(",")),
                quote_text(&ports.join(",")),
                quote_text(&shard.database),
                quote_text(shard.ssl_mode),
            ));
            // Without one, users who are no superusers are let through only if the mapping says so.
            let password = match shard.password.as_deref() {
                Some(password) => format!(", password {}", quote_text(password)),
                None => ", password_required 'false'".to_owned(),
            };
            statements.push(format!(
                "CREATE USER MAPPING FOR PUBLIC SERVER {server} OPTIONS (user {}{})",
                quote_text(&shard.user),
                password
            ));
        }
        statements
    }

    /// Makes the tables. The schemas of the first shard and its types are there already.
    pub fn foreign_tables(&self) -> Vec<String> {
        let mut statements = Vec::new();
        let mut sharded: BTreeMap<&str, Vec<&QualifiedName>> = BTreeMap::new();
        let mut whole: BTreeMap<(&str, usize), Vec<&QualifiedName>> = BTreeMap::new();
        for table in self.tables {
            match self.map.place(table) {
                Some(TablePlace::Sharded(_)) => sharded.entry(&table.schema).or_default().push(table),
                Some(TablePlace::Reference) => whole.entry((&table.schema, 0)).or_default().push(table),
                Some(TablePlace::Single(shard)) => whole.entry((&table.schema, *shard)).or_default().push(table),
                None => {}
            }
        }
        for (schema, tables) in &sharded {
            for shard in self.shards {
                let own = local_schema(&shard.name, schema);
                statements.push(format!("DROP SCHEMA IF EXISTS {own} CASCADE"));
                statements.push(format!("CREATE SCHEMA {own}"));
                statements.push(import(schema, tables, &shard.name, &own));
            }
            tables.iter().for_each(|table| statements.extend(self.parent(table)));
        }
        for ((schema, shard), tables) in &whole {
            let Some(shard) = self.shards.get(*shard) else { continue };
            statements.push(import(schema, tables, &shard.name, &quote_name(schema)));
            let mark = |table: &&QualifiedName| format!("COMMENT ON FOREIGN TABLE {} IS '{MARK}'", quote_table(table));
            statements.extend(tables.iter().map(mark));
        }
        statements
    }

    /// The table of a sharded table's own name, over its foreign tables.
    fn parent(&self, table: &QualifiedName) -> Vec<String> {
        let Some(TablePlace::Sharded(sharded)) = self.map.place(table) else { return Vec::new() };
        let Some(first) = self.shards.first() else { return Vec::new() };
        let name = quote_table(table);
        let child = |shard: &ShardServer| foreign_table(&shard.name, table);
        let key: Vec<String> = sharded.key.iter().map(|column| quote_name(column)).collect();
        // Only a hash is sure to be the partitions' own: ranges of texts are in the order of their bytes here, and a shard may have several.
        let hash = matches!(sharded.scheme, Scheme::Hash { .. });
        let partitioned = if hash { format!(" PARTITION BY HASH ({})", key.join(", ")) } else { String::new() };
        let mut statements = vec![format!("CREATE TABLE {name} (LIKE {}){partitioned}", child(first))];
        for (place, shard) in self.shards.iter().enumerate() {
            statements.push(match hash {
                true => format!(
                    "ALTER TABLE {name} ATTACH PARTITION {} FOR VALUES WITH (MODULUS {}, REMAINDER {place})",
                    child(shard),
                    self.shards.len()
                ),
                false => format!("ALTER FOREIGN TABLE {} INHERIT {name}", child(shard)),
            });
        }
        statements.push(format!("COMMENT ON TABLE {name} IS '{MARK}'"));
        statements
    }
}

/// What the foreign server of a shard is called.
pub fn server_name(shard: &str) -> String {
    format!("{PREFIX}{shard}")
}

/// A shard's part of a sharded table as SQL writes it.
pub fn foreign_table(shard: &str, table: &QualifiedName) -> String {
    format!("{}.{}", local_schema(shard, &table.schema), quote_name(&table.name))
}

/// The schema of a shard's foreign tables.
fn local_schema(shard: &str, schema: &str) -> String {
    quote_name(&format!("{PREFIX}{shard}_{schema}"))
}

fn import(schema: &str, tables: &[&QualifiedName], shard: &str, into: &str) -> String {
    let names: Vec<String> = tables.iter().map(|table| quote_name(&table.name)).collect();
    format!(
        "IMPORT FOREIGN SCHEMA {} LIMIT TO ({}) FROM SERVER {} INTO {into} OPTIONS (import_generated 'false')",
        quote_name(schema),
        names.join(", "),
        quote_name(&server_name(shard))
    )
}
