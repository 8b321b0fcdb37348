//! Statements that are about the session: they go to every leg that is open, and are remembered for those that are opened later.

use super::relay::Listening;
use super::session::ShardedSession;
use super::sets::value_of;
use super::transaction::BlockState;
use super::trouble::Trouble;
use crate::sql::{Lexing, SessionEffect, StatementFacts, TransactionModes};
use crate::types::SqlState;
use crate::wire::reply::Report;

/// `SET pgyard.shard = 's1'`: statements go to this shard.
pub(super) const SHARD: &str = "pgyard.shard";
/// `SET pgyard.sharding_key = '...'`: statements go to the shard of this key.
pub(super) const SHARDING_KEY: &str = "pgyard.sharding_key";

impl ShardedSession {
    /// How texts are read.
    pub(super) fn lexing(&self) -> Lexing {
        let strings =
            self.parameter("standard_conforming_strings").as_deref().is_none_or(|value| value == "on" || value == "default");
        let encoding = self.parameter("client_encoding").unwrap_or_default();
        let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
        Lexing {
            standard_conforming_strings: strings,
            ascii_safe_encoding: matches!(plain.as_str(), "" | "utf8" | "unicode" | "sqlascii" | "latin1" | "default"),
        }
    }

    /// A parameter that the session has set, without its quotes, in lower case.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let unquoted = |value: &str| {
            let value = value.trim().trim_start_matches(['E', 'e']);
            value.trim_matches('\'').to_lowercase()
        };
        match self.sets.set_value(name) {
            Some(value) => Some(unquoted(value)),
            None => self.client.startup.plain(name),
        }
    }

    /// Carries out a statement with effects on the session. Answers whether it was one that goes to every leg.
    pub(super) async fn session_statement(&mut self, sql: &str, statement: &StatementFacts) -> Result<bool, Trouble> {
        let sets = |effect: &SessionEffect| {
            matches!(
                effect,
                SessionEffect::Set { .. }
                    | SessionEffect::SetLocal { .. }
                    | SessionEffect::Reset(_)
                    | SessionEffect::ResetAll
                    | SessionEffect::DiscardAll
                    | SessionEffect::DiscardSome(_)
            )
        };
        if !statement.effects.iter().any(sets) {
            return Ok(false);
        }
        if let Some((name, value)) = own_setting(&statement.effects, sql) {
            self.check_override(name, value)?;
            self.put_tag(if matches!(&statement.effects[..], [SessionEffect::Reset(_)]) { "RESET" } else { "SET" });
        } else {
            self.tell_all(sql).await?;
            if self.failed_within {
                return Ok(true);
            }
        }
        for effect in &statement.effects {
            self.sets.note(effect, sql);
            self.names.note(effect, self.block.state != BlockState::None);
            if matches!(effect, SessionEffect::DiscardAll) {
                self.forget_statements();
            }
        }
        if self.block.state == BlockState::None {
            // Every leg that is open was told.
            self.sets.commit();
            let version = self.sets.version();
            self.legs.iter_mut().flatten().for_each(|leg| leg.sets_seen = version);
        }
        Ok(true)
    }

    fn check_override(&self, name: &str, value: Option<&str>) -> Result<(), Trouble> {
        let value = value.map(|value| value.trim().trim_matches('\'')).unwrap_or_default();
        if name == SHARD && !value.is_empty() && !self.map.shards.iter().any(|shard| shard == value) {
            let report = Report::error(SqlState::INVALID_PARAMETER_VALUE, format!("there is no shard \"{value}\""));
            return Err(report.hint(format!("The shards are {}.", self.map.shards.join(", "))).into());
        }
        Ok(())
    }

    /// Sends a statement to every leg that must know it; one of them answers the client.
    async fn tell_all(&mut self, sql: &str) -> Result<(), Trouble> {
        let open = self.block.state != BlockState::None;
        let concerned = |leg: &Option<Box<super::leg::Leg>>| leg.as_ref().is_some_and(|leg| !open || leg.has_begun());
        let mut shards: Vec<usize> = (0..self.legs.len()).filter(|shard| concerned(&self.legs[*shard])).collect();
        if shards.is_empty() {
            shards.push(self.any_shard());
        }
        for &shard in &shards {
            self.enter(shard, false).await?;
        }
        for &shard in &shards {
            self.leg(shard).query(sql);
        }
        let relayed = self.relay(shards[0], Listening::default()).await?;
        self.failed_within = relayed.error.is_some();
        let mut outcome = Ok(());
        for &shard in &shards[1..] {
            let answer = self.finish(shard, false).await.and_then(|answer| answer.check());
            if matches!(answer, Err(Trouble::Failed(_))) && !self.failed_within && !open {
                // Its parameters are not the session's: the next statement there gets a new leg.
                self.legs[shard] = None;
            }
            outcome = outcome.and(answer.map(drop));
        }
        if self.failed_within {
            self.block.fail();
            return Ok(());
        }
        outcome
    }

    /// SET TRANSACTION: how the legs begin that have not yet; those that have are told.
    pub(super) async fn set_transaction(&mut self, sql: &str, modes: TransactionModes) -> Result<(), Trouble> {
        if self.block.state == BlockState::None {
            self.warn(SqlState(*b"25P01"), "SET TRANSACTION can only be used in transaction blocks");
            self.put_tag("SET");
            return Ok(());
        }
        self.tell_begun(sql).await?;
        self.block.also(sql, modes.isolation);
        self.put_tag("SET");
        Ok(())
    }
}

/// The name and the value of a setting that is pgyard's alone, if a statement is about one.
fn own_setting<'a>(effects: &'a [SessionEffect], sql: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    let (name, value) = match effects {
        [SessionEffect::Set { name, value }] => (name, value.as_deref()),
        [SessionEffect::SetLocal { name, .. }] => (name, value_of(sql)),
        [SessionEffect::Reset(name)] => (name, None),
        _ => return None,
    };
    matches!(&**name, SHARD | SHARDING_KEY).then_some((&**name, value))
}
