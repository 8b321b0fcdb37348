//! The settings of a sharded database.

use super::settings::DatabaseSettings;
use crate::shard::{ShardMap, TablePlace};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The shards of a database, and where its tables are.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardingSettings {
    /// Each shard as a database of its own, in the order of the map: with the sharded database's settings, its own hosts, and the name
    /// of [`shard_database_name`], which no client can use.
    pub shards: Vec<Arc<DatabaseSettings>>,
    /// Where rows are.
    pub map: Arc<ShardMap>,
    /// The database in which PostgreSQL itself sees all shards, named like a shard; `None`: what the shards can't answer is refused.
    pub coordinator: Option<Arc<DatabaseSettings>>,
    /// The sharded database that serves the clients of this one, since its rows have moved there. Default: none.
    pub served_by: Option<String>,
    /// Bytes of the shards' rows that one statement may hold to put its answer together. Default 64MiB.
    pub gather_memory: usize,
}

impl Default for ShardingSettings {
    fn default() -> Self {
        ShardingSettings { shards: Vec::new(), map: Arc::default(), coordinator: None, served_by: None, gather_memory: 64 << 20 }
    }
}

impl ShardingSettings {
    /// The places of tables in words, each with the tables that are there.
    pub fn table_places(&self) -> Vec<(String, Vec<String>)> {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (table, place) in &self.map.tables {
            places.entry(self.describe_place(place)).or_default().push(format!("{}.{}", table.schema, table.name));
        }
        places.values_mut().for_each(|tables| tables.sort());
        places.into_iter().collect()
    }

    /// A table's place in words.
    pub fn describe_place(&self, place: &TablePlace) -> String {
        match place {
            TablePlace::Reference => "reference".to_owned(),
            TablePlace::Single(shard) => self.map.shards.get(*shard).cloned().unwrap_or_default(),
            TablePlace::Sharded(table) => {
                let types = table.types.as_deref().unwrap_or_default();
                let column = |(place, name): (usize, &String)| match types.get(place) {
                    Some(kind) => format!("{name} {}", kind.name()),
                    None => name.clone(),
                };
                let key: Vec<String> = table.key.iter().enumerate().map(column).collect();
                format!("by {}, {}", key.join(", "), table.scheme.describe(&self.map.shards))
            }
        }
    }
}

/// What the coordinator is called where shards are named.
pub const COORDINATOR: &str = "coordinator";

/// The name of a shard as a database: in metrics, the console and logs.
pub fn shard_database_name(database: &str, shard: &str) -> String {
    format!("{database}/{shard}")
}
