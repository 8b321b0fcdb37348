//! What the messages of a pipeline add to their unit.

use super::{Unit, UnitParse};
use crate::database::{Database, StatementForm, classify, classify_prepared};
use crate::session::state::SessionState;
use crate::sql::SessionEffect;
use crate::wire::WireError;
use crate::wire::bind::BindMessage;
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;

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
    let parse = UnitParse { place, len: body.len() as u32, text: unit.text_count() as u32 };
    if message.name.is_empty() {
        unit.unnamed = Some(parse);
    } else {
        (unit.verbatim, unit.describes) = (false, true);
        unit.named.push(parse);
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
    let names = |parse: &UnitParse| {
        let body = &input[parse.place..][..parse.len as usize];
        ParseMessage::read(body).is_ok_and(|parse| parse.name == message.statement)
    };
    let parsed_here = if message.statement.is_empty() {
        unit.unnamed
    } else {
        unit.verbatim = false;
        unit.named.iter().rev().copied().find(names)
    };
    if let Some(parse) = parsed_here {
        unit.runs(parse.text as usize);
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
