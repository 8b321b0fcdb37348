//! After an answer: what the unit did to the session, and whether its server connection is free again.

use super::relay::Answer;
use super::run::Session;
use super::state::{Freshness, NamedPins, OpenTransaction, SessionState};
use super::unit::{Unit, UnitKind};
use crate::config::{Consistency, PoolMode};
use crate::database::ClientState;
use crate::metrics::{PinCause, QueryRoute};
use crate::server::{ParameterSet, ServerConnection, TransactionStatus};
use crate::sql::{Command, Discard, Pins, SessionEffect};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Statements that a transaction does again when it moves.
const REPLAY_MAX: usize = 16;

impl Session {
    /// Takes in what the unit did, once all its answers have come, which took `elapsed`. `text` is that of a simple query in a transaction that may move.
    pub(super) fn settle(&mut self, unit: &Unit, text: Option<&str>, answer: &Answer, elapsed: Duration) {
        let Some(link) = self.link.as_mut() else { return };
        let (route, host_id) = (link.route, link.host.id);
        let server = link.server();
        self.state.last_server = server.id;
        server.broken |= answer.unsolicited;
        let dropped = server.incoming.replies.take_dropped_names();
        if dropped > 0 {
            self.state.undo_names(self.state.journal.len().saturating_sub(dropped));
        }
        self.state.journal.clear();
        if answer.error.is_some() && unit.verbatim {
            // Whether the unnamed Parse of the unit succeeded is not known: it is made again when it is used.
            server.unnamed = 0;
        }
        let status = server.incoming.status;
        let open = self.state.transaction.is_some();
        let plain = !unit.needs_care && !open && status == TransactionStatus::Idle && self.state.pins.is_empty();
        if !plain {
            follow(unit, text, answer, &mut self.state, server);
        }
        self.note_writes(unit, answer, (route, host_id), (status, elapsed));
        self.state.pipeline_open = match unit.kind {
            UnitKind::Pipeline | UnitKind::Query | UnitKind::Function | UnitKind::Terminate => false,
            UnitKind::Part => true,
            UnitKind::Flush => unit.binds || self.state.pipeline_open,
        };
        if self.state.pipeline_open || unit.kind == UnitKind::Flush {
            self.state.skipping |= answer.error.is_some();
        }
        if !plain {
            self.note_pins();
            if let Some(link) = &mut self.link {
                link.needs_reset = !self.state.pins.is_empty() || self.mode == PoolMode::Session;
            }
        }
        if status == TransactionStatus::Idle {
            self.release_if_free();
        }
        self.state_is(if status == TransactionStatus::Idle { ClientState::Idle } else { ClientState::InTransaction });
    }

    /// Gives the server connection back if nothing binds the session to it. The server is idle.
    pub(super) fn release_if_free(&mut self) {
        if !self.state.pipeline_open && self.state.pins.is_empty() && self.mode == PoolMode::Transaction {
            if let Some(link) = &mut self.link {
                link.needs_reset = false;
            }
            self.link = None;
        }
    }

    /// After anything but a plain read on the primary, later reads must see what it wrote.
    fn note_writes(
        &mut self,
        unit: &Unit,
        answer: &Answer,
        (route, host_id): (QueryRoute, u32),
        (status, mut elapsed): (TransactionStatus, Duration),
    ) {
        let mut changed_catalogue = unit.changes_catalogue;
        if let Some(transaction) = &mut self.state.transaction {
            transaction.changed_catalogue |= unit.changes_catalogue;
            transaction.statements += answer.completed as u64;
            if status != TransactionStatus::Idle {
                return;
            }
        }
        if status == TransactionStatus::Idle {
            if let Some(ended) = self.state.transaction.take() {
                changed_catalogue |= ended.changed_catalogue;
                elapsed = ended.since.elapsed();
            }
            self.database.metrics.record_transaction(route, elapsed);
            if let Some(mark) = self.state.write_mark.take() {
                self.state.freshness = Freshness::Pending(mark.acknowledged());
                self.state.last_read = None;
            } else if self.state.consistency == Consistency::Monotonic {
                self.note_read(route, host_id);
            }
        }
        if changed_catalogue {
            self.database.catalogue_changed();
        }
    }

    /// `monotonic`: what a read has shown must be shown by the next one too.
    fn note_read(&mut self, route: QueryRoute, host_id: u32) {
        match route {
            QueryRoute::Replica => self.state.last_read = Some((host_id, Instant::now())),
            QueryRoute::Primary => {
                self.state.freshness = Freshness::Pending(self.database.upstream().cluster.sampler().ticket());
                self.state.last_read = None;
            }
        }
    }

    /// Shows the session's pins to the console and counts them.
    pub(super) fn note_pins(&mut self) {
        let (before, now) = (self.entry.pins(), self.state.pins);
        if before == now {
            return;
        }
        for (index, (pin, _)) in Pins::ALL.iter().enumerate() {
            let gauge = self.database.metrics.pinned(PinCause::ALL[index]);
            match (before.intersects(*pin), now.intersects(*pin)) {
                (false, true) => gauge.add(1),
                (true, false) => gauge.add(-1),
                _ => {}
            }
        }
        self.entry.set_pins(now);
    }
}

/// Follows transaction, parameters and pins through a unit.
fn follow(unit: &Unit, text: Option<&str>, answer: &Answer, state: &mut SessionState, server: &mut ServerConnection) {
    let status = server.incoming.status;
    let before = (state.parameters.clone(), server.parameters.clone());
    state.pins = state.pins.union(unit.pins);
    if answer.completed == 0 {
        // Nothing was run to its end: a Parse alone, or an error.
    } else if answer.error.is_none() {
        unit.run_statements().flat_map(|statement| &statement.effects).for_each(|effect| apply(effect, state, server));
    } else if unit.run_statements().any(|statement| !statement.effects.is_empty()) && unit.run_statements().count() > 1 {
        // Some of several statements took effect: which ones is not known.
        state.pins = state.pins.union(Pins::PARAMETER);
    }
    if status == TransactionStatus::Idle {
        if let Some(ended) = &state.transaction
            && answer.rolled_back
        {
            let (session, of_server) = ended.at_begin.clone();
            (state.parameters, server.parameters) = (session, of_server);
        }
    } else {
        if state.transaction.is_none() {
            state.transaction = Some(begin(unit, before, state));
        }
        follow_savepoints(unit, text, answer, state, server);
    }
    if !Arc::ptr_eq(&state.parameters, &server.parameters) && *state.parameters == *server.parameters {
        server.parameters = state.parameters.clone();
    }
    state.parameters_changed();
}

fn begin(unit: &Unit, before: (Arc<ParameterSet>, Arc<ParameterSet>), state: &SessionState) -> OpenTransaction {
    let modes = unit.run_statements().find_map(|statement| match &statement.command {
        Command::Begin(modes) => Some(*modes),
        _ => None,
    });
    let read_only = modes.is_some_and(|modes| modes.read_only.unwrap_or(state.view.read_only_by_default));
    let isolation = modes.and_then(|modes| modes.isolation).unwrap_or(state.view.isolation_by_default);
    OpenTransaction {
        since: Instant::now(),
        at_begin: before,
        savepoints: Vec::new(),
        movable: read_only.then_some(isolation),
        deferrable: modes.is_some_and(|modes| modes.deferrable == Some(true)),
        statements: 0,
        replay: Vec::new(),
        changed_catalogue: false,
    }
}

fn follow_savepoints(unit: &Unit, text: Option<&str>, answer: &Answer, state: &mut SessionState, server: &mut ServerConnection) {
    if answer.error.is_some() {
        return;
    }
    let parameters = (state.parameters.clone(), server.parameters.clone());
    let Some(transaction) = &mut state.transaction else { return };
    if transaction.movable.is_some() && transaction.statements > 0 {
        note_replay(unit, text, transaction);
    }
    for statement in unit.run_statements() {
        match &statement.command {
            Command::Savepoint(name) => transaction.savepoints.push((name.clone(), parameters.0.clone(), parameters.1.clone())),
            Command::Release(name) => {
                if let Some(place) = transaction.savepoints.iter().rposition(|(known, ..)| known == name) {
                    transaction.savepoints.truncate(place);
                }
            }
            Command::RollbackTo(name) => {
                if let Some(place) = transaction.savepoints.iter().rposition(|(known, ..)| known == name) {
                    transaction.savepoints.truncate(place + 1);
                    let (_, session, of_server) = transaction.savepoints[place].clone();
                    (state.parameters, server.parameters) = (session, of_server);
                }
            }
            _ => {}
        }
    }
}

/// What a READ ONLY transaction has done to itself on a replica must be done again if it moves; what can't be keeps it there.
fn note_replay(unit: &Unit, text: Option<&str>, transaction: &mut OpenTransaction) {
    let changes = |statement: &crate::sql::StatementFacts| {
        !statement.effects.is_empty() || matches!(statement.command, Command::Savepoint(_) | Command::SetTransaction(_))
    };
    let goes_back =
        |statement: &crate::sql::StatementFacts| matches!(statement.command, Command::Release(_) | Command::RollbackTo(_));
    if unit.run_statements().any(goes_back) {
        transaction.movable = None;
    } else if unit.run_statements().any(changes) {
        match text {
            Some(text) if transaction.replay.len() < REPLAY_MAX => transaction.replay.push(text.into()),
            _ => transaction.movable = None,
        }
    }
}

fn apply(effect: &SessionEffect, state: &mut SessionState, server: &mut ServerConnection) {
    match effect {
        SessionEffect::Set { name, value: Some(value) } => {
            Arc::make_mut(&mut state.parameters).set(name.clone(), value.clone());
            Arc::make_mut(&mut server.parameters).set(name.clone(), value.clone());
        }
        SessionEffect::Set { name, value: None } | SessionEffect::Reset(name) => {
            let startup = state.startup.get(name).map(Arc::from);
            let own = Arc::make_mut(&mut state.parameters);
            match startup {
                Some(value) => own.set(name.clone(), value),
                None => own.unset(name),
            }
            Arc::make_mut(&mut server.parameters).unset(name);
        }
        SessionEffect::ResetAll => reset_all(state, server),
        SessionEffect::DiscardAll => {
            state.parameters = state.startup.clone();
            server.parameters = Arc::default();
            state.pins = Pins::NONE;
            state.statements = None;
            (state.unnamed.tag, state.unnamed.kept) = (0, None);
            server.incoming.prepared.clear();
            server.unnamed = 0;
            state.named_pins = None;
        }
        SessionEffect::DiscardSome(Discard::Sequences) => state.pins = state.pins.without(Pins::SEQUENCE),
        SessionEffect::DiscardSome(Discard::Temp) => state.pins = state.pins.without(Pins::TEMPORARY),
        SessionEffect::Deallocate(None) => {
            state.pins = state.pins.without(Pins::PREPARE);
            state.statements = None;
            server.incoming.prepared.clear();
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
        SessionEffect::Prepare(name) => drop(state.named_pins.get_or_insert_default().prepared.insert(name.clone())),
        SessionEffect::SetLocal { .. } | SessionEffect::DiscardSome(Discard::Plans) | SessionEffect::Execute(_) => {}
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
