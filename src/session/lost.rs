//! When a unit has to be sent again, or can't be.

use super::attach::{AttachError, Attempt};
use super::exchange::Exchange;
use super::recover::{Loss, LossAction, after_loss};
use super::run::{Session, SessionEnd};
use super::send::put_own_query;
use super::unit::Unit;
use crate::cluster::HostReport;
use crate::database::ClientState;
use crate::metrics::{QueryRoute, RetryReason};
use crate::server::ServerTarget;
use crate::sql::{Access, Command, StatementFacts};
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
        if let Some(link) = self.link.as_mut() {
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
        let (host_id, route, cut_off) = (link.host.id, link.route, link.server().incoming.body_left > 0);
        let target = link.server().target.clone();
        drop(link);
        self.database.upstream().cluster.report(host_id, HostReport::Broken);
        let answer = &exchange.answer;
        let in_transaction = self.state.transaction.is_some();
        let commits = |statement: &StatementFacts| matches!(statement.command, Command::Commit { .. } | Command::TwoPhase);
        let loss = Loss {
            route,
            harmless: !held && unit.access == Access::Read && unit.pins.is_empty(),
            kept: unit.len <= self.database.settings().routing.retry_buffer,
            committed: answer.committed,
            cut_off: cut_off && answer.bytes > 0 && answer.committed,
            explained: answer.error.is_some() && answer.fatal && answer.committed,
            in_transaction,
            may_have_committed: match in_transaction {
                true => unit.run_statements().any(commits),
                false => unit.access > Access::Server || unit.run_statements().any(commits),
            },
            said_something: answer.fatal,
            // Asked only when it decides: a second loss without a word.
            host_is_gone: !attempt.failed.is_empty() && !answer.fatal && is_gone(&target).await,
            losses: attempt.failed.len(),
        };
        match after_loss(&loss) {
            LossAction::Again => {
                attempt.failed.push(host_id);
                self.start_again(if route == QueryRoute::Replica { RetryReason::ReplicaLost } else { RetryReason::PrimaryLost });
                return Ok(true);
            }
            LossAction::Close => return Err(AttachError::End(SessionEnd::CutOff)),
            LossAction::Ready => {
                self.abandon_link();
                self.end_answer(unit);
            }
            LossAction::Fail(report) => {
                if !answer.committed {
                    self.client.outbox.clear();
                }
                self.state.undo_names(0);
                self.abandon_link();
                self.refuse(unit, &report);
            }
        }
        self.client.inbox.consume(exchange.unit_len);
        self.state_is(ClientState::Idle);
        Ok(false)
    }
}

/// Whether nothing listens at a server's address: then its machine or its postmaster is gone, which no statement does. After a
/// crash that a statement causes, the postmaster stays and says that it recovers.
async fn is_gone(target: &ServerTarget) -> bool {
    let connect = crate::net::socket::connect(&target.address, target.port, target.keepalive);
    !matches!(tokio::time::timeout(GONE_CHECK_TIMEOUT, connect).await, Ok(Ok(_)))
}
