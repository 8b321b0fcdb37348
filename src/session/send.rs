//! Putting a unit into a server's outbox: statement names translated, missing statements made, and for each message the
//! answer that is to be expected.

use super::local;
use super::state::{SessionState, StatementChange};
use super::unit::{Unit, UnitKind};
use crate::config::ReuseUnnamed;
use crate::database::{Database, PreparedStatement, reusable};
use crate::server::prepared::{ServerStatementName, server_name};
use crate::server::{Expected, ServerConnection, TransactionStatus, UNKNOWN_UNNAMED};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, put_message, put_string};
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use crate::wire::{Frame, WireError, frame_at};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is to be written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is in the server's outbox.
    InOutbox,
    /// The unit's bytes are to be written as they are, behind what is in the outbox.
    AsItIs,
}

/// The name of a statement in what is sent.
enum SentName<'n> {
    Shared(ServerStatementName),
    AsItIs(&'n [u8]),
    Made(Vec<u8>),
}

impl SentName<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            SentName::Shared(name) => name.as_bytes(),
            SentName::AsItIs(name) => name,
            SentName::Made(name) => name,
        }
    }
}

static NEXT_UNNAMED: AtomicU64 = AtomicU64::new(1);

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
    let sql = server.parameters.change_to(&state.parameters);
    if !sql.is_empty() {
        put_own_query(server, &sql);
    }
    server.parameters = state.parameters.clone();
}

/// Translates a unit for `server`.
///
/// # Errors
/// A message of the unit is malformed; [`super::unit::cut`] has looked at all of them, so this does not happen.
pub fn put_unit(
    input: &[u8],
    unit: &Unit,
    state: &mut SessionState,
    server: &mut ServerConnection,
    database: &Database,
) -> Result<Sent, WireError> {
    state.journal.clear();
    put_shown_setting(unit, state, server, database);
    match unit.kind {
        UnitKind::Query => Ok(put_query(unit, state, server)),
        UnitKind::Function => {
            server.incoming.replies.push(Expected::Through);
            Ok(Sent::AsItIs)
        }
        UnitKind::Pipeline if unit.verbatim && !state.pipeline_open && !(reuses(database) && unit.has_unnamed_parse()) => {
            if let Some(parse) = first_unnamed(&input[..unit.len])? {
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
            Translation { unit, state, server, database, pending: Vec::new(), first: true }.put_messages(&input[..unit.len])?;
            Ok(Sent::InOutbox)
        }
    }
}

/// `SHOW pgyard.route`: the server is told the value first.
fn put_shown_setting(unit: &Unit, state: &SessionState, server: &mut ServerConnection, database: &Database) {
    if !unit.needs_care || state.pipeline_open {
        return;
    }
    let Some(name) = local::shown_setting(unit) else { return };
    let max_lag = database.settings().health.max_lag;
    if let Some(value) = local::setting_value(&name, state, max_lag) {
        put_own_query(server, &format!("SET {name} = {value}"));
    }
}

fn put_query(unit: &Unit, state: &mut SessionState, server: &mut ServerConnection) -> Sent {
    let target = unit.query_facts().filter(|facts| facts.needs_care).and_then(|facts| local::deallocated(facts, state));
    let rewritten = target.map(|(_, statement)| statement.clone());
    (state.unnamed.tag, state.unnamed.kept) = (0, None);
    server.unnamed = 0;
    let Some(statement) = rewritten else {
        server.incoming.replies.push(Expected::Through);
        return Sent::AsItIs;
    };
    if !server.incoming.prepared.touch(statement.id) {
        put_statement(server, &statement);
        put_message(server.outbox.writer(), b'S', |_| {});
        server.incoming.replies.push(Expected::QuietSync);
    }
    let sql = format!("DEALLOCATE {}", server_name(statement.id));
    put_message(server.outbox.writer(), b'Q', |body| put_string(body, sql.as_bytes()));
    server.incoming.replies.push(Expected::Through);
    Sent::InOutbox
}

fn put_statement(server: &mut ServerConnection, statement: &PreparedStatement) {
    ParseMessage::put(server.outbox.writer(), server_name(statement.id).as_bytes(), &statement.definition);
    server.incoming.replies.push(Expected::Parse { id: statement.id, show: false });
}

fn first_unnamed(mut messages: &[u8]) -> Result<Option<ParseMessage<'_>>, WireError> {
    let mut last = None;
    while let Some(frame) = frame_at(messages)? {
        if frame.tag == b'P' {
            last = Some(ParseMessage::read(frame.body)?);
        }
        messages = &messages[frame.total..];
    }
    Ok(last)
}

/// Makes a Parse the session's unnamed statement.
pub(super) fn remember_unnamed(parse: &ParseMessage<'_>, state: &mut SessionState) {
    state.unnamed.tag = NEXT_UNNAMED.fetch_add(1, Ordering::Relaxed);
    state.unnamed.definition.clear();
    if state.unnamed.definition.capacity() > DEFINITION_KEPT_MAX {
        // A long one is not to be paid for by an idle session.
        state.unnamed.definition = Vec::new();
    }
    state.unnamed.definition.extend_from_slice(parse.definition);
    state.unnamed.text_len = parse.text.len();
    state.unnamed.kept = None;
}

fn reuses(database: &Database) -> bool {
    database.settings().routing.reuse_unnamed != ReuseUnnamed::Off
}

/// Closes the statements that are one too many, in a pipeline of their own, so that an error in the unit can't leave them half
/// closed. In the middle of a client's pipeline that is not possible, and the limit waits.
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
        put_message(server.outbox.writer(), b'S', |_| {});
        server.incoming.replies.push(Expected::QuietSync);
    }
}

/// One unit's way into the outbox.
struct Translation<'a> {
    unit: &'a Unit,
    state: &'a mut SessionState,
    server: &'a mut ServerConnection,
    database: &'a Database,
    /// Statements whose Parse is on its way.
    pending: Vec<u64>,
    /// The message under way is the unit's first.
    first: bool,
}

impl Translation<'_> {
    fn put_messages(&mut self, mut messages: &[u8]) -> Result<(), WireError> {
        while let Some(frame) = frame_at(messages)? {
            let (message, rest) = messages.split_at(frame.total);
            match frame.tag {
                b'P' => self.put_parse(message, &frame)?,
                b'B' => self.put_bind(message, frame.body, 0)?,
                b'D' => self.put_describe(message, &frame)?,
                b'C' => self.put_close(message, &frame)?,
                b'E' => self.put(message, Expected::Execute),
                b'S' => self.put(message, Expected::Sync),
                _ => self.put_flush(),
            }
            messages = rest;
            self.first = false;
        }
        if self.unit.rest > 0 {
            // The Flush follows when the rest of the Bind has been passed on.
            self.put_bind(messages, &messages[HEADER_LEN..], self.unit.rest)?;
        } else if self.unit.kind == UnitKind::Part {
            // The server answers a pipeline at its end or at a Flush; without one this part would wait for ever.
            put_message(self.server.outbox.writer(), b'H', |_| {});
        }
        Ok(())
    }

    fn put(&mut self, message: &[u8], expected: Expected) {
        self.server.outbox.push(message);
        self.server.incoming.replies.push(expected);
    }

    /// Parse and Describe bind nothing: a Sync in place of the Flush answers them, and the connection is free again.
    fn put_flush(&mut self) {
        if self.unit.binds || self.state.pipeline_open {
            put_message(self.server.outbox.writer(), b'H', |_| {});
        } else {
            put_message(self.server.outbox.writer(), b'S', |_| {});
            self.server.incoming.replies.push(Expected::QuietSync);
        }
    }

    fn put_parse(&mut self, message: &[u8], frame: &Frame<'_>) -> Result<(), WireError> {
        let parse = ParseMessage::read(frame.body)?;
        let facts = crate::database::classify(self.database, parse.text, self.state.lexing);
        let deallocated = local::deallocated(&facts, self.state).map(|(_, statement)| statement.clone());
        if let Some(statement) = deallocated.filter(|_| self.state.statement(parse.name).is_none()) {
            return self.put_deallocate(&parse, &statement);
        }
        if parse.name.is_empty() && !self.first {
            super::unnamed::set_aside(self.state);
        }
        if parse.name.is_empty() {
            remember_unnamed(&parse, self.state);
            if reuses(self.database) {
                let meaning = &self.state.meaning;
                self.state.unnamed.kept = reusable(self.database, parse.definition, parse.text.len(), meaning, &facts);
            }
            if let Some(kept) = self.state.unnamed.kept.clone() {
                self.state.journal.push(StatementChange::Nothing);
                self.put_named_parse(&kept, parse.definition);
                return Ok(());
            }
            self.server.unnamed = self.state.unnamed.tag;
            self.put(message, Expected::Parse { id: 0, show: true });
            return Ok(());
        }
        if let Some(existing) = self.state.statement(parse.name).cloned() {
            // The server must say that the name is taken, so that its pipeline fails as the client's does.
            self.ensure(&existing);
            ParseMessage::put(self.server.outbox.writer(), server_name(existing.id).as_bytes(), parse.definition);
            self.server.incoming.replies.push(Expected::Parse { id: 0, show: true });
            return Ok(());
        }
        self.put_new_name(&parse);
        Ok(())
    }

    /// A Parse under the server's name for the statement; one that the server holds already is answered in its place.
    fn put_named_parse(&mut self, statement: &PreparedStatement, definition: &[u8]) {
        if self.server.incoming.prepared.touch(statement.id) || self.pending.contains(&statement.id) {
            self.server.incoming.replies.push(Expected::Fake(b'1'));
        } else {
            ParseMessage::put(self.server.outbox.writer(), server_name(statement.id).as_bytes(), definition);
            self.server.incoming.replies.push(Expected::Parse { id: statement.id, show: true });
            self.pending.push(statement.id);
        }
    }

    /// `DEALLOCATE name` of a statement that the server knows under another name. The name is forgotten when it has been run.
    fn put_deallocate(&mut self, parse: &ParseMessage<'_>, statement: &Arc<PreparedStatement>) -> Result<(), WireError> {
        self.ensure(statement);
        let mut definition = format!("DEALLOCATE {}\0", server_name(statement.id)).into_bytes();
        definition.extend_from_slice(&[0, 0]);
        let text_len = definition.len() - 3;
        let rewritten = ParseMessage { name: parse.name, text: &definition[..text_len], definition: &definition };
        if parse.name.is_empty() {
            remember_unnamed(&rewritten, self.state);
            self.server.unnamed = self.state.unnamed.tag;
            ParseMessage::put(self.server.outbox.writer(), b"", &definition);
            self.server.incoming.replies.push(Expected::Parse { id: 0, show: true });
        } else {
            self.put_new_name(&rewritten);
        }
        Ok(())
    }

    /// A Parse that gives a name.
    fn put_new_name(&mut self, parse: &ParseMessage<'_>) {
        let statement = self.database.statements.intern(parse.definition, parse.text.len(), &self.state.meaning);
        self.state.name_statement(parse.name, statement.clone());
        self.put_named_parse(&statement, parse.definition);
    }

    /// Sees to it that the server holds the statement.
    fn ensure(&mut self, statement: &PreparedStatement) {
        if !self.server.incoming.prepared.touch(statement.id) && !self.pending.contains(&statement.id) {
            put_statement(self.server, statement);
            self.pending.push(statement.id);
        }
    }

    /// Sees to it that the server's unnamed statement is the session's.
    fn ensure_unnamed(&mut self) {
        let unnamed = &self.state.unnamed;
        if unnamed.tag != 0 && self.server.unnamed != unnamed.tag {
            ParseMessage::put(self.server.outbox.writer(), b"", &unnamed.definition);
            self.server.incoming.replies.push(Expected::Parse { id: 0, show: false });
            self.server.unnamed = unnamed.tag;
        } else if unnamed.tag == 0 && self.server.unnamed != 0 {
            // Another session's: it must not be found.
            NamedMessage::put_statement(self.server.outbox.writer(), b'C', b"");
            self.server.incoming.replies.push(Expected::Close { show: false });
            self.server.unnamed = UNKNOWN_UNNAMED;
        }
    }

    /// A Bind, of which `to_come` bytes follow behind the unit.
    fn put_bind(&mut self, message: &[u8], body: &[u8], to_come: usize) -> Result<(), WireError> {
        let bind = BindMessage::read(body)?;
        let rest_len = bind.rest.len() + to_come;
        if let (true, Some(kept)) = (bind.statement.is_empty(), self.state.unnamed.kept.clone()) {
            self.ensure(&kept);
            bind.put_head(self.server.outbox.writer(), server_name(kept.id).as_bytes(), rest_len);
            self.server.incoming.replies.push(Expected::Bind);
            return Ok(());
        }
        if bind.statement.is_empty() {
            self.ensure_unnamed();
            self.put(message, Expected::Bind);
            return Ok(());
        }
        let name = self.server_side_name(bind.statement);
        bind.put_head(self.server.outbox.writer(), name.as_bytes(), rest_len);
        self.server.incoming.replies.push(Expected::Bind);
        Ok(())
    }

    /// The name under which the server knows a statement; for an unknown one a name that it does not know either.
    fn server_side_name<'n>(&mut self, name: &'n [u8]) -> SentName<'n> {
        match self.state.statement(name).cloned() {
            Some(statement) => {
                self.ensure(&statement);
                SentName::Shared(server_name(statement.id))
            }
            None if name.starts_with(b"pgyard_") => SentName::Made([b"?", name].concat()),
            None => SentName::AsItIs(name),
        }
    }

    fn put_describe(&mut self, message: &[u8], frame: &Frame<'_>) -> Result<(), WireError> {
        let describe = NamedMessage::read(frame.body)?;
        if !describe.statement {
            self.put(message, Expected::DescribePortal);
        } else if let (true, Some(kept)) = (describe.name.is_empty(), self.state.unnamed.kept.clone()) {
            self.ensure(&kept);
            NamedMessage::put_statement(self.server.outbox.writer(), b'D', server_name(kept.id).as_bytes());
            self.server.incoming.replies.push(Expected::DescribeStatement);
        } else if describe.name.is_empty() {
            self.ensure_unnamed();
            self.put(message, Expected::DescribeStatement);
        } else {
            let name = self.server_side_name(describe.name);
            NamedMessage::put_statement(self.server.outbox.writer(), b'D', name.as_bytes());
            self.server.incoming.replies.push(Expected::DescribeStatement);
        }
        Ok(())
    }

    /// A named statement is closed for the session only: the server keeps it for the next one that wants it.
    fn put_close(&mut self, message: &[u8], frame: &Frame<'_>) -> Result<(), WireError> {
        let close = NamedMessage::read(frame.body)?;
        if close.statement && !close.name.is_empty() {
            self.state.forget_statement(close.name);
            self.server.incoming.replies.push(Expected::Fake(b'3'));
            return Ok(());
        }
        if close.statement && self.state.unnamed_before.is_none() {
            self.state.unnamed_before = Some(Box::new(self.state.unnamed.clone()));
        }
        if close.statement && self.state.unnamed.kept.take().is_some() {
            self.state.unnamed.tag = 0;
            self.state.journal.push(StatementChange::Nothing);
            self.server.incoming.replies.push(Expected::Fake(b'3'));
            return Ok(());
        }
        if close.statement {
            self.state.unnamed.tag = 0;
            self.server.unnamed = UNKNOWN_UNNAMED;
        }
        self.put(message, Expected::Close { show: true });
        Ok(())
    }
}
