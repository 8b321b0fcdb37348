//! Leaving a replica in the middle of something: a READ ONLY transaction or an open pipeline whose next part needs the primary.

use super::attach::{AttachError, Attempt};
use super::choose::Choice;
use super::own_queries::OwnError;
use super::run::Session;
use super::send::put_own_query;
use super::unit::Unit;
use crate::database::with_view;
use crate::metrics::QueryReason;
use crate::route::Target;
use crate::server::{Expected, TransactionStatus};
use crate::sql::{Access, Command, Isolation, StatementFacts};
use crate::types::SqlState;
use crate::wire::frame::put_message;
use crate::wire::reply::Report;
use std::hint::cold_path;
use std::sync::Arc;

impl Session {
    /// Whether a READ ONLY transaction, or an open pipeline, runs on a replica and the unit needs the primary.
    pub(super) fn must_leave_replica(&self, unit: &Unit) -> bool {
        let on_replica = self.link.as_ref().is_some_and(|link| link.is_replica());
        on_replica && !(unit.access <= Access::Server && unit.statements().all(stays_on_replica))
    }

    /// Whether what the unit reads has been written by somebody since its transaction or pipeline began on a replica, and the
    /// session must see that.
    pub(super) fn replica_is_behind(&mut self, unit: &Unit, attempt: &Attempt) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| link.is_replica()) else { return false };
        cold_path();
        let queries = |statement: &StatementFacts| matches!(statement.command, Command::Query | Command::CopyOut);
        if !unit.run_statements().any(queries) {
            return false;
        }
        let (database, state, host_id) = (&*self.database, &mut self.state, link.host.id);
        let (client_hash, reads_on_primary) = (u64::from(self.client_hash), attempt.tuning.reads_on_primary);
        let mut choice = Choice { database, state, client_hash, reads_on_primary };
        with_view(database, |view| !choice.is_shown_by(host_id, view.fleet().0, &attempt.reads))
    }

    /// A READ ONLY transaction, or an open pipeline, goes on on the primary.
    pub(super) async fn leave_replica(&mut self, attempt: &mut Attempt) -> Result<(), AttachError> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let begin = match &self.state.transaction {
            None if self.state.pipeline_open => None,
            None => return Ok(()),
            Some(transaction) => match transaction.movable {
                Some(isolation) if isolation == Isolation::ReadCommitted || transaction.statements <= 1 => {
                    Some((isolation, transaction.deferrable))
                }
                _ => return Ok(()),
            },
        };
        let server = link.server();
        if server.incoming.status == TransactionStatus::Failed {
            return Ok(());
        }
        put_message(server.outbox.writer(), b'S', |_| {});
        server.incoming.replies.push(Expected::QuietSync);
        if begin.is_some() {
            put_own_query(server, "ROLLBACK");
            server.parameters = self.state.transaction.as_ref().map_or_else(Arc::default, |open| open.at_begin.server.clone());
        }
        if self.run_own(false).await.is_err() {
            self.break_link();
            let message = "the server closed the connection in the middle of a transaction";
            return Err(AttachError::Refused(Report::error(SqlState::ADMIN_SHUTDOWN, message)));
        }
        if let Some(mut link) = self.link.take() {
            link.server().mid_request = false;
        }
        (self.state.pipeline_open, self.state.pipeline_begin) = (false, None);
        attempt.need.target = Target::Primary;
        attempt.need.reason = QueryReason::Retry;
        let Some((isolation, deferrable)) = begin else { return Ok(()) };
        self.begin_again(attempt, isolation, deferrable).await
    }

    async fn begin_again(&mut self, attempt: &mut Attempt, isolation: Isolation, deferrable: bool) -> Result<(), AttachError> {
        self.attach(attempt).await?;
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let level = match isolation {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        };
        let deferrable = if deferrable { " DEFERRABLE" } else { "" };
        if let Some(transaction) = &mut self.state.transaction {
            transaction.at_begin.server = link.server().parameters.clone();
        }
        put_own_query(link.server(), &format!("BEGIN ISOLATION LEVEL {level} READ ONLY{deferrable}"));
        for text in self.state.transaction.iter().flat_map(|transaction| &transaction.replay) {
            put_own_query(link.server(), text);
        }
        match self.run_own(false).await {
            Ok(()) => Ok(()),
            Err(OwnError::End(end)) => Err(AttachError::End(end)),
            Err(OwnError::Lost | OwnError::Failed { .. }) => {
                self.break_link();
                let message = "the transaction could not go on on the primary";
                Err(AttachError::Refused(Report::error(SqlState::ADMIN_SHUTDOWN, message)))
            }
        }
    }
}

/// Whether a statement of a READ ONLY transaction may run on the replica where it began.
fn stays_on_replica(statement: &StatementFacts) -> bool {
    match statement.command {
        Command::Commit { chain: true } | Command::TwoPhase | Command::Begin(_) => false,
        Command::SetTransaction(modes) => modes.read_only != Some(false) && modes.isolation != Some(Isolation::Serializable),
        _ => statement.access <= Access::Server,
    }
}
