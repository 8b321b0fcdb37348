//! An extended pipeline, message by message: statement names translated, missing statements made, and for each message the answer
//! that is to be expected.

use super::known::{mark_if_changed, new_statement};
use super::meaning::{UnitMeaning, begin_detour, end_detour, put_made, put_quiet_close, put_quiet_parse};
use super::names::{apply_names, mentioned, put_not_shared, put_own_name};
use super::results::put_describe;
use super::send::remember_unnamed;
use super::shown::{SentName, unknown_name};
use super::state::{SessionState, significant};
use super::unit::{Unit, UnitKind};
use crate::database::{Database, DatabaseView, PreparedStatement, StatementForm, classify, reusable, with_view};
use crate::server::prepared::server_name;
use crate::server::{Expected, ServerConnection, TransactionStatus, UNKNOWN_UNNAMED};
use crate::sql::{Command, Facts, Pins, SessionEffect};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, put_message};
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use crate::wire::{Cursor, Frame, WireError, frame_at};
use std::sync::Arc;

/// A portal of the unit, and what runs when it is executed.
struct BoundPortal {
    name: Box<[u8]>,
    facts: Arc<Facts>,
    text: Box<[u8]>,
}

/// One unit's way into the outbox.
pub(super) struct Translation<'a> {
    unit: &'a Unit,
    state: &'a mut SessionState,
    server: &'a mut ServerConnection,
    database: &'a Database,
    /// The session's role.
    role: &'a str,
    /// Servers know its statements as the client does.
    own_names: bool,
    /// Unnamed statements may stay prepared on it.
    reuses_unnamed: bool,
    /// Statements whose Parse is on its way.
    pending: Vec<u64>,
    /// What its texts mean by now.
    meaning: UnitMeaning,
    /// Portals over statements that concern names.
    bound: Vec<BoundPortal>,
    /// The last message begins a COPY FROM STDIN.
    copy_begins: bool,
    /// The unit's Sync was held back.
    pub(super) held_sync: bool,
    /// The message under way is the unit's first.
    first: bool,
}

impl<'a> Translation<'a> {
    pub(super) fn new(
        unit: &'a Unit,
        state: &'a mut SessionState,
        server: &'a mut ServerConnection,
        (database, role): (&'a Database, &'a str),
        (own_names, reuses_unnamed): (bool, bool),
    ) -> Self {
        Translation {
            unit,
            state,
            server,
            database,
            role,
            own_names,
            reuses_unnamed,
            pending: Vec::new(),
            meaning: UnitMeaning::AsBefore,
            bound: Vec::new(),
            copy_begins: false,
            held_sync: false,
            first: true,
        }
    }

    #[inline(never)]
    pub(super) fn put_messages(&mut self, mut messages: &[u8]) -> Result<(), WireError> {
        while let Some(frame) = frame_at(messages)? {
            let (message, rest) = messages.split_at(frame.total);
            match frame.tag {
                b'P' => self.put_parse(message, &frame)?,
                b'B' => self.put_bind(message, frame.body, 0)?,
                b'D' => self.put_describe(message, &frame)?,
                b'C' => self.put_close(message, &frame)?,
                b'E' => self.put_execute(message, &frame)?,
                b'S' => self.put_sync(message),
                _ => self.put_flush(),
            }
            self.copy_begins &= frame.tag == b'E';
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
        if self.bound.iter().any(|bound| bound.facts.statements.iter().any(changes_names)) {
            // To be executed later, where nobody looks: the server has to be kept.
            self.state.pins = self.state.pins.union(Pins::PREPARE);
        }
        Ok(())
    }

    fn put(&mut self, message: &[u8], expected: Expected) {
        self.server.outbox.push(message);
        self.server.incoming.replies.push(expected);
    }

    /// Of a name that is too long only a part counts, but errors quote all of it: only the server can do both.
    fn look_at_name(&mut self, name: &[u8]) {
        self.own_names |= significant(name).len() < name.len();
    }

    fn next_number(&self) -> u64 {
        self.server.incoming.replies.next_number()
    }

    /// The Sync behind a COPY FROM STDIN is ignored by a server that waits for data, and not by one that has refused the COPY: it is
    /// held back until that is known.
    fn put_sync(&mut self, message: &[u8]) {
        if self.copy_begins {
            put_message(self.server.outbox.writer(), b'H', |_| {});
            self.held_sync = true;
        } else {
            self.put(message, Expected::Sync);
        }
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
        let facts = classify(self.database, parse.text, self.state.lexing);
        self.put_mentioned(&facts);
        // A text whose meaning only this server knows stays here, under its own name.
        self.own_names |= !parse.name.is_empty() && self.meaning.get(self.state).is_none();
        self.look_at_name(parse.name);
        self.own_names |= self.state.statement(parse.name).is_some_and(|known| known.form() != StatementForm::Shared);
        if parse.name.is_empty() {
            self.put_unnamed_parse(message, &parse, &facts);
        } else if self.own_names {
            self.put_own_parse(message, &parse, &facts);
        } else if let Some(existing) = self.state.statement(parse.name).cloned() {
            // The server must say that the name is taken, so that its pipeline fails as the client's does.
            self.ensure(&existing);
            ParseMessage::put(self.server.outbox.writer(), server_name(existing.id).as_bytes(), parse.definition);
            self.server.incoming.replies.push(Expected::Parse { id: 0, show: true });
        } else {
            self.put_new_name(&parse);
        }
        Ok(())
    }

    fn put_unnamed_parse(&mut self, message: &[u8], parse: &ParseMessage<'_>, facts: &Facts) {
        if !self.first {
            super::unnamed::set_aside(self.state);
        }
        remember_unnamed(parse, self.state);
        if !self.own_names && self.reuses_unnamed && matches!(self.meaning, UnitMeaning::AsBefore) {
            let meaning = &self.state.meaning;
            self.state.unnamed.kept = reusable(self.database, parse.definition, parse.text.len(), meaning, facts);
        }
        if let Some(kept) = self.state.unnamed.kept.clone() {
            let _asked = self.put_named_parse(&kept, parse.definition);
            return;
        }
        self.server.unnamed = self.state.unnamed.tag;
        self.put(message, Expected::Parse { id: 0, show: true });
    }

    /// A Parse whose name servers know as it is.
    fn put_own_parse(&mut self, message: &[u8], parse: &ParseMessage<'_>, facts: &Facts) {
        let at = if self.state.statement(parse.name).is_some() {
            // The server must say that the name is taken.
            put_own_name(self.server, self.state, parse.name);
            None
        } else {
            put_not_shared(self.server, parse.name);
            self.close_own_name(significant(parse.name));
            Some(self.next_number())
        };
        self.put(message, Expected::Parse { id: 0, show: true });
        let Some(at) = at else { return };
        let form = match facts.statements.iter().flat_map(|statement| &statement.effects).any(SessionEffect::concerns_names) {
            true => StatementForm::Private,
            false => StatementForm::Shared,
        };
        let known = self.meaning.get(self.state);
        let meaning = known.unwrap_or_default();
        let statement = PreparedStatement::of_one_session(parse.definition, parse.text.len(), meaning, form);
        if known.is_none() {
            self.state.pins = self.state.pins.union(Pins::PREPARE);
        }
        let name = significant(parse.name);
        self.server.own_names.add(name, statement.id, at);
        self.state.name_statement(name, statement, at);
    }

    /// A name that the session has taken away in this unit, where servers know another, may be there still.
    fn close_own_name(&mut self, name: &[u8]) {
        if self.server.own_names.holds(name) {
            let at = self.next_number();
            put_quiet_close(self.server, name);
            self.server.own_names.remove(name, at);
        }
    }

    /// Whether the server is to know the statement by its own name. In a failed transaction nothing can be prepared: there it is
    /// used under the name under which it is.
    fn goes_by_own_name(&mut self, name: &[u8]) -> bool {
        if !self.own_names || self.server.incoming.status != TransactionStatus::Failed {
            return self.own_names;
        }
        let shared = self.state.statement(name).filter(|statement| statement.form() == StatementForm::Shared);
        let is_there = shared.is_some_and(|statement| self.server.incoming.prepared.touch(statement.id));
        !is_there || self.server.own_names.holds(significant(name))
    }

    /// A Parse under the server's name for the statement; one that the server holds already is answered in its place. Answers
    /// whether the server is asked.
    fn put_named_parse(&mut self, statement: &PreparedStatement, definition: &[u8]) -> bool {
        if self.server.incoming.prepared.touch(statement.id) || self.pending.contains(&statement.id) {
            self.server.incoming.replies.push(Expected::Fake(b'1'));
            return false;
        }
        ParseMessage::put(self.server.outbox.writer(), server_name(statement.id).as_bytes(), definition);
        self.server.incoming.replies.push(Expected::Parse { id: statement.id, show: true });
        self.pending.push(statement.id);
        true
    }

    /// A Parse that gives a name.
    fn put_new_name(&mut self, parse: &ParseMessage<'_>) {
        let meaning = self.meaning.get(self.state).unwrap_or_default();
        let change = mark_if_changed(parse, meaning, self.role, self.database);
        let statement = new_statement(parse, meaning, self.state, self.database);
        let at = self.next_number();
        self.state.name_statement(parse.name, statement.clone(), at);
        if self.put_named_parse(&statement, parse.definition) {
            self.state.asks_server(change);
        }
    }

    /// Sees to it that the server holds the statement.
    fn ensure(&mut self, statement: &PreparedStatement) {
        if !self.server.incoming.prepared.touch(statement.id) && !self.pending.contains(&statement.id) {
            put_made(self.server, self.state, None, statement);
            self.pending.push(statement.id);
        }
    }

    /// Sees to it that the server's unnamed statement is the session's.
    fn ensure_unnamed(&mut self) {
        let unnamed = &self.state.unnamed;
        if unnamed.tag != 0 && self.server.unnamed != unnamed.tag {
            let detour = match &unnamed.meaning {
                Some(meaning) => begin_detour(self.server, self.state, meaning),
                None => Vec::new(),
            };
            put_quiet_parse(self.server, b"", 0, &unnamed.definition);
            end_detour(self.server, detour);
            self.server.unnamed = unnamed.tag;
        } else if unnamed.tag == 0 && self.server.unnamed != 0 {
            // Another session's: it must not be found.
            NamedMessage::put_statement(self.server.outbox.writer(), b'C', b"");
            self.server.incoming.replies.push(Expected::Close { show: false });
            self.server.unnamed = UNKNOWN_UNNAMED;
        }
    }

    /// Sees to it that the server knows the names that a text says.
    fn put_mentioned(&mut self, facts: &Facts) {
        if facts.needs_care && self.own_names {
            for name in mentioned(facts) {
                put_own_name(self.server, self.state, name.as_bytes());
            }
        }
    }

    /// What the statement does, where the unit or its texts depend on it.
    fn facts_of(&self, statement: &[u8]) -> Option<(Arc<Facts>, Box<[u8]>)> {
        if !(self.unit.needs_care || self.unit.copies || self.unit.own_names) {
            return None;
        }
        if statement.is_empty() {
            let unnamed = &self.state.unnamed;
            let text = &unnamed.definition[..unnamed.text_len.min(unnamed.definition.len())];
            return (unnamed.tag != 0).then(|| (classify(self.database, text, self.state.lexing), text.into()));
        }
        let statement = self.state.statement(statement)?;
        let facts = statement
            .facts(with_view(self.database, DatabaseView::catalogue_id), |text| classify(self.database, text, self.state.lexing));
        Some((facts, statement.text().into()))
    }

    /// A Bind, of which `to_come` bytes follow behind the unit.
    fn put_bind(&mut self, message: &[u8], body: &[u8], to_come: usize) -> Result<(), WireError> {
        let bind = BindMessage::read(body)?;
        let rest_len = bind.rest.len() + to_come;
        self.look_at_name(bind.statement);
        if let Some((facts, text)) = self.facts_of(bind.statement) {
            self.put_mentioned(&facts);
            self.bound.retain(|bound| *bound.name != *bind.portal);
            self.bound.push(BoundPortal { name: bind.portal.into(), facts, text });
        }
        if !bind.statement.is_empty() && self.goes_by_own_name(bind.statement) {
            put_own_name(self.server, self.state, bind.statement);
            self.put(message, Expected::Bind);
            return Ok(());
        }
        if let (true, false, Some(kept)) = (bind.statement.is_empty(), self.own_names, self.state.unnamed.kept.clone()) {
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
            None => match unknown_name(name) {
                Some(made) => SentName::Made(made),
                None => SentName::AsItIs(name),
            },
        }
    }

    /// What the portal's statement does to names and parameters counts from here on.
    fn put_execute(&mut self, message: &[u8], frame: &Frame<'_>) -> Result<(), WireError> {
        self.copy_begins = false;
        if !self.bound.is_empty() {
            let portal = Cursor::new(frame.body).string()?;
            if let Some(place) = self.bound.iter().position(|bound| *bound.name == *portal) {
                let BoundPortal { facts, text, .. } = self.bound.swap_remove(place);
                self.copy_begins = facts.statements.first().is_some_and(|statement| statement.command == Command::CopyIn);
                self.meaning.follow(&facts, self.state);
                let at = self.next_number();
                for effect in facts.statements.iter().flat_map(|statement| &statement.effects) {
                    apply_names(effect, (&text, true), at, self.state, self.server);
                }
            }
        }
        self.put(message, Expected::Execute);
        Ok(())
    }

    fn put_describe(&mut self, message: &[u8], frame: &Frame<'_>) -> Result<(), WireError> {
        let describe = NamedMessage::read(frame.body)?;
        if !describe.statement {
            self.put(message, Expected::DescribePortal);
            return Ok(());
        }
        self.look_at_name(describe.name);
        if self.goes_by_own_name(describe.name) {
            if let Some((facts, _)) = self.facts_of(describe.name) {
                self.put_mentioned(&facts);
            }
            match describe.name.is_empty() {
                true => self.ensure_unnamed(),
                false => put_own_name(self.server, self.state, describe.name),
            }
            self.put(message, Expected::DescribeStatement);
        } else if let (true, Some(kept)) = (describe.name.is_empty(), self.state.unnamed.kept.clone()) {
            self.ensure(&kept);
            NamedMessage::put_statement(self.server.outbox.writer(), b'D', server_name(kept.id).as_bytes());
            self.server.incoming.replies.push(Expected::DescribeStatement);
        } else if describe.name.is_empty() {
            self.ensure_unnamed();
            self.put(message, Expected::DescribeStatement);
        } else if let Some(statement) = self.state.statement(describe.name).cloned() {
            self.ensure(&statement);
            put_describe(self.server, &statement, self.database.last_change(), true);
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
        self.look_at_name(close.name);
        let at = self.next_number();
        if close.statement && !close.name.is_empty() {
            self.state.forget_statement(close.name, at);
            if self.own_names || self.server.own_names.holds(significant(close.name)) {
                put_not_shared(self.server, close.name);
                let at = self.next_number();
                self.server.own_names.remove(significant(close.name), at);
                self.put(message, Expected::Close { show: true });
            } else {
                self.server.incoming.replies.push(Expected::Fake(b'3'));
            }
            return Ok(());
        }
        if close.statement && self.state.unnamed_before.is_none() {
            self.state.unnamed_before = Some(Box::new(self.state.unnamed.clone()));
        }
        if close.statement && self.state.unnamed.kept.is_some() && !self.own_names {
            self.state.unnamed.forget();
            self.server.incoming.replies.push(Expected::Fake(b'3'));
            return Ok(());
        }
        if close.statement {
            self.state.unnamed.forget();
            self.server.unnamed = UNKNOWN_UNNAMED;
        }
        self.put(message, Expected::Close { show: true });
        Ok(())
    }
}

fn changes_names(statement: &crate::sql::StatementFacts) -> bool {
    let changes = |effect: &SessionEffect| {
        matches!(effect, SessionEffect::Prepare { .. } | SessionEffect::Deallocate(_) | SessionEffect::DiscardAll)
    };
    statement.effects.iter().any(changes)
}
