//! Rates of statements: one beyond its rate is refused, or, in a transaction, which an error would end, made to wait.
//!
//! A whole pipeline is refused or let through as one; each of its statements counts.

use super::attach::AttachError;
use super::run::Session;
use super::unit::{Unit, UnitKind};
use crate::config::format_rate;
use crate::database::{ClientState, RateLimit};
use crate::metrics::{RateOutcome, RateScope};
use crate::types::SqlState;
use crate::wire::frame_at;
use crate::wire::reply::Report;
use std::time::{Duration, Instant};

impl Session {
    /// Counts the unit's statements, and waits or refuses where they are too many.
    pub(super) async fn keep_to_rates(&mut self, unit: &Unit) -> Result<(), AttachError> {
        let count = self.counted_statements(unit);
        if count == 0 {
            return Ok(());
        }
        let mut delayed = false;
        loop {
            let from = (self.entry.peer.ip(), count);
            let Err((limit, wait)) = self.role.admit_statements(&self.database, from, Instant::now()) else { return Ok(()) };
            let scope = match limit {
                RateLimit::User(_) => RateScope::User,
                RateLimit::Address(_) => RateScope::Address,
            };
            if self.state.transaction.is_none() && !self.state.pipeline_open {
                self.database.metrics.rate_limited(scope, RateOutcome::Refused).increment();
                return Err(AttachError::Refused(refusal(limit, wait, &self.role.role)));
            }
            if !std::mem::replace(&mut delayed, true) {
                self.database.metrics.rate_limited(scope, RateOutcome::Delayed).increment();
            }
            self.state_is(ClientState::Waiting);
            self.or_interrupted(tokio::time::sleep(wait)).await?;
            self.state_is(ClientState::Active);
        }
    }

    /// The statements that the unit runs. What is only prepared counts as one.
    fn counted_statements(&self, unit: &Unit) -> u32 {
        let count = match unit.kind {
            UnitKind::Query => unit.run_statements().count().max(1),
            UnitKind::Pipeline | UnitKind::Flush | UnitKind::Part => {
                let mut executes = 0;
                let mut rest = self.client.inbox.as_slice().get(..unit.len).unwrap_or_default();
                while let Ok(Some(frame)) = frame_at(rest) {
                    executes += usize::from(frame.tag == b'E');
                    rest = &rest[frame.total..];
                }
                executes.max(usize::from(unit.kind == UnitKind::Pipeline))
            }
            UnitKind::Function => 1,
            UnitKind::Terminate => 0,
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn refusal(limit: RateLimit, wait: Duration, role: &str) -> Report {
    let (whose, setting, rate) = match limit {
        RateLimit::User(rate) => (format!("of user \"{role}\""), "statement_rate_per_user", rate),
        RateLimit::Address(rate) => ("from your address".to_owned(), "statement_rate_per_address", rate),
    };
    let hint = format!("Try again in {:.3} s; {setting} is {}.", wait.as_secs_f64(), format_rate(&rate));
    Report::error(SqlState::CONFIGURATION_LIMIT_EXCEEDED, format!("too many statements {whose}")).hint(hint)
}
