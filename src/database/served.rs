//! Which sharded database serves the clients that name it, or another one.

use super::sharded::ShardedDatabase;
use std::collections::HashMap;
use std::sync::Arc;

/// The sharded databases.
#[derive(Default)]
pub(super) struct ShardedBook {
    /// Each by its own name.
    pub(super) own: HashMap<Arc<str>, Arc<ShardedDatabase>>,
    /// By the names that clients use: one may be served by another.
    pub(super) served: HashMap<Arc<str>, Arc<ShardedDatabase>>,
}

impl ShardedBook {
    /// All of these. Clients of one whose settings say so are served by another.
    pub(super) fn of(sharded: Vec<Arc<ShardedDatabase>>) -> Self {
        let own: HashMap<_, _> = sharded.into_iter().map(|database| (database.name.clone(), database)).collect();
        let serves = |database: &Arc<ShardedDatabase>| {
            let other = database.sharding().served_by.as_deref().and_then(|other| own.get(other));
            (database.name.clone(), other.unwrap_or(database).clone())
        };
        let served = own.values().map(serves).collect();
        ShardedBook { own, served }
    }

    /// Whether this is the database of one shard.
    pub(super) fn has_shard(&self, name: &str) -> bool {
        let all = self.own.values().flat_map(|sharded| sharded.shards.iter().chain(&sharded.coordinator));
        all.into_iter().any(|shard| *shard.name == *name)
    }
}
