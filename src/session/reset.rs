//! RESET and its like, for a client that asked for parameters in its start-up packet: they go back to these, and the client is
//! told so. A server connection serves many clients and goes back to values of its own, so that the session's are set again before
//! the client gets its ReadyForQuery.

use super::attach::AttachError;
use super::own_queries::OwnError;
use super::run::Session;
use super::send::put_parameters;
use super::state::SessionState;
use super::unit::{Unit, UnitKind};
use crate::server::{ReportedParameters, ServerConnection, TransactionStatus};
use crate::sql::SessionEffect;
use crate::wire::frame::{put_message, put_string};
use crate::wire::reply::put_ready;
use std::hint::cold_path;

/// What the client was last told of the parameters, if the unit may reset some that its start-up packet has set.
pub(super) fn withheld(unit: &Unit, state: &SessionState, server: &ServerConnection) -> Option<Box<ReportedParameters>> {
    if !unit.needs_care || state.startup.is_empty() || !matches!(unit.kind, UnitKind::Query | UnitKind::Pipeline) {
        return None;
    }
    cold_path();
    let resets = |effect: &SessionEffect| match effect {
        SessionEffect::Reset(name) | SessionEffect::Set { name, value: None } => state.startup.get(name).is_some(),
        SessionEffect::ResetAll | SessionEffect::DiscardAll => true,
        _ => false,
    };
    let mut effects = unit.run_statements().flat_map(|statement| &statement.effects);
    effects.any(resets).then(|| Box::new(server.incoming.reported.clone()))
}

impl Session {
    /// Makes the server's parameters those of the session again, then ends the answer: reports of what has changed on the whole,
    /// and ReadyForQuery.
    pub(super) async fn put_startup_back(&mut self, unit: &Unit, told: &ReportedParameters) -> Result<(), AttachError> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        put_parameters(link.server(), &self.state);
        if !link.server().incoming.replies.is_empty() {
            match self.run_own(false).await {
                Ok(()) => {}
                Err(OwnError::End(end)) => return Err(AttachError::End(end)),
                Err(OwnError::Lost | OwnError::Failed { .. }) => {
                    // The unit itself was answered; what is lost with the server shows at the next one.
                    self.break_link();
                    self.end_answer(unit);
                    return Ok(());
                }
            }
        }
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let incoming = &link.server().incoming;
        let (status, out) = (incoming.status, self.client.outbox.writer());
        // In the order in which servers report: by name.
        let mut changed: Vec<(&str, &str)> =
            incoming.reported.iter().filter(|(name, now)| told.get(name) != Some(*now)).collect();
        changed.sort_by_key(|(name, _)| name.to_lowercase());
        for (name, value) in changed {
            put_message(out, b'S', |body| {
                put_string(body, name.as_bytes());
                put_string(body, value.as_bytes());
            });
        }
        self.state.told_mark = incoming.reported.mark();
        put_ready(out, status.byte());
        if status == TransactionStatus::Idle {
            self.release_if_free();
        }
        Ok(())
    }
}
