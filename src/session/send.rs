//! Putting a unit into a server's outbox: as it is, or message by message (see [`mod@super::translate`]).

use super::local;
use super::names::{mentioned, put_own_name, put_quiet_sync, put_stale_closed};
use super::state::SessionState;
use super::translate::Translation;
use super::unit::{Unit, UnitKind};
use crate::database::Database;
use crate::server::prepared::server_name;
use crate::server::{Expected, ServerConnection, TransactionStatus};
use crate::wire::WireError;
use crate::wire::frame::{put_message, put_string};
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use std::cell::Cell;
use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is to be written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is in the server's outbox.
    InOutbox,
    /// All of it but for the Sync, which a server would ignore if the unit's COPY begins.
    WithoutSync,
    /// The unit's bytes are to be written as they are, behind what is in the outbox.
    AsItIs,
}

/// Numbers of unnamed statements that a thread takes at once.
const TAGS: u64 = 1 << 20;

static NEXT_TAGS: AtomicU64 = AtomicU64::new(TAGS);

thread_local! {
    static NEXT_TAG: Cell<u64> = const { Cell::new(0) };
}

/// Storage of an unnamed statement's definition that is kept for the next one. Bytes.
const DEFINITION_KEPT_MAX: usize = 16 * 1024;

/// Appends a query of pgyard's own, whose answer nobody sees.
pub fn put_own_query(server: &mut ServerConnection, sql: &str) {
    put_message(server.outbox.writer(), b'Q', |body| put_string(body, sql.as_bytes()));
    server.incoming.replies.push(Expected::Own);
    // A simple query destroys the unnamed statement.
    server.unnamed = 0;
}

/// Makes the server's parameters those of the session; nothing to do when they are the same.
pub fn put_parameters(server: &mut ServerConnection, state: &SessionState) {
    if Arc::ptr_eq(&server.parameters, &state.parameters) || server.incoming.status == TransactionStatus::Failed {
        return;
    }
    cold_path();
    let sql = server.parameters.change_to(&state.parameters);
    if !sql.is_empty() {
        put_own_query(server, &sql);
    }
    server.parameters = state.parameters.clone();
}

/// Translates a unit for `server`.
///
/// `own_names`: servers know its statements as the client does. `reuses_unnamed`: unnamed ones may stay prepared there.
///
/// # Errors
/// A message of the unit is malformed; [`super::unit::cut`] has looked at all of them, so this does not happen.
pub fn put_unit(
    input: &[u8],
    unit: &Unit,
    state: &mut SessionState,
    (server, own_names): (&mut ServerConnection, bool),
    (database, role, reuses_unnamed): (&Database, &str, bool),
) -> Result<Sent, WireError> {
    state.journal.clear();
    server.incoming.described.clear();
    server.incoming.told = 0;
    server.incoming.replies.take_failure();
    // Behind an error the server drops all but a bare Sync, which concerns no name.
    if !server.own_names.is_empty() && !unit.is_bare_end() {
        put_stale_closed(server, state, !own_names);
        if !state.pipeline_open && !server.incoming.replies.is_empty() {
            put_quiet_sync(server);
        }
    }
    put_shown_setting(unit, state, server, database);
    match unit.kind {
        UnitKind::Query => {
            if unit.own_names && state.pipeline_open {
                cold_path();
                // In the middle of a pipeline nothing could be prepared beforehand.
                let facts = unit.query_facts();
                facts
                    .into_iter()
                    .flat_map(|facts| mentioned(facts))
                    .for_each(|name| put_own_name(server, state, name.as_bytes()));
            }
            Ok(put_query(state, server))
        }
        UnitKind::Function => {
            server.incoming.replies.push(Expected::Through);
            Ok(Sent::AsItIs)
        }
        UnitKind::Pipeline
            if unit.verbatim && !state.pipeline_open && (own_names || !(reuses_unnamed && unit.has_unnamed_parse())) =>
        {
            if let Some(parse) = unit.unnamed_parse(input)? {
                if input.first() != Some(&b'P') {
                    super::unnamed::set_aside(state);
                }
                remember_unnamed(&parse, state);
                server.unnamed = state.unnamed.tag;
            }
            server.incoming.replies.push(Expected::Through);
            Ok(Sent::AsItIs)
        }
        _ => {
            evict(server, state, database);
            let mut translation = Translation::new(unit, state, server, (database, role), (own_names, reuses_unnamed));
            translation.put_messages(&input[..unit.len])?;
            Ok(if translation.held_sync { Sent::WithoutSync } else { Sent::InOutbox })
        }
    }
}

/// `SHOW pgyard.route`: the server is told the value first.
fn put_shown_setting(unit: &Unit, state: &SessionState, server: &mut ServerConnection, database: &Database) {
    if !unit.needs_care || state.pipeline_open {
        return;
    }
    cold_path();
    let Some(name) = local::shown_setting(unit) else { return };
    let max_lag = database.settings().health.max_lag;
    if let Some(value) = local::setting_value(&name, state, max_lag) {
        put_own_query(server, &format!("SET {name} = {value}"));
    }
}

fn put_query(state: &mut SessionState, server: &mut ServerConnection) -> Sent {
    state.unnamed.forget();
    server.unnamed = 0;
    server.incoming.replies.push(Expected::Through);
    Sent::AsItIs
}

/// A number that no other Parse of an unnamed statement has had.
fn new_tag() -> u64 {
    let mut tag = NEXT_TAG.get();
    if tag.is_multiple_of(TAGS) {
        cold_path();
        tag = NEXT_TAGS.fetch_add(TAGS, Ordering::Relaxed);
    }
    NEXT_TAG.set(tag + 1);
    tag
}

/// Makes a Parse the session's unnamed statement.
pub(super) fn remember_unnamed(parse: &ParseMessage<'_>, state: &mut SessionState) {
    state.unnamed.tag = new_tag();
    state.unnamed.definition.clear();
    if state.unnamed.definition.capacity() > DEFINITION_KEPT_MAX {
        // A long one is not to be paid for by an idle session.
        state.unnamed.definition = Vec::new();
    }
    state.unnamed.definition.extend_from_slice(parse.definition);
    state.unnamed.text_len = parse.text.len();
    (state.unnamed.kept, state.unnamed.meaning) = (None, None);
}

/// Closes the statements that are one too many, in a pipeline of their own, so that an error in the unit can't leave them half
/// closed. In the middle of a client's pipeline that is not possible, and the limit waits.
#[inline(never)]
fn evict(server: &mut ServerConnection, state: &SessionState, database: &Database) {
    if state.pipeline_open {
        return;
    }
    let limit = database.settings().pool.max_prepared;
    let mut closed = false;
    while let Some(id) = server.incoming.prepared.evict(limit, |_| false) {
        NamedMessage::put_statement(server.outbox.writer(), b'C', server_name(id).as_bytes());
        server.incoming.replies.push(Expected::Close { show: false });
        closed = true;
    }
    if closed {
        put_quiet_sync(server);
    }
}
