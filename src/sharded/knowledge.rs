//! What a session has to know before it plans: the schema as its transaction sees it, the schemas in which names are looked up, and
//! the temporary tables that hide others. What isn't known makes a refusal, never a guess.

use super::gather::WHOLE_ANSWER;
use super::session::ShardedSession;
use super::transaction::BlockState;
use super::trouble::{ShardedEnd, Trouble};
use crate::plan::{Plan, SCHEMA_QUERY, Schema, SchemaRow, first_shard_plan, refusal};
use crate::sql::scan::Scanner;
use crate::sql::{Lexing, SessionEffect, identifiers};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the schema to be read, at the first statement and after DDL.
const SCHEMA_WAIT: Duration = Duration::from_secs(15);
/// Temporary tables and what else is named like a table.
const TEMPORARY_QUERY: &str = "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()";
/// So that all names that are read have their schemas.
const BEFORE_READING: &str = "SAVEPOINT pgyard_reading; SET LOCAL search_path = pg_catalog";
const AFTER_READING: &str = "ROLLBACK TO SAVEPOINT pgyard_reading; RELEASE SAVEPOINT pgyard_reading";
/// The schemas that are searched, in their order.
const PATH_QUERY: &str = "SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))::text";
/// Parameters on which the meaning of a name without a schema depends.
const PATH_PARAMETERS: [&str; 3] = ["search_path", "role", "session_authorization"];

/// What a session knows of the meaning of names.
#[derive(Debug, Default)]
pub struct SessionNames {
    /// The schemas that a server searches for this session; `None`: nobody was asked since something changed them.
    path: Option<Vec<String>>,
    /// The path was changed in the transaction: it may change back at its end.
    path_in_block: bool,
    /// The schema as the transaction sees it, which has changed it.
    own_schema: Option<Arc<Schema>>,
    /// Names of temporary tables that the session has made, or tried to; some of them may be gone.
    temporary: HashSet<String>,
    /// Changes of all this.
    pub(super) changes: u64,
}

impl SessionNames {
    /// The schemas that are searched, if a server was asked.
    pub fn path(&self) -> Option<&[String]> {
        self.path.as_deref()
    }

    fn forget_path(&mut self) {
        self.path = None;
        self.changes += 1;
    }

    /// The schema was changed in the transaction, or is as it was again.
    pub fn forget_schema(&mut self) {
        self.own_schema = None;
        self.changes += 1;
    }

    /// A parameter was changed, in a transaction or not.
    pub fn note(&mut self, effect: &SessionEffect, in_block: bool) {
        let concerns = match effect {
            SessionEffect::Set { name, .. } | SessionEffect::Reset(name) => PATH_PARAMETERS.contains(&&**name),
            // Nobody knows which, where the name is computed.
            SessionEffect::SetLocal { name, .. } => name.is_empty() || PATH_PARAMETERS.contains(&&**name),
            SessionEffect::ResetAll | SessionEffect::DiscardAll => true,
            _ => false,
        };
        if concerns {
            self.forget_path();
            self.path_in_block |= in_block;
        }
    }

    /// The transaction has ended, or goes on from a savepoint.
    pub fn turn_back(&mut self, ended: bool) {
        if self.path_in_block {
            self.forget_path();
            self.path_in_block = !ended;
        }
        if self.own_schema.is_some() {
            self.forget_schema();
        }
    }

    /// Notes the temporary table or view that a statement makes.
    fn note_temporary(&mut self, sql: &str) {
        let words: Vec<String> = identifiers(sql.as_bytes()).collect();
        let made = words.first().is_some_and(|word| word == "create")
            && words.iter().take(5).any(|word| matches!(word.as_str(), "temp" | "temporary" | "pg_temp"));
        if !made {
            return;
        }
        let kind = words.iter().position(|word| matches!(word.as_str(), "table" | "view" | "sequence"));
        let mut rest = words
            .iter()
            .skip(kind.map_or(words.len(), |place| place + 1))
            .filter(|word| !matches!(word.as_str(), "if" | "not" | "exists" | "pg_temp"));
        if let Some(name) = rest.next()
            && self.temporary.insert(name.clone())
        {
            self.changes += 1;
        }
    }
}

impl ShardedSession {
    /// The schema that statements are planned with.
    pub(super) fn planning_schema(&self) -> Option<Arc<Schema>> {
        self.names.own_schema.clone().or_else(|| self.database.schema().get())
    }

    /// Finds out what planning needs and nobody knows yet. `text` is what will be planned; `None`: several texts.
    ///
    /// # Errors
    /// It can't be found out: then nothing can be planned.
    pub(super) async fn prepare_to_plan(&mut self, text: Option<&[u8]>) -> Result<(), Trouble> {
        if self.block.state == BlockState::Failed {
            return Ok(());
        }
        self.know_schema().await?;
        self.know_temporary_tables(text).await?;
        self.know_path(text).await
    }

    /// As `prepare_to_plan`, for a pipeline: whether its messages are worth a look. A failure has been told to the client.
    pub(super) async fn prepare_pipeline(&mut self) -> Result<(), ShardedEnd> {
        match self.prepare_to_plan(None).await {
            Ok(()) => Ok(()),
            Err(Trouble::End(end)) => Err(end),
            Err(Trouble::Failed(message)) => {
                self.side().outbox.push(&message);
                self.skipping = true;
                self.after_error().await
            }
        }
    }

    async fn know_schema(&mut self) -> Result<(), Trouble> {
        if self.block.changed_schema {
            if self.names.own_schema.is_none() {
                // Nobody else sees it before it is committed.
                self.tell_first(BEFORE_READING).await?;
                let rows = self.ask_for_rows(0, SCHEMA_QUERY).await?;
                self.tell_first(AFTER_READING).await?;
                let rows = rows.into_iter().filter_map(|row| SchemaRow::try_from(row).ok());
                self.names.own_schema = Some(Arc::new(Schema::from_rows(rows)));
            }
            return Ok(());
        }
        let slot = self.database.schema();
        if slot.is_current() {
            return Ok(());
        }
        let change = slot.last_change();
        if tokio::time::timeout(SCHEMA_WAIT, slot.containing(change)).await.is_ok() || slot.get().is_none() {
            return Ok(());
        }
        let report = Report::error(SqlState::CANNOT_CONNECT_NOW, "the schema of the shards has changed and cannot be read now");
        Err(report.hint("The first shard's primary has to be reachable.").into())
    }

    /// Which of the temporary tables that the session made are still there, if a text names one that would hide another table.
    async fn know_temporary_tables(&mut self, text: Option<&[u8]>) -> Result<(), Trouble> {
        if self.names.temporary.is_empty() {
            return Ok(());
        }
        let Some(schema) = self.planning_schema() else { return Ok(()) };
        let hides = |name: &String| self.names.temporary.contains(name) && schema.tables().any(|(table, _)| table.name == *name);
        if !text.is_none_or(|text| identifiers(text).any(|name| hides(&name))) {
            return Ok(());
        }
        let there: HashSet<String> = self.ask_for_rows(0, TEMPORARY_QUERY).await?.into_iter().flatten().flatten().collect();
        let before = self.names.temporary.len();
        self.names.temporary.retain(|name| there.contains(name));
        self.names.changes += u64::from(self.names.temporary.len() != before);
        Ok(())
    }

    async fn know_path(&mut self, text: Option<&[u8]>) -> Result<(), Trouble> {
        if self.names.path.is_some() {
            return Ok(());
        }
        let Some(schema) = self.planning_schema() else { return Ok(()) };
        let concerns = |text: &[u8]| identifiers(text).any(|name| schema.depends_on_path(&name));
        if !schema.has_names_beside_public() || !text.is_none_or(concerns) {
            return Ok(());
        }
        let shard = self.any_shard();
        let rows = self.ask_for_rows(shard, PATH_QUERY).await?;
        self.names.path = Some(rows.into_iter().flatten().flatten().collect());
        self.names.changes += 1;
        Ok(())
    }

    async fn tell_first(&mut self, sql: &str) -> Result<(), Trouble> {
        self.enter(0, false).await?;
        self.leg(0).query(sql);
        self.finish(0, false).await?.check().map(drop)
    }

    /// The rows of a query of the session's own.
    async fn ask_for_rows(&mut self, shard: usize, sql: &str) -> Result<Vec<Vec<Option<String>>>, Trouble> {
        self.enter(shard, false).await?;
        self.put_question(shard, sql, (None, &[]), WHOLE_ANSWER);
        let rows = self.bring(&[shard], &mut 0).await?;
        let text = |value: Option<Vec<u8>>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
        Ok(rows.rows().into_iter().map(|row| row.into_iter().map(text).collect()).collect())
    }

    /// A plan with the session's temporary tables in mind: they are on the first shard, and hide tables of the same name.
    pub(super) fn beside_temporary_tables(&mut self, sql: &str, schema: &Schema, plan: Plan) -> Plan {
        self.names.note_temporary(sql);
        if self.names.temporary.is_empty() {
            return plan;
        }
        let mut words = HashSet::new();
        words.extend(identifiers(sql.as_bytes()));
        let temporary = |name: &String| self.names.temporary.contains(name);
        if !words.iter().any(temporary) {
            return plan;
        }
        let known = |name: &String| schema.tables().any(|(table, _)| table.name == *name);
        let hides = words.iter().any(|name| temporary(name) && known(name));
        if !hides && !matches!(plan, Plan::Everywhere) {
            return plan;
        }
        // `public.t` is not the temporary one.
        if qualifies(sql, &self.names.temporary) || words.iter().any(|name| !temporary(name) && known(name)) {
            let reason = "a temporary table cannot be used beside other tables in a statement for several shards";
            return Plan::Refused(refusal(reason));
        }
        first_shard_plan()
    }
}

/// Whether one of these names stands behind a point.
fn qualifies(sql: &str, names: &HashSet<String>) -> bool {
    let text = sql.as_bytes();
    let mut behind_point = false;
    Scanner::new(text, Lexing::default()).any(|token| {
        let named = || identifiers(token.bytes(text)).next().is_some_and(|name| names.contains(&name));
        let found = behind_point && named();
        behind_point = token.bytes(text) == b".";
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_behind_points_are_seen() {
        let names = HashSet::from(["orders".to_owned()]);
        assert!(qualifies("SELECT * FROM public.Orders", &names) && qualifies("SELECT * FROM public . \"orders\"", &names));
        assert!(!qualifies("SELECT orders.id FROM orders", &names) && !qualifies("SELECT '.orders' FROM orders", &names));
    }

    #[test]
    fn temporary_tables_are_known_by_their_names() {
        let check = |sql: &str, expect: Option<&str>| {
            let mut names = SessionNames::default();
            names.note_temporary(sql);
            assert_eq!(names.temporary.iter().next().map(String::as_str), expect, "{sql}");
        };
        check("CREATE TEMP TABLE orders (id int)", Some("orders"));
        check("create temporary table if not exists \"Orders\" as select 1", Some("Orders"));
        check("CREATE LOCAL TEMP VIEW v AS SELECT 1", Some("v"));
        check("CREATE TABLE pg_temp.x (id int)", Some("x"));
        check("CREATE UNLOGGED TABLE x (id int)", None);
        check("SELECT 'create temp table x'", None);
    }

    #[test]
    fn what_changes_the_path_makes_it_unknown() {
        let path = || Some(vec!["public".to_owned()]);
        let mut names = SessionNames { path: path(), ..SessionNames::default() };
        names.note(&SessionEffect::Set { name: "work_mem".into(), value: None }, true);
        assert!(names.path().is_some());
        names.note(&SessionEffect::SetLocal { name: "search_path".into(), value: None }, true);
        assert!(names.path().is_none());
        names.path = path();
        names.turn_back(true);
        assert!(names.path().is_none());
        names.path = path();
        names.turn_back(true);
        assert!(names.path().is_some());
        names.note(&SessionEffect::Reset("role".into()), false);
        assert!(names.path().is_none());
    }
}
