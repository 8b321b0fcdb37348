//! From a text and its parameters to the shards that are asked.

use super::session::ShardedSession;
use super::settings::SHARD;
use super::trouble::Trouble;
use crate::plan::{KeyCondition, KeyTerm, Plan, Refusal, SplitInsert};
use crate::shard::ShardSet;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;

/// What is done with one statement whose parameters are known.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Any shard; this one is as good as the others, and at hand.
    Any(usize),
    /// This shard only.
    One(usize),
    /// Several, as the plan says.
    Several(&'a Plan),
}

/// A statement's plan.
#[derive(Clone, Debug)]
pub struct PlannedStatement {
    /// What is done.
    pub plan: Arc<Plan>,
}

/// The parameters of a Bind.
#[derive(Clone, Copy, Debug)]
pub struct BoundParameters<'a> {
    /// The types that Parse named or the server found.
    pub types: &'a [u32],
    /// The values, and whether each is binary.
    pub values: &'a [(Option<Vec<u8>>, bool)],
}

impl ShardedSession {
    /// A shard that is at hand for what any can answer: one that takes part in the transaction, else the one that answered last.
    pub(super) fn any_shard(&self) -> usize {
        let begun = |shard: &usize| self.legs[*shard].as_ref().is_some_and(|leg| leg.has_begun());
        if begun(&self.last) {
            return self.last;
        }
        (0..self.legs.len()).find(begun).unwrap_or(self.last)
    }

    /// The plan of a statement.
    pub(super) fn plan(&mut self, text: &[u8]) -> Result<PlannedStatement, Trouble> {
        if let Some(shard) = self.override_shard()? {
            let shards = KeyCondition::Shards(ShardSet::one(shard));
            let several = Box::new(Plan::Anywhere);
            return Ok(PlannedStatement { plan: Arc::new(Plan::Confined { shards, several }) });
        }
        let facts = self.facts(text);
        let none = |statement: &crate::sql::StatementFacts| {
            matches!(&statement.tables, crate::sql::Tables::Known { read, written } if read.is_empty() && written.is_empty())
        };
        let plan = match facts.statements.iter().all(none) {
            true => Plan::Anywhere,
            false => Plan::Refused(Refusal { reason: "tables".into(), hint: String::new() }),
        };
        Ok(PlannedStatement { plan: Arc::new(plan) })
    }

    /// The shard that the session has chosen by itself.
    fn override_shard(&self) -> Result<Option<usize>, Trouble> {
        let Some(name) = self.sets.set_value(SHARD) else { return Ok(None) };
        let name = name.trim().trim_matches('\'');
        Ok(self.map.shards.iter().position(|shard| shard == name))
    }

    pub(super) fn resolve(&self, condition: &KeyCondition, _parameters: Option<BoundParameters<'_>>) -> ShardSet {
        match condition {
            KeyCondition::Shards(set) => *set,
            _ => self.map.all(),
        }
    }

    pub(super) fn shard_of_row(&self, _insert: &SplitInsert, _key: &[KeyTerm], _parameters: Option<BoundParameters<'_>>) -> Result<usize, Trouble> {
        Ok(0)
    }

    pub(super) fn shard_of_values(&self, _insert: &SplitInsert, _row: &[Option<Vec<u8>>]) -> Result<usize, Trouble> {
        Ok(0)
    }

    pub(super) fn type_name(&self, _oid: u32) -> Result<String, Trouble> {
        Ok(String::new())
    }

    pub(super) fn gather_memory(&self) -> usize {
        self.database.gather_memory()
    }
}

impl PlannedStatement {
    /// Where the statement goes with these parameters.
    ///
    /// # Errors
    /// It can't be answered exactly.
    pub fn target(&self, session: &ShardedSession, parameters: Option<BoundParameters<'_>>) -> Result<Target<'_>, Trouble> {
        target(&self.plan, session, parameters)
    }
}

fn target<'a>(plan: &'a Plan, session: &ShardedSession, parameters: Option<BoundParameters<'_>>) -> Result<Target<'a>, Trouble> {
    match plan {
        Plan::Anywhere => Ok(Target::Any(session.any_shard())),
        Plan::Confined { shards, several } => {
            let set = session.resolve(shards, parameters);
            match set.only() {
                Some(shard) => Ok(Target::One(shard)),
                // No row can meet the condition: any shard says so.
                None if set.is_empty() => Ok(Target::Any(session.any_shard())),
                None => target(several, session, parameters),
            }
        }
        Plan::Refused(refusal) => {
            session.database.metrics.refused.increment();
            Err(refused(refusal))
        }
        several => Ok(Target::Several(several)),
    }
}

fn refused(refusal: &Refusal) -> Trouble {
    let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, refusal.reason.clone());
    if refusal.hint.is_empty() { report.into() } else { report.hint(refusal.hint.clone()).into() }
}
