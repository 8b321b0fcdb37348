//! From a text and its parameters to the shards that are asked.

use super::extended::ShardedStatement;
use super::leg::LegTransaction;
use super::merge::SortSettings;
use super::session::ShardedSession;
use super::settings::{SHARD, SHARDING_KEY};
use super::trouble::Trouble;
use crate::plan::{Binding, KeyCondition, KeyTerm, Plan, Planner, Refusal, Schema, SplitInsert};
use crate::shard::{KeySession, QualifiedName, SentParameter, ShardSet, TablePlace};
use crate::sql::{Access, Command, StatementFacts};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::collections::HashMap;
use std::sync::Arc;

/// Plans that a session keeps.
const PLANS_MAX: usize = 256;

/// What is done with one statement whose parameters are known.
#[derive(Clone, Copy, Debug)]
pub enum ShardTarget<'a> {
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
    /// The shelf's generation when it was made; 0: it holds for this time only.
    made: u64,
}

/// The parameters of a Bind.
#[derive(Clone, Copy, Debug)]
pub struct BoundParameters<'a> {
    /// The types that Parse named or the server found.
    pub types: &'a [u32],
    /// The values, and whether each is binary.
    pub values: &'a [(Option<Vec<u8>>, bool)],
}

/// What a shard said of a query.
#[derive(Debug)]
pub(super) struct QueryDescription {
    /// The types of its parameters as they were given.
    pub(super) parameters: Box<[u32]>,
    /// The body of its RowDescription.
    pub(super) rows: Arc<[u8]>,
}

/// Plans of texts seen before, and what they were made under.
#[derive(Debug, Default)]
pub struct PlanShelf {
    plans: HashMap<Box<[u8]>, Arc<Plan>>,
    schema: Option<Arc<Schema>>,
    meaning: String,
    /// Changes of the session's parameters and names that are in `meaning`.
    seen: (u64, u64),
    /// One more whenever plans made before hold no longer. The first is 1.
    generation: u64,
    /// What a shard said of queries.
    pub(super) described: HashMap<Box<str>, QueryDescription>,
    /// How servers write values, and the number of the last SET before.
    pub(super) sorting: Option<(u64, SortSettings)>,
}

impl PlanShelf {
    /// An empty one: no plan that was made before holds.
    pub(super) fn renewed(&self) -> PlanShelf {
        PlanShelf { generation: self.generation + 1, ..PlanShelf::default() }
    }
}

impl ShardedSession {
    /// A shard that is at hand for what any can answer: one that takes part in the transaction, else the one that answered last.
    pub(super) fn any_shard(&self) -> usize {
        let begun = |shard: &usize| self.legs[*shard].as_ref().is_some_and(|leg| leg.has_begun());
        // The coordinator is no shard.
        let last = if self.last < self.map.shards.len() { self.last } else { 0 };
        if begun(&last) {
            return last;
        }
        (0..self.map.shards.len()).find(begun).unwrap_or(last)
    }

    /// The coordinator's leg, if the coordinator may answer a statement that the shards can't: it is a read, and the session has not written
    /// in its transaction, which the coordinator would not see.
    fn coordinator_for(&self, statement: Option<&StatementFacts>) -> Option<usize> {
        if self.block.changed_schema {
            return None;
        }
        self.database.coordinator_in_step()?;
        let asks = |command: &Command| matches!(command, Command::Query | Command::CopyOut);
        let reads = statement.is_some_and(|facts| asks(&facts.command) && !matches!(facts.access, Access::Write(_)));
        let written = self.legs.iter().flatten().any(|leg| leg.transaction == LegTransaction::Writing);
        (reads && !written).then_some(self.map.shards.len())
    }

    /// The plan of a prepared statement: the one that was made with it, if it still holds.
    pub(super) fn plan_of(&mut self, statement: &ShardedStatement) -> Result<PlannedStatement, Trouble> {
        let (shelf, made) = (&self.plans, statement.plan.made);
        let schema = self.planning_schema();
        let holds = made == shelf.generation
            && made > 0
            && shelf.seen == (self.sets.changes(), self.names.changes)
            && shelf.schema.as_ref().zip(schema.as_ref()).is_some_and(|(known, now)| Arc::ptr_eq(known, now));
        if holds { Ok(statement.plan.clone()) } else { self.plan(statement.text()) }
    }

    /// The plan of a statement.
    pub(super) fn plan(&mut self, text: &[u8]) -> Result<PlannedStatement, Trouble> {
        if let Some(shard) = self.override_shard(text)? {
            let shards = KeyCondition::Shards(ShardSet::one(shard));
            let plan = Arc::new(Plan::Confined { shards, several: Box::new(Plan::Anywhere) });
            return Ok(PlannedStatement { plan, made: 0 });
        }
        let Some(schema) = self.planning_schema() else {
            let report = Report::error(SqlState::CANNOT_CONNECT_NOW, "the schema of the shards is not known yet");
            return Err(report.hint("The first shard's primary has to be reachable.").into());
        };
        let lexing = self.lexing();
        let search_path = self.search_path();
        let meaning = format!("{lexing:?}{search_path:?}{}", self.names.changes);
        let same = self.plans.schema.as_ref().is_some_and(|known| Arc::ptr_eq(known, &schema)) && self.plans.meaning == meaning;
        let seen = (self.sets.changes(), self.names.changes);
        if !same || self.plans.plans.len() >= PLANS_MAX {
            let generation = self.plans.generation + 1;
            self.plans = PlanShelf { schema: Some(schema.clone()), meaning, seen, generation, ..PlanShelf::default() };
        }
        self.plans.seen = seen;
        if let Some(known) = self.plans.plans.get(text) {
            return Ok(PlannedStatement { plan: known.clone(), made: self.plans.generation });
        }
        let Ok(sql) = std::str::from_utf8(text) else { return Err(super::simple::not_utf8()) };
        let catalogue = self.database.first().catalogue();
        let planner = Planner { schema: &schema, catalogue: &catalogue, map: &self.map, search_path: &search_path, lexing };
        let plan = planner.plan(sql);
        let before = self.names.changes;
        let plan = Arc::new(self.beside_temporary_tables(sql, &schema, plan));
        if self.names.changes != before {
            // A temporary table that was not known hides others from now on.
            return Ok(PlannedStatement { plan, made: 0 });
        }
        self.plans.plans.insert(text.into(), plan.clone());
        Ok(PlannedStatement { plan, made: self.plans.generation })
    }

    fn search_path(&self) -> Vec<String> {
        if let Some(path) = self.names.path() {
            return path.to_vec();
        }
        let set = self.sets.set_value("search_path").map(str::to_owned);
        let path = set.or_else(|| self.client.startup.get("search_path").map(str::to_owned));
        let path = path.filter(|path| !path.eq_ignore_ascii_case("default")).unwrap_or_else(|| "\"$user\", public".to_owned());
        let name = |part: &str| {
            let part = part.trim();
            let quoted = part.trim_matches(['"', '\'']);
            let name = if quoted.len() == part.len() { part.to_lowercase() } else { quoted.to_owned() };
            if name == "$user" { self.client.entry.user.to_string() } else { name }
        };
        std::iter::once("pg_catalog".to_owned()).chain(path.split(',').map(name)).collect()
    }

    /// The shard that the session or a comment has chosen by itself.
    fn override_shard(&self, text: &[u8]) -> Result<Option<usize>, Trouble> {
        let named = |name: &str| self.map.shards.iter().position(|shard| shard == name);
        if let Some(name) = commented_shard(text) {
            let Some(shard) = named(name) else {
                return Err(Trouble::error(SqlState::INVALID_PARAMETER_VALUE, format!("there is no shard \"{name}\"")));
            };
            return Ok(Some(shard));
        }
        if let Some(shard) = self.sets.set_value(SHARD).and_then(|name| named(name.trim().trim_matches('\''))) {
            return Ok(Some(shard));
        }
        let Some(key) = self.sets.set_value(SHARDING_KEY) else { return Ok(None) };
        let key = key.trim().trim_matches('\'').replace("''", "'");
        let Some(schema) = self.database.schema().get().filter(|_| !key.is_empty()) else { return Ok(None) };
        let binding = Binding { parameters: &[], session: self.key_session(None) };
        let mut tables: Vec<_> = self
            .map
            .tables
            .iter()
            .filter(|(_, place)| matches!(place, TablePlace::Sharded(table) if table.key.len() == 1))
            .collect();
        tables.sort_by_key(|(name, _)| *name);
        let term = vec![KeyTerm::Constant { text: Some(key), cast: None }];
        let shard = |name: &QualifiedName| stored(name, term.clone()).resolve(&schema, &self.map, &binding).only();
        let found: Vec<usize> = tables.iter().filter_map(|(name, _)| shard(name)).collect();
        match found.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => Ok(Some(*first)),
            _ => Err(Trouble::error(SqlState::INVALID_PARAMETER_VALUE, "pgyard.sharding_key does not lead to one shard")),
        }
    }

    /// How keys are read that come in an encoding, or in the session's.
    pub(super) fn key_session(&self, encoding: Option<&str>) -> KeySession {
        let reported = |name: &str| self.client.reported.get(name).unwrap_or_default().to_owned();
        let zone = self.parameter("timezone").unwrap_or_else(|| reported("TimeZone"));
        let session = || self.parameter("client_encoding").unwrap_or_else(|| reported("client_encoding"));
        let encoding = encoding.map_or_else(session, canonical_encoding);
        KeySession::new(&zone, &encoding, &reported("server_encoding"))
    }

    pub(super) fn resolve(&self, condition: &KeyCondition, parameters: Option<BoundParameters<'_>>) -> ShardSet {
        let Some(schema) = self.plans.schema.as_ref() else {
            return if let KeyCondition::Shards(set) = condition { *set } else { self.map.all() };
        };
        let sent = sent(parameters);
        condition.resolve(schema, &self.map, &Binding { parameters: &sent, session: self.key_session(None) })
    }

    /// The shard of a row of an INSERT.
    pub(super) fn shard_of_row(
        &self,
        insert: &SplitInsert,
        key: &[KeyTerm],
        parameters: Option<BoundParameters<'_>>,
    ) -> Result<usize, Trouble> {
        placed(insert, self.resolve(&stored(&insert.table, key.to_vec()), parameters))
    }

    /// The shard of a row that a SELECT gave, as text.
    pub(super) fn shard_of_values(&self, insert: &SplitInsert, row: &[Option<Vec<u8>>], types: &[u32]) -> Result<usize, Trouble> {
        let values: Vec<(Option<Vec<u8>>, bool)> = row.iter().map(|value| (value.clone(), false)).collect();
        let key = insert.key_columns.iter().map(|place| KeyTerm::Parameter { number: place + 1, any: false }).collect();
        let parameters = BoundParameters { types, values: &values };
        placed(insert, self.resolve(&stored(&insert.table, key), Some(parameters)))
    }

    /// A type as SQL.
    pub(super) fn type_name(&self, oid: u32, modifier: i32) -> Result<String, Trouble> {
        let known = self.plans.schema.as_ref().and_then(|schema| schema.type_name(oid, modifier));
        known.ok_or_else(|| {
            Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, format!("the type with OID {oid} is not known of the shards"))
        })
    }

    pub(super) fn gather_memory(&self) -> usize {
        self.database.gather_memory()
    }
}

/// An encoding's name as servers report it, as far as it matters.
fn canonical_encoding(name: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_uppercase().as_str() {
        "UTF8" | "UNICODE" => "UTF8".to_owned(),
        "SQLASCII" => "SQL_ASCII".to_owned(),
        other => other.to_owned(),
    }
}

fn stored(table: &QualifiedName, values: Vec<KeyTerm>) -> KeyCondition {
    KeyCondition::Stored { table: table.clone(), values }
}

fn sent(parameters: Option<BoundParameters<'_>>) -> Vec<SentParameter<'_>> {
    let Some(BoundParameters { types, values }) = parameters else { return Vec::new() };
    values
        .iter()
        .enumerate()
        .map(|(place, (value, binary))| SentParameter {
            value: value.as_deref(),
            oid: types.get(place).copied().unwrap_or(0),
            binary: *binary,
        })
        .collect()
}

fn placed(insert: &SplitInsert, found: ShardSet) -> Result<usize, Trouble> {
    found.only().ok_or_else(|| {
        let table = format!("\"{}\".\"{}\"", insert.table.schema, insert.table.name);
        let message = format!("the key of a row of {table} can't be read, or no shard takes it");
        let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, message);
        report.hint("Give the key as a constant or a parameter of the column's own type.").into()
    })
}

/// The shard of `/* pgyard: shard=s1 */` at the front of a text.
fn commented_shard(text: &[u8]) -> Option<&str> {
    let inside = text.trim_ascii_start().strip_prefix(b"/*")?;
    let end = memchr::memmem::find(inside, b"*/")?;
    let comment = std::str::from_utf8(&inside[..end]).ok()?;
    let rest = comment.trim().strip_prefix("pgyard:")?.trim_start().strip_prefix("shard")?.trim_start().strip_prefix('=')?;
    Some(rest.trim())
}

impl PlannedStatement {
    /// Where the statement goes with these parameters.
    ///
    /// # Errors
    /// It can't be answered exactly.
    pub fn target(
        &self,
        session: &ShardedSession,
        statement: Option<&StatementFacts>,
        parameters: Option<BoundParameters<'_>>,
    ) -> Result<ShardTarget<'_>, Trouble> {
        target(&self.plan, session, (statement, parameters))
    }
}

fn target<'a>(
    plan: &'a Plan,
    session: &ShardedSession,
    (statement, parameters): (Option<&StatementFacts>, Option<BoundParameters<'_>>),
) -> Result<ShardTarget<'a>, Trouble> {
    match plan {
        Plan::Anywhere => Ok(ShardTarget::Any(session.any_shard())),
        Plan::Confined { shards, several } => {
            let set = session.resolve(shards, parameters);
            match set.only() {
                Some(shard) => Ok(ShardTarget::One(shard)),
                // No row can meet the condition: any shard says so.
                None if set.is_empty() => Ok(ShardTarget::Any(session.any_shard())),
                None => target(several, session, (statement, parameters)),
            }
        }
        Plan::Refused(refusal) => match session.coordinator_for(statement) {
            Some(leg) => Ok(ShardTarget::One(leg)),
            None => {
                session.database.metrics.refused.increment();
                Err(refused(refusal))
            }
        },
        several => Ok(ShardTarget::Several(several)),
    }
}

fn refused(refusal: &Refusal) -> Trouble {
    let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, refusal.reason.clone());
    if refusal.hint.is_empty() { report.into() } else { report.hint(refusal.hint.clone()).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_name_shards() {
        assert_eq!(commented_shard(b" /* pgyard: shard=s1 */ select 1"), Some("s1"));
        assert_eq!(commented_shard(b"/* pgyard: shard = s1*/select"), Some("s1"));
        assert_eq!(commented_shard(b"select 1 /* pgyard: shard=s1 */"), None);
        assert_eq!(commented_shard(b"/* pgyard: primary */ select 1"), None);
    }
}
