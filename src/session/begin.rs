//! A transaction that has only begun when its server goes away: nothing can have taken effect, so it begins elsewhere, and the client
//! never learns of it.

use super::attach::{AttachError, Attempt};
use super::own_queries::OwnError;
use super::run::Session;
use super::send::put_own_query;
use super::state::SessionState;
use super::unit::{Unit, UnitKind};
use crate::config::PoolMode;
use crate::metrics::RetryReason;
use crate::route::Target;
use crate::sql::{Isolation, TransactionModes};

/// The statement that begins a transaction with these modes.
fn begin_text(modes: TransactionModes) -> String {
    let mut text = "BEGIN".to_owned();
    text.push_str(match modes.isolation {
        Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        None => "",
    });
    text.push_str(match modes.read_only {
        Some(true) => " READ ONLY",
        Some(false) => " READ WRITE",
        None => "",
    });
    text.push_str(match modes.deferrable {
        Some(true) => " DEFERRABLE",
        Some(false) => " NOT DEFERRABLE",
        None => "",
    });
    text
}

impl SessionState {
    /// Whether the transaction is one that its server has done nothing in but begin it.
    pub(super) fn has_only_begun(&self) -> bool {
        let begun = self.transaction.as_ref().is_some_and(|open| open.begun.is_some() && open.statements <= 1 && !open.failed);
        begun && !self.pipeline_open && self.pins.is_empty()
    }
}

impl Session {
    /// Whether the transaction can begin on another server, and the unit be sent there if none of it has taken effect.
    pub(super) fn may_begin_anew(&self, unit: &Unit) -> bool {
        let whole = matches!(unit.kind, UnitKind::Query | UnitKind::Pipeline) && unit.pins.is_empty();
        whole && self.mode == PoolMode::Transaction && self.state.has_only_begun() && !unit.ends_transaction()
    }

    /// The server of the transaction went away before anything was asked of it but to begin. True: the next unit finds another.
    pub(super) fn can_lose_begun(&self) -> bool {
        let begun = self.mode == PoolMode::Transaction && self.state.has_only_begun();
        if begun {
            self.database.metrics.retries(RetryReason::PrimaryLost).increment();
        }
        begun
    }

    /// Begins the session's transaction on a server, for the unit. Where that can't be done the transaction is lost.
    pub(super) async fn begin_anew(&mut self, unit: &Unit, attempt: &mut Attempt) -> Result<(), AttachError> {
        let outcome = self.try_begin_anew(attempt).await;
        if outcome.is_err() {
            self.abandon_link();
            self.state.lost_transaction &= !unit.ends_transaction();
        }
        outcome
    }

    async fn try_begin_anew(&mut self, attempt: &mut Attempt) -> Result<(), AttachError> {
        while let Some(transaction) = &self.state.transaction {
            if transaction.movable.is_none() {
                attempt.need.target = Target::Primary;
            }
            let begin = begin_text(transaction.begun.unwrap_or_default());
            self.attach(attempt).await?;
            let Some(link) = self.link.as_mut() else { continue };
            if let Some(transaction) = &mut self.state.transaction {
                transaction.at_begin.server = link.server().parameters.clone();
            }
            put_own_query(link.server(), &begin);
            match self.run_own(true).await {
                Ok(()) => return Ok(()),
                Err(OwnError::End(end)) => return Err(AttachError::End(end)),
                Err(OwnError::Lost) => {
                    // Nothing of the client's was sent; `attach` says when there is no host left.
                    let failed = self.link.take().map(|mut link| {
                        link.server().broken = true;
                        link.host.id
                    });
                    attempt.failed.extend(failed);
                }
                Err(OwnError::Failed { message, .. }) => {
                    self.break_link();
                    let report = crate::wire::reply::Report::error(crate::types::SqlState::ADMIN_SHUTDOWN, message);
                    return Err(AttachError::Refused(report.detail("The transaction could not begin on another server.")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_begins_as_it_did() {
        let all = TransactionModes { read_only: Some(true), isolation: Some(Isolation::Serializable), deferrable: Some(true) };
        assert_eq!(begin_text(all), "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
        assert_eq!(begin_text(TransactionModes::default()), "BEGIN");
        let other =
            TransactionModes { read_only: Some(false), isolation: Some(Isolation::RepeatableRead), deferrable: Some(false) };
        assert_eq!(begin_text(other), "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE");
    }
}
