//! Finding prepared transactions that nobody will end, and ending them.

use super::decisions::{CREATE_DECISIONS, insert};
use super::identity::{GlobalId, InFlight};
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// A transaction of another pgyard process is looked at when it has been prepared for this long: that process may be committing it.
const FOREIGN_AGE: Duration = Duration::from_secs(5);
/// Decisions to commit are kept for this long when no shard has a prepared transaction that they are about.
const DECISION_AGE: Duration = Duration::from_secs(3600);

/// A control connection to a shard's primary, in its database.
pub type ShardConnection = deadpool_postgres::Client;

/// What one round of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryOutcome {
    /// Prepared transactions that were committed.
    pub committed: usize,
    /// Prepared transactions that were rolled back.
    pub rolled_back: usize,
    /// Prepared transactions that could not be ended now.
    pub left: usize,
}

/// Makes the table of decisions on a shard, if it is not there, and answers how many transactions its server can prepare.
///
/// # Errors
/// Those of tokio-postgres.
pub async fn prepare_shard(connection: &ShardConnection) -> Result<i32, tokio_postgres::Error> {
    let there = connection.query_one("SELECT pg_catalog.to_regclass('pgyard.decisions') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        connection.batch_execute(&format!("BEGIN; {CREATE_DECISIONS}; COMMIT")).await?;
    }
    let limit = connection.query_one("SELECT pg_catalog.current_setting('max_prepared_transactions')::int4", &[]).await?;
    Ok(limit.get(0))
}

/// Ends what sessions have left behind. `shards` has a connection for each shard that can be reached now.
pub async fn recover(database: &str, shards: &[Option<ShardConnection>], in_flight: &InFlight) -> RecoveryOutcome {
    let mut outcome = RecoveryOutcome::default();
    let mut decided: HashMap<GlobalId, bool> = HashMap::new();
    for (shard, connection) in shards.iter().enumerate() {
        let Some(connection) = connection else { continue };
        let found = match prepared(connection, database).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(database, shard, %error, "prepared transactions of a shard can't be looked at");
                continue;
            }
        };
        for (id, age) in found {
            let waits = if in_flight.is_own(&id) { in_flight.contains(&id) } else { age < FOREIGN_AGE };
            if waits {
                outcome.left += 1;
                continue;
            }
            match end(&id, shard, shards, &mut decided).await {
                Ok(Some(true)) => outcome.committed += 1,
                Ok(Some(false)) => outcome.rolled_back += 1,
                Ok(None) => outcome.left += 1,
                Err(error) => {
                    outcome.left += 1;
                    tracing::warn!(database, shard, %error, "a prepared transaction can't be ended now");
                }
            }
        }
    }
    if outcome.left == 0 && shards.iter().all(Option::is_some) {
        forget_old(shards).await;
    }
    outcome
}

/// The prepared transactions of this database on a shard, and for how long they have been prepared.
async fn prepared(connection: &ShardConnection, database: &str) -> Result<Vec<(GlobalId, Duration)>, tokio_postgres::Error> {
    let sql = "SELECT gid, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared)::float8 \
        FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND gid LIKE 'pgyard:%'";
    let rows = connection.query(sql, &[]).await?;
    let read = |row: &tokio_postgres::Row| {
        let (id, _) = GlobalId::read(row.get::<_, &str>(0), database)?;
        Some((id, Duration::try_from_secs_f64(row.get::<_, f64>(1)).unwrap_or_default()))
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// Ends one prepared transaction; `None` when its decider can't be reached.
async fn end(
    id: &GlobalId,
    shard: usize,
    shards: &[Option<ShardConnection>],
    decided: &mut HashMap<GlobalId, bool>,
) -> Result<Option<bool>, tokio_postgres::Error> {
    let committed = match decided.get(id) {
        Some(known) => *known,
        None => {
            let Some(Some(decider)) = shards.get(id.decider) else { return Ok(None) };
            let committed = decide(id, decider).await?;
            decided.insert(id.clone(), committed);
            committed
        }
    };
    let Some(Some(connection)) = shards.get(shard) else { return Ok(None) };
    let verb = if committed { "COMMIT" } else { "ROLLBACK" };
    match connection.batch_execute(&format!("{verb} PREPARED '{}'", id.prepared(shard))).await {
        // Its session, or another pgyard, was faster.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(Some(committed)),
        Err(error) => Err(error),
        Ok(()) => {
            tracing::info!(database = id.database, shard, committed, "a prepared transaction was ended");
            Ok(Some(committed))
        }
    }
}

/// Whether it was committed. If that is open, it is decided here: it was not.
async fn decide(id: &GlobalId, decider: &ShardConnection) -> Result<bool, tokio_postgres::Error> {
    let sql = format!("BEGIN; SET LOCAL synchronous_commit = on; {}; COMMIT", insert(id, false));
    match decider.batch_execute(&sql).await {
        Ok(()) => Ok(false),
        Err(error) => {
            decider.batch_execute("ROLLBACK").await?;
            if error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
                return Err(error);
            }
            let row = decider.query_one("SELECT committed FROM pgyard.decisions WHERE transaction = $1", &[&id.key()]).await?;
            Ok(row.get(0))
        }
    }
}

/// Decisions to roll back stay: a process that was stopped in the middle may go on at any time, and must find its commit impossible.
async fn forget_old(shards: &[Option<ShardConnection>]) {
    for connection in shards.iter().flatten() {
        let sql = "DELETE FROM pgyard.decisions WHERE committed AND at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)";
        if let Err(error) = connection.execute(sql, &[&DECISION_AGE.as_secs_f64()]).await {
            tracing::debug!(%error, "old decisions can't be deleted");
        }
    }
}
