//! What clients were told of the rows of their prepared statements.
//!
//! A client that has described a statement reads its rows by that, for as long as it has the statement. PostgreSQL answers "cached plan
//! must not change result type" when its tables have changed so that the rows would be others. A server that does not hold the
//! statement, or not any more, would prepare it anew and send the other rows. So where definitions have changed since the client was
//! told, such a server is asked first.

use super::attach::{AttachError, Attempt};
use super::meaning::{put_made, put_quiet_close};
use super::names::put_quiet_sync;
use super::own_queries::OwnError;
use super::run::Session;
use super::send::put_own_query;
use super::state::SessionState;
use super::unit::Unit;
use crate::config::PoolMode;
use crate::database::PreparedStatement;
use crate::metrics::{QueryReason, QueryRoute, RetryReason};
use crate::route::Target;
use crate::server::prepared::server_name;
use crate::server::{Expected, Incoming, ServerConnection, TransactionStatus};
use crate::wire::bind::BindMessage;
use crate::wire::frame_at;
use crate::wire::named::NamedMessage;
use std::sync::Arc;

/// What PostgreSQL says.
///
/// Spec: `RevalidateCachedQuery` in `src/backend/utils/cache/plancache.c`.
const CHANGED: &[u8] =
    b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Fplancache.c\0RRevalidateCachedQuery\0\0";

/// Has the server fail the transaction under way, as its own error would have.
const FAIL: &str = "ROLLBACK TO SAVEPOINT \"cached plan must not change result type\"";

/// Asks the server for the statement's rows; `show`: the client asked. `change` is the catalogue's last one.
pub(super) fn put_describe(server: &mut ServerConnection, statement: &PreparedStatement, change: u64, show: bool) {
    server.incoming.described_at = change;
    NamedMessage::put_statement(server.outbox.writer(), b'D', server_name(statement.id).as_bytes());
    server.incoming.replies.push(Expected::DescribeNamed { id: statement.id, show });
}

/// The unit has been answered: notes what the client was told in it. What a replica says may be out of date.
#[cold]
pub(super) fn note_results(state: &mut SessionState, server: &mut Incoming, route: QueryRoute) {
    let change = if route == QueryRoute::Primary { server.described_at } else { 0 };
    for (id, shape) in server.described.drain(..) {
        let mut known = state.statements.iter().flat_map(|known| known.values());
        if let Some(statement) = known.find(|statement| statement.id == id) {
            statement.note_result(shape, change);
            state.told_since = state.told_since.min(change);
        }
    }
}

impl Session {
    /// Whether statements of the unit may give other rows than the client was told.
    pub(super) fn may_give_other_rows(&self, unit: &Unit) -> bool {
        unit.binds
            && !(unit.verbatim || unit.describes)
            && self.mode == PoolMode::Transaction
            && self.state.told_since < self.database.last_change()
    }

    /// Makes sure that they do not. `Ok(false)`: the unit needs another connection.
    pub(super) async fn compare_results(&mut self, unit: &Unit, attempt: &mut Attempt, held: bool) -> Result<bool, AttachError> {
        let change = self.database.last_change();
        if self.state.pipeline_open || self.uses_own_names(unit) {
            return Ok(true);
        }
        let messages = &self.client.inbox.as_slice()[..unit.len];
        let Some(link) = self.link.as_mut() else { return Ok(true) };
        let route = link.route;
        let server = link.server();
        if server.incoming.status == TransactionStatus::Failed {
            return Ok(true);
        }
        let statements = missing(messages, &self.state, server, change);
        if statements.is_empty() {
            return Ok(true);
        }
        server.incoming.replies.take_failure();
        server.incoming.described.clear();
        for statement in &statements {
            put_made(server, &self.state, None, statement);
            put_describe(server, statement, change, false);
        }
        put_quiet_sync(server);
        match self.run_own(!held).await {
            // A replica may not have the table yet.
            Err(OwnError::Failed { .. }) if !held && route == QueryRoute::Replica => return Ok(self.go_to_primary(attempt)),
            Err(OwnError::Failed { body, .. }) => return Err(self.refused(body)),
            Err(error) => return self.not_prepared(Err(error), attempt, held),
            Ok(()) => {}
        }
        let Some(link) = self.link.as_mut() else { return Ok(true) };
        let found = std::mem::take(&mut link.server().incoming.described);
        let shape_of = |statement: &PreparedStatement| found.iter().find(|(id, _)| *id == statement.id).map(|(_, shape)| *shape);
        let (same, changed): (Vec<_>, Vec<_>) = statements
            .into_iter()
            .partition(|statement| statement.told_result().is_none_or(|(told, _)| shape_of(statement) == Some(told)));
        if changed.is_empty() {
            let shown = same.iter().filter_map(|statement| Some((statement, shape_of(statement)?)));
            // What a replica shows may be out of date.
            shown.filter(|_| route == QueryRoute::Primary).for_each(|(statement, shape)| statement.note_result(shape, change));
            return Ok(true);
        }
        if !held && route == QueryRoute::Replica {
            return Ok(self.go_to_primary(attempt));
        }
        let server = link.server();
        for statement in &changed {
            statement.mark_outdated();
            server.incoming.prepared.remove(statement.id);
            put_quiet_close(server, server_name(statement.id).as_bytes());
        }
        put_quiet_sync(server);
        if server.incoming.status == TransactionStatus::Open {
            put_own_query(server, FAIL);
        }
        match self.run_own(false).await {
            Ok(()) | Err(OwnError::Failed { .. }) => Err(self.refused(CHANGED.to_vec())),
            Err(error) => self.not_prepared(Err(error), attempt, held),
        }
    }

    fn go_to_primary(&mut self, attempt: &mut Attempt) -> bool {
        self.start_again(RetryReason::StalePlan);
        attempt.need.target = Target::Primary;
        attempt.need.reason = QueryReason::Retry;
        false
    }
}

/// Statements that the unit binds and the server lacks, of which the client was told before the catalogue's last change.
fn missing(mut messages: &[u8], state: &SessionState, server: &ServerConnection, change: u64) -> Vec<Arc<PreparedStatement>> {
    let mut found: Vec<Arc<PreparedStatement>> = Vec::new();
    while let Ok(Some(frame)) = frame_at(messages) {
        messages = &messages[frame.total..];
        let Ok(bind) = BindMessage::read(if frame.tag == b'B' { frame.body } else { b"" }) else { continue };
        let Some(statement) = state.statement(bind.statement).filter(|_| !bind.statement.is_empty()) else { continue };
        let told_before = statement.told_result().is_some_and(|(_, at)| at < change);
        if told_before && !server.incoming.prepared.holds(statement.id) && !found.iter().any(|known| known.id == statement.id) {
            found.push(statement.clone());
        }
    }
    found
}
