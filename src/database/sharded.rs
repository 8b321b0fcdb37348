//! A database whose rows are spread over shards: its map, and the shards as databases of their own.

use super::directory::Database;
use crate::cluster::{CatalogueSlot, CatalogueSource};
use crate::config::{DatabaseSettings, ShardingSettings};
use crate::metrics::{Registry, ShardedMetrics};
use crate::plan::{SCHEMA_SCRIPT, Schema, SchemaRow};
use crate::shard::ShardMap;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;

/// One sharded database as clients name it.
pub struct ShardedDatabase {
    /// The name clients use.
    pub name: Arc<str>,
    /// Its shards, in the map's order: each an ordinary database named `shop/s0`, which clients can't name.
    pub shards: Vec<Arc<Database>>,
    /// The database that answers what the shards can't, named `shop/coordinator`.
    pub coordinator: Option<Arc<Database>>,
    /// The schema that the coordinator shows.
    in_step: ArcSwapOption<Schema>,
    /// What is counted of it.
    pub metrics: ShardedMetrics,
    schema: Arc<CatalogueSlot<Schema>>,
    sharding: ArcSwap<ShardingSettings>,
    settings: ArcSwap<DatabaseSettings>,
}

impl std::fmt::Debug for ShardedDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardedDatabase").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ShardedDatabase {
    /// The database with these shards, of which there is at least one.
    pub fn new(
        settings: Arc<DatabaseSettings>,
        sharding: Arc<ShardingSettings>,
        (shards, coordinator): (Vec<Arc<Database>>, Option<Arc<Database>>),
        registry: &Registry,
    ) -> Arc<Self> {
        let name = settings.name.as_str().into();
        let metrics = ShardedMetrics::new(registry, &settings.name);
        let build = |rows: Vec<Vec<Option<String>>>| {
            let row = |row: Vec<Option<String>>| row.try_into().map_err(|_| "a row of the schema has another shape".to_owned());
            Ok(Schema::from_rows(rows.into_iter().map(row).collect::<Result<Vec<SchemaRow>, String>>()?))
        };
        let source = CatalogueSource { query: SCHEMA_SCRIPT, build: Arc::new(build) };
        let schema = shards[0].upstream().cluster.catalogues(source).slot(&shards[0].server_name());
        Arc::new(ShardedDatabase {
            name,
            shards,
            coordinator,
            in_step: ArcSwapOption::const_empty(),
            metrics,
            schema,
            sharding: ArcSwap::new(sharding),
            settings: ArcSwap::new(settings),
        })
    }

    /// The shard that logs clients in and whose catalogue stands for all.
    pub fn first(&self) -> &Arc<Database> {
        &self.shards[0]
    }

    /// Where rows are.
    pub fn map(&self) -> Arc<ShardMap> {
        self.sharding.load().map.clone()
    }

    /// Bytes of the shards' rows that one statement may hold.
    pub fn gather_memory(&self) -> usize {
        self.sharding.load().gather_memory
    }

    /// The settings of the whole.
    pub fn settings(&self) -> Arc<DatabaseSettings> {
        self.settings.load_full()
    }

    /// The schema of the first shard, which is that of all.
    pub fn schema(&self) -> &Arc<CatalogueSlot<Schema>> {
        &self.schema
    }

    /// The coordinator, if it shows the schema as it is now.
    pub fn coordinator_in_step(&self) -> Option<&Arc<Database>> {
        let (shown, now) = (self.in_step.load(), self.schema.get()?);
        let same = shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &now) || **shown == *now);
        self.coordinator.as_ref().filter(|_| same && self.schema.is_current())
    }

    /// The coordinator shows this schema now.
    pub fn set_in_step(&self, schema: Arc<Schema>) {
        self.in_step.store(Some(schema));
    }

    /// How the settings say that the shards are reached.
    pub fn sharding(&self) -> Arc<ShardingSettings> {
        self.sharding.load_full()
    }

    /// DDL has passed: plans that were made before do not hold.
    pub fn schema_changed(&self) {
        self.schema.mark_changed();
        for shard in &self.shards {
            shard.catalogue_changed();
        }
    }

    /// Goes on under new settings with the same shards.
    pub fn apply(&self, settings: Arc<DatabaseSettings>, sharding: Arc<ShardingSettings>) {
        self.sharding.store(sharding);
        self.settings.store(settings);
    }
}
