//! Commands that leave something in the session, or use what stands there: prepared statements, cursors, notifications.

use super::{Kind, transaction};
use crate::sql::classify::Setting;
use crate::sql::cursor::Cursor;
use crate::sql::facts::{Access, Command, Discard, Pins, SessionEffect, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::read;
use crate::sql::scan::TokenKind;
use crate::sql::survey::Survey;
use crate::sql::words::WordFlags;

/// PREPARE name [(types)] AS statement, and PREPARE TRANSACTION.
pub(super) fn prepare(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let literal_next = cursor.peek_second().is_some_and(|token| matches!(token.kind, TokenKind::String(_)));
    if cursor.at("transaction") && literal_next {
        return Some(transaction::two_phase());
    }
    let name = cursor.name()?;
    if cursor.eat_kind(TokenKind::OpenParen) {
        cursor.skip_parenthesis()?;
    }
    if !cursor.eat("as") {
        return None;
    }
    let body = cursor.position()..cursor.text().len();
    Some(Outcome::effect(SessionEffect::Prepare { name, body }))
}

/// EXECUTE name [(arguments)]. What it does is known to the session that has prepared the statement; its arguments may call
/// functions.
pub(super) fn execute(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let mut outcome = Outcome::effect(SessionEffect::Execute(cursor.name()?));
    if let Some(reason) = read::suspicion(survey) {
        outcome.facts.access = Access::Write(reason);
    } else if calls_unknown(setting, survey) {
        outcome.facts.access = Access::Write(WriteReason::UnknownFunction);
    }
    read::leave_behind(setting, survey, &mut outcome);
    Some(outcome)
}

/// Whether the arguments call what the catalogue does not know; the statement's own name before its arguments is no call.
fn calls_unknown(setting: &Setting<'_>, survey: &Survey) -> bool {
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    cursor.take();
    cursor.take();
    cursor.eat_kind(TokenKind::OpenParen);
    while let Some(token) = cursor.take() {
        let flags = match token.kind {
            TokenKind::Word => setting.catalogue.words().word(token.bytes(setting.text)),
            TokenKind::QuotedName => setting.catalogue.words().quoted(&setting.text[token.start + 1..token.end - 1]),
            TokenKind::UnicodeName => WordFlags::NONE,
            _ => continue,
        };
        if cursor.at_kind(TokenKind::OpenParen) && !flags.has(WordFlags::RESERVED | WordFlags::GRAMMAR | WordFlags::FUNCTION) {
            return true;
        }
    }
    false
}

/// The name in `... AS EXECUTE name`, if the statement is a CREATE TABLE of that kind.
pub(super) fn executed_by_create(cursor: &Cursor<'_>) -> Option<SessionEffect> {
    let mut cursor = cursor.clone();
    while !cursor.at_end() {
        if cursor.eat_all(&["as", "execute"]) {
            return cursor.name().map(SessionEffect::Execute);
        }
        cursor.take();
    }
    None
}

pub(super) fn deallocate(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    if cursor.peek_second().is_some() {
        cursor.eat("prepare");
    }
    let all = cursor.at("all");
    let name = cursor.name()?;
    cursor.at_end().then(|| Outcome::effect(SessionEffect::Deallocate(if all { None } else { Some(name) })))
}

pub(super) fn discard(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let effect = match () {
        () if cursor.eat("all") => SessionEffect::DiscardAll,
        () if cursor.eat("plans") => SessionEffect::DiscardSome(Discard::Plans),
        () if cursor.eat("sequences") => SessionEffect::DiscardSome(Discard::Sequences),
        () if cursor.eat_any(&["temp", "temporary"]) => SessionEffect::DiscardSome(Discard::Temp),
        () => return None,
    };
    cursor.at_end().then(|| Outcome::effect(effect))
}

pub(super) fn listen(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let channel = cursor.name()?;
    let mut outcome = Outcome::write(WriteReason::SessionBound).pinned(Pins::LISTEN);
    outcome.facts.effects.push(SessionEffect::Listen(channel));
    Some(outcome)
}

pub(super) fn unlisten(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let all = cursor.peek().is_some_and(|token| token.bytes(cursor.text()) == b"*");
    let channel = if all { None } else { Some(cursor.name()?) };
    let mut outcome = Outcome::write(WriteReason::SessionBound);
    outcome.facts.effects.push(SessionEffect::Unlisten(channel));
    Some(outcome)
}

/// DECLARE name \[options\] CURSOR \[{WITH | WITHOUT} HOLD\] FOR query. Without HOLD it ends with its transaction, but a transaction
/// must not move to another server while it is open.
pub(super) fn declare(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>) -> Outcome {
    let mut outcome = Outcome::write(WriteReason::SessionBound);
    if let Some(name) = cursor.name() {
        while !cursor.at_end() && !cursor.eat("cursor") {
            cursor.take();
        }
        if cursor.eat_all(&["with", "hold"]) {
            outcome = outcome.pinned(Pins::HOLD_CURSOR);
            outcome.facts.effects.push(SessionEffect::DeclareHold(name));
        }
    }
    read::leave_behind(setting, survey, &mut outcome);
    outcome
}

pub(super) fn close(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let all = cursor.at("all");
    let name = cursor.name()?;
    cursor.at_end().then(|| Outcome::effect(SessionEffect::CloseCursor(if all { None } else { Some(name) })))
}

/// FETCH and MOVE read the cursor where it stands.
pub(super) fn fetch() -> Outcome {
    Outcome::session(Command::Other)
}

/// NOTIFY, LOAD, LOCK.
pub(super) fn bound_to_primary(kind: Kind) -> Outcome {
    match kind {
        Kind::Load => Outcome::write(WriteReason::SessionBound).pinned(Pins::LOAD),
        Kind::Lock => Outcome::write(WriteReason::Lock),
        _ => Outcome::write(WriteReason::SessionBound),
    }
}
