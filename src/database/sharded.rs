//! A database whose rows are spread over shards: its map, and the shards as databases of their own.

use super::directory::Database;
use crate::config::DatabaseSettings;
use crate::metrics::{Registry, ShardedMetrics};
use crate::shard::ShardMap;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// One sharded database as clients name it.
pub struct ShardedDatabase {
    /// The name clients use.
    pub name: Arc<str>,
    /// Its shards, in the map's order: each an ordinary database named `shop/s0`, which clients can't name.
    pub shards: Vec<Arc<Database>>,
    /// What is counted of it.
    pub metrics: ShardedMetrics,
    map: ArcSwap<ShardMap>,
    settings: ArcSwap<DatabaseSettings>,
}

impl std::fmt::Debug for ShardedDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardedDatabase").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of a shard's own database.
pub fn shard_database_name(database: &str, shard: &str) -> String {
    format!("{database}/{shard}")
}

impl ShardedDatabase {
    /// The database with these shards, of which there is at least one.
    pub fn new(settings: Arc<DatabaseSettings>, map: ShardMap, shards: Vec<Arc<Database>>, registry: &Registry) -> Arc<Self> {
        let name = settings.name.as_str().into();
        let metrics = ShardedMetrics::new(registry, &settings.name);
        Arc::new(ShardedDatabase { name, shards, metrics, map: ArcSwap::from_pointee(map), settings: ArcSwap::new(settings) })
    }

    /// The shard that logs clients in and whose catalogue stands for all.
    pub fn first(&self) -> &Arc<Database> {
        &self.shards[0]
    }

    /// Where rows are.
    pub fn map(&self) -> Arc<ShardMap> {
        self.map.load_full()
    }

    /// The settings of the whole.
    pub fn settings(&self) -> Arc<DatabaseSettings> {
        self.settings.load_full()
    }

    /// Goes on under new settings with the same shards.
    pub fn apply(&self, settings: Arc<DatabaseSettings>, map: ShardMap) {
        self.map.store(Arc::new(map));
        self.settings.store(settings);
    }
}
