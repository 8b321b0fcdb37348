//! Units: what of a client's bytes goes to a server together, and what it needs.

mod cut;
mod messages;

pub use self::cut::cut;
use super::state::SessionState;
use crate::database::{Database, classify_prepared};
use crate::route::Need;
use crate::sql::{Access, Command, Facts, Pins, RouteHint, SessionEffect, StatementFacts, WriteReason};
use crate::wire::WireError;
use crate::wire::frame::HEADER_LEN;
use crate::wire::parse::ParseMessage;
use std::hint::cold_path;
use std::sync::Arc;

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
    /// Its texts say names of prepared statements: servers must know them as the client does.
    pub own_names: bool,
    /// A COPY FROM STDIN is among its texts.
    pub copies: bool,
    /// It may look at everything that is prepared.
    pub whole: bool,
    /// It prepares or describes a statement, so that its client need not know the result from before.
    pub describes: bool,
    /// It executes by name what the session has not prepared.
    executes_unknown: bool,
    /// Its messages before the Sync or Flush, if it is a pipeline.
    pub message_count: usize,
    /// It names a portal, or fetches only some of a portal's rows: portals may stay behind it.
    pub leaves_portals: bool,
    /// Its last unnamed Parse.
    unnamed: Option<UnitParse>,
    /// The Parse messages of its named statements.
    named: Vec<UnitParse>,
}

/// A text of a unit.
#[derive(Debug)]
struct UnitText {
    facts: Arc<Facts>,
    /// Whether it is run, not only prepared.
    runs: bool,
}

/// A Parse of a unit.
#[derive(Clone, Copy, Debug)]
struct UnitParse {
    /// Where its body is in the unit.
    place: usize,
    /// The body's length.
    len: u32,
    /// Which of the unit's texts it has.
    text: u32,
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
            own_names: false,
            copies: false,
            whole: false,
            describes: false,
            executes_unknown: false,
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
        self.run_facts().flat_map(|facts| facts.statements.iter())
    }

    /// The facts of the texts that it runs.
    pub fn run_facts(&self) -> impl Iterator<Item = &Facts> {
        self.first.iter().chain(&self.more).filter(|text| text.runs).map(|text| &*text.facts)
    }

    /// Whether an unnamed statement is prepared in it.
    pub fn has_unnamed_parse(&self) -> bool {
        self.unnamed.is_some()
    }

    /// The last Parse of an unnamed statement; `input` begins with the unit.
    ///
    /// # Errors
    /// It is malformed; cutting the unit has found that out before.
    pub fn unnamed_parse<'a>(&self, input: &'a [u8]) -> Result<Option<ParseMessage<'a>>, WireError> {
        self.unnamed.map(|parse| ParseMessage::read(&input[parse.place..][..parse.len as usize])).transpose()
    }

    /// Whether it is a pipeline that is nothing but its Sync or Flush.
    pub fn is_bare_end(&self) -> bool {
        self.is_extended() && self.len == HEADER_LEN
    }

    /// Whether a statement gets a name in it.
    pub fn has_named_parse(&self) -> bool {
        !self.named.is_empty()
    }

    /// Whether it may leave something on the primary that later reads must see.
    pub fn may_write(&self) -> bool {
        let only_prepares = self.is_extended() && !self.binds;
        // FETCH, EXECUTE and their like run what another statement has named.
        let opaque = |statement: &StatementFacts| {
            let runs = match statement.effects.first() {
                Some(SessionEffect::Execute(_)) => self.executes_unknown,
                first => first.is_none(),
            };
            statement.access == Access::Session && statement.command == Command::Other && runs
        };
        let writes = matches!(self.access, Access::Write(_)) || self.pins.intersects(Pins::OPAQUE);
        !only_prepares && (writes || self.needs_care && self.run_statements().any(opaque))
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
        cold_path();
        let statements: Vec<&StatementFacts> = self.statements().collect();
        crate::route::decide(&state.view, self.access, self.hint, &statements)
    }

    fn add(&mut self, facts: Arc<Facts>, runs: bool, (state, database): (&SessionState, &Database)) {
        if !facts.needs_care {
            let access = facts.access;
            return self.add_facts(facts, access, runs);
        }
        cold_path();
        self.whole |= runs && facts.pins.intersects(Pins::OPAQUE);
        let (access, executed) = self.add_names(&facts, (state, database));
        self.add_facts(facts, access, runs);
        for facts in executed {
            let access = facts.access;
            self.add_facts(facts, access, runs);
        }
    }

    /// What the text does to names of prepared statements; answers the access that it needs itself, and what it runs by name.
    fn add_names(&mut self, facts: &Facts, (state, database): (&SessionState, &Database)) -> (Access, Vec<Arc<Facts>>) {
        let (mut access, mut executed) = (facts.access, Vec::new());
        for effect in facts.statements.iter().flat_map(|statement| &statement.effects).filter(|effect| effect.concerns_names()) {
            self.own_names = true;
            self.verbatim = false;
            self.whole |= *effect == SessionEffect::ListStatements;
            let SessionEffect::Execute(name) = effect else { continue };
            let Some(statement) = state.statement(name.as_bytes()) else {
                self.executes_unknown = true;
                continue;
            };
            let inner = classify_prepared(database, statement, state.lexing);
            self.whole |= inner.statements.iter().any(|inner| inner.effects.contains(&SessionEffect::ListStatements));
            executed.push(inner);
            if facts.statements.len() == 1 && access == Access::Session {
                access = Access::Read;
            }
        }
        (access, executed)
    }

    fn add_facts(&mut self, facts: Arc<Facts>, access: Access, runs: bool) {
        if runs {
            self.pins = self.pins.union(facts.pins);
        }
        self.access = self.access.max(access);
        if matches!(facts.statements.first(), Some(StatementFacts { command: Command::CopyIn, .. })) {
            // What follows a COPY waits for the end of its data.
            (self.copies, self.verbatim) = (true, false);
        }
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

    fn text_count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// This text, by its number, is run after all.
    fn runs(&mut self, text: usize) {
        if let Some(text) = self.first.iter_mut().chain(&mut self.more).nth(text) {
            text.runs = true;
            self.pins = self.pins.union(text.facts.pins);
        }
        self.whole |= self.pins.intersects(Pins::OPAQUE);
    }
}
