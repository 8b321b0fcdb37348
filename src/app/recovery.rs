//! Looks after what sessions of sharded databases have left behind: prepared transactions whose session ended, or whose pgyard died.

use super::yard::Yard;
use crate::database::ShardedDatabase;
use crate::twophase::{ShardConnection, prepare_shard, recover};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for one shard's primary.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest look at one database. A shard that hangs must not keep those of others waiting for ever.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Recovers until pgyard ends.
pub async fn keep_recovering(yard: Arc<Yard>) {
    let mut warned = HashSet::new();
    loop {
        for database in yard.directory.all_sharded() {
            if tokio::time::timeout(ROUND_MAX, look_after(&yard, &database, &mut warned)).await.is_err() {
                tracing::warn!(database = &*database.name, "the look at prepared transactions took too long");
            }
        }
        // Whether somebody has left something or not.
        let _ = tokio::time::timeout(INTERVAL, yard.in_flight.something_left()).await;
    }
}

async fn look_after(yard: &Yard, database: &ShardedDatabase, warned: &mut HashSet<String>) {
    if database.shards.len() < 2 {
        return;
    }
    let mut connections: Vec<Option<ShardConnection>> = Vec::new();
    for shard in &database.shards {
        let connection = shard.upstream().cluster.primary_connection(&shard.server_name(), CONNECT_MAX).await;
        let prepared = match connection {
            Ok(connection) => {
                prepare_shard(&connection).await.map(|limit| (connection, limit)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match prepared {
            Ok((connection, limit)) => {
                if limit == 0 && warned.insert(shard.name.to_string()) {
                    tracing::warn!(
                        shard = &*shard.name,
                        "max_prepared_transactions is 0: writes to several shards will fail until it is raised and the server restarted"
                    );
                }
                connections.push(Some(connection));
            }
            Err(error) => {
                tracing::debug!(shard = &*shard.name, error, "a shard can't be looked at for prepared transactions");
                connections.push(None);
            }
        }
    }
    let outcome = recover(&database.name, &connections, &yard.in_flight).await;
    database.metrics.recovered_commits.add(outcome.committed as u64);
    database.metrics.recovered_roll_backs.add(outcome.rolled_back as u64);
}
