//! SET in all its forms, RESET, SHOW.
//!
//! Spec: PostgreSQL's gram.y, VariableSetStmt, VariableResetStmt, VariableShowStmt.

use super::transaction::{isolation_value, modes};
use crate::sql::cursor::{Cursor, literal_value};
use crate::sql::facts::{Access, Command, Isolation, Pins, SessionEffect, TransactionModes, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::scan::{Token, TokenKind};
use std::sync::Arc;

/// How long a SET lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Transaction,
}

pub(super) fn set(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let scope = scope(cursor);
    let outcome = special(cursor, scope).or_else(|| variable(cursor, scope))?;
    Some(outcome)
}

/// `SESSION` and `LOCAL` are also good names of settings: `SET local.x = 1`.
fn scope(cursor: &mut Cursor<'_>) -> Scope {
    if second_continues_a_name(cursor) {
        return Scope::Session;
    }
    if cursor.eat("local") {
        return Scope::Transaction;
    }
    if cursor.at("session") && !cursor.second_is("authorization") && !cursor.second_is("characteristics") {
        cursor.take();
    }
    Scope::Session
}

fn second_continues_a_name(cursor: &Cursor<'_>) -> bool {
    cursor.second_is("to") || cursor.peek_second().is_some_and(|token| matches!(token.kind, TokenKind::Dot | TokenKind::Operator))
}

/// The forms with a syntax of their own. Takes nothing if it is none of them.
fn special(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Outcome> {
    let before = cursor.clone();
    let outcome = special_form(cursor, scope);
    if outcome.is_none() {
        *cursor = before;
    }
    outcome
}

fn special_form(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Outcome> {
    let numeric_sign = |token: Token| token.kind == TokenKind::Operator && token.bytes(cursor.text()) != b"=";
    let signed = cursor.at("time") && cursor.peek_second().is_some_and(numeric_sign);
    if second_continues_a_name(cursor) && !signed {
        return None;
    }
    if cursor.eat("constraints") {
        return Some(Outcome::session(Command::Other));
    }
    if cursor.eat("transaction") {
        if cursor.at("snapshot") {
            return Some(Outcome::write(WriteReason::SessionBound));
        }
        return Some(Outcome::session(Command::SetTransaction(modes(cursor)?)));
    }
    if cursor.eat_all(&["session", "characteristics", "as", "transaction"]) {
        return Some(characteristics(modes(cursor)?));
    }
    if cursor.eat_all(&["session", "authorization"]) {
        return assigned(cursor, "session_authorization", scope);
    }
    if cursor.eat_all(&["time", "zone"]) {
        // `SET TIME ZONE INTERVAL ...` has no `SET timezone = ` form.
        if cursor.at("interval") {
            if scope == Scope::Transaction {
                return Some(Outcome::effect(SessionEffect::SetLocal { name: "timezone".into(), value: None }));
            }
            return Some(Outcome::session(Command::Other).pinned(Pins::PARAMETER));
        }
        return assigned(cursor, "timezone", scope);
    }
    if cursor.eat("names") {
        return assigned(cursor, "client_encoding", scope);
    }
    if cursor.eat_all(&["xml", "option"]) {
        return assigned(cursor, "xmloption", scope);
    }
    for (word, name) in [("role", "role"), ("schema", "search_path")] {
        if cursor.eat(word) {
            return assigned(cursor, name, scope);
        }
    }
    None
}

/// SET SESSION CHARACTERISTICS AS TRANSACTION.
fn characteristics(modes: TransactionModes) -> Outcome {
    let switch = |on: bool| Some(if on { "on".into() } else { "off".into() });
    let mut outcome = Outcome::session(Command::Other);
    let mut set = |name: &str, value| outcome.facts.effects.push(SessionEffect::Set { name: name.into(), value });
    if let Some(isolation) = modes.isolation {
        let value = match isolation {
            Isolation::ReadCommitted => "'read committed'",
            Isolation::RepeatableRead => "'repeatable read'",
            Isolation::Serializable => "'serializable'",
        };
        set("default_transaction_isolation", Some(value.into()));
    }
    if let Some(read_only) = modes.read_only {
        set("default_transaction_read_only", switch(read_only));
    }
    if let Some(deferrable) = modes.deferrable {
        set("default_transaction_deferrable", switch(deferrable));
    }
    outcome
}

/// SET name TO value, name = value.
fn variable(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Outcome> {
    let name = dotted_name(cursor)?;
    cursor.eat_assignment().then_some(())?;
    if cursor.at_end() {
        return None;
    }
    assigned(cursor, &name, scope)
}

/// The rest is the value of the setting.
fn assigned(cursor: &mut Cursor<'_>, name: &str, scope: Scope) -> Option<Outcome> {
    let start = cursor.position();
    let single = if cursor.peek_second().is_none() { cursor.peek() } else { None };
    let mut words = Vec::new();
    while let Some(token) = cursor.take() {
        words.push(token);
    }
    let text = cursor.text();
    let default = words.is_empty()
        || single.is_some_and(|token| token.is_word(text, "default") || name == "timezone" && token.is_word(text, "local"));
    let value = String::from_utf8_lossy(text.get(start..cursor.consumed())?).into_owned();
    if let Some(modes) = current_transaction(name, single.and_then(|token| plain_value(text, token))) {
        return Some(modes);
    }
    let name: Arc<str> = name.into();
    if scope == Scope::Transaction {
        let value = if default { None } else { Some(value.into()) };
        return Some(Outcome::effect(SessionEffect::SetLocal { name, value }));
    }
    let mut outcome = Outcome::set(Arc::clone(&name), if default { None } else { Some(value.into()) });
    // Whatever is created under such a path is a temporary object, and the seed is not a value that can be set a second time.
    if &*name == "search_path" && words.iter().any(|token| mentions_temporary(text, *token)) {
        outcome = outcome.pinned(Pins::TEMPORARY);
    } else if &*name == "seed" {
        outcome = outcome.pinned(Pins::PARAMETER);
    }
    Some(outcome)
}

fn mentions_temporary(text: &[u8], token: Token) -> bool {
    memchr::memmem::find(&token.bytes(text).to_ascii_lowercase(), b"pg_temp").is_some()
}

fn plain_value(text: &[u8], token: Token) -> Option<String> {
    if token.kind == TokenKind::Word || token.kind == TokenKind::Integer {
        return Some(String::from_utf8_lossy(token.bytes(text)).to_ascii_lowercase());
    }
    literal_value(text, token)
}

/// `SET transaction_read_only = on` and its like are SET TRANSACTION under another name.
fn current_transaction(name: &str, value: Option<String>) -> Option<Outcome> {
    let mut modes = TransactionModes::default();
    let switch = value.as_deref().and_then(switch_value);
    match name {
        "transaction_read_only" => modes.read_only = Some(switch.unwrap_or(false)),
        "transaction_deferrable" => modes.deferrable = Some(switch.unwrap_or(false)),
        "transaction_isolation" => {
            modes.isolation = Some(value.as_deref().and_then(isolation_value).unwrap_or(Isolation::Serializable))
        }
        _ => return None,
    }
    Some(Outcome::session(Command::SetTransaction(modes)))
}

/// A boolean as PostgreSQL reads it: any unambiguous beginning of the words.
/// Spec: parse_bool_with_len in src/backend/utils/adt/bool.c.
fn switch_value(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(value.as_str());
    if value == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Some(true)
    } else if value == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}

/// `a.b.c`, folded: names of settings do not differ by case.
fn dotted_name(cursor: &mut Cursor<'_>) -> Option<String> {
    let mut name = cursor.name()?.to_ascii_lowercase();
    while cursor.eat_kind(TokenKind::Dot) {
        name.push('.');
        name.push_str(&cursor.name()?.to_ascii_lowercase());
    }
    Some(name)
}

/// The name behind RESET and SHOW, with its special spellings.
fn setting_name(cursor: &mut Cursor<'_>) -> Option<String> {
    let spelled: [(&[&str], &str); 3] = [
        (&["time", "zone"], "timezone"),
        (&["transaction", "isolation", "level"], "transaction_isolation"),
        (&["session", "authorization"], "session_authorization"),
    ];
    let special = spelled.iter().find(|(words, _)| cursor.eat_all(words)).map(|(_, name)| (*name).to_owned());
    let name = match special {
        Some(name) => name,
        None => dotted_name(cursor)?,
    };
    cursor.at_end().then_some(name)
}

pub(super) fn reset(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let all = cursor.at("all");
    let name = setting_name(cursor)?;
    Some(Outcome::effect(if all { SessionEffect::ResetAll } else { SessionEffect::Reset(name.into()) }))
}

pub(super) fn show(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let name = setting_name(cursor)?;
    Some(Outcome::new(Command::Show(name.into()), Access::Session))
}
