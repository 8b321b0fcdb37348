//! The settings of a sharded database.

use super::settings::DatabaseSettings;
use crate::shard::ShardMap;
use std::sync::Arc;

/// The shards of a database, and where its tables are.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardingSettings {
    /// Each shard as a database of its own, in the order of the map: with the sharded database's settings, its own hosts, and the name
    /// of [`shard_database_name`], which no client can use.
    pub shards: Vec<Arc<DatabaseSettings>>,
    /// Where rows are.
    pub map: Arc<ShardMap>,
    /// Bytes of the shards' rows that one statement may hold to put its answer together. Default 64MiB.
    pub gather_memory: usize,
}

impl Default for ShardingSettings {
    fn default() -> Self {
        ShardingSettings { shards: Vec::new(), map: Arc::default(), gather_memory: 64 << 20 }
    }
}

/// The name of a shard as a database: in metrics, the console and logs.
pub fn shard_database_name(database: &str, shard: &str) -> String {
    format!("{database}/{shard}")
}
