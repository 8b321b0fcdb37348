//! What the messages of a pipeline add to their unit.

use super::Unit;
use crate::database::{Database, StatementForm, classify, classify_prepared};
use crate::session::state::SessionState;
use crate::sql::SessionEffect;
use crate::wire::WireError;
use crate::wire::bind::BindMessage;
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use std::sync::Arc;

pub(super) fn add_parse(
    unit: &mut Unit,
    input: &[u8],
    place: usize,
    body: &[u8],
    state: &SessionState,
    database: &Database,
) -> Result<(), WireError> {
    let message = ParseMessage::read(body)?;
    let facts = classify(database, message.text, state.lexing);
    if message.name.is_empty() {
        unit.unnamed = Some((place, body.len()));
    } else {
        (unit.verbatim, unit.describes) = (false, true);
        unit.named.push((place, body.len()));
    }
    debug_assert!(place + body.len() <= input.len());
    unit.add(facts, false, (state, database));
    Ok(())
}

pub(super) fn add_bind(
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
            unit.add(facts, true, (state, database));
        }
        return Ok(());
    }
    if message.statement.is_empty() {
        unit.verbatim = false;
        if state.unnamed.tag != 0 {
            let text = &state.unnamed.definition[..state.unnamed.text_len];
            unit.add(classify(database, text, state.lexing), true, (state, database));
        }
    } else if let Some(statement) = state.statement(message.statement) {
        let facts = classify_prepared(database, statement, state.lexing);
        unit.own_names |= statement.form() != StatementForm::Shared;
        unit.add(facts, true, (state, database));
    }
    Ok(())
}

pub(super) fn add_named(
    unit: &mut Unit,
    tag: u8,
    body: &[u8],
    (state, database): (&SessionState, &Database),
) -> Result<(), WireError> {
    let message = NamedMessage::read(body)?;
    let form = if message.statement { state.statement(message.name).map(|statement| statement.form()) } else { None };
    unit.describes |= tag == b'D';
    unit.own_names |= form.is_some_and(|form| form != StatementForm::Shared);
    if tag == b'D' && message.statement && message.name.is_empty() && unit.unnamed.is_none() && state.unnamed.tag != 0 {
        // An `EXECUTE x` that an earlier unit has prepared: what it answers depends on x.
        let facts = classify(database, &state.unnamed.definition[..state.unnamed.text_len], state.lexing);
        let mut effects = facts.statements.iter().flat_map(|statement| &statement.effects);
        unit.own_names |= facts.needs_care && effects.any(SessionEffect::concerns_names);
    }
    if message.statement && (tag == b'C' || !message.name.is_empty() || unit.unnamed.is_none()) {
        unit.verbatim = false;
    }
    Ok(())
}
