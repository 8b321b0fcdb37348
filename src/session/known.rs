//! Statements that can be prepared without asking a server: the primary has prepared the same text for the same role before, and the
//! catalogue has not changed since.
//!
//! A driver may hold its thread until its Parse is answered, while other clients of that thread have every server connection in
//! transactions of theirs. A Parse that waited for a connection would then wait for them, and they for it. A server that lacks the
//! statement is sent it in front of its first Bind.

use super::run::Session;
use super::state::{SessionState, significant};
use super::unit::{Unit, UnitKind};
use crate::config::PoolMode;
use crate::database::{Database, PreparedStatement, StatementForm};
use crate::metrics::QueryRoute;
use crate::wire::frame_at;
use crate::wire::parse::ParseMessage;
use crate::wire::reply::{put_bare, put_ready};
use std::sync::Arc;

/// A name, and what it is given to.
type GivenName = (Box<[u8]>, Arc<PreparedStatement>);

impl Session {
    /// Answers a unit that does nothing but prepare statements that are known; false: a server has to be asked. The session holds
    /// none.
    pub(super) fn answers_known(&mut self, unit: &Unit) -> bool {
        let free = self.mode == PoolMode::Transaction && self.state.transaction.is_none() && self.state.local.is_none();
        let plain = unit.has_named_parse() && !(unit.own_names || unit.changes_catalogue) && unit.kind != UnitKind::Part;
        if !free || !plain {
            return false;
        }
        let Some(statements) = self.known_statements(unit) else { return false };
        for (name, statement) in statements {
            self.state.name_statement(&name, statement, 0);
            put_bare(self.client.outbox.writer(), b'1');
        }
        self.state.journal.clear();
        if unit.kind == UnitKind::Pipeline {
            put_ready(self.client.outbox.writer(), self.state.status().byte());
        }
        true
    }

    /// The statements that the unit's Parse messages name; `None` if there is any doubt what a server would answer.
    fn known_statements(&self, unit: &Unit) -> Option<Vec<GivenName>> {
        let change = self.database.last_change();
        let mut found: Vec<GivenName> = Vec::new();
        let mut rest = &self.client.inbox.as_slice()[..unit.len];
        while let Ok(Some(frame)) = frame_at(rest) {
            rest = &rest[frame.total..];
            match frame.tag {
                b'P' => {
                    let parse = ParseMessage::read(frame.body).ok()?;
                    let taken = self.state.statement(parse.name).is_some() || found.iter().any(|(name, _)| **name == *parse.name);
                    if taken || parse.name.is_empty() || significant(parse.name).len() < parse.name.len() {
                        return None;
                    }
                    let statement = self.database.statements.known(parse.definition, &self.state.meaning)?;
                    let named =
                        self.state.name_of(statement.id).is_some() || found.iter().any(|(_, same)| same.id == statement.id);
                    if named || statement.proof(&self.role.role) != Some(change) {
                        return None;
                    }
                    found.push((parse.name.into(), statement));
                }
                b'S' | b'H' => {}
                _ => return None,
            }
        }
        Some(found)
    }

    /// The unit has been answered: what the primary has prepared in it can be prepared again, as long as the catalogue does not
    /// change. A session that may see objects of its own proves nothing to others.
    pub(super) fn note_prepared(&self, unit: &Unit, route: QueryRoute) {
        let own_objects = unit.changes_catalogue
            || self.state.pipeline_changed_catalogue
            || self.state.transaction.as_ref().is_some_and(|transaction| transaction.changed_catalogue);
        let pinned = !(self.state.pins.is_empty() && unit.pins.is_empty());
        if route != QueryRoute::Primary || self.mode != PoolMode::Transaction || own_objects || pinned {
            return;
        }
        for (statement, change) in self.state.prepared_now() {
            if statement.form() == StatementForm::Shared {
                statement.prove(&self.role.role, change);
            }
        }
    }
}

/// The statement of a Parse that gives a name. A second name for the same text is a statement of its own, so that each id has one
/// name.
pub(super) fn new_statement(
    parse: &ParseMessage<'_>,
    meaning: &str,
    state: &SessionState,
    database: &Database,
) -> Arc<PreparedStatement> {
    let statement = database.statements.intern(parse.definition, parse.text.len(), meaning);
    if state.name_of(statement.id).is_none() {
        return statement;
    }
    PreparedStatement::of_one_session(parse.definition, parse.text.len(), statement.meaning(), StatementForm::Shared)
}

/// Sees to it that a text whose tables may have changed since the primary has prepared it is a new statement: a server is to say
/// whether it can still be prepared. Answers the last change of the catalogue.
pub(super) fn mark_if_changed(parse: &ParseMessage<'_>, meaning: &str, role: &str, database: &Database) -> u64 {
    let change = database.last_change();
    if let Some(known) = database.statements.known(parse.definition, meaning)
        && known.proof(role).is_some_and(|proven| proven < change)
    {
        known.mark_outdated();
    }
    change
}
