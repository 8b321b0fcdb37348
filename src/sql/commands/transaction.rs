//! BEGIN, COMMIT, ROLLBACK, savepoints, two-phase commands, transaction modes.
//!
//! Spec: PostgreSQL's gram.y, TransactionStmt and transaction_mode_list.

use super::Kind;
use crate::sql::cursor::Cursor;
use crate::sql::facts::{Access, Command, Isolation, TransactionModes, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::scan::TokenKind;
use std::sync::Arc;

pub(super) fn begin(cursor: &mut Cursor<'_>, kind: Kind) -> Option<Outcome> {
    if kind == Kind::Start {
        cursor.eat("transaction").then_some(())?;
    } else {
        cursor.eat_any(&["work", "transaction"]);
    }
    Some(Outcome::session(Command::Begin(modes(cursor)?)))
}

pub(super) fn commit(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    if cursor.at("prepared") {
        return Some(two_phase());
    }
    cursor.eat_any(&["work", "transaction"]);
    let chain = chain(cursor)?;
    Some(Outcome::session(Command::Commit { chain }))
}

pub(super) fn rollback(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    if cursor.at("prepared") {
        return Some(two_phase());
    }
    cursor.eat_any(&["work", "transaction"]);
    if cursor.eat("to") {
        return Some(Outcome::session(Command::RollbackTo(savepoint_name(cursor)?)));
    }
    let chain = chain(cursor)?;
    Some(Outcome::session(Command::Rollback { chain }))
}

pub(super) fn savepoint(cursor: &mut Cursor<'_>, kind: Kind) -> Option<Outcome> {
    let command =
        if kind == Kind::Release { Command::Release(savepoint_name(cursor)?) } else { Command::Savepoint(last_name(cursor)?) };
    Some(Outcome::session(command))
}

/// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
pub(super) fn two_phase() -> Outcome {
    Outcome::new(Command::TwoPhase, Access::Write(WriteReason::Utility))
}

/// `[SAVEPOINT] name`, where the name itself may be `savepoint`.
fn savepoint_name(cursor: &mut Cursor<'_>) -> Option<Arc<str>> {
    if cursor.peek_second().is_some() {
        cursor.eat("savepoint");
    }
    last_name(cursor)
}

fn last_name(cursor: &mut Cursor<'_>) -> Option<Arc<str>> {
    let name = cursor.name()?;
    cursor.at_end().then_some(name)
}

/// `[AND [NO] CHAIN]` and the end.
fn chain(cursor: &mut Cursor<'_>) -> Option<bool> {
    let mut chain = false;
    if cursor.eat("and") {
        chain = !cursor.eat("no");
        cursor.eat("chain").then_some(())?;
    }
    cursor.at_end().then_some(chain)
}

/// Transaction modes up to the end, with or without commas; of two that contradict each other the last counts, as in PostgreSQL.
pub(super) fn modes(cursor: &mut Cursor<'_>) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    while !cursor.at_end() {
        if cursor.eat("read") {
            let read_only = cursor.eat("only");
            (read_only || cursor.eat("write")).then_some(())?;
            modes.read_only = Some(read_only);
        } else if cursor.eat("isolation") {
            cursor.eat("level").then_some(())?;
            modes.isolation = Some(isolation_words(cursor)?);
        } else if cursor.eat("not") {
            cursor.eat("deferrable").then_some(())?;
            modes.deferrable = Some(false);
        } else if cursor.eat("deferrable") {
            modes.deferrable = Some(true);
        } else {
            return None;
        }
        if cursor.eat_kind(TokenKind::Comma) && cursor.at_end() {
            return None;
        }
    }
    Some(modes)
}

fn isolation_words(cursor: &mut Cursor<'_>) -> Option<Isolation> {
    if cursor.eat("serializable") {
        return Some(Isolation::Serializable);
    }
    if cursor.eat_all(&["repeatable", "read"]) {
        return Some(Isolation::RepeatableRead);
    }
    let committed = cursor.eat_all(&["read", "committed"]) || cursor.eat_all(&["read", "uncommitted"]);
    committed.then_some(Isolation::ReadCommitted)
}

/// The isolation level that a setting's value names.
pub(super) fn isolation_value(value: &str) -> Option<Isolation> {
    match value.trim().to_ascii_lowercase().as_str() {
        "serializable" => Some(Isolation::Serializable),
        "repeatable read" => Some(Isolation::RepeatableRead),
        "read committed" | "read uncommitted" => Some(Isolation::ReadCommitted),
        _ => None,
    }
}
