//! After an answer: what the unit did to the session, and whether its server connection is free again.

use super::follow::follow;
use super::relay::Answer;
use super::results::note_results;
use super::run::Session;
use super::serve::databases_needed;
use super::state::Freshness;
use super::unit::{Unit, UnitKind};
use crate::config::{Consistency, PoolMode};
use crate::database::ClientState;
use crate::metrics::{PinCause, QueryRoute};
use crate::server::TransactionStatus;
use crate::sql::{Access, Pins, WriteReason};
use std::hint::cold_path;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What `DISCARD ALL` does not take away: loaded libraries, the temporary schema, and what nobody can see.
const INDELIBLE: Pins = Pins(Pins::LOAD.0 | Pins::TEMPORARY.0 | Pins::OPAQUE.0);

impl Session {
    /// Takes in what the unit did, once all its answers have come, which took `elapsed`. `text` is that of a simple query in a transaction that may move.
    pub(super) fn settle(&mut self, unit: &Unit, text: Option<&[u8]>, answer: &Answer, elapsed: Duration) {
        let Some(link) = self.link.as_mut() else { return };
        let (route, host_id) = (link.route, link.host.id);
        let server = link.server();
        self.state.last_server = server.id;
        server.broken |= answer.unsolicited;
        let mut failed_at = None;
        if answer.error.is_some() {
            cold_path();
            failed_at = server.incoming.replies.take_failure();
            failed_at.into_iter().for_each(|failed_at| self.state.undo_names(failed_at));
        }
        self.state.pipeline_open = match unit.kind {
            _ if answer.ready => false,
            UnitKind::Pipeline => answer.holds_sync,
            UnitKind::Query | UnitKind::Function | UnitKind::Terminate => false,
            UnitKind::Part => true,
            UnitKind::Flush => unit.binds || self.state.pipeline_open,
        };
        server.mid_request = self.state.pipeline_open;
        let status = server.incoming.status;
        if !self.state.view.catalogue_is_current && answer.completed > 0 && self.mode == PoolMode::Transaction {
            self.pin_what_is_not_known(unit);
        }
        let Some(link) = self.link.as_mut() else { return };
        let server = link.server();
        let open = self.state.transaction.is_some();
        let begun = open || self.state.pipeline_begin.is_some();
        let plain = !unit.needs_care && !begun && status == TransactionStatus::Idle && self.state.pins.is_empty();
        if !plain {
            cold_path();
            follow(unit, text, answer, &mut self.state, server);
        }
        if !server.incoming.described.is_empty() {
            note_results(&mut self.state, &mut server.incoming, route);
        }
        self.state.told_mark ^= std::mem::take(&mut server.incoming.told);
        if server.own_names.is_changing() && server.own_names.settle(failed_at) {
            cold_path();
            server.incoming.prepared.clear();
        }
        if !self.state.view.catalogue_is_current
            && unit.may_write()
            && unit.run_statements().any(|statement| !calls_what_is_known(statement.access))
            && let Some(link) = &mut self.link
        {
            cold_path();
            // A function or trigger that is not known yet may set, lock or create what the text does not show.
            link.must_forget = true;
        }
        if !self.state.journal.is_empty() {
            cold_path();
            self.note_prepared(unit, route);
            self.state.journal.clear();
        }
        self.note_writes(unit, answer, (route, host_id), (status, elapsed));
        if !answer.ready && (self.state.pipeline_open || unit.kind == UnitKind::Flush) {
            self.state.skipping |= answer.error.is_some();
        }
        if !plain {
            cold_path();
            self.note_pins();
            if let Some(link) = &mut self.link {
                link.needs_reset = !self.state.pins.is_empty() || self.mode == PoolMode::Session;
                link.is_spent |= self.state.pins.union(unit.pins).intersects(INDELIBLE);
            }
        }
        if status == TransactionStatus::Idle && answer.withheld.is_none() {
            self.release_if_free();
        }
        self.state_is(if status == TransactionStatus::Idle { ClientState::Idle } else { ClientState::InTransaction });
    }

    /// A function that the catalogue does not know yet may leave anything behind in the session; so may a write after the session
    /// has made functions or triggers that have not been read.
    #[cold]
    fn pin_what_is_not_known(&mut self, unit: &Unit) {
        let unread = |change: NonZeroU64| !self.database.catalogue_contains(change.get());
        let in_transaction = self.state.transaction.as_ref().is_some_and(|transaction| transaction.defined_code);
        let own = unit.defines_code || in_transaction || self.state.unread_code.is_some_and(unread);
        let hides = |access| match access {
            Access::Write(WriteReason::UnknownFunction) => true,
            Access::Write(reason) => {
                own && !matches!(reason, WriteReason::Utility | WriteReason::Lock | WriteReason::SessionBound)
            }
            Access::Read | Access::Session | Access::Server => false,
        };
        if unit.run_statements().any(|statement| hides(statement.access)) {
            self.state.pins = self.state.pins.union(Pins::OPAQUE);
        }
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
        let (mut changed_catalogue, mut defined_code) = (unit.changes_catalogue, unit.defines_code);
        if self.state.pipeline_changed_catalogue | self.state.pipeline_defined_code {
            cold_path();
            changed_catalogue |= self.state.pipeline_changed_catalogue;
            defined_code |= self.state.pipeline_defined_code;
            (self.state.pipeline_changed_catalogue, self.state.pipeline_defined_code) = (false, false);
        }
        if let Some(transaction) = &mut self.state.transaction {
            transaction.changed_catalogue |= changed_catalogue;
            transaction.defined_code |= defined_code;
            transaction.statements += u64::from(answer.completed);
            if status != TransactionStatus::Idle {
                return;
            }
        }
        if self.state.pipeline_open {
            // It commits at its Sync: until then nothing was acknowledged.
            (self.state.pipeline_changed_catalogue, self.state.pipeline_defined_code) = (changed_catalogue, defined_code);
            return;
        }
        let ended = if status == TransactionStatus::Idle { self.state.transaction.take() } else { None };
        if let Some(ended) = ended {
            cold_path();
            changed_catalogue |= ended.changed_catalogue;
            defined_code |= ended.defined_code;
            elapsed = ended.since.elapsed();
        }
        // Before this write stops being under way: others' writes may reach further from here on.
        if changed_catalogue {
            cold_path();
            let change = self.database.catalogue_changed();
            // It may be there no more, or be another one.
            databases_needed(unit).for_each(|name| self.database.look_again(name));
            if defined_code {
                self.state.unread_code = NonZeroU64::new(change);
            }
        }
        if status == TransactionStatus::Idle {
            if std::mem::take(&mut self.state.changed_defaults) {
                self.database.defaults_changed();
            }
            self.database.metrics.record_transaction(route, elapsed);
            if let Some(mark) = self.state.write_mark.take() {
                self.state.freshness = Freshness::Pending(mark.acknowledged());
                self.state.last_read = None;
            } else if self.state.consistency == Consistency::Monotonic {
                self.note_read(route, host_id);
            }
        }
    }

    /// The session loses this host before its transaction, or an answer of which it `has_some`, has ended: what it has read there
    /// counts all the same.
    pub(super) fn note_shown(&mut self, (route, host_id): (QueryRoute, u32), has_some: bool) {
        let shown = has_some || self.state.transaction.is_some() || self.state.pipeline_open;
        if shown && self.state.consistency == Consistency::Monotonic {
            self.note_read(route, host_id);
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

/// Whether a statement writes only through functions that the catalogue knows: `nextval()` must not cost the session its sequences.
fn calls_what_is_known(access: Access) -> bool {
    matches!(access, Access::Read | Access::Session | Access::Server | Access::Write(WriteReason::VolatileFunction))
}
