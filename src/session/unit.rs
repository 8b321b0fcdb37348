//! Cutting the client's bytes into units, and what a unit needs.

use super::state::SessionState;
use crate::database::{Database, DatabaseView, classify, with_view};
use crate::route::Need;
use crate::sql::{Access, Command, Facts, Pins, RouteHint, SessionEffect, StatementFacts, WriteReason};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, Header, client_header};
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use crate::wire::{Cursor, WireError};
use std::sync::Arc;

/// A pipeline that grows beyond this before its Sync is sent in parts, to the primary. Bytes.
const PIPELINE_MAX: usize = 1024 * 1024;
/// The same for one that writes: it goes to the primary anyway, which may have an error to tell by now. Bytes.
const WRITES_MAX: usize = 128 * 1024;
/// A Bind longer than this, and than `retry_buffer`, is passed on as it comes, once its names are there. Bytes.
const STREAM_MIN: usize = 256 * 1024;

/// How a unit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// A simple query.
    Query,
    /// A pipeline up to its Sync.
    Pipeline,
    /// A pipeline up to its Flush: the client wants the answers so far.
    Flush,
    /// The first part of a pipeline that is too long to be held.
    Part,
    /// A FunctionCall.
    Function,
    /// The client says goodbye.
    Terminate,
}

/// What the messages of a unit, seen so far, need and do.
#[derive(Debug)]
pub struct Unit {
    /// How it ends.
    pub kind: UnitKind,
    /// Its bytes at the front of the client's input.
    pub len: usize,
    /// Bytes of its last message, a Bind, that have not come yet: they go to the server as they come.
    pub rest: usize,
    /// The neediest access.
    pub access: Access,
    /// A routing comment.
    pub hint: Option<RouteHint>,
    /// Union of the pins of what it runs.
    pub pins: Pins,
    /// Some statement has an effect on session or transaction.
    pub needs_care: bool,
    /// Some statement changes the catalogue.
    pub changes_catalogue: bool,
    /// Some statement makes or changes what runs when others are called or written to.
    pub defines_code: bool,
    /// Its texts, in order. Most units have one.
    first: Option<UnitText>,
    /// The rest of them.
    more: Vec<UnitText>,
    /// A Bind or Execute is among its messages.
    pub binds: bool,
    /// Its messages can go to the server as they are.
    pub verbatim: bool,
    /// Its messages before the Sync or Flush, if it is a pipeline.
    pub message_count: usize,
    /// It names a portal, or fetches only some of a portal's rows: portals may stay behind it.
    pub leaves_portals: bool,
    /// Place and body length of its last unnamed Parse.
    unnamed: Option<(usize, usize)>,
    /// Named statements of this unit: place of the Parse body and its length.
    named: Vec<(usize, usize)>,
}

/// A text of a unit.
#[derive(Debug)]
struct UnitText {
    facts: Arc<Facts>,
    /// Whether it is run, not only prepared.
    runs: bool,
}

/// A unit, or why there is none yet.
#[derive(Debug)]
pub enum Cut {
    /// A whole unit.
    Whole(Unit),
    /// More bytes are needed.
    NeedMore,
    /// So many bytes mean nothing here and are dropped, those that have not come yet too.
    Ignore(usize),
}

impl Unit {
    /// A unit that has nothing yet.
    pub fn empty(kind: UnitKind) -> Self {
        Unit {
            kind,
            len: 0,
            rest: 0,
            access: Access::Read,
            hint: None,
            pins: Pins::NONE,
            needs_care: false,
            changes_catalogue: false,
            defines_code: false,
            first: None,
            more: Vec::new(),
            binds: false,
            verbatim: true,
            message_count: 0,
            leaves_portals: false,
            unnamed: None,
            named: Vec::new(),
        }
    }

    /// Its length, with what has not come yet. Bytes.
    pub fn total_len(&self) -> usize {
        self.len + self.rest
    }

    /// Whether the extended protocol is used.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind, UnitKind::Pipeline | UnitKind::Flush | UnitKind::Part)
    }

    /// The statements of all its texts.
    pub fn statements(&self) -> impl Iterator<Item = &StatementFacts> {
        self.first.iter().chain(&self.more).flat_map(|text| text.facts.statements.iter())
    }

    /// The statements that it runs, not only prepares.
    pub fn run_statements(&self) -> impl Iterator<Item = &StatementFacts> {
        let run = self.first.iter().chain(&self.more).filter(|text| text.runs);
        run.flat_map(|text| text.facts.statements.iter())
    }

    /// Whether an unnamed statement is prepared in it.
    pub fn has_unnamed_parse(&self) -> bool {
        self.unnamed.is_some()
    }

    /// Whether it may leave something on the primary that later reads must see.
    pub fn may_write(&self) -> bool {
        // FETCH, EXECUTE and their like run what another statement has named.
        let opaque = |statement: &StatementFacts| {
            let sets = matches!(statement.effects.first(), Some(SessionEffect::Execute(_)) | None);
            statement.access == Access::Session && statement.command == Command::Other && sets
        };
        matches!(self.access, Access::Write(_)) || (self.needs_care && self.run_statements().any(opaque))
    }

    /// Whether no transaction is open after it, however its statements end: COMMIT and ROLLBACK end theirs also when they fail.
    pub fn ends_transaction(&self) -> bool {
        let mut ends = false;
        for statement in self.run_statements() {
            match statement.command {
                Command::Commit { chain } | Command::Rollback { chain } => ends = !chain,
                Command::Begin(_) => ends = false,
                _ => {}
            }
        }
        ends
    }

    /// Whether it changes nothing wherever it runs, and however often: it is proven to read, or only prepares.
    pub fn is_harmless(&self) -> bool {
        let only_prepares = matches!(self.kind, UnitKind::Pipeline | UnitKind::Flush) && !self.binds;
        self.pins.is_empty() && (self.access == Access::Read || only_prepares)
    }

    /// Whether it has no effect unless the server gets it whole: a message that is cut off is none, and what is only reads and
    /// plain writes is committed by its Sync.
    pub fn stands_or_falls(&self) -> bool {
        self.kind == UnitKind::Query || (self.kind == UnitKind::Pipeline && self.is_turned_away_whole())
    }

    /// Whether it has had no effect when the server answers FATAL 57P01 before anything else: reads, or one plain write, outside a
    /// transaction block.
    pub fn is_turned_away_whole(&self) -> bool {
        if self.needs_care || !self.pins.is_empty() || !matches!(self.kind, UnitKind::Query | UnitKind::Pipeline) {
            return false;
        }
        let mut writes = self.run_statements().filter(|statement| statement.access > Access::Read);
        match (writes.next(), writes.next()) {
            (None, _) => self.is_harmless(),
            (Some(only), None) => only.plain_write,
            _ => false,
        }
    }

    /// The facts of a simple query.
    pub fn query_facts(&self) -> Option<&Arc<Facts>> {
        self.first.as_ref().map(|text| &text.facts)
    }

    /// The need that follows from the facts and the session.
    pub fn need(&self, state: &SessionState) -> Need {
        if !self.needs_care {
            return crate::route::decide(&state.view, self.access, self.hint, &[]);
        }
        let statements: Vec<&StatementFacts> = self.statements().collect();
        crate::route::decide(&state.view, self.access, self.hint, &statements)
    }

    fn add(&mut self, facts: Arc<Facts>, runs: bool) {
        if runs {
            self.pins = self.pins.union(facts.pins);
        }
        self.access = self.access.max(facts.access);
        self.hint = match (self.hint, facts.hint) {
            (Some(RouteHint::Primary), _) | (_, Some(RouteHint::Primary)) => Some(RouteHint::Primary),
            (own, other) => own.or(other),
        };
        self.needs_care |= facts.needs_care;
        // Temporary objects bind their session to the primary; no other session can meet them.
        let temporary = facts.statements.len() == 1 && facts.pins.intersects(Pins::TEMPORARY);
        self.changes_catalogue |= facts.changes_catalogue && !temporary;
        self.defines_code |= facts.defines_code;
        let text = UnitText { facts, runs };
        match self.first {
            None => self.first = Some(text),
            Some(_) => self.more.push(text),
        }
    }

    /// The pipeline goes on behind this unit, and what follows may need the primary: a portal can't move there.
    fn keep_portals(&mut self) {
        if self.leaves_portals {
            self.access = self.access.max(Access::Write(WriteReason::SessionBound));
        }
    }

    /// The text with these facts is run after all.
    fn runs(&mut self, facts: &Arc<Facts>) {
        let texts = self.first.iter_mut().chain(&mut self.more);
        for text in texts.filter(|text| Arc::ptr_eq(&text.facts, facts)) {
            text.runs = true;
            self.pins = self.pins.union(text.facts.pins);
        }
    }
}

/// Cuts the unit at the front of `input`.
///
/// `scanned` remembers how far a pipeline was looked through without finding its end; it is 0 for a new unit.
///
/// # Errors
/// A message that no client may send here; the session ends with it.
pub fn cut(
    input: &[u8],
    scanned: &mut usize,
    state: &SessionState,
    database: &Database,
    max_message: usize,
) -> Result<Cut, WireError> {
    let Some(header) = client_header(input)? else { return Ok(Cut::NeedMore) };
    if header.total > max_message {
        return Err(WireError::Length { tag: header.tag, length: (header.total - 1) as u32 });
    }
    if state.skipping && !matches!(header.tag, b'S' | b'X') {
        return Ok(Cut::Ignore(header.total));
    }
    match header.tag {
        b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
            if !has_end(input, scanned, database, max_message)? {
                let early = if *scanned < WRITES_MAX { Cut::NeedMore } else { cut_pipeline(input, state, database)? };
                let writes = matches!(&early, Cut::Whole(unit) if matches!(unit.access, Access::Write(_)));
                *scanned *= usize::from(!writes);
                return Ok(if writes { early } else { Cut::NeedMore });
            }
            *scanned = 0;
            return cut_pipeline(input, state, database);
        }
        // Data of a COPY that has failed: PostgreSQL drops it too.
        b'd' | b'c' | b'f' => return Ok(Cut::Ignore(header.total)),
        _ if input.len() < header.total => return Ok(Cut::NeedMore),
        _ => {}
    }
    let body = &input[HEADER_LEN..header.total];
    let mut unit = Unit { len: header.total, ..Unit::empty(UnitKind::Query) };
    match header.tag {
        b'Q' => {
            let mut cursor = Cursor::new(body);
            let text = cursor.string()?;
            cursor.end()?;
            unit.add(classify(database, text, state.lexing), true);
        }
        b'F' => {
            unit.kind = UnitKind::Function;
            unit.access = Access::Write(WriteReason::Command);
            unit.pins = Pins::OPAQUE;
            unit.needs_care = true;
        }
        b'X' => unit.kind = UnitKind::Terminate,
        tag => return Err(WireError::Type(tag)),
    }
    Ok(Cut::Whole(unit))
}

/// Whether the pipeline at the front of `input` can be cut: its Sync or Flush is there, or it is too long to wait for it.
fn has_end(input: &[u8], scanned: &mut usize, database: &Database, max_message: usize) -> Result<bool, WireError> {
    loop {
        let rest = &input[(*scanned).min(input.len())..];
        match client_header(rest)? {
            Some(header) if header.total > max_message => {
                return Err(WireError::Length { tag: header.tag, length: (header.total - 1) as u32 });
            }
            Some(header) if rest.len() >= header.total => {
                if !matches!(header.tag, b'P' | b'B' | b'D' | b'E' | b'C') {
                    return Ok(true);
                }
                *scanned += header.total;
            }
            Some(header) => return Ok(*scanned >= PIPELINE_MAX || streamed_bind(header, rest, database).is_some()),
            None => return Ok(*scanned >= PIPELINE_MAX),
        }
    }
}

/// The head of a Bind that is passed on as it comes: too long to be sent again, and its names are there.
fn streamed_bind<'a>(header: Header, message: &'a [u8], database: &Database) -> Option<BindMessage<'a>> {
    let long = header.tag == b'B' && header.total > STREAM_MIN.max(database.settings().routing.retry_buffer);
    if long { BindMessage::read(&message[HEADER_LEN..]).ok() } else { None }
}

fn cut_pipeline(input: &[u8], state: &SessionState, database: &Database) -> Result<Cut, WireError> {
    let mut unit = Unit::empty(UnitKind::Pipeline);
    loop {
        let rest = &input[unit.len..];
        let header = match client_header(rest)? {
            Some(header) if rest.len() >= header.total => header,
            head => {
                if let Some(head) = head
                    && let Some(bind) = streamed_bind(head, rest, database)
                {
                    add_bind(&mut unit, input, bind, state, database)?;
                    (unit.len, unit.rest) = (input.len(), head.total - rest.len());
                }
                unit.kind = UnitKind::Part;
                unit.keep_portals();
                return Ok(Cut::Whole(unit));
            }
        };
        let place = unit.len + HEADER_LEN;
        let body = &rest[HEADER_LEN..header.total];
        match header.tag {
            b'P' => add_parse(&mut unit, input, place, body, state, database)?,
            b'B' => add_bind(&mut unit, input, BindMessage::read(body)?, state, database)?,
            b'E' => {
                unit.binds = true;
                unit.leaves_portals |= !body.ends_with(&[0; 4]);
            }
            b'D' | b'C' => add_named(&mut unit, header.tag, body)?,
            b'S' | b'H' => {
                if !body.is_empty() {
                    return Err(WireError::Trailing);
                }
                unit.len += header.total;
                if header.tag == b'H' {
                    unit.kind = UnitKind::Flush;
                    unit.keep_portals();
                }
                return Ok(Cut::Whole(unit));
            }
            _ => {
                // A simple query in the middle of a pipeline: what came before it is sent first.
                unit.kind = UnitKind::Part;
                unit.keep_portals();
                return Ok(Cut::Whole(unit));
            }
        }
        unit.len += header.total;
        unit.message_count += 1;
    }
}

fn add_parse(
    unit: &mut Unit,
    input: &[u8],
    place: usize,
    body: &[u8],
    state: &SessionState,
    database: &Database,
) -> Result<(), WireError> {
    let message = ParseMessage::read(body)?;
    let facts = classify(database, message.text, state.lexing);
    if super::local::needs_rewrite(&facts, state) {
        unit.verbatim = false;
    }
    if message.name.is_empty() {
        unit.unnamed = Some((place, body.len()));
    } else {
        unit.verbatim = false;
        unit.named.push((place, body.len()));
    }
    debug_assert!(place + body.len() <= input.len());
    unit.add(facts, false);
    Ok(())
}

fn add_bind(
    unit: &mut Unit,
    input: &[u8],
    message: BindMessage<'_>,
    state: &SessionState,
    database: &Database,
) -> Result<(), WireError> {
    unit.binds = true;
    unit.leaves_portals |= !message.portal.is_empty();
    let parse_at = |(place, len): (usize, usize)| ParseMessage::read(&input[place..place + len]);
    let parsed_here = if message.statement.is_empty() {
        unit.unnamed
    } else {
        unit.verbatim = false;
        let named = unit.named.iter().rev().copied();
        named.into_iter().find(|place| parse_at(*place).is_ok_and(|parse| parse.name == message.statement))
    };
    if let Some(place) = parsed_here {
        let facts = classify(database, parse_at(place)?.text, state.lexing);
        unit.runs(&facts);
        if unit.needs_care && !unit.first.iter().chain(&unit.more).any(|text| Arc::ptr_eq(&text.facts, &facts)) {
            // The cache has given its place to another text in between.
            unit.add(facts, true);
        }
        return Ok(());
    }
    if message.statement.is_empty() {
        unit.verbatim = false;
        if state.unnamed.tag != 0 {
            unit.add(classify(database, &state.unnamed.definition[..state.unnamed.text_len], state.lexing), true);
        }
    } else if let Some(statement) = state.statement(message.statement) {
        let facts =
            statement.facts(with_view(database, DatabaseView::catalogue_id), |text| classify(database, text, state.lexing));
        unit.add(facts, true);
    }
    Ok(())
}

fn add_named(unit: &mut Unit, tag: u8, body: &[u8]) -> Result<(), WireError> {
    let message = NamedMessage::read(body)?;
    if message.statement && (tag == b'C' || !message.name.is_empty() || unit.unnamed.is_none()) {
        unit.verbatim = false;
    }
    Ok(())
}
