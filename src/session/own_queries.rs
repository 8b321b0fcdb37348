//! Queries of pgyard's own, run on the session's server before its unit.

use super::attach::{AttachError, Attempt};
use super::exchange::{Exchange, ExchangeEnd};
use super::names::NamesError;
use super::run::{Session, SessionEnd};
use super::send::{put_own_query, put_parameters};
use super::unit::Unit;
use crate::config::PoolMode;
use crate::database::with_view;
use crate::metrics::QueryRoute;
use crate::server::{NO_WRITER, SEVERAL_WRITERS, TransactionStatus};
use crate::sql::Pins;
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;
use crate::wire::reply::Report;
use std::hint::cold_path;

impl Session {
    /// Puts what the server must be told before the unit into its outbox; false if there is nothing.
    pub(super) fn put_own_queries(&mut self, unit: &Unit, held: bool) -> bool {
        let Some(link) = self.link.as_mut() else { return false };
        let server = link.server();
        if held && !self.state.pipeline_open {
            put_parameters(server, &self.state);
        }
        let may_write = || unit.may_write() || !held && unit.needs_care && self.role.asks_for_sequences();
        if link.route == QueryRoute::Primary && self.mode == PoolMode::Transaction && may_write() {
            self.see_to_sequences(unit);
        }
        let Some(link) = self.link.as_mut() else { return false };
        let server = link.server();
        if server.prepared_unknown && !self.state.pipeline_open && server.incoming.status != TransactionStatus::Failed {
            cold_path();
            put_own_query(server, "DEALLOCATE ALL");
            server.incoming.prepared.clear();
            server.own_names.clear();
            server.prepared_unknown = false;
        }
        !server.incoming.replies.is_empty()
    }

    /// `currval()` and `lastval()` must not show what another session did on the server connection. Where the role's sessions are known
    /// to ask for that outside the transaction that did it, each of them finds its own connection again if that can be, and what it
    /// writes stands alone there.
    #[inline(never)]
    fn see_to_sequences(&mut self, unit: &Unit) {
        let asks = unit.pins.intersects(Pins::SEQUENCE);
        if asks {
            self.role.note_asking_for_sequences();
        }
        let (keeps, process) = (self.role.asks_for_sequences(), self.entry.process);
        let Some(link) = self.link.as_mut() else { return };
        let server = link.server();
        let mut is_strange = keeps && server.last_writer != NO_WRITER && server.last_writer != process;
        // In a transaction it might be one query too many, in front of `SET TRANSACTION`: it is seen to at its beginning.
        let may_run = match server.incoming.status {
            TransactionStatus::Idle => true,
            TransactionStatus::Open => asks,
            TransactionStatus::Failed => false,
        };
        if is_strange && may_run && !self.state.pipeline_open {
            put_own_query(server, "DISCARD SEQUENCES");
            is_strange = false;
        }
        server.last_writer = if is_strange { SEVERAL_WRITERS } else { process };
        if keeps {
            server.is_kept = true;
            self.state.sequence_server = server.id;
        }
    }

    /// Runs what is in the outbox of pgyard's own, before the unit. `Ok(false)`: the connection was lost, another is needed.
    pub(super) async fn run_own_queries(&mut self, attempt: &mut Attempt, held: bool) -> Result<bool, AttachError> {
        let outcome = Box::pin(self.run_own(!held)).await;
        self.not_prepared(outcome, attempt, held)
    }

    /// Sees to the names and parameters that a unit's statements depend on, where that can't be done on its way. `Ok(false)`: the
    /// connection was lost, another is needed.
    pub(super) async fn prepare_for(&mut self, unit: &Unit, attempt: &mut Attempt, held: bool) -> Result<bool, AttachError> {
        if self.state.local.is_some() {
            self.learn_local_settings(unit).await;
        }
        if !(unit.own_names || unit.whole) {
            return Ok(true);
        }
        match self.prepare_names(unit, !held).await {
            Ok(()) => Ok(true),
            Err(NamesError::Own(error)) => self.not_prepared(Err(error), attempt, held),
            Err(NamesError::Refused(body)) => Err(self.refused(body)),
        }
    }

    /// The unit is answered by an error.
    pub(super) fn refused(&mut self, body: Vec<u8>) -> AttachError {
        if let Some(transaction) = &mut self.state.transaction {
            transaction.failed = true;
        }
        AttachError::Answered(body)
    }

    /// What becomes of a unit when queries of pgyard's own before it have ended so.
    pub(super) fn not_prepared(
        &mut self,
        outcome: Result<(), OwnError>,
        attempt: &mut Attempt,
        held: bool,
    ) -> Result<bool, AttachError> {
        match outcome {
            Ok(()) => Ok(true),
            Err(OwnError::Lost) if !held => {
                let failed = self.link.take().map(|link| link.host.id);
                attempt.failed.extend(failed);
                Ok(false)
            }
            Err(OwnError::Lost) => {
                self.abandon_link();
                let report = Report::error(SqlState::ADMIN_SHUTDOWN, "the server closed the connection");
                Err(match self.mode {
                    PoolMode::Session => AttachError::End(SessionEnd::ServerGone(Some(Box::new(report.ending_the_session())))),
                    PoolMode::Transaction => AttachError::Refused(report),
                })
            }
            Err(OwnError::Failed { message, body }) => {
                self.break_link();
                Err(AttachError::Refused(failure(message, &body)))
            }
            Err(OwnError::End(end)) => Err(AttachError::End(end)),
        }
    }

    /// Waits for the answers to queries of pgyard's own. `movable`: they can be asked of another host instead.
    pub(super) async fn run_own(&mut self, movable: bool) -> Result<(), OwnError> {
        let mut exchange = Exchange::of_own_queries();
        exchange.movable = movable;
        let limit = with_view(&self.database, |view| view.settings().pool.query_timeout);
        match self.exchange(&mut exchange, limit).await {
            ExchangeEnd::Done | ExchangeEnd::Refused => match exchange.answer.own_error.map(|failed| *failed) {
                Some((message, body)) => Err(OwnError::Failed { message, body }),
                None => Ok(()),
            },
            ExchangeEnd::ServerLost(_) | ExchangeEnd::ServerProtocol(_) | ExchangeEnd::HostSilent => Err(OwnError::Lost),
            ExchangeEnd::Stopped => Err(OwnError::End(SessionEnd::Stopped)),
            ExchangeEnd::ClientLost => Err(OwnError::End(SessionEnd::ClientGone)),
            ExchangeEnd::ClientProtocol(error) => Err(OwnError::End(SessionEnd::Protocol(error))),
        }
    }
}

/// What the client is told when a query of pgyard's own, on which its unit depends, has failed.
fn failure(message: String, body: &[u8]) -> Report {
    if ErrorFields::read(body).state == SqlState::QUERY_CANCELED {
        // The client has asked for its statement to be cancelled while that had to wait for this.
        return Report::error(SqlState::QUERY_CANCELED, message);
    }
    Report::error(SqlState::INVALID_PARAMETER_VALUE, message)
        .detail("pgyard set the session's parameters on another server connection, and the server refused.")
        .hint("RESET the parameter, or set a value that every server accepts.")
}

/// Why queries of pgyard's own were not answered.
pub(super) enum OwnError {
    /// The connection ended.
    Lost,
    /// The server refused one.
    Failed {
        /// Its message.
        message: String,
        /// The whole body of its error.
        body: Vec<u8>,
    },
    /// The session ends.
    End(SessionEnd),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_query_of_our_own_is_the_clients_cancelled_statement() {
        let check = |body: &[u8], expect| assert_eq!(failure("text".into(), body).state, expect);
        check(b"SERROR\0C57014\0Mcanceling statement due to user request\0\0", SqlState::QUERY_CANCELED);
        check(b"SERROR\0C22023\0Mrole \"x\" does not exist\0\0", SqlState::INVALID_PARAMETER_VALUE);
        check(b"", SqlState::INVALID_PARAMETER_VALUE);
    }
}
