//! Keeps the coordinators of sharded databases in step with their shards: at the start, and whenever the schema has changed.

use super::yard::Yard;
use crate::cluster::describe_error;
use crate::coordinator::{ShardServer, sync};
use crate::database::ShardedDatabase;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one primary.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest synchronisation.
const SYNC_MAX: Duration = Duration::from_secs(120);

/// Keeps them in step until pgyard ends.
pub async fn keep_in_step(yard: Arc<Yard>) {
    // What went wrong last, so that it is said once.
    let mut troubles: HashMap<Arc<str>, String> = HashMap::new();
    loop {
        for database in yard.directory.all_sharded() {
            if database.coordinator.is_none() || database.coordinator_in_step().is_some() || !database.schema().is_current() {
                continue;
            }
            let outcome = tokio::time::timeout(SYNC_MAX, bring_into_step(&database)).await;
            match outcome.unwrap_or_else(|_| Err(format!("it took longer than {SYNC_MAX:?}"))) {
                Ok(()) => drop(troubles.remove(&database.name)),
                Err(trouble) if troubles.get(&database.name) == Some(&trouble) => {}
                Err(trouble) => {
                    tracing::warn!(database = &*database.name, error = trouble, "the coordinator could not be brought into step");
                    troubles.insert(database.name.clone(), trouble);
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn bring_into_step(database: &ShardedDatabase) -> Result<(), String> {
    let (Some(coordinator), Some(schema)) = (&database.coordinator, database.schema().get()) else { return Ok(()) };
    let connect = async |database: &crate::database::Database| {
        let connection = database.upstream().cluster.primary_connection(&database.server_name(), CONNECT_MAX).await;
        connection.map_err(|error| format!("{}: {}", database.name, describe_error(&error)))
    };
    let (shard, target) = (connect(database.first()).await?, connect(coordinator).await?);
    let sharding = database.sharding();
    let shards = sharding.map.shards.iter().zip(&sharding.shards);
    let servers: Vec<ShardServer> = shards.map(|(name, shard)| ShardServer::of(name, shard)).collect();
    let report = sync(&shard, &target, &servers, &sharding.map).await.map_err(|error| describe_error(&error))?;
    tracing::info!(
        database = &*database.name,
        tables = report.tables,
        views = report.views,
        functions = report.functions,
        left_out = report.left_out.join("; "),
        "the coordinator shows what the shards have"
    );
    coordinator.catalogue_changed();
    database.set_in_step(schema);
    Ok(())
}
