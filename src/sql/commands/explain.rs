//! EXPLAIN: a read if what it explains is one. Only with ANALYZE does the statement run.

use crate::sql::classify::Setting;
use crate::sql::cursor::Cursor;
use crate::sql::facts::{Access, Command, Pins, SessionEffect, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::scan::TokenKind;
use crate::sql::survey::Survey;

pub(super) fn explain(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let analyze = options(cursor)?;
    let inner = setting.inner(cursor.position()..survey.span.end)?;
    let mut outcome = Outcome::new(Command::Query, inner.facts.access);
    if outcome.facts.access == Access::Write(WriteReason::Command) {
        outcome.facts.access = Access::Write(WriteReason::Nested);
    }
    if analyze {
        outcome.facts.effects = inner.facts.effects;
        outcome.facts.pins = inner.facts.pins;
        outcome.changes_catalogue = inner.changes_catalogue;
    } else {
        // Planning may run functions that are not volatile, and so an opaque one.
        outcome.facts.pins = Pins(inner.facts.pins.0 & Pins::OPAQUE.0);
        let names = inner.facts.effects.into_iter().filter(|effect| matches!(effect, SessionEffect::Execute(_)));
        outcome.facts.effects = names.collect();
    }
    Some(outcome)
}

/// Takes the options; whether ANALYZE is on.
fn options(cursor: &mut Cursor<'_>) -> Option<bool> {
    if cursor.at_kind(TokenKind::OpenParen) {
        let query = cursor.peek_second().is_none_or(|token| {
            let text = cursor.text();
            token.kind == TokenKind::OpenParen
                || ["select", "with", "values", "table"].iter().any(|word| token.is_word(text, word))
        });
        if !query {
            return listed_options(cursor);
        }
        return Some(false);
    }
    let analyze = cursor.eat_any(&["analyze", "analyse"]);
    cursor.eat("verbose");
    Some(analyze)
}

/// `(ANALYZE [value], ...)`. Of two ANALYZE options either may count.
fn listed_options(cursor: &mut Cursor<'_>) -> Option<bool> {
    cursor.take();
    let mut analyze = false;
    loop {
        if cursor.eat_any(&["analyze", "analyse"]) {
            let off = cursor.peek().is_some_and(|token| {
                let text = cursor.text();
                ["off", "false"].iter().any(|word| token.is_word(text, word)) || token.bytes(text) == b"0"
            });
            analyze |= !off;
        }
        match cursor.take()?.kind {
            TokenKind::CloseParen => return Some(analyze),
            TokenKind::OpenParen => drop(cursor.skip_parenthesis()?),
            _ => {}
        }
    }
}
