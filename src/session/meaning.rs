//! What texts mean here and now: parameters that are set to the end of the transaction, and the way back to the parameters under
//! which a statement was prepared.

use super::state::SessionState;
use crate::database::statements::{decides_meaning, meaning_names, with_meaning};
use crate::database::{PreparedStatement, StatementForm, meaning};
use crate::server::prepared::server_name;
use crate::server::{Expected, ParameterSet, ServerConnection, TransactionStatus};
use crate::sql::{Command, Facts, Pins, SessionEffect};
use crate::wire::frame::{put_message, put_string};
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Parameters that were set to the end of the transaction, as far as they decide what a text means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSettings {
    known: ParameterSet,
    /// Set to what only the server knows.
    unknown: BTreeSet<Arc<str>>,
}

impl LocalSettings {
    /// Takes in a SET LOCAL. An empty name may be any, no value may be any.
    pub fn set(&mut self, name: &Arc<str>, value: Option<&Arc<str>>) {
        match value {
            _ if name.is_empty() => self.unknown.extend(meaning_names().map(Arc::from)),
            _ if !decides_meaning(name) => {}
            Some(value) => {
                self.unknown.remove(name);
                self.known.set(name.clone(), value.clone());
            }
            None => drop(self.unknown.insert(name.clone())),
        }
    }

    /// A SET without LOCAL takes the place of an earlier one with it.
    pub fn forget(&mut self, name: &str) {
        self.known.unset(name);
        self.unknown.remove(name);
    }

    /// Whether only the server knows some of them.
    pub fn is_unsure(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// `parameters` with these above them.
    pub fn over(&self, parameters: &ParameterSet) -> ParameterSet {
        let mut effective = parameters.clone();
        for name in ["session_authorization"].into_iter().chain(meaning_names()) {
            if let Some(value) = self.known.get(name) {
                effective.set(name.into(), value.into());
            }
        }
        effective
    }

    /// Asks the server for what only it knows: one text, to be given to [`LocalSettings::learn`].
    pub fn question(&self) -> String {
        let settings: Vec<String> = self.unknown.iter().map(|name| format!("pg_catalog.current_setting('{name}')")).collect();
        format!("SELECT pg_catalog.concat_ws(pg_catalog.chr(1), {})", settings.join(", "))
    }

    /// Takes in the answer.
    pub fn learn(&mut self, answer: &str) {
        for (name, value) in std::mem::take(&mut self.unknown).iter().zip(answer.split('\u{1}')) {
            self.known.set_text(name, value);
        }
    }
}

/// What the texts of a unit mean, followed message by message.
#[derive(Debug, Default)]
pub enum UnitMeaning {
    /// What the session's parameters said before it.
    #[default]
    AsBefore,
    /// What parameters that it has set itself say.
    Now(Box<UnitParameters>),
    /// It has done what is not followed here.
    Unsure,
}

/// Parameters in the middle of a unit.
#[derive(Debug)]
pub struct UnitParameters {
    session: ParameterSet,
    local: LocalSettings,
    in_transaction: bool,
    meaning: String,
}

impl UnitMeaning {
    /// Takes in what a statement does that is run now.
    pub fn follow(&mut self, facts: &Facts, state: &SessionState) {
        let concerns = |statement: &crate::sql::StatementFacts| {
            let controls = !matches!(statement.command, Command::Query | Command::Other | Command::CopyIn | Command::CopyOut);
            controls || !statement.effects.is_empty()
        };
        if matches!(self, UnitMeaning::Unsure) || !facts.statements.iter().any(concerns) {
            return;
        }
        if matches!(self, UnitMeaning::AsBefore) {
            *self = UnitMeaning::Now(Box::new(UnitParameters {
                session: state.parameters.as_ref().clone(),
                local: state.local.as_deref().cloned().unwrap_or_default(),
                in_transaction: state.transaction.is_some(),
                meaning: String::new(),
            }));
        }
        let UnitMeaning::Now(now) = self else { return };
        if now.follow(facts, &state.startup) {
            now.meaning = meaning(&now.local.over(&now.session));
        } else {
            *self = UnitMeaning::Unsure;
        }
    }

    /// The meaning of a text that is parsed now; `None` if that is not known.
    pub fn get<'a>(&'a self, state: &'a SessionState) -> Option<&'a str> {
        match self {
            UnitMeaning::AsBefore if state.local.as_ref().is_some_and(|local| local.is_unsure()) => None,
            UnitMeaning::AsBefore => Some(&state.meaning),
            UnitMeaning::Now(now) if !now.local.is_unsure() => Some(&now.meaning),
            UnitMeaning::Now(_) | UnitMeaning::Unsure => None,
        }
    }
}

impl UnitParameters {
    /// False if it can't be followed.
    fn follow(&mut self, facts: &Facts, startup: &ParameterSet) -> bool {
        for statement in &facts.statements {
            match &statement.command {
                Command::Begin(_) => self.in_transaction = true,
                Command::Commit { .. } => {
                    self.in_transaction = false;
                    self.local = LocalSettings::default();
                }
                Command::Rollback { .. } | Command::RollbackTo(_) | Command::TwoPhase => return false,
                _ => {}
            }
            for effect in &statement.effects {
                match effect {
                    SessionEffect::Set { name, value: Some(value) } => {
                        self.local.forget(name);
                        self.session.set(name.clone(), value.clone());
                    }
                    SessionEffect::Set { name, value: None } | SessionEffect::Reset(name) => {
                        self.local.forget(name);
                        match startup.get(name) {
                            Some(value) => self.session.set(name.clone(), value.into()),
                            None => self.session.unset(name),
                        }
                    }
                    SessionEffect::SetLocal { name, value } if self.in_transaction => self.local.set(name, value.as_ref()),
                    SessionEffect::ResetAll | SessionEffect::DiscardAll => return false,
                    _ => {}
                }
            }
        }
        true
    }
}

/// Has the server prepare the statement, under its client's `name` or else under pgyard's, and under the parameters under which
/// it was prepared first.
pub(super) fn put_made(server: &mut ServerConnection, state: &SessionState, name: Option<&[u8]>, statement: &PreparedStatement) {
    let detour = begin_detour(server, state, statement.meaning());
    match (statement.form(), name) {
        (StatementForm::Command, _) => put_command(server, &statement.definition),
        (_, Some(name)) => put_quiet_parse(server, name, 0, &statement.definition),
        (_, None) => put_quiet_parse(server, server_name(statement.id).as_bytes(), statement.id, &statement.definition),
    }
    end_detour(server, detour);
}

/// A Parse whose answer nobody sees.
pub(super) fn put_quiet_parse(server: &mut ServerConnection, name: &[u8], id: u64, definition: &[u8]) {
    ParseMessage::put(server.outbox.writer(), name, definition);
    server.incoming.replies.push(Expected::Parse { id, show: false });
}

/// A Close whose answer nobody sees.
pub(super) fn put_quiet_close(server: &mut ServerConnection, name: &[u8]) {
    NamedMessage::put_statement(server.outbox.writer(), b'C', name);
    server.incoming.replies.push(Expected::Close { show: false });
}

/// Sets the parameters that a text was written for; gives what sets them back.
pub(super) fn begin_detour(server: &mut ServerConnection, state: &SessionState, wanted: &str) -> Vec<String> {
    // Pinned by its parameters: only the server knows them, and could not be set back to them.
    if *wanted == *state.meaning || state.pins.intersects(Pins::PARAMETER) {
        return Vec::new();
    }
    let now = state.local.as_ref().map_or_else(|| (*state.parameters).clone(), |local| local.over(&state.parameters));
    let there = with_meaning(&now, wanted);
    // What is set with LOCAL hides what is set without it, and goes with the transaction.
    let local = server.incoming.status != TransactionStatus::Idle;
    for sql in changes(&now, &there, local) {
        put_command(server, sql.as_bytes());
    }
    changes(&there, &now, local)
}

/// Sets them back.
pub(super) fn end_detour(server: &mut ServerConnection, back: Vec<String>) {
    for sql in back {
        put_command(server, sql.as_bytes());
    }
}

fn changes(from: &ParameterSet, to: &ParameterSet, local: bool) -> Vec<String> {
    let set = |name: &str| {
        let scope = if local { "LOCAL " } else { "" };
        format!("SET {scope}{name} TO {}", to.get(name).unwrap_or("DEFAULT"))
    };
    let differs = |name: &str| from.get(name) != to.get(name);
    let others = meaning_names().filter(|name| differs(name) && !matches!(*name, "role" | "session_authorization"));
    let mut sql: Vec<String> = others.map(set).collect();
    let authorization = differs("session_authorization");
    if authorization {
        sql.push(set("session_authorization"));
    }
    // Another authorization resets the role.
    if differs("role") || authorization {
        sql.push(set("role"));
    }
    sql
}

/// A command of pgyard's own in the middle of a pipeline. It leaves the unnamed statement and portal alone.
fn put_command(server: &mut ServerConnection, sql: &[u8]) {
    const NAME: &[u8] = b"pgyard_command";
    put_quiet_close(server, NAME);
    let mut definition = sql.to_vec();
    definition.extend_from_slice(&[0, 0, 0]);
    put_quiet_parse(server, NAME, 0, &definition);
    let out = server.outbox.writer();
    put_message(out, b'B', |body| {
        put_string(body, NAME);
        put_string(body, NAME);
        body.extend_from_slice(&[0; 6]);
    });
    put_message(out, b'E', |body| {
        put_string(body, NAME);
        body.extend_from_slice(&[0; 4]);
    });
    put_message(out, b'C', |body| {
        body.push(b'P');
        put_string(body, NAME);
    });
    server.incoming.replies.push(Expected::QuietBind);
    server.incoming.replies.push(Expected::QuietExecute);
    server.incoming.replies.push(Expected::Close { show: false });
    // An error in the middle leaves it there.
    let at = server.incoming.replies.next_number();
    server.own_names.remove(NAME, at);
    put_quiet_close(server, NAME);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> ParameterSet {
        let mut set = ParameterSet::default();
        for (name, value) in pairs {
            set.set((*name).into(), (*value).into());
        }
        set
    }

    #[test]
    fn local_settings_lie_above_the_sessions() {
        let mut local = LocalSettings::default();
        local.set(&"app.tenant".into(), None);
        assert!(!local.is_unsure());
        local.set(&"search_path".into(), Some(&"b".into()));
        let session = set(&[("search_path", "a"), ("work_mem", "1MB")]);
        assert_eq!(local.over(&session), set(&[("search_path", "b"), ("work_mem", "1MB")]));
        local.set(&"role".into(), None);
        local.set(&"datestyle".into(), None);
        assert_eq!(local.question().matches("current_setting").count(), 2);
        local.learn("German, DMY\u{1}none");
        assert!(!local.is_unsure());
        let wanted = set(&[("search_path", "b"), ("work_mem", "1MB"), ("datestyle", "'German, DMY'"), ("role", "'none'")]);
        assert_eq!(local.over(&session), wanted);
        local.forget("search_path");
        assert_eq!(local.over(&session).get("search_path"), Some("a"));
        local.set(&"".into(), None);
        assert!(local.is_unsure());
    }

    #[test]
    fn a_detour_sets_what_differs_and_the_role_last() {
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], local, expect: &[&str]| {
            assert_eq!(changes(&set(from), &set(to), local), expect);
        };
        check(&[("search_path", "a"), ("work_mem", "1")], &[("work_mem", "2")], false, &["SET search_path TO DEFAULT"]);
        check(
            &[("role", "x")],
            &[("role", "y"), ("datestyle", "German")],
            true,
            &["SET LOCAL datestyle TO German", "SET LOCAL role TO y"],
        );
        check(
            &[("session_authorization", "ann"), ("role", "x")],
            &[("role", "x")],
            false,
            &["SET session_authorization TO DEFAULT", "SET role TO x"],
        );
    }
}
