//! Names of prepared statements that servers must know as the client does.
//!
//! PostgreSQL has one set of names for `PREPARE` and for Parse. Statements that come by Parse are shared by sessions under names of
//! pgyard's (see [`super::translate`]); but a text can say a name too (`EXECUTE x`, `DEALLOCATE x`), and `pg_prepared_statements`
//! shows them all. A unit of that kind runs under the client's *own* names: what it mentions is prepared on its server under the
//! name that the client gave, and its bytes go as they are. Own names stay on the connection until a unit finds them to be another
//! session's, or out of date, and closes them first.

use super::meaning::{put_made, put_quiet_close};
use super::own_queries::OwnError;
use super::run::Session;
use super::send::put_own_query;
use super::state::{SessionState, significant};
use super::unit::{Unit, UnitKind};
use crate::config::PoolMode;
use crate::database::PreparedStatement;
use crate::server::prepared::{SERVER_NAME_PREFIX, id_of, server_name};
use crate::server::{Expected, ServerConnection, TransactionStatus};
use crate::sql::scan::{Scanner, TokenKind};
use crate::sql::{Facts, Lexing, Pins, SessionEffect};
use crate::wire::frame::put_message;
use std::sync::Arc;

/// A session that is bound by one of these has its server do what pgyard does not see: its statements are prepared there and
/// nowhere else, under its own names.
pub const OWN_NAME_PINS: Pins = Pins(Pins::OPAQUE.0 | Pins::PARAMETER.0 | Pins::PREPARE.0);

/// Longer texts of PREPARE are not kept to be run again elsewhere. Bytes.
const COMMAND_MAX: usize = 64 * 1024;

/// The names of prepared statements that a text says.
pub(super) fn mentioned(facts: &Facts) -> impl Iterator<Item = &Arc<str>> {
    facts.statements.iter().flat_map(|statement| &statement.effects).filter_map(|effect| match effect {
        SessionEffect::Prepare { name, .. } | SessionEffect::Execute(name) | SessionEffect::Deallocate(Some(name)) => Some(name),
        _ => None,
    })
}

/// What a statement does to the session's names when the answer with the number `at` has come; `text` is the text that it stands
/// in, and whether it stands there alone.
pub(super) fn apply_names(
    effect: &SessionEffect,
    (text, alone): (&[u8], bool),
    at: u64,
    state: &mut SessionState,
    server: &mut ServerConnection,
) {
    match effect {
        SessionEffect::Prepare { name, body } => {
            let statement = PreparedStatement::of_command(text, body.clone(), &state.meaning);
            if !alone || !can_be_made_again(&statement, state) {
                state.pins = state.pins.union(Pins::PREPARE);
                state.named_pins.get_or_insert_default().prepared.insert(name.clone());
            }
            server.own_names.add(name.as_bytes(), statement.id, at);
            state.name_statement(name.as_bytes(), statement, at);
        }
        SessionEffect::Deallocate(Some(name)) => {
            state.forget_statement(name.as_bytes(), at);
            server.own_names.remove(name.as_bytes(), at);
        }
        SessionEffect::Deallocate(None) | SessionEffect::DiscardAll => {
            state.forget_statements(at);
            server.own_names.remove_all(at);
        }
        _ => {}
    }
}

/// Whether the text of a PREPARE, run on another server or later, prepares the same.
fn can_be_made_again(statement: &PreparedStatement, state: &SessionState) -> bool {
    let text = &statement.definition;
    let moving = |token: &[u8]| {
        let words: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
        words.iter().any(|word| token.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word)))
    };
    // `'now'::timestamptz` is what it was when it was prepared.
    let frozen = |text: &[u8]| {
        Scanner::new(text, Lexing::default()).any(|token| matches!(token.kind, TokenKind::String(_)) && moving(token.bytes(text)))
    };
    text.len() <= COMMAND_MAX
        && !state.local.as_ref().is_some_and(|local| local.is_unsure())
        && state.lexing == Lexing { standard_conforming_strings: true, ascii_safe_encoding: true }
        && std::str::from_utf8(text).is_ok()
        && !frozen(text)
}

/// Closes own names that are not the session's, or not any more; in `translated` units also those that could be taken for names of
/// pgyard's.
#[inline(never)]
pub(super) fn put_stale_closed(server: &mut ServerConnection, state: &SessionState, translated: bool) {
    let is_stale = |(name, id): &(&[u8], u64)| {
        let ours = state.statement(name).is_some_and(|statement| statement.id == *id);
        !ours || translated && name.starts_with(SERVER_NAME_PREFIX.as_bytes())
    };
    let stale: Vec<Box<[u8]>> = server.own_names.iter().filter(is_stale).map(|(name, _)| name.into()).collect();
    for name in stale {
        let at = server.incoming.replies.next_number();
        put_quiet_close(server, &name);
        server.own_names.remove(&name, at);
    }
}

/// Makes sure that the name, if the session has given it, is on the server, and that it is nothing of pgyard's there.
#[inline(never)]
pub(super) fn put_own_name(server: &mut ServerConnection, state: &SessionState, name: &[u8]) {
    put_not_shared(server, name);
    let name = significant(name);
    if let Some(statement) = state.statement(name).filter(|_| !server.own_names.holds(name)) {
        put_made(server, state, Some(name), statement);
        let at = server.incoming.replies.next_number();
        server.own_names.add(name, statement.id, at.saturating_sub(1));
    }
}

/// A client may call a statement as pgyard would.
pub(super) fn put_not_shared(server: &mut ServerConnection, name: &[u8]) {
    if let Some(id) = id_of(name)
        && server.incoming.prepared.remove(id)
    {
        let at = server.incoming.replies.next_number();
        put_quiet_close(server, name);
        server.own_names.remove(name, at);
    }
}

/// Closes what the server holds for any session.
fn put_shared_closed(server: &mut ServerConnection) {
    let ids: Vec<u64> = server.incoming.prepared.ids().collect();
    server.incoming.prepared.clear();
    for id in ids {
        put_quiet_close(server, server_name(id).as_bytes());
    }
}

/// Ends a pipeline of pgyard's own.
pub(super) fn put_quiet_sync(server: &mut ServerConnection) {
    put_message(server.outbox.writer(), b'S', |_| {});
    server.incoming.replies.push(Expected::QuietSync);
}

impl Session {
    /// Whether the unit runs under the client's own names.
    pub(super) fn uses_own_names(&self, unit: &Unit) -> bool {
        unit.own_names || self.mode == PoolMode::Session || self.state.pins.intersects(OWN_NAME_PINS)
    }

    /// Prepares what a unit needs under own names and cannot be given on its way: what a simple query mentions, and everything if it
    /// may look at everything. `movable`: another host can be asked instead.
    pub(super) async fn prepare_names(&mut self, unit: &Unit, movable: bool) -> Result<(), NamesError> {
        let own = self.uses_own_names(unit);
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let server = link.server();
        if self.state.pipeline_open || server.incoming.status == TransactionStatus::Failed {
            return Ok(());
        }
        if unit.whole && !server.incoming.prepared.is_empty() {
            put_shared_closed(server);
        }
        put_stale_closed(server, &self.state, !own);
        if !server.incoming.replies.is_empty() {
            put_quiet_sync(server);
            self.run_own(movable).await.map_err(NamesError::Own)?;
        }
        if unit.kind == UnitKind::Query {
            let mentioned: Vec<Arc<str>> = unit.query_facts().iter().flat_map(|facts| mentioned(facts)).cloned().collect();
            for name in mentioned {
                self.prepare_name(name.as_bytes(), movable).await?;
            }
        }
        if unit.whole { self.prepare_all_names(movable).await } else { Ok(()) }
    }

    async fn prepare_name(&mut self, name: &[u8], movable: bool) -> Result<(), NamesError> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let server = link.server();
        server.incoming.replies.take_failure();
        put_own_name(server, &self.state, name);
        if server.incoming.replies.is_empty() {
            return Ok(());
        }
        put_quiet_sync(server);
        let outcome = self.run_own(movable).await;
        if let Some(link) = self.link.as_mut() {
            let failed_at = link.server().incoming.replies.take_failure();
            link.server().own_names.settle(failed_at);
        }
        match outcome {
            Err(OwnError::Failed { body, .. }) => Err(NamesError::Refused(body)),
            Err(error) => Err(NamesError::Own(error)),
            Ok(()) => Ok(()),
        }
    }

    /// A statement that can't be prepared any more (its table is gone) is left out, and does no harm to a transaction.
    async fn prepare_all_names(&mut self, movable: bool) -> Result<(), NamesError> {
        let names: Vec<Box<[u8]>> = self.state.statements.iter().flat_map(|known| known.keys().cloned()).collect();
        for name in names {
            let Some(link) = self.link.as_mut() else { return Ok(()) };
            let server = link.server();
            if server.own_names.holds(&name) {
                continue;
            }
            let open = server.incoming.status == TransactionStatus::Open;
            if open {
                put_own_query(server, "SAVEPOINT pgyard_names");
            }
            let outcome = self.prepare_name(&name, movable).await;
            if let (true, Some(link)) = (open, self.link.as_mut()) {
                put_own_query(link.server(), "ROLLBACK TO SAVEPOINT pgyard_names;RELEASE SAVEPOINT pgyard_names");
                self.run_own(movable).await.map_err(NamesError::Own)?;
            }
            match outcome {
                Ok(()) | Err(NamesError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Finds out what the server alone knows of the transaction's parameters, when the unit's statements depend on it.
    pub(super) async fn learn_local_settings(&mut self, unit: &Unit) {
        let named = unit.is_extended() && !unit.verbatim && !self.state.pipeline_open;
        let Some(local) = self.state.local.as_mut().filter(|local| named && local.is_unsure()) else { return };
        let Some(link) = self.link.as_mut() else { return };
        let server = link.server();
        if server.incoming.status != TransactionStatus::Open || !server.incoming.is_quiet() {
            return;
        }
        match server.run(&local.question()).await {
            Ok(Ok(Some(answer))) => {
                local.learn(&answer);
                self.state.parameters_changed();
            }
            Ok(_) => {}
            // The unit finds out.
            Err(_) => server.broken = true,
        }
    }
}

/// Why a unit's names are not there.
pub(super) enum NamesError {
    /// The server refused to prepare a statement that the unit needs: the body of its error, which is the unit's answer.
    Refused(Vec<u8>),
    /// As for other queries of pgyard's own.
    Own(OwnError),
}
