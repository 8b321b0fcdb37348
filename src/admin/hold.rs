//! HOLD and SERVE: what `pgyard reshard` asks of each pgyard at the switch.

use super::context::ConsoleContext;
use crate::database::TransactionGate;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether all is still.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Longest hold that may be asked for.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// Lets clients go on, unless the hold has come about.
struct Closed(Option<Arc<TransactionGate>>);

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.open();
        }
    }
}

/// Holds the transactions of a sharded database's clients back, and waits until those under way have ended: for half of `limit` at most, else
/// nobody is held. The hold ends by itself after `limit`, counted from now.
pub(super) async fn hold(context: &ConsoleContext, database: &str, limit: Duration) -> Result<(), Report> {
    if limit.is_zero() || limit > HOLD_MAX {
        let text = format!("a hold may last from 1 to {} milliseconds", HOLD_MAX.as_millis());
        return Err(Report::error(SqlState::INVALID_PARAMETER_VALUE, text));
    }
    let gate = gate_of(context, database)?;
    let began = Instant::now();
    gate.shut_for(limit);
    let mut closed = Closed(Some(gate.clone()));
    while gate.inside() > 0 {
        if began.elapsed() >= limit / 2 {
            let text = format!(
                "{} transactions are still under way after {} ms; nobody is held",
                gate.inside(),
                (limit / 2).as_millis()
            );
            return Err(Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
                .hint("SHOW CLIENTS lists them. End them with KILL, or allow more time."));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    closed.0 = None;
    Ok(())
}

/// Lets clients go on before the hold ends by itself.
pub(super) fn release(context: &ConsoleContext, database: &str) -> Result<(), Report> {
    gate_of(context, database).map(|gate| gate.open())
}

/// Has the clients of one sharded database served by another one from now on, or by itself, and writes that into the configuration. Then nobody is
/// held any more.
pub(super) async fn serve(context: &ConsoleContext, database: &str, other: &str) -> Result<(), Report> {
    let gate = gate_of(context, database)?;
    if context.directory.sharded_itself(other).is_none() {
        return Err(not_sharded(other));
    }
    let other = (other != database).then(|| other.to_owned());
    context.actions.serve_by(database.to_owned(), other).await.map_err(|error| {
        Report::error(SqlState(*b"F0000"), "the configuration was not changed; clients are served as before").detail(error)
    })?;
    gate.open();
    Ok(())
}

fn gate_of(context: &ConsoleContext, database: &str) -> Result<Arc<TransactionGate>, Report> {
    context.directory.sharded_itself(database).ok_or_else(|| not_sharded(database))?;
    Ok(context.directory.gate(database))
}

fn not_sharded(database: &str) -> Report {
    Report::error(SqlState::INVALID_CATALOG_NAME, format!("there is no sharded database \"{database}\""))
}
