//! What goes to the primary by its first word: data changes, DDL, DO, CALL.

use super::{Kind, session};
use crate::sql::catalogue::source_is_opaque;
use crate::sql::classify::Setting;
use crate::sql::cursor::{Cursor, literal_value};
use crate::sql::facts::{Pins, SessionEffect, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::read;
use crate::sql::scan::{Lexing, Scanner, TokenKind};
use crate::sql::survey::Survey;
use crate::sql::words::WordFlags;
use std::sync::Arc;

pub(super) fn write(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>, kind: Kind) -> Outcome {
    let start = cursor.clone();
    let mut outcome = match kind {
        Kind::Change => change(setting, survey, cursor),
        Kind::Truncate => Outcome::write(WriteReason::Command).pinned(pins_of_written(survey)),
        Kind::Do => anonymous_block(setting, survey, cursor),
        Kind::Call => {
            let known = !survey.unknown_calls && !survey.names.has(WordFlags::OPAQUE);
            let outcome = Outcome::write(WriteReason::Command);
            if known { outcome } else { outcome.pinned(Pins::OPAQUE) }
        }
        Kind::Create if creates_temporary(cursor) => Outcome::write(WriteReason::SessionBound)
            .pinned(Pins::TEMPORARY)
            .changing_catalogue()
            .defining_code(defines_code(setting, survey, cursor)),
        Kind::Create | Kind::Define => {
            let defines = defines_code(setting, survey, cursor);
            let mut outcome = Outcome::write(WriteReason::Utility).changing_catalogue().defining_code(defines);
            if changes_defaults(setting, survey, cursor) {
                outcome.facts.effects.push(SessionEffect::ChangeDefaults);
            }
            let alone = needs_alone(setting, survey, cursor).map(SessionEffect::NeedDatabaseAlone);
            outcome.facts.effects.extend(alone);
            outcome
        }
        _ => Outcome::write(WriteReason::Utility),
    };
    if kind == Kind::Create {
        outcome.facts.effects.extend(session::executed_by_create(&start));
    }
    read::leave_behind(setting, survey, &mut outcome);
    outcome
}

/// A trigger or default that calls something opaque.
fn pins_of_written(survey: &Survey) -> Pins {
    if survey.names.has(WordFlags::OPAQUE_WRITE) { Pins::OPAQUE } else { Pins::NONE }
}

/// INSERT, UPDATE, DELETE, MERGE.
fn change(setting: &Setting<'_>, survey: &Survey, cursor: &Cursor<'_>) -> Outcome {
    let mut outcome = Outcome::write(WriteReason::Command).pinned(pins_of_written(survey));
    let all = survey.names | survey.calls;
    let harmful = WordFlags::VOLATILE | WordFlags::SUSPECT | WordFlags::OPAQUE | WordFlags::OPAQUE_WRITE;
    let coerces = survey.casts && all.has(WordFlags::SUSPECT_IF_CAST);
    let harmful = all.has(harmful) || coerces || survey.suspect_operator || inner_change(setting, survey);
    outcome.facts.plain_write = setting.catalogue.is_complete() && !harmful && calls_known_only(setting, cursor.clone());
    outcome.shareable = !survey.calls.has(WordFlags::SET_CONFIG | WordFlags::CURRENT_SETTING);
    outcome
}

/// A data-changing statement in a WITH clause stands behind a parenthesis.
pub(crate) fn inner_change(setting: &Setting<'_>, survey: &Survey) -> bool {
    read::mentions(setting, survey, "with") && survey.data_change
}

/// Every name before a parenthesis is a known function or the table of an INSERT with its columns.
pub(crate) fn calls_known_only(setting: &Setting<'_>, mut cursor: Cursor<'_>) -> bool {
    let mut target = false;
    while let Some(token) = cursor.take() {
        let flags = match token.kind {
            TokenKind::Word => setting.catalogue.words().word(token.bytes(setting.text)),
            TokenKind::QuotedName => setting.catalogue.words().quoted(&setting.text[token.start + 1..token.end - 1]),
            _ => continue,
        };
        let keyword = flags.has(WordFlags::RESERVED | WordFlags::GRAMMAR | WordFlags::FUNCTION);
        if cursor.at_kind(TokenKind::OpenParen) && !keyword && !target {
            return false;
        }
        target = flags.has(WordFlags::INTO) || target && cursor.at_kind(TokenKind::Dot);
        if target && cursor.at_kind(TokenKind::Dot) {
            cursor.take();
        }
    }
    true
}

/// CREATE [OR REPLACE] [LOCAL | GLOBAL] TEMP ..., and anything created in `pg_temp`.
fn creates_temporary(cursor: &Cursor<'_>) -> bool {
    let mut cursor = cursor.clone();
    cursor.eat_all(&["or", "replace"]);
    cursor.eat_any(&["local", "global"]);
    if cursor.eat_any(&["temp", "temporary"]) {
        return true;
    }
    while let Some(token) = cursor.take() {
        let name = token.bytes(cursor.text());
        let name = name.strip_prefix(b"\"").unwrap_or(name);
        let temporary = name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"pg_temp"));
        if temporary && cursor.at_kind(TokenKind::Dot) {
            return true;
        }
    }
    false
}

/// Whether DDL makes or changes what runs when others are called or written to, or may do so.
fn defines_code(setting: &Setting<'_>, survey: &Survey, cursor: &Cursor<'_>) -> bool {
    if !survey.lead.is_some_and(|lead| lead.is_word(setting.text, "create") || lead.is_word(setting.text, "alter")) {
        return false;
    }
    let words = ["function", "procedure", "routine", "aggregate", "trigger", "rule", "extension", "language", "operator", "cast"];
    let mut cursor = cursor.clone();
    std::iter::from_fn(|| cursor.take()).any(|token| words.iter().any(|word| token.is_word(setting.text, word)))
}

/// Whether new sessions of servers may begin otherwise: with other settings, or as another role of the same name. A new password
/// is nothing of the kind.
fn changes_defaults(setting: &Setting<'_>, survey: &Survey, cursor: &Cursor<'_>) -> bool {
    let Some(lead) = survey.lead else { return false };
    let mut cursor = cursor.clone();
    if lead.is_word(setting.text, "drop") {
        return cursor.eat_any(&["role", "user", "group"]);
    }
    let words = ["set", "reset", "superuser", "nosuperuser", "rename"];
    lead.is_word(setting.text, "alter")
        && cursor.eat_any(&["role", "user", "database"])
        && std::iter::from_fn(|| cursor.take()).any(|token| words.iter().any(|word| token.is_word(setting.text, word)))
}

/// The database to which nobody may be connected: of DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE, or the template of
/// CREATE DATABASE.
fn needs_alone(setting: &Setting<'_>, survey: &Survey, cursor: &Cursor<'_>) -> Option<Arc<str>> {
    let lead = survey.lead?;
    let mut cursor = cursor.clone();
    if !cursor.eat("database") {
        return None;
    }
    cursor.eat_all(&["if", "exists"]);
    let name = cursor.name()?;
    if lead.is_word(setting.text, "drop") {
        return Some(name);
    }
    if lead.is_word(setting.text, "alter") {
        return (cursor.at("rename") || cursor.eat("set") && cursor.at("tablespace")).then_some(name);
    }
    while !cursor.eat("template") {
        cursor.take()?;
    }
    cursor.eat_assignment();
    cursor.name()
}

/// DO: what it does stands in a literal, which is looked at like a function's source.
fn anonymous_block(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>) -> Outcome {
    let mut outcome = Outcome::write(WriteReason::Command);
    let mut body = None;
    let mut opaque = false;
    while let Some(token) = cursor.take() {
        match token.kind {
            TokenKind::String(_) if body.is_none() => body = literal_value(setting.text, token),
            TokenKind::Word if token.is_word(setting.text, "language") => {
                opaque |= !cursor.at("plpgsql") && cursor.string().as_deref() != Some("plpgsql");
            }
            _ => {}
        }
    }
    let defines = |body: &String| {
        let words = ["create", "alter", "drop", "grant", "revoke", "execute", "import"];
        let mut tokens = Scanner::new(body.as_bytes(), Lexing::default());
        tokens.any(|token| token.kind == TokenKind::Bad || words.iter().any(|word| token.is_word(body.as_bytes(), word)))
    };
    let hidden = body
        .as_ref()
        .is_none_or(|body| source_is_opaque(body.as_bytes(), setting.catalogue.words()) || calls_unknown(setting, body));
    if hidden || opaque || survey.names.has(WordFlags::OPAQUE) {
        outcome = outcome.pinned(Pins::OPAQUE);
    }
    if body.as_ref().is_none_or(defines) { outcome.changing_catalogue().defining_code(true) } else { outcome }
}

/// Whether the body may call something that the catalogue does not know, or that stays behind in the session.
fn calls_unknown(setting: &Setting<'_>, body: &str) -> bool {
    let mut scanner = Scanner::new(body.as_bytes(), Lexing::default());
    let words = setting.catalogue.words();
    let mut previous = WordFlags::NONE;
    let mut named = false;
    for token in scanner.by_ref() {
        if token.kind == TokenKind::OpenParen
            && named
            && !previous.has(WordFlags::RESERVED | WordFlags::GRAMMAR | WordFlags::FUNCTION)
        {
            return true;
        }
        named = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName);
        previous = if token.kind == TokenKind::Word { words.word(token.bytes(body.as_bytes())) } else { WordFlags::NONE };
        if previous.has(WordFlags::SEQUENCE) {
            return true;
        }
    }
    false
}
