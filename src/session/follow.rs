//! Following what a unit did to the session: its transaction, parameters, pins and names, statement by statement.
//!
//! What is not known exactly is never guessed at in the session's favour: a pin stays, a server forgets.

use super::names::apply_names;
use super::relay::Answer;
use super::state::{NamedPins, OpenTransaction, SessionSnapshot, SessionState};
use super::unit::{Unit, UnitKind};
use crate::server::parameters::{DATE_STYLE, quote_literal};
use crate::server::{ParameterSet, ServerConnection, TransactionStatus, UNKNOWN_UNNAMED};
use crate::sql::{Command, Discard, Pins, SessionEffect, StatementFacts, TransactionModes};
use std::collections::HashSet;
use std::sync::Arc;

/// Statements that a transaction does again when it moves.
const REPLAY_MAX: usize = 16;
/// Pins whose cause a roll-back takes away; locks, prepared statements and what nobody can see survive it.
const ROLLED_BACK: Pins = Pins(Pins::TEMPORARY.0 | Pins::LISTEN.0 | Pins::HOLD_CURSOR.0);

/// Follows transaction, parameters and pins through a unit whose answers have all come.
#[inline(never)]
pub(super) fn follow(unit: &Unit, text: Option<&[u8]>, answer: &Answer, state: &mut SessionState, server: &mut ServerConnection) {
    // Outside a block, what came before a statement in its unit, or in its pipeline, is a transaction too.
    let mut implicit = state.pipeline_begin.take().map_or_else(|| snapshot(state, server), |begin| *begin);
    let open_before = state.transaction.is_some();
    if answer.error.is_some() {
        follow_error(unit, (text, answer), &implicit, state, server);
    } else if answer.completed > 0 {
        let mut failed = state.transaction.as_ref().is_some_and(|transaction| transaction.failed);
        for statement in unit.run_statements() {
            follow_statement(statement, (&mut implicit, std::mem::take(&mut failed)), state, server);
            follow_names(unit, statement, text, state, server);
        }
        whole_date_style(unit, answer, state, server);
        note_replay(unit, text, state);
    }
    let status = server.incoming.status;
    // In the middle of a pipeline the server has not said yet.
    let idle = status == TransactionStatus::Idle && !state.pipeline_open;
    match (status, &mut state.transaction) {
        // Kept for `settle`, which takes it.
        (TransactionStatus::Idle, _) => {}
        (_, Some(transaction)) => transaction.failed = status == TransactionStatus::Failed,
        (_, None) => {
            let mut transaction = OpenTransaction::new(implicit.clone(), modes_of(unit), state);
            transaction.failed = status == TransactionStatus::Failed;
            state.transaction = Some(transaction);
        }
    }
    if let Some(transaction) = state.transaction.as_mut().filter(|_| unit.leaves_portals) {
        // A portal lives on its server only.
        transaction.movable = None;
    }
    if let Some(transaction) = state.transaction.as_mut().filter(|_| !open_before) {
        transaction.begun = modes_of_begin(unit);
    }
    if state.pipeline_open && state.transaction.is_none() && answer.error.is_none() {
        state.pipeline_begin = Some(Box::new(implicit));
    }
    if idle {
        state.local = None;
        if !open_before {
            state.transaction = None;
        }
    }
    state.parameters_changed();
    if !Arc::ptr_eq(&state.parameters, &server.parameters) && *state.parameters == *server.parameters {
        server.parameters = state.parameters.clone();
    }
}

/// Follows a unit whose server is lost behind some of its statements: what those had committed stays.
pub(super) fn follow_lost(unit: &Unit, answer: &Answer, state: &mut SessionState, server: &mut ServerConnection) {
    if answer.completed == 0 {
        return;
    }
    let mut implicit = state.pipeline_begin.take().map_or_else(|| snapshot(state, server), |begin| *begin);
    let mut failed = state.transaction.as_ref().is_some_and(|transaction| transaction.failed);
    for statement in unit.run_statements().take(answer.completed as usize) {
        follow_statement(statement, (&mut implicit, std::mem::take(&mut failed)), state, server);
    }
    if state.transaction.is_none() {
        restore(&implicit, state, server);
        state.parameters_changed();
    }
}

fn modes_of(unit: &Unit) -> TransactionModes {
    let begin = unit.run_statements().find_map(|statement| match &statement.command {
        Command::Begin(modes) => Some(*modes),
        _ => None,
    });
    begin.unwrap_or_default()
}

/// The modes of a unit that does nothing but begin a transaction.
fn modes_of_begin(unit: &Unit) -> Option<TransactionModes> {
    let only_begins = unit.run_statements().all(|statement| matches!(statement.command, Command::Begin(_)));
    (only_begins && !unit.leaves_portals && unit.pins.is_empty()).then(|| modes_of(unit))
}

fn snapshot(state: &SessionState, server: &ServerConnection) -> SessionSnapshot {
    SessionSnapshot {
        session: state.parameters.clone(),
        server: server.parameters.clone(),
        pins: state.pins,
        named: state.named_pins.as_deref().cloned(),
        local: state.local.clone(),
    }
}

fn restore(to: &SessionSnapshot, state: &mut SessionState, server: &mut ServerConnection) {
    state.parameters = to.session.clone();
    state.local = to.local.clone();
    server.parameters = to.server.clone();
    state.pins = to.pins.union(state.pins.without(ROLLED_BACK));
    if let Some(now) = &mut state.named_pins {
        let old = to.named.clone().unwrap_or_default();
        (now.channels, now.cursors) = (old.channels, old.cursors);
    } else if let Some(old) = &to.named {
        state.named_pins = Some(Box::new(NamedPins { prepared: HashSet::new(), ..old.clone() }));
    }
}

/// An error ended the unit. What it did before that was rolled back with it, unless it held its own COMMIT.
fn follow_error(
    unit: &Unit,
    (text, answer): (Option<&[u8]>, &Answer),
    before: &SessionSnapshot,
    state: &mut SessionState,
    server: &mut ServerConnection,
) {
    let several = unit.run_statements().nth(1).is_some();
    state.pins = state.pins.union(unit.pins);
    // What PREPARE and DEALLOCATE have done is not rolled back.
    for statement in unit.run_statements().take(answer.completed as usize) {
        follow_names(unit, statement, text, state, server);
    }
    let controls = |statement: &StatementFacts| !matches!(statement.command, Command::Query | Command::Other | Command::Show(_));
    let changes = |statement: &StatementFacts| controls(statement) || !statement.effects.is_empty();
    if several && unit.run_statements().any(controls) && unit.run_statements().any(changes) && answer.completed > 0 {
        // Some of it may have been committed: the server alone knows, and the session stays with it.
        state.pins = state.pins.union(Pins::PARAMETER);
    }
    if server.incoming.status == TransactionStatus::Idle {
        // A COMMIT that failed is a roll-back.
        let begin = state.transaction.as_ref().map(|transaction| transaction.at_begin.clone());
        restore(begin.as_ref().unwrap_or(before), state, server);
    }
}

/// `implicit` is what the transaction outside of a block began with; `failed` says that the block has.
fn follow_statement(
    statement: &StatementFacts,
    (implicit, failed): (&mut SessionSnapshot, bool),
    state: &mut SessionState,
    server: &mut ServerConnection,
) {
    state.pins = state.pins.union(statement.pins);
    if state.transaction.is_none() {
        match &statement.command {
            Command::Rollback { .. } => restore(implicit, state, server),
            Command::Commit { .. } => *implicit = snapshot(state, server),
            // What came before it is part of the block.
            Command::Begin(modes) => state.transaction = Some(OpenTransaction::new(implicit.clone(), *modes, state)),
            _ => {}
        }
    }
    match &statement.command {
        Command::Commit { .. } => {
            if failed {
                roll_back(state, server);
            }
            next_transaction(state, server);
        }
        Command::Rollback { .. } => {
            roll_back(state, server);
            next_transaction(state, server);
        }
        // A second BEGIN is only warned of.
        Command::Begin(_) | Command::TwoPhase => {}
        Command::Savepoint(name) => {
            let now = snapshot(state, server);
            if let Some(transaction) = &mut state.transaction {
                transaction.savepoints.push((name.clone(), now));
            }
        }
        Command::Release(name) => {
            if let Some(transaction) = &mut state.transaction
                && let Some(place) = transaction.savepoints.iter().rposition(|(known, _)| known == name)
            {
                transaction.savepoints.truncate(place);
            }
        }
        Command::RollbackTo(name) => {
            let Some(transaction) = &mut state.transaction else { return };
            if let Some(place) = transaction.savepoints.iter().rposition(|(known, _)| known == name) {
                transaction.savepoints.truncate(place + 1);
                let to = transaction.savepoints[place].1.clone();
                restore(&to, state, server);
            }
        }
        _ => statement.effects.iter().for_each(|effect| apply(effect, state, server)),
    }
}

/// `SET datestyle = ymd` says one half of the value; the server reports the whole, before it is ready again.
fn whole_date_style(unit: &Unit, answer: &Answer, state: &mut SessionState, server: &mut ServerConnection) {
    let sets = |effect: &SessionEffect| matches!(effect, SessionEffect::Set { name, value: Some(_) } if &**name == DATE_STYLE);
    if state.parameters.get(DATE_STYLE).is_none() || !unit.run_statements().flat_map(|statement| &statement.effects).any(sets) {
        return;
    }
    match server.incoming.reported.get("DateStyle") {
        Some(whole) if answer.ready => {
            let whole: Arc<str> = quote_literal(whole).into();
            Arc::make_mut(&mut state.parameters).set(DATE_STYLE.into(), whole.clone());
            Arc::make_mut(&mut server.parameters).set(DATE_STYLE.into(), whole);
        }
        _ => state.pins = state.pins.union(Pins::PARAMETER),
    }
}

fn roll_back(state: &mut SessionState, server: &mut ServerConnection) {
    if let Some(transaction) = &state.transaction {
        let begin = transaction.at_begin.clone();
        restore(&begin, state, server);
    }
}

/// After COMMIT or ROLLBACK: AND CHAIN begins the next transaction from what is now. Without it the ended one stays until
/// `settle` has looked at it, but a roll-back goes no further back than to here.
fn next_transaction(state: &mut SessionState, server: &mut ServerConnection) {
    state.local = None;
    let now = snapshot(state, server);
    if let Some(transaction) = &mut state.transaction {
        transaction.at_begin = now;
        transaction.savepoints.clear();
        transaction.movable = None;
        transaction.begun = None;
    }
}

/// Names that a statement of a simple query gives or takes; those of a pipeline were followed when it was translated.
fn follow_names(
    unit: &Unit,
    statement: &StatementFacts,
    text: Option<&[u8]>,
    state: &mut SessionState,
    server: &mut ServerConnection,
) {
    if unit.kind == UnitKind::Query {
        let only = unit.query_facts().is_some_and(|facts| facts.statements.len() == 1);
        for effect in &statement.effects {
            apply_names(effect, (text.unwrap_or_default(), only), 0, state, server);
        }
    }
}

/// What a READ ONLY transaction has done to itself on a replica must be done again if it moves; what can't be keeps it there.
fn note_replay(unit: &Unit, text: Option<&[u8]>, state: &mut SessionState) {
    let Some(transaction) = state.transaction.as_mut().filter(|open| open.movable.is_some() && open.statements > 0) else {
        return;
    };
    let changes = |statement: &StatementFacts| {
        statement.effects.iter().any(|effect| !effect.concerns_names())
            || matches!(statement.command, Command::Savepoint(_) | Command::SetTransaction(_))
    };
    let goes_back = |statement: &StatementFacts| matches!(statement.command, Command::Release(_) | Command::RollbackTo(_));
    if unit.run_statements().any(goes_back) {
        transaction.movable = None;
    } else if unit.run_statements().any(changes) {
        match text.and_then(|text| std::str::from_utf8(text).ok()) {
            Some(text) if transaction.replay.len() < REPLAY_MAX => transaction.replay.push(text.into()),
            _ => transaction.movable = None,
        }
    }
}

fn apply(effect: &SessionEffect, state: &mut SessionState, server: &mut ServerConnection) {
    match effect {
        SessionEffect::Set { name, value: Some(value) } => {
            forget_local(name, state);
            Arc::make_mut(&mut state.parameters).set(name.clone(), value.clone());
            Arc::make_mut(&mut server.parameters).set(name.clone(), value.clone());
        }
        SessionEffect::Set { name, value: None } | SessionEffect::Reset(name) => {
            forget_local(name, state);
            Arc::make_mut(&mut state.parameters).set_as_in(name, &state.startup);
            Arc::make_mut(&mut server.parameters).unset(name);
        }
        SessionEffect::ResetAll => reset_all(state, server),
        SessionEffect::DiscardAll => {
            state.parameters = state.startup.clone();
            server.parameters = Arc::default();
            state.local = None;
            state.pins = Pins::NONE;
            // The unnamed statement outlives it, unless it was a simple query, which has ended it already.
            server.unnamed = UNKNOWN_UNNAMED;
            state.named_pins = None;
        }
        SessionEffect::DiscardSome(Discard::Sequences) => state.pins = state.pins.without(Pins::SEQUENCE),
        SessionEffect::DiscardSome(Discard::Temp) => state.pins = state.pins.without(Pins::TEMPORARY),
        SessionEffect::Deallocate(None) => {
            state.pins = state.pins.without(Pins::PREPARE);
            forget_named(state, |named| &mut named.prepared, None);
        }
        SessionEffect::Unlisten(name) => {
            if forget_named(state, |named| &mut named.channels, name.as_ref()) {
                state.pins = state.pins.without(Pins::LISTEN);
            }
        }
        SessionEffect::CloseCursor(name) => {
            if forget_named(state, |named| &mut named.cursors, name.as_ref()) {
                state.pins = state.pins.without(Pins::HOLD_CURSOR);
            }
        }
        SessionEffect::Deallocate(Some(name)) => {
            if forget_named(state, |named| &mut named.prepared, Some(name)) {
                state.pins = state.pins.without(Pins::PREPARE);
            }
        }
        SessionEffect::Listen(name) => drop(state.named_pins.get_or_insert_default().channels.insert(name.clone())),
        SessionEffect::DeclareHold(name) => drop(state.named_pins.get_or_insert_default().cursors.insert(name.clone())),
        SessionEffect::SetLocal { name, value } if state.transaction.is_some() => {
            state.local.get_or_insert_default().set(name, value.as_ref());
        }
        SessionEffect::ChangeDefaults => state.changed_defaults = true,
        SessionEffect::NeedDatabaseAlone(_)
        | SessionEffect::SetLocal { .. }
        | SessionEffect::DiscardSome(Discard::Plans)
        | SessionEffect::Prepare { .. }
        | SessionEffect::Execute(_)
        | SessionEffect::ListStatements => {}
    }
}

fn forget_local(name: &str, state: &mut SessionState) {
    if let Some(local) = &mut state.local {
        local.forget(name);
    }
}

/// Takes a name away, or all of a kind; true when none of the kind is left.
fn forget_named(
    state: &mut SessionState,
    kind: impl Fn(&mut NamedPins) -> &mut HashSet<Arc<str>>,
    name: Option<&Arc<str>>,
) -> bool {
    let Some(names) = state.named_pins.as_deref_mut().map(kind) else { return name.is_none() };
    match name {
        // A name that is not known may stand for something that a function has made: the pin stays.
        Some(name) => names.remove(name) && names.is_empty(),
        None => {
            names.clear();
            true
        }
    }
}

/// RESET ALL leaves role and session authorization as they are.
fn reset_all(state: &mut SessionState, server: &mut ServerConnection) {
    state.local = None;
    let keep = |from: &ParameterSet, into: &mut ParameterSet| {
        for name in ["session_authorization", "role"] {
            if let Some(value) = from.get(name) {
                into.set(name.into(), value.into());
            }
        }
    };
    let mut own = state.startup.as_ref().clone();
    keep(&state.parameters, &mut own);
    let mut of_server = ParameterSet::default();
    keep(&server.parameters, &mut of_server);
    state.parameters = Arc::new(own);
    server.parameters = Arc::new(of_server);
}
