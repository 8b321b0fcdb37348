//! When a unit has to be sent again, or can't be.

use super::attach::{AttachError, Attempt};
use super::exchange::Exchange;
use super::follow::follow_lost;
use super::recover::{Loss, LossAction, after_loss};
use super::run::{Session, SessionEnd};
use super::send::put_own_query;
use super::unit::Unit;
use crate::cluster::HostReport;
use crate::config::PoolMode;
use crate::database::ClientState;
use crate::metrics::{QueryRoute, RetryReason};
use crate::server::{ServerTarget, greets};
use crate::sql::{Access, Command, StatementFacts};
use crate::types::SqlState;
use std::time::Duration;

/// How long a host may take to show that it still listens.
const GONE_CHECK_TIMEOUT: Duration = Duration::from_millis(500);

impl Session {
    /// A plan that the server holds does not fit its tables any more: the server forgets its statements, and the unit is sent
    /// once more.
    pub(super) fn replan(&mut self, attempt: &mut Attempt) {
        attempt.replanned = true;
        self.client.outbox.clear();
        self.state.undo_names(0);
        self.database.metrics.retries(RetryReason::StalePlan).increment();
        self.state.unnamed_before = None;
        if let Some(link) = self.link.as_mut() {
            link.server().incoming.replies.take_dropped_messages();
            put_own_query(link.server(), "DEALLOCATE ALL");
            link.server().incoming.prepared.clear();
            link.server().own_names.clear();
        }
    }

    /// Nothing of the answer was forwarded: the unit goes elsewhere.
    pub(super) fn start_again(&mut self, reason: RetryReason) {
        self.client.outbox.clear();
        self.state.undo_names(0);
        if let Some(link) = self.link.as_mut() {
            // Which of its names the unit has given or taken there is not known.
            link.server().own_names.settle(Some(0));
        }
        self.link = None;
        self.database.metrics.retries(reason).increment();
    }

    /// The server's connection ended under the unit. True: it is to be sent again.
    pub(super) async fn server_lost(
        &mut self,
        unit: &Unit,
        attempt: &mut Attempt,
        exchange: &Exchange,
        held: bool,
    ) -> Result<bool, AttachError> {
        let Some(mut link) = self.link.take() else { return Ok(true) };
        link.server().broken = true;
        let (host_id, route, body_left) = (link.host.id, link.route, link.server().incoming.body_left);
        let (target, started_us) = (link.server().door.target.clone(), link.server().started_us);
        let in_transaction = self.state.transaction.is_some();
        follow_lost(unit, &exchange.answer, &mut self.state, link.server());
        drop(link);
        let cluster = &self.database.upstream().cluster;
        cluster.report(host_id, HostReport::Broken);
        let answer = &exchange.answer;
        // The primary said that it ends the session. If it goes on, it was an administrator who ended this one.
        let turned_away = answer.refused == Some(RetryReason::PrimaryLost);
        let killed = turned_away && !answer.noticed && {
            let database = self.database.server_name();
            let takes_sessions = takes_sessions(&target, &database, &self.role.role);
            cluster.goes_on(host_id, started_us, takes_sessions).await
        };
        // Its server has done nothing in the transaction, unless it did the unit.
        let begun = held && self.may_begin_anew(unit);
        let commits = |statement: &StatementFacts| matches!(statement.command, Command::Commit { .. } | Command::TwoPhase);
        let loss = Loss {
            route,
            harmless: (!held || begun) && !attempt.writes && unit.is_harmless(),
            no_effect: turned_away && !answer.noticed || exchange.unsent && (!held && unit.stands_or_falls() || begun),
            killed,
            kept: unit.total_len() <= attempt.tuning.retry_buffer,
            committed: answer.forwarded(),
            cut_off: answer.leaves_half_a_message(body_left),
            explained: answer.error.is_some() && answer.fatal && answer.committed,
            protocol: answer.fatal && answer.error == Some(SqlState::PROTOCOL_VIOLATION),
            in_transaction,
            may_have_committed: match in_transaction {
                true => unit.run_statements().any(commits),
                false => {
                    attempt.writes || !unit.is_harmless() && unit.access > Access::Server || unit.run_statements().any(commits)
                }
            },
            timed_out: answer.timed_out,
            said_something: answer.fatal || exchange.unsent,
            // Asked only when it decides: a second loss without a word.
            host_is_gone: attempt.losses > 0 && !answer.fatal && !exchange.unsent && is_gone(&target).await,
            losses: attempt.losses,
        };
        let action = after_loss(&loss);
        if action != LossAction::Again {
            self.note_shown((route, host_id), answer.forwarded());
        }
        match action {
            LossAction::Again => {
                attempt.failed.push(host_id);
                attempt.losses += usize::from(!loss.said_something);
                self.start_again(if route == QueryRoute::Replica { RetryReason::ReplicaLost } else { RetryReason::PrimaryLost });
                return Ok(true);
            }
            LossAction::Close => return Err(AttachError::End(SessionEnd::CutOff)),
            // A session that has one server connection for its life ends with it, as it would without pgyard.
            LossAction::Ready if self.mode == PoolMode::Session => {
                self.abandon_link();
                return Err(AttachError::End(SessionEnd::ServerGone(None)));
            }
            LossAction::Ready => {
                self.abandon_link();
                self.state.lost_transaction &= !unit.ends_transaction();
                self.end_answer(unit);
            }
            LossAction::Fail(report) => {
                if !answer.forwarded() {
                    self.client.outbox.clear();
                }
                self.state.undo_names(0);
                self.abandon_link();
                self.state.lost_transaction &= !unit.ends_transaction();
                if self.mode == PoolMode::Session {
                    return Err(AttachError::End(SessionEnd::ServerGone(Some(Box::new(report.ending_the_session())))));
                }
                self.refuse(unit, &report);
            }
        }
        self.client.inbox.consume(exchange.unit_len);
        self.state_is(ClientState::Idle);
        Ok(false)
    }
}

impl Session {
    /// The host of the unit does not answer its probe any more, and the client has seen nothing of the answer yet: it goes
    /// elsewhere.
    pub(super) fn leave_silent_host(&mut self, attempt: &mut Attempt) {
        if let Some(mut link) = self.link.take() {
            tracing::debug!(host = link.host.settings.name, "a read leaves a host that does not answer");
            link.server().broken = true;
            attempt.failed.push(link.host.id);
        }
        self.start_again(RetryReason::HostSilent);
    }
}

/// Whether the server lets new sessions begin. One that shuts down says 57P03 before it asks for a password.
async fn takes_sessions(target: &ServerTarget, database: &str, role: &str) -> bool {
    matches!(tokio::time::timeout(target.connect_timeout, greets(target, database, role)).await, Ok(true))
}

/// Whether nothing listens at a server's address: then its machine or its postmaster is gone, which no statement does. After a
/// crash that a statement causes, the postmaster stays and says that it recovers.
async fn is_gone(target: &ServerTarget) -> bool {
    let connect = crate::net::open::connect(&target.address, target.port, target.keepalive);
    !matches!(tokio::time::timeout(GONE_CHECK_TIMEOUT, connect).await, Ok(Ok(_)))
}
