//! What the classification of one statement gives, before it becomes facts.

use crate::sql::facts::{Access, Command, Pins, SessionEffect, StatementFacts, WriteReason};
use std::ops::Range;
use std::sync::Arc;

/// One statement's facts, and what belongs to the whole text.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The statement's facts.
    pub(crate) facts: StatementFacts,
    /// It changes the catalogue.
    pub(crate) changes_catalogue: bool,
    /// It makes or changes a function, a trigger, or something else that runs code.
    pub(crate) defines_code: bool,
    /// Nothing depends on the values of its literals, so that texts which differ only there may share it.
    pub(crate) shareable: bool,
}

impl Outcome {
    pub(crate) fn new(command: Command, access: Access) -> Self {
        let facts =
            StatementFacts { command, access, effects: Vec::new(), pins: Pins::NONE, plain_write: false, span: Range::default() };
        Outcome { facts, changes_catalogue: false, defines_code: false, shareable: false }
    }

    /// A command of the session or transaction.
    pub(crate) fn session(command: Command) -> Self {
        Outcome::new(command, Access::Session)
    }

    /// A command with one effect on the session.
    pub(crate) fn effect(effect: SessionEffect) -> Self {
        let mut outcome = Outcome::session(Command::Other);
        outcome.facts.effects.push(effect);
        outcome
    }

    /// A statement for the primary.
    pub(crate) fn write(reason: WriteReason) -> Self {
        Outcome::new(Command::Other, Access::Write(reason))
    }

    /// A statement that nothing is understood of.
    pub(crate) fn unparsed() -> Self {
        Outcome::write(WriteReason::Unparsed)
    }

    /// SET name = value.
    pub(crate) fn set(name: impl Into<Arc<str>>, value: Option<Arc<str>>) -> Self {
        Outcome::effect(SessionEffect::Set { name: name.into(), value })
    }

    /// Adds pins.
    pub(crate) fn pinned(mut self, pins: Pins) -> Self {
        self.facts.pins = self.facts.pins.union(pins);
        self
    }

    /// Marks the catalogue as changed.
    pub(crate) fn changing_catalogue(mut self) -> Self {
        self.changes_catalogue = true;
        self
    }

    /// Marks the catalogue as changed in what runs when somebody else is called or written to.
    pub(crate) fn defining_code(mut self, defines: bool) -> Self {
        self.defines_code |= defines;
        self
    }

    /// Whether the session must look closer.
    pub(crate) fn needs_care(&self) -> bool {
        let plain = matches!(self.facts.command, Command::Query | Command::Other | Command::CopyIn | Command::CopyOut);
        !plain || !self.facts.effects.is_empty() || !self.facts.pins.is_empty()
    }
}
